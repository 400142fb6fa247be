//! The line itself: checks each piece as it comes.

use std::ffi::CString;

use crate::device::PARAMETER as DEVICE_PARAMETER;
use crate::kernel_view::{InitPart, Param, goes_to_init, is_well_known};
use crate::limits::SPARE;
use crate::word::{Access, Origin, Tsi, Word};
use crate::{CmdlineError, KernelLimits, MmioDevice, Usage, quote};

/// What stands between the kernel's words and the arguments of init.
const SEPARATOR: &str = " -- ";

/// A command line under construction.
///
/// Words stand in the line in the order in which they were added; arguments of init come after all of them. A refused piece
/// changes nothing.
#[derive(Debug, Clone)]
pub struct Cmdline {
    limits: KernelLimits,
    words: Vec<Word>,
    init_args: Vec<Word>,
    devices: Vec<MmioDevice>,
    usage: Usage,
}

impl Cmdline {
    /// An empty line for a kernel with these limits.
    pub fn new(limits: KernelLimits) -> Self {
        let usage = Usage {
            bytes: 1,
            init_args: 0,
            init_env: 0,
        };
        Self {
            limits,
            words: Vec::new(),
            init_args: Vec::new(),
            devices: Vec::new(),
            usage,
        }
    }

    /// Adds a word as it is written: `quiet`, `console=hvc0`, `name="a value"`.
    ///
    /// # Errors
    ///
    /// It is not one word to the kernel, is one that [`device`](Self::device) or [`tsi`](Self::tsi) adds, has bytes other than
    /// printable ASCII, or does not fit.
    pub fn word(&mut self, text: &str) -> Result<&mut Self, CmdlineError> {
        self.free_word(text, Origin::Kernel)
    }

    /// Adds a parameter with a value, quoted where that is needed.
    ///
    /// # Errors
    ///
    /// No quoting makes the kernel read name and value back; else as [`word`](Self::word).
    pub fn param(&mut self, name: &str, value: &str) -> Result<&mut Self, CmdlineError> {
        let text = quote::parameter(name, value)?;
        self.word(&text)
    }

    /// Adds the root file system: `root=`, `rootfstype=` if one is given, and `rw` or `ro`.
    ///
    /// # Errors
    ///
    /// There is a root already; else as [`param`](Self::param).
    pub fn root(&mut self, source: &str, fstype: Option<&str>, access: Access) -> Result<&mut Self, CmdlineError> {
        if self.words.iter().any(|word| word.origin == Origin::Root) {
            return Err(CmdlineError::Repeated {
                word: "root".to_owned(),
            });
        }
        self.all_or_nothing(|line| {
            line.free_word(&quote::parameter("root", source)?, Origin::Root)?;
            if let Some(fstype) = fstype {
                line.free_word(&quote::parameter("rootfstype", fstype)?, Origin::Root)?;
            }
            line.free_word(access.word(), Origin::Root).map(|_| ())
        })
    }

    /// Adds a virtio-mmio device of 4 KiB: its guest physical address and its IRQ line.
    ///
    /// # Errors
    ///
    /// Its registers or its line collide with an earlier device's, it is one that the kernel refuses, or it does not fit.
    pub fn device(&mut self, base: u64, irq: u32) -> Result<&mut Self, CmdlineError> {
        let device = MmioDevice { base, irq };
        if !device.is_taken_by_the_kernel() {
            return Err(CmdlineError::BadDevice(device));
        }
        if let Some(&earlier) = self.devices.iter().find(|earlier| earlier.collides_with(&device)) {
            return Err(CmdlineError::DeviceCollision { device, earlier });
        }
        self.add(
            Word {
                text: device.token(),
                origin: Origin::Device,
            },
            None,
        )?;
        self.devices.push(device);
        Ok(self)
    }

    /// Adds a TSI token.
    ///
    /// # Errors
    ///
    /// It is there already, or does not fit.
    pub fn tsi(&mut self, tsi: Tsi) -> Result<&mut Self, CmdlineError> {
        let word = Word {
            text: tsi.token().to_owned(),
            origin: Origin::Tsi,
        };
        if self.words.contains(&word) {
            return Err(CmdlineError::Repeated { word: word.text });
        }
        self.add(word, None)
    }

    /// Adds an argument for init, quoted where that is needed. It may be empty.
    ///
    /// # Errors
    ///
    /// It is `--`, has quotes or bytes that cannot be carried, or does not fit.
    pub fn init_arg(&mut self, text: &str) -> Result<&mut Self, CmdlineError> {
        let word = Word {
            text: quote::argument(text)?,
            origin: Origin::Init,
        };
        self.add(word, Some(InitPart::Arg))
    }

    /// Takes a word out: the first that is written just like this. Devices, TSI tokens and arguments of init stay.
    ///
    /// # Errors
    ///
    /// No such word is there.
    pub fn remove(&mut self, text: &str) -> Result<&mut Self, CmdlineError> {
        let is_it = |word: &Word| word.text == text && !matches!(word.origin, Origin::Device | Origin::Tsi);
        let Some(index) = self.words.iter().position(is_it) else {
            return Err(CmdlineError::NotThere { word: text.to_owned() });
        };
        let part = quote::as_written(text).ok().and_then(|param| part_of(&param));
        self.words.remove(index);
        let counted = self.usage.without(part);
        // Counted afresh, since the first word of a line has no space before it.
        self.usage = Usage {
            bytes: self.build().len().saturating_add(1),
            ..counted
        };
        Ok(self)
    }

    /// The words before `--`, in order.
    pub fn words(&self) -> &[Word] {
        &self.words
    }

    /// The arguments of init, as they stand in the line.
    pub fn init_args(&self) -> &[Word] {
        &self.init_args
    }

    /// The devices, in order.
    pub fn devices(&self) -> &[MmioDevice] {
        &self.devices
    }

    /// How much of the limits is used.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// The limits it was made for.
    pub fn limits(&self) -> KernelLimits {
        self.limits
    }

    /// The line.
    pub fn build(&self) -> String {
        let mut line = joined(&self.words);
        if !self.init_args.is_empty() {
            line.push_str(SEPARATOR);
            line.push_str(&joined(&self.init_args));
        }
        line
    }

    /// The line with its NUL, as it is written to guest memory.
    pub fn build_c_string(&self) -> CString {
        CString::new(self.build()).expect("every word was checked to be printable ASCII")
    }

    pub(crate) fn free_word(&mut self, text: &str, origin: Origin) -> Result<&mut Self, CmdlineError> {
        let param = quote::as_written(text)?;
        let owned = [DEVICE_PARAMETER, Tsi::Inet.token(), Tsi::Unix.token()];
        if owned.iter().any(|name| param.is_named(name)) {
            return Err(CmdlineError::Owned { word: text.to_owned() });
        }
        self.add(
            Word {
                text: text.to_owned(),
                origin,
            },
            part_of(&param),
        )
    }

    pub(crate) fn all_or_nothing(
        &mut self,
        add: impl FnOnce(&mut Self) -> Result<(), CmdlineError>,
    ) -> Result<&mut Self, CmdlineError> {
        let mut trial = self.clone();
        add(&mut trial)?;
        *self = trial;
        Ok(self)
    }

    fn add(&mut self, word: Word, part: Option<InitPart>) -> Result<&mut Self, CmdlineError> {
        let space = self.space_before(word.origin);
        let usage = self.usage.with(space.saturating_add(word.text.len()), part);
        self.check(usage, &word.text)?;
        self.usage = usage;
        let list = if word.origin == Origin::Init {
            &mut self.init_args
        } else {
            &mut self.words
        };
        list.push(word);
        Ok(self)
    }

    fn space_before(&self, origin: Origin) -> usize {
        match origin {
            Origin::Init if self.init_args.is_empty() => SEPARATOR.len(),
            Origin::Init => 1,
            _ => usize::from(!self.words.is_empty()),
        }
    }

    fn check(&self, usage: Usage, word: &str) -> Result<(), CmdlineError> {
        let word = || word.to_owned();
        let (most_args, most_env) = (most(self.limits.init_args), most(self.limits.init_env));
        if usage.bytes > self.limits.capacity {
            let (needed, capacity) = (usage.bytes, self.limits.capacity);
            return Err(CmdlineError::TooLong {
                word: word(),
                needed,
                capacity,
            });
        }
        if usage.init_args > most_args {
            return Err(CmdlineError::TooManyInitArgs {
                word: word(),
                most: most_args,
            });
        }
        if usage.init_env > most_env {
            return Err(CmdlineError::TooManyInitEnv {
                word: word(),
                most: most_env,
            });
        }
        Ok(())
    }
}

fn most(limit: usize) -> usize {
    limit.saturating_sub(SPARE)
}

/// A parameter that the kernel claims is none of init's.
fn part_of(param: &Param) -> Option<InitPart> {
    if is_well_known(&param.name) {
        None
    } else {
        goes_to_init(param)
    }
}

fn joined(words: &[Word]) -> String {
    let texts: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
    texts.join(" ")
}
