//! One version of the credentials, with everything that requests and connections need.

use std::fmt;
use std::sync::Arc;

use hyper::header::HeaderValue;
use jiff::{SignedDuration, Timestamp};
use rustls::ClientConfig;

use super::super::connection::ConnectionConfig;
#[cfg(test)]
use super::super::connection::{ConfigOrigin, TlsOptions, UserOptions};

/// A plugin is run again at most this long before its credentials expire.
const MAX_LEAD_TIME: SignedDuration = SignedDuration::from_secs(60);

/// One version of the credentials, with the server, proxy and TLS configurations that they are used with. It is never
/// changed, only replaced by a newer one.
#[derive(Clone)]
pub struct Access {
    /// The number of these credentials. Newer credentials have a greater number, unless they differ from the previous
    /// ones only in their lifetime.
    pub generation: u64,
    pub config: Arc<ConnectionConfig>,
    /// The TLS configuration for the server; `None` for a server without TLS.
    pub tls: Option<Arc<ClientConfig>>,
    /// The trusted certificates, as PEM; `None` for those of the system.
    pub authority: Option<Vec<u8>>,
    /// The client certificate that connections present, as PEM.
    pub identity: Option<Vec<u8>>,
    /// The TLS configuration for the proxy; `None` without a proxy, or for a proxy without TLS.
    pub proxy_tls: Option<Arc<ClientConfig>>,
    /// The value of the `Authorization` header, if there is one.
    pub authorization: Option<HeaderValue>,
    /// The lifetime of credentials from a plugin, if it is limited.
    pub lifetime: Option<Lifetime>,
}

impl Access {
    /// Returns credentials for tests in which their values do not matter.
    #[cfg(test)]
    pub fn example() -> Self {
        let config = ConnectionConfig {
            server: hyper::Uri::from_static("https://10.96.0.1"),
            tls: TlsOptions::default(),
            proxy: None,
            user: UserOptions::default(),
            namespace: "default".to_owned(),
            origin: ConfigOrigin::ServiceAccount,
        };
        Self {
            generation: 1,
            config: Arc::new(config),
            tls: None,
            authority: None,
            identity: None,
            proxy_tls: None,
            authorization: None,
            lifetime: None,
        }
    }

    /// Returns whether these credentials are known to have expired.
    pub fn has_expired(&self) -> bool {
        self.lifetime.is_some_and(|lifetime| lifetime.expires <= Timestamp::now())
    }

    /// Returns whether it is time to obtain newer credentials.
    pub fn is_renewal_due(&self) -> bool {
        self.lifetime.is_some_and(|lifetime| lifetime.renew_at <= Timestamp::now())
    }

    /// Returns whether connections that were opened with the other credentials can be used with these, because both
    /// have the same client certificate.
    ///
    /// As in client-go, the trusted authorities may differ. An open connection still works, while a new connection may
    /// fail because the server does not use its new certificate yet.
    pub fn shares_connections_with(&self, other: &Self) -> bool {
        self.tls.is_some() == other.tls.is_some() && self.identity == other.identity
    }

    /// Returns whether these older credentials can be used instead of `newer`. They cannot if they have expired, or if
    /// the trusted authorities or the TLS options have changed since: a server that is no longer trusted must not be
    /// reached.
    pub fn can_replace(&self, newer: &Self) -> bool {
        !self.has_expired() && self.config.tls == newer.config.tls && self.authority == newer.authority
    }

    /// Returns these credentials with the proxy of `other`, if the proxies differ and the server has TLS. Without TLS,
    /// the other proxy could read the credentials. If the kubeconfig is half written, its proxy address may be wrong,
    /// while the other proxy still works.
    pub fn with_proxy_of(&self, other: &Self) -> Option<Self> {
        let differs = self.tls.is_some() && self.config.proxy != other.config.proxy;
        let config = || ConnectionConfig { proxy: other.config.proxy.clone(), ..ConnectionConfig::clone(&self.config) };
        differs.then(|| {
            let proxy_tls = other.proxy_tls.clone();
            Self { config: Arc::new(config()), proxy_tls, ..self.clone() }
        })
    }

    /// Returns whether both credentials have the same TLS configuration for new connections.
    pub fn has_same_tls(&self, other: &Self) -> bool {
        match (&self.tls, &other.tls) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        }
    }
}

/// Formats the credentials without secrets.
impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("generation", &self.generation).finish_non_exhaustive()
    }
}

/// The time until which credentials are valid, and when to renew them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    pub expires: Timestamp,
    /// The time at which newer credentials are requested: a third of the lifetime before the expiry, but at most a
    /// minute before it.
    pub renew_at: Timestamp,
}

impl Lifetime {
    /// Returns the lifetime of credentials that were issued at `now`. Returns `None` if they seem to have expired
    /// already: the clocks probably differ, so only the API server knows when the credentials expire.
    pub fn until(expires: Timestamp, now: Timestamp) -> Option<Self> {
        let left = expires.duration_since(now);
        let lead_time = (left / 3).min(MAX_LEAD_TIME);
        left.is_positive().then(|| Self { expires, renew_at: expires - lead_time })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_is_due_well_before_the_expiry() {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let lead_time = |seconds| {
            let lifetime = Lifetime::until(now + SignedDuration::from_secs(seconds), now)?;
            Some(lifetime.expires.duration_since(lifetime.renew_at).as_secs())
        };
        assert_eq!([3600, 75, 3].map(lead_time), [Some(60), Some(25), Some(1)]);
        assert_eq!([0, -60].map(lead_time), [None, None], "the clocks differ");
    }
}
