//! Opens connections to the API server.

use std::error::Error;
use std::future::ready;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use humantime::format_duration;
use hyper::Uri;
use hyper_util::client::legacy::connect::proxy::SocksV5;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tower::{ServiceExt, service_fn};

use super::super::credentials::Access;
use super::super::proxy::{Proxy, ProxyProtocol};
use super::super::tls::{Peer, failure_reason};
use super::connection::Connection;
use super::resolver::Resolver;
use super::{tcp, tunnel};

/// The reason why a connection could not be opened. The request was not sent.
#[derive(Clone, Debug)]
pub struct ConnectError(String);

impl ConnectError {
    /// Returns the error for a connection that could not be opened within this time.
    pub fn timed_out(access: &Access, after: Duration) -> Self {
        Self(format!("cannot connect to {}: timed out after {}", target(access), format_duration(after)))
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for ConnectError {}

/// Connects to the API server, through the proxy if there is one. The first `skip` addresses of the server (or of the
/// proxy, if there is one) are tried last, because earlier connections to them did not work.
///
/// # Errors
/// Fails if the server or the proxy cannot be reached, if the proxy refuses to connect, or if a TLS handshake fails.
pub async fn connect(access: Arc<Access>, resolver: Resolver, skip: usize) -> Result<Connection, ConnectError> {
    let connected = try_connect(&access, &resolver, skip).await;
    connected.map_err(|reason| ConnectError(format!("cannot connect to {}: {reason}", target(&access))))
}

async fn try_connect(access: &Arc<Access>, resolver: &Resolver, skip: usize) -> Result<Connection, String> {
    let server = &access.config.server;
    let Some(proxy) = &access.config.proxy else {
        let host = server.host().unwrap_or_default();
        let stream = tcp::connect(resolver, host, access.config.port(), skip)
            .await
            .map_err(|failure| server_failure(&failure))?;
        return start_http(stream, access).await;
    };
    let connected = tcp::connect(resolver, &proxy.host, proxy.port, skip).await;
    let stream = connected.map_err(|failure| failure_reason(&failure, Peer::Proxy))?;
    match proxy.protocol {
        ProxyProtocol::Http => connect_through(stream, proxy, access).await,
        ProxyProtocol::Https => {
            let tls = access.proxy_tls.as_ref().expect("credentials with an HTTPS proxy contain its TLS configuration");
            let name = certificate_name(&proxy.host, access.config.tls.insecure)?;
            let encrypted = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await;
            let encrypted = encrypted.map_err(|failure| failure_reason(&failure, Peer::Proxy))?;
            connect_through(encrypted, proxy, access).await
        }
        ProxyProtocol::Socks5 => {
            // SocksV5 opens its connections with a service. This service returns the stream that is already open.
            let mut stream = Some(TokioIo::new(stream));
            let connector = service_fn(move |_: Uri| {
                ready(stream.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)))
            });
            let mut socks = SocksV5::new(Uri::from_static("socks5://proxy"), connector);
            if let Some((user, password)) = &proxy.credentials {
                socks = socks.with_auth(user.clone(), password.clone());
            }
            let stream = socks.oneshot(server.clone()).await;
            let stream = stream.map_err(|failure| failure_reason(&failure, Peer::Proxy))?;
            start_http(stream.into_inner(), access).await
        }
    }
}

fn server_failure(failure: &(dyn Error + 'static)) -> String {
    failure_reason(failure, Peer::Server)
}

/// Connects through an HTTP proxy. The proxy opens a tunnel to a server with TLS, and forwards the requests for a
/// server without TLS.
async fn connect_through<S>(mut stream: S, proxy: &Proxy, access: &Arc<Access>) -> Result<Connection, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let server = &access.config.server;
    if !proxy.forwards(server) {
        tunnel::open(&mut stream, proxy, server).await.map_err(|failure| failure_reason(&failure, Peer::Proxy))?;
    }
    start_http(stream, access).await
}

/// Encrypts the stream if the server uses TLS, and starts HTTP on it.
async fn start_http<S>(stream: S, access: &Arc<Access>) -> Result<Connection, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let handshaken = match &access.tls {
        None => Connection::handshake(TokioIo::new(stream), Arc::clone(access)).await,
        Some(tls) => {
            let config = &access.config;
            let host = config.server.host().unwrap_or_default();
            let name = certificate_name(config.tls.server_name.as_deref().unwrap_or(host), config.tls.insecure)?;
            let encrypted = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await;
            let encrypted = encrypted.map_err(|failure| server_failure(&failure))?;
            Connection::handshake(TokioIo::new(encrypted), Arc::clone(access)).await
        }
    };
    handshaken.map_err(|failure| server_failure(&failure))
}

/// Returns the name that the certificate must contain. As in Go, brackets around an address and its zone are ignored,
/// and an IPv4-mapped IPv6 address counts as the IPv4 address. If `insecure`, every `name` is accepted, because the
/// certificate is not verified.
fn certificate_name(name: &str, insecure: bool) -> Result<ServerName<'static>, String> {
    let unbracketed = name.trim_matches(['[', ']']);
    let address =
        tcp::split_zone(unbracketed).map_or_else(|| unbracketed.parse().ok(), |(address, _)| Some(address.into()));
    if let Some(address) = address {
        return Ok(ServerName::from(IpAddr::to_canonical(&address)));
    }
    match ServerName::try_from(name.to_owned()) {
        Ok(name) => Ok(name),
        // An address is used in place of the unusable name, because a TLS client sends no server name (SNI) for an
        // address.
        Err(_) if insecure => Ok(ServerName::from(IpAddr::from(Ipv4Addr::UNSPECIFIED))),
        Err(_) => Err(format!(
            "{name:?} is not a host name that a certificate can contain; set tls-server-name to a name in the certificate"
        )),
    }
}

/// Returns the address of the server, and of the proxy if there is one, for messages.
pub fn target(access: &Access) -> String {
    let server = access.config.server.to_string();
    let server = server.trim_end_matches('/');
    match &access.config.proxy {
        Some(proxy) => format!("{server} through {proxy}"),
        None => server.to_owned(),
    }
}
