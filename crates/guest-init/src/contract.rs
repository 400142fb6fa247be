//! Names and numbers that host and init agree on.

/// Where the kernel finds the init: a virtual file of the root share, to be passed as `init=`.
pub const INIT_PATH: &str = "/.tessera/init";

/// Where the init finds its [`Config`](crate::config::Config), as JSON.
pub const CONFIG_PATH: &str = "/.tessera/config.json";

/// The folder of the two. The init mounts the share of a single file over it for as long as it takes to bind the file to
/// its place.
pub const FOLDER: &str = "/.tessera";

/// What the file is called in the share of a single file.
pub const SHARED_FILE: &str = "file";

/// The name of the port that is the program's standard input.
pub const STDIN_PORT: &str = "tessera-stdin";

/// The name of the port that is the program's standard output.
pub const STDOUT_PORT: &str = "tessera-stdout";

/// The name of the port that is the program's standard error.
pub const STDERR_PORT: &str = "tessera-stderr";

/// The name of the port on which the host sends signals, each one byte with its Linux number. Those a terminal makes
/// (SIGINT, SIGQUIT, SIGTSTP) go to the program's process group, others to the program.
pub const CONTROL_PORT: &str = "tessera-control";

/// `ioctl` on `/` by PID 1 with the exit code as its argument: the program ended. Killed by signal n is 128 + n.
pub const EXIT_CODE_IOCTL: u32 = 0x7602;

/// `ioctl` on `/` by PID 1 with the number of a [`Failure`] as its argument: the program never ran.
pub const FAILURE_IOCTL: u32 = 0x7610;

/// Why there is no exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There is no such program (or the interpreter that it names is not there).
    NotFound,
    /// There is such a file, but the kernel does not execute it.
    NotExecutable,
    /// A mount, a limit or a port that was asked for could not be had.
    SetUpFailed,
}

impl Failure {
    /// The argument of [`FAILURE_IOCTL`].
    pub const fn number(self) -> u32 {
        match self {
            Self::NotFound => 1,
            Self::NotExecutable => 2,
            Self::SetUpFailed => 3,
        }
    }

    /// The failure with this [`number`](Self::number).
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::NotFound),
            2 => Some(Self::NotExecutable),
            3 => Some(Self::SetUpFailed),
            _ => None,
        }
    }

    /// The status that a shell gives in this case: 127, 126, and 125 for what went wrong before.
    pub const fn shell_status(self) -> u8 {
        match self {
            Self::NotFound => 127,
            Self::NotExecutable => 126,
            Self::SetUpFailed => 125,
        }
    }
}
