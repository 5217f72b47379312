//! `--http`: health, readiness, the leader and metrics, on a thread that nothing else waits for.
//!
//! Clients cost little, whatever they do: a connection lasts for one request and some seconds, and when
//! there are too many, the oldest is closed. With one request a connection there is little to HTTP, and
//! hyper's parser is enough; its server would add some 50 kB.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::str::FromStr;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use leaderrun_core::updates::Update;
use nix::errno::Errno;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tracing::info;

use super::exposition;
use super::state::{Observer, State};
use crate::process::clock;

/// How long a connection lasts at most, its request and its answer included.
const LONGEST_CONNECTION: Duration = Duration::from_secs(5);

/// Connections at a time; each may take a buffer of this size.
const MOST_CONNECTIONS: usize = 64;
const LARGEST_REQUEST: usize = 8192;
const MOST_HEADERS: usize = 64;

/// Between two tries when no connection can be accepted, for want of descriptors for example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const PATHS: &str = "/healthz, /readyz, /leader and /metrics";

/// Where to listen, as `--http` takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpAddress {
    /// None for every address of this machine.
    ip: Option<IpAddr>,
    port: u16,
}

impl FromStr for HttpAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let every = text.strip_prefix(':').and_then(|port| port.parse().ok()).map(|port| Self { ip: None, port });
        let one = || text.parse().ok().map(|address: SocketAddr| Self { ip: Some(address.ip()), port: address.port() });
        every
            .or_else(one)
            .ok_or("it is no IP address with a port; 127.0.0.1:8080, or :8080 for all addresses, would do")
    }
}

impl fmt::Display for HttpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            Some(ip) => SocketAddr::new(ip, self.port).fmt(f),
            None => write!(f, ":{}", self.port),
        }
    }
}

impl HttpAddress {
    fn listen(&self) -> io::Result<TcpListener> {
        match self.ip {
            Some(ip) => TcpListener::bind((ip, self.port)),
            // The IPv6 one stands for both, where there is IPv6.
            None => match TcpListener::bind((Ipv6Addr::UNSPECIFIED, self.port)) {
                Err(failure) if failure.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
                    TcpListener::bind((Ipv4Addr::UNSPECIFIED, self.port))
                }
                bound => bound,
            },
        }
    }
}

/// How long the program's end waits for what was counted.
const COUNTED_TIMEOUT: Duration = Duration::from_millis(200);

/// What the thread is sent.
enum Message {
    Update(Update),
    /// Somebody wants everything that was counted.
    Counted(SyncSender<String>),
}

/// The way to ask the thread for what it has counted.
pub struct Counted(UnboundedSender<Message>);

impl Counted {
    /// Everything that was counted, for a later [`State::new`]; nothing if the thread does not answer in time.
    pub fn get(&self) -> Option<String> {
        let (sender, counted) = sync_channel(1);
        self.0.send(Message::Counted(sender)).ok()?;
        counted.recv_timeout(COUNTED_TIMEOUT).ok()
    }
}

/// Listens and begins to answer by `state`, and by what the observer is told from then on.
///
/// # Errors
/// When the address cannot be listened at, or the kernel gives no thread.
pub fn start(address: HttpAddress, state: State) -> Result<(Observer, Counted)> {
    let listener = address.listen().map_err(|failure| refusal(address, &failure))?;
    listener.set_nonblocking(true)?;
    info!(event = "http", "answering at http://{}", listener.local_addr()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = {
        let _entered = runtime.enter();
        tokio::net::TcpListener::from_std(listener)?
    };
    let (messages, inbox) = unbounded_channel();
    let shared = Shared(Arc::new(Mutex::new(state)));
    let serve = move || runtime.block_on(serve(listener, inbox, shared));
    thread::Builder::new().name("http".into()).spawn(serve).context("cannot start a thread")?;
    let counted = Counted(messages.clone());
    let observer = Observer::new(move |update| {
        let _ = messages.send(Message::Update(update.clone()));
    });
    Ok((observer, counted))
}

fn refusal(address: HttpAddress, failure: &io::Error) -> anyhow::Error {
    let reason =
        failure.raw_os_error().map_or_else(|| failure.to_string(), |errno| Errno::from_raw(errno).desc().into());
    let would_do = match failure.kind() {
        io::ErrorKind::AddrNotAvailable => {
            format!("{} would do, for all addresses", HttpAddress { ip: None, ..address })
        }
        _ => format!("{} would do, for any free port", HttpAddress { port: 0, ..address }),
    };
    anyhow!("--http {address}: cannot listen there: {reason}; {would_do}")
}

/// Shared by the tasks of one thread only.
#[derive(Clone)]
struct Shared(Arc<Mutex<State>>);

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics while it is held")
    }
}

async fn serve(listener: tokio::net::TcpListener, mut inbox: UnboundedReceiver<Message>, shared: Shared) {
    let mut connections: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        tokio::select! {
            biased;
            Some(message) = inbox.recv() => match message {
                Message::Update(update) => shared.state().apply(update),
                Message::Counted(sender) => {
                    let _ = sender.try_send(shared.state().counted());
                }
            },
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else {
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                };
                connections.retain(|connection| !connection.is_finished());
                if connections.len() == MOST_CONNECTIONS && let Some(oldest) = connections.pop_front() {
                    oldest.abort();
                }
                let connection = timeout(LONGEST_CONNECTION, converse(stream, shared.clone()));
                connections.push_back(tokio::spawn(connection).abort_handle());
            }
        }
    }
}

/// One request and its answer.
async fn converse(mut stream: TcpStream, shared: Shared) -> io::Result<()> {
    let mut received = Vec::with_capacity(1024);
    let answer = loop {
        // Nothing follows a request, so what is read too much does not matter.
        if stream.read_buf(&mut received).await? == 0 {
            return Ok(());
        }
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(&received) {
            Ok(httparse::Status::Complete(_)) => break answer(&request, &shared.state()),
            Ok(httparse::Status::Partial) if received.len() < LARGEST_REQUEST => {}
            Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
                break Answer::text("431 Request Header Fields Too Large", "that is too long".into());
            }
            Err(nonsense) => break Answer::text("400 Bad Request", nonsense.to_string()),
        }
    };
    stream.write_all(answer.to_string().as_bytes()).await?;
    stream.shutdown().await
}

fn answer(request: &httparse::Request, state: &State) -> Answer {
    let (now, path) = (clock::now(), request.path.unwrap_or_default());
    let with_body = match request.method {
        Some("GET") => true,
        Some("HEAD") => false,
        _ => return Answer::text("405 Method Not Allowed", "only GET and HEAD".into()),
    };
    let answer = match path.split('?').next().unwrap_or_default() {
        "/healthz" => verdict(state.health(now)),
        "/readyz" => verdict(state.readiness(now)),
        "/leader" => Answer::new(OK, "application/json", state.leader(now)),
        "/metrics" => Answer::new(OK, exposition::CONTENT_TYPE, state.metrics()),
        "/" => Answer::text(OK, PATHS.into()),
        _ => Answer::text("404 Not Found", format!("there is nothing here but {PATHS}")),
    };
    Answer { with_body, ..answer }
}

fn verdict(verdict: Result<(), String>) -> Answer {
    match verdict {
        Ok(()) => Answer::text(OK, "ok".into()),
        Err(reason) => Answer::text("503 Service Unavailable", reason),
    }
}

const OK: &str = "200 OK";

struct Answer {
    status: &'static str,
    content_type: &'static str,
    body: String,
    with_body: bool,
}

impl Answer {
    fn new(status: &'static str, content_type: &'static str, body: String) -> Self {
        Self { status, content_type, body, with_body: true }
    }

    fn text(status: &'static str, line: String) -> Self {
        Self::new(status, "text/plain; charset=utf-8", line + "\n")
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, content_type, body, with_body } = self;
        let length = body.len();
        write!(
            f,
            "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\nAllow: GET, HEAD\r\nConnection: close\r\n\r\n"
        )?;
        f.write_str(if *with_body { body } else { "" })
    }
}
