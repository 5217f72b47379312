//! Locks leaderrun in memory.
//!
//! If a page of leaderrun's code is not in memory, the kernel reads it from the program file. A network file system may
//! fail together with the API server, and a process that waits for such a page cannot kill the command.

use std::fs;

use nix::errno::Errno;

/// The number of bytes that are read at once. While they are read, other threads cannot map memory.
const READ_AT_ONCE: usize = 128 * 1024;

/// The part of leaderrun that is locked in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locked {
    Everything,
    /// Of the `total` bytes that had to be read or locked, only `locked` are locked, for the reason in `errno`.
    Partly {
        locked: usize,
        total: usize,
        errno: Errno,
    },
}

/// Returns free memory to the kernel, such as the memory in which the command line was parsed. After a fork, both
/// processes would copy its pages when they use it again.
pub fn trim() {
    // musl returns free memory on its own.
    #[cfg(target_env = "gnu")]
    // SAFETY: the call takes an integer.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The mappings at the time of [`lock_used`], parts of which may still have to be read into memory.
#[derive(Debug)]
pub struct UnreadMappings {
    /// Whether the kernel locks each page as soon as the page is in memory. If not, each mapping is locked separately.
    locks_on_read: bool,
    mappings: Vec<Mapping>,
}

/// Locks the current mappings, as far as that is permitted: all of leaderrun's code, and the used parts of the heap
/// and the stack. The unused parts are locked when they are first used, which needs no disk.
pub fn lock() -> Locked {
    lock_used().read_and_lock()
}

/// Locks the parts of the current mappings that are in memory, as far as that is permitted. It must be called before
/// threads are started, because the stacks of threads would exceed the limit on locked memory.
pub fn lock_used() -> UnreadMappings {
    // SAFETY: the call takes an integer, and does not change the contents of the memory.
    let locks_on_read = Errno::result(unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_ONFAULT) }).is_ok();
    UnreadMappings { locks_on_read, mappings: mappings() }
}

impl UnreadMappings {
    /// Reads the rest of leaderrun's code into memory and locks it, as far as that is permitted. This takes much
    /// longer than [`lock_used`].
    pub fn read_and_lock(&self) -> Locked {
        let Self { locks_on_read, mappings } = self;
        let mut failure = None;
        let (mut locked, mut total) = (0, 0);
        for Mapping { start, length, .. } in mappings.iter().filter(|mapping| !locks_on_read || mapping.is_file) {
            total += length;
            if *locks_on_read && read(*start, *length).is_ok() {
                locked += length;
                continue;
            }
            // SAFETY: locking does not change the contents of the memory, and fails if the mapping no longer exists.
            match Errno::result(unsafe { libc::mlock(*start as *const libc::c_void, *length) }) {
                Ok(_) => locked += length,
                Err(errno) => failure = Some(errno),
            }
        }
        match failure {
            None => Locked::Everything,
            Some(errno) => Locked::Partly { locked, total, errno },
        }
    }
}

/// Reads a mapping into memory, in small parts. mlock(2) would keep other threads from mapping memory until the whole
/// mapping is read.
///
/// # Errors
/// Fails if the mapping cannot be read, or on kernels before Linux 5.14, which do not support `MADV_POPULATE_READ`.
fn read(start: usize, length: usize) -> nix::Result<()> {
    for part in (start..start + length).step_by(READ_AT_ONCE) {
        let length = READ_AT_ONCE.min(start + length - part);
        // SAFETY: the call does not change the contents of the memory, and fails if the mapping no longer exists.
        Errno::result(unsafe { libc::madvise(part as *mut libc::c_void, length, libc::MADV_POPULATE_READ) })?;
    }
    Ok(())
}

/// A range of this process's memory.
#[derive(Debug)]
struct Mapping {
    /// Whether the memory contains a part of a file.
    is_file: bool,
    start: usize,
    length: usize,
}

/// Returns the readable mappings: those of leaderrun's program file first, then those of its libraries, then the rest.
fn mappings() -> Vec<Mapping> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let program = fs::read_link("/proc/self/exe").unwrap_or_default();
    let mut mappings: Vec<(u8, Mapping)> = maps
        .lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let (start, end) = words.next()?.split_once('-')?;
            let is_accessible = words.next()?.starts_with('r');
            let name = words.nth(3).unwrap_or_default();
            let rank = match name {
                name if program.as_os_str() == name => 0,
                // The kernel shows memory that the two processes share as this device.
                name if name.starts_with('/') && name != "/dev/zero" => 1,
                _ => 2,
            };
            let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
            // [vdso], [vvar] and [vsyscall] belong to the kernel.
            let is_special = name.starts_with("[v");
            (is_accessible && !is_special).then_some((rank, Mapping { is_file: rank < 2, start, length: end - start }))
        })
        .collect();
    mappings.sort_by_key(|(rank, _)| *rank);
    mappings.into_iter().map(|(_, mapping)| mapping).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mappings_of_the_program_come_first() {
        let here = mappings as fn() -> Vec<Mapping> as usize;
        assert!(
            mappings().iter().take(4).any(|mapping| (mapping.start..mapping.start + mapping.length).contains(&here))
        );
    }
}
