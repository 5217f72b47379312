//! The deadline of a run, until which it holds the lock: the `stop` of its tenure. The command and its descendants can
//! read it, and only the supervisor can change it.
//!
//! It is stored in a sealed memory file, whose descriptor the command inherits. The run ID in the file distinguishes it
//! from the file of another run.

use std::env;
use std::fs::File;
use std::io;
use std::mem::offset_of;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};
use leaderrun_core::instant::Instant;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::stat::fstat;

use super::system_call::SystemCallError;
use super::{clock, inherited_fd};

/// The environment variable with the number of the descriptor.
pub const FD_VARIABLE: &str = "LEADERRUN_TENURE_FD";

/// The environment variable with the run ID.
pub const RUN_VARIABLE: &str = "LEADERRUN_RUN_ID";

/// The environment variable with the IDs of the outer runs, separated by spaces. It is set only if runs are nested,
/// that is, if leaderrun runs inside a command that another leaderrun started. The innermost run's ID is in
/// [`RUN_VARIABLE`] instead.
pub const OUTER_RUNS_VARIABLE: &str = "LEADERRUN_OUTER_RUNS";

/// The maximum length of a run ID, in bytes. A UUID is shorter.
const MAX_RUN_ID_LENGTH: usize = 56;

const LENGTH: NonZeroUsize = NonZeroUsize::new(size_of::<DeadlineContents>()).expect("the length is not zero");

/// The seals of the memory file. The existing mapping stays writable, but new writable mappings and writes are refused.
const SEALS: SealFlag = SealFlag::F_SEAL_GROW
    .union(SealFlag::F_SEAL_SHRINK)
    .union(SealFlag::F_SEAL_FUTURE_WRITE)
    .union(SealFlag::F_SEAL_SEAL);

/// The supervisor's side of the deadline.
#[derive(Debug)]
pub struct Deadline {
    memory: OwnedFd,
    mapping: DeadlineMapping,
    /// How many nanoseconds the boot clock of this time namespace is ahead of the machine's.
    clock_offset: i64,
}

impl Deadline {
    /// Creates a deadline that has passed, for the run with this ID.
    ///
    /// # Errors
    /// Fails if the offset of the clock cannot be read, or if the kernel refuses to create or to seal a memory file.
    pub fn new(run: &str) -> io::Result<Self> {
        let clock_offset = clock::time_namespace_offset_nanos()?;
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = File::from(memfd_create("leaderrun-tenure", flags).map_err(SystemCallError::of("memfd_create"))?);
        file.set_len(LENGTH.get() as u64).map_err(SystemCallError::of("ftruncate"))?;
        file.write_all_at(&padded(run), offset_of!(DeadlineContents, run) as u64)?;
        let mapping = DeadlineMapping::new(file.as_fd(), ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)?;
        fcntl(&file, FcntlArg::F_ADD_SEALS(SEALS)).map_err(SystemCallError::of("fcntl"))?;
        Ok(Self { memory: inherited_fd::move_up(file.into())?, mapping, clock_offset })
    }

    /// Sets the deadline. `None` means that it has passed.
    pub fn set(&self, deadline: Option<Instant>) {
        let on_machine_clock = |deadline: Instant| deadline.as_nanos().saturating_add_signed(-self.clock_offset);
        self.mapping.contents().deadline.store(deadline.map_or(0, on_machine_clock), Ordering::SeqCst);
    }
}

impl AsFd for Deadline {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

/// Returns the deadline of the run that this process belongs to.
///
/// # Errors
/// Fails if this process does not belong to a run, if the descriptor is not the one that the supervisor passed on, or
/// if the offset of the clock cannot be read.
pub fn read() -> Result<Instant> {
    let variable = |name: &str| {
        env::var(name).ok().with_context(|| {
            format!("{name} is not set: leaderrun check works only inside a command that leaderrun runs")
        })
    };
    let (number, run) = (variable(FD_VARIABLE)?, variable(RUN_VARIABLE)?);
    let number: RawFd = number
        .parse()
        .ok()
        .filter(|number| *number >= 0)
        .with_context(|| format!("{FD_VARIABLE} {number:?} is not the number of a descriptor"))?;
    // SAFETY: nothing in this process closes the descriptor while it is borrowed.
    let memory = unsafe { BorrowedFd::borrow_raw(number) };
    let seals = match fcntl(memory, FcntlArg::F_GET_SEALS) {
        Err(Errno::EBADF) => {
            bail!("descriptor {number} is closed: the program that starts leaderrun check must leave it open")
        }
        Err(_) => SealFlag::empty(),
        Ok(seals) => SealFlag::from_bits_truncate(seals),
    };
    // A sealed file cannot become shorter.
    let has_full_length = || fstat(memory).is_ok_and(|status| usize::try_from(status.st_size) == Ok(LENGTH.get()));
    if !seals.contains(SEALS) || !has_full_length() {
        bail!(
            "descriptor {number} no longer refers to the file that leaderrun created; the command must not close or replace this descriptor"
        );
    }
    let mapping = DeadlineMapping::new(memory, ProtFlags::PROT_READ)?;
    let contents = mapping.contents();
    if contents.run != padded(&run) {
        bail!(
            "descriptor {number} was opened by another run, not by the one in {RUN_VARIABLE}; keep {FD_VARIABLE} and {RUN_VARIABLE} as leaderrun set them"
        );
    }
    // This process may be in another time namespace than the supervisor.
    let clock_offset =
        clock::time_namespace_offset_nanos().context("cannot compare this process's clock with leaderrun's")?;
    Ok(Instant::from_nanos(contents.deadline.load(Ordering::SeqCst).saturating_add_signed(clock_offset)))
}

/// Returns a run ID padded with zeros, as the memory file contains it.
fn padded(run: &str) -> [u8; MAX_RUN_ID_LENGTH] {
    let mut bytes = [0; MAX_RUN_ID_LENGTH];
    bytes.iter_mut().zip(run.bytes()).for_each(|(to, from)| *to = from);
    bytes
}

/// The contents of the memory file.
#[repr(C)]
struct DeadlineContents {
    /// The deadline, in nanoseconds on the machine's boot clock.
    deadline: AtomicU64,
    run: [u8; MAX_RUN_ID_LENGTH],
}

/// A mapping of the memory file.
#[derive(Debug)]
struct DeadlineMapping(NonNull<DeadlineContents>);

impl DeadlineMapping {
    /// Maps the memory file. The file must be as long as the contents, and must be sealed against shrinking before
    /// other processes get it.
    fn new(memory: BorrowedFd<'_>, protection: ProtFlags) -> nix::Result<Self> {
        // SAFETY: the kernel chooses the address, so no memory of this process is replaced.
        let address = unsafe { mmap(None, LENGTH, protection, MapFlags::MAP_SHARED, memory, 0) };
        Ok(Self(address?.cast()))
    }

    fn contents(&self) -> &DeadlineContents {
        // SAFETY: the mapping lives as long as `self`, is page-aligned and long enough. Any bytes are valid, and other
        // processes change nothing but the atomic.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for DeadlineMapping {
    fn drop(&mut self) {
        // SAFETY: `new` has mapped this address, and every reference into the mapping borrows from `self`.
        let _ = unsafe { munmap(self.0.cast(), LENGTH.get()) };
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::time::Duration;

    use super::*;
    use crate::process::clock;

    fn deadline_in(memory: BorrowedFd<'_>) -> Instant {
        let mapping = DeadlineMapping::new(memory, ProtFlags::PROT_READ).unwrap();
        Instant::from_nanos(mapping.contents().deadline.load(Ordering::SeqCst))
    }

    #[test]
    fn the_deadline_is_read_as_it_was_set() {
        let deadline = Deadline::new("run").unwrap();
        assert_eq!(deadline_in(deadline.as_fd()), Instant::after_boot(Duration::ZERO));
        let at = clock::now();
        deadline.set(Some(at));
        assert_eq!(deadline_in(deadline.as_fd()), at);
        deadline.set(None);
        assert_eq!(deadline_in(deadline.as_fd()), Instant::after_boot(Duration::ZERO));
    }

    #[test]
    fn only_the_supervisor_can_change_the_deadline() {
        let deadline = Deadline::new("run").unwrap();
        let path = format!("/proc/self/fd/{}", deadline.as_fd().as_raw_fd());
        let reopened = File::options().read(true).write(true).open(path).unwrap();
        for memory in [deadline.as_fd(), reopened.as_fd()] {
            let file = File::from(memory.try_clone_to_owned().unwrap());
            assert!(file.write_all_at(&[255; 8], 0).is_err());
            assert!(file.set_len(0).is_err());
            assert!(DeadlineMapping::new(memory, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE).is_err());
        }
        deadline.set(Some(clock::now()));
        assert_ne!(deadline_in(reopened.as_fd()), Instant::after_boot(Duration::ZERO));
    }
}
