//! Locks leaderrun in memory.
//!
//! If a page of leaderrun's code is not in memory, the kernel reads it from the program file. A network file system may
//! fail together with the API server, and a process that waits for such a page cannot kill the command.

use std::fs;

use nix::errno::Errno;

/// The smallest size of a page.
const PAGE_SIZE: usize = 4096;

/// The number of bytes that are read at once. While they are read, other threads cannot map memory.
const READ_AT_ONCE: usize = 128 * 1024;

/// Larger mappings without a name are not locked. They are the stacks of threads, which are mostly unused, but would
/// count in full towards the limit on locked memory.
const MAX_UNNAMED: usize = 1024 * 1024;

/// The part of leaderrun that is locked in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locked {
    Everything,
    /// Of the `total` bytes that had to be locked, only `locked` are locked, for the reason in `errno`.
    Partly {
        locked: usize,
        total: usize,
        errno: Errno,
    },
}

/// Returns freed heap memory to the kernel, such as what the parsing of the command line used. Otherwise each of the two
/// processes would have to copy these pages when it used them again after the fork.
pub fn trim() {
    // musl returns free memory on its own.
    #[cfg(target_env = "gnu")]
    // SAFETY: the call takes an integer.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Locks the current mappings, as far as that is permitted: all of leaderrun's code, and the used parts of the heap
/// and the main thread's stack. The unused parts are locked when they are first used, which needs no disk.
pub fn lock() -> Locked {
    let mut failure = None;
    let (mut locked, mut total) = (0, 0);
    for mapping in mappings() {
        match mapping.lock() {
            Ok(()) => locked += mapping.length,
            // Another thread may have unmapped it.
            Err(_) if mapping.kind == MappingKind::Unnamed => continue,
            Err(errno) => failure = Some(errno),
        }
        total += mapping.length;
    }
    failure.map_or(Locked::Everything, |errno| Locked::Partly { locked, total, errno })
}

/// The kind of a mapping, in the order in which mappings are locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum MappingKind {
    Program,
    Library,
    /// The heap, the main thread's stack, or memory that leaderrun's two processes share.
    Named,
    /// Other memory, such as that of thread-local variables.
    Unnamed,
}

/// A range of this process's memory.
#[derive(Debug)]
struct Mapping {
    kind: MappingKind,
    start: usize,
    length: usize,
}

impl Mapping {
    /// Parses a line of /proc/self/maps. `program` is the path of the program file. Returns `None` if the mapping need
    /// not be locked.
    fn parse(line: &str, program: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let is_readable = words.next()?.starts_with('r');
        let name = words.nth(3).unwrap_or_default();
        let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
        let kind = match name {
            "" => MappingKind::Unnamed,
            _ if name == program => MappingKind::Program,
            // The kernel shows memory that the two processes share as this device.
            _ if name.starts_with('/') && name != "/dev/zero" => MappingKind::Library,
            _ => MappingKind::Named,
        };
        let length = end - start;
        // These are [vdso], [vvar] and [vsyscall].
        let belongs_to_kernel = name.starts_with("[v");
        let is_stack_of_thread = kind == MappingKind::Unnamed && length > MAX_UNNAMED;
        (is_readable && !belongs_to_kernel && !is_stack_of_thread).then_some(Self { kind, start, length })
    }

    fn lock(&self) -> nix::Result<()> {
        let (start, length) = (self.start as *const libc::c_void, self.length);
        // Each page is locked as soon as it is in memory.
        // SAFETY: locking does not change the contents of the memory, and fails if the mapping no longer exists.
        let locked = Errno::result(unsafe { libc::mlock2(start, length, libc::MLOCK_ONFAULT) });
        let is_read = match (locked, self.kind) {
            (Ok(_), MappingKind::Program) => {
                self.touch();
                true
            }
            (Ok(_), MappingKind::Library) => self.read().is_ok(),
            (Ok(_), MappingKind::Named | MappingKind::Unnamed) => true,
            // Kernels before Linux 4.4 do not support mlock2(2).
            (Err(Errno::ENOSYS), _) => false,
            (Err(errno), _) => return Err(errno),
        };
        if is_read {
            return Ok(());
        }
        // SAFETY: as above.
        Errno::result(unsafe { libc::mlock(start, length) }).map(drop)
    }

    /// Reads a mapping of the program file into memory by accessing each page. Page faults do not keep other threads
    /// from mapping memory, and at each of them the kernel maps several pages that it already has in memory.
    fn touch(&self) {
        for page in (self.start..self.start + self.length).step_by(PAGE_SIZE) {
            // SAFETY: the mapping is readable, and the program file stays mapped until the process ends.
            unsafe { (page as *const u8).read_volatile() };
        }
    }

    /// Reads the mapping into memory, in small parts. mlock(2) would keep other threads from mapping memory until the
    /// whole mapping is read.
    ///
    /// # Errors
    /// Fails if the mapping cannot be read, or on kernels before Linux 5.14, which do not support `MADV_POPULATE_READ`.
    fn read(&self) -> nix::Result<()> {
        let end = self.start + self.length;
        for part in (self.start..end).step_by(READ_AT_ONCE) {
            let length = READ_AT_ONCE.min(end - part);
            // SAFETY: the call does not change the contents of the memory, and fails if the mapping no longer exists.
            Errno::result(unsafe { libc::madvise(part as *mut libc::c_void, length, libc::MADV_POPULATE_READ) })?;
        }
        Ok(())
    }
}

/// Returns the mappings to lock: those of the program file first, then those of its libraries, then the rest.
fn mappings() -> Vec<Mapping> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let program = fs::read_link("/proc/self/exe").unwrap_or_default();
    let program = program.to_str().unwrap_or_default();
    let mut mappings: Vec<_> = maps.lines().filter_map(|line| Mapping::parse(line, program)).collect();
    mappings.sort_by_key(|mapping| mapping.kind);
    mappings
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn the_mappings_of_the_program_come_first() {
        let here = mappings as fn() -> Vec<Mapping> as usize;
        assert!(
            mappings().iter().take(4).any(|mapping| (mapping.start..mapping.start + mapping.length).contains(&here))
        );
    }

    #[test]
    fn the_stacks_of_other_threads_are_not_locked() {
        let contains = |address: usize| {
            mappings().iter().any(|mapping| (mapping.start..mapping.start + mapping.length).contains(&address))
        };
        let on_heap = Box::new(0);
        assert!(contains(&raw const *on_heap as usize));
        let on_stack = thread::spawn(move || {
            let local = 0;
            contains(&raw const local as usize)
        });
        assert!(!on_stack.join().unwrap());
    }
}
