//! A server that records the requests that it receives and sends configured responses.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::mem;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::{runtime, tls};

/// A request that arrived at the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedRequest {
    pub method: String,
    /// The target of the request: a path, or a whole URL if the server is used as a proxy.
    pub target: String,
    /// The headers by their lowercase names. If a header is repeated, only its last value is kept.
    pub headers: BTreeMap<String, String>,
    /// The server name that the client sent in the TLS handshake (SNI).
    pub server_name: Option<String>,
    /// The certificate that the client presented, as DER.
    pub client_certificate: Option<Vec<u8>>,
}

/// A configured response: the status, headers and body.
pub type CannedResponse = (u16, Vec<(&'static str, String)>, String);

/// A running server with configured responses.
pub struct RecordingServer {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<RecordedRequest>>>,
    task: JoinHandle<()>,
}

impl RecordingServer {
    /// Starts a server that responds to each request with 404. It uses TLS if `tls` is given.
    pub fn start(tls: Option<Arc<ServerConfig>>) -> RecordingServer {
        let status = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}"#;
        RecordingServer::responding_with(tls, || {
            (404, vec![("content-type", "application/json".to_owned())], status.to_owned())
        })
    }

    /// Starts a server that calls `respond` to get the response to each request.
    pub fn responding_with(
        tls: Option<Arc<ServerConfig>>,
        respond: impl Fn() -> CannedResponse + Send + Sync + 'static,
    ) -> RecordingServer {
        let listener = runtime::wait(TcpListener::bind("127.0.0.1:0")).expect("127.0.0.1 has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let requests = Arc::<Mutex<Vec<RecordedRequest>>>::default();
        let (recorded, respond) = (Arc::clone(&requests), Arc::new(respond));
        let task = runtime::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (recorded, respond) = (Arc::clone(&recorded), Arc::clone(&respond));
                runtime::spawn(serve(stream, tls.clone(), recorded, respond));
            }
        });
        RecordingServer { address, requests, task }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the requests that have arrived since the last call.
    pub fn take_requests(&self) -> Vec<RecordedRequest> {
        mem::take(&mut *self.requests.lock().expect("no thread panics while it holds this lock"))
    }
}

impl Drop for RecordingServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    stream: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    recorded: Arc<Mutex<Vec<RecordedRequest>>>,
    respond: Arc<dyn Fn() -> CannedResponse + Send + Sync>,
) {
    let Some(tls) = tls else { return serve_http(stream, None, None, recorded, respond).await };
    let Ok(stream) = TlsAcceptor::from(tls).accept(stream).await else { return };
    let server_name = stream.get_ref().1.server_name().map(str::to_owned);
    let certificate = tls::client_certificate(&stream);
    serve_http(stream, server_name, certificate, recorded, respond).await;
}

async fn serve_http(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    server_name: Option<String>,
    client_certificate: Option<Vec<u8>>,
    recorded: Arc<Mutex<Vec<RecordedRequest>>>,
    respond: Arc<dyn Fn() -> CannedResponse + Send + Sync>,
) {
    let service = service_fn(|request: Request<Incoming>| {
        let headers = request.headers().iter();
        let headers = headers
            .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
        recorded.lock().expect("no thread panics while it holds this lock").push(RecordedRequest {
            method: request.method().to_string(),
            target: request.uri().to_string(),
            headers: headers.collect(),
            server_name: server_name.clone(),
            client_certificate: client_certificate.clone(),
        });
        let (status, headers, body) = respond();
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = StatusCode::from_u16(status).expect("the status is valid");
        for (name, value) in headers {
            response.headers_mut().insert(name, value.parse().expect("the header's value is valid"));
        }
        async move { Ok::<_, Infallible>(response) }
    });
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
