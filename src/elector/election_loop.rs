//! The election's loop: carries out over a lock what the state machine returns.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::bail;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt, TryFutureExt};
use jiff::Timestamp;
use leaderrun_core::election::{
    CommandGone, Election, ElectionAction, ElectionConfig, ElectionInputs, ElectionNotice, Leadership, Now, Outcome,
    Reply, Request, WatchEvent,
};
use leaderrun_core::elector::ElectionReport;
use leaderrun_core::updates::Update;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout;

use super::election_thread::{ElectionOrder, MainThread};
use super::error_throttle::{Access, ErrorThrottle};
use super::observations::Observations;
use super::outer_runs::OuterRuns;
use super::reminder::Reminder;
use super::role_advice::{Right, RoleAdvice};
use super::{log_events, log_notices};
use crate::kubernetes::ClusterOptions;
use crate::lock::{self, Lock, LockError, LockErrorKind, LockName};
use crate::process::clock::{self, Timer};
use crate::process::deadline::RUN_VARIABLE;
use crate::process::readable::Readable;
use crate::telemetry::log::printable;
use crate::telemetry::observer::Observer;

/// What is left of a wait that opening the lock has used up; zero would mean something else.
const MIN_WAIT: Duration = Duration::from_millis(1);

/// How much longer than its own timeouts opening a lock may take: inner timeouts fire first.
const OPEN_SLACK: Duration = Duration::from_secs(1);

/// What is logged while the lock is being opened.
const OPENING_IS_SLOW: &str = "still waiting for the kubeconfig's credential plugin";

/// How many watch events are handed in with one step.
const MAX_WATCH_EVENTS: usize = 16;

/// Takes part in the election for a lock until it is over.
///
/// # Errors
/// When the lock cannot be opened, or the kernel refuses what everything depends on.
pub async fn run(
    name: LockName,
    cluster: ClusterOptions,
    mut config: ElectionConfig,
    main_thread: &MainThread,
    inbox: UnboundedReceiver<ElectionOrder>,
    observer: &Observer,
) -> anyhow::Result<Outcome> {
    observer.tell(Update::ActsBy(Some(clock::now() + lock::OPEN)));
    let began = clock::now();
    let lock_name = name.to_string();
    let Some((lock, name)) = open(name, cluster, &config).await? else {
        log_notices::unreachable(&lock_name, Some(OPENING_IS_SLOW));
        return Ok(Outcome::Unreachable);
    };
    // Not where it is zero, which means not to queue.
    if let Some(wait) = config.wait.as_mut().filter(|wait| !wait.is_zero()) {
        *wait = wait.saturating_sub(clock::now().since(began)).max(MIN_WAIT);
    }
    observer.tell(Update::Lock(name.to_string()));
    let outer_runs = OuterRuns::from_environment();
    let mut environment = vec![
        ("LEADERRUN_HELD_LOCK".to_owned(), name.to_string()),
        ("LEADERRUN_HOLDER".to_owned(), config.identity.clone()),
        (RUN_VARIABLE.to_owned(), config.run.to_string()),
    ];
    environment.extend(outer_runs.variable());
    let identity = config.identity.clone();
    let election_loop = ElectionLoop {
        lock: &*lock,
        name: name.to_string(),
        identity,
        tolerated_clock_rate: config.timing.tolerated_clock_rate(),
        election: Election::new(config, now(), fastrand::u64(..)),
        inbox,
        timer: Readable::new(Timer::new()?)?,
        request: None,
        watch: None,
        observations: Observations::new(observer.clone()),
        environment,
        outer_runs,
        last_failure: None,
        error_throttle: ErrorThrottle::default(),
        role_advice: RoleAdvice::default(),
        watch_complaint: None,
        watch_failure: None,
        last_notice: None,
        is_wait_logged: false,
        reminder: Some(Reminder::new(clock::now())),
    };
    election_loop.run(main_thread).await
}

/// Opens the lock, however long it takes, unless the wait for the lock is limited; that it takes long is logged.
async fn open(
    name: LockName,
    cluster: ClusterOptions,
    config: &ElectionConfig,
) -> anyhow::Result<Option<(Box<dyn Lock>, LockName)>> {
    let mut opening = pin!(lock::open(name.clone(), cluster, config.timing.attempt(), &config.run));
    let slow_after = lock::OPEN + OPEN_SLACK;
    if let Ok(opened) = timeout(slow_after, &mut opening).await {
        return opened.map(Some);
    }
    log_notices::request_failed(&name.to_string(), OPENING_IS_SLOW, None);
    match config.wait {
        None => opening.await.map(Some),
        Some(wait) => timeout(wait.saturating_sub(slow_after), opening).await.ok().transpose(),
    }
}

struct ElectionLoop<'a> {
    lock: &'a dyn Lock,
    name: String,
    identity: String,
    tolerated_clock_rate: f64,
    election: Election,
    inbox: UnboundedReceiver<ElectionOrder>,
    timer: Readable<Timer>,
    request: Option<(Access, BoxFuture<'a, Result<Reply, LockError>>)>,
    watch: Option<BoxStream<'a, Result<WatchEvent, LockError>>>,
    observations: Observations,
    environment: Vec<(String, String)>,
    outer_runs: OuterRuns,
    /// Why the last request failed, if the lock did not answer since.
    last_failure: Option<String>,
    error_throttle: ErrorThrottle,
    role_advice: RoleAdvice,
    watch_complaint: Option<String>,
    /// Why the watch broke, if that was not logged.
    watch_failure: Option<String>,
    last_notice: Option<ElectionNotice>,
    /// That this candidate waits is logged with the first thing that keeps it from leading at once.
    is_wait_logged: bool,
    /// Reminds of the wait while it lasts.
    reminder: Option<Reminder>,
}

impl<'a> ElectionLoop<'a> {
    async fn run(mut self, main_thread: &MainThread) -> anyhow::Result<Outcome> {
        let mut inputs = ElectionInputs::default();
        loop {
            let actions = self.election.step(now(), inputs);
            self.check_outer_runs()?;
            for action in actions {
                if let Some(outcome) = self.act(action, main_thread) {
                    return Ok(outcome);
                }
            }
            self.observations.stepped(&self.election);
            self.remind();
            let reminder = self.reminder.as_ref().map(Reminder::next);
            self.timer.get().set(self.election.next_timeout().into_iter().chain(reminder).min())?;
            inputs = poll_fn(|context| self.poll_inputs(context)).await?;
        }
    }

    /// Refuses to wait for a lock that is held by a run inside whose command this process runs.
    fn check_outer_runs(&self) -> anyhow::Result<()> {
        let record = self.election.observed().and_then(|(record, _)| record);
        if let Some(record) = record.filter(|record| self.outer_runs.hold(record)) {
            let (lock, holder) = (&self.name, printable(&record.holder_identity));
            bail!(
                "cannot wait for {lock}: this process runs inside the command for which {holder} holds it, so it would \
                 wait for itself; leave out this leaderrun, or choose another lock for it"
            );
        }
        Ok(())
    }

    /// Returns everything that has arrived, as soon as there is anything or the next timeout has passed.
    fn poll_inputs(&mut self, context: &mut Context<'_>) -> Poll<io::Result<ElectionInputs>> {
        let mut inputs = ElectionInputs::default();
        while let Poll::Ready(Some(order)) = self.inbox.poll_recv(context) {
            match order {
                ElectionOrder::CommandGone { succeeded } => {
                    self.observations.stopped_leading();
                    inputs.command_gone = Some(CommandGone { succeeded });
                }
                ElectionOrder::Stop => inputs.stop = true,
            }
        }
        if let Some((access, request)) = &mut self.request
            && let Poll::Ready(answer) = request.poll_unpin(context)
        {
            let access = *access;
            self.request = None;
            self.observations.answered(&answer);
            inputs.reply = Some(self.reply(access, answer));
        }
        while inputs.watch_events.len() < MAX_WATCH_EVENTS
            && let Some(watch) = &mut self.watch
            && let Poll::Ready(event) = watch.poll_next_unpin(context)
        {
            let event = self.watch_event(event);
            self.observations.watch_event(&event);
            inputs.watch_events.push(event);
        }
        match self.timer.poll_ready(context) {
            Poll::Ready(Err(failure)) => Poll::Ready(Err(failure)),
            Poll::Ready(Ok(())) => Poll::Ready(Ok(inputs)),
            Poll::Pending if inputs != ElectionInputs::default() => Poll::Ready(Ok(inputs)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Carries out an action, and returns the outcome when it was the last one.
    fn act(&mut self, action: ElectionAction, main_thread: &MainThread) -> Option<Outcome> {
        match action {
            ElectionAction::Send(request) => {
                if let Some((access, _)) = self.request {
                    self.last_failure = Some("it does not answer".to_owned());
                    self.complain(access, format!("{} does not answer; trying again", self.name));
                }
                log_events::request_sent(&self.name, request_name(&request));
                self.observations.sending(&request);
                self.request = Some(send(self.lock, request));
            }
            ElectionAction::Watch(from) => {
                self.observations.watching();
                self.watch = Some(self.lock.watch(from));
            }
            ElectionAction::Unwatch => self.watch = None,
            // Nobody waits for these two, and the claim itself is more urgent.
            ElectionAction::Claiming => main_thread.send_without_waking(ElectionReport::Claiming),
            ElectionAction::ClaimFailed => main_thread.send_without_waking(ElectionReport::ClaimFailed),
            ElectionAction::StartLeading(leadership) => self.start_leading(leadership, main_thread),
            ElectionAction::Extend(tenure) => {
                // Repeated edits by others are logged again.
                self.last_notice = None;
                self.observations.held(tenure);
                main_thread.send(ElectionReport::Extend(tenure));
            }
            ElectionAction::StepDown => {
                log_events::step_down(&self.name);
                main_thread.send(ElectionReport::StepDown);
            }
            ElectionAction::Lose { holder } => {
                main_thread.send(ElectionReport::Lose);
                log_notices::taken(&self.name, &self.identity, &holder);
            }
            ElectionAction::Notify(notice) => self.notify(notice),
            ElectionAction::Finish(outcome) => {
                self.log_outcome(outcome);
                return Some(outcome);
            }
        }
        None
    }

    fn start_leading(&mut self, leadership: Leadership, main_thread: &MainThread) {
        let Leadership { tenure, uid, resource_version, transitions } = leadership;
        let fencing_token = self.lock.fencing_token(&resource_version);
        let mut environment = self.environment.clone();
        environment.push(("LEADERRUN_TRANSITIONS".to_owned(), transitions.to_string()));
        environment.push(("LEADERRUN_FENCING_TOKEN".to_owned(), fencing_token.clone()));
        self.reminder = None;
        log_notices::note_leadership(&self.name, &fencing_token);
        // Before anything else: the start of the command waits for it.
        main_thread.send(ElectionReport::StartLeading { tenure, environment });
        log_events::leading(&self.name, &fencing_token, self.tolerated_clock_rate);
        self.observations.acquired(fencing_token, self.lock.uids(&uid));
        self.observations.held(tenure);
    }

    fn notify(&mut self, notice: ElectionNotice) {
        if self.last_notice.as_ref() != Some(&notice) {
            self.log_wait();
            match notice {
                ElectionNotice::Polling => {
                    // Without a reason it is not allowed, which is logged.
                    let reason = self.watch_failure.take().map(|reason| format!(": {reason}")).unwrap_or_default();
                    log_events::polling(&self.name, &reason);
                }
                _ => log_notices::election(&self.name, &notice),
            }
            self.last_notice = Some(notice);
        }
    }

    fn complain(&mut self, access: Access, complaint: String) {
        if self.error_throttle.handle_failure(clock::now(), access, &complaint) {
            self.log_wait();
            log_notices::request_failed(&self.name, &complaint, self.observations.time_until_stop());
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
            log_notices::still_waiting(&self.name, self.holder(), waited);
        }
    }

    fn log_outcome(&self, outcome: Outcome) {
        match outcome {
            Outcome::NotAcquired => log_notices::not_acquired(&self.name, self.holder(), self.not_before()),
            Outcome::Unreachable => log_notices::unreachable(&self.name, self.last_failure.as_deref()),
            Outcome::Released | Outcome::NotReleased | Outcome::Lost | Outcome::Stopped => {}
        }
    }

    /// The holder by the record that was last seen.
    fn holder(&self) -> Option<&str> {
        let (record, _) = self.election.observed()?;
        record.filter(|record| record.is_held()).map(|record| record.holder_identity.as_str())
    }

    /// The earliest time of the next run, by the record that was last seen.
    fn not_before(&self) -> Option<Timestamp> {
        self.election.observed()?.0?.due().filter(|due| *due > Timestamp::now())
    }

    /// Returns what an answer means for the election.
    fn reply(&mut self, access: Access, answer: Result<Reply, LockError>) -> Reply {
        let error = match answer {
            Ok(reply) => {
                self.role_advice.handle_success(right(access));
                self.last_failure = None;
                if self.error_throttle.handle_success(access) {
                    log_events::recovered(&self.name);
                }
                return reply;
            }
            Err(error) => error,
        };
        if error.kind != LockErrorKind::Conflict {
            let complaint = self.role_advice.explain(&self.name, right(access), &error);
            self.last_failure = Some(error.message.clone());
            self.complain(access, complaint);
        }
        error.to_reply()
    }

    /// Returns what an item of the watch means for the election; a watch that has ended is dropped.
    fn watch_event(&mut self, event: Option<Result<WatchEvent, LockError>>) -> WatchEvent {
        let event = match event {
            Some(Ok(event)) if event != WatchEvent::Ended => {
                self.role_advice.handle_success(Right::Watch);
                return event;
            }
            None | Some(Ok(_)) => WatchEvent::Ended,
            Some(Err(error)) => {
                log_events::watch_failed(&self.name, &error.message);
                if error.kind == LockErrorKind::Forbidden {
                    let complaint = self.role_advice.explain(&self.name, Right::Watch, &error);
                    if self.watch_complaint.as_ref() != Some(&complaint) {
                        self.log_wait();
                        log_notices::request_failed(&self.name, &complaint, None);
                        self.watch_complaint = Some(complaint);
                    }
                    WatchEvent::Forbidden
                } else {
                    self.watch_failure = Some(error.message);
                    WatchEvent::Broken
                }
            }
        };
        self.watch = None;
        event
    }
}

fn send(lock: &dyn Lock, request: Request) -> (Access, BoxFuture<'_, Result<Reply, LockError>>) {
    match request {
        Request::Get => (Access::Read, lock.get().map_ok(Reply::Read).boxed()),
        Request::Create(record) => (Access::Write, lock.create(record).map_ok(Reply::Written).boxed()),
        Request::Update(version, record) => {
            (Access::Write, lock.update(version, record).map_ok(Reply::Written).boxed())
        }
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

fn now() -> Now {
    Now { boot: clock::now(), wall: Timestamp::now() }
}
