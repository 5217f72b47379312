//! The election: which candidate leads, and until when.
//!
//! [`Election`] is one candidate in the election for one lock. It is a state machine without I/O: its inputs are the
//! time and what has arrived ([`ElectionInputs`]), and its outputs are actions. leaderrun, its simulation and its model
//! checker all run this code.
//!
//! # How to drive an election
//!
//! 1. Call [`Election::step`] once without inputs. It returns the first request.
//! 2. Carry out the returned actions in order. There is at most one pending request and one watch at a time. A new
//!    [`ElectionAction::Send`] or [`ElectionAction::Watch`] replaces the previous one, whose later results you must
//!    drop. Only the late reply to a write may still be passed, as [`ElectionInputs::late_write`].
//! 3. Wait until a reply or a watch event arrives, until [`Election::next_timeout`], until the command has ended, or
//!    until you want to end the candidacy. Call `step` with everything that has arrived. Calling it early or without
//!    inputs is harmless. `step` decides in which order simultaneous inputs are processed.
//! 4. After [`ElectionAction::StartLeading`] the command may run until the tenure's `stop`. Every
//!    [`ElectionAction::Extend`] postpones that instant. At `kill`, send SIGKILL to every process of the command that
//!    is left. They then have at least [`MIN_KILL_MARGIN`](crate::timing::MIN_KILL_MARGIN) to die before another
//!    candidate takes over. Report [`ElectionInputs::command_gone`] only when no process of the command is left,
//!    because the lock is then released.
//! 5. The election is over after [`ElectionAction::Finish`].
//!
//! For [`Now::boot`], use a clock that never goes back and keeps running while the machine is suspended. Its readings
//! never leave the machine. The readings of [`Now::wall`] are written to the record. If that clock is wrong or jumps, a
//! minimum hold may end too early or too late, but two commands never overlap.
//!
//! # The rules
//!
//! The protocol is that of client-go (`tools/leaderelection/leaderelection.go`), with these additional rules:
//!
//! - A tenure begins at T0, the instant just *before* its claim or renewal is sent.
//! - Every write, including a release, is a compare-and-swap on the uid and resourceVersion that were last seen.
//! - Every renewal differs from the previous one, so that other candidates see a change.
//! - If the scheduler wakes a candidate's thread late, the candidate sends its renewals earlier by that delay.
//! - A run is one execution of a candidate's program. It recognizes its own record by the
//!   [`RunMark`](crate::record::RunMark), which contains the run's unique ID. The holder's identity is not enough,
//!   because several runs may have the same identity.
//! - A claim or renewal without a reply is sent again. If the second one fails with a conflict, a read shows whether
//!   the first one succeeded. If so, the tenure begins at the first one's T0.
//! - If there are many candidates, their claims are spread over time; see `contention.rs`.
//! - A lock that is held by a run can be released only by that run, or by a user with `leaderrun release --force`.
//!   If another client empties, deletes or replaces the record, its holder is *displaced*: candidates that have
//!   observed the holder's record wait for the lease duration in it.

mod contention;
mod decide;
mod ending;
mod min_hold;
mod observe;
mod observed_record;
mod preempt;
mod protocol;
mod random;
mod timers;
mod watch;

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::mem;
use core::time::Duration;

use jiff::Timestamp;

use self::contention::ClaimHistory;
use self::observed_record::ObservedRecord;
use self::preempt::Preemption;
pub use self::protocol::{
    CommandGone, ElectionAction, ElectionConfig, ElectionInputs, ElectionNotice, Leadership, Now, Outcome, Preference,
    Reply, Request, WatchEvent,
};
use self::random::Random;
use self::timers::{Timer, Timers};
pub use self::watch::SILENT_WATCH_LIMIT;
use self::watch::WatchState;
use crate::instant::Instant;
use crate::record::{Record, RecordSlot, Version};
use crate::tenure::Tenure;

/// The maximum jitter that is added to a pause, as a multiple of the retry period, like client-go's `JitterFactor`.
const JITTER: f64 = 1.2;

/// How long a candidate polls after the server has forbidden a watch, before it tries to watch again. A Role that
/// permits the watch may have been added by then.
const FORBIDDEN_WATCH_PAUSE: Duration = Duration::from_secs(60);

/// The longest pause that a server's `Retry-After` can impose on a standby.
const MAX_REQUESTED_PAUSE: Duration = Duration::from_secs(60);

/// After this many refused requests since the last usable reply, a candidate whose `wait` is zero gives up. An API
/// server that is just starting may refuse one.
const ZERO_WAIT_MAX_REFUSALS: u32 = 2;

/// After this many reads that failed with [`Reply::Unknown`], a candidate whose `wait` is zero gives up, if it has not
/// read the record yet.
const ZERO_WAIT_MAX_FAILED_READS: u32 = 3;

/// The longest pause after a failed request of a candidate whose `wait` is zero, unless the server requests a longer
/// one.
const ZERO_WAIT_MAX_PAUSE: Duration = Duration::from_secs(1);

/// The longest time that a candidate whose `wait` is zero tries to read the record for the first time, even if the
/// lease duration is longer.
const FIRST_REPLY_TIMEOUT: Duration = Duration::from_secs(15);

/// The maximum number of renewals in one retry period, not counting retries. Only a candidate whose thread is woken
/// late sends more than one.
const MAX_RENEWALS_PER_RETRY_PERIOD: u32 = 4;

/// The maximum number of writes of this run whose `renewTime` is remembered. With the default durations, fewer writes
/// fit between a renewal and the end of its tenure, so every write that a read may still return is remembered.
const MAX_OWN_RENEW_TIMES: usize = 32;

/// A request whose reply is awaited.
#[derive(Clone, Debug, Hash)]
struct PendingRequest {
    /// The claim, renewal or release; `None` for a read or a request to step down.
    write: Option<Write>,
    /// Whether the watch has delivered the record since this request was sent. If the request is a read, its reply may
    /// be older than the delivered record.
    is_overtaken: bool,
}

/// A write of this run. If its reply is lost, a later read shows by the `renew_time` whether the write succeeded.
#[derive(Clone, Debug, Hash)]
struct Write {
    /// The version of the record that the write replaces; `None` if it creates the record.
    base: Option<Version>,
    /// The `leaseTransitions` of the written record.
    transitions: u32,
    renew_time: Option<Timestamp>,
    /// T0: the instant just before the request was sent.
    sent_at: Instant,
}

#[derive(Clone, Debug, Hash)]
#[expect(clippy::large_enum_variant, reason = "each election has exactly one")]
enum ElectionPhase {
    Waiting,
    /// The lock was acquired, and a command may be alive.
    Leading {
        tenure: Tenure,
        /// The record that was stored when this run acquired the lock.
        record: Record,
        /// Whether another candidate has acquired the lock since then.
        taken: bool,
    },
    /// No command is alive. The lock is being released if this run holds it, until [`Timer::Release`] expires.
    Releasing {
        /// The outcome if the lock is released, or if this run no longer holds it.
        on_success: Outcome,
        /// The outcome if the release does not succeed in time.
        on_timeout: Outcome,
        /// The earliest time at which the command may run again. The release writes it to the record.
        not_before: Option<Timestamp>,
    },
    Finished,
}

/// One candidate in the election for one lock; see the [module](self) for how to drive it.
#[derive(Clone, Debug, Hash)]
pub struct Election {
    config: ElectionConfig,
    slot: Option<RecordSlot>,
    phase: ElectionPhase,
    /// When the candidacy began.
    started: Instant,
    observed: Option<ObservedRecord>,
    /// Whether the record must be read before the next write.
    must_read: bool,
    pending: Option<PendingRequest>,
    /// Writes that no reply has confirmed. They may have been carried out, or may be carried out later.
    unconfirmed_writes: VecDeque<Write>,
    /// The `renewTime` of the last writes of this run, in ascending order.
    own_renew_times: VecDeque<Timestamp>,
    claims: ClaimHistory,
    /// Whether claims are allowed. A candidate for several locks claims one at a time.
    may_claim: bool,
    /// The leader that may be preempted.
    preemption: Option<Preemption>,
    timers: Timers,
    /// When the last usable reply arrived, or when the candidacy began if there was none. A reply is usable if it is
    /// neither [`Reply::Refused`] nor [`Reply::Unknown`].
    last_usable_reply: Instant,
    /// The number of requests that were refused since `last_usable_reply`.
    refusals: u32,
    /// The number of reads and requests to step down since `last_usable_reply` whose result is unknown.
    failed_reads: u32,
    watch: WatchState,
    /// Whether the watch was replaced or dropped in this step, so the remaining events in the inputs belong to the old
    /// watch and are ignored.
    watch_events_are_stale: bool,
    /// The number of watches that broke or were refused since the last [`ElectionNotice::Watching`]. A watch that
    /// lasted for at least a lease duration has worked: if it breaks, the count restarts at one. Watches that end
    /// cleanly do not change it.
    broken_watches: u32,
    /// Whether [`ElectionNotice::Polling`] has been reported, and [`ElectionNotice::Watching`] has not been reported
    /// since.
    polling_reported: bool,
    /// True from [`ElectionAction::Claiming`] until the result of the claim is known.
    claiming: bool,
    /// The number of conflicts since the last write that is known to have succeeded.
    conflicts: u32,
    /// Whether [`ElectionAction::StepDown`] was returned.
    step_down_requested: bool,
    /// How late the scheduler wakes this candidate's thread.
    wakeup_delay: Duration,
    random: Random,
    /// The actions of the current step.
    actions: Vec<ElectionAction>,
}

impl Election {
    /// Creates a candidate that begins by reading the record. `seed` determines the jitter of its pauses, and how it
    /// spreads its claims.
    pub fn new(config: ElectionConfig, now: Now, seed: u64) -> Self {
        Self {
            config,
            slot: None,
            phase: ElectionPhase::Waiting,
            started: now.boot,
            observed: None,
            must_read: true,
            pending: None,
            unconfirmed_writes: VecDeque::new(),
            own_renew_times: VecDeque::new(),
            claims: ClaimHistory::default(),
            may_claim: true,
            preemption: None,
            timers: Timers::default(),
            last_usable_reply: now.boot,
            refusals: 0,
            failed_reads: 0,
            watch: WatchState::Closed,
            watch_events_are_stale: false,
            broken_watches: 0,
            polling_reported: false,
            claiming: false,
            conflicts: 0,
            step_down_requested: false,
            wakeup_delay: Duration::ZERO,
            random: Random::with_seed(seed),
            actions: Vec::new(),
        }
    }

    /// Sets the slot that this candidate writes to its records.
    pub fn in_slot(self, slot: RecordSlot) -> Self {
        Self { slot: Some(slot), ..self }
    }

    /// Processes everything that has arrived, then expired timers, and returns the actions to carry out, in order.
    ///
    /// Simultaneous inputs are processed in this order: the end of the command, the stop request, the reply, the reply
    /// to an earlier write, watch events, timers.
    pub fn step(&mut self, now: Now, inputs: ElectionInputs) -> Vec<ElectionAction> {
        let ElectionInputs { command_gone, stop, reply, late_write, watch_events } = inputs;
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
        if let Some(stored) = late_write {
            self.handle_late_write(now, stored);
        }
        for event in watch_events {
            if !self.watch_events_are_stale {
                self.handle_watch_event(now, event);
            }
        }
        self.handle_timeout(now);
        self.watch_events_are_stale = false;
        mem::take(&mut self.actions)
    }

    /// Returns when to call [`step`](Self::step) next if nothing arrives before then.
    pub fn next_timeout(&self) -> Option<Instant> {
        let phase_timeout = match &self.phase {
            ElectionPhase::Finished | ElectionPhase::Leading { taken: true, .. } => return None,
            ElectionPhase::Waiting => self.waits_until().into_iter().chain(self.timers.get(Timer::WatchSettled)).min(),
            ElectionPhase::Leading { .. } => None,
            ElectionPhase::Releasing { .. } => self.timers.get(Timer::Release),
        };
        let next = match &self.pending {
            Some(_) => self.timers.get(Timer::RequestTimeout),
            None => self.next_request_at(),
        };
        phase_timeout.into_iter().chain(next).min()
    }

    /// Returns the record as last seen (`None` if it did not exist) and the instant from which the lock may be acquired
    /// if the record does not change until then. Returns `None` before the first read.
    pub fn observed(&self) -> Option<(Option<&Record>, Instant)> {
        self.observed.as_ref().map(|observed| (observed.record(), observed.acquirable_at()))
    }

    /// Returns whether the reply to the last request is still awaited. If not, the request can be dropped.
    pub fn awaits_reply(&self) -> bool {
        self.pending.is_some()
    }

    /// Allows or forbids new claims. Initially, they are allowed. This does not affect a pending claim or a lock that
    /// is already held.
    pub(crate) fn set_may_claim(&mut self, may_claim: bool) {
        self.may_claim = may_claim;
    }

    /// Sets how late the scheduler wakes this candidate's thread. Renewals are sent earlier by that delay, but at most
    /// four times in a retry period.
    pub fn set_wakeup_delay(&mut self, delay: Duration) {
        self.wakeup_delay = delay;
    }

    /// Returns the time from one renewal to the next.
    fn renewal_interval(&self) -> Duration {
        let retry_period = self.config.timing.retry_period();
        retry_period.saturating_sub(self.wakeup_delay).max(retry_period / MAX_RENEWALS_PER_RETRY_PERIOD)
    }

    fn handle_timeout(&mut self, now: Now) {
        if self.pending.is_some() && self.timers.has_expired(Timer::RequestTimeout, now.boot) {
            // The connection is probably dead, so the request is retried at once on a new connection.
            self.apply_reply(now, Reply::Unknown { retry_after: Some(Duration::ZERO) });
        }
        if self.timers.has_expired(Timer::WatchSettled, now.boot) {
            self.timers.stop(Timer::WatchSettled);
            (self.polling_reported, self.broken_watches) = (false, 0);
            self.actions.push(ElectionAction::Notify(ElectionNotice::Watching));
        }
        if self.is_waiting() && self.waits_until().is_some_and(|until| now.boot >= until) {
            let outcome = self.outcome_of_waiting(now);
            self.stop_waiting(now, outcome);
        }
        self.decide(now);
    }

    /// Delays the next request by the server's `retry_after`, within limits, or by a default. A `retry_after` of zero
    /// means no delay.
    fn back_off(&mut self, now: Instant, retry_after: Option<Duration>) {
        let has_zero_wait = self.has_zero_wait();
        let timing = &self.config.timing;
        let (least, most) = match self.phase {
            ElectionPhase::Waiting if has_zero_wait => {
                (self.draw_retry_pause().min(ZERO_WAIT_MAX_PAUSE), MAX_REQUESTED_PAUSE)
            }
            ElectionPhase::Waiting => (self.draw_retry_pause(), MAX_REQUESTED_PAUSE),
            // A leader retries soon, because its tenure ends soon. The time for a release is also short.
            _ => (timing.retry_period() / 4, timing.request_timeout()),
        };
        let pause = match retry_after {
            Some(Duration::ZERO) => Duration::ZERO,
            Some(after) => least.max(after.min(most)),
            None => least,
        };
        self.timers.set(Timer::Send, now + pause);
    }

    /// Returns the retry period plus a random jitter.
    fn draw_retry_pause(&mut self) -> Duration {
        self.config.timing.retry_period().mul_f64(1.0 + JITTER * self.random.fraction().0)
    }

    fn has_zero_wait(&self) -> bool {
        self.config.wait == Some(Duration::ZERO)
    }

    fn is_waiting(&self) -> bool {
        matches!(self.phase, ElectionPhase::Waiting)
    }

    fn is_mine(&self, record: &Record) -> bool {
        record.is_held_by_run(&self.config.run, &self.config.identity) && !self.is_written_by_clone(record)
    }

    /// Returns whether a clone of this process wrote `record`, which carries this run's ID. If a snapshot of a virtual
    /// machine is resumed several times, all of its copies have the same run ID. Once the oldest writes of this run
    /// have been forgotten, a record that is older than all remembered writes does not count as a clone's: this run may
    /// have written it, and another client may have restored it.
    fn is_written_by_clone(&self, record: &Record) -> bool {
        let Some(renew_time) = record.renew_time else { return false };
        let may_be_forgotten = self.own_renew_times.len() == MAX_OWN_RENEW_TIMES
            && self.own_renew_times.front().is_some_and(|oldest| renew_time < *oldest);
        !may_be_forgotten && !self.own_renew_times.contains(&renew_time)
    }

    fn remember_own_write(&mut self, renew_time: Option<Timestamp>) {
        if self.own_renew_times.len() == MAX_OWN_RENEW_TIMES {
            self.own_renew_times.pop_front();
        }
        self.own_renew_times.extend(renew_time);
    }

    /// Returns whether this run holds the lock, and every displaced holder's lease has expired.
    fn already_holds(&self, observed: &ObservedRecord) -> bool {
        !observed.has_displaced_holder() && self.observed_is_mine(observed)
    }

    fn observed_is_mine(&self, observed: &ObservedRecord) -> bool {
        observed.record().is_some_and(|record| self.is_mine(record))
    }
}

#[cfg(test)]
mod tests;
