//! Decides which failed requests are logged. A failure that lasts is logged once when it begins and once when it ends.

use std::mem;
use std::time::Duration;

use leaderrun_core::instant::Instant;

/// How many different errors are logged immediately. After that, at most one error is logged per pause, so that a
/// message that varies each time does not flood the log.
const BURST: usize = 3;

/// The length of the first pause. Logging an error starts a pause, unless one is already running. During a pause,
/// repeated errors are not logged, and new ones only while fewer than [`BURST`] different errors have been logged since
/// the last reset (see [`RESET_AFTER`]). Each pause is twice as long as the previous one, up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_secs(10);

const MAX_PAUSE: Duration = Duration::from_secs(600);

/// The time without a failure after which errors and pauses are forgotten.
const RESET_AFTER: Duration = Duration::from_secs(60);

/// The kind of a request. Reads may succeed while writes fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    Read,
    Write,
}

/// Keeps track of which errors were logged; see the [module](self).
#[derive(Debug, Default)]
pub struct ErrorThrottle {
    is_read_failing: bool,
    is_write_failing: bool,
    /// Whether the last logged line reported a failure, and not its end.
    is_logged_as_failing: bool,
    /// The latest errors that were logged.
    logged: Vec<String>,
    pause: Duration,
    pause_ends_at: Option<Instant>,
    reset_at: Option<Instant>,
}

impl ErrorThrottle {
    /// Records a failed request, and returns whether to log it.
    pub fn handle_failure(&mut self, now: Instant, kind: RequestKind, error: &str) -> bool {
        *self.failing_flag(kind) = true;
        if self.reset_at.is_none_or(|reset_at| now >= reset_at) {
            (self.logged, self.pause, self.pause_ends_at) = (Vec::new(), MIN_PAUSE, None);
        }
        self.reset_at = Some(now + RESET_AFTER);
        let is_new = self.logged.iter().all(|logged| logged != error);
        let is_pause_over = self.pause_ends_at.is_none_or(|ends_at| now >= ends_at);
        let must_log = if is_new {
            is_pause_over || self.logged.len() < BURST
        } else {
            is_pause_over && !self.is_logged_as_failing
        };
        if must_log {
            if is_pause_over {
                self.pause_ends_at = Some(now + self.pause);
                self.pause = (self.pause * 2).min(MAX_PAUSE);
            }
            if is_new {
                self.logged.truncate(BURST - 1);
                self.logged.insert(0, error.to_owned());
            }
            self.is_logged_as_failing = true;
        }
        must_log
    }

    /// Reconsiders a failure that [`handle_failure`](Self::handle_failure) suppressed, and returns whether to log it
    /// after all: false if the last logged line already reports a failure. This should be called if the failure may end
    /// leadership, and only after `handle_failure` has returned false.
    pub fn handle_urgent_failure(&mut self) -> bool {
        !mem::replace(&mut self.is_logged_as_failing, true)
    }

    /// Records a successful request, and returns whether to log that the failure is over.
    pub fn handle_success(&mut self, kind: RequestKind) -> bool {
        *self.failing_flag(kind) = false;
        let is_over = self.is_logged_as_failing && !self.is_read_failing && !self.is_write_failing;
        self.is_logged_as_failing &= !is_over;
        is_over
    }

    fn failing_flag(&mut self, kind: RequestKind) -> &mut bool {
        match kind {
            RequestKind::Read => &mut self.is_read_failing,
            RequestKind::Write => &mut self.is_write_failing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::after_boot(Duration::from_secs(seconds))
    }

    /// Returns the number of lines logged in an hour in which `request` is made every second.
    fn logged_lines(request: impl Fn(&mut ErrorThrottle, u64) -> bool) -> usize {
        let mut throttle = ErrorThrottle::default();
        (0..3600).filter(|second| request(&mut throttle, *second)).count()
    }

    #[test]
    fn a_failure_that_lasts_is_logged_when_it_begins_and_when_it_ends() {
        let mut throttle = ErrorThrottle::default();
        let logged: Vec<bool> =
            (0..900).map(|second| throttle.handle_failure(at(second), RequestKind::Read, "no response")).collect();
        assert_eq!(logged.iter().filter(|logged| **logged).count(), 1);
        assert!(logged[0] && throttle.handle_success(RequestKind::Read) && !throttle.handle_success(RequestKind::Read));
    }

    #[test]
    fn a_successful_read_does_not_end_a_write_failure() {
        let mut throttle = ErrorThrottle::default();
        assert!(throttle.handle_failure(at(0), RequestKind::Write, "refused"));
        assert!(!throttle.handle_success(RequestKind::Read));
        assert!(!throttle.handle_failure(at(1), RequestKind::Write, "refused"));
        assert!(throttle.handle_success(RequestKind::Write));
    }

    #[test]
    fn errors_that_vary_or_alternate_or_come_and_go_do_not_flood_the_log() {
        let varying = logged_lines(|throttle, second| {
            throttle.handle_failure(at(second), RequestKind::Read, &format!("port {second}"))
        });
        let alternating = logged_lines(|throttle, second| {
            throttle.handle_failure(at(second), RequestKind::Read, ["a", "b"][second as usize % 2])
        });
        let intermittent = logged_lines(|throttle, second| match second % 2 {
            0 => throttle.handle_failure(at(second), RequestKind::Read, "no response"),
            _ => throttle.handle_success(RequestKind::Read),
        });
        assert!(varying < 20 && alternating == 2 && intermittent < 30, "{varying} {alternating} {intermittent}");
    }

    #[test]
    fn an_urgent_failure_is_logged_even_during_a_pause() {
        let mut throttle = ErrorThrottle::default();
        assert!(throttle.handle_failure(at(0), RequestKind::Write, "no response"));
        assert!(!throttle.handle_urgent_failure(), "the failure has already been logged");
        assert!(throttle.handle_success(RequestKind::Write));
        assert!(!throttle.handle_failure(at(1), RequestKind::Write, "no response"));
        assert!(throttle.handle_urgent_failure() && !throttle.handle_urgent_failure());
        assert!(throttle.handle_success(RequestKind::Write));
    }

    #[test]
    fn an_error_that_recurs_much_later_is_logged_at_once() {
        let mut throttle = ErrorThrottle::default();
        for second in [0, 100, 200] {
            assert!(throttle.handle_failure(at(second), RequestKind::Read, "no response"));
            assert!(throttle.handle_success(RequestKind::Read));
        }
    }
}
