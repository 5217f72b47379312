//! What the cluster is told of who leads: Events on the lock's objects, and the way of a Service to the
//! leader.
//!
//! It has a thread and a client of its own, so whatever hangs here delays no renewal. Everything is
//! written with the version that was read before: what arrives late changes nothing.

mod collection;
mod endpoint_slice;
mod events;
mod mark;
mod pod_label;
mod worker;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

use leaderrun_core::timing::Timing;
use leaderrun_core::updates::Update;
use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tracing::warn;

pub use self::endpoint_slice::{Service, ServiceName, ServicePort, check_ports, is_reachable};
pub use self::events::rule as event_rule;
pub use self::mark::LONGEST_LOCK;
pub use self::pod_label::{Label, PodLabel};
use self::worker::Worker;
use crate::lock::kubernetes::ClusterOptions;
use crate::lock::{Kind, Rule};
use crate::telemetry::state::Observer;

/// How long the program's end waits for the traffic to be led away and for the last Event.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// By what traffic finds the leader, as far as rights are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoutingTarget {
    /// A Service selects pods by this label, which only the leader's has.
    PodLabel(Label),
    /// A Service without a selector has the leader's address.
    Service(ServiceName),
}

impl RoutingTarget {
    /// What a candidate needs for it, besides what the lock takes.
    pub fn rules(&self, namespace: &str) -> Vec<Rule> {
        match self {
            Self::PodLabel(_) => PodLabel::rules(namespace),
            Self::Service(service) => service.rules(namespace),
        }
    }
}

/// As an option of leaderrun says it.
impl fmt::Display for RoutingTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PodLabel(label) => write!(f, "--pod-label {label}"),
            Self::Service(name) => write!(f, "--service {name}"),
        }
    }
}

/// How traffic finds the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Routing {
    PodLabel(PodLabel),
    Service(Service),
}

impl fmt::Display for Routing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PodLabel(PodLabel { label, pod }) => write!(f, "the label {label} of the pod {pod}"),
            Self::Service(service) => write!(f, "the Service {}", service.name),
        }
    }
}

/// Whom and what to announce.
#[derive(Clone, Debug)]
pub struct Announcement {
    pub kind: Kind,
    pub namespace: Option<String>,
    pub name: String,
    pub cluster: ClusterOptions,
    pub identity: String,
    pub timing: Timing,
    pub routing: Option<Routing>,
}

/// The running thread.
#[derive(Debug)]
pub struct Announcer {
    observer: Observer,
    withdrawn: Arc<EventFd>,
    is_routed: Arc<AtomicBool>,
    done: Receiver<()>,
    routes: bool,
}

impl Announcer {
    /// Starts the thread. It goes by what [`observer`](Self::observer) is told.
    ///
    /// # Errors
    /// When the kernel gives no descriptor or no thread.
    pub fn start(announcement: Announcement) -> io::Result<Self> {
        let withdrawn = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let (updates, told) = unbounded_channel();
        let (sender, done) = sync_channel(1);
        let routes = announcement.routing.is_some();
        let is_routed = Arc::new(AtomicBool::new(false));
        let worker = Worker::new(announcement, Arc::clone(&withdrawn), Arc::clone(&is_routed));
        thread::Builder::new().name("announce".into()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let ended = runtime.and_then(|runtime| {
                let ended = runtime.block_on(worker.work(told));
                // Dropping it would wait for a name lookup that may never come back.
                runtime.shutdown_background();
                ended
            });
            if let Err(failure) = ended {
                warn!(event = "announcing_failed", "the leader is not announced: {failure}");
            }
            let _ = sender.send(());
        })?;
        Ok(Self { observer: observer(updates, routes), withdrawn, is_routed, done, routes })
    }

    /// By whom the thread is told what happens.
    pub fn observer(&self) -> Observer {
        self.observer.clone()
    }

    /// Becomes readable when the traffic was led away because the command is to end, or cannot be; none
    /// where none is led.
    pub fn withdrawn(&self) -> Option<Arc<EventFd>> {
        self.routes.then(|| Arc::clone(&self.withdrawn))
    }

    /// Leads the traffic away and writes the last Event, as far as the API server answers in a moment.
    pub fn finish(self) {
        self.observer.tell(Update::Exiting);
        if self.done.recv_timeout(LAST_WORDS).is_err() && self.is_routed.load(Ordering::Relaxed) {
            warn!(event = "routing_trouble", "traffic may still be led here: it could not be led away in time");
        }
    }
}

/// Hands the thread what concerns it. It is not woken for anything else.
fn observer(updates: UnboundedSender<Update>, routes: bool) -> Observer {
    let concerns = if routes { concerns_routes } else { concerns_events };
    Observer::new(move |update| {
        if concerns(update) {
            let _ = updates.send(update.clone());
        }
    })
}

/// Of what happens, the little that Events are written about.
fn concerns_events(update: &Update) -> bool {
    matches!(update, Update::Acquired { .. } | Update::CommandStarted | Update::Lost(_) | Update::Exiting)
}

/// And what leads traffic here or away, each renewal included.
fn concerns_routes(update: &Update) -> bool {
    concerns_events(update) || matches!(update, Update::Leading { .. } | Update::Terminating | Update::CommandGone)
}
