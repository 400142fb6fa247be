//! Words as a user types them.

use crate::kernel_view::place_words;
use crate::quote::check_bytes;
use crate::{Cmdline, CmdlineError, Origin};

impl Cmdline {
    /// Adds what a user typed: words parted as the kernel parts them, and after `--` arguments for init. All or nothing.
    ///
    /// # Errors
    ///
    /// A quote is left open, there is a second `--`, or any of the words is refused as by [`word`](Self::word) and
    /// [`init_arg`](Self::init_arg).
    pub fn user_words(&mut self, text: &str) -> Result<&mut Self, CmdlineError> {
        check_bytes(text)?;
        self.all_or_nothing(|line| {
            let mut after_dashes = false;
            for word in place_words(text) {
                if word.is_separator && !after_dashes {
                    after_dashes = true;
                } else if after_dashes {
                    line.init_arg(&word.param.joined())?;
                } else {
                    line.free_word(text.get(word.range).unwrap_or_default(), Origin::User)?;
                }
            }
            Ok(())
        })
    }
}
