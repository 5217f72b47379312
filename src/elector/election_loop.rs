//! The main loop of the election. It carries out the actions of the state machine, on one lock or on the locks of all
//! slots.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use jiff::Timestamp;
use leaderrun_core::election::{
    CommandGone, ElectionAction, ElectionConfig, ElectionInputs, Leadership, Now, Outcome, Reply, Request, WatchEvent,
};
use leaderrun_core::elector::ElectionReport;
use leaderrun_core::record::Record;
use leaderrun_core::slots::{SlotAction, SlotElection, SlotInputs};
use leaderrun_core::updates::Update;
use tokio::sync::mpsc::UnboundedReceiver;

use super::election_log::ElectionLog;
use super::election_thread::{ElectionMessage, MainThreadChannel};
use super::election_updates::ElectionUpdates;
use super::error_throttle::RequestKind;
use super::open_lock::{name_with_slots, open_lock, still_opening};
use super::outer_runs::OuterRuns;
use super::request_queue::RequestQueue;
use super::{SLOT_VARIABLE, log_events, log_notices};
use crate::exit::PermanentFailure;
use crate::kubernetes::ClusterAccess;
use crate::lock::{self, Lock, LockConfig, LockError, LockErrorKind};
use crate::process::clock::{self, Timer};
use crate::process::deadline::RUN_VARIABLE;
use crate::process::readable::Readable;
use crate::telemetry::log::printable;
use crate::telemetry::observer::Observer;

/// The minimum that remains of `--wait` once the lock is open. It is not zero, because zero has a special meaning: the
/// candidate does not wait for a live holder at all.
const MIN_WAIT: Duration = Duration::from_millis(1);

/// The maximum number of watch events of one slot in the inputs of one step.
const MAX_WATCH_EVENTS: usize = 16;

/// Takes part in the election for a lock, or for any of its slots, until the election ends.
///
/// # Errors
/// Fails if the lock cannot be opened, if [outer runs](super::outer_runs) hold it, or if a system call of the timer
/// fails.
pub async fn run(
    lock: LockConfig,
    access: ClusterAccess,
    mut config: ElectionConfig,
    main_thread: &MainThreadChannel,
    inbox: UnboundedReceiver<ElectionMessage>,
    observer: &Observer,
) -> anyhow::Result<Outcome> {
    // If the lock is not open by then, observers conclude that the election is stuck.
    observer.notify(Update::NextTimeout(Some(clock::now() + lock::OPEN_TIMEOUT)));
    let started_at = clock::now();
    let (lock_name, slots) = (name_with_slots(&lock.name, lock.slots), lock.slots);
    let Some((locks, name)) = open_lock(lock, &access, &config).await? else {
        log_notices::unreachable(&lock_name, Some(&still_opening(&access)));
        return Ok(Outcome::Unreachable);
    };
    if let Some(configuration) = access.configuration() {
        log_events::api_server(&lock_name, &configuration.address(), &configuration.origin.to_string());
    }
    if let Some(wait) = config.wait.as_mut().filter(|wait| !wait.is_zero()) {
        *wait = wait.saturating_sub(clock::now().since(started_at)).max(MIN_WAIT);
    }
    observer.notify(Update::Lock(name.to_string()));
    let outer_runs = OuterRuns::from_environment();
    let mut environment = vec![
        ("LEADERRUN_HOLDER".to_owned(), config.identity.clone()),
        (RUN_VARIABLE.to_owned(), config.run.to_string()),
    ];
    environment.extend(outer_runs.variable());
    let slot_names = name.in_slots(slots).iter().map(ToString::to_string).collect();
    let locks: Vec<&dyn Lock> = locks.iter().map(|lock| &**lock).collect();
    let election_loop = ElectionLoop {
        requests: RequestQueue::new(locks.clone()),
        slots: locks.into_iter().map(|lock| Slot { lock, watch: None }).collect(),
        has_slots: slots.is_some(),
        election: SlotElection::new(slots.map_or(1, |slots| slots.numbers().len()), &config, now(), fastrand::u64(..)),
        inbox,
        timer: Readable::new(Timer::new()?)?,
        updates: ElectionUpdates::new(observer.clone(), config.preference.claim_delay),
        environment,
        outer_runs,
        log: ElectionLog::new(name_with_slots(&name, slots), slot_names, config.identity, &config.timing),
    };
    election_loop.run(main_thread).await
}

/// The lock of one slot. A lock without slots counts as one slot.
struct Slot<'a> {
    lock: &'a dyn Lock,
    watch: Option<BoxStream<'a, Result<WatchEvent, LockError>>>,
}

struct ElectionLoop<'a> {
    slots: Vec<Slot<'a>>,
    /// Whether the lock has slots, so that there may be several leaders.
    has_slots: bool,
    election: SlotElection,
    inbox: UnboundedReceiver<ElectionMessage>,
    timer: Readable<Timer>,
    requests: RequestQueue<'a>,
    updates: ElectionUpdates,
    /// The environment variables for the command that are known before the acquisition.
    environment: Vec<(String, String)>,
    outer_runs: OuterRuns,
    log: ElectionLog,
}

impl ElectionLoop<'_> {
    async fn run(mut self, main_thread: &MainThreadChannel) -> anyhow::Result<Outcome> {
        let mut inputs = SlotInputs::default();
        loop {
            let actions = self.election.step(now(), inputs);
            self.check_outer_runs()?;
            for action in actions {
                match action {
                    SlotAction::In(slot, action) => self.act(slot, action, main_thread),
                    SlotAction::Finish(outcome) => {
                        let waiting_for = self.slots.iter().find_map(|slot| slot.lock.waiting_for());
                        self.log.finished(outcome, self.holders().as_deref(), self.not_before(), waiting_for);
                        return Ok(outcome);
                    }
                }
            }
            self.requests.retain(|slot| self.election.election(slot).awaits_reply());
            self.send_next();
            self.updates.stepped(&self.election);
            if let Some(waited) = self.log.take_due_reminder() {
                let (name, holders) = (self.log.name(), self.holders());
                log_notices::still_waiting(name, holders.as_deref(), self.log.last_failure(), waited);
            }
            let due = self.election.next_timeout().into_iter().chain(self.log.next_reminder()).min();
            self.timer.get().set(due)?;
            self.updates.timer_set(due);
            inputs = poll_fn(|context| self.poll_inputs(context)).await?;
        }
    }

    /// Fails if outer runs hold the lock, or all of its slots. This process runs inside their command, so it would wait
    /// for itself.
    fn check_outer_runs(&self) -> anyhow::Result<()> {
        let is_held_by_outer_run = |slot| self.record(slot).is_some_and(|record| self.outer_runs.hold(record));
        if (0..self.slots.len()).all(is_held_by_outer_run) {
            let (lock, holder) = (self.log.name(), self.holders().unwrap_or_default());
            let failure = format!(
                "cannot wait for {lock}: {} holds it for the command that this leaderrun is running in, so the wait would \
                 never end; remove the inner leaderrun, or give it another lock",
                printable(&holder)
            );
            return Err(PermanentFailure(failure).into());
        }
        Ok(())
    }

    /// Collects the inputs of the next step. Returns as soon as there is any input, or the next timeout has passed.
    fn poll_inputs(&mut self, context: &mut Context<'_>) -> Poll<io::Result<SlotInputs>> {
        let mut inputs = SlotInputs::default();
        while let Poll::Ready(Some(message)) = self.inbox.poll_recv(context) {
            match message {
                ElectionMessage::StopBroughtForward(instant) => self.updates.bring_stop_forward(instant),
                ElectionMessage::CommandGone { succeeded } => {
                    self.updates.command_gone();
                    inputs.command_gone = Some(CommandGone { succeeded });
                }
                ElectionMessage::Stop => inputs.stop = true,
            }
        }
        let mut slot_inputs = vec![ElectionInputs::default(); self.slots.len()];
        while let Poll::Ready((slot, kind, result)) = self.requests.poll_result(context) {
            self.updates.request_finished(&result);
            slot_inputs[slot].reply = Some(self.reply(slot, kind, result));
            self.send_next();
        }
        while let Poll::Ready((slot, stored)) = self.requests.poll_late_write(context) {
            slot_inputs[slot].late_write = Some(stored);
        }
        for (slot, inputs) in slot_inputs.iter_mut().enumerate() {
            while inputs.watch_events.len() < MAX_WATCH_EVENTS
                && let Some(watch) = &mut self.slots[slot].watch
                && let Poll::Ready(event) = watch.poll_next_unpin(context)
            {
                let event = self.watch_event(slot, event);
                self.updates.watch_event(&event);
                inputs.watch_events.push(event);
            }
        }
        let non_empty = slot_inputs.into_iter().enumerate().filter(|(_, inputs)| *inputs != ElectionInputs::default());
        inputs.slots = non_empty.collect();
        match self.timer.poll_ready(context) {
            Poll::Ready(Err(failure)) => Poll::Ready(Err(failure)),
            Poll::Ready(Ok(())) => {
                self.updates.timer_expired(&mut self.election);
                Poll::Ready(Ok(inputs))
            }
            Poll::Pending if inputs != SlotInputs::default() => Poll::Ready(Ok(inputs)),
            Poll::Pending => Poll::Pending,
        }
    }

    fn send_next(&mut self) {
        if let Some((slot, request)) = self.requests.send_next() {
            log_events::request_sent(self.log.slot_name(slot), request_name(&request));
            self.updates.request_sent(&request);
        }
    }

    /// Carries out an action in a slot.
    fn act(&mut self, slot: usize, action: ElectionAction, main_thread: &MainThreadChannel) {
        match action {
            ElectionAction::Send(request) => {
                if let Some(kind) = self.requests.add(slot, request) {
                    let waiting_for = self.slots[slot].lock.waiting_for();
                    self.log.request_timed_out(slot, kind, waiting_for, self.updates.time_until_stop());
                }
            }
            ElectionAction::Watch(from) => {
                self.updates.watch_opened(slot);
                self.slots[slot].watch = Some(self.slots[slot].lock.watch(from));
            }
            ElectionAction::Unwatch => self.slots[slot].watch = None,
            // Waking the main thread would delay the claim, and the main thread does not need these reports at once.
            ElectionAction::Claiming => main_thread.send_without_waking(ElectionReport::Claiming),
            ElectionAction::ClaimFailed => main_thread.send_without_waking(ElectionReport::ClaimFailed),
            ElectionAction::StartLeading(leadership) => self.start_leading(slot, leadership, main_thread),
            ElectionAction::Extend(tenure) => {
                self.log.renewed(slot);
                self.updates.record_tenure(tenure);
                main_thread.send(ElectionReport::Renewed(tenure));
            }
            ElectionAction::StepDown => {
                log_events::step_down(self.log.slot_name(slot));
                main_thread.send(ElectionReport::StepDownRequested);
            }
            ElectionAction::Lose { holder } => {
                main_thread.send(ElectionReport::Taken);
                self.log.taken(slot, &holder);
            }
            ElectionAction::Notify(notice) => self.log.notify(slot, notice),
            ElectionAction::Finish(_) => self.slots[slot].watch = None,
        }
    }

    fn start_leading(&mut self, slot: usize, leadership: Leadership, main_thread: &MainThreadChannel) {
        let Leadership { tenure, uid, resource_version, transitions } = leadership;
        let lock = self.slots[slot].lock;
        let fencing_token = lock.fencing_token(&resource_version);
        let mut environment = self.environment.clone();
        environment.push(("LEADERRUN_HELD_LOCK".to_owned(), self.log.slot_name(slot).to_owned()));
        environment.push(("LEADERRUN_TRANSITIONS".to_owned(), transitions.to_string()));
        environment.push(("LEADERRUN_FENCING_TOKEN".to_owned(), fencing_token.clone()));
        if self.has_slots {
            environment.push((SLOT_VARIABLE.to_owned(), slot.to_string()));
        }
        self.log.leading(slot, &fencing_token);
        // The main thread comes before the observers, because it starts the command.
        main_thread.send(ElectionReport::Acquired { tenure, environment });
        if self.has_slots {
            self.updates.acquired_slot(slot);
        }
        self.updates.acquired(fencing_token, lock.uids(&uid));
        self.updates.record_tenure(tenure);
    }

    /// Returns the record of a slot as it was last seen.
    fn record(&self, slot: usize) -> Option<&Record> {
        self.election.election(slot).observed()?.0
    }

    /// Returns the holders of all slots, separated by commas, if each slot is held according to the record that was
    /// last seen.
    fn holders(&self) -> Option<String> {
        let holder = |slot| {
            let record = self.record(slot).filter(|record| record.is_held());
            record.map(|record| record.holder_identity.as_str())
        };
        Some((0..self.slots.len()).map(holder).collect::<Option<Vec<_>>>()?.join(", "))
    }

    /// Returns the earliest future time at which the command is due in any slot, according to the records that were
    /// last seen; `None` if there is no such time.
    fn not_before(&self) -> Option<Timestamp> {
        let not_before = (0..self.slots.len()).filter_map(|slot| self.record(slot)?.valid_not_before());
        not_before.filter(|time| *time > Timestamp::now()).min()
    }

    /// Records the result of a request in the log, and converts it into a reply for the election.
    fn reply(&mut self, slot: usize, kind: RequestKind, result: Result<Reply, LockError>) -> Reply {
        self.log.request_finished(slot, kind, &result, self.updates.time_until_stop());
        result.unwrap_or_else(|error| error.to_reply())
    }

    /// Records an event of a watch in the log, and converts it into an event for the election. Drops a watch that has
    /// ended or failed.
    fn watch_event(&mut self, slot: usize, event: Option<Result<WatchEvent, LockError>>) -> WatchEvent {
        let event = match event {
            Some(Ok(event)) if event != WatchEvent::Ended => {
                self.log.watch_succeeded();
                return event;
            }
            None | Some(Ok(_)) => WatchEvent::Ended,
            Some(Err(error)) => {
                self.log.watch_failed(slot, &error);
                match error.retry_after {
                    _ if error.kind == LockErrorKind::Forbidden => WatchEvent::Forbidden,
                    Some(retry_after) => WatchEvent::Refused { retry_after },
                    None => WatchEvent::Broken,
                }
            }
        };
        self.slots[slot].watch = None;
        event
    }
}

fn request_name(request: &Request) -> &'static str {
    match request {
        Request::Get => "read",
        Request::Create(_) => "create",
        Request::Update(..) => "update",
    }
}

/// Returns the time for a step of the election. Its `boot` becomes T0 of the requests that the step sends.
fn now() -> Now {
    Now { boot: clock::now(), wall: Timestamp::now() }
}
