//! The requests that a proxy receives, and the conditions under which a fault applies to them.

use std::time::Instant;

use hyper::Method;

/// A request that a proxy received.
#[derive(Clone, Debug)]
pub struct ReceivedRequest {
    pub method: Method,
    /// The path and the query.
    pub path: String,
    pub received_at: Instant,
    /// The test user whose token the request carries; `None` if it carries no test user's token.
    pub user: Option<&'static str>,
    /// The number of the connection, counted from 0.
    pub connection: usize,
}

impl ReceivedRequest {
    pub fn is_watch(&self) -> bool {
        self.method == Method::GET && self.path.contains("watch=")
    }
}

/// A condition that selects the requests to which a fault applies. It may be limited to the next few requests.
#[derive(Clone, Debug, Default)]
pub struct Match {
    method: Option<Method>,
    /// `true` to select only watches, `false` to select everything else, `None` to select both.
    watch: Option<bool>,
    /// A part of the path or query; empty to select every path.
    path: String,
    user: Option<String>,
    /// The number of requests that the condition may still match; `None` if it is not limited.
    remaining: Option<usize>,
}

impl Match {
    /// Matches every request.
    pub fn any() -> Match {
        Match::default()
    }

    /// Matches requests with this method.
    pub fn method(method: Method) -> Match {
        Match { method: Some(method), ..Match::any() }
    }

    /// Matches PUT requests: updates, and creations by name.
    pub fn put() -> Match {
        Match::method(Method::PUT)
    }

    /// Matches reads that are not watches.
    pub fn get() -> Match {
        Match { watch: Some(false), ..Match::method(Method::GET) }
    }

    /// Matches watches.
    pub fn watch() -> Match {
        Match { watch: Some(true), ..Match::any() }
    }

    /// Matches only requests whose path or query contains this text.
    pub fn on(self, path: &str) -> Match {
        let path = path.to_owned();
        Match { path, ..self }
    }

    /// Matches only requests by this user.
    pub fn by_user(self, user: &str) -> Match {
        let user = Some(user.to_owned());
        Match { user, ..self }
    }

    /// Matches only the next `count` of these requests.
    pub fn next(self, count: usize) -> Match {
        Match { remaining: Some(count), ..self }
    }

    /// Returns whether the request meets the condition, regardless of the limit.
    pub fn covers(&self, request: &ReceivedRequest) -> bool {
        (self.method.as_ref()).is_none_or(|method| *method == request.method)
            && self.watch.is_none_or(|watch| watch == request.is_watch())
            && request.path.contains(&self.path)
            && (self.user.as_deref()).is_none_or(|user| request.user == Some(user))
    }

    /// Returns whether the request matches. If it does, counts it towards the limit.
    pub fn count_match(&mut self, request: &ReceivedRequest) -> bool {
        if !self.covers(request) {
            return false;
        }
        match &mut self.remaining {
            None => true,
            Some(0) => false,
            Some(remaining) => {
                *remaining -= 1;
                true
            }
        }
    }
}
