//! The routing thread. It carries out the steps of [`leaderrun_core::routing`], one at a time.

use std::io;
use std::mem;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, OptionFuture, select_ok};
use leaderrun_core::routing::{Route, RouteAction, RouteInputs, RoutingStep, StepResult};
use leaderrun_core::updates::Update;
use nix::sys::eventfd::EventFd;
use tokio::sync::OnceCell;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout;

use super::endpoint_slice::RouteRequest;
use super::mark::RouteMark;
use super::service_route::{Service, ServiceObjects, SliceEndpoint};
use super::{RouterConfig, Routing, StepReport, log_events};
use crate::kubernetes::{Cluster, Collection, Error, ErrorKind, PODS};
use crate::process::clock::{self, Timer};
use crate::process::readable::Readable;
use crate::telemetry::log::printable_error;

/// The time after which a slow withdrawal is started a second time. The command's stop signal is held back during the
/// withdrawal, and the first attempt may use a connection that died while it was idle.
const HEDGE_DELAY: Duration = Duration::from_millis(300);

/// Routes traffic to this candidate while it leads.
pub struct Worker {
    steps: Arc<Steps>,
    route: Route,
    /// The pending step.
    step: Option<(RoutingStep, BoxFuture<'static, Result<StepReport, Error>>)>,
    /// Whether the last log line about the route said that traffic is routed here.
    is_logged_as_routed: bool,
    /// The last failure that was logged.
    logged_failure: Option<String>,
    /// The current warnings, all of which were logged.
    logged_warnings: Vec<String>,
    /// The descriptor that [`Router::withdrawn`](super::Router::withdrawn) returns.
    withdrawn: Arc<EventFd>,
    /// The latest result of [`Route::may_need_withdrawal`], for the main thread.
    may_need_withdrawal: Arc<AtomicBool>,
    /// Whether the run is ending, so that no more updates follow.
    run_is_ending: bool,
}

impl Worker {
    pub fn new(config: RouterConfig, withdrawn: Arc<EventFd>, may_need_withdrawal: Arc<AtomicBool>) -> Self {
        Self {
            route: Route::new(config.timeout),
            steps: Arc::new(Steps::new(config)),
            step: None,
            is_logged_as_routed: false,
            logged_failure: None,
            logged_warnings: Vec::new(),
            withdrawn,
            may_need_withdrawal,
            run_is_ending: false,
        }
    }

    /// Acts on the updates until the run is ending and traffic has been routed away or cannot be.
    ///
    /// # Errors
    /// Fails if the kernel refuses to create or set the timer.
    pub async fn run(mut self, mut updates: UnboundedReceiver<Update>) -> io::Result<()> {
        let timer = Readable::new(Timer::new()?)?;
        let mut inputs = RouteInputs::default();
        loop {
            let now = clock::now();
            for action in self.route.step(now, mem::take(&mut inputs)) {
                match action {
                    RouteAction::Begin(step) => self.begin(step),
                    RouteAction::Withdrawn => drop(self.withdrawn.write(1)),
                    RouteAction::Finish => {
                        self.may_need_withdrawal.store(self.route.may_need_withdrawal(), Ordering::Relaxed);
                        return Ok(());
                    }
                }
            }
            self.may_need_withdrawal.store(self.route.may_need_withdrawal(), Ordering::Relaxed);
            timer.get().set(self.route.next_timeout(now))?;
            tokio::select! {
                biased;
                update = updates.recv(), if !self.run_is_ending => {
                    let update = update.unwrap_or(Update::RunEnding);
                    self.run_is_ending = matches!(update, Update::RunEnding);
                    if let Update::Slot(slot) = update {
                        // No step has begun yet, because the first step begins after the acquisition.
                        self.steps = Arc::new(Steps::new(self.steps.config.in_slot(slot)));
                    }
                    inputs.updates.push(update);
                }
                Some(result) = OptionFuture::from(self.step.as_mut().map(|(_, step)| step)) => {
                    inputs.result = Some(self.end_step(result));
                }
                ready = timer.ready() => ready?,
            }
        }
    }

    fn begin(&mut self, step: RoutingStep) {
        let (steps, step_to_run) = (Arc::clone(&self.steps), step.clone());
        let result = async move {
            match step_to_run {
                RoutingStep::RouteHere { .. } => steps.carry_out(&step_to_run).await,
                RoutingStep::Withdraw { .. } => hedged(|| steps.carry_out(&step_to_run).boxed()).await,
            }
        };
        self.step = Some((step, result.boxed()));
    }

    fn end_step(&mut self, result: Result<StepReport, Error>) -> StepResult {
        let step_result = match &result {
            Ok(_) => StepResult::Succeeded,
            Err(error) if error.kind == ErrorKind::Forbidden => StepResult::Forbidden,
            Err(_) => StepResult::Failed,
        };
        if let Some((step, _)) = self.step.take() {
            self.log(&step, result);
        }
        step_result
    }

    fn log(&mut self, step: &RoutingStep, result: Result<StepReport, Error>) {
        let routing = &self.steps.config.routing;
        let routes_here = matches!(step, RoutingStep::RouteHere { .. });
        match result {
            Ok(StepReport { written, sentence, warnings }) => {
                if self.logged_failure.take().is_some() && routes_here {
                    log_events::routing_recovered(&routing.to_string());
                }
                // Even if nothing was written, the route may be new: an earlier write may have succeeded without a
                // response.
                if written || self.is_logged_as_routed != routes_here {
                    if routes_here {
                        log_events::routed(&sentence.unwrap_or_else(|| format!("{routing} routes to this candidate")));
                    } else {
                        log_events::unrouted(&routing.to_string());
                    }
                }
                self.is_logged_as_routed = routes_here;
                // `routing_failed` logs any problem with routing, including the warnings of a step that succeeded.
                for warning in warnings.iter().filter(|warning| !self.logged_warnings.contains(warning)) {
                    log_events::routing_failed(warning);
                }
                // Only a step that writes nothing checks for every problem, so a step that has written keeps the
                // earlier warnings.
                if !written {
                    self.logged_warnings.clear();
                }
                self.logged_warnings.extend(warnings);
            }
            Err(error) => {
                let failure = format!("{routing}: {error}");
                if self.logged_failure.as_ref() != Some(&failure) {
                    log_events::routing_failed(&failure);
                    self.logged_failure = Some(failure);
                }
            }
        }
    }
}

/// Runs an operation, and starts it a second time if it has not finished after [`HEDGE_DELAY`]. Returns the first
/// success, or an error if no attempt succeeds.
async fn hedged<'a, T, E>(begin: impl Fn() -> BoxFuture<'a, Result<T, E>>) -> Result<T, E> {
    let mut first = begin();
    match timeout(HEDGE_DELAY, &mut first).await {
        Ok(result) => result,
        Err(_) => select_ok([first, begin()]).await.map(|(result, _)| result),
    }
}

/// The configuration of the steps, and the state that they share.
struct Steps {
    config: RouterConfig,
    /// The connection, which the first step opens. If that fails, the step fails and is retried.
    cluster: OnceCell<Cluster>,
    addresses: OnceCell<Vec<IpAddr>>,
    /// This candidate's addresses, with the EndpointSlices that may contain them.
    endpoints: Mutex<Vec<SliceEndpoint>>,
}

impl Steps {
    fn new(config: RouterConfig) -> Self {
        Self { config, cluster: OnceCell::new(), addresses: OnceCell::new(), endpoints: Mutex::default() }
    }

    /// Returns the cluster and the namespace of the lock.
    async fn cluster(&self) -> Result<(&Cluster, String), Error> {
        let RouterConfig { access, timeout, namespace, .. } = &self.config;
        let opened = self.cluster.get_or_try_init(|| Cluster::open(access, *timeout)).await;
        let cluster = opened.map_err(|failure| Error::unknown(printable_error(&failure)))?;
        Ok((cluster, namespace.clone().unwrap_or_else(|| cluster.default_namespace().to_owned())))
    }

    async fn addresses(&self, service: &Service, cluster: &Cluster) -> Result<&[IpAddr], Error> {
        self.addresses.get_or_try_init(|| service.addresses(cluster)).await.map(Vec::as_slice)
    }

    async fn carry_out(&self, step: &RoutingStep) -> Result<StepReport, Error> {
        let (cluster, namespace) = self.cluster().await?;
        let RouterConfig { routing, lock, timeout, .. } = &self.config;
        let mark = |token: &str| RouteMark { lock: lock.clone(), token: token.to_owned() };
        match routing {
            Routing::PodLabel(label) => {
                let pods = Collection::new(cluster, &PODS, &namespace).with_timeout(*timeout);
                let written = match step {
                    RoutingStep::RouteHere { token, until, rewrite } => {
                        label.route_here(&pods, &mark(token), *until, *rewrite).await
                    }
                    RoutingStep::Withdraw { token } => label.withdraw(&pods, &mark(token)).await,
                };
                written.map(StepReport::new)
            }
            Routing::Service(service) => {
                let objects = ServiceObjects::new(cluster, &namespace, *timeout);
                match step {
                    RoutingStep::RouteHere { token, until, rewrite } => match self.addresses(service, cluster).await {
                        Ok(addresses) => {
                            let request = RouteRequest { mark: mark(token), until: *until, rewrite: *rewrite };
                            service.route_here(&objects, addresses, &request, &self.endpoints).await
                        }
                        Err(error) => service.remove_predecessor(&objects, &mark(token)).await.and(Err(error)),
                    },
                    RoutingStep::Withdraw { token } => {
                        let endpoints =
                            self.endpoints.lock().expect("no thread panics while it holds this lock").clone();
                        service.withdraw(&objects, &endpoints, &mark(token)).await.map(StepReport::new)
                    }
                }
            }
        }
    }
}
