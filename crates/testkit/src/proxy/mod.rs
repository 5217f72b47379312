//! A proxy between a client and the API server that makes the network bad.
//!
//! Faults of two sorts: those of the connection lose bytes below TLS ([`wire`]), those of single requests
//! pick them by a [`Match`] ([`faults`]). All can be switched while traffic flows.

mod faults;
mod forward;
mod matching;
mod wire;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

use self::faults::{Fault, Faults, Gate};
use self::wire::{Traffic, Wire};
use super::client::Client;
use super::cluster::Cluster;
use super::kubeconfig::Kubeconfigs;
use super::port::Port;
use super::runtime;
use super::users::{self, ADMIN};
use super::wait::TIMEOUT;

pub use self::matching::{Match, ReceivedRequest};

/// A running proxy in front of a cluster. It stops when dropped.
pub struct Proxy {
    port: Port,
    kubeconfigs: Kubeconfigs,
    shared: Arc<Shared>,
    listening: Mutex<Option<Listening>>,
}

struct Listening {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Starts a proxy through which everything passes as it is.
    pub fn start(cluster: &Cluster) -> Proxy {
        let port = Port::reserve();
        let proxy = Proxy {
            kubeconfigs: Kubeconfigs::new(port.address()),
            port,
            shared: Arc::new(Shared::new(cluster.address())),
            listening: Mutex::new(None),
        };
        proxy.listen();
        proxy
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// A kubeconfig by which the administrator goes through this proxy.
    pub fn kubeconfig(&self) -> PathBuf {
        self.kubeconfigs.file_for(ADMIN)
    }

    /// A kubeconfig by which that user goes through this proxy.
    pub fn kubeconfig_for(&self, user: &str) -> PathBuf {
        self.kubeconfigs.file_for(users::named(user))
    }

    /// Requests as that user, through this proxy.
    pub fn client_for(&self, user: &str) -> Client {
        Client::new(self.address(), users::named(user))
    }

    /// No faults from here on. New connections work; those that have lost bytes stay silent, and open until
    /// the client closes them.
    pub fn heal(&self) {
        let mut faults = self.shared.faults();
        faults.open_gates();
        *faults = Faults::default();
        drop(faults);
        self.listen();
    }

    /// Bytes vanish both ways, nothing is closed. New connections are accepted and never answered.
    pub fn partition(&self) {
        self.lose(Traffic::SILENT);
    }

    /// Bytes to the server vanish; what the server says still arrives.
    pub fn partition_requests(&self) {
        self.lose(Traffic { requests_vanish: true, replies_vanish: false });
    }

    /// Bytes from the server vanish; requests still arrive there, on connections that were open before.
    pub fn partition_replies(&self) {
        self.lose(Traffic { requests_vanish: false, replies_vanish: true });
    }

    /// The present connections go silent for good, new ones work.
    pub fn silence_existing(&self) {
        self.shared.each_wire(|wire| wire.worsen(Traffic::SILENT));
    }

    /// The present connections are closed, new ones work.
    pub fn break_existing(&self) {
        self.shared.each_wire(Wire::close);
    }

    /// The present connections are closed, and new ones refused.
    pub fn refuse(&self) {
        let listening = self.listening.lock().expect("the listener").take();
        if let Some(Listening { stop, task }) = listening {
            let _ = stop.send(());
            let _ = runtime::wait(task);
        }
        // Silent connections outlive the task that served them.
        self.break_existing();
    }

    /// Every request takes so much longer to the server.
    pub fn delay(&self, by: Duration) {
        self.shared.faults().request_delay = by;
    }

    /// Every reply takes so much longer to the client.
    pub fn delay_replies(&self, by: Duration) {
        self.shared.faults().reply_delay = by;
    }

    /// The requests reach the server, and their replies never come back; the connection stays open, silent.
    pub fn lose_replies(&self, matching: Match) {
        self.shared.faults().add(matching, Fault::LoseReply);
    }

    /// The proxy answers with an error in place of the server, which never hears of the requests.
    pub fn answer(&self, matching: Match, status: u16, retry_after: Option<u32>) {
        let fault = Fault::Answer { status, retry_after };
        self.shared.faults().add(matching, fault);
    }

    /// The requests stop in front of the server until they are released, and then arrive even if whoever sent
    /// them has given them up.
    pub fn hold_requests(&self, matching: Match) -> Held {
        self.hold(matching, Fault::HoldRequest)
    }

    /// The requests reach the server, and their replies stop in front of the client until they are released.
    pub fn hold_replies(&self, matching: Match) -> Held {
        self.hold(matching, Fault::HoldReply)
    }

    /// All requests so far that came to the proxy; those that vanished on the way did not.
    pub fn requests(&self) -> Vec<ReceivedRequest> {
        self.shared.requests.lock().expect("the requests").clone()
    }

    /// How many requests the server has refused because of a conflict.
    pub fn conflicts(&self) -> usize {
        self.shared.conflicts.load(Ordering::Relaxed)
    }

    /// When the connections so far were opened, in their order.
    pub fn connections(&self) -> Vec<Instant> {
        let connections = self.shared.connections.lock().expect("the connections");
        connections.iter().map(|connection| connection.since).collect()
    }

    /// Waits for a request that fulfils `predicate`, which is also asked about all earlier ones:
    /// compare `when` to leave those out.
    pub fn wait_for_request(&self, predicate: impl Fn(&ReceivedRequest) -> bool, limit: Duration) -> ReceivedRequest {
        let mut looked_at = 0;
        let mut found = None;
        let requests = self.shared.requests.lock().expect("the requests");
        let (requests, _) = self
            .shared
            .request_came
            .wait_timeout_while(requests, limit, |requests| {
                found = requests[looked_at..].iter().find(|seen| predicate(seen)).cloned();
                looked_at = requests.len();
                found.is_none()
            })
            .expect("the requests");
        found.unwrap_or_else(|| panic!("no such request in {limit:?}; there were {requests:#?}"))
    }

    fn lose(&self, traffic: Traffic) {
        // New connections first: none may slip through in between.
        self.shared.faults().traffic = traffic;
        self.shared.each_wire(|wire| wire.worsen(traffic));
    }

    fn hold(&self, matching: Match, fault: fn(Gate) -> Fault) -> Held {
        let gate = Gate::new();
        self.shared.faults().add(matching, fault(gate.clone()));
        Held(gate)
    }

    fn listen(&self) {
        let mut listening = self.listening.lock().expect("the listener");
        if listening.is_none() {
            let listener = runtime::enter(|| self.port.listen()).expect("the proxy's own port");
            let (stop, stopped) = oneshot::channel();
            let task = runtime::spawn(accept(listener, Arc::clone(&self.shared), stopped));
            *listening = Some(Listening { stop, task });
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.refuse();
    }
}

/// Requests that a proxy holds back, or their replies. They go on when this is dropped.
pub struct Held(Gate);

impl Held {
    /// Waits until something is held.
    pub fn wait_until_held(&self) {
        self.wait_for(1);
    }

    /// Waits until so much is held, or has been.
    pub fn wait_for(&self, count: usize) {
        let gate = self.0.clone();
        let arrived = runtime::wait(async move { tokio::time::timeout(TIMEOUT, gate.arrivals(count)).await });
        arrived.unwrap_or_else(|_| panic!("nothing to hold came in {TIMEOUT:?}"));
    }

    /// Lets go what is held, and what would be.
    pub fn release(self) {
        drop(self);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.open();
    }
}

/// What the connections of a proxy share.
struct Shared {
    upstream: SocketAddr,
    faults: Mutex<Faults>,
    connections: Mutex<Vec<Connection>>,
    requests: Mutex<Vec<ReceivedRequest>>,
    request_came: Condvar,
    conflicts: AtomicUsize,
}

struct Connection {
    since: Instant,
    wire: Weak<Wire>,
}

impl Shared {
    fn new(upstream: SocketAddr) -> Shared {
        Shared {
            upstream,
            faults: Mutex::default(),
            connections: Mutex::default(),
            requests: Mutex::default(),
            request_came: Condvar::new(),
            conflicts: AtomicUsize::new(0),
        }
    }

    /// Enters a connection into the books: its number, and the wire that it is to go by.
    fn new_connection(&self) -> (usize, Arc<Wire>) {
        let faults = self.faults();
        let wire = Wire::new(faults.traffic);
        let mut connections = self.connections.lock().expect("the connections");
        connections.push(Connection { since: Instant::now(), wire: Arc::downgrade(&wire) });
        (connections.len() - 1, wire)
    }

    /// Enters a request into the books, and says what is to become of it.
    fn arrive(&self, request: &ReceivedRequest) -> (Option<Fault>, Duration) {
        let mut faults = self.faults();
        let fate = (faults.hit(request), faults.request_delay);
        self.requests.lock().expect("the requests").push(request.clone());
        self.request_came.notify_all();
        fate
    }

    fn note(&self, reply: StatusCode) {
        if reply == StatusCode::CONFLICT {
            self.conflicts.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn reply_delay(&self) -> Duration {
        self.faults().reply_delay
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().expect("the faults")
    }

    fn each_wire(&self, action: impl Fn(&Wire)) {
        let connections = self.connections.lock().expect("the connections");
        for connection in &*connections {
            if let Some(wire) = connection.wire.upgrade() {
                action(&wire);
            }
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, mut stopped: oneshot::Receiver<()>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(forward::serve(Arc::clone(&shared), stream))),
                Err(error) => eprintln!("the fault proxy cannot accept: {error}"),
            },
            Some(_) = connections.join_next() => {}
            _ = &mut stopped => break,
        }
    }
    drop(listener);
    connections.shutdown().await;
}
