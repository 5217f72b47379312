//! The routing thread's work: one step at a time, each begun and judged by [`leaderrun_core::routing`].

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, OptionFuture, select_ok};
use leaderrun_core::instant::Instant;
use leaderrun_core::routing::{Done, Route, Step};
use leaderrun_core::updates::Update;
use nix::sys::eventfd::EventFd;
use tokio::sync::OnceCell;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{info, warn};

use super::endpoint_slice::Service;
use super::mark::Mark;
use super::{RouterConfig, Routing};
use crate::kubernetes::{Cluster, Collection, ENDPOINT_SLICES, Error, ErrorKind, PODS};
use crate::process::clock::{self, Timer};
use crate::process::readable::Readable;
use crate::telemetry::log::printable_cause;

/// How long a withdrawal, for which the command waits, may take before a second one is begun beside it. The connection
/// of the first may be dead after a long idle time; the second one gets another.
const HEDGE_DELAY: Duration = Duration::from_millis(300);

pub struct Worker {
    steps: Arc<Steps>,
    route: Route,
    /// The step under way.
    step: Option<(Step, BoxFuture<'static, Result<bool, Error>>)>,
    /// The log says that traffic is led here.
    is_logged_as_routed: bool,
    /// The last failure that was logged.
    logged_failure: Option<String>,
    withdrawn: Arc<EventFd>,
    /// What [`may_be_routed`](Self::may_be_routed) returns, for another thread.
    may_be_routed: Arc<AtomicBool>,
    /// The command's end waits for traffic to be led away.
    is_awaited: bool,
    withdraw_forbidden: bool,
    is_over: bool,
}

impl Worker {
    pub fn new(config: RouterConfig, withdrawn: Arc<EventFd>, may_be_routed: Arc<AtomicBool>) -> Self {
        Self {
            route: Route::new(config.timeout),
            steps: Arc::new(Steps { config, cluster: OnceCell::new(), address: OnceCell::new() }),
            step: None,
            is_logged_as_routed: false,
            logged_failure: None,
            withdrawn,
            may_be_routed,
            is_awaited: false,
            withdraw_forbidden: false,
            is_over: false,
        }
    }

    /// Works until everything is over and traffic is led away.
    pub async fn run(mut self, mut updates: UnboundedReceiver<Update>) -> io::Result<()> {
        let timer = Readable::new(Timer::new()?)?;
        loop {
            let now = clock::now();
            self.begin_step(now);
            self.may_be_routed.store(self.may_be_routed(), Ordering::Relaxed);
            if self.is_over && !self.may_be_routed() {
                return Ok(());
            }
            timer.get().set(self.route.next_timeout(now))?;
            tokio::select! {
                biased;
                update = updates.recv(), if !self.is_over => self.handle(&update.unwrap_or(Update::Exiting)),
                Some(result) = OptionFuture::from(self.step.as_mut().map(|(_, step)| step)) => self.end_step(result),
                ready = timer.ready() => ready?,
            }
        }
    }

    /// Returns whether traffic may still be led here, and something can be done about that.
    fn may_be_routed(&self) -> bool {
        !self.withdraw_forbidden && self.route.may_be_shown()
    }

    fn handle(&mut self, update: &Update) {
        self.route.told(update);
        match update {
            Update::Terminating => {
                self.is_awaited = true;
                self.answer();
            }
            Update::Exiting => self.is_over = true,
            _ => {}
        }
    }

    /// Lets the command's end go on when traffic was led away, or when waiting for that is of no use.
    fn answer(&mut self) {
        if self.is_awaited && !self.may_be_routed() {
            self.is_awaited = false;
            let _ = self.withdrawn.write(1);
        }
    }

    /// Begins the step that is due, and drops the one under way if that goes the other way.
    fn begin_step(&mut self, now: Instant) {
        let Some(next) = self.route.next(now) else { return };
        if self.step.as_ref().is_some_and(|(under_way, _)| under_way.is_same_way(&next)) {
            return;
        }
        self.route.begun(&next);
        let (steps, step) = (Arc::clone(&self.steps), next.clone());
        let taken = async move {
            match step {
                Step::Show { .. } => steps.take(&step).await,
                Step::Withdraw { .. } => hedged(|| steps.take(&step).boxed()).await,
            }
        };
        self.step = Some((next, taken.boxed()));
    }

    fn end_step(&mut self, result: Result<bool, Error>) {
        let Some((step, _)) = self.step.take() else { return };
        let done = match &result {
            Ok(_) => Done::Well,
            Err(error) if error.kind == ErrorKind::Forbidden => Done::Forbidden,
            Err(_) => Done::Badly,
        };
        self.route.ended(clock::now(), &step, done);
        self.withdraw_forbidden = done == Done::Forbidden && matches!(step, Step::Withdraw { .. });
        self.log(&step, result);
        self.answer();
    }

    fn log(&mut self, step: &Step, result: Result<bool, Error>) {
        let routing = &self.steps.config.routing;
        let leads_here = matches!(step, Step::Show { .. });
        match result {
            Ok(changed) => {
                if self.logged_failure.take().is_some() && leads_here {
                    info!(event = "routing_trouble_over", "{routing}: no trouble any more");
                }
                // The answer that would have said that something changed may be lost.
                if changed || self.is_logged_as_routed != leads_here {
                    if leads_here {
                        info!(event = "routed", "{routing} leads here");
                    } else {
                        info!(event = "unrouted", "{routing} does not lead here any more");
                    }
                }
                self.is_logged_as_routed = leads_here;
            }
            Err(error) => {
                let failure = format!("{routing}: {error}");
                if self.logged_failure.as_ref() != Some(&failure) {
                    warn!(event = "routing_trouble", "{failure}");
                    self.logged_failure = Some(failure);
                }
            }
        }
    }
}

/// Does the same a second time when the first takes long, and returns the result of whichever succeeds first.
async fn hedged<'a, T, E>(begin: impl Fn() -> BoxFuture<'a, Result<T, E>>) -> Result<T, E> {
    let mut first = begin();
    match timeout(HEDGE_DELAY, &mut first).await {
        Ok(result) => result,
        Err(_) => select_ok([first, begin()]).await.map(|(result, _)| result),
    }
}

/// What the steps need, which outlives each of them.
struct Steps {
    config: RouterConfig,
    /// Made when first needed. A failure is one like any other, and it is tried again.
    cluster: OnceCell<Cluster>,
    address: OnceCell<IpAddr>,
}

impl Steps {
    /// Returns the way to the API server, and the namespace of the lock.
    async fn cluster(&self) -> Result<(&Cluster, String), Error> {
        let RouterConfig { cluster: options, timeout, namespace, .. } = &self.config;
        let made = self.cluster.get_or_try_init(|| Cluster::from_options(options.clone(), *timeout)).await;
        let cluster = made.map_err(|failure| Error::unknown(printable_cause(&failure)))?;
        Ok((cluster, namespace.clone().unwrap_or_else(|| cluster.default_namespace().to_owned())))
    }

    async fn address(&self, service: &Service, cluster: &Cluster) -> Result<IpAddr, Error> {
        let find = || async {
            let (service, server) = (service.clone(), cluster.host_and_port());
            let found = spawn_blocking(move || service.address(&server)).await;
            found.unwrap_or_else(|failure| Err(Error::unknown(failure.to_string())))
        };
        self.address.get_or_try_init(find).await.copied()
    }

    /// Takes a step. Returns whether something was written.
    async fn take(&self, step: &Step) -> Result<bool, Error> {
        let (cluster, namespace) = self.cluster().await?;
        let RouterConfig { routing, lock, timeout, .. } = &self.config;
        let collection = |resource| Collection::new(cluster, resource, &namespace).with_timeout(*timeout);
        let mark = |token: &str| Mark { lock: lock.clone(), token: token.to_owned() };
        match routing {
            Routing::PodLabel(label) => {
                let pods = collection(&PODS);
                match step {
                    Step::Show { token, until, anew } => label.lead_here(&pods, &mark(token), *until, *anew).await,
                    Step::Withdraw { token } => label.lead_away(&pods, &mark(token)).await,
                }
            }
            Routing::Service(service) => {
                let (slices, address) = (collection(&ENDPOINT_SLICES), self.address(service, cluster).await);
                match step {
                    Step::Show { token, until, anew } => match address {
                        Ok(address) => service.lead_here(&slices, address, &mark(token), *until, *anew).await,
                        Err(error) => service.remove_predecessor(&slices, &mark(token)).await.and(Err(error)),
                    },
                    Step::Withdraw { token } => service.lead_away(&slices, address.ok(), &mark(token)).await,
                }
            }
        }
    }
}
