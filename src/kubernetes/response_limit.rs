//! Limits the size of responses from the API server.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Limited};
use hyper::Response;
use hyper::body::{Body, Bytes, Frame};

/// The maximum size in bytes of a response, or of a line of a watch. A single object is smaller, because etcd accepts
/// at most 1.5 MiB.
const MAX_SIZE: usize = 4 * 1024 * 1024;

/// The maximum size of a response, for messages.
pub const MAX_SIZE_TEXT: &str = "4 MiB";

type Failure = Box<dyn std::error::Error + Send + Sync>;
/// A body whose size is limited.
pub type LimitedBody = UnsyncBoxBody<Bytes, Failure>;

/// Limits the size of a response.
pub fn limit_whole<B>(response: Response<B>) -> Response<LimitedBody>
where
    B: Body<Data = Bytes, Error: Into<Failure>> + Send + 'static,
{
    response.map(|body| Limited::new(body, MAX_SIZE).boxed_unsync())
}

/// Limits the size of each line of a watch, because the response as a whole grows without limit. If the response is an
/// error, limits its total size.
pub fn limit_lines<B>(response: Response<B>) -> Response<LimitedBody>
where
    B: Body<Data = Bytes, Error: Into<Failure>> + Send + Unpin + 'static,
{
    if !response.status().is_success() {
        return limit_whole(response);
    }
    response.map(|body| Lines { body, length: 0 }.boxed_unsync())
}

/// A body that fails as soon as its unfinished line is longer than [`MAX_SIZE`].
struct Lines<B> {
    body: B,
    /// The length of the unfinished line.
    length: usize,
}

impl<B: Body<Data = Bytes, Error: Into<Failure>> + Unpin> Body for Lines<B> {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context)).transpose().map_err(Into::into)?;
        if let Some(bytes) = frame.as_ref().and_then(Frame::data_ref) {
            self.length = match bytes.iter().rposition(|byte| *byte == b'\n') {
                Some(end) => bytes.len() - end - 1,
                None => self.length + bytes.len(),
            };
        }
        Poll::Ready(if self.length > MAX_SIZE {
            Some(Err(format!("a line of the API server's response is longer than {MAX_SIZE_TEXT}").into()))
        } else {
            frame.map(Ok)
        })
    }
}
