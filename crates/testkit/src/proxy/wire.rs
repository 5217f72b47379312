//! A client's connection whose bytes can be dropped below TLS, as on a faulty network.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::runtime;

/// The directions in which a connection drops all bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// `true` if bytes to the server are dropped.
    pub requests: bool,
    /// `true` if bytes to the client are dropped.
    pub responses: bool,
}

impl Losses {
    /// All bytes are dropped in both directions.
    pub const ALL: Losses = Losses { requests: true, responses: true };
}

/// The network path of one connection: its losses, and whether it is closed. Losses are permanent, because the TLS
/// session is broken once bytes have been dropped.
pub struct Wire(watch::Sender<State>);

#[derive(Clone, Copy)]
enum State {
    Open(Losses),
    Closed,
}

impl Wire {
    pub fn new(losses: Losses) -> Arc<Wire> {
        Arc::new(Wire(watch::Sender::new(State::Open(losses))))
    }

    /// Adds the directions in `added` to the directions in which bytes are dropped.
    pub fn add_losses(&self, added: Losses) {
        self.0.send_modify(|state| {
            if let State::Open(losses) = state {
                losses.requests |= added.requests;
                losses.responses |= added.responses;
            }
        });
    }

    /// Makes the task that serves the connection close it.
    pub fn close(&self) {
        self.0.send_replace(State::Closed);
    }

    /// Waits until [`Wire::close`] is called.
    pub async fn closed(&self) {
        let mut state = self.0.subscribe();
        let _ = state.wait_for(|state| matches!(state, State::Closed)).await;
    }

    pub fn drops_requests(&self) -> bool {
        self.losses().requests
    }

    fn losses(&self) -> Losses {
        match *self.0.borrow() {
            State::Open(losses) => losses,
            // A closed wire drops nothing, so that dropping its stream closes the connection at once.
            State::Closed => Losses::default(),
        }
    }
}

/// The proxy's end of a client's connection. It drops bytes in the directions that its wire contains.
pub struct LossyStream {
    stream: Option<TcpStream>,
    wire: Arc<Wire>,
}

impl LossyStream {
    pub fn new(stream: TcpStream, wire: Arc<Wire>) -> LossyStream {
        let stream = Some(stream);
        LossyStream { stream, wire }
    }

    fn stream(&mut self) -> Pin<&mut TcpStream> {
        Pin::new(self.stream.as_mut().expect("the stream is taken only when dropped"))
    }
}

impl AsyncRead for LossyStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let before = buffer.filled().len();
            ready!(self.stream().poll_read(context, buffer))?;
            let at_end = buffer.filled().len() == before;
            if at_end || !self.wire.drops_requests() {
                return Poll::Ready(Ok(()));
            }
            buffer.set_filled(before);
        }
    }
}

impl AsyncWrite for LossyStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.wire.losses().responses {
            return Poll::Ready(Ok(bytes.len()));
        }
        self.stream().poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.wire.losses().responses {
            return Poll::Ready(Ok(()));
        }
        self.stream().poll_shutdown(context)
    }
}

impl Drop for LossyStream {
    fn drop(&mut self) {
        if !self.wire.losses().responses {
            return;
        }
        // The client must not notice that the task has ended, so the connection stays open until the client closes it
        // or the wire is closed.
        let (Some(mut stream), wire) = (self.stream.take(), Arc::clone(&self.wire)) else {
            return;
        };
        runtime::spawn(async move {
            let mut ignored = [0; 1024];
            let drained = async { while matches!(stream.read(&mut ignored).await, Ok(1..)) {} };
            tokio::select! {
                () = drained => {}
                () = wire.closed() => {}
            }
        });
    }
}
