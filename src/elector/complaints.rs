//! What is said of requests that fail: each thing once, however long it lasts.

use std::time::Duration;

use leaderrun_core::instant::Instant;

/// Different complaints that are said at once; what varies all the time has to wait.
const SAID_AT_ONCE: usize = 3;

/// Until something is said again that has come back. Doubled each time.
const PAUSES: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(600));

/// After this long without any failure, what was said is forgotten.
const CALM: Duration = Duration::from_secs(60);

/// What a request does: reading may go well while writing does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
}

/// What has been said; see the [module](self).
#[derive(Debug, Default)]
pub struct Complaints {
    read_fails: bool,
    write_fails: bool,
    /// The last word was a complaint.
    in_trouble: bool,
    said: Vec<String>,
    pause: Duration,
    again_at: Option<Instant>,
    calm_at: Option<Instant>,
}

impl Complaints {
    /// A request failed. Whether that is to be said.
    pub fn failed(&mut self, now: Instant, access: Access, complaint: &str) -> bool {
        *self.fails(access) = true;
        if self.calm_at.is_none_or(|at| now >= at) {
            (self.said, self.pause, self.again_at) = (Vec::new(), PAUSES.0, None);
        }
        self.calm_at = Some(now + CALM);
        let is_new = self.said.iter().all(|said| said != complaint);
        let is_due = self.again_at.is_none_or(|at| now >= at);
        let says = match is_new {
            true => is_due || self.said.len() < SAID_AT_ONCE,
            false => is_due && !self.in_trouble,
        };
        if says {
            if is_due {
                self.again_at = Some(now + self.pause);
                self.pause = (self.pause * 2).min(PAUSES.1);
            }
            if is_new {
                self.said.truncate(SAID_AT_ONCE - 1);
                self.said.insert(0, complaint.to_owned());
            }
            self.in_trouble = true;
        }
        says
    }

    /// A request was answered. Whether the end of the trouble is to be said.
    pub fn answered(&mut self, access: Access) -> bool {
        *self.fails(access) = false;
        let is_over = self.in_trouble && !self.read_fails && !self.write_fails;
        self.in_trouble &= !is_over;
        is_over
    }

    fn fails(&mut self, access: Access) -> &mut bool {
        match access {
            Access::Read => &mut self.read_fails,
            Access::Write => &mut self.write_fails,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::after_boot(Duration::from_secs(seconds))
    }

    /// How often in an hour of seconds something is said of what `happens` in each.
    fn lines(mut happens: impl FnMut(&mut Complaints, u64) -> usize) -> usize {
        let mut complaints = Complaints::default();
        (0..3600).map(|second| happens(&mut complaints, second)).sum()
    }

    #[test]
    fn what_lasts_is_said_once_and_so_is_its_end() {
        let mut complaints = Complaints::default();
        let said: Vec<bool> = (0..900).map(|second| complaints.failed(at(second), Access::Read, "no answer")).collect();
        assert_eq!(said.iter().filter(|said| **said).count(), 1);
        assert!(said[0] && complaints.answered(Access::Read) && !complaints.answered(Access::Read));
    }

    #[test]
    fn what_works_does_not_end_what_fails() {
        let mut complaints = Complaints::default();
        assert!(complaints.failed(at(0), Access::Write, "refused"));
        assert!(!complaints.answered(Access::Read));
        assert!(!complaints.failed(at(1), Access::Write, "refused"));
        assert!(complaints.answered(Access::Write));
    }

    #[test]
    fn what_changes_all_the_time_is_said_less_and_less_often() {
        let varying = lines(|complaints, second| {
            usize::from(complaints.failed(at(second), Access::Read, &format!("port {second}")))
        });
        let in_turn = lines(|complaints, second| {
            usize::from(complaints.failed(at(second), Access::Read, ["a", "b"][second as usize % 2]))
        });
        let every_other = lines(|complaints, second| match second % 2 {
            0 => usize::from(complaints.failed(at(second), Access::Read, "no answer")),
            _ => usize::from(complaints.answered(Access::Read)),
        });
        assert!(varying < 20 && in_turn == 2 && every_other < 30, "{varying} {in_turn} {every_other}");
    }

    #[test]
    fn what_comes_back_after_a_calm_time_is_said_at_once() {
        let mut complaints = Complaints::default();
        for second in [0, 100, 200] {
            assert!(complaints.failed(at(second), Access::Read, "no answer"));
            assert!(complaints.answered(Access::Read));
        }
    }
}
