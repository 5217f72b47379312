//! One connection to the API server.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::rt::{Read, Write};
use hyper::{Request, Response};
use kube::client::Body as RequestBody;
use tokio::task::JoinHandle;

use super::super::credentials::Access;
use super::pool::Pool;

/// The maximum number of headers in a response. hyper's default is 100; Go limits only their total size.
const MAX_HEADERS: usize = 1000;

/// A connection for one request at a time. It is closed when it is dropped.
pub struct Connection {
    sender: SendRequest<RequestBody>,
    /// The credentials with which the connection was opened.
    access: Arc<Access>,
    /// The task that reads from the stream and writes to it.
    driver: JoinHandle<()>,
}

impl Connection {
    /// Starts HTTP/1.1 on a stream. Like Go's client, the connection accepts headers that extend over several lines or
    /// have whitespace before the colon.
    ///
    /// # Errors
    /// Returns hyper's error. None is expected: HTTP/1.1 has no handshake, so only a request reveals a closed stream.
    pub async fn handshake<S>(stream: S, access: Arc<Access>) -> hyper::Result<Self>
    where
        S: Read + Write + Send + Unpin + 'static,
    {
        let mut http = http1::Builder::new();
        http.max_headers(MAX_HEADERS);
        http.allow_obsolete_multiline_headers_in_responses(true).allow_spaces_after_header_name_in_responses(true);
        let (sender, connection) = http.handshake(stream).await?;
        let driver = tokio::spawn(async move { drop(connection.await) });
        Ok(Self { sender, access, driver })
    }

    /// Returns whether the connection seems open and can be used with these credentials.
    pub fn is_usable(&self, access: &Access) -> bool {
        !self.sender.is_closed() && self.access.shares_connections_with(access)
    }

    /// Returns the credentials with which the connection was opened.
    pub fn access(&self) -> &Arc<Access> {
        &self.access
    }

    /// Sends a request. Once its response has been read to the end, the connection is put back into the pool. If the
    /// response is dropped earlier, the connection is closed.
    ///
    /// # Errors
    /// Fails if there is no response. The error contains the request if it was not sent.
    pub async fn send(
        mut self,
        request: Request<RequestBody>,
        pool: &Arc<Pool>,
    ) -> Result<Response<PooledBody>, TrySendError<Request<RequestBody>>> {
        let response = self.sender.try_send_request(request).await?;
        let pool = Arc::clone(pool);
        Ok(response.map(|body| PooledBody { body, connection: Some(self), pool }))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The body of a response, with the connection that it is read from.
pub struct PooledBody {
    body: Incoming,
    /// The connection; `None` after the end of the body or a failure.
    connection: Option<Connection>,
    pool: Arc<Pool>,
}

impl Body for PooledBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            Some(Err(_)) => self.connection = None,
            Some(Ok(_)) if !self.body.is_end_stream() => {}
            Some(Ok(_)) | None => {
                if let Some(connection) = self.connection.take() {
                    self.pool.put_back(connection);
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
