//! How the API server is asked at a time.

use std::fmt;
use std::sync::Arc;

use hyper::header::HeaderValue;
use jiff::{SignedDuration, Timestamp};
use rustls::ClientConfig;

use super::super::connection::ConnectionConfig;

/// The longest time by which a plugin is asked ahead of the end of what it has issued.
const MAX_LEAD: SignedDuration = SignedDuration::from_secs(60);

/// What requests and connections are made with. It never changes; there are newer ones.
#[derive(Clone)]
pub struct Access {
    /// Newer ones have a greater number.
    pub generation: u64,
    pub config: Arc<ConnectionConfig>,
    /// None where the server is asked without TLS.
    pub tls: Option<Arc<ClientConfig>>,
    /// None where the proxy is asked without TLS, or there is none.
    pub proxy_tls: Option<Arc<ClientConfig>>,
    /// The value of the header that says who asks, if a header says so.
    pub authorization: Option<HeaderValue>,
    /// The lifetime of what a plugin has issued, if that is limited.
    pub lifetime: Option<Lifetime>,
}

impl Access {
    /// Returns whether these credentials have expired, as far as is known.
    pub fn has_expired(&self) -> bool {
        self.lifetime.is_some_and(|lifetime| lifetime.expires <= Timestamp::now())
    }

    /// Returns whether it is time to ask for newer ones.
    pub fn is_renewal_due(&self) -> bool {
        self.lifetime.is_some_and(|lifetime| lifetime.renew_at <= Timestamp::now())
    }

    /// Returns whether connections of the other one can be used with this one.
    pub fn shares_connections_with(&self, other: &Self) -> bool {
        match (&self.tls, &other.tls) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        }
    }
}

/// Leaves out the secrets.
impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("generation", &self.generation).finish_non_exhaustive()
    }
}

/// How long credentials last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    pub expires: Timestamp,
    /// When newer ones are asked for: after two thirds of the time that is left, but at most a minute ahead of the end.
    pub renew_at: Timestamp,
}

impl Lifetime {
    /// Returns the lifetime of what was issued now. None where it has expired already: the clocks differ, and only the
    /// API server can tell when it ends.
    pub fn until(expires: Timestamp, now: Timestamp) -> Option<Self> {
        let left = expires.duration_since(now);
        let lead = (left / 3).min(MAX_LEAD);
        left.is_positive().then(|| Self { expires, renew_at: expires - lead })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_is_due_well_ahead_of_the_end() {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let lead = |seconds| {
            let lifetime = Lifetime::until(now + SignedDuration::from_secs(seconds), now)?;
            Some(lifetime.expires.duration_since(lifetime.renew_at).as_secs())
        };
        assert_eq!([3600, 75, 3].map(lead), [Some(60), Some(25), Some(1)]);
        assert_eq!([0, -60].map(lead), [None, None], "a clock that differs");
    }
}
