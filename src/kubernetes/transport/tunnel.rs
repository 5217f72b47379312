//! Asks an HTTP proxy for a tunnel to the API server.

use std::io;

use hyper::Uri;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::super::proxy::Proxy;
use crate::telemetry::log::printable;

/// The maximum size in bytes of the head of a proxy's response, without the HTML page that may follow it.
const MAX_HEAD: usize = 64 * 1024;

/// Asks the proxy at the other end of a stream for a tunnel to a server.
///
/// # Errors
/// Fails if the proxy refuses, closes the connection, or does not speak HTTP. The error for a refusal contains the
/// proxy's status or, if the proxy rejects the credentials, the setting that they come from.
pub async fn open<S>(stream: &mut S, proxy: &Proxy, server: &Uri) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (host, port) = (server.host().unwrap_or_default(), server.port_u16().unwrap_or(443));
    let mut request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n").into_bytes();
    if let Some(credentials) = proxy.authorization().map_err(io::Error::other)? {
        request.extend([b"Proxy-Authorization: ", credentials.as_bytes(), b"\r\n"].concat());
    }
    request.extend(b"\r\n");
    stream.write_all(&request).await?;
    stream.flush().await?;
    let head = read_head(stream).await?;
    let status = head.lines().next().and_then(|line| line.strip_prefix("HTTP/")?.split_once(' '));
    let Some((_, status)) = status else {
        return Err(io::Error::other("the proxy does not respond like an HTTP proxy"));
    };
    match status.split(' ').next() {
        Some("200") => Ok(()),
        Some("407") => Err(io::Error::other(credentials_refused_reason(proxy))),
        _ => Err(io::Error::other(format!("the proxy refused the tunnel with {}", printable(status.trim())))),
    }
}

/// Reads the head of a response, and nothing after it.
async fn read_head<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && !head.ends_with(b"\n\n") {
        if head.len() == MAX_HEAD {
            return Err(io::Error::other("the headers of the proxy's response are too long"));
        }
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(failure) if failure.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(io::Error::other("the proxy closed the connection"));
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn credentials_refused_reason(proxy: &Proxy) -> String {
    let setting = proxy.origin;
    match &proxy.credentials {
        Some((user, _)) => format!("the proxy rejected the user name {user:?} and its password; check {setting}"),
        None => format!("the proxy asks for a user name and a password; add them to {setting}"),
    }
}
