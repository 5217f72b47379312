//! The clients for requests to the API server.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use http_body_util::BodyExt;
use hyper::body::Bytes;
use hyper::{Request, Response, StatusCode};
use kube::Client;
use kube::client::{Body, ClientBuilder};
use serde_json::Value;
use tokio::time::timeout;
use tower::util::{AndThenLayer, MapResponseLayer};

use super::connection::{ClusterOptions, ConnectionConfig};
use super::credentials::Credentials;
use super::error::{Error, ErrorKind};
use super::response;
use super::response_limit::{self, LimitedBody};
use super::transport::{PooledBody, Resolver, Transport};

type LayerError = Box<dyn std::error::Error + Send + Sync>;

/// The credentials for a cluster and the addresses of its API server, which all threads of the process share.
#[derive(Clone)]
pub struct ClusterAccess {
    credentials: Credentials,
    resolver: Resolver,
}

impl ClusterAccess {
    /// Creates the access to the cluster that these options select. This reads no files.
    pub fn new(options: ClusterOptions) -> Self {
        Self { credentials: Credentials::new(options), resolver: Resolver::default() }
    }

    /// Starts reading the configuration and the credentials, so that the first request need not wait for them.
    pub fn prepare(&self) {
        self.credentials.prepare();
    }

    /// Returns the configuration of the connection, if it has been read.
    pub fn configuration(&self) -> Option<Arc<ConnectionConfig>> {
        self.credentials.known_configuration()
    }

    /// Returns the cause if the credentials have been delayed for more than a second.
    pub fn waiting_for(&self) -> Option<String> {
        self.credentials.waiting_for()
    }
}

/// A cluster, with one client for requests and another for watches.
///
/// When a request times out, its connection is closed. If watches used the same client, the next request could be sent
/// on the connection of a watch that has just ended, and that connection is probably dead too.
#[derive(Clone)]
pub struct Cluster {
    config: Arc<ConnectionConfig>,
    transport: Transport,
    requests: Client,
    watches: Client,
    request_timeout: Duration,
}

impl Cluster {
    /// Waits until the cluster's configuration has been read, and creates the clients. They connect when they send the
    /// first request, and belong to the tokio runtime of the current thread.
    ///
    /// # Errors
    /// Fails if the kubeconfig cannot be used, or if there is none and the pod's service account cannot be used.
    pub async fn open(access: &ClusterAccess, request_timeout: Duration) -> Result<Self> {
        let config = access.credentials.configuration().await?;
        let new_transport = || Transport::new(access.credentials.clone(), access.resolver.clone(), request_timeout);
        let transport = new_transport();
        let namespace = config.namespace.as_str();
        let requests = ClientBuilder::new(transport.clone(), namespace)
            .with_layer(&MapResponseLayer::new(response_limit::limit_whole));
        let check_response = {
            let config = Arc::clone(&config);
            move |response| check_watch(response, Arc::clone(&config))
        };
        let watches = ClientBuilder::new(new_transport(), namespace).with_layer(&AndThenLayer::new(check_response));
        let (requests, watches) = (requests.build(), watches.build());
        Ok(Self { config, transport, requests, watches, request_timeout })
    }

    /// Returns the namespace for locks whose name does not include one.
    pub fn default_namespace(&self) -> &str {
        &self.config.namespace
    }

    /// Returns the address of the API server.
    pub fn address(&self) -> String {
        self.config.address()
    }

    /// Returns the API server's host and port.
    pub fn host_and_port(&self) -> (String, u16) {
        let server = &self.config.server;
        let host = server.host().unwrap_or_default().trim_matches(['[', ']']);
        (host.to_owned(), self.config.port())
    }

    /// Returns the client for watches.
    pub fn watches(&self) -> Client {
        self.watches.clone()
    }

    /// Returns the cause if requests have been held up for more than a second before they could be sent.
    pub fn waiting_for(&self) -> Option<String> {
        self.transport.waiting_for()
    }

    /// Sends a request and returns its response, which may be an error from the API server.
    pub async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Bytes>, Error> {
        let failed = |failure: kube::Error| Error::from_client(&failure, &self.address());
        let (head, body) = self.requests.send(request.map(Body::from)).await.map_err(failed)?.into_parts();
        let body = body.collect().await.map_err(failed)?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }

    /// Returns the object in the response to a request.
    ///
    /// # Errors
    /// Fails if the response is an error, or is not from an API server.
    pub fn read_response(&self, response: &Response<Bytes>) -> Result<Value, Error> {
        read_response(response, &self.config)
    }

    /// Returns whether a namespace is known not to exist, for messages. If leaderrun is not allowed to read the
    /// namespace, or if the API server does not respond within two request timeouts, returns false.
    pub async fn lacks_namespace(&self, name: &str) -> bool {
        let Ok(request) = Request::get(format!("/api/v1/namespaces/{name}")).body(Vec::new()) else { return false };
        let response = timeout(self.request_timeout * 2, self.send(request)).await;
        let Ok(Ok(response)) = response else { return false };
        response::object(&response, &self.address()).is_err_and(|error| error.kind == ErrorKind::NotFound)
    }
}

fn read_response(response: &Response<Bytes>, config: &ConnectionConfig) -> Result<Value, Error> {
    let address = config.address();
    response::object(response, &address).map_err(|error| match response.status() {
        StatusCode::UNAUTHORIZED => error.context(format_args!("the API server {address} rejected {}", config.user)),
        _ => error,
    })
}

/// Checks the response to a watch, and limits the size of each of its lines. If the API server has refused the watch,
/// returns the same error as for other requests, because kube's own error does not contain the response's headers.
async fn check_watch(
    response: Response<PooledBody>,
    config: Arc<ConnectionConfig>,
) -> Result<Response<LimitedBody>, LayerError> {
    if response.status().is_success() {
        return Ok(response_limit::limit_lines(response));
    }
    let (head, body) = response_limit::limit_whole(response).into_parts();
    let response = Response::from_parts(head, body.collect().await?.to_bytes());
    match read_response(&response, &config) {
        Err(error) => Err(error.into()),
        Ok(_) => Err(Error::unknown("the API server refused the watch without giving a reason").into()),
    }
}
