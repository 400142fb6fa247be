//! What a write to the status register does (virtio 1.3, 2.1 and 3.1.1).
//!
//! The driver goes 0, ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK, one bit per write and keeping the earlier ones.
//! Writing 0 resets from anywhere. FAILED can be set from anywhere and stays until reset. NEEDS_RESET is the device's:
//! with it set, only reset and FAILED are left; the bit itself is ignored in what the driver writes.

use crate::registers::{ACKNOWLEDGE, DRIVER, DRIVER_OK, FAILED, FEATURES_OK, NEEDS_RESET};

/// What the transport has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing new.
    Stay,
    /// Not allowed: ignore.
    Reject,
    /// Forget everything.
    Reset,
    /// The driver gave up.
    Fail,
    /// Set this bit.
    Set(u32),
    /// Set FEATURES_OK if the features are acceptable.
    CheckFeatures,
    /// Set DRIVER_OK and start the device.
    Activate,
}

/// `current` is what the driver would read.
pub(crate) fn step(current: u32, written: u32) -> Step {
    if written == 0 {
        return Step::Reset;
    }
    let bits = current & !NEEDS_RESET;
    let written = written & !NEEDS_RESET;
    if written == bits {
        return Step::Stay;
    }
    if current & FAILED != 0 {
        return Step::Reject;
    }
    if written & FAILED != 0 {
        return Step::Fail;
    }
    if current & NEEDS_RESET != 0 || bits & !written != 0 {
        return Step::Reject;
    }
    next(bits, written & !bits)
}

fn next(bits: u32, added: u32) -> Step {
    const ACKNOWLEDGED: u32 = ACKNOWLEDGE;
    const DRIVEN: u32 = ACKNOWLEDGE | DRIVER;
    const NEGOTIATED: u32 = DRIVEN | FEATURES_OK;
    match (bits, added) {
        (0, ACKNOWLEDGE) | (ACKNOWLEDGED, DRIVER) => Step::Set(added),
        (DRIVEN, FEATURES_OK) => Step::CheckFeatures,
        (NEGOTIATED, DRIVER_OK) => Step::Activate,
        _ => Step::Reject,
    }
}

/// The driver may write its feature bits.
pub(crate) fn negotiates_features(current: u32) -> bool {
    current & (DRIVER | FEATURES_OK | FAILED | NEEDS_RESET) == DRIVER
}

/// The driver may set up queues.
pub(crate) fn configures_queues(current: u32) -> bool {
    current & (FEATURES_OK | DRIVER_OK | FAILED | NEEDS_RESET) == FEATURES_OK
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole of the machine, as the standard's step list: (status before, status written, what happens).
    const PATH: [(u32, u32, Step); 4] = [
        (0x00, 0x01, Step::Set(0x01)),
        (0x01, 0x03, Step::Set(0x02)),
        (0x03, 0x0b, Step::CheckFeatures),
        (0x0b, 0x0f, Step::Activate),
    ];

    fn expected(current: u32, written: u32) -> Step {
        let driver_bits = written & !0x40;
        if written == 0 {
            Step::Reset
        } else if driver_bits == current & !0x40 {
            Step::Stay
        } else if current & 0x80 != 0 {
            Step::Reject
        } else if driver_bits & 0x80 != 0 {
            Step::Fail
        } else if current & 0x40 != 0 {
            Step::Reject
        } else {
            let found = PATH.iter().find(|&&(from, to, _)| from == current && to == driver_bits);
            found.map_or(Step::Reject, |&(_, _, step)| step)
        }
    }

    #[test]
    fn step_over_the_full_table_follows_the_path_of_the_standard() {
        let on_path = [0x00, 0x01, 0x03, 0x0b, 0x0f];
        for state in on_path
            .into_iter()
            .flat_map(|bits| [bits, bits | 0x40, bits | 0x80, bits | 0xc0])
        {
            for written in (0..=0xff).chain([0x100, 0x101, 0x1_0003, 0x8000_000f, u32::MAX]) {
                assert_eq!(
                    step(state, written),
                    expected(state, written),
                    "{state:#x} <- {written:#x}"
                );
            }
        }
    }

    #[test]
    fn features_are_negotiated_only_between_driver_and_features_ok() {
        let open: Vec<u32> = (0..=0xff).filter(|&status| negotiates_features(status)).collect();

        assert!(open.contains(&0x03));
        assert!(open.iter().all(|status| status & 0x02 != 0 && status & 0xc8 == 0));
    }

    #[test]
    fn queues_are_configured_only_between_features_ok_and_driver_ok() {
        let open: Vec<u32> = (0..=0xff).filter(|&status| configures_queues(status)).collect();

        assert!(open.contains(&0x0b));
        assert!(open.iter().all(|status| status & 0x08 != 0 && status & 0xc4 == 0));
    }
}
