//! A client's connection whose bytes can be lost below TLS, as on a faulty network.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::runtime;

/// The bytes of a connection that are lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub requests_lost: bool,
    pub replies_lost: bool,
}

impl Traffic {
    pub const SILENT: Traffic = Traffic { requests_lost: true, replies_lost: true };
}

/// The faults of one connection. They are permanent, because the TLS session is broken once bytes are lost.
pub struct Wire(watch::Sender<State>);

#[derive(Clone, Copy)]
enum State {
    Open(Traffic),
    Closed,
}

impl Wire {
    pub fn new(traffic: Traffic) -> Arc<Wire> {
        Arc::new(Wire(watch::Sender::new(State::Open(traffic))))
    }

    /// Loses bytes also in the directions in which `losses` loses them.
    pub fn add_losses(&self, losses: Traffic) {
        self.0.send_modify(|state| {
            if let State::Open(traffic) = state {
                traffic.requests_lost |= losses.requests_lost;
                traffic.replies_lost |= losses.replies_lost;
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

    pub fn requests_lost(&self) -> bool {
        self.traffic().requests_lost
    }

    fn traffic(&self) -> Traffic {
        match *self.0.borrow() {
            State::Open(traffic) => traffic,
            State::Closed => Traffic::default(),
        }
    }
}

/// The proxy's end of a connection, with the faults of its wire.
pub struct Wired {
    stream: Option<TcpStream>,
    wire: Arc<Wire>,
}

impl Wired {
    pub fn new(stream: TcpStream, wire: Arc<Wire>) -> Wired {
        let stream = Some(stream);
        Wired { stream, wire }
    }

    fn stream(&mut self) -> Pin<&mut TcpStream> {
        Pin::new(self.stream.as_mut().expect("taken only when dropped"))
    }
}

impl AsyncRead for Wired {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let before = buffer.filled().len();
            ready!(self.stream().poll_read(context, buffer))?;
            let at_end = buffer.filled().len() == before;
            if at_end || !self.wire.requests_lost() {
                return Poll::Ready(Ok(()));
            }
            buffer.set_filled(before);
        }
    }
}

impl AsyncWrite for Wired {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.wire.traffic().replies_lost {
            return Poll::Ready(Ok(bytes.len()));
        }
        self.stream().poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.wire.traffic().replies_lost {
            return Poll::Ready(Ok(()));
        }
        self.stream().poll_shutdown(context)
    }
}

impl Drop for Wired {
    fn drop(&mut self) {
        if !self.wire.traffic().replies_lost {
            return;
        }
        // The client must not notice that the task has ended, so the connection stays open until the client closes it.
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
