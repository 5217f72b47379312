//! The HTTP server of `--http`, which serves health, readiness, the leader report and metrics.
//!
//! The resources that clients can use are bounded: a connection serves one request and lasts a few seconds at most, and
//! if there are too many connections, the oldest one is closed.

mod address;
mod routes;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::ready;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::{sleep, timeout};

pub use self::address::{HttpAddress, ListenError};
use super::log_events;
use super::state::CandidateState;
use crate::process::clock;

/// The longest duration of a connection, from when it is accepted to the last byte of the response.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// The maximum number of connections at a time.
const MAX_CONNECTIONS: usize = 64;

/// The maximum size of a request, in bytes: the smallest buffer that hyper accepts.
const MAX_REQUEST_SIZE: usize = 8192;

const MAX_HEADERS: usize = 64;

/// The pause after a failure to accept a connection, for example because no descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The pause between attempts to listen on an address that is not available.
const LISTEN_PAUSE: Duration = Duration::from_secs(1);

/// Logs the address that leaderrun listens on.
///
/// # Errors
/// Fails if the kernel does not return the address.
pub fn log_listening(listener: &std::net::TcpListener) -> io::Result<()> {
    log_events::http(listener.local_addr()?);
    Ok(())
}

/// Logs `error`, which says why leaderrun could not listen on the address. Then tries again every second until it
/// succeeds, and serves HTTP.
pub async fn serve_when_free(address: HttpAddress, error: ListenError, state: Rc<RefCell<CandidateState>>) {
    log_events::http_failed(&format!("{error}; retrying every second"));
    loop {
        sleep(LISTEN_PAUSE).await;
        if let Ok(listener) = address.listen()
            && log_listening(&listener).is_ok()
        {
            return serve(listener, state).await;
        }
    }
}

/// Accepts connections, and answers their requests based on the candidate's state.
pub async fn serve(listener: std::net::TcpListener, state: Rc<RefCell<CandidateState>>) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(failure) => {
            return log_events::http_failed(&format!("cannot serve HTTP on the address from --http: {failure}"));
        }
    };
    let mut connections: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        connections.retain(|connection| !connection.is_finished());
        if connections.len() == MAX_CONNECTIONS
            && let Some(oldest) = connections.pop_front()
        {
            oldest.abort();
        }
        let connection = timeout(CONNECTION_TIMEOUT, handle_connection(stream, Rc::clone(&state)));
        connections.push_back(spawn_local(connection).abort_handle());
    }
}

/// Responds to one request. Errors only affect the client and are ignored.
async fn handle_connection(stream: TcpStream, state: Rc<RefCell<CandidateState>>) {
    let service = service_fn(|request| {
        let response = routes::respond(&request, &state.borrow(), clock::now());
        ready(Ok::<_, Infallible>(response))
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(MAX_REQUEST_SIZE)
        .max_headers(MAX_HEADERS)
        // The connection as a whole has a timeout.
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), service);
    let _ = connection.await;
}
