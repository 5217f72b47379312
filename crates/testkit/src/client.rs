//! Blocking requests to an API server, like those of `kubectl`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, USER_AGENT};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use kube::core::Status;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::users::User;
use crate::wait::TIMEOUT;
use crate::{runtime, tls};

/// The content type of a Kubernetes object.
pub const JSON: &str = "application/json";
/// The content type of a JSON merge patch (RFC 7396).
pub const MERGE_PATCH: &str = "application/merge-patch+json";
/// The content type of a JSON patch (RFC 6902).
pub const JSON_PATCH: &str = "application/json-patch+json";

/// A client of one API server with the credentials of at most one user. Each request uses a new connection, except in a
/// [`Session`].
#[derive(Clone)]
pub struct Client {
    server: SocketAddr,
    headers: Vec<(String, String)>,
    /// The formats that the client accepts.
    accept: String,
}

/// The body of a request: a content type and a document, or nothing.
pub type Body<'a> = Option<(&'a str, &'a Value)>;

/// The response to a request, which may be an error.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Client {
    /// Returns a client that sends the token of `user`.
    pub fn new(server: SocketAddr, user: User) -> Client {
        Client::anonymous(server).with_header(AUTHORIZATION.as_str(), &format!("Bearer {}", user.token))
    }

    /// Returns a client that sends no token.
    pub fn anonymous(server: SocketAddr) -> Client {
        let headers = Vec::new();
        Client { server, headers, accept: JSON.to_owned() }
    }

    /// Makes all requests accept these formats instead of JSON.
    pub fn accepting(self, formats: &str) -> Client {
        Client { accept: formats.to_owned(), ..self }
    }

    /// Adds a header to all requests.
    pub fn with_header(mut self, name: &str, value: &str) -> Client {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Reads an object, a list, or any other JSON document.
    pub fn get(&self, path: &str) -> Result<Value, Box<Status>> {
        self.json(Method::GET, path, None)
    }

    /// Creates `object` in the collection at `path`.
    pub fn create(&self, path: &str, object: &Value) -> Result<Value, Box<Status>> {
        self.json(Method::POST, path, Some((JSON, object)))
    }

    /// Replaces the object at `path`, or creates it if the resource allows creation by PUT.
    pub fn replace(&self, path: &str, object: &Value) -> Result<Value, Box<Status>> {
        self.json(Method::PUT, path, Some((JSON, object)))
    }

    /// Merges `patch` into the object at `path`. A `null` in the patch removes a field.
    pub fn merge_patch(&self, path: &str, patch: &Value) -> Result<Value, Box<Status>> {
        self.json(Method::PATCH, path, Some((MERGE_PATCH, patch)))
    }

    /// Applies the operations of a JSON patch to the object at `path`.
    pub fn json_patch(&self, path: &str, operations: &Value) -> Result<Value, Box<Status>> {
        self.json(Method::PATCH, path, Some((JSON_PATCH, operations)))
    }

    /// Deletes the object at `path`.
    pub fn delete(&self, path: &str) -> Result<Value, Box<Status>> {
        self.json(Method::DELETE, path, None)
    }

    /// Deletes the object at `path`, with `DeleteOptions`, for example preconditions.
    pub fn delete_with(&self, path: &str, options: &Value) -> Result<Value, Box<Status>> {
        self.json(Method::DELETE, path, Some((JSON, options)))
    }

    /// Watches a collection. `path` may contain a query; `watch=true` is added to it.
    pub fn watch(&self, path: &str) -> Result<Watch, Box<Status>> {
        let separator = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{separator}watch=true");
        let request = self.request(Method::GET, &path, None);
        let server = self.server;
        let watch = runtime::wait(async move {
            let opening = async {
                let mut connection = connect(server).await?;
                let response = send(&mut connection, request).await?;
                if response.status().is_success() {
                    return Ok(Ok(Watch::new(connection, response.into_body())));
                }
                io::Result::Ok(Err(read(response).await?.into_status()))
            };
            tokio::time::timeout(TIMEOUT, opening).await?
        });
        watch.unwrap_or_else(|error| panic!("cannot watch {path}: {error}"))
    }

    /// Sends one request, and returns the response, even if it is an error.
    ///
    /// # Errors
    /// Fails if no complete response arrives within `timeout`.
    pub fn send(&self, method: Method, path: &str, body: Body, timeout: Duration) -> io::Result<Response> {
        let request = self.request(method, path, body);
        let server = self.server;
        runtime::wait(async move {
            let exchange = async { exchange(&mut connect(server).await?, request).await };
            tokio::time::timeout(timeout, exchange).await?
        })
    }

    /// Opens a connection for a sequence of requests.
    pub fn open_session(&self) -> io::Result<Session> {
        let server = self.server;
        let connect = async move { tokio::time::timeout(TIMEOUT, connect(server)).await? };
        let connection = Arc::new(Mutex::new(runtime::wait(connect)?));
        Ok(Session { client: self.clone(), connection })
    }

    fn json(&self, method: Method, path: &str, body: Body) -> Result<Value, Box<Status>> {
        let response =
            self.send(method.clone(), path, body, TIMEOUT).unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        match response.status {
            200..300 => Ok(response.json()),
            _ => Err(response.into_status()),
        }
    }

    fn request(&self, method: Method, path: &str, body: Body) -> Request<Full<Bytes>> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.server.to_string())
            .header(USER_AGENT, "tests/1.0")
            .header(ACCEPT, &self.accept);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let mut bytes = Bytes::new();
        if let Some((content_type, body)) = body {
            request = request.header(CONTENT_TYPE, content_type);
            bytes = body.to_string().into();
        }
        request.body(Full::new(bytes)).expect("the path and the headers are valid")
    }
}

/// One connection of a [`Client`], for a sequence of requests.
pub struct Session {
    client: Client,
    connection: Arc<Mutex<Connection>>,
}

impl Session {
    /// Sends one request on this connection, and returns the response, even if it is an error.
    ///
    /// # Errors
    /// Fails if no complete response arrives within `timeout`.
    pub fn send(&self, method: Method, path: &str, body: Body, timeout: Duration) -> io::Result<Response> {
        let request = self.client.request(method, path, body);
        let connection = Arc::clone(&self.connection);
        runtime::wait(async move {
            let exchange = async { exchange(&mut *connection.lock().await, request).await };
            tokio::time::timeout(timeout, exchange).await?
        })
    }
}

impl Response {
    /// Returns the body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in this body: {}", self.body))
    }

    fn into_status(self) -> Box<Status> {
        // The errors for unknown paths are plain text instead of a Status.
        Box::new(
            serde_json::from_str(&self.body)
                .unwrap_or_else(|_| Status::failure(self.body.trim_end(), "").with_code(self.status)),
        )
    }
}

/// A running watch. Dropping it closes its connection.
pub struct Watch {
    events: Receiver<io::Result<Value>>,
    reader: JoinHandle<()>,
}

impl Watch {
    fn new(connection: Connection, mut body: Incoming) -> Watch {
        let (send, events) = mpsc::channel();
        let reader = runtime::spawn(async move {
            // Dropping the connection would end the watch.
            let _connection = connection;
            let mut unread = Vec::new();
            while let Some(frame) = body.frame().await {
                match frame {
                    Ok(frame) => unread.extend(frame.into_data().unwrap_or_default()),
                    Err(error) => {
                        drop(send.send(Err(io::Error::other(error))));
                        return;
                    }
                }
                while let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = unread.drain(..=end).collect();
                    let event = serde_json::from_slice(&line).map_err(io::Error::from);
                    if send.send(event).is_err() {
                        return;
                    }
                }
            }
        });
        Watch { events, reader }
    }

    /// Returns the next event; `None` if the watch has ended normally.
    pub fn next(&self) -> Option<Value> {
        match self.events.recv_timeout(TIMEOUT) {
            Ok(event) => Some(event.unwrap_or_else(|error| panic!("the watch broke: {error}"))),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("the watch has been silent for {TIMEOUT:?}"),
        }
    }

    /// Returns the next event that is not a bookmark.
    pub fn next_change(&self) -> Option<Value> {
        std::iter::from_fn(|| self.next()).find(|event| event["type"] != "BOOKMARK")
    }

    /// Returns whether nothing happens for `duration`: no event, no end, no error. An event that arrives is discarded.
    pub fn is_silent_for(&self, duration: Duration) -> bool {
        self.events.recv_timeout(duration).is_err_and(|error| error == RecvTimeoutError::Timeout)
    }

    /// Discards the remaining events until the watch has ended normally or its connection has broken.
    pub fn wait_until_over(&self) {
        loop {
            match self.events.recv_timeout(TIMEOUT) {
                Ok(Ok(_)) => {}
                Ok(Err(_)) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => panic!("the watch is not over after {TIMEOUT:?}"),
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// An open connection. Dropping it ends the task that drives it.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

async fn connect(server: SocketAddr) -> io::Result<Connection> {
    let stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::from(server.ip());
    let stream = TlsConnector::from(tls::client_config()).connect(name, stream).await?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let driver = tokio::spawn(async move { drop(connection.await) });
    Ok(Connection { sender, driver })
}

async fn send(connection: &mut Connection, request: Request<Full<Bytes>>) -> io::Result<hyper::Response<Incoming>> {
    let sender = &mut connection.sender;
    sender.send_request(request).await.map_err(io::Error::other)
}

async fn exchange(connection: &mut Connection, request: Request<Full<Bytes>>) -> io::Result<Response> {
    read(send(connection, request).await?).await
}

async fn read(response: hyper::Response<Incoming>) -> io::Result<Response> {
    let (head, body) = response.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    Ok(Response {
        status: head.status.as_u16(),
        headers: head.headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}
