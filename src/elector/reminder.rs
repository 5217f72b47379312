//! Decides when a long wait is logged again.

use std::time::Duration;

use leaderrun_core::instant::Instant;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// When the first two reminders are due, counted from the beginning of the wait. Later reminders are due daily.
const FIRST: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(3600)];

/// The reminders of a wait, which are due after a minute, after an hour, and then each day.
#[derive(Debug)]
pub struct Reminder {
    since: Instant,
    count: u32,
}

impl Reminder {
    /// Creates the reminders of a wait that begins now.
    pub fn new(now: Instant) -> Self {
        Self { since: now, count: 0 }
    }

    /// Returns the next instant at which [`take_due`](Self::take_due) returns a duration.
    pub fn next(&self) -> Instant {
        let days = self.count.saturating_sub(FIRST.len() as u32 - 1);
        self.since + FIRST.get(self.count as usize).copied().unwrap_or(DAY.saturating_mul(days))
    }

    /// Returns how long the wait has lasted if a reminder is due now. Missed reminders are skipped.
    pub fn take_due(&mut self, now: Instant) -> Option<Duration> {
        let mut is_due = false;
        while now >= self.next() {
            self.count += 1;
            is_due = true;
        }
        is_due.then(|| now.since(self.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reminders_are_due_after_a_minute_after_an_hour_and_then_each_day() {
        let start = Instant::after_boot(Duration::from_secs(1000));
        let mut reminder = Reminder::new(start);
        let minutes = 0..3 * 24 * 60 + 1;
        let due: Vec<u64> =
            minutes.filter(|minute| reminder.take_due(start + Duration::from_secs(60 * minute)).is_some()).collect();
        assert_eq!(due, [1, 60, 24 * 60, 2 * 24 * 60, 3 * 24 * 60]);
    }

    #[test]
    fn missed_reminders_are_skipped() {
        let start = Instant::after_boot(Duration::from_secs(1000));
        let mut reminder = Reminder::new(start);
        let later = start + DAY * 5;
        assert_eq!(reminder.take_due(later), Some(DAY * 5));
        assert_eq!(reminder.take_due(later), None);
        assert_eq!(reminder.next(), start + DAY * 6);
    }
}
