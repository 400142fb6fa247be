//! The credit update that a Linux driver sends after it was given data.
//!
//! As soon as a program in the guest has read all there is, Linux (6.12) sends a credit update, and often what the program
//! has to say right after. Nobody waits for the update alone, yet its notification costs an exit of the guest and a turn of
//! ours. So after data was given the driver is asked to notify for the second packet from then on. If it is another one
//! that comes first, it is found with whatever comes next, and after [`PATIENCE`] at the latest; and as guesses that were
//! wrong are not repeated soon, that is rare.

use std::time::Duration;

/// How long a packet may lie in the ring without a notification.
pub(super) const PATIENCE: Duration = Duration::from_micros(100);

/// How often data is given without a guess after a wrong one, at first and at the most.
const FEWEST: u32 = 8;
const MOST: u32 = 1024;

/// Guesses what the driver sends next.
///
/// Time is that since any fixed moment, the same one in all calls.
#[derive(Debug)]
pub(super) struct UpdateToCome {
    /// When it is looked for at the latest, while it is expected.
    until: Option<Duration>,
    /// The time is over, and the ring is about to be looked at.
    overdue: bool,
    /// How often data is still given without a guess.
    pause: u32,
    next_pause: u32,
}

impl Default for UpdateToCome {
    fn default() -> Self {
        Self {
            until: None,
            overdue: false,
            pause: 0,
            next_pause: FEWEST,
        }
    }
}

impl UpdateToCome {
    /// All that there was from the driver is taken, and it was given data, or not. Gives how many packets it need not
    /// notify of.
    pub(super) fn after_a_turn(&mut self, now: Duration, given: bool) -> u16 {
        self.until = None;
        if std::mem::take(&mut self.overdue) {
            self.was_wrong();
        }
        if !given {
            return 0;
        }
        if self.pause > 0 {
            self.pause -= 1;
            return 0;
        }
        self.until = Some(now + PATIENCE);
        1
    }

    /// A packet came. Only the first one tells whether the guess was right.
    pub(super) fn came(&mut self, is_credit_update: bool) {
        let expected = self.until.take().is_some() | std::mem::take(&mut self.overdue);
        if !expected {
            return;
        }
        if is_credit_update {
            self.next_pause = FEWEST;
        } else {
            self.was_wrong();
        }
    }

    /// The ring is looked at now if the time is over. A driver that has nothing in it then reads too late for a guess to gain
    /// anything.
    pub(super) fn time_passed(&mut self, now: Duration) {
        self.overdue = self.until.take_if(|until| *until <= now).is_some();
    }

    /// When the ring is to be looked at, notified or not.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.until
    }

    fn was_wrong(&mut self) {
        self.pause = self.next_pause;
        self.next_pause = (self.next_pause * 2).min(MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(5);

    /// Gives data until the driver is not asked to notify of the first packet; how often that took.
    fn given_until_expected(update: &mut UpdateToCome) -> u32 {
        (1..).find(|_| update.after_a_turn(NOW, true) == 1).unwrap()
    }

    #[test]
    fn first_packet_after_data_needs_no_notification_until_the_time_is_over() {
        let mut update = UpdateToCome::default();
        assert_eq!(update.after_a_turn(NOW, false), 0);
        assert_eq!(update.deadline(), None);
        assert_eq!(update.after_a_turn(NOW, true), 1);
        assert_eq!(update.deadline(), Some(NOW + PATIENCE));
        update.came(true);
        assert_eq!(update.deadline(), None);
        assert_eq!(given_until_expected(&mut update), 1);
    }

    #[test]
    fn turn_without_data_asks_for_every_notification_again() {
        let mut update = UpdateToCome::default();
        update.after_a_turn(NOW, true);
        assert_eq!(update.after_a_turn(NOW, false), 0);
        assert_eq!(update.deadline(), None);
    }

    #[test]
    fn other_packet_first_or_none_in_time_is_not_guessed_at_for_longer_each_time() {
        for late in [false, true] {
            let mut update = UpdateToCome::default();
            let pauses: Vec<u32> = (0..9)
                .map(|_| {
                    let pause = given_until_expected(&mut update) - 1;
                    if late {
                        update.time_passed(NOW + PATIENCE);
                        update.after_a_turn(NOW + PATIENCE, false);
                    } else {
                        update.came(false);
                    }
                    pause
                })
                .collect();
            assert_eq!(pauses, [0, 8, 16, 32, 64, 128, 256, 512, 1024], "{late}");
            given_until_expected(&mut update);
            update.came(true);
            given_until_expected(&mut update);
            update.came(false);
            assert_eq!(given_until_expected(&mut update), 9, "a right guess makes up for it");
        }
    }

    #[test]
    fn update_that_is_found_when_the_time_is_over_was_guessed_right() {
        let mut update = UpdateToCome::default();
        update.after_a_turn(NOW, true);
        update.time_passed(NOW + PATIENCE);
        update.came(true);
        update.after_a_turn(NOW + PATIENCE, false);
        assert_eq!(given_until_expected(&mut update), 1);
    }

    #[test]
    fn packets_that_nobody_guessed_about_tell_nothing() {
        let mut update = UpdateToCome::default();
        update.came(false);
        update.time_passed(NOW);
        assert_eq!(given_until_expected(&mut update), 1);
    }

    #[test]
    fn time_that_is_not_over_changes_nothing() {
        let mut update = UpdateToCome::default();
        update.after_a_turn(NOW, true);
        update.time_passed(NOW + PATIENCE / 2);
        assert_eq!(update.deadline(), Some(NOW + PATIENCE));
    }
}
