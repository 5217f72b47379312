//! The address of `--http`, and the listener on it.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::str::FromStr;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn6, bind, listen, setsockopt, socket, sockopt,
};

/// How many connections may wait to be accepted on the socket for all addresses.
const BACKLOG: i32 = 128;

/// An IP address with a port, or all addresses of this machine with a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpAddress {
    /// The IP address; `None` for all addresses of this machine.
    ip: Option<IpAddr>,
    port: u16,
}

impl FromStr for HttpAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(port) = text.strip_prefix(':').and_then(|port| port.parse().ok()) {
            return Ok(Self { ip: None, port });
        }
        let address: SocketAddr = text
            .parse()
            .map_err(|_| "not an IP address with a port; try 127.0.0.1:8080, or :8080 for all addresses")?;
        Ok(Self { ip: Some(address.ip()), port: address.port() })
    }
}

impl fmt::Display for HttpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            Some(ip) => SocketAddr::new(ip, self.port).fmt(f),
            None => write!(f, ":{}", self.port),
        }
    }
}

/// The reason why leaderrun cannot listen on an address.
#[derive(Debug)]
pub struct ListenError {
    address: HttpAddress,
    error: io::Error,
}

impl ListenError {
    /// Returns whether a later attempt may succeed: the port is in use and may be freed, or this machine may still get
    /// the address.
    pub fn is_transient(&self) -> bool {
        matches!(self.error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable)
    }
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, error } = self;
        let reason = error.raw_os_error().map(|errno| Errno::from_raw(errno).desc().to_owned());
        let reason = reason.unwrap_or_else(|| error.to_string());
        let suggestion = match error.kind() {
            io::ErrorKind::AddrNotAvailable => format!("{} for all addresses", HttpAddress { ip: None, ..*address }),
            _ => format!("{} for any free port", HttpAddress { port: 0, ..*address }),
        };
        write!(f, "--http {address}: cannot listen: {reason}; try --http {suggestion}")
    }
}

impl std::error::Error for ListenError {}

impl HttpAddress {
    /// Listens on the address with a non-blocking socket.
    ///
    /// # Errors
    /// Fails if the kernel refuses to listen on the address.
    pub fn listen(&self) -> Result<TcpListener, ListenError> {
        let listener = match self.ip {
            Some(ip) => TcpListener::bind((ip, self.port)),
            None => match listen_on_all_addresses(self.port) {
                Err(Errno::EAFNOSUPPORT) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, self.port)),
                listener => listener.map_err(io::Error::from),
            },
        };
        let listener = listener.and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
        listener.map_err(|error| ListenError { address: *self, error })
    }
}

/// Listens on one IPv6 socket for both families, even with `net.ipv6.bindv6only=1`.
fn listen_on_all_addresses(port: u16) -> nix::Result<TcpListener> {
    let socket = socket(AddressFamily::Inet6, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::Ipv6V6Only, &false)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    let address = std::net::SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0);
    bind(socket.as_raw_fd(), &SockaddrIn6::from(address))?;
    listen(&socket, Backlog::new(BACKLOG)?)?;
    Ok(TcpListener::from(socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_round_trips() {
        for text in ["127.0.0.1:8080", "[::1]:8080", ":8080", ":0"] {
            assert_eq!(text.parse::<HttpAddress>().expect("the address is valid").to_string(), text);
        }
        for text in ["", "8080", "localhost:8080", ":http", "127.0.0.1", ":65536"] {
            assert!(text.parse::<HttpAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_port_that_is_in_use_is_a_transient_error() {
        let occupied = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let local_address = occupied.local_addr().expect("the socket has an address").to_string();
        let address: HttpAddress = local_address.parse().expect("the address is valid");
        let refused = address.listen().expect_err("the port is in use");
        assert!(refused.is_transient());
        assert_eq!(
            refused.to_string(),
            format!(
                "--http {address}: cannot listen: Address already in use; try --http 127.0.0.1:0 for any free port"
            )
        );
        drop(occupied);
        address.listen().expect("the port is free");
    }
}
