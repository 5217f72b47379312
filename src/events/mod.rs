//! Writes Kubernetes Events about the lock's objects, in client-go's format. `kubectl describe` shows them.
//!
//! An Event that cannot be written is dropped. Events have their own thread and their own connection, so a slow API
//! server or file system never delays a renewal.

pub mod log_events;

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, OptionFuture};
use jiff::Timestamp;
use leaderrun_core::instant::Instant;
use leaderrun_core::updates::Update;
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::sleep_until;

use crate::kubernetes::{Cluster, ClusterAccess, Collection, EVENTS, ObjectName, Rule, Verb};
use crate::lock::LockName;
use crate::process::{clock, runtime_thread};
use crate::telemetry::log::printable_error;
use crate::telemetry::observer::Observer;

/// The component that each Event names as its source.
const COMPONENT: &str = "leaderrun";

/// The delay between the start of the command and the Event about the new leader. The requests of the hand-over are
/// more urgent.
const FIRST_EVENT_DELAY: Duration = Duration::from_secs(1);

/// The maximum length of the name of a Kubernetes object.
const MAX_EVENT_NAME: usize = 253;

/// Returns the permission that a candidate needs to write Events. The lock works without it.
pub fn rule(namespace: &str) -> Rule {
    EVENTS.rule(namespace, None, &[Verb::Create])
}

/// The lock that Events are about, and how they are written.
#[derive(Clone)]
pub struct EventsConfig {
    pub lock: LockName,
    pub access: ClusterAccess,
    pub identity: String,
    /// The timeout of one request.
    pub timeout: Duration,
}

/// The Events about a run, with the updates that were received before the thread that writes the Events was started.
pub struct Events {
    config: EventsConfig,
    observer: Observer,
    updates: UnboundedReceiver<Update>,
}

impl Events {
    /// Prepares the Events about the updates that the [`observer`](Self::observer) receives.
    pub fn new(config: EventsConfig) -> Self {
        let (sender, updates) = unbounded_channel();
        let observer = Observer::new(move |update| {
            // The thread need not wake up for the other updates.
            if matches!(
                update,
                Update::Slot(_)
                    | Update::Acquired { .. }
                    | Update::CommandStarted
                    | Update::Lost(_)
                    | Update::RunEnding
            ) {
                let _ = sender.send(update.clone());
            }
        });
        Self { config, observer, updates }
    }

    /// Returns the observer that passes updates to the thread.
    pub fn observer(&self) -> Observer {
        self.observer.clone()
    }

    /// Starts the thread that writes the Events.
    ///
    /// # Errors
    /// Fails if the thread cannot be created.
    pub fn start(self) -> io::Result<EventsThread> {
        let Self { config, updates, .. } = self;
        Ok(EventsThread { ended: runtime_thread::spawn("events", || Writer::new(config).run(updates))? })
    }
}

/// The thread that writes Events.
#[derive(Debug)]
pub struct EventsThread {
    ended: Receiver<io::Result<()>>,
}

impl EventsThread {
    /// Waits until the last Event has been written, but at most until the instant `until`. The observer must have been
    /// notified of [`Update::RunEnding`].
    pub fn finish(self, until: Instant) {
        let _ = self.ended.recv_timeout(until.since(clock::now()));
    }
}

/// Writes the Events about the leadership of this candidate.
struct Writer {
    sink: Arc<Sink>,
    /// The uids of the lock's objects in the current leadership.
    uids: Vec<String>,
    /// The instant at which the Event about the beginning of this leadership is due; `None` before the command has
    /// started, and after the Event has been queued.
    first_due: Option<tokio::time::Instant>,
    /// Whether the Event about the beginning of this leadership has been queued, but not the one about its end.
    is_announced: bool,
    queue: VecDeque<BoxFuture<'static, ()>>,
    /// Whether this run is ending, so no more updates follow.
    is_over: bool,
}

impl Writer {
    fn new(config: EventsConfig) -> Self {
        Self {
            sink: Arc::new(Sink { config, cluster: OnceCell::new() }),
            uids: Vec::new(),
            first_due: None,
            is_announced: false,
            queue: VecDeque::new(),
            is_over: false,
        }
    }

    /// Writes Events, one after another, until this run is ending and the last one is written.
    async fn run(mut self, mut updates: UnboundedReceiver<Update>) -> io::Result<()> {
        let mut writing = None;
        loop {
            writing = writing.or_else(|| self.queue.pop_front());
            if self.is_over && writing.is_none() {
                return Ok(());
            }
            let first_due = OptionFuture::from(self.first_due.map(sleep_until));
            tokio::select! {
                biased;
                update = updates.recv(), if !self.is_over => self.handle(&update.unwrap_or(Update::RunEnding)),
                Some(()) = first_due => self.begin_leadership(),
                Some(()) = OptionFuture::from(writing.as_mut()) => writing = None,
            }
        }
    }

    fn handle(&mut self, update: &Update) {
        match update {
            // Replacing the sink drops no Event, because none is queued before this update.
            Update::Slot(slot) => {
                let mut config = self.sink.config.clone();
                config.lock = config.lock.in_slot(*slot);
                self.sink = Arc::new(Sink { config, cluster: OnceCell::new() });
            }
            Update::Acquired { uids, .. } => self.uids.clone_from(uids),
            Update::CommandStarted => self.first_due = Some(tokio::time::Instant::now() + FIRST_EVENT_DELAY),
            Update::Lost(_) => self.end_leadership(),
            Update::RunEnding => {
                self.is_over = true;
                self.end_leadership();
            }
            _ => {}
        }
    }

    fn begin_leadership(&mut self) {
        (self.first_due, self.is_announced) = (None, true);
        self.enqueue("became leader");
    }

    fn end_leadership(&mut self) {
        if self.first_due.is_some() {
            // A leadership that ends before its first Event is due gets both Events now.
            self.begin_leadership();
        }
        if mem::take(&mut self.is_announced) {
            self.enqueue("stopped leading");
        }
    }

    fn enqueue(&mut self, what: &str) {
        let (sink, uids) = (Arc::clone(&self.sink), self.uids.clone());
        let message = format!("{} {what}", sink.config.identity);
        self.queue.push_back(async move { sink.write(uids, &message).await }.boxed());
    }
}

/// The API server that Events are written to.
struct Sink {
    config: EventsConfig,
    /// The connection. The first Event opens it; if that fails, the next Event tries again.
    cluster: OnceCell<Cluster>,
}

impl Sink {
    /// Writes an Event about each object of the lock.
    async fn write(&self, uids: Vec<String>, message: &str) {
        let EventsConfig { lock, access, timeout, .. } = &self.config;
        let cluster = self.cluster.get_or_try_init(|| Cluster::open(access, *timeout)).await;
        let cluster = match cluster {
            Ok(cluster) => cluster,
            Err(failure) => return log_events::event_not_written(&printable_error(&failure)),
        };
        let namespace = lock.namespace.as_deref().unwrap_or(cluster.default_namespace());
        let events = Collection::new(cluster, &EVENTS, namespace).with_timeout(*timeout);
        for (object, uid) in lock.objects(namespace).iter().zip(uids) {
            let now = Timestamp::now();
            let name = event_name(&lock.name, now);
            if let Err(error) = events.create(&name, &event(&name, object, &uid, message, now)).await {
                log_events::event_not_written(&error.to_string());
            }
        }
    }
}

/// Returns a name for an Event about a lock, as client-go forms it: the lock's name and the time. A long name is cut.
fn event_name(lock: &str, now: Timestamp) -> String {
    let time = format!("{:x}", now.as_nanosecond());
    let length = lock.len().min(MAX_EVENT_NAME - ".".len() - time.len());
    // The name must be a DNS subdomain, in which no label ends with a hyphen.
    format!("{}.{time}", lock[..length].trim_end_matches(['-', '.']))
}

fn event(event_name: &str, object: &ObjectName, uid: &str, message: &str, now: Timestamp) -> Value {
    let ObjectName { resource, namespace, name } = object;
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": { "namespace": namespace, "name": event_name },
        "involvedObject": {
            "apiVersion": resource.api_version(),
            "kind": resource.kind,
            "namespace": namespace,
            "name": name,
            "uid": uid,
        },
        "type": "Normal",
        "reason": "LeaderElection",
        "message": message,
        "source": { "component": COMPONENT },
        "reportingComponent": COMPONENT,
        "reportingInstance": "",
        "firstTimestamp": format!("{now:.0}"),
        "lastTimestamp": format!("{now:.0}"),
        "count": 1,
    })
}
