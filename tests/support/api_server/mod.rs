//! An API server: HTTP over TLS, a store with one revision counter, RBAC, watches.
//!
//! It has the resources that leader election touches, and answers as a real kube-apiserver answers:
//! `tests/api_server.rs` holds both to the same assertions.
//!
//! A request passes `handler`, which asks `authentication` and `rbac`, and ends at `objects` or `watch`;
//! both work on the `store`. `resources` is the table of what there is.

mod access_review;
mod authentication;
mod bootstrap;
mod decode;
mod discovery;
mod events;
mod handler;
mod managed_fields;
mod metadata;
mod names;
mod objects;
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

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use self::store::Store;
use super::port::Port;
use super::{runtime, tls};

/// A running API server. It stops when dropped.
pub struct ApiServer {
    port: Port,
    store: Arc<Store>,
    listening: Mutex<Option<Listening>>,
}

struct Listening {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl ApiServer {
    /// Starts a server with a new cluster in it.
    pub fn start() -> ApiServer {
        let store = Arc::new(Store::new());
        bootstrap::fill(&store);
        let server = ApiServer { port: Port::reserve(), store, listening: Mutex::new(None) };
        server.listen();
        server
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Stops listening and breaks every connection. The data stay.
    pub fn stop(&self) {
        let listening = self.listening.lock().expect("the listener").take();
        if let Some(Listening { stop, task }) = listening {
            let _ = stop.send(());
            let _ = runtime::wait(task);
        }
    }

    /// Stops and starts again at the same address with the same data. Watches from before are too old then,
    /// as with a real server, whose memory of changes begins at its start.
    pub fn restart(&self) {
        self.stop();
        self.forget_changes();
        self.listen();
    }

    /// Makes every version up to now too old to watch from.
    pub fn forget_changes(&self) {
        self.store.compact();
    }

    fn listen(&self) {
        let listener = runtime::enter(|| self.port.listen()).expect("the API server's own port");
        let (stop, stopped) = oneshot::channel();
        let task = runtime::spawn(serve(listener, Arc::clone(&self.store), stopped));
        *self.listening.lock().expect("the listener") = Some(Listening { stop, task });
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn serve(listener: TcpListener, store: Arc<Store>, mut stopped: oneshot::Receiver<()>) {
    let acceptor = TlsAcceptor::from(tls::server_config());
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let store = Arc::clone(&store);
                    connections.spawn(serve_connection(stream, acceptor.clone(), store));
                }
                Err(error) => eprintln!("the test API server cannot accept: {error}"),
            },
            Some(_) = connections.join_next() => {}
            _ = &mut stopped => break,
        }
    }
    drop(listener);
    connections.shutdown().await;
}

async fn serve_connection(stream: TcpStream, acceptor: TlsAcceptor, store: Arc<Store>) {
    let _ = stream.set_nodelay(true);
    // A client that breaks off, be it in the handshake, is nothing to report.
    let Ok(stream) = acceptor.accept(stream).await else {
        return;
    };
    let service = service_fn(|request| {
        let store = Arc::clone(&store);
        async move { Ok::<_, Infallible>(handler::handle(store, request).await) }
    });
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
