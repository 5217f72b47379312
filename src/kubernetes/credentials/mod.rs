//! The credentials of this process: one owner, whom all clients ask.
//!
//! A thread of its own reads the files and runs the plugin, so nothing that hangs there delays anybody who has
//! credentials already, and at most one plugin runs at a time. What it has found is kept until it is replaced:
//!
//! - While credentials are used, their files are looked at every few seconds, and read again when they have changed
//!   and every minute.
//! - What a plugin has issued is renewed ahead of its end, while it is still used.
//! - When the API server answers 401, everything is read again, and the plugin is asked again if that has not helped.

mod access;
mod exec_credential;
pub mod files;
mod material;
mod plugin;
mod worker;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::watch;

pub use self::access::Access;
use self::worker::Worker;
use super::cluster::ClusterOptions;
use super::connection::ConnectionConfig;

/// How often credentials that are in use are looked at.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// How often the thread is asked to renew what is about to expire.
const RENEWAL_INTERVAL: Duration = Duration::from_millis(500);

/// What takes less time is not worth a word.
pub const MIN_PENDING: Duration = Duration::from_secs(1);

/// The owner of this process's credentials. Clones are the same owner.
#[derive(Clone)]
pub struct Credentials {
    shared: Arc<Shared>,
    orders: Arc<OnceLock<Sender<Order>>>,
}

/// What the thread and its clients share.
struct Shared {
    options: ClusterOptions,
    state: watch::Sender<State>,
    /// The number of the last order.
    ordered: AtomicU64,
    /// When credentials in use are looked at again.
    next_check: Mutex<Instant>,
    /// A request was accepted since credentials were last rejected.
    was_accepted: AtomicBool,
    activity: Mutex<Option<Activity>>,
}

/// What the thread has found.
#[derive(Clone, Default)]
struct State {
    /// How the API server is reached, also where there are no credentials yet.
    config: Option<Arc<ConnectionConfig>>,
    access: Option<Arc<Access>>,
    /// Why there is nothing newer.
    failure: Option<CredentialsError>,
    /// The number of the last order that was carried out.
    handled: u64,
}

/// A request to look at everything again.
struct Order {
    number: u64,
    /// The generation that the API server has rejected.
    rejected: Option<u64>,
}

/// What the thread does at present.
#[derive(Clone, Debug)]
struct Activity {
    description: String,
    since: Instant,
}

/// Why there are no credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialsError(String);

impl fmt::Display for CredentialsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CredentialsError {}

impl Credentials {
    /// Returns the owner of the credentials that these options lead to. Nothing is read before somebody asks.
    pub fn new(options: ClusterOptions) -> Self {
        let shared = Shared {
            options,
            state: watch::Sender::new(State::default()),
            ordered: AtomicU64::new(0),
            next_check: Mutex::new(Instant::now()),
            was_accepted: AtomicBool::new(false),
            activity: Mutex::new(None),
        };
        Self { shared: Arc::new(shared), orders: Arc::default() }
    }

    /// Returns how the API server is asked at present. Waits only while there is nothing that is still valid.
    ///
    /// # Errors
    /// When there are no credentials.
    pub async fn current(&self) -> Result<Arc<Access>, CredentialsError> {
        let access = self.shared.state.borrow().access.clone();
        let Some(access) = access.filter(|access| !access.has_expired()) else { return self.look(None).await };
        if self.is_check_due(&access) {
            self.order(None)?;
        }
        Ok(access)
    }

    /// Returns how the API server is reached, as soon as that is known and there were credentials, or a reason why there
    /// are none yet.
    ///
    /// # Errors
    /// When it cannot be known.
    pub async fn configuration(&self) -> Result<Arc<ConnectionConfig>, CredentialsError> {
        let failure = match self.current().await {
            Ok(access) => return Ok(Arc::clone(&access.config)),
            Err(failure) => failure,
        };
        self.shared.state.borrow().config.clone().ok_or(failure)
    }

    /// Returns the configuration that was read last, if any was.
    pub fn known_configuration(&self) -> Option<Arc<ConnectionConfig>> {
        self.shared.state.borrow().config.clone()
    }

    /// Returns newer credentials after the API server has rejected these, or the same where there are no newer ones.
    ///
    /// # Errors
    /// When newer ones should be there and cannot be had.
    pub async fn renewed(&self, rejected: &Access) -> Result<Arc<Access>, CredentialsError> {
        self.look(Some(rejected.generation)).await
    }

    /// Takes in that the API server has accepted a request with the present credentials.
    pub fn accepted(&self) {
        self.shared.was_accepted.store(true, Ordering::Relaxed);
    }

    /// Returns what credentials are waited for, if that takes time at present.
    pub fn pending(&self) -> Option<String> {
        let activity = self.shared.activity.lock().expect("nothing panics while it is held");
        let Activity { description, since } = activity.clone().or_else(files::being_read)?;
        (since.elapsed() >= MIN_PENDING).then_some(description)
    }

    /// Has the thread look at everything again, and waits until it has.
    async fn look(&self, rejected: Option<u64>) -> Result<Arc<Access>, CredentialsError> {
        let number = self.order(rejected)?;
        let mut state = self.shared.state.subscribe();
        let is_newer = |access: &Access| rejected.is_some_and(|rejected| access.generation > rejected);
        let state = state.wait_for(|state| state.handled >= number || state.access.as_deref().is_some_and(is_newer));
        let State { access, failure, .. } = state.await.expect("the sender is ours").clone();
        match (access, failure) {
            (Some(access), _) if is_newer(&access) => Ok(access),
            (Some(access), None) => Ok(access),
            (_, Some(failure)) => Err(failure),
            (None, None) => unreachable!("an order ends with one of them"),
        }
    }

    fn is_check_due(&self, access: &Access) -> bool {
        let mut next_check = self.shared.next_check.lock().expect("nothing panics while it is held");
        let now = Instant::now();
        let is_due =
            now >= *next_check || access.is_renewal_due() && *next_check - now < CHECK_INTERVAL - RENEWAL_INTERVAL;
        if is_due {
            *next_check = now + CHECK_INTERVAL;
        }
        is_due
    }

    /// Gives the thread an order, which it starts with. Returns the number of the order.
    fn order(&self, rejected: Option<u64>) -> Result<u64, CredentialsError> {
        let orders = match self.orders.get() {
            Some(orders) => orders,
            None => self.start()?,
        };
        let number = self.shared.ordered.fetch_add(1, Ordering::Relaxed) + 1;
        let _ = orders.send(Order { number, rejected });
        Ok(number)
    }

    fn start(&self) -> Result<&Sender<Order>, CredentialsError> {
        let (sender, orders) = channel();
        let worker = Worker::new(Arc::clone(&self.shared));
        let mut is_first = false;
        let sender = self.orders.get_or_init(|| {
            is_first = true;
            sender
        });
        if is_first {
            let spawned = thread::Builder::new().name("credentials".into()).spawn(move || worker.run(&orders));
            spawned.map_err(|failure| CredentialsError(format!("cannot start a thread for credentials: {failure}")))?;
        }
        Ok(sender)
    }
}
