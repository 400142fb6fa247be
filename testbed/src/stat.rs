//! How a process or thread is doing.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// What proc(5) calls `stat`, as far as it is of use here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) name: String,
    /// One letter.
    pub(crate) state: char,
    /// The process group.
    pub(crate) group: i32,
    /// User and system time, in ticks of 10 ms.
    pub(crate) ticks: u64,
}

impl Stat {
    /// Of a process or thread, by its folder in `/proc`.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        Self::parse(&fs::read_to_string(folder.join("stat"))?).context("a stat file that is none")
    }

    /// The name stands in parentheses and may hold some; what follows is separated by spaces, from the third field on.
    fn parse(text: &str) -> Option<Self> {
        let (start, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let time = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Self {
            name: start.split_once('(')?.1.to_owned(),
            state: fields.first()?.chars().next()?,
            group: fields.get(2)?.parse().ok()?,
            ticks: time(14)? + time(15)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_parsed_whatever_the_name() {
        let stat = Stat::parse("7 (a (b) c) S 1 5 1 0 -1 4194304 9 0 0 0 31 11 0 0 20 0 3 0 100 0 0").unwrap();
        assert_eq!(
            stat,
            Stat {
                name: "a (b) c".to_owned(),
                state: 'S',
                group: 5,
                ticks: 42
            }
        );
        assert_eq!(Stat::parse("7 nothing"), None);
    }
}
