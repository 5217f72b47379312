//! A proxy that forwards every connection to one address, and records the destination that was requested.

use std::io;
use std::mem;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::{runtime, tls};

/// The protocol between the client and the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelProtocol {
    Http,
    /// HTTP over TLS. The proxy uses the certificate that all servers of this process share.
    Https,
    /// HTTP over TLS. The proxy requires a client certificate from the tests' certificate authority.
    MutualHttps,
    Socks5,
}

/// A running proxy.
pub struct TunnelProxy {
    address: SocketAddr,
    destinations: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl TunnelProxy {
    /// Starts a proxy that forwards to `target`.
    pub fn start(protocol: TunnelProtocol, target: SocketAddr) -> Self {
        let listener = runtime::wait(TcpListener::bind("127.0.0.1:0")).expect("127.0.0.1 has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let destinations = Arc::<Mutex<Vec<String>>>::default();
        let recorded = Arc::clone(&destinations);
        let task = runtime::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                runtime::spawn(serve(stream, protocol, target, Arc::clone(&recorded)));
            }
        });
        Self { address, destinations, task }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the destinations that were requested since the last call: each is `HOST:PORT`, followed by the client's
    /// credentials if it sent any.
    pub fn take_destinations(&self) -> Vec<String> {
        mem::take(&mut *self.destinations.lock().expect("no thread panics while it holds this lock"))
    }
}

impl Drop for TunnelProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    stream: TcpStream,
    protocol: TunnelProtocol,
    target: SocketAddr,
    recorded: Arc<Mutex<Vec<String>>>,
) -> io::Result<()> {
    match protocol {
        TunnelProtocol::Https | TunnelProtocol::MutualHttps => {
            let requires_certificate = protocol == TunnelProtocol::MutualHttps;
            let config = if requires_certificate { tls::mutual_server_config() } else { tls::server_config() };
            let stream = TlsAcceptor::from(config).accept(stream).await?;
            forward(BufReader::new(stream), protocol, target, recorded).await
        }
        TunnelProtocol::Http | TunnelProtocol::Socks5 => {
            forward(BufReader::new(stream), protocol, target, recorded).await
        }
    }
}

async fn forward<S>(
    mut stream: BufReader<S>,
    protocol: TunnelProtocol,
    target: SocketAddr,
    recorded: Arc<Mutex<Vec<String>>>,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let requested = match protocol {
        TunnelProtocol::Socks5 => accept_socks(&mut stream).await?,
        _ => accept_connect(&mut stream).await?,
    };
    recorded.lock().expect("no thread panics while it holds this lock").push(requested);
    let mut server = TcpStream::connect(target).await?;
    copy_bidirectional(&mut stream, &mut server).await.map(drop)
}

/// Accepts an HTTP CONNECT request. Returns its destination and credentials.
async fn accept_connect<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut BufReader<S>) -> io::Result<String> {
    let mut requested = String::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let line = line.trim_end();
        if let Some(target) = line.strip_prefix("CONNECT ") {
            requested.push_str(target.split(' ').next().unwrap_or_default());
        }
        match line.split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("proxy-authorization") => {
                requested.push(' ');
                requested.push_str(value);
            }
            _ => {}
        }
        if line.is_empty() {
            break;
        }
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    stream.flush().await?;
    Ok(requested)
}

/// Accepts a SOCKS5 request (RFC 1928), with a password if the client offers one (RFC 1929). Returns its destination
/// and credentials.
async fn accept_socks<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut BufReader<S>) -> io::Result<String> {
    const VERSION: u8 = 5;
    const NO_PASSWORD: u8 = 0;
    const PASSWORD: u8 = 2;
    const PASSWORD_VERSION: u8 = 1;
    const SUCCESS: u8 = 0;
    const IPV4: u8 = 1;
    const DOMAIN_NAME: u8 = 3;
    let _version = stream.read_u8().await?;
    let methods = read_text(stream).await?;
    let mut credentials = String::new();
    if methods.as_bytes().contains(&PASSWORD) {
        stream.write_all(&[VERSION, PASSWORD]).await?;
        stream.flush().await?;
        let _version = stream.read_u8().await?;
        credentials = format!(" {}:{}", read_text(stream).await?, read_text(stream).await?);
        stream.write_all(&[PASSWORD_VERSION, SUCCESS]).await?;
    } else {
        stream.write_all(&[VERSION, NO_PASSWORD]).await?;
    }
    stream.flush().await?;
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let [_version, _command, _reserved, address_type] = head;
    let host = match address_type {
        IPV4 => Ipv4Addr::from(stream.read_u32().await?).to_string(),
        DOMAIN_NAME => read_text(stream).await?,
        other => return Err(io::Error::other(format!("unsupported address type {other}"))),
    };
    let port = stream.read_u16().await?;
    // The reply leaves the proxy's own address and port unspecified.
    stream.write_all(&[VERSION, SUCCESS, 0, IPV4, 0, 0, 0, 0, 0, 0]).await?;
    stream.flush().await?;
    Ok(format!("{host}:{port}{credentials}"))
}

/// Reads text that is preceded by its length, in one byte.
async fn read_text<S: AsyncRead + Unpin>(stream: &mut BufReader<S>) -> io::Result<String> {
    let mut text = vec![0; stream.read_u8().await?.into()];
    stream.read_exact(&mut text).await?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
