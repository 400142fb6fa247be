//! What the sides said, and how far ours is from the goal.

use std::collections::BTreeMap;
use std::fmt;

use clap::ValueEnum;

use super::Side;

/// Starts the line that says which side is measured next.
pub(super) const SIDE: &str = "side ";

/// A measurement, and what is aimed at.
struct Line {
    name: &'static str,
    goal: Goal,
}

#[derive(Clone, Copy)]
enum Goal {
    /// At most half as far from the host as the peer is.
    HalfTheDistance,
    /// The peer's figure, bettered by this factor.
    Factor(f64),
}

const LINES: [Line; 14] = [
    Line::network("connect"),
    Line::network("ping-pong-64"),
    Line::network("ping-pong-16k"),
    Line::network("udp"),
    Line::network("up"),
    Line::network("down"),
    Line::files("create", 2.0),
    Line::files("stat", 2.0),
    Line::files("open-read", 2.0),
    Line::files("unlink", 2.0),
    Line::files("write-fsync", 1.6),
    Line::files("first-read", 1.6),
    Line::files("read", 1.6),
    Line::files("read-again", 1.6),
];

impl Line {
    const fn network(name: &'static str) -> Self {
        Self {
            name,
            goal: Goal::HalfTheDistance,
        }
    }

    const fn files(name: &'static str, factor: f64) -> Self {
        Self {
            name,
            goal: Goal::Factor(factor),
        }
    }
}

/// A measured value.
#[derive(Clone)]
enum Value {
    Microseconds(f64),
    MebibytesPerSecond(f64),
    None(String),
}

/// The values of all sides.
#[derive(Default)]
pub(super) struct Table {
    values: BTreeMap<(Side, String), Value>,
    side: Option<Side>,
}

/// A side as the user names it.
pub(super) fn name_of(side: Side) -> String {
    side.to_possible_value()
        .map_or_else(String::new, |value| value.get_name().to_owned())
}

impl Table {
    /// Takes a line that was printed in the outer host; one that tells nothing is left alone.
    pub(super) fn take(&mut self, line: &str) {
        if let Some(name) = line.strip_prefix(SIDE) {
            self.side = Side::from_str(name, false).ok();
            return;
        }
        let Some(side) = self.side else { return };
        let words: Vec<_> = line.split_whitespace().collect();
        let (name, value) = match words.as_slice() {
            ["result", name, value, unit] => match (value.parse(), *unit) {
                (Ok(value), "us") => (name, Value::Microseconds(value)),
                (Ok(value), "MiB/s") => (name, Value::MebibytesPerSecond(value)),
                _ => return,
            },
            ["failed", name, why @ ..] => (name, Value::None(why.join(" "))),
            _ => return,
        };
        self.values.insert((side, (*name).to_owned()), value);
    }

    /// The names of those sides that have no value at all.
    pub(super) fn sides_without_a_value(&self, sides: &[Side]) -> Vec<String> {
        let measured = |side: Side| {
            self.values
                .iter()
                .any(|((of, _), value)| *of == side && value.number().is_some())
        };
        sides
            .iter()
            .filter(|side| !measured(**side))
            .map(|side| name_of(*side))
            .collect()
    }

    fn value(&self, side: Side, name: &str) -> Option<&Value> {
        self.values.get(&(side, name.to_owned()))
    }

    fn reached(&self, line: &Line) -> Option<bool> {
        let [ours, peer, host] = [Side::Tessera, Side::MsbKrun, Side::Host].map(|side| self.value(side, line.name));
        reached(line.goal, ours?, peer?, host?)
    }
}

impl Value {
    fn number(&self) -> Option<f64> {
        match self {
            Self::Microseconds(value) | Self::MebibytesPerSecond(value) => Some(*value),
            Self::None(_) => None,
        }
    }
}

/// A peer that did not come to an end has a throughput of nothing.
fn reached(goal: Goal, ours: &Value, peer: &Value, host: &Value) -> Option<bool> {
    let (peer, host) = (peer.number(), host.number()?);
    match ours {
        Value::None(_) => Some(false),
        Value::Microseconds(ours) => {
            let peer = peer?;
            Some(match goal {
                Goal::HalfTheDistance => *ours <= f64::midpoint(peer, host),
                Goal::Factor(factor) => *ours <= peer / factor,
            })
        }
        Value::MebibytesPerSecond(ours) => {
            let peer = peer.unwrap_or(0.0);
            Some(match goal {
                Goal::HalfTheDistance => *ours >= f64::midpoint(peer, host),
                Goal::Factor(factor) => *ours >= peer * factor,
            })
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<14} {:>16} {:>16} {:>16}  goal",
            "", "tessera", "msb_krun", "no guest"
        )?;
        for line in &LINES {
            write!(f, "{:<14}", line.name)?;
            for side in [Side::Tessera, Side::MsbKrun, Side::Host] {
                let shown = self
                    .value(side, line.name)
                    .map_or_else(|| "-".to_owned(), ToString::to_string);
                write!(f, " {shown:>16}")?;
            }
            let reached = match self.reached(line) {
                Some(true) => "reached",
                Some(false) => "NOT reached",
                None => "not known",
            };
            writeln!(f, "  {}: {reached}", line.goal)?;
        }
        write!(
            f,
            "Time is CLOCK_MONOTONIC of each kernel; the outer host counts 1 ns for an instruction."
        )
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HalfTheDistance => write!(f, "distance halved"),
            Self::Factor(factor) => write!(f, "{factor} times better"),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Microseconds(value) => write!(f, "{value:.1} us"),
            Self::MebibytesPerSecond(value) => write!(f, "{value:.0} MiB/s"),
            Self::None(why) => f.write_str(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_is_halved_from_the_middle_between_peer_and_host_on() {
        let [ours, peer, host] = [93.0, 152.0, 34.0].map(Value::Microseconds);
        assert_eq!(reached(Goal::HalfTheDistance, &ours, &peer, &host), Some(true));
        let ours = Value::Microseconds(93.5);
        assert_eq!(reached(Goal::HalfTheDistance, &ours, &peer, &host), Some(false));
    }

    #[test]
    fn throughput_against_a_stalled_peer_counts_from_nothing() {
        let [ours, host] = [146.0, 292.0].map(Value::MebibytesPerSecond);
        let peer = Value::None("stalled at 262144".to_owned());
        assert_eq!(reached(Goal::HalfTheDistance, &ours, &peer, &host), Some(true));
        let ours = Value::None("stalled at 0".to_owned());
        assert_eq!(reached(Goal::HalfTheDistance, &ours, &peer, &host), Some(false));
    }

    #[test]
    fn lines_of_a_side_are_kept_and_others_are_not() {
        let mut table = Table::default();
        for line in [
            "result udp 1 us",
            "side tessera",
            "result udp 29.5 us",
            "[ 0.1] result",
            "failed up stalled at 7",
        ] {
            table.take(line);
        }
        assert_eq!(table.value(Side::Tessera, "udp").and_then(Value::number), Some(29.5));
        assert_eq!(
            table.value(Side::Tessera, "up").map(ToString::to_string).as_deref(),
            Some("stalled at 7")
        );
        assert_eq!(table.values.len(), 2);
        assert_eq!(
            table.sides_without_a_value(&[Side::Tessera, Side::MsbKrun]),
            ["msb-krun"]
        );
    }
}
