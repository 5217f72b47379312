//! Waits for descriptors to become readable.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::task::{Context, Poll};

use nix::poll::PollFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A value with a descriptor that is registered with the tokio runtime of the current thread.
#[derive(Debug)]
pub struct Readable<T: AsFd>(AsyncFd<FdOwner<T>>);

#[derive(Debug)]
struct FdOwner<T>(T);

impl<T: AsFd> AsRawFd for FdOwner<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl<T: AsFd> Readable<T> {
    /// Registers `inner`.
    ///
    /// # Errors
    /// Fails if the descriptor cannot be polled.
    pub fn new(inner: T) -> io::Result<Self> {
        // SAFETY: every `T` in this program owns its descriptor. `inner` is never replaced, and closes the descriptor
        // only when it is dropped.
        let registered = unsafe { AsyncFd::register_with_interest(FdOwner(inner), Interest::READABLE) };
        Ok(Self(registered?))
    }

    /// Returns the registered value.
    pub fn get(&self) -> &T {
        &self.0.get_ref().0
    }

    /// Returns `Ready` if the descriptor has become readable since the last call that returned `Ready`.
    ///
    /// # Errors
    /// Fails if the runtime is shutting down.
    pub fn poll_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_read_ready(context).map_ok(|mut guard| guard.clear_ready())
    }

    /// Waits until the descriptor becomes readable, unless it already has since the last call.
    ///
    /// # Errors
    /// Fails if the runtime is shutting down.
    pub async fn ready(&self) -> io::Result<()> {
        self.0.readable().await?.clear_ready();
        Ok(())
    }
}

/// Returns whether `poll` reported any of these descriptors other than `timer` as ready. An unknown event, for which
/// nix returns `None`, counts.
pub fn is_any_ready_except(timer: BorrowedFd<'_>, polled: &[PollFd<'_>]) -> bool {
    polled.iter().any(|fd| fd.as_fd().as_raw_fd() != timer.as_raw_fd() && fd.any() != Some(false))
}
