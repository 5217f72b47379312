//! The earlier credentials that are used while newer ones are rejected.
//!
//! A file may be replaced by a program that empties it, waits, and then writes it. What is read in between may look like
//! credentials: the first half of a token, or a certificate without the authorities after it. The server rejects them,
//! and still accepts the ones from before.

use std::sync::{Arc, Mutex, MutexGuard};

use super::super::log_events;
use super::access::Access;

/// The credentials that were accepted last, and those that are of no use.
#[derive(Default)]
pub struct Fallback(Mutex<State>);

#[derive(Default)]
struct State {
    /// The credentials of the last request that the server has accepted.
    accepted: Option<Arc<Access>>,
    /// The generation of newer credentials that are of no use.
    useless: Option<u64>,
    /// The generation that was last logged as useless.
    logged: Option<u64>,
}

impl Fallback {
    /// Returns these credentials, or earlier ones if these are of no use.
    pub fn choose(&self, newest: Arc<Access>) -> Arc<Access> {
        let state = self.state();
        let accepted = state.accepted.as_ref().filter(|_| state.useless == Some(newest.generation));
        match accepted {
            Some(accepted) if accepted.can_replace(&newest) => Arc::clone(accepted),
            _ => newest,
        }
    }

    /// Records that the server has accepted a request with these credentials.
    pub fn accepted(&self, access: &Arc<Access>) {
        self.state().accepted = Some(Arc::clone(access));
    }

    /// Records that the server has rejected these credentials, and returns earlier ones that it may still accept.
    pub fn rejected(&self, access: &Access) -> Option<Arc<Access>> {
        let mut state = self.state();
        let reason = format!("the API server rejects {}", access.config.user);
        let earlier = state.earlier_than(access, &reason);
        if earlier.is_none() {
            (state.accepted, state.useless) = (None, None);
        }
        earlier
    }

    /// Records that a request with these credentials failed, for a reason that may be the credentials. A request that
    /// only takes long is no reason: other credentials may need another connection, which would take as long.
    pub fn unanswered(&self, access: &Access, failure: &str) {
        let mut state = self.state();
        if state.earlier_than(access, failure).is_none() {
            // Perhaps the newer ones are useful by now.
            state.useless = None;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics while it is held")
    }
}

impl State {
    /// Returns earlier credentials that can replace these, which are noted as useless then.
    fn earlier_than(&mut self, access: &Access, reason: &str) -> Option<Arc<Access>> {
        let accepted = self.accepted.clone();
        let earlier =
            accepted.filter(|accepted| accepted.generation < access.generation && accepted.can_replace(access))?;
        self.useless = Some(access.generation);
        if self.logged.replace(access.generation) != Some(access.generation) {
            log_events::credentials_not_renewed(reason);
        }
        Some(earlier)
    }
}

#[cfg(test)]
mod tests {
    use hyper::Uri;

    use super::super::super::connection::{ConfigOrigin, ConnectionConfig, TlsOptions, UserOptions};
    use super::*;

    fn access(generation: u64, authority: &str) -> Arc<Access> {
        let config = ConnectionConfig {
            server: Uri::from_static("https://10.96.0.1"),
            tls: TlsOptions::default(),
            proxy: None,
            user: UserOptions::default(),
            namespace: "default".to_owned(),
            origin: ConfigOrigin::ServiceAccount,
        };
        Arc::new(Access {
            generation,
            config: Arc::new(config),
            tls: None,
            authority: Some(authority.as_bytes().to_vec()),
            identity: None,
            proxy_tls: None,
            authorization: None,
            lifetime: None,
        })
    }

    fn chosen(fallback: &Fallback, newest: u64) -> u64 {
        fallback.choose(access(newest, "a")).generation
    }

    #[test]
    fn earlier_credentials_are_used_until_there_are_others_or_they_are_rejected() {
        let fallback = Fallback::default();
        assert!(fallback.rejected(&access(1, "a")).is_none());
        fallback.accepted(&access(1, "a"));
        assert_eq!(chosen(&fallback, 2), 2);
        assert_eq!(fallback.rejected(&access(2, "a")).map(|earlier| earlier.generation), Some(1));
        assert_eq!((chosen(&fallback, 2), chosen(&fallback, 3)), (1, 3));
        assert!(fallback.rejected(&access(1, "a")).is_none());
        assert_eq!(chosen(&fallback, 2), 2);
    }

    #[test]
    fn requests_that_fail_use_both_in_turn() {
        let fallback = Fallback::default();
        fallback.accepted(&access(1, "a"));
        for expected in [1, 2, 1] {
            fallback.unanswered(&fallback.choose(access(2, "a")), "refused");
            assert_eq!(chosen(&fallback, 2), expected);
        }
        fallback.accepted(&access(2, "a"));
        fallback.unanswered(&access(2, "a"), "refused");
        assert_eq!(chosen(&fallback, 2), 2);
    }

    #[test]
    fn a_server_that_is_no_longer_trusted_is_not_reached_by_earlier_credentials() {
        let fallback = Fallback::default();
        fallback.accepted(&access(1, "another authority"));
        assert!(fallback.rejected(&access(2, "a")).is_none());
        fallback.accepted(&access(1, "another authority"));
        fallback.unanswered(&access(2, "a"), "refused");
        assert_eq!(chosen(&fallback, 2), 2);
    }
}
