//! Opens connections to the API server.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use humantime::format_duration;
use hyper::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower::{Service, ServiceExt};

use super::super::credentials::Access;
use super::super::proxy::{Proxy, ProxyProtocol};
use super::super::tls::failure_reason;
use super::connection::Connection;
use super::resolver::Resolver;

type Failure = Box<dyn Error + Send + Sync>;

/// The reason why there is no connection. No request was sent.
#[derive(Clone, Debug)]
pub struct ConnectError(String);

impl ConnectError {
    /// Returns the error for a connection that was not open after this time.
    pub fn timed_out(access: &Access, after: Duration) -> Self {
        Self(format!("cannot connect to {}: there is no connection after {}", target(access), format_duration(after)))
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for ConnectError {}

/// Connects to the API server, through the proxy if there is one.
///
/// # Errors
/// Fails if any step fails.
pub async fn connect(access: Arc<Access>, resolver: Resolver) -> Result<Connection, ConnectError> {
    let connected = try_connect(Arc::clone(&access), resolver).await;
    connected.map_err(|failure| {
        ConnectError(format!("cannot connect to {}: {}", target(&access), failure_reason(&*failure)))
    })
}

async fn try_connect(access: Arc<Access>, resolver: Resolver) -> Result<Connection, Failure> {
    let mut tcp = HttpConnector::new_with_resolver(resolver);
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let server = access.config.server.clone();
    let Some(proxy) = &access.config.proxy else {
        let stream = tcp.oneshot(server).await?;
        return speak_over(stream.into_inner(), access).await;
    };
    match (proxy.protocol, &access.proxy_tls) {
        (ProxyProtocol::Http, _) | (ProxyProtocol::Https, None) => {
            let stream = through(tcp, proxy, server).await?;
            speak_over(stream.into_inner(), access).await
        }
        (ProxyProtocol::Https, Some(tls)) => {
            let (name, encrypt) = (ServerName::try_from(proxy.host.clone())?, TlsConnector::from(Arc::clone(tls)));
            let stream = through(Encrypted { tcp, encrypt, name }, proxy, server).await?;
            speak_over(stream.into_inner(), access).await
        }
        (ProxyProtocol::Socks5, _) => {
            let mut socks = SocksV5::new(proxy.address().parse()?, tcp);
            if let Some((user, password)) = &proxy.credentials {
                socks = socks.with_auth(user.clone(), password.clone());
            }
            let stream = socks.oneshot(server).await?;
            speak_over(stream.into_inner(), access).await
        }
    }
}

/// Connects to an address by TCP and encrypts the stream.
struct Encrypted {
    tcp: HttpConnector<Resolver>,
    encrypt: TlsConnector,
    name: ServerName<'static>,
}

impl Service<Uri> for Encrypted {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, address: Uri) -> Self::Future {
        let (tcp, encrypt, name) = (self.tcp.clone(), self.encrypt.clone(), self.name.clone());
        async move {
            let stream = tcp.oneshot(address).await.map_err(io::Error::other)?.into_inner();
            Ok(TokioIo::new(encrypt.connect(name, stream).await?))
        }
        .boxed()
    }
}

/// Connects to a server through an HTTP proxy, which `connector` connects to: by a tunnel, or, without TLS, by requests
/// that the proxy passes on.
async fn through<C>(connector: C, proxy: &Proxy, server: Uri) -> Result<C::Response, Failure>
where
    C: Service<Uri, Error: Into<Failure>>,
    Tunnel<C>: Service<Uri, Response = C::Response, Error: Into<Failure>>,
{
    let address = proxy.address().parse()?;
    if proxy.passes_on(&server) {
        return connector.oneshot(address).await.map_err(Into::into);
    }
    let mut tunnel = Tunnel::new(address, connector);
    if let Some(credentials) = proxy.authorization()? {
        tunnel = tunnel.with_auth(credentials);
    }
    tunnel.oneshot(server).await.map_err(Into::into)
}

/// Encrypts the stream if the server uses TLS, and starts HTTP on it.
async fn speak_over<S>(stream: S, access: Arc<Access>) -> Result<Connection, Failure>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let Some(tls) = access.tls.clone() else { return Ok(Connection::handshake(TokioIo::new(stream), access).await?) };
    let config = &access.config;
    let host = config.server.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(config.tls.server_name.clone().unwrap_or(host))?;
    let stream = TlsConnector::from(tls).connect(name, stream).await?;
    Ok(Connection::handshake(TokioIo::new(stream), access).await?)
}

/// Returns the address of the server, with the proxy if there is one.
pub fn target(access: &Access) -> String {
    let server = access.config.server.to_string();
    let server = server.trim_end_matches('/');
    match &access.config.proxy {
        Some(proxy) => format!("{server} through {proxy}"),
        None => server.to_owned(),
    }
}
