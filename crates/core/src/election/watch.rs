//! Handles the events of a standby's watch. While the watch does not work, the standby polls.

use core::mem;
use core::time::Duration;

use super::timers::Timer;
use super::{Election, ElectionAction, ElectionNotice, FORBIDDEN_WATCH_PAUSE, MAX_REQUESTED_PAUSE, Now, WatchEvent};
use crate::instant::Instant;
use crate::record::Stored;

/// If an open watch delivers no event for this long, the record is read, because a watch does not end on its own when
/// its connection is dead. A working watch delivers a bookmark every minute, so it causes no reads.
pub const SILENT_WATCH_LIMIT: Duration = Duration::from_secs(90);

/// The count in `Election::broken_watches` from which the candidate reports that it polls.
const BROKEN_WATCHES_UNTIL_NOTICE: u32 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum WatchState {
    Closed,
    /// The watch was requested at `since`, and is not known to have ended.
    Open {
        since: Instant,
    },
}

impl Election {
    pub(super) fn handle_watch_event(&mut self, now: Now, event: WatchEvent) {
        let WatchState::Open { since } = self.watch else { return };
        if !self.is_waiting() {
            return;
        }
        // A watch that ends soon after it was opened is not reopened at once, because the server may end every watch as
        // soon as it is opened.
        let retry_at = now.boot.max(since + self.draw_retry_pause());
        self.timers.set(Timer::SilentWatch, now.boot + SILENT_WATCH_LIMIT);
        match event {
            WatchEvent::Bookmark => {}
            WatchEvent::Opened => {
                if self.polling_reported {
                    self.timers.set(Timer::WatchSettled, now.boot + self.config.timing.lease_duration());
                }
            }
            WatchEvent::Changed(stored) => self.observe_watched(now, Some(stored)),
            WatchEvent::Deleted => self.observe_watched(now, None),
            WatchEvent::Ended => self.close_watch(retry_at),
            WatchEvent::Broken | WatchEvent::Refused { .. } => {
                let was_settled = now.boot >= since + self.config.timing.lease_duration();
                self.broken_watches = if was_settled { 1 } else { self.broken_watches.saturating_add(1) };
                if self.broken_watches >= BROKEN_WATCHES_UNTIL_NOTICE {
                    self.notify_polling();
                }
                let pause = match event {
                    WatchEvent::Refused { retry_after } => retry_after.min(MAX_REQUESTED_PAUSE),
                    _ => Duration::ZERO,
                };
                self.close_watch_and_poll(retry_at.max(now.boot + pause), retry_at);
            }
            WatchEvent::Forbidden => {
                self.notify_polling();
                self.close_watch_and_poll(now.boot + FORBIDDEN_WATCH_PAUSE, retry_at);
            }
        }
        self.decide(now);
    }

    fn observe_watched(&mut self, now: Now, stored: Option<Stored>) {
        if let Some(pending) = &mut self.pending {
            pending.is_overtaken = true;
        }
        self.observe(now, stored);
    }

    fn notify_polling(&mut self) {
        if !mem::replace(&mut self.polling_reported, true) {
            self.actions.push(ElectionAction::Notify(ElectionNotice::Polling));
        }
    }

    pub(super) fn stop_watching(&mut self) {
        if matches!(self.watch, WatchState::Open { .. }) {
            self.actions.push(ElectionAction::Unwatch);
            self.watch_replaced = true;
        }
        self.watch = WatchState::Closed;
        self.timers.stop(Timer::ReopenWatch);
        self.timers.stop(Timer::WatchSettled);
        self.timers.stop(Timer::SilentWatch);
    }

    fn close_watch(&mut self, reopen_at: Instant) {
        self.watch = WatchState::Closed;
        self.timers.set(Timer::ReopenWatch, reopen_at);
        self.timers.stop(Timer::WatchSettled);
        self.timers.stop(Timer::SilentWatch);
    }

    fn close_watch_and_poll(&mut self, reopen_at: Instant, poll_at: Instant) {
        self.close_watch(reopen_at);
        self.timers.set(Timer::Poll, poll_at);
    }
}
