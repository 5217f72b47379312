//! The monitoring thread, which maintains the state of this candidate and reports it.
//!
//! The elector's threads send it every [`Update`]. It has its own runtime and shares no mutex with them, so a slow or
//! stopped monitoring thread does not delay them.

use std::cell::RefCell;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use leaderrun_core::updates::Update;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{LocalSet, spawn_local};

use super::http::{self, HttpAddress, ListenError};
use super::observer::Observer;
use super::state::CandidateState;
use super::systemd::ServiceNotifier;
use crate::process::clock;

/// How long leaderrun waits for the counters before it re-executes itself.
const COUNTERS_TIMEOUT: Duration = Duration::from_millis(200);

/// A message to the thread.
enum MonitorMessage {
    Update(Update),
    GetCounters(SyncSender<String>),
}

/// The running monitoring thread.
pub struct Monitor {
    messages: UnboundedSender<MonitorMessage>,
}

impl Monitor {
    /// Listens on the HTTP address, if there is one, and starts the thread, which serves HTTP and notifies systemd. If
    /// the address is in use or not (yet) an address of this machine, the thread tries again until it can listen.
    ///
    /// # Errors
    /// Fails if leaderrun cannot listen on the address for another reason, or if the runtime or the thread cannot be
    /// created.
    pub fn start(http: Option<HttpAddress>, notifier: Option<ServiceNotifier>, state: CandidateState) -> Result<Self> {
        let http = http.map(HttpService::listen).transpose()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (messages, inbox) = unbounded_channel();
        let run = move || LocalSet::new().block_on(&runtime, monitor(http, notifier, inbox, state));
        thread::Builder::new().name("monitor".into()).spawn(run).context("cannot start the monitoring thread")?;
        Ok(Self { messages })
    }

    /// Returns an observer that sends all updates to the thread.
    pub fn observer(&self) -> Observer {
        let messages = self.messages.clone();
        Observer::new(move |update| {
            let _ = messages.send(MonitorMessage::Update(update.clone()));
        })
    }

    /// Returns the counters as text, from which [`CandidateState::new`] restores them after leaderrun has re-executed
    /// itself. Returns `None` if the thread does not reply in time.
    pub fn saved_counters(&self) -> Option<String> {
        let (sender, counters) = sync_channel(1);
        self.messages.send(MonitorMessage::GetCounters(sender)).ok()?;
        counters.recv_timeout(COUNTERS_TIMEOUT).ok()
    }
}

/// The HTTP server before the monitoring thread starts to serve requests.
enum HttpService {
    Listening(TcpListener),
    AddressUnavailable(HttpAddress, ListenError),
}

impl HttpService {
    fn listen(address: HttpAddress) -> Result<Self> {
        match address.listen() {
            Ok(listener) => {
                http::log_listening(&listener)?;
                Ok(Self::Listening(listener))
            }
            Err(failure) if failure.is_transient() => Ok(Self::AddressUnavailable(address, failure)),
            Err(failure) => Err(failure.into()),
        }
    }

    async fn serve(self, state: Rc<RefCell<CandidateState>>) {
        match self {
            Self::Listening(listener) => http::serve(listener, state).await,
            Self::AddressUnavailable(address, failure) => http::serve_when_free(address, failure, state).await,
        }
    }
}

async fn monitor(
    http: Option<HttpService>,
    mut notifier: Option<ServiceNotifier>,
    mut inbox: UnboundedReceiver<MonitorMessage>,
    state: CandidateState,
) {
    let state = Rc::new(RefCell::new(state));
    if let Some(http) = http {
        spawn_local(http.serve(Rc::clone(&state)));
    }
    while let Some(message) = inbox.recv().await {
        match message {
            MonitorMessage::Update(update) => {
                let now = clock::now();
                state.borrow_mut().apply(now, update);
                if let Some(notifier) = &mut notifier {
                    notifier.report(&state.borrow(), now);
                }
            }
            MonitorMessage::GetCounters(sender) => {
                let _ = sender.try_send(state.borrow().saved_counters());
            }
        }
    }
}
