//! The servers that are reached without a proxy.
//!
//! `NO_PROXY` is parsed as Go's `httpproxy` parses it, but more leniently: spaces separate entries too, and an IPv6
//! address without a port may have brackets. HTTP libraries in Rust parse `NO_PROXY` like curl, which does not support
//! ports and treats a leading dot differently.

use std::net::IpAddr;

use ipnet::IpNet;

/// The servers that are reached without a proxy.
pub struct Exceptions {
    entries: Vec<Exception>,
}

enum Exception {
    All,
    Network(IpNet),
    Address(IpAddr, Option<u16>),
    Domain {
        /// The domain, with a leading dot.
        suffix: String,
        /// Whether the exception includes the domain itself, and not only its subdomains.
        includes_domain: bool,
        port: Option<u16>,
    },
}

impl Exceptions {
    /// Parses the value of `NO_PROXY`. Ignores invalid entries.
    pub fn parse(list: &str) -> Self {
        let entries = list.split([',', ' ', '\t', '\n', '\r']).filter_map(Exception::parse).collect();
        Self { entries }
    }

    /// Returns whether the server at this address is reached without a proxy. `localhost` and loopback addresses always
    /// are.
    pub fn contains(&self, host: &str, port: u16) -> bool {
        let host = host.to_ascii_lowercase();
        let address: Option<IpAddr> = host.parse().ok();
        let address = address.map(|address| address.to_canonical());
        host == "localhost"
            || address.is_some_and(|address| address.is_loopback())
            || self.entries.iter().any(|entry| entry.matches(&host, address, port))
    }
}

impl Exception {
    fn parse(entry: &str) -> Option<Self> {
        let entry = entry.to_lowercase();
        if entry == "*" {
            return Some(Self::All);
        }
        if let Ok(network) = entry.parse() {
            return Some(Self::Network(network));
        }
        if let Ok(address) = entry.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            return Some(Self::Address(address.to_canonical(), None));
        }
        let (host, port) = match entry.rsplit_once(':') {
            Some((host, "")) => (host.trim_start_matches('[').trim_end_matches(']'), None),
            Some((host, port)) => (host.trim_start_matches('[').trim_end_matches(']'), Some(port.parse().ok()?)),
            None => (entry.as_str(), None),
        };
        if let Ok(address) = host.parse::<IpAddr>() {
            return Some(Self::Address(address.to_canonical(), port));
        }
        let host = if host.starts_with("*.") { &host[1..] } else { host };
        match host.strip_prefix('.') {
            _ if host.is_empty() => None,
            Some(_) => Some(Self::Domain { suffix: host.to_owned(), includes_domain: false, port }),
            None => Some(Self::Domain { suffix: format!(".{host}"), includes_domain: true, port }),
        }
    }

    fn matches(&self, host: &str, address: Option<IpAddr>, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::Network(network) => address.is_some_and(|address| network.contains(&address)),
            Self::Address(entry_address, entry_port) => {
                address == Some(*entry_address) && entry_port.is_none_or(|entry_port| entry_port == port)
            }
            Self::Domain { suffix, includes_domain, port: entry_port } => {
                (host.ends_with(suffix.as_str()) || (*includes_domain && *host == suffix[1..]))
                    && entry_port.is_none_or(|entry_port| entry_port == port)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_proxy_is_parsed_as_in_go_but_more_leniently() {
        let (reached_directly, proxied) = (true, false);
        for (list, host, port, expected) in [
            ("", "api.example.com", 443, proxied),
            ("", "localhost", 443, reached_directly),
            ("", "LOCALHOST", 443, reached_directly),
            ("", "127.0.0.5", 443, reached_directly),
            ("", "::1", 443, reached_directly),
            ("", "::ffff:127.0.0.1", 443, reached_directly),
            ("", "my.localhost", 443, proxied),
            ("*", "api.example.com", 443, reached_directly),
            ("a,*", "10.0.0.1", 443, reached_directly),
            ("*.*", "api.example.com", 443, proxied),
            ("api.example.com", "api.example.com", 443, reached_directly),
            ("API.example.COM", "api.EXAMPLE.com", 443, reached_directly),
            ("example.com", "api.example.com", 443, reached_directly),
            ("example.com", "notexample.com", 443, proxied),
            (".example.com", "api.example.com", 443, reached_directly),
            (".example.com", "example.com", 443, proxied),
            ("*.example.com", "api.example.com", 443, reached_directly),
            ("*.example.com", "example.com", 443, proxied),
            ("example.com:6443", "api.example.com", 6443, reached_directly),
            ("example.com:6443", "api.example.com", 443, proxied),
            ("example.com:", "api.example.com", 443, reached_directly),
            ("10.0.0.0/8", "10.1.2.3", 443, reached_directly),
            ("10.0.0.0/8", "11.1.2.3", 443, proxied),
            ("10.0.0.0/8", "::ffff:10.1.2.3", 443, reached_directly),
            ("fd00::/8", "fd12::1", 443, reached_directly),
            ("10.1.2.3", "10.1.2.3", 443, reached_directly),
            ("10.1.2.3:6443", "10.1.2.3", 6443, reached_directly),
            ("10.1.2.3:6443", "10.1.2.3", 443, proxied),
            ("10.1", "10.1.2.3", 443, proxied),
            ("fd12::1", "fd12::1", 443, reached_directly),
            ("fd12:0:0::1", "fd12::1", 443, reached_directly),
            ("[fd12::1]", "fd12::1", 443, reached_directly),
            ("[fd12::1]:6443", "fd12::1", 6443, reached_directly),
            ("[fd12::1]:6443", "fd12::1", 443, proxied),
            ("other, api.example.com ,", "api.example.com", 443, reached_directly),
            ("other api.example.com", "api.example.com", 443, reached_directly),
            (",, ,", "api.example.com", 443, proxied),
            (":443", "api.example.com", 443, proxied),
            ("svc,.cluster.local", "kubernetes.default.svc", 443, reached_directly),
            ("https://api.example.com", "api.example.com", 443, proxied),
        ] {
            assert_eq!(Exceptions::parse(list).contains(host, port), expected, "{list:?} {host} {port}");
        }
    }
}
