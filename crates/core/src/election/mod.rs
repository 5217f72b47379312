//! The election: which candidate leads, and until when.
//!
//! [`Election`] is one candidate in the election for one lock. It is a state machine without I/O: it is given the
//! time, replies and watch events, and returns what to do. Production, the simulation and the model drive the same
//! code.
//!
//! # How to drive an election
//!
//! 1. Call [`Election::step`] once with no inputs: its actions begin with the first request.
//! 2. Carry out the returned actions in order. At most one request and one watch are under way at a time: a new
//!    [`ElectionAction::Send`] or [`ElectionAction::Watch`] replaces the one before it, whose result must not be handed
//!    in any more.
//! 3. Wait until a reply or a watch event arrives, until [`Election::next_timeout`], or until there is something to
//!    say about the command. Call `step` with everything that has arrived. Calling it early, or for nothing, does no
//!    harm. The order in which things that arrive together count is decided in `step`.
//! 4. Time only moves forward, on a clock that also counts suspend. Its readings are never stored in the record or
//!    compared with another machine's.
//! 5. After [`ElectionAction::StartLeading`] the command may run until the tenure's `stop`; every
//!    [`ElectionAction::Extend`] moves that instant. At `kill` nothing of the command may be left, whatever else
//!    happens. Report the end of the command with [`ElectionInputs::command_gone`], and not before nothing of it is
//!    left: the lock is released then.
//! 6. The election is over after [`ElectionAction::Finish`].
//!
//! # The rules
//!
//! The protocol is client-go's (`tools/leaderelection/leaderelection.go`), with these rules on top:
//!
//! - A tenure counts from the instant just *before* its renewal's request is sent (T0).
//! - Every write is a compare-and-swap on the uid and resourceVersion last read, a release included.
//! - Every renewal differs from the one before.
//! - "Mine" is what bears this run's mark, never what bears this candidate's name.
//! - A write without an answer is settled by reading, and counts from its own T0.
//! - Many candidates do not claim at the same instant: see `contention.rs`.
//! - Only the run that holds a lock can release it: where the record was emptied, deleted or replaced by anybody else,
//!   candidates that knew the holder wait its duration.

mod contention;
mod decide;
mod observe;
mod observed_record;
mod protocol;
mod random;
mod timers;

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::mem;
use core::time::Duration;

use jiff::{SignedDuration, Timestamp};

use self::contention::ClaimHistory;
use self::observed_record::ObservedRecord;
pub use self::protocol::{
    CommandGone, ElectionAction, ElectionConfig, ElectionInputs, ElectionNotice, Leadership, Now, Outcome, Reply,
    Request, WatchEvent,
};
use self::random::Random;
use self::timers::{Timer, Timers};
use crate::instant::Instant;
use crate::record::{Record, Version};
use crate::tenure::Tenure;

/// The spread of the pauses between polls, as a share of the retry period: client-go's `JitterFactor`.
const JITTER: f64 = 1.2;

/// How long a candidate that stops waiting tries to release a lock that it may just be acquiring.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a candidate that may not watch polls before it tries to watch again: a Role may be added later.
const FORBIDDEN_WATCH_PAUSE: Duration = Duration::from_secs(60);

/// How long an open watch may be silent before the record is read. A watch on a dead path never ends, and one of a lock
/// that is free but not due has no changes to show. Bookmarks are a minute apart, so a watch that is alive costs no read.
pub const SILENT_WATCH_LIMIT: Duration = Duration::from_secs(90);

/// How many watches in a row break, soon after they were opened, before the candidate is said to poll.
const BROKEN_WATCHES_UNTIL_POLLING: u32 = 2;

/// How many requests in a row are refused before a candidate with `wait` zero gives up. One refusal may come from an
/// API server that is just starting.
const MAX_REFUSALS_WITHOUT_WAITING: u32 = 2;

/// How many reads in a row fail before a candidate with `wait` zero, which knows nothing of the lock yet, gives up.
const MAX_FAILED_READS_WITHOUT_WAITING: u32 = 3;

/// The longest pause between those requests.
const MAX_PAUSE_WITHOUT_WAITING: Duration = Duration::from_secs(1);

/// How long a candidate with `wait` zero waits for the first answer at most, however long a lease lasts.
const FIRST_ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// A request that is under way.
#[derive(Clone, Debug, Hash)]
struct Attempt {
    sent: Instant,
    write: Option<Write>,
}

/// A write that was sent: enough to recognise it when its reply is lost.
#[derive(Clone, Debug, Hash)]
struct Write {
    base: Option<Version>,
    /// The number of the acquisition that the write is for.
    transitions: u32,
    renew_time: Option<Timestamp>,
    sent: Instant,
}

#[derive(Clone, Debug, Hash)]
#[expect(clippy::large_enum_variant, reason = "an election has one of it")]
enum ElectionPhase {
    Waiting,
    /// The lock is held, and a command may be alive.
    Holding {
        tenure: Tenure,
        record: Record,
        lost: bool,
    },
    /// No command is alive. What this run holds is released, until [`Timer::Release`].
    Releasing {
        /// The outcome once nothing is held.
        done: Outcome,
        /// The outcome when time runs out.
        late: Outcome,
        /// The earliest time of the next run that the release states.
        not_before: Option<Timestamp>,
    },
    Finished,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Watching {
    Closed,
    Open { since: Instant },
}

/// One candidate in the election for one lock; the [module](self) states how it is driven.
#[derive(Clone, Debug, Hash)]
pub struct Election {
    config: ElectionConfig,
    phase: ElectionPhase,
    started: Instant,
    observed: Option<ObservedRecord>,
    /// The observed record is known to be outdated: it is read again before anything is written.
    must_read: bool,
    attempt: Option<Attempt>,
    /// Writes without an answer that may have been, or may still be, carried out.
    unconfirmed_writes: VecDeque<Write>,
    last_renew_time: Option<Timestamp>,
    claims: ClaimHistory,
    /// Claims are allowed. A candidate for several locks claims one at a time.
    may_claim: bool,
    timers: Timers,
    /// When the last reply came that told something.
    last_answer: Instant,
    /// Requests that were refused since the last answer.
    refusals: u32,
    /// Reads in a row that were not answered in time.
    unanswered_reads: u32,
    watching: Watching,
    /// The watch was replaced in this step: events of the one before it no longer count.
    watch_replaced: bool,
    /// Watches in a row that broke before they could be relied on.
    broken_watches: u32,
    /// People were told that the record is read every retry period.
    is_polling: bool,
    claiming: bool,
    conflicts: u32,
    step_down_requested: bool,
    random: Random,
    /// The actions of the step under way.
    actions: Vec<ElectionAction>,
}

impl Election {
    /// Creates a candidate that begins by reading the record. `seed` spreads the polls of many.
    pub fn new(config: ElectionConfig, now: Now, seed: u64) -> Self {
        Self {
            config,
            phase: ElectionPhase::Waiting,
            started: now.boot,
            observed: None,
            must_read: true,
            attempt: None,
            unconfirmed_writes: VecDeque::new(),
            last_renew_time: None,
            claims: ClaimHistory::default(),
            may_claim: true,
            timers: Timers::default(),
            last_answer: now.boot,
            refusals: 0,
            unanswered_reads: 0,
            watching: Watching::Closed,
            watch_replaced: false,
            broken_watches: 0,
            is_polling: false,
            claiming: false,
            conflicts: 0,
            step_down_requested: false,
            random: Random::with_seed(seed),
            actions: Vec::new(),
        }
    }

    /// Takes in everything that has arrived, then the time, and returns what to do, in order.
    ///
    /// What came together counts in this order: what is said about the command, the request to stop, the reply, watch
    /// events, the time.
    pub fn step(&mut self, now: Now, inputs: ElectionInputs) -> Vec<ElectionAction> {
        let ElectionInputs { command_gone, stop, reply, watch_events } = inputs;
        if let Some(CommandGone { succeeded }) = command_gone {
            self.handle_command_gone(now, succeeded);
        }
        if stop {
            self.handle_stop(now);
        }
        if let Some(reply) = reply {
            self.apply_reply(now, reply);
            self.decide(now);
        }
        for event in watch_events {
            if !self.watch_replaced {
                self.handle_watch_event(now, event);
            }
        }
        self.handle_timeout(now);
        self.watch_replaced = false;
        mem::take(&mut self.actions)
    }

    /// Returns when [`step`](Self::step) is to be called if nothing arrives until then.
    pub fn next_timeout(&self) -> Option<Instant> {
        let bound = match &self.phase {
            ElectionPhase::Finished | ElectionPhase::Holding { lost: true, .. } => return None,
            ElectionPhase::Waiting => self.waits_until().into_iter().chain(self.timers.get(Timer::WatchSettled)).min(),
            ElectionPhase::Holding { .. } => None,
            ElectionPhase::Releasing { .. } => self.timers.get(Timer::Release),
        };
        let next = match &self.attempt {
            Some(_) => self.timers.get(Timer::GiveUp),
            None => self.next_request(),
        };
        bound.into_iter().chain(next).min()
    }

    /// Returns the record as last seen, nothing where there was none, and the instant from which it may be acquired if
    /// it does not change until then; nothing at all before it was seen.
    pub fn observed(&self) -> Option<(Option<&Record>, Instant)> {
        self.observed.as_ref().map(|observed| (observed.record(), observed.takeable_at()))
    }

    /// Returns whether a reply to the request that was sent last is still awaited. If not, the request can be dropped.
    pub fn awaits_reply(&self) -> bool {
        self.attempt.is_some()
    }

    /// Allows or forbids claims, which are allowed at first. What is held already, or claimed, is not affected.
    pub(crate) fn set_may_claim(&mut self, may_claim: bool) {
        self.may_claim = may_claim;
    }

    fn handle_timeout(&mut self, now: Now) {
        if self.attempt.is_some() && self.timers.has_expired(Timer::GiveUp, now.boot) {
            // The connection is probably dead: another one is tried at once.
            self.apply_reply(now, Reply::Unknown { retry_after: Some(Duration::ZERO) });
        }
        if self.timers.has_expired(Timer::WatchSettled, now.boot) {
            self.timers.stop(Timer::WatchSettled);
            (self.is_polling, self.broken_watches) = (false, 0);
            self.actions.push(ElectionAction::Notify(ElectionNotice::Watching));
        }
        if self.is_waiting() && self.waits_until().is_some_and(|until| now.boot >= until) {
            let outcome = self.outcome_of_waiting(now);
            self.stop_waiting(now, outcome);
        }
        self.decide(now);
    }

    fn handle_watch_event(&mut self, now: Now, event: WatchEvent) {
        let Watching::Open { since } = self.watching else { return };
        if !self.is_waiting() {
            return;
        }
        // A server that ends every watch at once is not asked again at once.
        let soon = now.boot.max(since + self.jittered_retry());
        self.timers.set(Timer::SilentWatch, now.boot + SILENT_WATCH_LIMIT);
        match event {
            WatchEvent::Bookmark => {}
            WatchEvent::Opened => {
                if self.is_polling {
                    self.timers.set(Timer::WatchSettled, now.boot + self.config.timing.lease_duration());
                }
            }
            WatchEvent::Changed(stored) => {
                self.observe(now, Some(stored));
            }
            WatchEvent::Deleted => {
                self.observe(now, None);
            }
            WatchEvent::Ended => self.close_watch(soon),
            WatchEvent::Broken => {
                let was_settled = now.boot >= since + self.config.timing.lease_duration();
                self.broken_watches = if was_settled { 1 } else { self.broken_watches.saturating_add(1) };
                if self.broken_watches >= BROKEN_WATCHES_UNTIL_POLLING {
                    self.notify_polling();
                }
                self.poll_until(soon, soon);
            }
            WatchEvent::Forbidden => {
                self.notify_polling();
                self.poll_until(now.boot + FORBIDDEN_WATCH_PAUSE, soon);
            }
        }
        self.decide(now);
    }

    fn notify_polling(&mut self) {
        if !mem::replace(&mut self.is_polling, true) {
            self.actions.push(ElectionAction::Notify(ElectionNotice::Polling));
        }
    }

    fn handle_command_gone(&mut self, now: Now, succeeded: bool) {
        match &self.phase {
            ElectionPhase::Holding { lost: true, .. } => self.finish(Outcome::Lost),
            ElectionPhase::Holding { record, .. } => {
                let acquired = record.acquire_time.filter(|_| succeeded);
                let hold = self.config.min_hold.and_then(|hold| SignedDuration::try_from(hold).ok());
                let not_before = acquired.zip(hold).and_then(|(acquired, hold)| acquired.checked_add(hold).ok());
                let timeout = self.config.timing.renew_deadline() / 2;
                self.release(now, timeout, Outcome::Released, Outcome::NotReleased, not_before);
                self.decide(now);
            }
            _ => {}
        }
    }

    /// Ends the candidacy: what may just have been acquired is released; a leader goes on until its command is gone.
    fn handle_stop(&mut self, now: Now) {
        match &self.phase {
            ElectionPhase::Waiting => self.stop_waiting(now, Outcome::Stopped),
            ElectionPhase::Releasing { .. } => {
                let until = now.boot + RELEASE_TIMEOUT;
                let until = self.timers.get(Timer::Release).map_or(until, |present| present.min(until));
                self.timers.set(Timer::Release, until);
            }
            ElectionPhase::Holding { .. } | ElectionPhase::Finished => {}
        }
        self.decide(now);
    }

    fn stop_waiting(&mut self, now: Now, outcome: Outcome) {
        let claimed = self.attempt.as_ref().is_some_and(|attempt| attempt.write.is_some());
        let mine = self.observed.as_ref().is_some_and(|observed| self.bears_my_mark(observed));
        if !claimed && !mine && self.unconfirmed_writes.is_empty() {
            return self.finish(outcome);
        }
        self.stop_watching();
        self.must_read |= !self.unconfirmed_writes.is_empty();
        self.release(now, RELEASE_TIMEOUT, outcome, outcome, None);
        // What became of a claim under way is found out while there is time left to give it back.
        let half_time = now.boot + RELEASE_TIMEOUT / 2;
        if self.timers.get(Timer::GiveUp).is_some_and(|at| at > half_time) {
            self.timers.set(Timer::GiveUp, half_time);
        }
    }

    fn release(&mut self, now: Now, timeout: Duration, done: Outcome, late: Outcome, not_before: Option<Timestamp>) {
        self.phase = ElectionPhase::Releasing { done, late, not_before };
        self.timers.set(Timer::Release, now.boot + timeout);
        self.timers.stop(Timer::Send);
    }

    fn finish(&mut self, outcome: Outcome) {
        self.phase = ElectionPhase::Finished;
        self.attempt = None;
        self.actions.push(ElectionAction::Finish(outcome));
    }

    fn stop_watching(&mut self) {
        if matches!(self.watching, Watching::Open { .. }) {
            self.actions.push(ElectionAction::Unwatch);
            self.watch_replaced = true;
        }
        self.watching = Watching::Closed;
        self.timers.stop(Timer::ReopenWatch);
        self.timers.stop(Timer::WatchSettled);
        self.timers.stop(Timer::SilentWatch);
    }

    fn close_watch(&mut self, reopen_at: Instant) {
        self.watching = Watching::Closed;
        self.timers.set(Timer::ReopenWatch, reopen_at);
        self.timers.stop(Timer::WatchSettled);
        self.timers.stop(Timer::SilentWatch);
    }

    fn poll_until(&mut self, reopen_at: Instant, poll_at: Instant) {
        self.close_watch(reopen_at);
        self.timers.set(Timer::Poll, poll_at);
    }

    fn back_off(&mut self, now: Instant, retry_after: Option<Duration>) {
        let does_not_wait = self.does_not_wait();
        let timing = &self.config.timing;
        let (least, most) = match self.phase {
            ElectionPhase::Waiting if does_not_wait => {
                (self.jittered_retry().min(MAX_PAUSE_WITHOUT_WAITING), FORBIDDEN_WATCH_PAUSE)
            }
            ElectionPhase::Waiting => (self.jittered_retry(), FORBIDDEN_WATCH_PAUSE),
            _ => (timing.retry_period() / 4, timing.attempt()),
        };
        let pause = match retry_after {
            Some(Duration::ZERO) => Duration::ZERO,
            Some(after) => least.max(after.min(most)),
            None => least,
        };
        self.timers.set(Timer::Send, now + pause);
    }

    fn jittered_retry(&mut self) -> Duration {
        self.config.timing.retry_period().mul_f64(1.0 + JITTER * self.random.share().0)
    }

    fn does_not_wait(&self) -> bool {
        self.config.wait == Some(Duration::ZERO)
    }

    fn is_waiting(&self) -> bool {
        matches!(self.phase, ElectionPhase::Waiting)
    }

    fn is_mine(&self, record: &Record) -> bool {
        record.is_held_by_run(&self.config.run, &self.config.identity)
    }

    fn is_mine_already(&self, observed: &ObservedRecord) -> bool {
        !observed.is_displaced() && self.bears_my_mark(observed)
    }

    fn bears_my_mark(&self, observed: &ObservedRecord) -> bool {
        observed.record().is_some_and(|record| self.is_mine(record))
    }

    /// Returns how a candidate that gives up has waited: for somebody, or for an answer.
    fn outcome_of_waiting(&self, now: Now) -> Outcome {
        let Some(observed) = &self.observed else { return Outcome::Unreachable };
        let is_held = observed.record().is_some_and(|record| record.is_held() && !self.is_mine(record));
        let is_awaited = observed.takeable_at() > now.boot || observed.is_displaced();
        if is_held || is_awaited { Outcome::NotAcquired } else { Outcome::Unreachable }
    }
}

#[cfg(test)]
mod tests;
