//! The credentials of this process, which all clients share.
//!
//! A thread of its own reads the files and runs the plugin, so that a hanging file system or plugin does not delay
//! clients that have credentials, and at most one plugin runs at a time. Credentials are kept until they are replaced:
//!
//! - While credentials are in use, their files are checked every few seconds, and after a failure. They are read again
//!   after a change, and every minute. What cannot be read again stays as it was.
//! - Credentials from a plugin are renewed before they expire, while they are in use.
//! - When the API server answers 401, everything is read again. If that does not help, the plugin is run again.
//! - While newer credentials are of no use, the ones from before are used: see [`fallback`].

mod access;
mod exec_credential;
mod fallback;
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
use self::fallback::Fallback;
use self::worker::Worker;
use super::connection::{ClusterOptions, ConnectionConfig};

/// How often the files of credentials that are in use are checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// How often the thread is requested to renew credentials that are about to expire.
const RENEWAL_INTERVAL: Duration = Duration::from_millis(500);

/// The time after which it is reported what the credentials wait for.
pub const MIN_PENDING: Duration = Duration::from_secs(1);

/// The credentials of this process. Clones share them.
#[derive(Clone)]
pub struct Credentials {
    shared: Arc<Shared>,
    orders: Arc<OnceLock<Sender<Order>>>,
}

/// The state that the thread and its clients share.
struct Shared {
    options: ClusterOptions,
    state: watch::Sender<State>,
    /// The number of the last order.
    ordered: AtomicU64,
    /// The time of the next check of credentials that are in use.
    next_check: Mutex<Instant>,
    /// A request was accepted since credentials were last rejected.
    was_accepted: AtomicBool,
    fallback: Fallback,
    activity: Mutex<Option<Activity>>,
}

/// The results of the thread.
#[derive(Clone, Default)]
struct State {
    /// The configuration of the connection, which may be known before the credentials.
    config: Option<Arc<ConnectionConfig>>,
    access: Option<Arc<Access>>,
    /// The reason why there are no newer credentials.
    failure: Option<CredentialsError>,
    /// The number of the last order that was carried out.
    handled: u64,
}

/// An order to check everything again.
struct Order {
    number: u64,
    /// The generation that the API server has rejected.
    rejected: Option<u64>,
}

/// The present activity of the thread.
#[derive(Clone, Debug)]
struct Activity {
    description: String,
    since: Instant,
}

/// The reason why there are no credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialsError(String);

impl fmt::Display for CredentialsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CredentialsError {}

impl Credentials {
    /// Creates the credentials for these options. They are read when they are first requested.
    pub fn new(options: ClusterOptions) -> Self {
        let shared = Shared {
            options,
            state: watch::Sender::new(State::default()),
            ordered: AtomicU64::new(0),
            next_check: Mutex::new(Instant::now()),
            was_accepted: AtomicBool::new(false),
            fallback: Fallback::default(),
            activity: Mutex::new(None),
        };
        Self { shared: Arc::new(shared), orders: Arc::default() }
    }

    /// Returns the present credentials. It waits only while there are no valid ones.
    ///
    /// # Errors
    /// Fails if there are no credentials.
    pub async fn current(&self) -> Result<Arc<Access>, CredentialsError> {
        let access = self.shared.state.borrow().access.clone();
        let Some(access) = access.filter(|access| !access.has_expired()) else { return self.recheck(None).await };
        if self.is_check_due(&access) {
            self.order(None)?;
        }
        Ok(self.shared.fallback.choose(access))
    }

    /// Returns the configuration of the connection, once it is known and the credentials were obtained or have failed.
    ///
    /// # Errors
    /// Fails if there is no usable configuration.
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

    /// Returns other credentials after the API server has rejected these: newer ones, or else those that it has accepted
    /// before. Returns `None` if there are no others.
    ///
    /// # Errors
    /// Fails if newer credentials should exist and cannot be obtained.
    pub async fn instead_of(&self, rejected: &Access) -> Result<Option<Arc<Access>>, CredentialsError> {
        let newest = self.recheck(Some(rejected.generation)).await;
        if let Ok(newest) = &newest
            && newest.generation > rejected.generation
        {
            return Ok(Some(Arc::clone(newest)));
        }
        match self.shared.fallback.rejected(rejected) {
            Some(earlier) => Ok(Some(earlier)),
            None => newest.map(|_| None),
        }
    }

    /// Records that the API server has accepted a request with these credentials.
    pub fn accepted(&self, access: &Arc<Access>) {
        self.shared.was_accepted.store(true, Ordering::Relaxed);
        self.shared.fallback.accepted(access);
    }

    /// Records that a request with these credentials failed, and has the files checked at once. The reason may be that
    /// the server has a new certificate or expects one of the client.
    pub fn unanswered(&self, access: &Access, failure: &str) {
        self.shared.fallback.unanswered(access, failure);
        let _ = self.order(None);
    }

    /// Returns what the credentials wait for, if they take long at present.
    pub fn pending(&self) -> Option<String> {
        let activity = self.shared.activity.lock().expect("nothing panics while it is held");
        let Activity { description, since } = activity.clone().or_else(files::being_read)?;
        (since.elapsed() >= MIN_PENDING).then_some(description)
    }

    /// Orders the thread to check everything again, and waits for the result.
    async fn recheck(&self, rejected: Option<u64>) -> Result<Arc<Access>, CredentialsError> {
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

    /// Sends an order to the thread, which is started if necessary. Returns the number of the order.
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_half_written_kubeconfig_changes_at_most_the_token() {
        let authority = rcgen::generate_simple_self_signed([]).unwrap().cert.pem();
        let authority = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, authority);
        // The fields are in the order in which kubectl writes them.
        let kubeconfig = |token: &str| {
            format!(
                "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: {authority}\n    \
                 server: https://10.96.0.1\n  name: c\ncontexts:\n- context:\n    cluster: c\n    namespace: ns\n    \
                 user: u\n  name: x\ncurrent-context: x\nkind: Config\nusers:\n- name: u\n  user:\n    token: {token}\n"
            )
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kubeconfig");
        fs::write(&path, kubeconfig("old")).unwrap();
        let credentials =
            Credentials::new(ClusterOptions { kubeconfig: Some(path.clone()), ..ClusterOptions::default() });
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let look = || runtime.block_on(credentials.recheck(None)).unwrap();
        let first = look();
        let whole = kubeconfig("new");
        let (mut tokens, mut previous) = (Vec::new(), String::new());
        for end in 0..=whole.len() {
            fs::write(&path, &whole[..end]).unwrap();
            let access = look();
            assert!(access.can_replace(&first) && access.config.server == first.config.server, "{}", &whole[..end]);
            let token = access.authorization.as_ref().unwrap().to_str().unwrap().to_owned();
            if token != previous {
                tokens.push(token.clone());
                previous = token;
            }
        }
        assert_eq!(tokens, ["Bearer old", "Bearer n", "Bearer ne", "Bearer new"]);
    }
}
