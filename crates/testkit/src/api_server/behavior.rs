//! The settings of the API server that tests can change: the time between bookmarks, whether the server has read the
//! Roles, the protection of owner references, and a mutating admission policy.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use serde_json::Value;

/// The time between two bookmarks of a real server.
const BOOKMARK_PERIOD: Duration = Duration::from_secs(60);

/// The settings of one API server.
pub struct Behavior {
    state: Mutex<State>,
}

struct State {
    bookmark_period: Duration,
    roles: Roles,
    /// Whether only clients that are allowed to delete an object may change its owners. Patches are not checked.
    protects_owners: bool,
    /// Changes each object that a client creates or updates, before it is written. Patches skip it.
    admission: Option<fn(&mut Value)>,
}

/// The state of the server's Roles and bindings. A real server reads them while it starts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Roles {
    /// The server has read the Roles.
    Known,
    /// The server has not read the Roles. All requests except those of administrators are refused.
    Unknown,
    /// The server reads the Roles only after it has refused this many requests. Requests of administrators are neither
    /// refused nor counted.
    UnknownFor(usize),
}

impl Behavior {
    pub fn new() -> Behavior {
        Behavior {
            state: Mutex::new(State {
                bookmark_period: BOOKMARK_PERIOD,
                roles: Roles::Known,
                protects_owners: false,
                admission: None,
            }),
        }
    }

    pub fn bookmark_period(&self) -> Duration {
        self.state().bookmark_period
    }

    pub fn set_bookmark_period(&self, period: Duration) {
        self.state().bookmark_period = period;
    }

    pub fn set_roles(&self, roles: Roles) {
        self.state().roles = roles;
    }

    pub fn protects_owners(&self) -> bool {
        self.state().protects_owners
    }

    pub fn enable_owner_protection(&self) {
        self.state().protects_owners = true;
    }

    pub fn set_admission(&self, admission: Option<fn(&mut Value)>) {
        self.state().admission = admission;
    }

    /// Applies the admission policy to an object that a client is about to create or update.
    pub fn admit(&self, object: &mut Value) {
        let admission = self.state().admission;
        if let Some(admission) = admission {
            admission(object);
        }
    }

    /// Returns whether the next request must be refused because the server has not read the Roles. This must be called
    /// exactly once for each request that is not an administrator's, because [`Roles::UnknownFor`] counts the calls.
    pub fn take_refusal(&self) -> bool {
        let mut state = self.state();
        match state.roles {
            Roles::Known | Roles::UnknownFor(0) => false,
            Roles::Unknown => true,
            Roles::UnknownFor(requests) => {
                state.roles = Roles::UnknownFor(requests - 1);
                true
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics while it holds this lock")
    }
}
