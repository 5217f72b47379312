//! Forwards the requests and responses of one connection, and applies the faults.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1 as client;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, oneshot};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::Shared;
use super::faults::{Fault, Gate};
use super::matching::ReceivedRequest;
use super::wire::{LossyStream, Wire};
use crate::{credentials, runtime, tls, users};

/// Serves a client's connection until the client, the server or a fault closes it.
pub async fn serve(shared: Arc<Shared>, stream: TcpStream) {
    let (number, wire) = shared.new_connection();
    let _ = stream.set_nodelay(true);
    let stream = LossyStream::new(stream, Arc::clone(&wire));
    tokio::select! {
        // Broken connections are expected here.
        _ = relay(shared, stream, number, Arc::clone(&wire)) => {}
        () = wire.closed() => {}
    }
}

async fn relay(shared: Arc<Shared>, stream: LossyStream, number: usize, wire: Arc<Wire>) -> io::Result<()> {
    let stream = TlsAcceptor::from(tls::server_config()).accept(stream).await?;
    let certificate = tls::client_certificate(&stream);
    let (sender, upstream) = connect(shared.upstream).await?;
    // An HTTP/1.1 connection has one request in flight at a time, so this mutex is never contended.
    let sender = Arc::new(Mutex::new(sender));
    let service = service_fn(move |mut request: Request<Incoming>| {
        credentials::add_fingerprint(request.headers_mut(), certificate.as_deref());
        let forwarding = Forwarding {
            shared: Arc::clone(&shared),
            wire: Arc::clone(&wire),
            sender: Arc::clone(&sender),
            received: received_request(&request, number),
        };
        forwarding.forward(request)
    });
    let mut downstream = pin!(server::Builder::new().serve_connection(TokioIo::new(stream), service));
    let mut upstream = pin!(upstream);
    tokio::select! {
        ended = downstream.as_mut() => return ended.map_err(io::Error::other),
        _ = upstream.as_mut() => {}
    }
    // The server has closed its connection. Finish the request in flight, and then close the client's connection too.
    downstream.as_mut().graceful_shutdown();
    downstream.await.map_err(io::Error::other)
}

type Upstream = TokioIo<tokio_rustls::client::TlsStream<TcpStream>>;

async fn connect<B>(server: SocketAddr) -> io::Result<(client::SendRequest<B>, client::Connection<Upstream, B>)>
where
    B: hyper::body::Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + 'static,
{
    let stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::from(server.ip());
    let connector = TlsConnector::from(tls::client_config());
    let stream = TokioIo::new(connector.connect(name, stream).await?);
    client::handshake(stream).await.map_err(io::Error::other)
}

fn received_request(request: &Request<Incoming>, connection: usize) -> ReceivedRequest {
    let token = request.headers().get(AUTHORIZATION);
    let token = token.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    ReceivedRequest {
        method: request.method().clone(),
        path: request.uri().to_string(),
        received_at: Instant::now(),
        user: token.and_then(users::by_token).map(|user| user.name),
        connection,
    }
}

/// A request that is being forwarded.
struct Forwarding {
    shared: Arc<Shared>,
    wire: Arc<Wire>,
    sender: Arc<Mutex<client::SendRequest<Incoming>>>,
    received: ReceivedRequest,
}

type Body = BoxBody<Bytes, hyper::Error>;

impl Forwarding {
    async fn forward(self, request: Request<Incoming>) -> hyper::Result<Response<Body>> {
        let (fault, delay) = self.shared.record_request(&self.received);
        if let Some(Fault::Respond { status, retry_after }) = fault {
            return Ok(error_response(status, retry_after));
        }
        sleep(delay).await;
        let response = match &fault {
            Some(Fault::HoldRequest(gate)) => self.hold(request, gate.clone()).await?,
            // A partition may begin after the request has arrived.
            _ if self.wire.drops_requests() => return pending().await,
            _ => self.sender.lock().await.send_request(request).await?,
        };
        self.shared.count_if_conflict(response.status());
        match fault {
            Some(Fault::DropResponse) => return pending().await,
            Some(Fault::HoldResponse(gate)) => gate.pass().await,
            _ => {}
        }
        sleep(self.shared.response_delay()).await;
        Ok(response.map(BodyExt::boxed))
    }

    /// Holds a request until the gate opens, and then sends it on a new connection, because the client may have dropped
    /// the request and closed its connection.
    async fn hold(&self, request: Request<Incoming>, gate: Gate) -> hyper::Result<Response<Incoming>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let request = Request::from_parts(head, Full::new(body));
        let (shared, wire) = (Arc::clone(&self.shared), Arc::clone(&self.wire));
        let (send, arrived) = oneshot::channel();
        runtime::spawn(async move {
            gate.pass().await;
            if !wire.drops_requests()
                && let Ok((mut sender, connection)) = connect(shared.upstream).await
            {
                runtime::spawn(connection);
                let result = sender.send_request(request).await;
                // If the client has dropped the request, nobody else sees the response, so a conflict is counted here.
                if let Err(Ok(unreceived)) = send.send(result) {
                    shared.count_if_conflict(unreceived.status());
                }
            }
        });
        match arrived.await {
            Ok(result) => result,
            Err(_) => pending().await,
        }
    }
}

/// Sleeps unless the duration is zero. tokio's sleep would wait for a timer tick even then.
async fn sleep(duration: Duration) {
    if !duration.is_zero() {
        tokio::time::sleep(duration).await;
    }
}

/// Returns an error response whose body is a `Status`, as in the server's own error responses.
fn error_response(status: u16, retry_after: Option<u32>) -> Response<Body> {
    let (reason, message) = match status {
        429 => ("TooManyRequests", "Too many requests, please try again later."),
        500 => ("InternalError", "Internal error occurred: made up by the fault proxy"),
        503 => ("ServiceUnavailable", "apiserver not ready"),
        504 => ("Timeout", "request did not complete within the allotted timeout"),
        _ => ("", "made up by the fault proxy"),
    };
    let body = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "details": retry_after.map(|seconds| json!({ "retryAfterSeconds": seconds })),
        "code": status,
    });
    let body = Full::new(Bytes::from(body.to_string()));
    let mut response = Response::builder().status(status).header(CONTENT_TYPE, "application/json");
    if let Some(seconds) = retry_after {
        response = response.header(RETRY_AFTER, seconds);
    }
    response.body(body.map_err(|never| match never {}).boxed()).expect("the response is well-formed")
}
