//! A TCP port of 127.0.0.1 that stays reserved for this process even while nothing listens on it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::{TcpListener, TcpSocket};

/// A TCP port, reserved by a socket that is bound to it but never listens.
///
/// While nothing listens, connections to the port are refused. No other process can bind it, and the kernel does not
/// choose it as the ephemeral port of a client, which would connect the client to itself.
pub struct Port {
    reservation: TcpSocket,
}

impl Port {
    /// Reserves a free port.
    pub fn reserve() -> Port {
        let reservation = shared_socket(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a free port on 127.0.0.1");
        Port { reservation }
    }

    /// Returns the address of the port.
    pub fn address(&self) -> SocketAddr {
        self.reservation.local_addr().expect("the address of a bound socket")
    }

    /// Listens on the port until the listener is dropped. Must be called inside a tokio runtime.
    pub fn listen(&self) -> io::Result<TcpListener> {
        shared_socket(self.address())?.listen(1024)
    }
}

fn shared_socket(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}
