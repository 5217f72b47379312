//! Locks leaderrun in memory.
//!
//! If a page of leaderrun's code is not in memory, the kernel reads it from the program file. A network file system may
//! fail together with the API server, and a process that waits for such a page cannot kill the command.

use std::fs::{self, File};
use std::io::Read;

use nix::errno::Errno;
use nix::unistd::{SysconfVar, sysconf};

/// The number of bytes that are read at once. While they are read, other threads cannot map memory.
const READ_AT_ONCE: usize = 128 * 1024;

/// The size of the buffer for /proc/self/maps, in bytes. It grows if necessary.
const MAPS_CAPACITY: usize = 64 * 1024;

/// The number of mappings for which memory is allocated before they are listed.
const MAPPINGS_CAPACITY: usize = 256;

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
/// and the stack. The unused parts are locked when they are first used, which needs no disk. This must be called while
/// there is only one thread.
pub fn lock() -> Locked {
    lock_anonymous().lock()
}

/// Locks the mappings of leaderrun's program and its libraries, as far as that is permitted.
pub fn lock_code() -> Locked {
    mappings(|mappings| FileMappings { mappings, total: Total::default() }).lock()
}

/// Locks the current anonymous mappings, as far as that is permitted, and returns the other mappings. This must be called
/// before threads are started, because the stacks of threads would exceed the limit on locked memory.
pub fn lock_anonymous() -> FileMappings {
    mappings(|mappings| {
        let mut total = Total::default();
        for mapping in mappings.iter().filter(|mapping| mapping.contents == Contents::Anonymous) {
            total.add(mapping, mapping.lock_on_fault());
        }
        FileMappings { mappings, total }
    })
}

/// The mappings of leaderrun's program and its libraries, at the time of [`lock_anonymous`].
#[derive(Clone, Debug, Default)]
pub struct FileMappings {
    /// These mappings and the anonymous ones, which are unlocked again if the limit does not suffice for both.
    mappings: Vec<Mapping>,
    /// The total for the anonymous mappings.
    total: Total,
}

impl FileMappings {
    /// Reads the mappings into memory and locks them, as far as that is permitted. This takes much longer than
    /// [`lock_anonymous`]. Returns how much of leaderrun is locked.
    pub fn lock(self) -> Locked {
        let Self { mappings, mut total } = self;
        for mapping in mappings.iter().filter(|mapping| mapping.contents != Contents::Anonymous) {
            let mut result = mapping.lock_and_read();
            if result.is_err() && total.locked_anonymous > 0 {
                // The limit may be reached. The code is more important, because it has to be read from a disk.
                mappings.iter().filter(|mapping| mapping.contents == Contents::Anonymous).for_each(Mapping::unlock);
                total.locked_anonymous = 0;
                total.failure = result.err();
                result = mapping.lock_and_read();
            }
            total.add(mapping, result);
        }
        let Total { locked_anonymous, locked_files, total, failure } = total;
        let locked = locked_anonymous + locked_files;
        failure.map_or(Locked::Everything, |errno| Locked::Partly { locked, total, errno })
    }
}

/// The sizes of the mappings that have been handled, in bytes, and the last failure.
#[derive(Clone, Debug, Default)]
struct Total {
    locked_anonymous: usize,
    locked_files: usize,
    total: usize,
    failure: Option<Errno>,
}

impl Total {
    fn add(&mut self, mapping: &Mapping, result: nix::Result<()>) {
        self.total += mapping.length;
        match (result, mapping.contents) {
            (Ok(()), Contents::Anonymous) => self.locked_anonymous += mapping.length,
            (Ok(()), _) => self.locked_files += mapping.length,
            (Err(errno), _) => self.failure = Some(errno),
        }
    }
}

/// What a mapping contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Contents {
    /// A part of the program file.
    Program,
    /// A part of another file.
    Library,
    /// No file: the heap, the stack, or memory that leaderrun's two processes share.
    Anonymous,
}

/// A range of this process's memory.
#[derive(Clone, Debug)]
struct Mapping {
    contents: Contents,
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
        let (mut start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
        if name == "[stack]" {
            // If the lowest page were locked, the stack could not grow once the limit on locked memory is reached.
            start += sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|size| usize::try_from(size).ok())?;
        }
        let contents = match name {
            _ if name == program => Contents::Program,
            // The kernel shows memory that the two processes share as this device.
            _ if name.starts_with('/') && name != "/dev/zero" => Contents::Library,
            _ => Contents::Anonymous,
        };
        // These are [vdso], [vvar] and [vsyscall].
        let belongs_to_kernel = name.starts_with("[v");
        (is_readable && !belongs_to_kernel && start < end).then(|| Self { contents, start, length: end - start })
    }

    /// Locks each page of the mapping as soon as the page is in memory.
    fn lock_on_fault(&self) -> nix::Result<()> {
        // SAFETY: locking does not change the contents of the memory, and fails if the mapping no longer exists.
        let result = unsafe { libc::mlock2(self.start as *const libc::c_void, self.length, libc::MLOCK_ONFAULT) };
        Errno::result(result).map(drop)
    }

    fn unlock(&self) {
        // SAFETY: unlocking does not change the contents of the memory, and fails if the mapping no longer exists.
        unsafe { libc::munlock(self.start as *const libc::c_void, self.length) };
    }

    /// Reads the mapping into memory and locks it.
    fn lock_and_read(&self) -> nix::Result<()> {
        self.lock_on_fault()?;
        self.read().or_else(|_| {
            // SAFETY: locking does not change the contents of the memory, and fails if the mapping no longer exists.
            Errno::result(unsafe { libc::mlock(self.start as *const libc::c_void, self.length) }).map(drop)
        })
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

/// Calls `handle` with the current mappings: those of the program file first, then those of its libraries, then the
/// anonymous ones. If they cannot be read, the list is empty.
///
/// All memory for the list is allocated before the list is read, and is freed after `handle` has returned. Otherwise the
/// list could contain a mapping that no longer exists.
fn mappings<T>(handle: impl FnOnce(Vec<Mapping>) -> T) -> T {
    let (mut maps, mut mappings) = (Vec::with_capacity(MAPS_CAPACITY), Vec::with_capacity(MAPPINGS_CAPACITY));
    let program = fs::read_link("/proc/self/exe").unwrap_or_default();
    let program = program.to_string_lossy();
    let _ = File::open("/proc/self/maps").and_then(|mut file| file.read_to_end(&mut maps));
    let lines = maps.split(|byte| *byte == b'\n');
    mappings.extend(lines.filter_map(|line| Mapping::parse(&String::from_utf8_lossy(line), &program)));
    mappings.sort_unstable_by_key(|mapping: &Mapping| (mapping.contents, mapping.start));
    handle(mappings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mappings_of_the_program_come_first() {
        let here = lock as fn() -> Locked as usize;
        let contains_this = |mapping: &Mapping| (mapping.start..mapping.start + mapping.length).contains(&here);
        assert!(mappings(|mappings| mappings.iter().take(4).any(contains_this)));
    }

    #[test]
    fn a_path_that_is_not_utf_8_hides_no_mapping() {
        let maps = String::from_utf8_lossy(b"1000-3000 r-xp 00000000 fe:00 42   /opt/\xff/leaderrun").into_owned();
        let mapping = Mapping::parse(&maps, "/opt/\u{fffd}/leaderrun").unwrap();
        assert_eq!((mapping.contents, mapping.start, mapping.length), (Contents::Program, 0x1000, 0x2000));
    }

    #[test]
    fn the_lowest_page_of_the_stack_is_not_locked() {
        let page = usize::try_from(sysconf(SysconfVar::PAGE_SIZE).unwrap().unwrap()).unwrap();
        let line = "7ff000000000-7ff000100000 rw-p 00000000 00:00 0    [stack]";
        let mapping = Mapping::parse(line, "/opt/leaderrun").unwrap();
        assert_eq!((mapping.start, mapping.length), (0x7ff0_0000_0000 + page, 0x10_0000 - page));
    }
}
