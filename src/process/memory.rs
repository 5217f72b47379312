//! Keeping this program in memory.
//!
//! A page of it that is not there has to be read from the disk that the program is on. When that disk is reached by the
//! network, it vanishes together with the API server, and a process that waits for such a page kills nothing.

use std::fs;

use nix::errno::Errno;

/// How much of the program is locked in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locked {
    Everything,
    /// Not all of it, in bytes, for this reason.
    Partly {
        locked: usize,
        of: usize,
        errno: Errno,
    },
}

/// Locks what is mapped now, as far as that is allowed: all of the program's code, and the stack of this thread. To be
/// called before other threads have stacks of their own, which would be made resident as a whole.
pub fn lock() -> Locked {
    // SAFETY: takes an integer, and changes nothing that can be seen but by its speed.
    if Errno::result(unsafe { libc::mlockall(libc::MCL_CURRENT) }).is_ok() {
        return Locked::Everything;
    }
    let mut refused = None;
    let (mut locked, mut of) = (0, 0);
    for Mapping { start, length } in mappings() {
        of += length;
        // SAFETY: as above; a mapping that is gone by now is an error.
        match Errno::result(unsafe { libc::mlock(start as *const libc::c_void, length) }) {
            Ok(_) => locked += length,
            Err(errno) => refused = Some(errno),
        }
    }
    match refused {
        None => Locked::Everything,
        Some(errno) => Locked::Partly { locked, of, errno },
    }
}

struct Mapping {
    start: usize,
    length: usize,
}

/// Returns what is mapped: this program first, then its libraries, then the rest.
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
                name if name.starts_with('/') => 1,
                _ => 2,
            };
            let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
            let is_special = name.starts_with("[v");
            (is_accessible && !is_special).then_some((rank, Mapping { start, length: end - start }))
        })
        .collect();
    mappings.sort_by_key(|(rank, _)| *rank);
    mappings.into_iter().map(|(_, mapping)| mapping).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_comes_first() {
        let here = mappings as fn() -> Vec<Mapping> as usize;
        assert!(
            mappings().iter().take(4).any(|mapping| (mapping.start..mapping.start + mapping.length).contains(&here))
        );
    }
}
