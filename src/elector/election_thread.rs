//! The election on its own thread: carries out over a lock what the state machine returns.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use futures_util::future::{BoxFuture, OptionFuture};
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt, TryFutureExt};
use jiff::Timestamp;
use leaderrun_core::election::{
    Action, Election, ElectionConfig, Leadership, News, Now, Outcome, Reply, Request, WatchEvent,
};
use leaderrun_core::elector::{Event, Notice};
use leaderrun_core::updates::Update;
use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;
use tracing::debug;

use super::complaints::{Access, Complaints};
use super::journal;
use super::observations::Observations;
use crate::kubernetes::ClusterOptions;
use crate::lock::{self, Lock, LockError, LockErrorKind, LockName};
use crate::process::clock::{self, Timer};
use crate::process::deadline::RUN_VARIABLE;
use crate::process::readable::Readable;
use crate::telemetry::state::Observer;

/// A thread for blocking calls, once there, stays: later there may be none to be had.
const KEEP_ALIVE: Duration = Duration::from_secs(365 * 24 * 3600);

/// What is left of a wait that opening the lock has used up; zero would say something else.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// Whatever has its own patience comes to its own end first.
const A_MOMENT: Duration = Duration::from_secs(1);

/// A running election, as the guard sees it.
#[derive(Debug)]
pub struct ElectionThread {
    events: mpsc::Receiver<anyhow::Result<Event>>,
    arrived: Arc<EventFd>,
    notices: UnboundedSender<Notice>,
}

impl ElectionThread {
    /// Starts the election on a thread of its own.
    ///
    /// # Errors
    /// When the kernel gives no descriptor or no thread.
    pub fn start(
        lock: LockName,
        cluster: ClusterOptions,
        config: ElectionConfig,
        observer: Observer,
    ) -> io::Result<Self> {
        let arrived = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let (sender, events) = mpsc::channel();
        let (notices, inbox) = unbounded_channel();
        let guard = ToGuard { events: sender, arrived: Arc::clone(&arrived) };
        thread::Builder::new().name("election".into()).spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().thread_keep_alive(KEEP_ALIVE).build();
            let ended = match runtime {
                Ok(runtime) => {
                    let ended = runtime.block_on(run_election(lock, cluster, config, &guard, inbox, &observer));
                    // Dropping it would wait for a file or a name lookup that may never come back.
                    runtime.shutdown_background();
                    ended
                }
                Err(failure) => Err(failure.into()),
            };
            observer.tell(Update::ActsBy(None));
            guard.send_result(ended.map(Event::Finished));
        })?;
        Ok(Self { events, arrived, notices })
    }

    /// Everything the election has said since the last call; an error when there is none any more.
    pub fn events(&self) -> Vec<anyhow::Result<Event>> {
        let _ = self.arrived.read();
        self.events.try_iter().collect()
    }

    /// Tells the election something; an election that is over does not mind.
    pub fn notify(&self, notice: Notice) {
        let _ = self.notices.send(notice);
    }
}

impl AsFd for ElectionThread {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.arrived.as_fd()
    }
}

struct ToGuard {
    events: mpsc::Sender<anyhow::Result<Event>>,
    arrived: Arc<EventFd>,
}

impl ToGuard {
    fn send(&self, event: Event) {
        self.send_result(Ok(event));
    }

    fn send_result(&self, event: anyhow::Result<Event>) {
        let _ = self.events.send(event);
        let _ = self.arrived.write(1);
    }

    /// For the guard to find when it wakes for something else.
    fn send_without_waking(&self, event: Event) {
        let _ = self.events.send(Ok(event));
    }
}

/// However long it takes, unless the wait for the lock is limited; that it takes long is said.
async fn open(
    name: LockName,
    cluster: ClusterOptions,
    config: &ElectionConfig,
) -> anyhow::Result<Option<(Box<dyn Lock>, LockName)>> {
    let mut opening = pin!(lock::open(name.clone(), cluster, config.timing.attempt(), &config.run));
    let patience = lock::OPEN + A_MOMENT;
    if let Ok(opened) = timeout(patience, &mut opening).await {
        return opened.map(Some);
    }
    journal::trouble(&name, "still waiting for the kubeconfig's credential plugin");
    match config.wait {
        None => opening.await.map(Some),
        Some(wait) => timeout(wait.saturating_sub(patience), opening).await.ok().transpose(),
    }
}

async fn run_election(
    name: LockName,
    cluster: ClusterOptions,
    mut config: ElectionConfig,
    guard: &ToGuard,
    inbox: UnboundedReceiver<Notice>,
    observer: &Observer,
) -> anyhow::Result<Outcome> {
    observer.tell(Update::ActsBy(Some(clock::now() + lock::OPEN)));
    let began = clock::now();
    let Some((lock, name)) = open(name, cluster, &config).await? else { return Ok(Outcome::NotAcquired) };
    // Not where it is zero, which says not to queue.
    if let Some(wait) = config.wait.as_mut().filter(|wait| !wait.is_zero()) {
        *wait = wait.saturating_sub(clock::now().since(began)).max(SHORTEST_WAIT);
    }
    observer.tell(Update::Lock(name.to_string()));
    journal::waiting(&name, &config);
    let environment = vec![
        ("LEADERRUN_HELD_LOCK".to_owned(), name.to_string()),
        ("LEADERRUN_HOLDER".to_owned(), config.identity.clone()),
        (RUN_VARIABLE.to_owned(), config.run.to_string()),
    ];
    let timer = Readable::new(Timer::new()?)?;
    let identity = config.identity.clone();
    let election = Election::new(config, now(), fastrand::u64(..));
    let election_loop = ElectionLoop {
        lock: &*lock,
        name,
        identity,
        election,
        request: None,
        watch: None,
        observations: Observations::new(observer.clone()),
        environment,
        complaints: Complaints::default(),
        watch_complaint: None,
        watch_failure: None,
        news: None,
    };
    election_loop.run(guard, inbox, timer).await
}

struct ElectionLoop<'a> {
    lock: &'a dyn Lock,
    name: LockName,
    identity: String,
    election: Election,
    request: Option<(Access, BoxFuture<'a, Result<Reply, LockError>>)>,
    watch: Option<BoxStream<'a, Result<WatchEvent, LockError>>>,
    observations: Observations,
    environment: Vec<(String, String)>,
    complaints: Complaints,
    watch_complaint: Option<String>,
    /// Why the watch broke, if that was not said.
    watch_failure: Option<String>,
    news: Option<News>,
}

impl<'a> ElectionLoop<'a> {
    async fn run(
        mut self,
        guard: &ToGuard,
        mut inbox: UnboundedReceiver<Notice>,
        timer: Readable<Timer>,
    ) -> anyhow::Result<Outcome> {
        loop {
            while let Some(action) = self.election.poll_action() {
                if let Some(outcome) = self.act(action, guard) {
                    return Ok(outcome);
                }
            }
            self.observations.acted(&self.election);
            timer.get().set(self.election.next_timeout())?;
            tokio::select! {
                biased;
                Some(notice) = inbox.recv() => match notice {
                    Notice::TreeGone { well } => {
                        self.observations.given_up();
                        self.election.handle_tree_gone(now(), well);
                    }
                    Notice::Stop => self.election.handle_stop(now()),
                },
                Some((access, answer)) = OptionFuture::from(self.request.as_mut().map(answer)) => {
                    self.request = None;
                    self.observations.answered(&answer);
                    let reply = self.reply(access, answer);
                    self.election.handle_reply(now(), reply);
                }
                Some(event) = OptionFuture::from(self.watch.as_mut().map(|watch| watch.next())) => {
                    let event = self.watched(event);
                    self.election.handle_watch(now(), event);
                }
                ready = timer.ready() => {
                    ready?;
                    self.election.handle_timeout(now());
                }
            }
        }
    }

    /// Carries out an action; the outcome when it was the last one.
    fn act(&mut self, action: Action, guard: &ToGuard) -> Option<Outcome> {
        match action {
            Action::Send(request) => {
                if let Some((access, _)) = self.request {
                    self.complain(access, format!("{} does not answer; trying again", self.name));
                }
                debug!(?request, "sending");
                self.observations.sending(&request);
                self.request = Some(send(self.lock, request));
            }
            Action::Watch(from) => {
                self.observations.watching();
                self.watch = Some(self.lock.watch(from));
            }
            Action::Unwatch => self.watch = None,
            // Looked at when it matters, with whatever wakes the guard: the claim itself is more urgent.
            Action::Claiming => guard.send_without_waking(Event::Claiming),
            Action::NotWon => guard.send_without_waking(Event::NotWon),
            Action::Lead(leadership) => self.lead(leadership, guard),
            Action::Extend(tenure) => {
                // Whoever meddles again is said again.
                self.news = None;
                self.observations.held(tenure);
                guard.send(Event::Extend(tenure));
            }
            Action::StepDown => {
                journal::step_down(&self.name);
                guard.send(Event::StepDown);
            }
            Action::Lose { holder } => {
                journal::taken(&self.name, &self.identity, &holder);
                guard.send(Event::Lose);
            }
            Action::Tell(news) => self.tell(news),
            Action::Finish(outcome) => return Some(outcome),
        }
        None
    }

    fn lead(&mut self, leadership: Leadership, guard: &ToGuard) {
        let Leadership { tenure, uid, resource_version, transitions } = leadership;
        let fencing_token = self.lock.fencing_token(&resource_version);
        let mut environment = self.environment.clone();
        environment.push(("LEADERRUN_TRANSITIONS".to_owned(), transitions.to_string()));
        environment.push(("LEADERRUN_FENCING_TOKEN".to_owned(), fencing_token.clone()));
        // The command first: whoever waits for it waits for this.
        guard.send(Event::Lead { tenure, environment });
        journal::leading(&self.name, &fencing_token);
        self.observations.won(fencing_token, self.lock.uids(&uid));
        self.observations.held(tenure);
    }

    fn tell(&mut self, news: News) {
        if self.news.as_ref() != Some(&news) {
            match news {
                News::Polling => journal::polling(&self.name, self.watch_failure.take()),
                _ => journal::election(&self.name, &news),
            }
            self.news = Some(news);
        }
    }

    fn complain(&mut self, access: Access, complaint: String) {
        if self.complaints.failed(clock::now(), access, &complaint) {
            journal::trouble(&self.name, &complaint);
        }
    }

    /// What an answer means for the election.
    fn reply(&mut self, access: Access, answer: Result<Reply, LockError>) -> Reply {
        let error = match answer {
            Ok(reply) => {
                if self.complaints.answered(access) {
                    journal::answers_again(&self.name);
                }
                return reply;
            }
            Err(error) => error,
        };
        if error.kind != LockErrorKind::Conflict {
            self.complain(access, error.explained());
        }
        let retry_after = error.retry_after;
        match error.kind {
            LockErrorKind::Conflict => Reply::Conflict,
            LockErrorKind::Forbidden | LockErrorKind::Refused => Reply::Refused { retry_after },
            LockErrorKind::Unknown => Reply::Unknown { retry_after },
        }
    }

    fn watched(&mut self, event: Option<Result<WatchEvent, LockError>>) -> WatchEvent {
        let event = match event {
            Some(Ok(event)) if event != WatchEvent::Ended => return event,
            None | Some(Ok(_)) => WatchEvent::Ended,
            Some(Err(error)) => {
                debug!("{error}");
                match error.kind {
                    LockErrorKind::Forbidden => {
                        let complaint = error.explained();
                        if self.watch_complaint.as_ref() != Some(&complaint) {
                            journal::trouble(&self.name, &complaint);
                            self.watch_complaint = Some(complaint);
                        }
                        WatchEvent::Forbidden
                    }
                    _ => {
                        self.watch_failure = Some(error.message);
                        WatchEvent::Broken
                    }
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

async fn answer<T>((access, request): &mut (Access, BoxFuture<'_, T>)) -> (Access, T) {
    (*access, request.await)
}

fn now() -> Now {
    Now { boot: clock::now(), wall: Timestamp::now() }
}
