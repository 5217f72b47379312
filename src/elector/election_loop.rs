//! The election's loop: carries out over a lock, or over those of all its slots, what the state machine returns.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use jiff::Timestamp;
use leaderrun_core::election::{
    CommandGone, ElectionAction, ElectionConfig, ElectionInputs, ElectionNotice, Leadership, Now, Outcome, Reply,
    Request, WatchEvent,
};
use leaderrun_core::elector::ElectionReport;
use leaderrun_core::record::Record;
use leaderrun_core::slots::{SlotAction, SlotElection, SlotInputs};
use leaderrun_core::updates::Update;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout;

use super::election_thread::{ElectionOrder, MainThread};
use super::error_throttle::{Access, ErrorThrottle};
use super::observations::Observations;
use super::outer_runs::OuterRuns;
use super::reminder::Reminder;
use super::request_queue::RequestQueue;
use super::role_advice::{Right, RoleAdvice};
use super::{SLOT_VARIABLE, log_events, log_notices};
use crate::exit::PermanentFailure;
use crate::kubernetes::ClusterAccess;
use crate::lock::{self, Lock, LockConfig, LockError, LockErrorKind, LockName, SlotCount};
use crate::process::clock::{self, Timer};
use crate::process::deadline::RUN_VARIABLE;
use crate::process::readable::Readable;
use crate::telemetry::log::printable;
use crate::telemetry::observer::Observer;

/// What is left of a wait that opening the lock has used up; zero would mean something else.
const MIN_WAIT: Duration = Duration::from_millis(1);

/// How much longer than its own timeouts opening a lock may take: inner timeouts fire first.
const OPEN_SLACK: Duration = Duration::from_secs(1);

/// After this time it is logged what the opening of the lock waits for.
const SLOW_OPENING: Duration = Duration::from_secs(5);

/// How many watch events are handed in with one step.
const MAX_WATCH_EVENTS: usize = 16;

/// Takes part in the election for a lock, or for any of its slots, until it is over.
///
/// # Errors
/// When the lock cannot be opened, or the kernel refuses what everything depends on.
pub async fn run(
    lock: LockConfig,
    access: ClusterAccess,
    mut config: ElectionConfig,
    main_thread: &MainThread,
    inbox: UnboundedReceiver<ElectionOrder>,
    observer: &Observer,
) -> anyhow::Result<Outcome> {
    observer.notify(Update::ActsBy(Some(clock::now() + lock::OPEN_TIMEOUT)));
    let began = clock::now();
    let (lock_name, slots) = (shown(&lock.name, lock.slots), lock.slots);
    let Some((locks, name)) = open(lock, &access, &config).await? else {
        log_notices::unreachable(&lock_name, Some(&still_opening(&access)));
        return Ok(Outcome::Unreachable);
    };
    if let Some(known) = access.configuration() {
        log_events::api_server(&lock_name, &known.address(), &known.origin.to_string());
    }
    // Not where it is zero, which means not to queue.
    if let Some(wait) = config.wait.as_mut().filter(|wait| !wait.is_zero()) {
        *wait = wait.saturating_sub(clock::now().since(began)).max(MIN_WAIT);
    }
    observer.notify(Update::Lock(name.to_string()));
    let outer_runs = OuterRuns::from_environment();
    let mut environment = vec![
        ("LEADERRUN_HOLDER".to_owned(), config.identity.clone()),
        (RUN_VARIABLE.to_owned(), config.run.to_string()),
    ];
    environment.extend(outer_runs.variable());
    let (identity, claim_delay) = (config.identity.clone(), config.preference.claim_delay);
    let slot = |(name, lock): (LockName, _)| Slot::new(lock, name.to_string());
    let locks: Vec<&dyn Lock> = locks.iter().map(|lock| &**lock).collect();
    let election_loop = ElectionLoop {
        requests: RequestQueue::new(locks.clone()),
        slots: name.in_slots(slots).into_iter().zip(locks).map(slot).collect(),
        has_slots: slots.is_some(),
        name: shown(&name, slots),
        identity,
        tolerated_clock_rate: config.timing.tolerated_clock_rate(),
        election: SlotElection::new(slots.map_or(1, |slots| slots.numbers().len()), &config, now(), fastrand::u64(..)),
        inbox,
        timer: Readable::new(Timer::new()?)?,
        observations: Observations::new(observer.clone(), claim_delay),
        environment,
        outer_runs,
        last_failure: None,
        error_throttle: ErrorThrottle::default(),
        role_advice: RoleAdvice::default(),
        is_wait_logged: false,
        is_doctor_hinted: false,
        reminder: Some(Reminder::new(clock::now())),
    };
    election_loop.run(main_thread).await
}

/// Opens the lock, however long it takes, unless the wait for the lock is limited; that it takes long is logged.
async fn open(
    lock: LockConfig,
    access: &ClusterAccess,
    config: &ElectionConfig,
) -> anyhow::Result<Option<(Vec<Box<dyn Lock>>, LockName)>> {
    let lock_name = shown(&lock.name, lock.slots);
    let mut opening = pin!(lock::open_slots(lock, access, config.timing.attempt(), &config.run));
    // Zero means not to queue, and the opening is no queue.
    let limit = config.wait.map(|wait| if wait.is_zero() { lock::OPEN_TIMEOUT + OPEN_SLACK } else { wait });
    let quiet = limit.map_or(SLOW_OPENING, |limit| limit.min(SLOW_OPENING));
    if let Ok(opened) = timeout(quiet, &mut opening).await {
        return opened.map(Some);
    }
    match limit.map(|limit| limit - quiet) {
        Some(Duration::ZERO) => Ok(None),
        left => {
            log_notices::request_failed(&lock_name, &still_opening(access), None);
            match left {
                None => opening.await.map(Some),
                Some(left) => timeout(left, opening).await.ok().transpose(),
            }
        }
    }
}

/// Returns what the opening of a lock waits for.
fn still_opening(access: &ClusterAccess) -> String {
    format!("still waiting for {}", access.pending().unwrap_or_else(|| "an answer of the file system".to_owned()))
}

/// Returns the name of a lock for log lines about all of it.
fn shown(name: &LockName, slots: Option<SlotCount>) -> String {
    slots.map_or_else(|| name.to_string(), |slots| format!("{name} ({slots} slots)"))
}

/// What belongs to one slot; a lock without slots has one.
struct Slot<'a> {
    lock: &'a dyn Lock,
    name: String,
    watch: Option<BoxStream<'a, Result<WatchEvent, LockError>>>,
    watch_complaint: Option<String>,
    /// Why the watch broke, if that was not logged.
    watch_failure: Option<String>,
    last_notice: Option<ElectionNotice>,
}

impl<'a> Slot<'a> {
    fn new(lock: &'a dyn Lock, name: String) -> Self {
        Self { lock, name, watch: None, watch_complaint: None, watch_failure: None, last_notice: None }
    }
}

struct ElectionLoop<'a> {
    slots: Vec<Slot<'a>>,
    /// There may be several leaders.
    has_slots: bool,
    /// The whole lock, for log lines.
    name: String,
    identity: String,
    tolerated_clock_rate: f64,
    election: SlotElection,
    inbox: UnboundedReceiver<ElectionOrder>,
    timer: Readable<Timer>,
    requests: RequestQueue<'a>,
    observations: Observations,
    environment: Vec<(String, String)>,
    outer_runs: OuterRuns,
    /// Why the last request failed, if the lock did not answer since.
    last_failure: Option<String>,
    error_throttle: ErrorThrottle,
    role_advice: RoleAdvice,
    /// That this candidate waits is logged with the first thing that keeps it from leading at once.
    is_wait_logged: bool,
    /// The log names `leaderrun doctor` already.
    is_doctor_hinted: bool,
    /// Reminds of the wait while it lasts.
    reminder: Option<Reminder>,
}

impl ElectionLoop<'_> {
    async fn run(mut self, main_thread: &MainThread) -> anyhow::Result<Outcome> {
        let mut inputs = SlotInputs::default();
        loop {
            let actions = self.election.step(now(), inputs);
            self.check_outer_runs()?;
            for action in actions {
                match action {
                    SlotAction::In(slot, action) => self.act(slot, action, main_thread),
                    SlotAction::Finish(outcome) => {
                        self.log_outcome(outcome);
                        return Ok(outcome);
                    }
                }
            }
            self.requests.retain(|slot| self.election.election(slot).awaits_reply());
            self.send_next();
            self.observations.stepped(&self.election);
            self.remind();
            let reminder = self.reminder.as_ref().map(Reminder::next);
            let due = self.election.next_timeout().into_iter().chain(reminder).min();
            self.timer.get().set(due)?;
            self.observations.timer_set(due);
            inputs = poll_fn(|context| self.poll_inputs(context)).await?;
        }
    }

    /// Refuses to wait for a lock that is held by a run inside whose command this process runs.
    fn check_outer_runs(&self) -> anyhow::Result<()> {
        let is_held_outside = |slot| self.record(slot).is_some_and(|record| self.outer_runs.hold(record));
        if (0..self.slots.len()).all(is_held_outside) {
            let (lock, holder) = (&self.name, self.holders().unwrap_or_default());
            let failure = format!(
                "cannot wait for {lock}: this process runs inside the command for which {} holds it, so it would \
                 wait for itself; leave out this leaderrun, or choose another lock for it",
                printable(&holder)
            );
            return Err(PermanentFailure(failure).into());
        }
        Ok(())
    }

    /// Returns everything that has arrived, as soon as there is anything or the next timeout has passed.
    fn poll_inputs(&mut self, context: &mut Context<'_>) -> Poll<io::Result<SlotInputs>> {
        let mut inputs = SlotInputs::default();
        while let Poll::Ready(Some(order)) = self.inbox.poll_recv(context) {
            match order {
                ElectionOrder::CommandGone { succeeded } => {
                    self.observations.stopped_leading();
                    inputs.command_gone = Some(CommandGone { succeeded });
                }
                ElectionOrder::Stop => inputs.stop = true,
            }
        }
        let mut slots = vec![ElectionInputs::default(); self.slots.len()];
        while let Poll::Ready((slot, access, answer)) = self.requests.poll_answer(context) {
            self.observations.answered(&answer);
            slots[slot].reply = Some(self.reply(slot, access, answer));
            self.send_next();
        }
        for (slot, inputs) in slots.iter_mut().enumerate() {
            while inputs.watch_events.len() < MAX_WATCH_EVENTS
                && let Some(watch) = &mut self.slots[slot].watch
                && let Poll::Ready(event) = watch.poll_next_unpin(context)
            {
                let event = self.watch_event(slot, event);
                self.observations.watch_event(&event);
                inputs.watch_events.push(event);
            }
        }
        let arrived = slots.into_iter().enumerate().filter(|(_, inputs)| *inputs != ElectionInputs::default());
        inputs.slots = arrived.collect();
        match self.timer.poll_ready(context) {
            Poll::Ready(Err(failure)) => Poll::Ready(Err(failure)),
            Poll::Ready(Ok(())) => {
                self.observations.timer_expired();
                Poll::Ready(Ok(inputs))
            }
            Poll::Pending if inputs != SlotInputs::default() => Poll::Ready(Ok(inputs)),
            Poll::Pending => Poll::Pending,
        }
    }

    fn send_next(&mut self) {
        if let Some((slot, request)) = self.requests.send_next() {
            log_events::request_sent(&self.slots[slot].name, request_name(&request));
            self.observations.sending(&request);
        }
    }

    /// Carries out an action in a slot.
    fn act(&mut self, slot: usize, action: ElectionAction, main_thread: &MainThread) {
        match action {
            ElectionAction::Send(request) => {
                if let Some(access) = self.requests.add(slot, request) {
                    self.last_failure = Some("it does not answer".to_owned());
                    let Slot { lock, name, .. } = &self.slots[slot];
                    let complaint = match lock.pending() {
                        Some(pending) => format!("{name} cannot be asked: still waiting for {pending}"),
                        None => format!("{name} does not answer; trying again"),
                    };
                    self.complain(slot, access, complaint);
                }
            }
            ElectionAction::Watch(from) => {
                self.observations.watching(slot);
                self.slots[slot].watch = Some(self.slots[slot].lock.watch(from));
            }
            ElectionAction::Unwatch => self.slots[slot].watch = None,
            // Nobody waits for these two, and the claim itself is more urgent.
            ElectionAction::Claiming => main_thread.send_without_waking(ElectionReport::Claiming),
            ElectionAction::ClaimFailed => main_thread.send_without_waking(ElectionReport::ClaimFailed),
            ElectionAction::StartLeading(leadership) => self.start_leading(slot, leadership, main_thread),
            ElectionAction::Extend(tenure) => {
                // Repeated edits by others are logged again.
                self.slots[slot].last_notice = None;
                self.observations.held(tenure);
                main_thread.send(ElectionReport::Extend(tenure));
            }
            ElectionAction::StepDown => {
                log_events::step_down(&self.slots[slot].name);
                main_thread.send(ElectionReport::StepDown);
            }
            ElectionAction::Lose { holder } => {
                main_thread.send(ElectionReport::Lose);
                log_notices::taken(&self.slots[slot].name, &self.identity, &holder);
            }
            ElectionAction::Notify(notice) => self.notify(slot, notice),
            ElectionAction::Finish(_) => self.slots[slot].watch = None,
        }
    }

    fn start_leading(&mut self, slot: usize, leadership: Leadership, main_thread: &MainThread) {
        let Leadership { tenure, uid, resource_version, transitions } = leadership;
        let Slot { lock, name, .. } = &self.slots[slot];
        let fencing_token = lock.fencing_token(&resource_version);
        let mut environment = self.environment.clone();
        environment.push(("LEADERRUN_HELD_LOCK".to_owned(), name.clone()));
        environment.push(("LEADERRUN_TRANSITIONS".to_owned(), transitions.to_string()));
        environment.push(("LEADERRUN_FENCING_TOKEN".to_owned(), fencing_token.clone()));
        if self.has_slots {
            environment.push((SLOT_VARIABLE.to_owned(), slot.to_string()));
        }
        self.reminder = None;
        log_notices::note_leadership(name, &fencing_token);
        // Before anything else: the start of the command waits for it.
        log_events::leading(name, &fencing_token, self.tolerated_clock_rate);
        main_thread.send(ElectionReport::StartLeading { tenure, environment });
        if self.has_slots {
            self.observations.acquired_slot(slot);
        }
        self.observations.acquired(fencing_token, lock.uids(&uid));
        self.observations.held(tenure);
    }

    fn notify(&mut self, slot: usize, notice: ElectionNotice) {
        if self.slots[slot].last_notice.as_ref() != Some(&notice) {
            self.log_wait();
            let Slot { name, watch_failure, last_notice, .. } = &mut self.slots[slot];
            match notice {
                ElectionNotice::Polling => {
                    // Without a reason it is not allowed, which is logged.
                    let reason = watch_failure.take().map(|reason| format!(": {reason}")).unwrap_or_default();
                    log_events::polling(name, &reason);
                }
                _ => log_notices::election(name, &notice),
            }
            *last_notice = Some(notice);
        }
    }

    fn complain(&mut self, slot: usize, access: Access, complaint: String) {
        if self.error_throttle.handle_failure(clock::now(), access, &complaint) {
            self.log_wait();
            log_notices::request_failed(&self.slots[slot].name, &complaint, self.observations.time_until_stop());
            // Where there is advice already, more of it is none.
            if !complaint.contains("; try ") && !std::mem::replace(&mut self.is_doctor_hinted, true) {
                log_notices::doctor_hint(&self.name);
            }
        }
    }

    fn log_wait(&mut self) {
        if !std::mem::replace(&mut self.is_wait_logged, true) {
            log_events::waiting(&self.name, &self.identity, self.tolerated_clock_rate);
        }
    }

    /// Logs again that this candidate waits, when it has done so for long.
    fn remind(&mut self) {
        if let Some(waited) = self.reminder.as_mut().and_then(|reminder| reminder.is_due(clock::now())) {
            log_notices::still_waiting(&self.name, self.holders().as_deref(), waited);
        }
    }

    fn log_outcome(&self, outcome: Outcome) {
        match outcome {
            Outcome::NotAcquired => {
                log_notices::not_acquired(&self.name, self.holders().as_deref(), self.not_before());
            }
            Outcome::Unreachable => log_notices::unreachable(&self.name, self.last_failure.as_deref()),
            Outcome::Released | Outcome::NotReleased | Outcome::Lost | Outcome::Stopped => {}
        }
    }

    /// The record of a slot as it was last seen.
    fn record(&self, slot: usize) -> Option<&Record> {
        self.election.election(slot).observed()?.0
    }

    /// The holders of all slots, if each has one by the record that was last seen.
    fn holders(&self) -> Option<String> {
        let holder = |slot| {
            let record = self.record(slot).filter(|record| record.is_held());
            record.map(|record| record.holder_identity.as_str())
        };
        Some((0..self.slots.len()).map(holder).collect::<Option<Vec<_>>>()?.join(", "))
    }

    /// The earliest time of a next run, by the records that were last seen.
    fn not_before(&self) -> Option<Timestamp> {
        let not_before = (0..self.slots.len()).filter_map(|slot| self.record(slot)?.valid_not_before());
        not_before.filter(|time| *time > Timestamp::now()).min()
    }

    /// Returns what an answer means for the election in a slot.
    fn reply(&mut self, slot: usize, access: Access, answer: Result<Reply, LockError>) -> Reply {
        let error = match answer {
            Ok(reply) => {
                self.role_advice.handle_success(right(access));
                self.last_failure = None;
                if self.error_throttle.handle_success(access) {
                    log_events::recovered(&self.slots[slot].name);
                }
                return reply;
            }
            Err(error) => error,
        };
        if error.kind != LockErrorKind::Conflict {
            let complaint = self.role_advice.explain(&self.slots[slot].name, right(access), &error);
            self.last_failure = Some(error.message.clone());
            self.complain(slot, access, complaint);
        }
        error.to_reply()
    }

    /// Returns what an item of the watch means for the election in a slot; a watch that has ended is dropped.
    fn watch_event(&mut self, slot: usize, event: Option<Result<WatchEvent, LockError>>) -> WatchEvent {
        let event = match event {
            Some(Ok(event)) if event != WatchEvent::Ended => {
                self.role_advice.handle_success(Right::Watch);
                return event;
            }
            None | Some(Ok(_)) => WatchEvent::Ended,
            Some(Err(error)) => {
                log_events::watch_failed(&self.slots[slot].name, &error.message);
                if error.kind == LockErrorKind::Forbidden {
                    let complaint = self.role_advice.explain(&self.slots[slot].name, Right::Watch, &error);
                    if self.slots[slot].watch_complaint.as_ref() != Some(&complaint) {
                        self.log_wait();
                        log_notices::request_failed(&self.slots[slot].name, &complaint, None);
                        self.slots[slot].watch_complaint = Some(complaint);
                    }
                    WatchEvent::Forbidden
                } else {
                    self.slots[slot].watch_failure = Some(error.message);
                    WatchEvent::Broken
                }
            }
        };
        self.slots[slot].watch = None;
        event
    }
}

fn right(access: Access) -> Right {
    match access {
        Access::Read => Right::Read,
        Access::Write => Right::Write,
    }
}

fn request_name(request: &Request) -> &'static str {
    match request {
        Request::Get => "read",
        Request::Create(_) => "create",
        Request::Update(..) => "update",
    }
}

/// Returns the time for a step of the election. Its `boot` is T0 of the requests that the step sends: see
/// `begin_attempt` in `leaderrun_core::election`.
fn now() -> Now {
    Now { boot: clock::now(), wall: Timestamp::now() }
}
