//! The thread's work: one step about the traffic and one Event at a time.

use std::io;
use std::mem;
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
use tracing::{debug, info, warn};

use super::collection::{Collection, Refusal};
use super::endpoint_slice::{ENDPOINT_SLICES, Service};
use super::mark::Mark;
use super::pod_label::PODS;
use super::{Announcement, Routing, events};
use crate::lock::kubernetes::Cluster;
use crate::process::clock::{self, Timer};
use crate::process::readable::Readable;
use crate::telemetry::log::printable_cause;

/// How long after the start of the command an Event says so: a hand-over has more urgent things to do.
const SETTLED: Duration = Duration::from_secs(1);

/// After how long a withdrawal, for which a command waits, is begun a second time beside the first. Whose connection was
/// idle for long, and may be dead: the second one gets another.
const HEDGE: Duration = Duration::from_millis(300);

pub struct Worker {
    access: Arc<ClusterAccess>,
    route: Option<Route>,
    /// What is being done about the traffic.
    step: Option<(Step, BoxFuture<'static, Result<bool, Refusal>>)>,
    /// The log says that it is led here.
    routed: bool,
    /// What was last complained about.
    complaint: Option<String>,
    withdrawn: Arc<EventFd>,
    /// What [`may_be_routed`](Self::may_be_routed) says, for another thread.
    is_routed: Arc<AtomicBool>,
    /// Somebody waits for the traffic to be led away.
    awaited: bool,
    /// Leading it away is not allowed.
    hopeless: bool,
    /// Of the lock's objects, in the present leadership.
    uids: Vec<String>,
    /// An Event has said that a leadership began, and none that it is over.
    leads: bool,
    event: Option<BoxFuture<'static, ()>>,
    /// When an Event says that the leadership began.
    event_at: Option<Instant>,
    over: bool,
}

impl Worker {
    pub fn new(announcement: Announcement, withdrawn: Arc<EventFd>, is_routed: Arc<AtomicBool>) -> Self {
        let route = announcement.routing.as_ref().map(|_| Route::new(announcement.timing.attempt()));
        Self {
            access: Arc::new(ClusterAccess { announcement, cluster: OnceCell::new(), address: OnceCell::new() }),
            route,
            step: None,
            routed: false,
            complaint: None,
            withdrawn,
            is_routed,
            awaited: false,
            hopeless: false,
            uids: Vec::new(),
            leads: false,
            event: None,
            event_at: None,
            over: false,
        }
    }

    /// Works until it is told that everything is over, and has done what was left to do.
    pub async fn work(mut self, mut told: UnboundedReceiver<Update>) -> io::Result<()> {
        let timer = Readable::new(Timer::new()?)?;
        loop {
            let now = clock::now();
            self.take_step(now);
            self.is_routed.store(self.may_be_routed(), Ordering::Relaxed);
            if self.over && self.event.is_none() && !self.may_be_routed() {
                return Ok(());
            }
            if self.event_at.is_some_and(|at| now >= at) {
                self.write_first_event();
            }
            let next_step = self.route.as_ref().and_then(|route| route.next_timeout(now));
            timer.get().set(next_step.into_iter().chain(self.event_at).min())?;
            tokio::select! {
                biased;
                Some(update) = told.recv() => self.handle(&update),
                Some(ended) = OptionFuture::from(self.step.as_mut().map(|(_, step)| step)) => self.handle_step(ended),
                Some(()) = OptionFuture::from(self.event.as_mut()) => self.event = None,
                ready = timer.ready() => ready?,
            }
        }
    }

    /// Whether traffic may still be led here, and that can be helped.
    fn may_be_routed(&self) -> bool {
        !self.hopeless && self.route.as_ref().is_some_and(Route::may_be_shown)
    }

    fn handle(&mut self, update: &Update) {
        if let Some(route) = &mut self.route {
            route.told(update);
        }
        match update {
            Update::Acquired { uids, .. } => self.uids.clone_from(uids),
            Update::CommandStarted => self.event_at = Some(clock::now() + SETTLED),
            Update::Terminating => {
                self.awaited = true;
                self.answer();
            }
            Update::Lost(_) => self.write_last_event(),
            Update::Exiting => {
                self.over = true;
                self.write_last_event();
            }
            _ => {}
        }
    }

    /// Says that the traffic was led away, to whom that may concern. Or that it is of no use to wait.
    fn answer(&mut self) {
        if self.awaited && !self.may_be_routed() {
            self.awaited = false;
            let _ = self.withdrawn.write(1);
        }
    }

    fn write_first_event(&mut self) {
        (self.event_at, self.leads) = (None, true);
        self.write_event("became leader");
    }

    fn write_last_event(&mut self) {
        if self.event_at.is_some() {
            self.write_first_event();
        }
        if mem::take(&mut self.leads) {
            self.write_event("stopped leading");
        }
    }

    fn write_event(&mut self, what: &str) {
        let (before, access, uids) = (self.event.take(), Arc::clone(&self.access), self.uids.clone());
        let message = format!("{} {what}", access.announcement.identity);
        let event = async move {
            OptionFuture::from(before).await;
            match access.cluster().await {
                Ok((cluster, namespace)) => {
                    let Announcement { kind, name, timing, .. } = &access.announcement;
                    let subjects = kind.objects(&namespace, name).into_iter().zip(uids).collect();
                    events::write(cluster, subjects, &message, timing.attempt()).await;
                }
                Err(refusal) => debug!("no Event is written: {refusal}"),
            }
        };
        self.event = Some(event.boxed());
    }

    /// Begins what has to be done about the traffic, and drops what is under way if that is no longer it.
    fn take_step(&mut self, now: Instant) {
        let Some(route) = &mut self.route else { return };
        let Some(next) = route.next(now) else { return };
        if self.step.as_ref().is_some_and(|(under_way, _)| under_way.is_same_way(&next)) {
            return;
        }
        route.begun(&next);
        let (access, step) = (Arc::clone(&self.access), next.clone());
        let taken = async move {
            match step {
                Step::Show { .. } => access.take(&step).await,
                Step::Withdraw { .. } => hedged(|| access.take(&step).boxed()).await,
            }
        };
        self.step = Some((next, taken.boxed()));
    }

    fn handle_step(&mut self, ended: Result<bool, Refusal>) {
        let (Some((step, _)), Some(route), Some(routing)) =
            (self.step.take(), &mut self.route, &self.access.announcement.routing)
        else {
            return;
        };
        let done = match ended {
            Ok(_) => Done::Well,
            Err(Refusal::Forbidden(_)) => Done::Forbidden,
            Err(_) => Done::Badly,
        };
        route.ended(clock::now(), &step, done);
        self.hopeless = done == Done::Forbidden && matches!(step, Step::Withdraw { .. });
        match ended {
            Ok(changed) => {
                if self.complaint.take().is_some() && matches!(step, Step::Show { .. }) {
                    info!(event = "routing_trouble_over", "{routing}: no trouble any more");
                }
                let (was_routed, routes) = (self.routed, matches!(step, Step::Show { .. }));
                self.routed = routes;
                // The answer that would have said so may be lost.
                match changed || was_routed != routes {
                    true if routes => info!(event = "routed", "{routing} leads here"),
                    true => info!(event = "unrouted", "{routing} does not lead here any more"),
                    false => {}
                }
            }
            Err(refusal) => {
                let complaint = format!("{routing}: {refusal}");
                if self.complaint.as_ref() != Some(&complaint) {
                    warn!(event = "routing_trouble", "{complaint}");
                    self.complaint = Some(complaint);
                }
            }
        }
        self.answer();
    }
}

/// Does the same a second time when the first takes long, and goes by whichever comes to something first.
async fn hedged<'a, T, E>(take: impl Fn() -> BoxFuture<'a, Result<T, E>>) -> Result<T, E> {
    let mut first = take();
    match timeout(HEDGE, &mut first).await {
        Ok(ended) => ended,
        Err(_) => select_ok([first, take()]).await.map(|(ended, _)| ended),
    }
}

/// The way to the API server, made when first needed: a failure is one like any other, and it is tried again.
struct ClusterAccess {
    announcement: Announcement,
    cluster: OnceCell<Cluster>,
    address: OnceCell<IpAddr>,
}

impl ClusterAccess {
    /// And the namespace of the lock.
    async fn cluster(&self) -> Result<(&Cluster, String), Refusal> {
        let Announcement { cluster: options, timing, namespace, .. } = &self.announcement;
        let made = self.cluster.get_or_try_init(|| Cluster::from_options(options.clone(), timing.attempt())).await;
        let cluster = made.map_err(|failure| Refusal::Other(printable_cause(&failure)))?;
        Ok((cluster, namespace.clone().unwrap_or_else(|| cluster.default_namespace().to_owned())))
    }

    async fn address(&self, service: &Service, cluster: &Cluster) -> Result<IpAddr, Refusal> {
        let find = || async {
            let (service, server) = (service.clone(), cluster.host_and_port());
            let found = spawn_blocking(move || service.address(&server)).await;
            found.unwrap_or_else(|failure| Err(Refusal::Other(failure.to_string())))
        };
        self.address.get_or_try_init(find).await.copied()
    }

    /// Takes a step. Whether it changed anything.
    async fn take(&self, step: &Step) -> Result<bool, Refusal> {
        let (cluster, namespace) = self.cluster().await?;
        let patience = self.announcement.timing.attempt();
        let collection = |resource| Collection::new(cluster, resource, &namespace, patience);
        let mark = |token: &str| Mark { lock: self.announcement.name.clone(), token: token.to_owned() };
        match &self.announcement.routing {
            None => Ok(false),
            Some(Routing::PodLabel(label)) => {
                let pods = collection(PODS);
                match step {
                    Step::Show { token, until, anew } => label.show(&pods, &mark(token), *until, *anew).await,
                    Step::Withdraw { token } => label.withdraw(&pods, &mark(token)).await,
                }
            }
            Some(Routing::Service(service)) => {
                let (slices, address) = (collection(ENDPOINT_SLICES), self.address(service, cluster).await);
                match step {
                    Step::Show { token, until, anew } => match address {
                        Ok(address) => service.show(&slices, address, &mark(token), *until, *anew).await,
                        Err(refusal) => service.show_nobody(&slices, &mark(token)).await.and(Err(refusal)),
                    },
                    Step::Withdraw { token } => service.withdraw(&slices, address.ok(), &mark(token)).await,
                }
            }
        }
    }
}
