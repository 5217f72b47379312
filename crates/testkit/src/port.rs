//! A TCP port on 127.0.0.1 that stays reserved for this process even while nothing listens on it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;

use nix::sys::socket::{Shutdown, shutdown};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// A TCP port, reserved by a socket that is bound to it but never listens.
///
/// While nothing listens, connections to the port are refused. The kernel does not hand the port out to a server that
/// asks for a free port, or use it as a client's ephemeral port. (A client that connects to this port from this same
/// port would be connected to itself.)
pub struct Port {
    reservation: TcpSocket,
}

impl Port {
    /// Reserves a free port.
    pub fn reserve() -> Port {
        let reservation = shared_socket(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("127.0.0.1 has a free port");
        Port { reservation }
    }

    /// Returns the address of the port.
    pub fn address(&self) -> SocketAddr {
        self.reservation.local_addr().expect("a bound socket has an address")
    }

    /// Listens on the port until the listener is dropped. This must be called inside a tokio runtime.
    pub fn listen(&self) -> io::Result<Listener> {
        Ok(Listener { socket: shared_socket(self.address())?.listen(1024)? })
    }
}

/// A socket that accepts connections to a [`Port`] until it is dropped.
pub struct Listener {
    socket: TcpListener,
}

impl Listener {
    /// Waits for the next connection.
    pub async fn accept(&self) -> io::Result<TcpStream> {
        Ok(self.socket.accept().await?.0)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Another thread may be starting a process, which has a copy of this socket until it executes its program.
        // Without the shutdown, the kernel would queue some connections on the copy, and reset them later.
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Both);
    }
}

fn shared_socket(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net;
    use std::os::fd::AsFd;

    use super::*;
    use crate::runtime;

    #[test]
    fn a_dropped_listener_accepts_nothing_even_if_its_socket_is_still_open_elsewhere() {
        let port = Port::reserve();
        let listener = runtime::enter(|| port.listen()).unwrap();
        let _copy = listener.socket.as_fd().try_clone_to_owned().unwrap();
        net::TcpStream::connect(port.address()).unwrap();
        drop(listener);
        let error = net::TcpStream::connect(port.address()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
