//! A proxy between clients and an API server that injects faults.
//!
//! Connection faults drop bytes below TLS, or close connections ([`wire`]). Request faults delay all requests or
//! responses, or apply to the requests that a [`Match`] selects ([`faults`]). All faults can be changed while requests
//! are in flight.

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
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

use self::faults::{Fault, Faults, Gate};
use self::wire::{Losses, Wire};
use crate::client::Client;
use crate::cluster::Cluster;
use crate::kubeconfig::Kubeconfigs;
use crate::port::{Listener, Port};
use crate::runtime;
use crate::users::{self, ADMIN};
use crate::wait::TIMEOUT;

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
    /// Starts a proxy without faults.
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

    /// Returns the address on which the proxy listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Returns a kubeconfig with which the administrator connects through this proxy.
    pub fn kubeconfig(&self) -> PathBuf {
        self.kubeconfigs.file_for(ADMIN)
    }

    /// Returns a kubeconfig with which a user connects through this proxy.
    pub fn kubeconfig_for(&self, user: &str) -> PathBuf {
        self.kubeconfigs.file_for(users::named(user))
    }

    /// Returns a client that sends requests as this user through this proxy.
    pub fn client_for(&self, user: &str) -> Client {
        Client::new(self.address(), users::named(user))
    }

    /// Ends all faults. New connections work. Existing connections that drop bytes continue to drop them, and stay open
    /// until the client closes them.
    pub fn heal(&self) {
        let mut faults = self.shared.faults();
        faults.open_gates();
        *faults = Faults::default();
        drop(faults);
        self.listen();
    }

    /// Drops all bytes in both directions. Connections stay open, and new ones are accepted but get no response.
    pub fn partition(&self) {
        self.drop_bytes(Losses::ALL);
    }

    /// Drops all bytes to the server. Bytes from the server still reach the clients.
    pub fn partition_requests(&self) {
        self.drop_bytes(Losses { requests: true, responses: false });
    }

    /// Drops all bytes from the server. Requests on existing connections still reach it.
    pub fn partition_responses(&self) {
        self.drop_bytes(Losses { requests: false, responses: true });
    }

    /// Drops all bytes of the existing connections from now on. New connections work.
    pub fn silence_connections(&self) {
        self.shared.for_each_wire(|wire| wire.add_losses(Losses::ALL));
    }

    /// Closes the existing connections. New connections work.
    pub fn break_connections(&self) {
        self.shared.for_each_wire(Wire::close);
    }

    /// Closes the existing connections and refuses new ones.
    pub fn refuse_connections(&self) {
        let listening = self.listening.lock().expect("no thread panics while it holds this lock").take();
        if let Some(Listening { stop, task }) = listening {
            let _ = stop.send(());
            let _ = runtime::wait(task);
        }
        // The end of the task does not close connections whose responses are dropped.
        self.break_connections();
    }

    /// Delays every request on its way to the server.
    pub fn delay_requests(&self, delay: Duration) {
        self.shared.faults().request_delay = delay;
    }

    /// Delays every response on its way to the client.
    pub fn delay_responses(&self, delay: Duration) {
        self.shared.faults().response_delay = delay;
    }

    /// Forwards the matching requests to the server, but drops their responses. The connection stays open and silent.
    pub fn drop_responses(&self, matching: Match) {
        self.shared.faults().add(matching, Fault::DropResponse);
    }

    /// Responds to the matching requests with an error. The server never receives them. `retry_after` is in seconds.
    pub fn respond(&self, matching: Match, status: u16, retry_after: Option<u32>) {
        let fault = Fault::Respond { status, retry_after };
        self.shared.faults().add(matching, fault);
    }

    /// Holds the matching requests until they are released. They then reach the server, even if the client no longer
    /// waits for their responses.
    pub fn hold_requests(&self, matching: Match) -> Hold {
        self.hold(matching, Fault::HoldRequest)
    }

    /// Forwards the matching requests to the server, and holds their responses until they are released.
    pub fn hold_responses(&self, matching: Match) -> Hold {
        self.hold(matching, Fault::HoldResponse)
    }

    /// Returns all requests that the proxy has received. Requests that were lost on the way to it are missing.
    pub fn requests(&self) -> Vec<ReceivedRequest> {
        self.shared.requests.lock().expect("no thread panics while it holds this lock").clone()
    }

    /// Returns how many requests the server has refused with a conflict.
    pub fn conflicts(&self) -> usize {
        self.shared.conflicts.load(Ordering::Relaxed)
    }

    /// Returns the opening time of each connection, in order.
    pub fn connection_times(&self) -> Vec<Instant> {
        let connections = self.shared.connections.lock().expect("no thread panics while it holds this lock");
        connections.iter().map(|connection| connection.opened_at).collect()
    }

    /// Waits for a request that satisfies `predicate`, and returns it. This may be a request that the proxy received
    /// before this call, unless `predicate` checks `received_at`.
    pub fn wait_for_request(&self, predicate: impl Fn(&ReceivedRequest) -> bool, timeout: Duration) -> ReceivedRequest {
        let mut checked = 0;
        let mut found = None;
        let requests = self.shared.requests.lock().expect("no thread panics while it holds this lock");
        let (requests, _) = self
            .shared
            .request_arrived
            .wait_timeout_while(requests, timeout, |requests| {
                found = requests[checked..].iter().find(|request| predicate(request)).cloned();
                checked = requests.len();
                found.is_none()
            })
            .expect("no thread panics while it holds this lock");
        found.unwrap_or_else(|| {
            panic!("no matching request arrived within {timeout:?}; the requests were {requests:#?}")
        })
    }

    fn drop_bytes(&self, losses: Losses) {
        // A connection that is opened between these two steps must drop its bytes as well, so the losses of new
        // connections are set first.
        self.shared.faults().losses = losses;
        self.shared.for_each_wire(|wire| wire.add_losses(losses));
    }

    fn hold(&self, matching: Match, fault: fn(Gate) -> Fault) -> Hold {
        let gate = Gate::new();
        self.shared.faults().add(matching, fault(gate.clone()));
        Hold(gate)
    }

    fn listen(&self) {
        let mut listening = self.listening.lock().expect("no thread panics while it holds this lock");
        if listening.is_none() {
            let listener = runtime::enter(|| self.port.listen()).expect("the reserved port can be listened on");
            let (stop, stopped) = oneshot::channel();
            let task = runtime::spawn(accept(listener, Arc::clone(&self.shared), stopped));
            *listening = Some(Listening { stop, task });
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.refuse_connections();
    }
}

/// The requests or responses that a proxy holds. Dropping this handle releases them.
pub struct Hold(Gate);

impl Hold {
    /// Waits until a request or response has been held.
    pub fn wait_until_held(&self) {
        self.wait_for(1);
    }

    /// Waits until `count` requests or responses have been held.
    pub fn wait_for(&self, count: usize) {
        let gate = self.0.clone();
        let arrived = runtime::wait(async move { tokio::time::timeout(TIMEOUT, gate.wait_for_arrivals(count)).await });
        arrived.unwrap_or_else(|_| panic!("fewer than {count} requests or responses were held within {TIMEOUT:?}"));
    }

    /// Releases everything that is held. Later requests and responses are not held.
    pub fn release(self) {
        drop(self);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.open();
    }
}

/// The state that the connections of a proxy share.
struct Shared {
    upstream: SocketAddr,
    faults: Mutex<Faults>,
    connections: Mutex<Vec<Connection>>,
    requests: Mutex<Vec<ReceivedRequest>>,
    request_arrived: Condvar,
    conflicts: AtomicUsize,
}

struct Connection {
    opened_at: Instant,
    wire: Weak<Wire>,
}

impl Shared {
    fn new(upstream: SocketAddr) -> Shared {
        Shared {
            upstream,
            faults: Mutex::default(),
            connections: Mutex::default(),
            requests: Mutex::default(),
            request_arrived: Condvar::new(),
            conflicts: AtomicUsize::new(0),
        }
    }

    /// Records a connection. Returns its number and its wire.
    fn new_connection(&self) -> (usize, Arc<Wire>) {
        let faults = self.faults();
        let wire = Wire::new(faults.losses);
        let mut connections = self.connections.lock().expect("no thread panics while it holds this lock");
        connections.push(Connection { opened_at: Instant::now(), wire: Arc::downgrade(&wire) });
        (connections.len() - 1, wire)
    }

    /// Records a request. Returns the fault that applies to it, if there is one, and its delay.
    fn record_request(&self, request: &ReceivedRequest) -> (Option<Fault>, Duration) {
        let mut faults = self.faults();
        let outcome = (faults.fault_for(request), faults.request_delay);
        self.requests.lock().expect("no thread panics while it holds this lock").push(request.clone());
        self.request_arrived.notify_all();
        outcome
    }

    fn count_if_conflict(&self, status: StatusCode) {
        if status == StatusCode::CONFLICT {
            self.conflicts.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn response_delay(&self) -> Duration {
        self.faults().response_delay
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().expect("no thread panics while it holds this lock")
    }

    fn for_each_wire(&self, action: impl Fn(&Wire)) {
        let connections = self.connections.lock().expect("no thread panics while it holds this lock");
        for connection in &*connections {
            if let Some(wire) = connection.wire.upgrade() {
                action(&wire);
            }
        }
    }
}

async fn accept(listener: Listener, shared: Arc<Shared>, mut stopped: oneshot::Receiver<()>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(stream) => drop(connections.spawn(forward::serve(Arc::clone(&shared), stream))),
                Err(error) => eprintln!("the fault proxy cannot accept a connection: {error}"),
            },
            Some(_) = connections.join_next() => {}
            _ = &mut stopped => break,
        }
    }
    drop(listener);
    connections.shutdown().await;
}
