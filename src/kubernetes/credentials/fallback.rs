//! Earlier credentials, which are used while the newest credentials do not work.
//!
//! Some programs replace a file by emptying it and writing it slowly. If the file is read before the write is complete,
//! its contents may look valid, for example the first half of a token, or a certificate without its intermediate
//! certificates. The server rejects such credentials, but still accepts the earlier ones.

use std::sync::{Arc, Mutex, MutexGuard};

use super::super::log_events;
use super::access::Access;

/// Keeps the credentials that the server accepted last, and notes which newer credentials do not work.
#[derive(Default)]
pub struct Fallback(Mutex<State>);

#[derive(Default)]
struct State {
    /// The credentials of the last request that the server accepted.
    accepted: Option<Arc<Access>>,
    /// The generation (see [`Access`]) of the newest credentials, while the accepted ones are used in their place.
    replaced_generation: Option<u64>,
    /// The failure that was logged last, until the credentials of its generation or newer ones are accepted.
    logged: Option<LoggedFailure>,
}

struct LoggedFailure {
    generation: u64,
    reason: String,
}

impl Fallback {
    /// Returns `newest`, or earlier credentials if `newest` does not work.
    pub fn choose(&self, newest: Arc<Access>) -> Arc<Access> {
        let state = self.state();
        let accepted = state.accepted.as_ref().filter(|_| state.replaced_generation == Some(newest.generation));
        match accepted {
            Some(accepted) if accepted.can_replace(&newest) => Arc::clone(accepted),
            _ => newest,
        }
    }

    /// Returns whether earlier credentials are used in place of `newest`, because the server rejected `newest` or a
    /// request with it failed.
    pub fn is_replaced(&self, newest: &Access) -> bool {
        self.state().replaced_generation == Some(newest.generation)
    }

    /// Records that the server has accepted a request with these credentials.
    pub fn record_accepted(&self, access: &Arc<Access>) {
        let mut state = self.state();
        state.logged.take_if(|logged| logged.generation <= access.generation);
        state.accepted = Some(Arc::clone(access));
    }

    /// Records that the server has rejected these credentials. Returns earlier credentials that it may still accept. If
    /// there are none, the newest credentials are tried again.
    pub fn fall_back_after_rejection(&self, access: &Access) -> Option<Arc<Access>> {
        let mut state = self.state();
        let reason = format!("the API server rejects {}", access.config.user);
        let earlier = state.fall_back_from(access, &reason);
        if earlier.is_none() {
            (state.accepted, state.replaced_generation) = (None, None);
        }
        earlier
    }

    /// Records that a request with these credentials failed, perhaps because of the credentials. This must not be
    /// called for a request that is only slow: other credentials may need a new connection, which would be just as
    /// slow.
    pub fn record_failed_request(&self, access: &Access, failure: &str) {
        let mut state = self.state();
        if state.fall_back_from(access, failure).is_none() {
            // There is nothing to fall back to, or the earlier credentials have failed: the newest ones are tried
            // again.
            state.replaced_generation = None;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no thread panics while it holds this lock")
    }
}

impl State {
    /// Returns earlier credentials that can replace `access`, if there are any. If so, this records that `access` does
    /// not work, and logs it if the failure is new.
    fn fall_back_from(&mut self, access: &Access, reason: &str) -> Option<Arc<Access>> {
        let accepted = self.accepted.clone();
        let earlier =
            accepted.filter(|accepted| accepted.generation < access.generation && accepted.can_replace(access))?;
        self.replaced_generation = Some(access.generation);
        self.log_failure(access.generation, reason);
        Some(earlier)
    }

    /// Logs that the credentials of a generation do not work, unless the failure that was logged last has the same
    /// generation or the same reason: a plugin may keep issuing credentials that do not work. Returns whether the
    /// failure was logged.
    fn log_failure(&mut self, generation: u64, reason: &str) -> bool {
        let is_repeated =
            self.logged.as_ref().is_some_and(|logged| logged.generation == generation || logged.reason == reason);
        if !is_repeated {
            self.logged = Some(LoggedFailure { generation, reason: reason.to_owned() });
            log_events::credentials_not_renewed(reason);
        }
        !is_repeated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(generation: u64, authority: &str) -> Arc<Access> {
        Arc::new(Access { generation, authority: Some(authority.as_bytes().to_vec()), ..Access::example() })
    }

    fn chosen(fallback: &Fallback, newest: u64) -> u64 {
        fallback.choose(access(newest, "a")).generation
    }

    #[test]
    fn earlier_credentials_are_used_until_they_are_rejected_too_or_newer_ones_exist() {
        let fallback = Fallback::default();
        assert!(fallback.fall_back_after_rejection(&access(1, "a")).is_none());
        fallback.record_accepted(&access(1, "a"));
        assert_eq!(chosen(&fallback, 2), 2);
        assert_eq!(fallback.fall_back_after_rejection(&access(2, "a")).map(|earlier| earlier.generation), Some(1));
        assert_eq!((chosen(&fallback, 2), chosen(&fallback, 3)), (1, 3));
        assert!(fallback.fall_back_after_rejection(&access(1, "a")).is_none());
        assert_eq!(chosen(&fallback, 2), 2);
    }

    #[test]
    fn after_each_failed_request_the_other_credentials_are_tried() {
        let fallback = Fallback::default();
        fallback.record_accepted(&access(1, "a"));
        for expected in [1, 2, 1] {
            fallback.record_failed_request(&fallback.choose(access(2, "a")), "refused");
            assert_eq!(chosen(&fallback, 2), expected);
        }
        fallback.record_accepted(&access(2, "a"));
        fallback.record_failed_request(&access(2, "a"), "refused");
        assert_eq!(chosen(&fallback, 2), 2);
    }

    #[test]
    fn a_reason_is_not_logged_again_until_newer_credentials_are_accepted() {
        let fallback = Fallback::default();
        fallback.record_accepted(&access(1, "a"));
        let is_logged = |generation, reason| fallback.state().log_failure(generation, reason);
        assert!(is_logged(2, "rejected"));
        assert!(!is_logged(2, "refused") && !is_logged(3, "rejected") && is_logged(3, "refused"));
        fallback.record_accepted(&access(1, "a"));
        assert!(!is_logged(4, "refused"));
        fallback.record_accepted(&access(4, "a"));
        assert!(is_logged(5, "refused"));
    }

    #[test]
    fn earlier_credentials_with_another_certificate_authority_are_not_used() {
        let fallback = Fallback::default();
        fallback.record_accepted(&access(1, "another authority"));
        assert!(fallback.fall_back_after_rejection(&access(2, "a")).is_none());
        fallback.record_accepted(&access(1, "another authority"));
        fallback.record_failed_request(&access(2, "a"), "refused");
        assert_eq!(chosen(&fallback, 2), 2);
    }
}
