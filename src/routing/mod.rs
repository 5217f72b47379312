//! Routes traffic to the leader, by a label on its pod or by the endpoints of a Service.
//!
//! Routing has its own thread and its own connection, so its failures never delay a renewal. Each write is conditional
//! on the version that was read before, so a delayed write has no effect on an object that has changed.

mod endpoint_slice;
pub mod log_events;
mod mark;
mod pod_label;
mod service_definition;
mod service_name;
mod service_route;
mod worker;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use leaderrun_core::instant::Instant;
use leaderrun_core::updates::Update;
use nix::sys::eventfd::EventFd;
use tokio::sync::mpsc::unbounded_channel;

pub use self::mark::MAX_LOCK_NAME_LENGTH;
pub use self::pod_label::{Label, PodLabel};
pub use self::service_definition::PortOption;
pub use self::service_name::ServiceName;
pub use self::service_route::{RouteReport, Service, ServiceObjects, is_reachable};
use self::worker::Worker;
use crate::kubernetes::{ClusterAccess, Error, ErrorKind, Rule};
use crate::lock::SlotCount;
use crate::process::{clock, event_fd, runtime_thread};
use crate::telemetry::observer::Observer;

/// The maximum number of attempts to change an object that other candidates (or, for a pod, the kubelet) change at the
/// same time.
const MAX_TRIES: usize = 8;

/// The placeholder for the slot number in `--pod-label` and `--service`.
pub const SLOT_PLACEHOLDER: &str = "{slot}";

/// Replaces the placeholder with the number of a slot.
fn fill_in(template: &str, slot: usize) -> String {
    template.replace(SLOT_PLACEHOLDER, &slot.to_string())
}

/// The label or the Service that routes traffic to the leader, as named on the command line. [`Routing`] adds what the
/// candidate itself contributes, such as its pod or its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoutingTarget {
    /// A label that only the leader's pod has. A Service selects pods by this label.
    PodLabel(Label),
    /// A Service without a selector, whose only endpoint is the leader's address.
    Service(ServiceName),
}

impl RoutingTarget {
    /// Returns the permissions that a candidate needs for routing, in addition to those for the lock.
    pub fn rules(&self, namespace: &str) -> Vec<Rule> {
        match self {
            Self::PodLabel(_) => PodLabel::rules(namespace),
            Self::Service(service) => service.rules(namespace, true),
        }
    }

    /// Returns whether the target contains the placeholder for the slot number.
    pub fn has_slot_placeholder(&self) -> bool {
        match self {
            Self::PodLabel(label) => label.value.contains(SLOT_PLACEHOLDER),
            Self::Service(service) => service.has_slot_placeholder(),
        }
    }

    /// Returns the targets of all slots, or the target itself if there are no slots.
    pub fn in_slots(&self, slots: Option<SlotCount>) -> Vec<Self> {
        SlotCount::expand(slots, self, Self::in_slot)
    }

    /// Returns the target of the slot with this number.
    fn in_slot(&self, slot: usize) -> Self {
        match self {
            Self::PodLabel(label) => Self::PodLabel(label.in_slot(slot)),
            Self::Service(service) => Self::Service(service.in_slot(slot)),
        }
    }

    /// Returns the permissions that a candidate needs to check that traffic is routed to it.
    pub fn check_rules(&self, namespace: &str) -> Vec<Rule> {
        match self {
            Self::PodLabel(_) => Vec::new(),
            Self::Service(service) => service.check_rules(namespace),
        }
    }
}

/// Writes the option that sets this target.
impl fmt::Display for RoutingTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PodLabel(label) => write!(f, "--pod-label {label}"),
            Self::Service(name) => write!(f, "--service {name}"),
        }
    }
}

/// How traffic is routed to the command of this candidate while it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Routing {
    PodLabel(PodLabel),
    Service(Service),
}

impl Routing {
    /// Returns the routing of each slot, or this routing if there are no slots.
    pub fn in_slots(&self, slots: Option<SlotCount>) -> Vec<Self> {
        SlotCount::expand(slots, self, Self::in_slot)
    }

    fn in_slot(&self, slot: usize) -> Self {
        match self {
            Self::PodLabel(PodLabel { label, pod }) => {
                Self::PodLabel(PodLabel { label: label.in_slot(slot), pod: pod.clone() })
            }
            Self::Service(service) => Self::Service(Service { name: service.name.in_slot(slot), ..service.clone() }),
        }
    }
}

impl fmt::Display for Routing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PodLabel(PodLabel { label, pod }) => write!(f, "the label {label} on pod {pod}"),
            Self::Service(service) => write!(f, "the Service {}", service.name),
        }
    }
}

/// The configuration of the router.
#[derive(Clone)]
pub struct RouterConfig {
    pub routing: Routing,
    /// The namespace of the lock. The default is the namespace of the kubeconfig's context or of the pod.
    pub namespace: Option<String>,
    /// The name of the lock.
    pub lock: String,
    pub access: ClusterAccess,
    /// The timeout of one request.
    pub timeout: Duration,
}

impl RouterConfig {
    /// Returns the configuration for the slot with this number. Each slot is a separate lock.
    fn in_slot(&self, slot: usize) -> Self {
        Self { routing: self.routing.in_slot(slot), lock: format!("{}-{slot}", self.lock), ..self.clone() }
    }
}

/// The thread that routes traffic.
#[derive(Debug)]
pub struct Router {
    observer: Observer,
    /// The descriptor that [`withdrawn`](Self::withdrawn) returns.
    withdrawn: Arc<EventFd>,
    /// Whether traffic may still be routed to this candidate, and routing it away has not been forbidden. The thread
    /// sets this.
    may_need_withdrawal: Arc<AtomicBool>,
    ended: Receiver<io::Result<()>>,
}

impl Router {
    /// Starts the thread. It acts on the updates that the [`observer`](Self::observer) passes to it.
    ///
    /// # Errors
    /// Fails if a descriptor or the thread cannot be created.
    pub fn start(config: RouterConfig) -> io::Result<Self> {
        let withdrawn = Arc::new(event_fd::new()?);
        let may_need_withdrawal = Arc::<AtomicBool>::default();
        let (sender, updates) = unbounded_channel();
        let worker = Worker::new(config, Arc::clone(&withdrawn), Arc::clone(&may_need_withdrawal));
        let ended = runtime_thread::spawn("routing", || async {
            // The worker determines its own address in a blocking call.
            runtime_thread::start_blocking_thread()?;
            let result = worker.run(updates).await;
            if let Err(failure) = &result {
                log_events::routing_failed(&format!("traffic is not routed to the leader: {failure}"));
            }
            result
        })?;
        let observer = Observer::new(move |update| {
            // The thread need not wake up for the other updates.
            if is_about_routing(update) {
                let _ = sender.send(update.clone());
            }
        });
        Ok(Self { observer, withdrawn, may_need_withdrawal, ended })
    }

    /// Returns the observer that passes updates to the thread.
    pub fn observer(&self) -> Observer {
        self.observer.clone()
    }

    /// Returns the descriptor that becomes readable when the command is ending and its traffic has been routed away or
    /// cannot be.
    pub fn withdrawn(&self) -> Arc<EventFd> {
        Arc::clone(&self.withdrawn)
    }

    /// Waits until traffic has been routed away after [`Update::RunEnding`], but at most until the instant `until`.
    /// Logs a warning if traffic may still be routed here at that point.
    pub fn finish(self, until: Instant) {
        let ended = self.ended.recv_timeout(until.since(clock::now()));
        if ended.is_err() && self.may_need_withdrawal.load(Ordering::Relaxed) {
            log_events::routing_failed("traffic may still be routed here: it could not be routed away in time");
        }
    }
}

fn is_about_routing(update: &Update) -> bool {
    matches!(
        update,
        Update::Slot(_)
            | Update::Acquired { .. }
            | Update::Leading { .. }
            | Update::CommandStarted
            | Update::Terminating
            | Update::Lost(_)
            | Update::CommandGone
            | Update::RunEnding
    )
}

/// The report of a step that succeeded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepReport {
    /// Whether the step has changed the route, by writing the one to this candidate or removing it.
    written: bool,
    /// The sentence to log about the route, if the step has found out more than the configuration says.
    sentence: Option<String>,
    /// Problems that remain although the step succeeded.
    warnings: Vec<String>,
}

impl StepReport {
    pub fn new(written: bool) -> Self {
        Self { written, ..Self::default() }
    }

    pub fn with_warnings(mut self, warnings: impl IntoIterator<Item = String>) -> Self {
        self.warnings.extend(warnings);
        self
    }
}

/// Returns the error for an object that other clients have changed during every attempt.
fn too_many_conflicts() -> Error {
    Error::new(ErrorKind::Conflict, "other clients keep changing it")
}
