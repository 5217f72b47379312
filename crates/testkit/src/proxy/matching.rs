//! The requests that pass the proxy, and which of them a fault is for.

use std::time::Instant;

use hyper::Method;

/// A request as it came to the proxy.
#[derive(Clone, Debug)]
pub struct ReceivedRequest {
    pub method: Method,
    /// The path and the query.
    pub path: String,
    pub when: Instant,
    /// Whose token it bore.
    pub user: Option<&'static str>,
    /// The number of the connection it came by; the first is 0.
    pub connection: usize,
}

impl ReceivedRequest {
    pub fn is_watch(&self) -> bool {
        self.method == Method::GET && self.path.contains("watch=")
    }
}

/// Which requests a fault is for: all of some sort, or the next few of them.
#[derive(Clone, Debug, Default)]
pub struct Match {
    method: Option<Method>,
    watch: Option<bool>,
    path: String,
    user: Option<String>,
    left: Option<usize>,
}

impl Match {
    /// Every request.
    pub fn any() -> Match {
        Match::default()
    }

    /// Requests of that method.
    pub fn method(method: Method) -> Match {
        Match { method: Some(method), ..Match::any() }
    }

    /// Updates and creations by name.
    pub fn put() -> Match {
        Match::method(Method::PUT)
    }

    /// Reads, but no watches.
    pub fn get() -> Match {
        Match { watch: Some(false), ..Match::method(Method::GET) }
    }

    /// Watches.
    pub fn watch() -> Match {
        Match { watch: Some(true), ..Match::any() }
    }

    /// Of these only the ones whose path or query has this in it.
    pub fn on(self, path: &str) -> Match {
        let path = path.to_owned();
        Match { path, ..self }
    }

    /// Of these only the ones of that user.
    pub fn of(self, user: &str) -> Match {
        let user = Some(user.to_owned());
        Match { user, ..self }
    }

    /// Of these only the next `count`.
    pub fn next(self, count: usize) -> Match {
        let left = Some(count);
        Match { left, ..self }
    }

    /// Whether the request is of that sort, however many are left.
    pub fn covers(&self, request: &ReceivedRequest) -> bool {
        (self.method.as_ref()).is_none_or(|method| *method == request.method)
            && self.watch.is_none_or(|watch| watch == request.is_watch())
            && request.path.contains(&self.path)
            && (self.user.as_deref()).is_none_or(|user| request.user == Some(user))
    }

    /// Whether the request is one of these; counts it if so.
    pub fn take(&mut self, request: &ReceivedRequest) -> bool {
        if !self.covers(request) {
            return false;
        }
        match &mut self.left {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }
}
