//! A descriptor with which one thread wakes another.

use std::io;

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::system_call::SystemCallError;

/// Creates a non-blocking descriptor that is not readable yet.
///
/// # Errors
/// Fails if the kernel refuses to create a descriptor.
pub fn new() -> io::Result<EventFd> {
    let event_fd = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
    Ok(event_fd.map_err(SystemCallError::of("eventfd2"))?)
}
