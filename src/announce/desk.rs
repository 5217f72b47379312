//! The thread's work: one step about the traffic and one Event at a time.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, OptionFuture};
use nix::sys::eventfd::EventFd;
use tokio::sync::mpsc::UnboundedReceiver;
use tracing::{info, warn};

use super::collection::{Collection, Refusal};
use super::endpoint_slice::ENDPOINT_SLICES;
use super::pod_label::PODS;
use super::route::{Done, Route, Step};
use super::{Announcement, Routing, events};
use crate::lock::ObjectName;
use crate::lock::kubernetes::Cluster;
use crate::process::clock::{Instant, Timer};
use crate::process::readable::Readable;
use crate::telemetry::state::Update;

/// How long what is forbidden is not tried again; roles may arrive later.
const FORBIDDEN: Duration = Duration::from_secs(60);

/// How long after the start of the command an Event says so: a hand-over has more urgent things to do.
const SETTLED: Duration = Duration::from_secs(1);

pub struct Desk {
    announcement: Announcement,
    cluster: Option<Cluster>,
    route: Option<Route>,
    /// What is being done about the traffic.
    step: Option<(Step, BoxFuture<'static, Result<bool, Refusal>>)>,
    /// What was last complained about.
    complaint: Option<String>,
    led_away: Arc<EventFd>,
    /// Somebody waits for the traffic to be led away.
    awaited: bool,
    /// Of the lock's objects, in the present leadership.
    uids: Vec<String>,
    /// An Event has said that a leadership began, and none that it is over.
    leads: bool,
    event: Option<BoxFuture<'static, ()>>,
    /// When an Event says that the leadership began.
    event_at: Option<Instant>,
    over: bool,
}

impl Desk {
    pub fn new(announcement: Announcement, led_away: Arc<EventFd>) -> Self {
        let route = announcement.routing.as_ref().map(|_| Route::new(announcement.timing.attempt()));
        Self {
            announcement,
            cluster: None,
            route,
            step: None,
            complaint: None,
            led_away,
            awaited: false,
            uids: Vec::new(),
            leads: false,
            event: None,
            event_at: None,
            over: false,
        }
    }

    /// Works until it is told that everything is over, and has done what was left to do.
    pub async fn work(mut self, mut told: UnboundedReceiver<Update>) -> Result<()> {
        let timer = Readable::new(Timer::new()?)?;
        loop {
            let now = Instant::now();
            self.take_step(now).await?;
            if self.over && self.event.is_none() && !self.leaves_traffic() {
                return Ok(());
            }
            if self.event_at.is_some_and(|at| now >= at) {
                self.write_first_event().await?;
            }
            let next_step = self.route.as_ref().and_then(|route| route.next_timeout(now));
            timer.get().set(next_step.into_iter().chain(self.event_at).min())?;
            tokio::select! {
                biased;
                Some(update) = told.recv() => self.handle(&update).await?,
                Some(ended) = OptionFuture::from(self.step.as_mut().map(|(_, step)| step)) => self.handle_step(ended),
                Some(()) = OptionFuture::from(self.event.as_mut()) => self.event = None,
                ready = timer.ready() => ready?,
            }
        }
    }

    /// Whether traffic may still be led here, and that can be helped.
    fn leaves_traffic(&self) -> bool {
        self.step.is_some() && self.route.as_ref().is_some_and(Route::may_be_shown)
    }

    async fn handle(&mut self, update: &Update) -> Result<()> {
        if let Some(route) = &mut self.route {
            route.told(update);
        }
        match update {
            Update::Won { uids, .. } => self.uids.clone_from(uids),
            Update::CommandStarted => self.event_at = Some(Instant::now() + SETTLED),
            Update::Ending => {
                self.awaited = true;
                self.answer(false);
            }
            Update::Lost(_) => self.write_last_event().await?,
            Update::Over => {
                self.over = true;
                self.write_last_event().await?;
            }
            _ => {}
        }
        Ok(())
    }

    async fn write_first_event(&mut self) -> Result<()> {
        (self.event_at, self.leads) = (None, true);
        self.write_event("became leader").await
    }

    async fn write_last_event(&mut self) -> Result<()> {
        if self.event_at.is_some() {
            self.write_first_event().await?;
        }
        if mem::take(&mut self.leads) {
            self.write_event("stopped leading").await?;
        }
        Ok(())
    }

    /// Says that the traffic was led away, to whom that may concern. Or that it is of no use to wait.
    fn answer(&mut self, hopeless: bool) {
        let withdrawn = self.route.as_ref().is_none_or(|route| !route.may_be_shown());
        if self.awaited && (withdrawn || hopeless) {
            self.awaited = false;
            let _ = self.led_away.write(1);
        }
    }

    async fn write_event(&mut self, what: &str) -> Result<()> {
        let (cluster, namespace) = self.cluster().await?;
        let Announcement { kind, name, identity, timing, .. } = &self.announcement;
        let (first, second) = kind.resources();
        let objects = [Some(first), second].into_iter().flatten();
        let objects = objects.map(|resource| ObjectName { resource, namespace: namespace.clone(), name: name.clone() });
        let subjects = objects.zip(self.uids.clone()).collect();
        let message = format!("{identity} {what}");
        let before = self.event.take();
        let event = events::write(cluster, subjects, message, timing.attempt());
        self.event = Some(OptionFuture::from(before).then(|_| event).boxed());
        Ok(())
    }

    /// Begins what has to be done about the traffic, and drops what is under way if that is no longer it.
    async fn take_step(&mut self, now: Instant) -> Result<()> {
        let Some(next) = self.route.as_ref().and_then(|route| route.next(now)) else { return Ok(()) };
        let goes_on = |under_way: &Step| mem::discriminant(under_way) == mem::discriminant(&next);
        if self.step.as_ref().is_some_and(|(under_way, _)| goes_on(under_way)) {
            return Ok(());
        }
        let (cluster, namespace) = self.cluster().await?;
        if let (Some(route), Some(routing)) = (&mut self.route, self.announcement.routing.clone()) {
            route.begun(&next);
            let (step, patience) = (next.clone(), self.announcement.timing.attempt());
            let taken = async move { take(&step, &routing, &cluster, &namespace, patience).await };
            self.step = Some((next, taken.boxed()));
        }
        Ok(())
    }

    fn handle_step(&mut self, ended: Result<bool, Refusal>) {
        let (Some((step, _)), Some(route), Some(routing)) =
            (self.step.take(), &mut self.route, &self.announcement.routing)
        else {
            return;
        };
        let retry_period = self.announcement.timing.retry_period();
        let pause = match ended {
            Err(Refusal::Forbidden(_)) => FORBIDDEN,
            // In a hurry only where it leads.
            _ if route.may_be_shown() => retry_period / 4,
            _ => retry_period * 5,
        };
        let done = if ended.is_ok() { Done::Well } else { Done::Badly { pause } };
        route.ended(Instant::now(), &step, done);
        let hopeless = matches!(ended, Err(Refusal::Forbidden(_)));
        match ended {
            Ok(changed) => {
                self.complaint = None;
                match step {
                    Step::Show { .. } if changed => info!(event = "routed", "{routing} leads here"),
                    Step::Withdraw { .. } if changed => {
                        info!(event = "unrouted", "{routing} does not lead here any more")
                    }
                    _ => {}
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
        self.answer(hopeless);
    }

    /// The way to the API server, made when first needed, and the namespace of the lock.
    async fn cluster(&mut self) -> Result<(Cluster, String)> {
        let Announcement { cluster: options, timing, namespace, .. } = &self.announcement;
        let cluster = match self.cluster.take() {
            Some(cluster) => cluster,
            None => Cluster::from_options(options.clone(), timing.attempt()).await?,
        };
        let namespace = namespace.clone().unwrap_or_else(|| cluster.default_namespace().to_owned());
        self.cluster = Some(cluster.clone());
        Ok((cluster, namespace))
    }
}

/// Takes a step. Whether it changed anything.
async fn take(
    step: &Step,
    routing: &Routing,
    cluster: &Cluster,
    namespace: &str,
    patience: Duration,
) -> Result<bool, Refusal> {
    let collection = |resource| Collection::new(cluster, resource, namespace, patience);
    match routing {
        Routing::PodLabel(label) => {
            let pods = collection(PODS);
            match step {
                Step::Show { token, until } => label.show(&pods, token, *until).await,
                Step::Withdraw { token } => label.withdraw(&pods, token.as_deref()).await,
            }
        }
        Routing::Service(service) => {
            let slices = collection(ENDPOINT_SLICES);
            let address = service.address(&cluster.host_and_port())?;
            match step {
                Step::Show { token, until } => service.show(&slices, address, token, *until).await,
                Step::Withdraw { token } => service.withdraw(&slices, address, token.as_deref()).await,
            }
        }
    }
}
