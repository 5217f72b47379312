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

/// The candidate reports that it polls once this many watches in a row have broken.
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
                // The watch may break again soon, so it must last for a lease duration before it is reported to work.
                if self.polling_reported {
                    self.timers.set(Timer::WatchSettled, now.boot + self.config.timing.lease_duration());
                }
            }
            WatchEvent::Changed(stored) => self.observe_watched(now, Some(stored)),
            WatchEvent::Deleted => self.observe_watched(now, None),
            WatchEvent::Ended => self.reopen_watch_at(retry_at),
            WatchEvent::Broken | WatchEvent::Refused { .. } => {
                // A watch that lasted for a lease duration has worked, so the watches before it no longer count.
                let was_settled = now.boot >= since + self.config.timing.lease_duration();
                self.broken_watches = if was_settled { 1 } else { self.broken_watches.saturating_add(1) };
                if self.broken_watches >= BROKEN_WATCHES_UNTIL_NOTICE {
                    self.notify_polling();
                }
                let pause = match event {
                    WatchEvent::Refused { retry_after } => retry_after.min(MAX_REQUESTED_PAUSE),
                    _ => Duration::ZERO,
                };
                self.poll_and_reopen_watch_at(retry_at.max(now.boot + pause), retry_at);
            }
            WatchEvent::Forbidden => {
                self.notify_polling();
                self.poll_and_reopen_watch_at(now.boot + FORBIDDEN_WATCH_PAUSE, retry_at);
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

    /// Drops the watch, if one is open. If the candidate still waits, a new one may be opened at once.
    pub(super) fn drop_watch(&mut self) {
        if matches!(self.watch, WatchState::Open { .. }) {
            self.actions.push(ElectionAction::Unwatch);
            self.watch_events_are_stale = true;
        }
        self.watch = WatchState::Closed;
        self.timers.stop(Timer::ReopenWatch);
        self.timers.stop(Timer::WatchSettled);
        self.timers.stop(Timer::SilentWatch);
    }

    /// Records that the watch has ended. A new one is opened at `reopen_at`.
    fn reopen_watch_at(&mut self, reopen_at: Instant) {
        self.watch = WatchState::Closed;
        self.timers.set(Timer::ReopenWatch, reopen_at);
        self.timers.stop(Timer::WatchSettled);
        self.timers.stop(Timer::SilentWatch);
    }

    /// Records that the watch has ended. The record is polled from `poll_at` on, until a new watch is opened after
    /// `reopen_at`.
    fn poll_and_reopen_watch_at(&mut self, reopen_at: Instant, poll_at: Instant) {
        self.reopen_watch_at(reopen_at);
        self.timers.set(Timer::Poll, poll_at);
    }
}
