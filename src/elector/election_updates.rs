//! Translates the steps of an election into updates for observers, such as the metrics.

use std::collections::BTreeSet;
use std::time::Duration;

use leaderrun_core::election::{Reply, Request, WatchEvent};
use leaderrun_core::instant::Instant;
use leaderrun_core::slots::SlotElection;
use leaderrun_core::tenure::Tenure;
use leaderrun_core::updates::{MeasuredThread, Observed, RenewalResult, Update};

use crate::lock::{LockError, LockErrorKind};
use crate::process::clock;
use crate::telemetry::observer::Observer;

/// Sends updates about an election to its observers.
#[derive(Debug)]
pub struct ElectionUpdates {
    observer: Observer,
    /// How long this candidate waits before it claims a free lock.
    claim_delay: Duration,
    /// When the command is stopped unless a renewal succeeds; `None` while this candidate does not lead.
    stop_at: Option<Instant>,
    /// When the pending renewal was sent; `None` if no renewal is pending.
    renewal_sent_at: Option<Instant>,
    /// The slots that have been watched at least once.
    watched: BTreeSet<usize>,
    /// Whether the pending request is a write other than a renewal.
    is_other_write: bool,
    /// The instant for which the election's timer is set.
    timer_due: Option<Instant>,
}

impl ElectionUpdates {
    /// Creates the sender of updates for an election that has not begun.
    pub fn new(observer: Observer, claim_delay: Duration) -> Self {
        Self {
            observer,
            claim_delay,
            stop_at: None,
            renewal_sent_at: None,
            watched: BTreeSet::new(),
            is_other_write: false,
            timer_due: None,
        }
    }

    /// Records the instant for which the election's timer is set.
    pub fn timer_set(&mut self, due: Option<Instant>) {
        self.timer_due = due;
    }

    /// Tells the election how late its timer expired. If that changes the delay that the election allows for, the
    /// election renews earlier or later, and the new delay is reported to the observers.
    pub fn timer_expired(&mut self, election: &mut SlotElection) {
        let Some(due) = self.timer_due.take() else { return };
        let now = clock::now();
        if let Some(delay) = election.note_delay(now, now.since(due)) {
            self.observer.notify(Update::SchedulingDelay { thread: MeasuredThread::Election, delay });
        }
    }

    /// Reports the state of the election after a step.
    pub fn stepped(&self, election: &SlotElection) {
        self.observer.notify(Update::NextTimeout(election.next_timeout()));
        // A standby reports the slot that it may acquire first.
        let slots = match election.leading_slot() {
            Some(slot) => slot..slot + 1,
            None => 0..election.slot_count(),
        };
        let observed = slots.filter_map(|slot| election.election(slot).observed());
        if let Some((record, acquirable_at)) = observed.min_by_key(|(_, acquirable_at)| *acquirable_at) {
            self.observer.notify(Update::Observed(Observed {
                holder: record.map(|record| record.holder_identity.clone()).unwrap_or_default(),
                since: record.and_then(|record| record.acquire_time),
                transitions: record.map(|record| record.lease_transitions),
                acquirable_at: acquirable_at + self.claim_delay,
            }));
        }
    }

    /// Records that a request was sent. If a renewal is still pending, reports that it has timed out.
    pub fn request_sent(&mut self, request: &Request) {
        self.end_renewal(RenewalResult::Timeout);
        let is_write = *request != Request::Get;
        let is_renewal = self.stop_at.is_some() && is_write;
        self.is_other_write = self.stop_at.is_none() && is_write;
        self.renewal_sent_at = is_renewal.then(clock::now);
    }

    /// Reports what observers need to know about the result of the pending request.
    pub fn request_finished(&mut self, result: &Result<Reply, LockError>) {
        match result.as_ref().map_err(|error| error.kind) {
            Ok(_) | Err(LockErrorKind::Conflict) => self.observer.notify(Update::LockResponded),
            Err(LockErrorKind::Forbidden | LockErrorKind::Refused) if self.is_other_write => {
                self.observer.notify(Update::WriteRefused);
            }
            Err(_) => {}
        }
        self.end_renewal(match result {
            Ok(_) => RenewalResult::Success,
            Err(error) => match error.kind {
                LockErrorKind::Conflict => RenewalResult::Conflict,
                LockErrorKind::Forbidden | LockErrorKind::Refused => RenewalResult::Refused,
                LockErrorKind::Unknown => RenewalResult::Error,
            },
        });
    }

    fn end_renewal(&mut self, result: RenewalResult) {
        if let Some(sent_at) = self.renewal_sent_at.take() {
            self.observer.notify(Update::Renewal { result, took: clock::now().since(sent_at) });
        }
    }

    /// Reports the number of the acquired slot. This must be called before [`acquired`](Self::acquired).
    pub fn acquired_slot(&self, slot: usize) {
        self.observer.notify(Update::Slot(slot));
    }

    /// Reports that the lock was acquired.
    pub fn acquired(&self, token: String, uids: Vec<String>) {
        self.observer.notify(Update::Acquired { token, uids });
    }

    /// Records a new tenure. If it is from a renewal, reports how much time was left until the old stop instant.
    pub fn record_tenure(&mut self, tenure: Tenure) {
        if let Some(previous_stop) = self.stop_at.replace(tenure.stop) {
            self.observer.notify(Update::Renewed { margin: previous_stop.since(clock::now()) });
        }
    }

    /// Records that, unless a renewal succeeds, the command is stopped at this instant, before the tenure's stop
    /// instant.
    pub fn bring_stop_forward(&mut self, instant: Instant) {
        self.stop_at = self.stop_at.map(|stop_at| stop_at.min(instant));
    }

    /// Returns the time until the command will be stopped unless a renewal succeeds; `None` if the lock is not held or
    /// the command is already being stopped.
    pub fn time_until_stop(&self) -> Option<Duration> {
        let now = clock::now();
        self.stop_at.filter(|stop_at| now < *stop_at).map(|stop_at| stop_at.since(now))
    }

    /// Records that the command is gone. Later writes release the lock, so they do not count as renewals.
    pub fn command_gone(&mut self) {
        self.stop_at = None;
    }

    /// Records that a watch was opened, and reports a restart if the slot was watched before.
    pub fn watch_opened(&mut self, slot: usize) {
        if !self.watched.insert(slot) {
            self.observer.notify(Update::WatchRestarted);
        }
    }

    /// Reports that the lock has responded, unless the event is a failure of the watch.
    pub fn watch_event(&self, event: &WatchEvent) {
        if !matches!(event, WatchEvent::Broken | WatchEvent::Refused { .. } | WatchEvent::Forbidden) {
            self.observer.notify(Update::LockResponded);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_until_the_stop_reflects_renewals_and_a_stop_brought_forward_and_is_none_once_the_stop_begins() {
        let mut updates = ElectionUpdates::new(Observer::new(|_| {}), Duration::ZERO);
        let (now, hour) = (clock::now(), Duration::from_secs(3600));
        let tenure = Tenure { renewal_sent_at: now, stop: now + hour * 3, kill: now + hour * 4 };
        assert_eq!(updates.time_until_stop(), None);
        updates.bring_stop_forward(now + hour);
        assert_eq!(updates.time_until_stop(), None, "this candidate does not lead");
        updates.record_tenure(tenure);
        assert!(updates.time_until_stop().unwrap() > hour * 2);
        updates.bring_stop_forward(now + hour);
        assert!(updates.time_until_stop().unwrap() <= hour);
        updates.bring_stop_forward(now);
        assert_eq!(updates.time_until_stop(), None, "the stop has begun");
        updates.record_tenure(tenure);
        assert!(updates.time_until_stop().unwrap() > hour * 2);
    }
}
