//! The log of an election: the wait for the lock, failed requests, and the notices of the state machine.

use std::mem;
use std::time::Duration;

use jiff::Timestamp;
use leaderrun_core::election::{ElectionNotice, Outcome, Reply};
use leaderrun_core::instant::Instant;
use leaderrun_core::timing::Timing;

use super::error_throttle::{ErrorThrottle, RequestKind};
use super::reminder::Reminder;
use super::role_advice::{FailureMessage, Permission, RoleAdvice};
use super::{log_events, log_notices};
use crate::lock::{LockError, LockErrorKind};
use crate::process::clock;

/// Decides what is logged about an election, and how often.
pub struct ElectionLog {
    /// The name of the lock in log lines that concern all of its slots: the result of
    /// [`name_with_slots`](super::open_lock::name_with_slots).
    name: String,
    identity: String,
    tolerated_clock_rate: f64,
    /// A failed request is urgent if less than this time is left until the command is stopped.
    urgent_below: Duration,
    slots: Vec<SlotLog>,
    /// The error of the last failed request; `None` once a request has succeeded, or another holder has been seen.
    last_failure: Option<String>,
    error_throttle: ErrorThrottle,
    role_advice: RoleAdvice,
    /// Whether the wait still has to be logged. It is logged together with the first reason to wait, so that a
    /// candidate that leads at once does not log it.
    must_log_wait: bool,
    /// Whether `leaderrun doctor` was suggested.
    is_doctor_suggested: bool,
    /// Decides when the wait is logged again; `None` once the candidate leads.
    reminder: Option<Reminder>,
}

/// The facts about one slot that decide what is logged about it next.
struct SlotLog {
    name: String,
    /// The last warning that the watch is forbidden.
    watch_refusal: Option<FailureMessage>,
    /// The last watch error other than a missing permission, until it is logged as the reason for polling.
    watch_failure: Option<String>,
    last_notice: Option<ElectionNotice>,
}

impl ElectionLog {
    /// Creates the log of an election that begins now. `name` is the result of
    /// [`name_with_slots`](super::open_lock::name_with_slots), and `slots` are the names of the locks of all slots.
    pub fn new(name: String, slots: Vec<String>, identity: String, timing: &Timing) -> Self {
        let slot = |name| SlotLog { name, watch_refusal: None, watch_failure: None, last_notice: None };
        Self {
            name,
            identity,
            tolerated_clock_rate: timing.tolerated_clock_rate(),
            urgent_below: timing.renew_deadline() / 2,
            slots: slots.into_iter().map(slot).collect(),
            last_failure: None,
            error_throttle: ErrorThrottle::default(),
            role_advice: RoleAdvice::default(),
            must_log_wait: true,
            is_doctor_suggested: false,
            reminder: Some(Reminder::new(clock::now())),
        }
    }

    /// Returns the name of the lock in log lines that concern all of its slots.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the name of the lock of a slot.
    pub fn slot_name(&self, slot: usize) -> &str {
        &self.slots[slot].name
    }

    /// Records the result of a request, and logs when failures begin and end. A conflict is not a failure. `stop_in` is
    /// the time until the command is stopped; `None` while the lock is not held, and once the stop has begun.
    pub fn request_finished(
        &mut self,
        slot: usize,
        kind: RequestKind,
        result: &Result<Reply, LockError>,
        stop_in: Option<Duration>,
    ) {
        match result {
            Ok(_) => {
                self.role_advice.handle_success(permission_for(kind));
                self.last_failure = None;
                if self.error_throttle.handle_success(kind) {
                    log_events::recovered(&self.slots[slot].name);
                }
            }
            Err(error) if error.kind == LockErrorKind::Conflict => {}
            Err(error) => {
                let message = self.role_advice.explain(&self.slots[slot].name, permission_for(kind), error);
                self.last_failure = Some(error.message.clone());
                self.log_failure(slot, kind, &message, stop_in);
            }
        }
    }

    /// Records that a request got no response in time, and logs when such failures begin. If the request has not been
    /// sent yet, `waiting_for` says what it is waiting for.
    pub fn request_timed_out(
        &mut self,
        slot: usize,
        kind: RequestKind,
        waiting_for: Option<String>,
        stop_in: Option<Duration>,
    ) {
        let name = &self.slots[slot].name;
        let (failure, message) = match waiting_for.map(|awaited| still_waiting_for(&awaited)) {
            Some(failure) => (failure.clone(), format!("cannot reach {name}: {failure}")),
            None => ("it does not respond".to_owned(), format!("{name} does not respond; trying again")),
        };
        self.last_failure = Some(failure);
        self.log_failure(slot, kind, &message.into(), stop_in);
    }

    fn log_failure(&mut self, slot: usize, kind: RequestKind, message: &FailureMessage, stop_in: Option<Duration>) {
        let FailureMessage { text, role } = message;
        let full_message = format!("{text}{}", role.as_deref().unwrap_or_default());
        let must_log = self.error_throttle.handle_failure(clock::now(), kind, &full_message);
        let is_urgent = stop_in.is_some_and(|left| left < self.urgent_below);
        if must_log || is_urgent && self.error_throttle.handle_urgent_failure() {
            self.log_wait();
            log_notices::request_failed(&self.slots[slot].name, text, role.as_deref(), stop_in);
            // A message that contains a suggestion needs no second suggestion.
            if !text.contains("; try ") && !mem::replace(&mut self.is_doctor_suggested, true) {
                log_notices::doctor_hint(&self.name);
            }
        }
    }

    /// Records that the watch works.
    pub fn watch_succeeded(&mut self) {
        self.role_advice.handle_success(Permission::Watch);
    }

    /// Logs every watch error at debug level. If the watch is forbidden, also logs a warning, unless it repeats
    /// the last one. Remembers any other error, so that the warning about polling can state it as the reason.
    pub fn watch_failed(&mut self, slot: usize, error: &LockError) {
        log_events::watch_failed(&self.slots[slot].name, &error.message);
        if error.kind != LockErrorKind::Forbidden {
            self.slots[slot].watch_failure = Some(error.message.clone());
            return;
        }
        let message = self.role_advice.explain(&self.slots[slot].name, Permission::Watch, error);
        if self.slots[slot].watch_refusal.as_ref() != Some(&message) {
            self.log_wait();
            log_notices::request_failed(&self.slots[slot].name, &message.text, message.role.as_deref(), None);
            self.slots[slot].watch_refusal = Some(message);
        }
    }

    /// Logs a notice of the state machine, unless it repeats the last one.
    pub fn notify(&mut self, slot: usize, notice: ElectionNotice) {
        // The record has been read since the last failure, so the failure is no longer the reason for waiting.
        if matches!(notice, ElectionNotice::Held { .. }) {
            self.last_failure = None;
        }
        if self.slots[slot].last_notice.as_ref() == Some(&notice) {
            return;
        }
        self.log_wait();
        let SlotLog { name, watch_failure, last_notice, .. } = &mut self.slots[slot];
        match notice {
            ElectionNotice::Polling => {
                // Without a failure, the reason is a missing permission, which `watch_failed` has logged.
                let reason = watch_failure.take().map(|reason| format!(": {reason}")).unwrap_or_default();
                let sentence = format!("cannot watch {name}{reason}; reading it every retry period instead");
                log_events::polling(name, &sentence);
            }
            _ => log_notices::election(name, &notice),
        }
        *last_notice = Some(notice);
    }

    /// Records that a renewal succeeded. If another program edits the record again, that is logged again.
    pub fn renewed(&mut self, slot: usize) {
        self.slots[slot].last_notice = None;
    }

    /// Logs that the lock of a slot was acquired, and ends the log of the wait.
    pub fn leading(&mut self, slot: usize, fencing_token: &str) {
        self.reminder = None;
        self.must_log_wait = false;
        let name = &self.slots[slot].name;
        log_notices::set_held_lock(name, fencing_token);
        log_events::leading(name, fencing_token, self.tolerated_clock_rate);
    }

    /// Logs that this candidate lost the lock of a slot, because the record names another holder or none.
    pub fn taken(&self, slot: usize, holder: &str) {
        log_notices::taken(&self.slots[slot].name, &self.identity, holder);
    }

    /// Logs the wait, unless it was logged before.
    fn log_wait(&mut self) {
        if mem::take(&mut self.must_log_wait) {
            log_events::waiting(&self.name, &self.identity, self.tolerated_clock_rate);
        }
    }

    /// Returns the error of the last failed request, unless a request has since succeeded or another holder has been
    /// seen.
    pub fn last_failure(&self) -> Option<&str> {
        self.last_failure.as_deref()
    }

    /// Returns how long the wait has lasted, if a reminder should be logged now.
    pub fn take_due_reminder(&mut self) -> Option<Duration> {
        self.reminder.as_mut()?.take_due(clock::now())
    }

    /// Returns when to call [`take_due_reminder`](Self::take_due_reminder) next.
    pub fn next_reminder(&self) -> Option<Instant> {
        self.reminder.as_ref().map(Reminder::next)
    }

    /// Logs why the candidate has not acquired the lock within `--wait`. Logs nothing for other outcomes. `not_before`
    /// is the earliest time at which the command is due. If a request has not been sent yet, `waiting_for` says what it
    /// is waiting for.
    pub fn finished(
        &self,
        outcome: Outcome,
        holders: Option<&str>,
        not_before: Option<Timestamp>,
        waiting_for: Option<String>,
    ) {
        match outcome {
            Outcome::NotAcquired => log_notices::not_acquired(&self.name, holders, not_before),
            Outcome::Unreachable => {
                let failure = self.last_failure.clone().or(waiting_for.map(|awaited| still_waiting_for(&awaited)));
                log_notices::unreachable(&self.name, failure.as_deref());
            }
            Outcome::Released | Outcome::NotReleased | Outcome::Lost | Outcome::Stopped => {}
        }
    }
}

fn still_waiting_for(awaited: &str) -> String {
    format!("still waiting for {awaited}")
}

fn permission_for(kind: RequestKind) -> Permission {
    match kind {
        RequestKind::Read => Permission::Read,
        RequestKind::Write => Permission::Write,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_forgotten_when_another_candidate_is_seen_to_hold_the_lock() {
        let second = Duration::from_secs(1);
        let timing = Timing::new(15 * second, 10 * second, 2 * second, None).expect("the durations are valid");
        let mut log = ElectionLog::new("ns/job".to_owned(), vec!["ns/job".to_owned()], "a".to_owned(), &timing);
        let message = "there is no namespace \"ns\"; try kubectl create namespace ns";
        let kind = LockErrorKind::Refused;
        let error = LockError { kind, message: message.to_owned(), retry_after: None, role: None };
        log.request_finished(0, RequestKind::Write, &Err(error), None);
        assert_eq!(log.last_failure(), Some(message));
        let held = ElectionNotice::Held { holder: "b".to_owned(), since: None, acquirable_in: 15 * second };
        log.notify(0, held);
        assert_eq!(log.last_failure(), None);
    }
}
