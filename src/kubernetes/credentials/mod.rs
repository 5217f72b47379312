//! The credentials of this process, which all clients share.
//!
//! A dedicated thread reads the files and runs the plugin. A hanging file system or plugin therefore does not delay
//! clients that have credentials, and at most one plugin runs at a time. Credentials are kept until newer ones replace
//! them. These are the rules:
//!
//! - While credentials are in use, their files are checked every ten seconds, and after a failed request. They are read
//!   again when they have changed, and every minute. If a file cannot be read, its earlier contents are used.
//! - While credentials from a plugin are in use, they are renewed before they expire. Expired credentials are used
//!   until there are newer ones.
//! - When the API server responds with 401, the files are read again. If that does not help, the plugin is run again.
//! - While the newest credentials do not work, earlier credentials are used: see [`fallback`].

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
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::timeout;

pub use self::access::Access;
use self::fallback::Fallback;
use self::worker::Worker;
use super::connection::{ClusterOptions, ConnectionConfig};
use crate::process::{priority, runtime_thread};

/// How often the files of credentials that are in use are checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// The shortest time between two checks that are requested because credentials are about to expire.
const RENEWAL_INTERVAL: Duration = Duration::from_millis(500);

/// The time after which a wait for credentials or for a connection is reported.
pub const REPORT_WAIT_AFTER: Duration = Duration::from_secs(1);

/// The credentials of this process. Clones share them.
#[derive(Clone)]
pub struct Credentials {
    shared: Arc<Shared>,
    check_requests: Arc<Mutex<Option<Sender<CheckRequest>>>>,
}

/// The state that the thread and its clients share.
struct Shared {
    options: ClusterOptions,
    state: watch::Sender<State>,
    /// The number of the last check request that was sent.
    last_requested: AtomicU64,
    /// When a check was last requested because the credentials were used; `None` before the first.
    last_check: Mutex<Option<Instant>>,
    /// Whether a request was accepted since credentials were last rejected.
    was_accepted: AtomicBool,
    fallback: Fallback,
    pending_wait: Mutex<Option<PendingWait>>,
}

/// The results of the thread's work.
#[derive(Clone, Default)]
struct State {
    /// The configuration of the connection, which may be known before the credentials.
    config: Option<Arc<ConnectionConfig>>,
    access: Option<Arc<Access>>,
    /// The reason why the last attempt to renew the credentials failed.
    failure: Option<CredentialsError>,
    /// The number of the last check request that was handled.
    handled: u64,
}

/// A request to the thread to check the files and the credentials.
struct CheckRequest {
    number: u64,
    /// The generation of the credentials that the API server has rejected; `None` for a routine check.
    rejected: Option<u64>,
}

/// Something that the thread is waiting for, perhaps for a long time.
#[derive(Clone, Debug)]
struct PendingWait {
    /// What the thread is waiting for, as shown in messages; for example `the credential plugin NAME`.
    awaited: String,
    since: Instant,
}

/// The reason why credentials could not be obtained or renewed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialsError(String);

impl fmt::Display for CredentialsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CredentialsError {}

impl Credentials {
    /// Creates the credentials for these options. They are read when they are first requested or
    /// [prepared](Self::prepare).
    pub fn new(options: ClusterOptions) -> Self {
        let shared = Shared {
            options,
            state: watch::Sender::new(State::default()),
            last_requested: AtomicU64::new(0),
            last_check: Mutex::new(None),
            was_accepted: AtomicBool::new(false),
            fallback: Fallback::default(),
            pending_wait: Mutex::new(None),
        };
        Self { shared: Arc::new(shared), check_requests: Arc::default() }
    }

    /// Starts obtaining the credentials, so that the first call that needs them need not wait as long.
    pub fn prepare(&self) {
        let _ = self.request_check(None);
    }

    /// Returns the newest credentials, or earlier ones while the newest do not work (see [`fallback`]). If there are
    /// none yet, this waits for the result of an attempt to obtain them. If the newest have expired according to this
    /// machine's clock, this waits up to `max_wait` for an attempt to renew them. If that fails, it returns the expired
    /// or earlier ones, because this machine's clock may be wrong, and it is up to the API server whether to accept
    /// them.
    ///
    /// # Errors
    /// Fails if there are no credentials and the attempt to obtain them fails.
    pub async fn current(&self, max_wait: Duration) -> Result<Arc<Access>, CredentialsError> {
        let Some(access) = self.shared.state.borrow().access.clone() else { return self.recheck(None).await };
        if access.has_expired() {
            let newest = timeout(max_wait, self.recheck(None)).await;
            return Ok(newest.ok().and_then(Result::ok).unwrap_or_else(|| self.shared.fallback.choose(access)));
        }
        if self.take_due_check(&access) {
            self.request_check(None)?;
        }
        Ok(self.shared.fallback.choose(access))
    }

    /// Returns the configuration of the connection, even if no credentials can be obtained. If there are no credentials
    /// yet, this waits for the result of an attempt to obtain them.
    ///
    /// # Errors
    /// Fails if there is no usable configuration.
    pub async fn configuration(&self) -> Result<Arc<ConnectionConfig>, CredentialsError> {
        let failure = match self.current(Duration::ZERO).await {
            Ok(access) => return Ok(Arc::clone(&access.config)),
            Err(failure) => failure,
        };
        self.shared.state.borrow().config.clone().ok_or(failure)
    }

    /// Returns the configuration that was read last, if one has been read.
    pub fn known_configuration(&self) -> Option<Arc<ConnectionConfig>> {
        self.shared.state.borrow().config.clone()
    }

    /// Returns what to try after the API server has rejected `rejected`: newer credentials, or else the ones that it
    /// accepted last; `None` if there are neither.
    ///
    /// # Errors
    /// Fails if the attempt to obtain newer credentials fails, and there are no earlier ones.
    pub async fn replacement_for(&self, rejected: &Access) -> Result<Option<Arc<Access>>, CredentialsError> {
        let newest = self.recheck(Some(rejected.generation)).await;
        if let Ok(newest) = &newest
            && newest.generation > rejected.generation
            && !self.shared.fallback.is_replaced(newest)
        {
            return Ok(Some(Arc::clone(newest)));
        }
        match self.shared.fallback.fall_back_after_rejection(rejected) {
            Some(earlier) => Ok(Some(earlier)),
            None => newest.map(|_| None),
        }
    }

    /// Records that the API server has accepted a request with these credentials.
    pub fn record_accepted(&self, access: &Arc<Access>) {
        self.shared.was_accepted.store(true, Ordering::Relaxed);
        self.shared.fallback.record_accepted(access);
    }

    /// Records that a request with these credentials got no response, and requests a check of the files. The failure
    /// may mean that the server has a new certificate, or requires a new client certificate.
    pub fn record_failed_request(&self, access: &Access, failure: &str) {
        self.shared.fallback.record_failed_request(access, failure);
        let _ = self.request_check(None);
    }

    /// Returns what the thread is waiting for, if it has waited for [`REPORT_WAIT_AFTER`].
    pub fn waiting_for(&self) -> Option<String> {
        let pending_wait = self.shared.pending_wait.lock().expect("no thread panics while it holds this lock");
        let PendingWait { awaited, since } = pending_wait.clone().or_else(files::pending_read)?;
        (since.elapsed() >= REPORT_WAIT_AFTER).then_some(awaited)
    }

    /// Requests a check of the credentials, and waits for its result. `rejected` is the generation of rejected
    /// credentials. If it is given, the wait also ends as soon as there are credentials newer than that generation.
    async fn recheck(&self, rejected: Option<u64>) -> Result<Arc<Access>, CredentialsError> {
        let number = self.request_check(rejected)?;
        let mut state = self.shared.state.subscribe();
        let is_newer = |access: &Access| rejected.is_some_and(|rejected| access.generation > rejected);
        let state = state.wait_for(|state| state.handled >= number || state.access.as_deref().is_some_and(is_newer));
        let State { access, failure, .. } = state.await.expect("the sender exists as long as the credentials").clone();
        match (access, failure) {
            (Some(access), _) if is_newer(&access) => Ok(access),
            (Some(access), None) => Ok(access),
            (_, Some(failure)) => Err(failure),
            (None, None) => unreachable!("a check ends with credentials or a failure"),
        }
    }

    /// Returns whether a check is due. If so, the time is recorded, and the caller must request the check.
    fn take_due_check(&self, access: &Access) -> bool {
        let mut last_check = self.shared.last_check.lock().expect("no thread panics while it holds this lock");
        let interval = if access.is_renewal_due() { RENEWAL_INTERVAL } else { CHECK_INTERVAL };
        let is_due = last_check.is_none_or(|last_check| last_check.elapsed() >= interval);
        if is_due {
            *last_check = Some(Instant::now());
        }
        is_due
    }

    /// Sends a check request to the thread, and starts the thread if necessary. Returns the number of the request.
    fn request_check(&self, rejected: Option<u64>) -> Result<u64, CredentialsError> {
        let mut sender = self.check_requests.lock().expect("no thread panics while it holds this lock");
        let sender = match &mut *sender {
            Some(sender) => sender,
            // If the thread cannot be started, the next check request tries again.
            none => none.insert(self.start()?),
        };
        let number = self.shared.last_requested.fetch_add(1, Ordering::Relaxed) + 1;
        let _ = sender.send(CheckRequest { number, rejected });
        Ok(number)
    }

    fn start(&self) -> Result<Sender<CheckRequest>, CredentialsError> {
        let (sender, requests) = channel();
        let worker = Worker::new(Arc::clone(&self.shared));
        let started = runtime_thread::start("credentials", move || {
            // The plugins, which this thread starts, inherit its time slice.
            priority::reset_time_slice();
            worker.run(&requests);
        });
        started.map_err(|failure| CredentialsError(format!("cannot start a thread for credentials: {failure}")))?;
        Ok(sender)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use testkit::eventually;

    use super::*;

    /// Credentials from a kubeconfig in a temporary directory.
    struct Kubeconfig {
        directory: tempfile::TempDir,
        credentials: Credentials,
        runtime: tokio::runtime::Runtime,
    }

    impl Kubeconfig {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let options = ClusterOptions::of_kubeconfig(directory.path().join("kubeconfig"));
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            Self { directory, credentials: Credentials::new(options), runtime }
        }

        fn write(&self, server: &str, token: &str) {
            let text = format!(
                "clusters: [{{name: c, cluster: {{server: '{server}'}}}}]\n\
                 contexts: [{{name: x, context: {{cluster: c, user: u}}}}]\n\
                 current-context: x\nusers: [{{name: u, user: {{token: {token}}}}}]\n"
            );
            fs::write(self.directory.path().join("kubeconfig"), text).unwrap();
        }

        fn recheck(&self) -> Arc<Access> {
            self.runtime.block_on(self.credentials.recheck(None)).unwrap()
        }

        /// Returns the credentials that are tried after these were rejected.
        fn replacement_for(&self, rejected: &Access) -> Option<Arc<Access>> {
            self.runtime.block_on(self.credentials.replacement_for(rejected)).unwrap()
        }
    }

    #[test]
    fn prepared_credentials_are_read_without_a_request() {
        let kubeconfig = Kubeconfig::new();
        kubeconfig.write("http://api.example.com", "token");
        assert!(kubeconfig.credentials.known_configuration().is_none());
        kubeconfig.credentials.prepare();
        eventually("the credentials are read", || kubeconfig.credentials.known_configuration().is_some());
    }

    #[test]
    fn a_changed_kubeconfig_is_used_only_if_it_still_points_to_the_same_server() {
        let kubeconfig = Kubeconfig::new();
        kubeconfig.write("http://api.example.com/", "0");
        kubeconfig.recheck();
        let token = || kubeconfig.recheck().authorization.as_ref().unwrap().to_str().unwrap().to_owned();
        for (server, new_token, expected) in [
            ("http://api.example.com:80", "1", "Bearer 1"),
            ("HTTP://API.example.com", "2", "Bearer 2"),
            ("http://api.example.com:8080", "3", "Bearer 2"),
            ("https://api.example.com:80", "4", "Bearer 2"),
            ("http://api.example.com/path", "5", "Bearer 2"),
            ("http://api.example.com:80/", "6", "Bearer 6"),
        ] {
            kubeconfig.write(server, new_token);
            assert_eq!(token(), expected, "{server}");
        }
    }

    #[test]
    fn each_of_two_rejected_credentials_is_tried_once() {
        let kubeconfig = Kubeconfig::new();
        kubeconfig.write("http://api.example.com", "old");
        let old = kubeconfig.recheck();
        kubeconfig.credentials.record_accepted(&old);
        kubeconfig.write("http://api.example.com", "new");
        let new = kubeconfig.replacement_for(&old).unwrap();
        assert!(new.generation > old.generation);
        assert_eq!(kubeconfig.replacement_for(&new).unwrap().generation, old.generation);
        assert!(kubeconfig.replacement_for(&old).is_none());
    }

    #[test]
    fn a_half_written_kubeconfig_may_change_the_token_but_not_the_server_or_its_ca() {
        let ca = rcgen::generate_simple_self_signed([]).unwrap().cert.pem();
        let ca = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, ca);
        // The fields are in the order in which kubectl writes them.
        let kubeconfig = |token: &str| {
            format!(
                "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: {ca}\n    \
                 server: https://10.96.0.1\n  name: c\ncontexts:\n- context:\n    cluster: c\n    namespace: ns\n    \
                 user: u\n  name: x\ncurrent-context: x\nkind: Config\nusers:\n- name: u\n  user:\n    token: {token}\n"
            )
        };
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kubeconfig");
        fs::write(&path, kubeconfig("old")).unwrap();
        let credentials = Credentials::new(ClusterOptions::of_kubeconfig(path.clone()));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let reread = || runtime.block_on(credentials.recheck(None)).unwrap();
        let first = reread();
        let whole = kubeconfig("new");
        let (mut tokens, mut previous) = (Vec::new(), String::new());
        for end in 0..=whole.len() {
            fs::write(&path, &whole[..end]).unwrap();
            let access = reread();
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
