//! The channel between leaderrun's two processes: a SOCK_SEQPACKET pair, with one typed message in each packet.
//!
//! Neither side ever blocks. If the queue is full because the other side does not read, a message is lost;
//! [`leaderrun_core::messages`] describes the consequences of a lost message.

use std::cell::{Cell, RefCell};
use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::slice;

use leaderrun_core::messages::{Order, Report};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, send, socketpair};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::process::system_call::SystemCallError;

/// The maximum size of a message, in bytes. Text that does not come from leaderrun itself, such as an error message, is
/// truncated before it is put into a message.
const MAX_PACKET_SIZE: usize = 64 * 1024;

/// One end of the channel, which sends `S` and receives `R`.
#[derive(Debug)]
pub struct Channel<S, R> {
    socket: OwnedFd,
    /// The memory for one received packet. It is allocated only once, so that receiving needs no large allocation when
    /// memory is short. It is left uninitialized, so a page takes up memory only after a packet has been written to it.
    packet: RefCell<Box<[MaybeUninit<u8>]>>,
    is_open: Cell<bool>,
    messages: PhantomData<(S, R)>,
}

/// The elector's end.
pub type ElectorEnd = Channel<Order, Report>;
/// The supervisor's end.
pub type SupervisorEnd = Channel<Report, Order>;

/// Creates both ends, non-blocking and close-on-exec.
///
/// # Errors
/// Fails if the kernel cannot create the sockets.
pub fn pair() -> io::Result<(ElectorEnd, SupervisorEnd)> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let (elector, supervisor) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).map_err(SystemCallError::of("socketpair"))?;
    Ok((Channel::new(elector), Channel::new(supervisor)))
}

impl<S: Serialize, R: DeserializeOwned> Channel<S, R> {
    fn new(socket: OwnedFd) -> Self {
        let packet = RefCell::new(Box::new_uninit_slice(MAX_PACKET_SIZE));
        Self { socket, packet, is_open: Cell::new(true), messages: PhantomData }
    }

    /// Sends a message. It is lost if the queue is full because the other side has stopped reading.
    ///
    /// # Errors
    /// Fails with `WouldBlock` if the queue is full, and with another kind if sending fails for another reason, for
    /// example because the other side is gone.
    pub fn send(&self, message: &S) -> io::Result<()> {
        let packet = serde_json::to_vec(message)?;
        send(self.socket.as_raw_fd(), &packet, MsgFlags::MSG_NOSIGNAL)?;
        Ok(())
    }

    /// Returns all messages that have arrived, in order, and skips those that cannot be parsed. It does not report that
    /// the other side is dead, because a pidfd reports that.
    pub fn receive(&self) -> Vec<R> {
        let mut messages = Vec::new();
        let mut buffer = self.packet.borrow_mut();
        loop {
            match receive_packet(&self.socket, &mut buffer) {
                Ok([]) => {
                    self.is_open.set(false);
                    return messages;
                }
                Ok(packet) => messages.extend(serde_json::from_slice::<R>(packet)),
                Err(Errno::EINTR) => {}
                Err(_) => return messages,
            }
        }
    }
}

impl<S, R> Channel<S, R> {
    /// Returns whether further messages may arrive. If not, the socket is always readable and must not be polled: that
    /// would be a busy loop, which would delay the end of the other process if both share a CPU limit.
    pub fn is_open(&self) -> bool {
        self.is_open.get()
    }
}

/// Receives a packet without waiting. An empty packet means that the other side is gone.
fn receive_packet<'a>(socket: &OwnedFd, buffer: &'a mut [MaybeUninit<u8>]) -> nix::Result<&'a [u8]> {
    // SAFETY: the kernel writes at most `buffer.len()` bytes to the buffer.
    let received =
        unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT) };
    let length = usize::try_from(Errno::result(received)?).unwrap_or_default();
    // SAFETY: the kernel has written this many bytes at this address.
    Ok(unsafe { slice::from_raw_parts(buffer.as_ptr().cast(), length) })
}

impl<S, R> AsFd for Channel<S, R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use leaderrun_core::messages::{End, Gone};

    use super::*;

    #[test]
    fn messages_arrive_whole_and_in_order() {
        let (elector, supervisor) = pair().unwrap();
        let orders = [Order::Signal(15), Order::Lose, Order::Signal(2)];
        for order in &orders {
            elector.send(order).unwrap();
        }
        assert_eq!(supervisor.receive(), orders);
        assert_eq!(supervisor.receive(), []);
        let report = Report::Gone(Gone { end: End::Exited(7), lost: false });
        supervisor.send(&report).unwrap();
        assert_eq!(elector.receive(), [report]);
    }

    #[test]
    fn a_channel_is_open_until_the_other_end_is_closed_and_its_messages_are_received() {
        let (elector, supervisor) = pair().unwrap();
        assert_eq!(supervisor.receive(), []);
        assert!(supervisor.is_open());
        elector.send(&Order::Lose).unwrap();
        drop(elector);
        assert_eq!(supervisor.receive(), [Order::Lose]);
        assert!(!supervisor.is_open());
    }

    #[test]
    fn a_full_queue_does_not_block_the_sender() {
        let (elector, _supervisor) = pair().unwrap();
        let blocked = (0..1_000_000).find_map(|_| elector.send(&Order::Lose).err());
        assert_eq!(blocked.unwrap().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn sending_to_a_closed_end_fails_without_raising_sigpipe() {
        let (elector, supervisor) = pair().unwrap();
        drop(supervisor);
        assert!(elector.send(&Order::Lose).is_err());
        assert_eq!(elector.receive(), []);
    }
}
