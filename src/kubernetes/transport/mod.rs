//! Sends requests to the API server.
//!
//! The preparation of a request (credentials, addresses, a connection) continues when the request is dropped, and later
//! requests use its result. Slow steps therefore succeed even if they take longer than the request timeout.

mod connect;
mod connection;
mod pool;
mod resolver;
mod tcp;
mod tunnel;

use std::env;
use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::header::{AUTHORIZATION, HOST, HeaderValue, PROXY_AUTHORIZATION, USER_AGENT};
use hyper::http::request::Parts;
use hyper::http::uri::PathAndQuery;
use hyper::{Request, Response, StatusCode, Uri};
use kube::client::Body;
use tokio::time::timeout;
use tower::Service;

pub use self::connect::ConnectError;
pub use self::connection::PooledBody;
use self::pool::Pool;
pub use self::resolver::Resolver;
use super::credentials::{Access, Credentials, REPORT_WAIT_AFTER};
use super::impersonation;
use super::tls::{Peer, failure_reason};

/// The maximum number of credentials that are tried for a request, one after another.
const MAX_CREDENTIALS: usize = 3;

/// The maximum size in bytes of a discarded response that is read to its end, so that its connection can be reused.
const MAX_DISCARDED: usize = 64 * 1024;

type Failure = Box<dyn Error + Send + Sync>;

/// Sends requests to the API server. Clones share their connections.
#[derive(Clone)]
pub struct Transport {
    credentials: Credentials,
    pool: Arc<Pool>,
}

impl Transport {
    /// Creates a transport without a connection.
    pub fn new(credentials: Credentials, resolver: Resolver, request_timeout: Duration) -> Self {
        Self { credentials, pool: Arc::new(Pool::new(resolver, request_timeout)) }
    }

    /// Returns the cause if requests have been held up for [`REPORT_WAIT_AFTER`] before they could be sent.
    pub fn waiting_for(&self) -> Option<String> {
        let connection = || Some(format!("a connection to {}", self.pool.slow_target(REPORT_WAIT_AFTER)?));
        self.credentials.waiting_for().or_else(connection)
    }

    /// Sends a request. If the API server responds with 401, sends it again with other credentials, if there are any.
    async fn send(self, request: Request<Body>) -> Result<Response<PooledBody>, Failure> {
        let (head, body) = request.into_parts();
        let body = body.collect_bytes().await?;
        // Renewing expired credentials may take at most half of the timeout, so that the other half is left for the
        // request.
        let mut access = self.credentials.current(self.pool.request_timeout() / 2).await?;
        for _ in 1..MAX_CREDENTIALS {
            let response = self.send_as(&access, head.clone(), body.clone().into()).await?;
            if response.status() != StatusCode::UNAUTHORIZED {
                return Ok(response);
            }
            match self.credentials.replacement_for(&access).await? {
                Some(other) => {
                    access = other;
                    self.discard(response).await;
                }
                None => return Ok(response),
            }
        }
        self.send_as(&access, head, body.into()).await
    }

    /// Reads a response to its end, so that its connection can be reused. Gives up if the response is longer than
    /// [`MAX_DISCARDED`] or takes longer than a quarter of the request timeout.
    async fn discard(&self, response: Response<PooledBody>) {
        let rest = Limited::new(response.into_body(), MAX_DISCARDED).collect();
        drop(timeout(self.pool.request_timeout() / 4, rest).await);
    }

    async fn send_as(&self, access: &Arc<Access>, head: Parts, body: Body) -> Result<Response<PooledBody>, Failure> {
        let response = self.try_send_as(access, head, body).await;
        match &response {
            Ok(response) if response.status() == StatusCode::UNAUTHORIZED => {}
            Ok(_) => self.credentials.record_accepted(access),
            Err(failure) => self.credentials.record_failed_request(access, &failure_reason(&**failure, Peer::Server)),
        }
        response
    }

    async fn try_send_as(
        &self,
        access: &Arc<Access>,
        head: Parts,
        body: Body,
    ) -> Result<Response<PooledBody>, Failure> {
        let mut request = Request::from_parts(complete_head(access, head)?, body);
        loop {
            let connection = self.pool.connection(access).await?;
            let mut failure = match connection.send(request, &self.pool).await {
                Ok(response) => return Ok(response),
                Err(failure) => failure,
            };
            // If the server had already closed the idle connection, the request is sent on another connection.
            match failure.take_message() {
                Some(unsent) => request = unsent,
                None => return Err(failure.into_error().into()),
            }
        }
    }
}

impl Service<Request<Body>> for Transport {
    type Response = Response<PooledBody>;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Failure>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.clone().send(request))
    }
}

/// Completes the head of a request with the server's path and host, and the user's credentials.
fn complete_head(access: &Access, mut head: Parts) -> Result<Parts, Failure> {
    let server = &access.config.server;
    let path = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    head.uri = format!("{}{path}", server.path().trim_end_matches('/')).parse::<Uri>()?;
    let host = &tcp::without_zone(server.authority().map(|authority| authority.as_str()).unwrap_or_default());
    if let Some(proxy) = access.config.proxy.as_ref().filter(|proxy| proxy.forwards(server)) {
        head.uri = format!("http://{host}{}", head.uri).parse::<Uri>()?;
        if let Some(credentials) = proxy.authorization()? {
            head.headers.insert(PROXY_AUTHORIZATION, credentials);
        }
    }
    head.headers.insert(HOST, HeaderValue::from_str(host)?);
    head.headers.insert(USER_AGENT, HeaderValue::from_str(&user_agent())?);
    if let Some(authorization) = &access.authorization {
        head.headers.insert(AUTHORIZATION, authorization.clone());
    }
    if let Some(user) = &access.config.user.impersonation {
        head.headers.extend(impersonation::headers(user)?);
    }
    Ok(head)
}

/// Returns the user agent, which appears in the API server's audit log. Its format and the names of architectures are
/// those of Go programs.
fn user_agent() -> String {
    let architecture = match env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        other => other,
    };
    format!("leaderrun/{} ({}/{architecture})", env!("CARGO_PKG_VERSION"), env::consts::OS)
}
