//! The in-process Kubernetes API server: HTTP over TLS, a store with one revision counter, RBAC, and watches.
//!
//! The server has the resources that leaderrun and the manifests in its documentation use. It responds like a real
//! kube-apiserver in every respect that `tests/api_server/` checks: the same tests run against both.
//!
//! `handler` receives each request, checks it with `authentication` and `rbac`, and passes it on to `objects` or
//! `watch`, which use the `store`, or to `discovery` or `access_review`. `resources` is the table of all resources.

mod access_review;
mod authentication;
mod behavior;
mod bootstrap;
mod decode;
mod discovery;
mod events;
mod handler;
mod managed_fields;
mod metadata;
mod names;
mod objects;
mod page;
mod patch;
mod rbac;
mod request;
mod resources;
mod selector;
mod status;
mod store;
mod validation;
mod watch;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use self::behavior::{Behavior, Roles};
use self::store::Store;
use super::port::{Listener, Port};
use super::{credentials, runtime, tls};

/// A running API server. It stops when dropped.
pub struct ApiServer {
    port: Port,
    store: Arc<Store>,
    behavior: Arc<Behavior>,
    listening: Mutex<Option<Listening>>,
}

struct Listening {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl ApiServer {
    /// Starts a server with the initial objects of a new cluster.
    pub fn start() -> ApiServer {
        let store = Arc::new(Store::new());
        bootstrap::fill(&store);
        let server = ApiServer {
            port: Port::reserve(),
            store,
            behavior: Arc::new(Behavior::new()),
            listening: Mutex::new(None),
        };
        server.listen();
        server
    }

    /// Returns the address on which the server listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Stops listening and closes all connections. The objects are kept.
    pub fn stop(&self) {
        let listening = self.listening.lock().expect("no thread panics while it holds this lock").take();
        if let Some(Listening { stop, task }) = listening {
            let _ = stop.send(());
            let _ = runtime::wait(task);
        }
    }

    /// Restarts the server at the same address with the same objects. The watch cache is empty after a restart, as on a
    /// real server, so watches cannot start from older versions.
    pub fn restart(&self) {
        self.stop();
        self.forget_changes();
        self.listen();
    }

    /// Empties the watch cache, so no watch can start from a version before the current one.
    pub fn forget_changes(&self) {
        self.store.forget_changes();
    }

    /// Sets how many changes of each resource the watch cache holds. A new watch that needs an older change gets only
    /// the error event 410 Expired.
    pub fn set_watch_cache_size(&self, changes: usize) {
        self.store.set_watch_cache_size(changes);
    }

    /// Sets the time between two bookmarks, for watches that start later and request bookmarks.
    pub fn set_bookmark_period(&self, period: Duration) {
        self.behavior.set_bookmark_period(period);
    }

    /// Makes the server answer every request of a user who is not an administrator with 403, until
    /// [`ApiServer::read_roles`] is called. A real server does this for up to a second while it starts.
    pub fn forget_roles(&self) {
        self.behavior.set_roles(Roles::Unknown);
    }

    /// Like [`ApiServer::forget_roles`], but only for the next `requests` requests of users who are not administrators.
    pub fn forget_roles_for(&self, requests: usize) {
        self.behavior.set_roles(Roles::UnknownFor(requests));
    }

    /// Ends the effect of [`ApiServer::forget_roles`]: the stored Roles and bindings apply again.
    pub fn read_roles(&self) {
        self.behavior.set_roles(Roles::Known);
    }

    /// Makes the server check changes of owners like the admission plugin OwnerReferencesPermissionEnforcement, which
    /// OpenShift enables. Only updates are checked, not patches.
    pub fn protect_owners(&self) {
        self.behavior.enable_owner_protection();
    }

    /// Sets a function that changes every object before it is created or updated, as a mutating admission policy does.
    /// It is not applied to patches. `None` removes the function.
    pub fn set_admission(&self, admission: Option<fn(&mut Value)>) {
        self.behavior.set_admission(admission);
    }

    fn listen(&self) {
        let listener = runtime::enter(|| self.port.listen()).expect("the reserved port can be listened on");
        let (stop, stopped) = oneshot::channel();
        let task = runtime::spawn(serve(listener, Arc::clone(&self.store), Arc::clone(&self.behavior), stopped));
        *self.listening.lock().expect("no thread panics while it holds this lock") = Some(Listening { stop, task });
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn serve(listener: Listener, store: Arc<Store>, behavior: Arc<Behavior>, mut stopped: oneshot::Receiver<()>) {
    let acceptor = TlsAcceptor::from(tls::server_config());
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(stream) => {
                    let (store, behavior) = (Arc::clone(&store), Arc::clone(&behavior));
                    connections.spawn(serve_connection(stream, acceptor.clone(), store, behavior));
                }
                Err(error) => eprintln!("the in-process API server cannot accept a connection: {error}"),
            },
            Some(_) = connections.join_next() => {}
            _ = &mut stopped => break,
        }
    }
    drop(listener);
    connections.shutdown().await;
}

async fn serve_connection(stream: TcpStream, acceptor: TlsAcceptor, store: Arc<Store>, behavior: Arc<Behavior>) {
    let _ = stream.set_nodelay(true);
    // Clients may disconnect at any time, so errors are not reported.
    let Ok(stream) = acceptor.accept(stream).await else {
        return;
    };
    let certificate = tls::client_certificate(&stream);
    let service = service_fn(|mut request: Request<Incoming>| {
        credentials::add_fingerprint(request.headers_mut(), certificate.as_deref());
        let (store, behavior) = (Arc::clone(&store), Arc::clone(&behavior));
        async move { Ok::<_, Infallible>(handler::handle(store, behavior, request).await) }
    });
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
