//! The election: who may run, and until when.
//!
//! A state machine that is *given* everything — the time, replies, watch events, a seed — and
//! *returns* what to do ([`Election::poll_action`]) and when it wants to be woken
//! ([`Election::next_timeout`]). It has no clock, no socket, no task: the elector and the simulation
//! drive the same code.
//!
//! The protocol is client-go's, with these rules on top:
//!
//! - T0 of a tenure is taken just *before* the renewal's request is sent.
//! - Every write is a compare-and-swap on the uid and resourceVersion last read, the release too.
//! - Every renewal differs from the one before.
//! - "Mine" is what bears this run's mark, never what bears my name.
//! - A write without an answer is settled by reading, and counts from its own T0.
//! - Many candidates do not claim at the same instant: see [`herd`].
//! - Only the run that holds a lease can release it: emptied or deleted by anyone else, candidates
//!   that knew it wait its duration.

mod decide;
mod herd;
mod learn;
mod observed_record;
mod protocol;
mod random;

use alloc::collections::VecDeque;
use core::time::Duration;

use jiff::{SignedDuration, Timestamp};

use self::observed_record::ObservedRecord;
pub use self::protocol::{Action, ElectionConfig, Leadership, News, Now, Outcome, Reply, Request, WatchEvent};
use self::random::{Fraction, Random};
use crate::instant::Instant;
use crate::record::{Record, Version};
use crate::tenure::Tenure;

/// Spread of the waits between polls, as a share of the retry period: client-go's `JitterFactor`.
const JITTER: f64 = 1.2;

/// How long a candidate that was told to stop tries to give back a lease it may just be winning.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a candidate that may not watch polls before it asks again; roles may arrive later.
const FORBIDDEN_WATCH: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, Hash)]
struct Attempt {
    sent: Instant,
    write: Option<Write>,
}

/// A write that was sent: enough to recognise it when its reply is lost.
#[derive(Clone, Debug, Hash)]
struct Write {
    base: Option<Version>,
    /// The number of the acquisition that it is for.
    transitions: u32,
    renew_time: Option<Timestamp>,
    sent: Instant,
}

#[derive(Clone, Debug, Hash)]
enum Phase {
    Waiting,
    /// The lease is ours, and a command may be alive.
    Holding {
        tenure: Tenure,
        record: Record,
        lost: bool,
    },
    /// No command is alive. What is ours is given back, until `until`.
    Releasing {
        until: Instant,
        done: Outcome,
        late: Outcome,
        /// What the release says about when the command is due again.
        not_before: Option<Timestamp>,
    },
    Finished,
}

#[derive(Clone, Debug, Hash)]
enum Watching {
    Closed { reopen_at: Instant },
    Open { since: Instant },
}

/// One candidate in the election for one lease; see the [module](self).
#[derive(Clone, Debug, Hash)]
pub struct Election {
    config: ElectionConfig,
    phase: Phase,
    started: Instant,
    observed: Option<ObservedRecord>,
    /// What was observed is known to be outdated: nothing is written before it is read again.
    must_read: bool,
    attempt: Option<Attempt>,
    /// Writes without an answer that may have been, or may still be, carried out.
    doubtful: VecDeque<Write>,
    last_renew_time: Option<Timestamp>,
    /// How many candidates the next release wakes, by the last record that said so.
    contenders: u32,
    /// Which share of their spread this candidate waits; none for what was free when it came.
    fraction: Option<Fraction>,
    /// The number of the acquisition that this candidate last tried for in vain.
    refused: Option<u32>,
    /// How many acquisitions by others it has seen, as far as that matters.
    missed: u32,
    /// The next request is not sent before this.
    send_at: Instant,
    /// Without a watch, the next read.
    poll_at: Option<Instant>,
    /// When the last answer came that told something.
    heard: Instant,
    watching: Watching,
    claiming: bool,
    conflicts: u32,
    told_polling: bool,
    asked_to_step_down: bool,
    random: Random,
    actions: VecDeque<Action>,
}

impl Election {
    /// A candidate that begins by reading the record. `seed` spreads the polls of many.
    pub fn new(config: ElectionConfig, now: Now, seed: u64) -> Self {
        let mut election = Self {
            config,
            phase: Phase::Waiting,
            started: now.boot,
            observed: None,
            must_read: true,
            attempt: None,
            doubtful: VecDeque::new(),
            last_renew_time: None,
            contenders: 1,
            fraction: None,
            refused: None,
            missed: 0,
            send_at: now.boot,
            poll_at: None,
            heard: now.boot,
            watching: Watching::Closed { reopen_at: now.boot },
            claiming: false,
            conflicts: 0,
            told_polling: false,
            asked_to_step_down: false,
            random: Random::with_seed(seed),
            actions: VecDeque::new(),
        };
        election.decide(now);
        election
    }

    /// What to do next, in order; nothing when all is said.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    pub fn next_timeout(&self) -> Option<Instant> {
        let bound = match &self.phase {
            Phase::Finished | Phase::Holding { lost: true, .. } => return None,
            Phase::Waiting => self.waits_until(),
            Phase::Holding { .. } => None,
            Phase::Releasing { until, .. } => Some(*until),
        };
        let next = match &self.attempt {
            Some(attempt) => self.gives_up_at(attempt),
            None => self.next_request(),
        };
        Some(bound.map_or(next, |bound| bound.min(next)))
    }

    /// The record as last seen, nothing where there was none, and when it may be taken if it does not
    /// change until then; nothing at all before it was seen.
    pub fn observed(&self) -> Option<(Option<&Record>, Instant)> {
        self.observed.as_ref().map(|observed| (observed.record(), observed.takeable_at()))
    }

    /// Time has passed. Calling it early, or for nothing, does no harm.
    pub fn handle_timeout(&mut self, now: Now) {
        if self.attempt.as_ref().is_some_and(|attempt| now.boot >= self.gives_up_at(attempt)) {
            // Silence says that the connection is dead: the next one is tried at once.
            self.settle(now, Reply::Unknown { retry_after: Some(Duration::ZERO) });
        }
        if self.is_waiting() && self.waits_until().is_some_and(|until| now.boot >= until) {
            self.step_back(now, Outcome::NotAcquired);
        }
        self.decide(now);
    }

    /// The request under way was answered.
    pub fn handle_reply(&mut self, now: Now, reply: Reply) {
        self.settle(now, reply);
        self.decide(now);
    }

    /// The watch said something.
    pub fn handle_watch(&mut self, now: Now, event: WatchEvent) {
        let Watching::Open { since } = self.watching else { return };
        if !self.is_waiting() {
            return;
        }
        // A server that ends every watch at once is not asked again at once.
        let soon = now.boot.max(since + self.jittered_retry());
        match event {
            WatchEvent::Changed(stored) => {
                self.observe(now, Some(stored));
            }
            WatchEvent::Deleted => {
                self.observe(now, None);
            }
            WatchEvent::Ended => self.watching = Watching::Closed { reopen_at: soon },
            WatchEvent::Broken => self.poll_until(soon, soon),
            WatchEvent::Forbidden => self.poll_until(now.boot + FORBIDDEN_WATCH, soon),
        }
        self.decide(now);
    }

    /// The command's tree is gone, or was never started: nothing of it can be alive. `well` says that the
    /// command did what it had to do.
    pub fn handle_tree_gone(&mut self, now: Now, well: bool) {
        match &self.phase {
            Phase::Holding { lost: true, .. } => self.finish(Outcome::Lost),
            Phase::Holding { record, .. } => {
                let acquired = record.acquire_time.filter(|_| well);
                let hold = self.config.min_hold.and_then(|hold| SignedDuration::try_from(hold).ok());
                let not_before = acquired.zip(hold).and_then(|(acquired, hold)| acquired.checked_add(hold).ok());
                let until = now.boot + self.config.timing.renew_deadline() / 2;
                self.phase =
                    Phase::Releasing { until, done: Outcome::Released, late: Outcome::NotReleased, not_before };
                self.send_at = now.boot;
                self.decide(now);
            }
            _ => {}
        }
    }

    /// Come to an end. What may just have been won is given back; a leader goes on until its command
    /// is gone.
    pub fn handle_stop(&mut self, now: Now) {
        match &mut self.phase {
            Phase::Waiting => self.step_back(now, Outcome::Stopped),
            Phase::Releasing { until, .. } => *until = (*until).min(now.boot + RELEASE_TIMEOUT),
            Phase::Holding { .. } | Phase::Finished => {}
        }
        self.decide(now);
    }

    fn step_back(&mut self, now: Now, outcome: Outcome) {
        let claimed = self.attempt.as_ref().is_some_and(|attempt| attempt.write.is_some());
        let mine = self.observed.as_ref().is_some_and(|observed| self.bears_my_mark(observed));
        if !claimed && !mine && self.doubtful.is_empty() {
            return self.finish(outcome);
        }
        self.stop_watching();
        self.must_read |= !self.doubtful.is_empty();
        self.send_at = now.boot;
        let until = now.boot + RELEASE_TIMEOUT;
        self.phase = Phase::Releasing { until, done: outcome, late: outcome, not_before: None };
    }

    fn finish(&mut self, outcome: Outcome) {
        self.phase = Phase::Finished;
        self.attempt = None;
        self.actions.push_back(Action::Finish(outcome));
    }

    fn stop_watching(&mut self) {
        if matches!(self.watching, Watching::Open { .. }) {
            self.actions.push_back(Action::Unwatch);
        }
        self.watching = Watching::Closed { reopen_at: self.started };
    }

    fn poll_until(&mut self, reopen_at: Instant, poll_at: Instant) {
        self.watching = Watching::Closed { reopen_at };
        self.poll_at = Some(poll_at);
        if !self.told_polling {
            self.told_polling = true;
            self.actions.push_back(Action::Tell(News::Polling));
        }
    }

    fn back_off(&mut self, now: Instant, retry_after: Option<Duration>) {
        let timing = &self.config.timing;
        let (least, most) = match self.phase {
            Phase::Waiting => (self.jittered_retry(), FORBIDDEN_WATCH),
            _ => (timing.retry_period() / 4, timing.attempt()),
        };
        self.send_at = match retry_after {
            Some(Duration::ZERO) => now,
            Some(after) => now + least.max(after.min(most)),
            None => now + least,
        };
    }

    fn jittered_retry(&mut self) -> Duration {
        self.config.timing.retry_period().mul_f64(1.0 + JITTER * self.random.share().0)
    }

    fn is_waiting(&self) -> bool {
        matches!(self.phase, Phase::Waiting)
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

    fn gives_up_at(&self, attempt: &Attempt) -> Instant {
        attempt.sent + self.config.timing.attempt()
    }
}

/// How often the lease will have been acquired when the next one takes it after this record's holder.
fn next_transitions(record: &Record) -> u32 {
    record.lease_transitions.saturating_add(1).min(i32::MAX as u32)
}

#[cfg(test)]
mod tests;
