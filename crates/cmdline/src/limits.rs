//! What a kernel takes.

use crate::kernel_view::InitPart;

/// Arguments and variables that stay free below init's limits, for those that the kernel or its boot code adds.
pub(crate) const SPARE: usize = 8;

/// How much of a command line a kernel takes. Beyond the first it cuts in silence, beyond the others it panics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KernelLimits {
    /// Bytes of the line, the NUL at its end included (`COMMAND_LINE_SIZE`).
    pub capacity: usize,
    /// Arguments that init can be given (`CONFIG_INIT_ENV_ARG_LIMIT`). Eight of them stay free.
    pub init_args: usize,
    /// Variables that init can be given (`CONFIG_INIT_ENV_ARG_LIMIT`). Eight of them stay free.
    pub init_env: usize,
}

impl KernelLimits {
    /// What a stock kernel for x86_64 or aarch64 takes at least.
    pub const STOCK: Self = Self {
        capacity: 2048,
        init_args: 32,
        init_env: 32,
    };

    /// What the kernel of libkrunfw 5.6 takes.
    pub const LIBKRUNFW: Self = Self {
        capacity: 16384,
        init_args: 256,
        init_env: 256,
    };

    /// What a bzImage says of itself: `cmdline_size` of its setup header (boot protocol 2.06), which leaves out the NUL.
    pub const fn of_setup_header(cmdline_size: u32) -> Self {
        Self {
            capacity: (cmdline_size as usize).saturating_add(1),
            ..Self::STOCK
        }
    }
}

/// How much of the limits a line uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Usage {
    /// Bytes of the line, the NUL included.
    pub bytes: usize,
    /// Arguments that init will get.
    pub init_args: usize,
    /// Variables that init will get, beside `HOME` and `TERM`.
    pub init_env: usize,
}

impl Usage {
    pub(crate) fn with(self, bytes: usize, part: Option<InitPart>) -> Self {
        Self {
            bytes: self.bytes.saturating_add(bytes),
            init_args: self.init_args.saturating_add(usize::from(part == Some(InitPart::Arg))),
            init_env: self.init_env.saturating_add(usize::from(part == Some(InitPart::Env))),
        }
    }

    pub(crate) fn without(self, part: Option<InitPart>) -> Self {
        Self {
            init_args: self.init_args.saturating_sub(usize::from(part == Some(InitPart::Arg))),
            init_env: self.init_env.saturating_sub(usize::from(part == Some(InitPart::Env))),
            ..self
        }
    }
}
