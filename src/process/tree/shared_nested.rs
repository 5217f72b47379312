//! The processes in nested PID namespaces that the supervisor remembers, in memory that it shares with the elector. If
//! the supervisor fails, the elector has to kill them, and could not otherwise find those whose parents have ended.

use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};

use super::members::CAPACITY;
use super::proc::Identity;
use crate::process::system_call::SystemCallError;

const LENGTH: NonZeroUsize = NonZeroUsize::new(size_of::<Contents>()).expect("the length is not zero");

/// The contents of the memory. The kernel fills new memory with zeros, so there are no processes at first.
#[repr(C)]
struct Contents {
    count: AtomicUsize,
    processes: [SharedIdentity; CAPACITY],
}

/// An [`Identity`] in the shared memory.
#[repr(C)]
struct SharedIdentity {
    /// The number of the process in /proc.
    number: AtomicI32,
    /// The time of the start, in clock ticks since boot.
    started: AtomicU64,
}

/// The shared memory. It stays mapped until the process ends.
#[derive(Debug)]
pub struct SharedNested(NonNull<Contents>);

impl SharedNested {
    /// Creates the memory, which is shared with every process that is forked afterwards.
    ///
    /// # Errors
    /// Fails if the kernel has no memory left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: the kernel chooses the address, so no memory of this process is replaced.
        let address =
            unsafe { mmap_anonymous(None, LENGTH, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED) };
        Ok(Self(address.map_err(SystemCallError::of("mmap"))?.cast()))
    }

    /// Replaces the stored processes. Because the caller keeps the order of the processes that stay, and the count is
    /// stored last, a reader finds all that stay even if this process is killed before it has stored everything.
    pub fn store(&self, processes: impl Iterator<Item = Identity>) {
        let mut count = 0;
        for (shared, identity) in self.contents().processes.iter().zip(processes) {
            shared.number.store(identity.number, Ordering::SeqCst);
            shared.started.store(identity.started, Ordering::SeqCst);
            count += 1;
        }
        self.contents().count.store(count, Ordering::SeqCst);
    }

    /// Stores one more process, if there is room.
    pub fn push(&self, identity: Identity) {
        let count = self.contents().count.load(Ordering::SeqCst);
        if let Some(shared) = self.contents().processes.get(count) {
            shared.number.store(identity.number, Ordering::SeqCst);
            shared.started.store(identity.started, Ordering::SeqCst);
            self.contents().count.store(count + 1, Ordering::SeqCst);
        }
    }

    /// Returns the stored processes.
    pub fn processes(&self) -> impl Iterator<Item = Identity> {
        let count = self.contents().count.load(Ordering::SeqCst);
        self.contents().processes.iter().take(count).map(|shared| Identity {
            number: shared.number.load(Ordering::SeqCst),
            started: shared.started.load(Ordering::SeqCst),
        })
    }

    fn contents(&self) -> &Contents {
        // SAFETY: the memory is never unmapped, is page-aligned and long enough, and consists of atomics, for which any
        // bytes are valid.
        unsafe { self.0.as_ref() }
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::wait::waitpid;
    use nix::unistd::{ForkResult, fork};

    use super::*;

    #[test]
    fn a_forked_process_shares_the_stored_processes() {
        let identity = |number| Identity { number, started: u64::from(number.unsigned_abs()) };
        let shared = SharedNested::new().unwrap();
        assert_eq!(shared.processes().count(), 0);
        // SAFETY: the child only writes to the shared memory.
        match unsafe { fork() }.unwrap() {
            ForkResult::Parent { child } => drop(waitpid(child, None)),
            ForkResult::Child => {
                shared.store([1, 2, 3].map(identity).into_iter());
                shared.store([2, 3].map(identity).into_iter());
                shared.push(identity(4));
                // SAFETY: `_exit` has no preconditions. Exit handlers of the test process must not run here.
                unsafe { libc::_exit(0) }
            }
        }
        assert_eq!(shared.processes().collect::<Vec<_>>(), [2, 3, 4].map(identity));
    }
}
