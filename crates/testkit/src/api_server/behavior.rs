//! The settings of the API server that tests change: bookmarks, the state of Roles during a start, the protection of
//! owners, and the changes that admission makes to objects.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use serde_json::Value;

/// The interval at which a real server sends bookmarks.
const BOOKMARK_PERIOD: Duration = Duration::from_secs(60);

/// The settings of one API server.
pub struct Behavior {
    state: Mutex<State>,
}

struct State {
    bookmark_period: Duration,
    roles: Roles,
    /// `true` if a client that changes the owners of an object must be allowed to delete the object.
    protects_owners: bool,
    /// The change that admission makes to each object before it is written.
    admission: Option<fn(&mut Value)>,
}

/// The state of the stored Roles and bindings while the server starts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Roles {
    /// The server has read the Roles.
    Known,
    /// All requests except those of administrators are refused.
    Unknown,
    /// The next requests are refused, up to this number. Requests of administrators are neither refused nor counted.
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

    pub fn protect_owners(&self) {
        self.state().protects_owners = true;
    }

    pub fn set_admission(&self, admission: Option<fn(&mut Value)>) {
        self.state().admission = admission;
    }

    /// Changes an object that is about to be written.
    pub fn admit(&self, object: &mut Value) {
        if let Some(admission) = self.state().admission {
            admission(object);
        }
    }

    /// Counts a request whose authorization depends on Roles. Returns whether the server has read the Roles.
    pub fn count_request_for_roles(&self) -> bool {
        let mut state = self.state();
        match state.roles {
            Roles::Known | Roles::UnknownFor(0) => true,
            Roles::Unknown => false,
            Roles::UnknownFor(requests) => {
                state.roles = Roles::UnknownFor(requests - 1);
                false
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("the behavior of the API server")
    }
}
