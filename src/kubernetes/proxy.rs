//! Proxies between leaderrun and the API server. The rules are those of Go's `net/http`.

mod exceptions;

use std::{env, fmt};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::Uri;
use hyper::header::{HeaderValue, InvalidHeaderValue};
use hyper::http::uri::{Authority, Scheme};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use self::exceptions::Exceptions;

/// A proxy between leaderrun and the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    pub protocol: ProxyProtocol,
    pub host: String,
    pub port: u16,
    /// A user name and a password.
    pub credentials: Option<(String, String)>,
    pub origin: ProxyOrigin,
}

/// The protocol of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    Http,
    Https,
    Socks5,
}

/// The setting that names a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyOrigin {
    /// `proxy-url` in the kubeconfig.
    Kubeconfig,
    /// The environment variable with this name.
    Variable(&'static str),
}

impl Proxy {
    /// Parses the address of a proxy. The default scheme is `http`.
    ///
    /// # Errors
    /// Fails if the address is invalid. The error is the reason, without the user name and the password.
    pub fn parse(url: &str, origin: ProxyOrigin) -> Result<Self, String> {
        let (scheme, rest) = url.trim().split_once("://").unwrap_or(("http", url.trim()));
        let (protocol, default_port) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (ProxyProtocol::Http, 80),
            "https" => (ProxyProtocol::Https, 443),
            // As in Go, the proxy resolves names with either scheme.
            "socks5" | "socks5h" => (ProxyProtocol::Socks5, 1080),
            other => return Err(format!("unknown proxy scheme {other:?}; use http, https or socks5")),
        };
        let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
        let (credentials, address) = match authority.rsplit_once('@') {
            Some((credentials, address)) => (Some(credentials), address),
            None => (None, authority),
        };
        let credentials = credentials.map(|credentials| {
            let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
            let decoded = |text| percent_decode_str(text).decode_utf8_lossy().into_owned();
            (decoded(user), decoded(password))
        });
        let (host, port) = match address.rsplit_once(':') {
            // The colon is part of an IPv6 address without a port.
            Some((_, port)) if port.contains(']') => (address, ""),
            Some((host, port)) => (host, port),
            None => (address, ""),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err("the address has no host".to_owned());
        }
        if address.parse::<Authority>().is_err() {
            return Err(format!("{address:?} is not a valid host and port"));
        }
        let port = match port {
            "" => default_port,
            port => port.parse().map_err(|_| format!("{port:?} is not a port number"))?,
        };
        Ok(Self { protocol, host: host.to_owned(), port, credentials, origin })
    }

    /// Returns the address without the user name and the password.
    pub fn address(&self) -> String {
        let Self { protocol, host, port, .. } = self;
        let scheme = match protocol {
            ProxyProtocol::Http => "http",
            ProxyProtocol::Https => "https",
            ProxyProtocol::Socks5 => "socks5",
        };
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        format!("{scheme}://{host}:{port}")
    }

    /// Returns whether this proxy forwards each request to the server instead of opening a tunnel. As in Go, HTTP
    /// proxies do this for servers without TLS.
    pub fn forwards(&self, server: &Uri) -> bool {
        self.protocol != ProxyProtocol::Socks5 && server.scheme() == Some(&Scheme::HTTP)
    }

    /// Returns the header that authenticates the user to an HTTP proxy, if there are credentials.
    ///
    /// # Errors
    /// Fails if the credentials contain a character that a header cannot contain.
    pub fn authorization(&self) -> Result<Option<HeaderValue>, InvalidHeaderValue> {
        let Some((user, password)) = &self.credentials else { return Ok(None) };
        let encoded = BASE64_STANDARD.encode(format!("{user}:{password}"));
        let mut header = HeaderValue::try_from(format!("Basic {encoded}"))?;
        header.set_sensitive(true);
        Ok(Some(header))
    }

    /// Returns the address with the user name and the password, for programs that use the proxy.
    pub fn url(&self) -> String {
        let address = self.address();
        let Some((user, password)) = &self.credentials else { return address };
        let encoded = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
        address.replacen("://", &format!("://{}:{}@", encoded(user), encoded(password)), 1)
    }

    /// Returns the proxy that the environment names for a server.
    ///
    /// # Errors
    /// Fails if the environment names a proxy that cannot be used.
    pub fn from_environment(server: &Uri) -> Result<Option<Self>, String> {
        Self::from_variables(server, |name| env::var(name).ok())
    }

    fn from_variables(server: &Uri, variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, String> {
        let first_set =
            |names: [&'static str; 2]| names.into_iter().find_map(|name| Some((name, unless_empty(variable(name))?)));
        let is_https = server.scheme() == Some(&Scheme::HTTPS);
        let names = if is_https { ["HTTPS_PROXY", "https_proxy"] } else { ["HTTP_PROXY", "http_proxy"] };
        let Some((name, url)) = first_set(names) else { return Ok(None) };
        let (_, exceptions) = first_set(["NO_PROXY", "no_proxy"]).unwrap_or_default();
        let host = server.host().unwrap_or_default().trim_matches(['[', ']']);
        let port = server.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        if Exceptions::parse(&exceptions).contains(host, port) {
            return Ok(None);
        }
        let proxy = Self::parse(&url, ProxyOrigin::Variable(name));
        proxy.map(Some).map_err(|reason| format!("the environment variable {name} cannot be used: {reason}"))
    }
}

fn unless_empty(value: Option<String>) -> Option<String> {
    value.filter(|value| !value.is_empty())
}

/// Writes the name of the setting.
impl fmt::Display for ProxyOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kubeconfig => "proxy-url",
            Self::Variable(name) => name,
        })
    }
}

/// Writes the address and the name of the setting, without the user name and the password.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.address(), self.origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxy_addresses_are_parsed_as_in_go() {
        let parsed = |url| {
            let proxy = Proxy::parse(url, ProxyOrigin::Kubeconfig)?;
            Ok::<_, String>((proxy.protocol, proxy.host, proxy.port, proxy.credentials))
        };
        let credentials = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        for (url, expected) in [
            ("http://proxy", (ProxyProtocol::Http, "proxy".to_owned(), 80, None)),
            ("proxy:3128", (ProxyProtocol::Http, "proxy".to_owned(), 3128, None)),
            (" proxy ", (ProxyProtocol::Http, "proxy".to_owned(), 80, None)),
            ("HTTPS://proxy/path", (ProxyProtocol::Https, "proxy".to_owned(), 443, None)),
            ("socks5://proxy", (ProxyProtocol::Socks5, "proxy".to_owned(), 1080, None)),
            ("socks5h://[::1]", (ProxyProtocol::Socks5, "::1".to_owned(), 1080, None)),
            ("http://[::1]:8080/", (ProxyProtocol::Http, "::1".to_owned(), 8080, None)),
            ("http://me@proxy:8", (ProxyProtocol::Http, "proxy".to_owned(), 8, credentials("me", ""))),
            ("http://me:p%40%3Ass@proxy", (ProxyProtocol::Http, "proxy".to_owned(), 80, credentials("me", "p@:ss"))),
        ] {
            assert_eq!(parsed(url), Ok(expected), "{url}");
        }
        let with_password = Proxy::parse("http://me:p%40%3Ass@proxy", ProxyOrigin::Kubeconfig).unwrap();
        assert_eq!(with_password.url(), "http://me:p%40%3Ass@proxy:80");
        assert_eq!(with_password.address(), "http://proxy:80");
        for url in ["", "http://", "ftp://proxy", "http://proxy:port", "http://:8080", "http://[::1", "http:// proxy"] {
            assert!(parsed(url).is_err(), "{url}");
        }
    }

    #[test]
    fn the_environment_variables_name_a_proxy_for_each_scheme() {
        let proxy = |server: &'static str, variables: &[(&str, &str)]| {
            let variable = |name: &str| {
                let (_, value) = variables.iter().find(|(known, _)| *known == name)?;
                Some((*value).to_owned())
            };
            let proxy = Proxy::from_variables(&Uri::from_static(server), variable).expect("the variables are valid");
            proxy.map(|proxy| proxy.host)
        };
        let both = [("HTTPS_PROXY", "s"), ("HTTP_PROXY", "h")];
        assert_eq!(proxy("https://host", &both).as_deref(), Some("s"));
        assert_eq!(proxy("http://host", &both).as_deref(), Some("h"));
        assert_eq!(proxy("https://host", &both[1..]), None);
        assert_eq!(proxy("https://host", &[("https_proxy", "low"), ("HTTPS_PROXY", "")]).as_deref(), Some("low"));
        // Go does not read ALL_PROXY.
        assert_eq!(proxy("https://host", &[("ALL_PROXY", "all")]), None);
        assert_eq!(proxy("https://host", &[("HTTPS_PROXY", "s"), ("no_proxy", "host")]), None);
        assert_eq!(proxy("https://localhost:6443", &both), None);
    }
}
