//! Reads /proc without allocating, because a kill must not wait for memory.
//!
//! The list of children is read through a descriptor that stays open, so a kill also works when the command has used up
//! every descriptor on the machine.

use std::fmt;
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use leaderrun_core::instant::Instant;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, fstatat};
use nix::sys::uio::pread;
use nix::unistd::{Pid, getpid, read};
use rustix::fs::{RawDir, readlinkat_raw};

use crate::process::pidfd::PidFd;

/// How many bytes of a file are read at once.
const READ_SIZE: usize = 4096;

/// The start of the line in `/proc/PID/status` that lists the pids of a process, one for each PID namespace from that
/// of /proc down to the process's own. Includes the preceding line break.
const NSPID_PREFIX: &[u8] = b"\nNSpid:";

/// The maximum length of a line that [`Proc::read_line`] finds. This is enough for the `NSpid` line, because a process
/// has at most 33 pids.
const MAX_LINE_LENGTH: usize = 512;

/// Reading the list of children stops after about this many bytes, which is enough for more than a hundred thousand
/// children.
const MAX_CHILDREN_LENGTH: i64 = 1 << 20;

/// The symlink in `/proc/PID` that identifies the PID namespace of the process.
const NAMESPACE_LINK: &str = "ns/pid";

/// The maximum length of the target of [`NAMESPACE_LINK`].
const MAX_LINK_LENGTH: usize = 64;

/// An open /proc.
///
/// /proc may belong to an outer PID namespace (for example after `unshare --pid` without `--mount-proc`). Processes
/// then have different pids there than in this process's namespace. Here, the *number* of a process is its pid in the
/// namespace of /proc, an `i32`. Its pid in this process's namespace is a [`Pid`].
#[derive(Debug)]
pub struct Proc {
    root: OwnedFd,
    children: OwnedFd,
    /// How many pids a process in this PID namespace has on its `NSpid` line: one for each namespace from that of /proc
    /// down to this one.
    depth: usize,
    ticks_per_second: u64,
    /// When this process was started, in clock ticks since boot.
    own_start: u64,
    /// The target of this process's [`NAMESPACE_LINK`], if it can be read.
    namespace: Option<Vec<u8>>,
}

/// A process, identified by its number and its start time, because numbers are reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub number: i32,
    /// When the process was started, in clock ticks since boot.
    pub started: u64,
}

/// A process or thread as /proc lists it. If a number is reused, the new process has a different inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    pub number: i32,
    /// The inode of its directory.
    pub inode: u64,
}

/// The fields of `/proc/PID/stat` that leaderrun uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    pub state: u8,
    pub parent: i32,
    pub threads: u32,
    pub started: u64,
}

impl Stat {
    /// Returns whether the process is dead and only needs to be reaped. A process whose main thread has ended while
    /// other threads continue is alive, although /proc shows it as a zombie.
    pub fn is_dead(&self) -> bool {
        self.has_thread_ended() && self.threads <= 1
    }

    /// Returns whether the thread that this describes has ended. If the `Stat` was read with the number of a process,
    /// it describes the main thread of that process.
    pub fn has_thread_ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }

    /// Returns whether the thread is running or waiting for a CPU.
    pub fn is_runnable(&self) -> bool {
        self.state == b'R'
    }

    /// Returns whether the process cannot fork, because it is dead or stopped.
    pub fn is_dead_or_stopped(&self) -> bool {
        self.is_dead() || matches!(self.state, b'T' | b't')
    }
}

/// The pid of a process, and how its PID namespace relates to that of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PidInfo {
    /// The pid in the PID namespace of this process.
    pub pid: Pid,
    /// Whether the process is in a PID namespace below that of this process.
    pub is_nested: bool,
}

impl Proc {
    /// Opens /proc for the current thread, whose children [`for_each_child`](Self::for_each_child) lists.
    ///
    /// # Errors
    /// Fails if /proc is not mounted, if the kernel provides no `children` file or no `NSpid` line, or if there is no
    /// free descriptor.
    pub fn open() -> io::Result<Self> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let root = open("/proc", flags | OFlag::O_DIRECTORY, Mode::empty())?;
        let children = openat(&root, "thread-self/children", flags, Mode::empty())?;
        // SAFETY: sysconf takes an integer.
        let ticks_per_second = u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).unwrap_or(100).max(1);
        let mut proc = Self { root, children, depth: 0, ticks_per_second, own_start: 0, namespace: None };
        let mut buffer = [0; READ_SIZE];
        let pids = proc.read_line("self/status", NSPID_PREFIX, &mut buffer).map_err(|errno| match errno {
            Errno::ESRCH => io::Error::other("/proc/self/status has no NSpid line; use a kernel with CONFIG_PID_NS"),
            errno => errno.into(),
        })?;
        proc.depth = parse_numbers(pids).count();
        let mut buffer = [0; READ_SIZE];
        proc.own_start = parse_stat(proc.read("self/stat", &mut buffer)?).ok_or(Errno::EINVAL)?.started;
        let mut buffer = [MaybeUninit::uninit(); MAX_LINK_LENGTH];
        let link = readlinkat_raw(&proc.root, "self/ns/pid", &mut buffer[..]);
        proc.namespace = link.ok().map(|(namespace, _)| namespace.to_vec());
        if proc.depth == 0 {
            return Err(io::Error::other(
                "the NSpid line in /proc/self/status contains no pid; use a kernel with CONFIG_PID_NS",
            ));
        }
        Ok(proc)
    }

    /// Returns when this process was started, in clock ticks since boot.
    pub fn own_start(&self) -> u64 {
        self.own_start
    }

    /// Converts an instant to clock ticks since boot, rounding down.
    pub fn ticks(&self, instant: Instant) -> u64 {
        let since_boot: Duration = instant.since_boot();
        since_boot.as_secs() * self.ticks_per_second
            + u64::from(since_boot.subsec_millis()) * self.ticks_per_second / 1000
    }

    /// Calls `visit` with the number of each child of the thread that called [`open`](Self::open), including dead
    /// children. The list has a maximum length, so the call returns even if children are created faster than they are
    /// visited.
    ///
    /// # Errors
    /// Fails if /proc cannot be read.
    pub fn for_each_child(&self, visit: impl FnMut(i32)) -> nix::Result<()> {
        for_each_in_children_file(&self.children, visit)
    }

    /// Calls `visit` with the number of each child of a thread of a process.
    ///
    /// # Errors
    /// Returns `ENOENT` or `ESRCH` if there is no such thread. Also fails if there is no free descriptor.
    pub fn for_each_child_of(&self, number: i32, thread: i32, visit: impl FnMut(i32)) -> nix::Result<()> {
        let mut path = [0; PATH_SIZE];
        let path = format_path(&mut path, format_args!("{number}/task/{thread}/children"));
        for_each_in_children_file(&openat(&self.root, path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?, visit)
    }

    /// Calls `visit` with each process, in ascending order of the numbers, until it returns false.
    ///
    /// # Errors
    /// Fails if /proc cannot be listed, or if there is no free descriptor.
    pub fn for_each_process(&self, visit: impl FnMut(Listed) -> bool) -> nix::Result<()> {
        // A forked process shares the directory offset of `root`, so its listing would disturb this one. Each listing
        // therefore opens its own descriptor.
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_DIRECTORY;
        for_each_numbered_entry(&openat(&self.root, ".", flags, Mode::empty())?, visit)
    }

    /// Calls `visit` with the number of each thread of a process until it returns false. [`stat`](Self::stat)
    /// accepts these numbers too, and then returns the state of the thread.
    ///
    /// # Errors
    /// Returns `ENOENT` or `ESRCH` if there is no such process or /proc hides it. Also fails if there is no free
    /// descriptor.
    pub fn for_each_thread(&self, number: i32, mut visit: impl FnMut(i32) -> bool) -> nix::Result<()> {
        for_each_numbered_entry(&self.open_file(number, "task")?, |thread| visit(thread.number))
    }

    /// Reads the `stat` file of a process or a thread.
    ///
    /// The file is read from the directory of the thread with this number (`NUMBER/task/NUMBER`). The file in the
    /// directory of the process has the same fields, but reading it takes 0.1 ms for each thousand threads of the
    /// process, because the kernel adds up their CPU times.
    ///
    /// # Errors
    /// Returns `ENOENT` or `ESRCH` if there is no such process or /proc hides it. Also fails if there is no free
    /// descriptor.
    pub fn stat(&self, number: i32) -> nix::Result<Stat> {
        let (mut path, mut buffer) = ([0; PATH_SIZE], [0; READ_SIZE]);
        let path = format_path(&mut path, format_args!("{number}/task/{number}/stat"));
        parse_stat(self.read(path, &mut buffer)?).ok_or(Errno::EINVAL)
    }

    /// Returns the number of a thread that has not ended. Prefers the main thread of the process to its other threads.
    /// Returns `None` if all threads have ended.
    pub fn live_thread(&self, number: i32) -> Option<i32> {
        let is_live = |thread| self.stat(thread).is_ok_and(|stat| !stat.has_thread_ended());
        let mut live = Some(number).filter(|main| is_live(*main));
        if live.is_none() {
            let _ = self.for_each_thread(number, |thread| {
                live = Some(thread).filter(|thread| is_live(*thread));
                live.is_none()
            });
        }
        live
    }

    /// Returns the length of the environment of a process, in bytes, or zero if this process is not permitted to read
    /// it. Returns `None` if the process has no environment, because it is in the middle of an exec or is dead, or if
    /// /proc cannot be read.
    pub fn environment_length(&self, number: i32) -> Option<u64> {
        let mut buffer = [0; READ_SIZE];
        environment_length(self.read_file(number, "stat", &mut buffer).ok()?)
    }

    /// Returns the number of threads of a process. A call takes a fifth of the time of [`stat`](Self::stat), and needs
    /// no descriptor.
    ///
    /// # Errors
    /// Returns `ENOENT` or `ESRCH` if there is no such process or /proc hides it.
    pub fn threads(&self, number: i32) -> nix::Result<u32> {
        let status = fstatat(&self.root, path(&mut [0; PATH_SIZE], number, "task"), AtFlags::empty())?;
        // Every directory has two links, and this one has another link for each thread.
        Ok(u32::try_from(status.st_nlink.saturating_sub(2)).unwrap_or(u32::MAX))
    }

    /// Like [`try_pid_info`](Self::try_pid_info), but returns `None` if that fails.
    pub fn pid_info(&self, number: i32) -> Option<PidInfo> {
        self.try_pid_info(number).ok().flatten()
    }

    /// Returns the pid of a process and whether it is in a nested PID namespace; `None` if the process is in a
    /// namespace above that of this process.
    ///
    /// # Errors
    /// Fails if there is no such process or no free descriptor.
    pub fn try_pid_info(&self, number: i32) -> nix::Result<Option<PidInfo>> {
        if self.numbers_are_pids() && self.is_in_own_namespace(number) {
            return Ok(Some(PidInfo { pid: Pid::from_raw(number), is_nested: false }));
        }
        let mut buffer = [0; READ_SIZE];
        let line = self.read_line(path(&mut [0; PATH_SIZE], number, "status"), NSPID_PREFIX, &mut buffer)?;
        let (mut pid, mut count) = (None, 0);
        for number in parse_numbers(line) {
            count += 1;
            if count == self.depth {
                pid = Some(Pid::from_raw(number));
            }
        }
        Ok(pid.map(|pid| PidInfo { pid, is_nested: count > self.depth }))
    }

    /// Returns the number of the process that a pidfd refers to; `None` if the process has been reaped or has no
    /// number in /proc.
    ///
    /// # Errors
    /// Fails if there is no free descriptor.
    pub fn number_of(&self, fd: &PidFd) -> nix::Result<Option<i32>> {
        let (mut path, mut buffer) = ([0; PATH_SIZE], [0; READ_SIZE]);
        let path = format_path(&mut path, format_args!("self/fdinfo/{}", fd.as_fd().as_raw_fd()));
        let number = self.read_line(path, b"\nPid:", &mut buffer)?;
        Ok(parse_number(number.trim_ascii()).filter(|number| *number > 0))
    }

    /// Reads the line that begins with `start`, and returns the rest of it. `start` includes the line break before the
    /// line. The file is read in parts, because in `status` the list of groups, which comes before the `NSpid` line,
    /// can be much longer than the buffer. Returns `ESRCH` if there is no such line.
    fn read_line<'a>(&self, path: &str, start: &[u8], buffer: &'a mut [u8; READ_SIZE]) -> nix::Result<&'a [u8]> {
        let file = openat(&self.root, path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        let mut filled = 0;
        let (from, to) = loop {
            let count = read(&file, &mut buffer[filled..])?;
            filled += count;
            let found = buffer[..filled].windows(start.len()).position(|window| window == start);
            let from = found.map_or(filled, |found| found + start.len());
            if let Some(length) = buffer[from..filled].iter().position(|byte| *byte == b'\n') {
                break (from, from + length);
            }
            if count == 0 {
                return Err(Errno::ESRCH);
            }
            // The line may have begun at the end of what was read.
            let kept = filled.min(MAX_LINE_LENGTH);
            buffer.copy_within(filled - kept..filled, 0);
            filled = kept;
        };
        Ok(&buffer[from..to])
    }

    /// Returns whether a process is in the PID namespace of this process. Returns false if that is not known, for
    /// example because the process belongs to another user. A call takes a third of the time of [`stat`](Self::stat).
    pub fn is_in_own_namespace(&self, number: i32) -> bool {
        let (mut path, mut buffer) = ([0; PATH_SIZE], [MaybeUninit::uninit(); MAX_LINK_LENGTH]);
        let link = readlinkat_raw(&self.root, self::path(&mut path, number, NAMESPACE_LINK), &mut buffer[..]);
        link.is_ok_and(|(namespace, _)| self.namespace.as_deref() == Some(namespace))
    }

    /// Returns the real user ID of a process.
    ///
    /// # Errors
    /// Fails if there is no such process, if /proc hides it, or if there is no free descriptor.
    pub fn owner(&self, number: i32) -> nix::Result<u32> {
        let mut buffer = [0; READ_SIZE];
        let status = self.read_file(number, "status", &mut buffer)?;
        let line =
            status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"Uid:")).ok_or(Errno::EINVAL)?;
        let real = line.split(u8::is_ascii_whitespace).find(|word| !word.is_empty()).ok_or(Errno::EINVAL)?;
        std::str::from_utf8(real).ok().and_then(|real| real.parse().ok()).ok_or(Errno::EINVAL)
    }

    /// Returns the pid of the process with this number in /proc. Returns `None` if /proc belongs to another PID
    /// namespace, and the process either has no pid in this process's namespace or cannot be read.
    pub fn pid(&self, number: i32) -> Option<Pid> {
        if self.numbers_are_pids() { Some(Pid::from_raw(number)) } else { Some(self.pid_info(number)?.pid) }
    }

    /// Returns whether /proc belongs to the PID namespace of this process, so that numbers in /proc are pids.
    fn numbers_are_pids(&self) -> bool {
        self.depth == 1
    }

    /// Reads the beginning of one of the files about a process.
    ///
    /// # Errors
    /// Fails if there is no such process, no free descriptor or no permission.
    pub fn read_file<'a>(&self, number: i32, file: &str, buffer: &'a mut [u8]) -> nix::Result<&'a [u8]> {
        self.read(path(&mut [0; PATH_SIZE], number, file), buffer)
    }

    /// Opens one of the files about a process.
    ///
    /// # Errors
    /// Fails if there is no such process, no free descriptor or no permission.
    pub fn open_file(&self, number: i32, file: &str) -> nix::Result<OwnedFd> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        openat(&self.root, path(&mut [0; PATH_SIZE], number, file), flags, Mode::empty())
    }

    fn read<'a>(&self, path: &str, buffer: &'a mut [u8]) -> nix::Result<&'a [u8]> {
        let file = openat(&self.root, path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        let length = read(&file, buffer)?;
        Ok(&buffer[..length])
    }

    /// Returns whether a process is alive. It counts as alive if /proc cannot be read.
    pub fn is_alive(&self, process: Identity) -> bool {
        match self.stat(process.number) {
            Ok(stat) => stat.started == process.started && !stat.is_dead(),
            Err(errno) => !matches!(errno, Errno::ENOENT | Errno::ESRCH),
        }
    }

    /// Sends a signal to a child of the process that opened this [`Proc`]. The child's number cannot have been reused,
    /// because only that process can reap the child.
    ///
    /// # Errors
    /// Fails if the signal is not permitted.
    pub fn signal_child(&self, number: i32, signal: Signal) -> nix::Result<()> {
        // In a process that `as_user` has forked, the listed children are those of the parent, and this process is one
        // of them.
        let pid = self.pid(number).filter(|pid| *pid != getpid());
        ignore_dead(pid.map_or(Ok(()), |pid| kill(pid, signal)))
    }

    /// Sends a signal to `process`, whose pid is `pid`, but not to a later process with the same number. Does nothing
    /// if `process` is dead or is this process.
    ///
    /// # Errors
    /// Fails if the signal is not permitted, or if there is no free descriptor.
    pub fn signal(&self, process: Identity, pid: Pid, signal: Signal) -> nix::Result<()> {
        if pid == getpid() {
            return Ok(());
        }
        let errno = |failure: io::Error| Errno::from_raw(failure.raw_os_error().unwrap_or(libc::EIO));
        let fd = match PidFd::open_raw(pid) {
            Ok(fd) => fd,
            Err(errno) => return ignore_dead(Err(errno)),
        };
        // The check must come after the descriptor has been opened: if the process is alive now, the descriptor refers
        // to it and not to a later process with the same number.
        if !self.is_alive(process) {
            return Ok(());
        }
        ignore_dead(fd.signal(signal).map_err(errno))
    }
}

fn ignore_dead(result: nix::Result<()>) -> nix::Result<()> {
    match result {
        Err(Errno::ESRCH) => Ok(()),
        result => result,
    }
}

const PATH_SIZE: usize = 40;

fn path<'a>(buffer: &'a mut [u8; PATH_SIZE], number: i32, file: &str) -> &'a str {
    format_path(buffer, format_args!("{number}/{file}"))
}

/// Formats a path without allocating. The longest path is 2147483647/task/2147483647/children.
fn format_path<'a>(buffer: &'a mut [u8; PATH_SIZE], path: fmt::Arguments<'_>) -> &'a str {
    let mut rest = &mut buffer[..];
    let _ = rest.write_fmt(path);
    let length = PATH_SIZE - rest.len();
    std::str::from_utf8(&buffer[..length]).unwrap_or_default()
}

/// Calls `visit` with each number in an open `children` file.
fn for_each_in_children_file(file: &OwnedFd, mut visit: impl FnMut(i32)) -> nix::Result<()> {
    let mut buffer = [0; READ_SIZE];
    let mut offset = 0;
    let mut number = 0;
    while offset < MAX_CHILDREN_LENGTH {
        match pread(file, &mut buffer, offset) {
            Ok(0) => return Ok(()),
            Ok(length) => {
                offset += length as i64;
                for byte in &buffer[..length] {
                    if byte.is_ascii_digit() {
                        number = number * 10 + i32::from(byte - b'0');
                    } else if number > 0 {
                        visit(number);
                        number = 0;
                    }
                }
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Calls `visit` with each entry of a directory that is a number, until it returns false.
fn for_each_numbered_entry(directory: &OwnedFd, mut visit: impl FnMut(Listed) -> bool) -> nix::Result<()> {
    let mut buffer = [MaybeUninit::uninit(); 8 * READ_SIZE];
    let mut entries = RawDir::new(directory, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(|failure| Errno::from_raw(failure.raw_os_error()))?;
        if let Some(number) = parse_number(entry.file_name().to_bytes())
            && !visit(Listed { number, inode: entry.ino() })
        {
            break;
        }
    }
    Ok(())
}

fn parse_number(text: &[u8]) -> Option<i32> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Parses the contents of a `stat` file.
fn parse_stat(stat: &[u8]) -> Option<Stat> {
    let mut fields = fields_after_name(stat)?;
    let state = *fields.next()?.first()?;
    let parent = parse_number(fields.next()?)?;
    // `nth(15)` skips the fields from the process group to the nice value, and `nth(1)` skips the interval timer.
    let threads = u32::try_from(parse_u64(fields.nth(15)?)?).ok()?;
    let started = parse_u64(fields.nth(1)?)?;
    Some(Stat { state, parent, threads, started })
}

/// Returns the length of the environment according to a `stat` file; `None` if the process is in the middle of an exec
/// or is dead. During an exec, the address of the code is zero until the addresses of the environment have been set.
fn environment_length(stat: &[u8]) -> Option<u64> {
    let mut fields = fields_after_name(stat)?;
    // The first `nth(23)` skips the fields from the state to the limit of the resident set, and the second one skips
    // those from the end of the code to the end of the arguments.
    let code_start = parse_u64(fields.nth(23)?)?;
    let (start, end) = (parse_u64(fields.nth(23)?)?, parse_u64(fields.next()?)?);
    if code_start > 0 { end.checked_sub(start) } else { None }
}

/// Returns the fields of a `stat` file after the name. The name, in parentheses, can contain any character, including
/// parentheses and line breaks.
fn fields_after_name(stat: &[u8]) -> Option<impl Iterator<Item = &[u8]>> {
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    Some(stat[name_end + 1..].split(u8::is_ascii_whitespace).filter(|field| !field.is_empty()))
}

fn parse_u64(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

fn parse_numbers(line: &[u8]) -> impl Iterator<Item = i32> {
    line.split(u8::is_ascii_whitespace).filter_map(parse_number)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::process::Command;
    use std::sync::Barrier;
    use std::thread;

    use super::*;
    use crate::process::clock;

    #[test]
    fn stat_is_parsed_even_if_the_process_name_contains_parentheses_and_line_breaks() {
        let stat = b"42 (a) S 1 (b\n) R 7 42 42 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 14 0 12345 0 0";
        assert_eq!(parse_stat(stat), Some(Stat { state: b'R', parent: 7, threads: 14, started: 12345 }));
    }

    #[test]
    fn a_process_is_alive_while_another_thread_outlives_the_main_thread() {
        let stat = |state, threads| Stat { state, parent: 1, threads, started: 1 };
        assert!(stat(b'Z', 1).is_dead() && stat(b'X', 0).is_dead());
        assert!(!stat(b'Z', 2).is_dead() && !stat(b'Z', 2).is_dead_or_stopped() && !stat(b'S', 1).is_dead());
    }

    #[test]
    fn the_nspid_line_is_found_after_a_long_list_of_groups() {
        let directory = tempfile::tempdir().unwrap();
        let proc = Proc { root: File::open(directory.path()).unwrap().into(), ..Proc::open().unwrap() };
        for groups in [0, 1, 350, 700, 65_536] {
            let groups: String = (0..groups).map(|group| format!("{} ", 100_000 + group)).collect();
            let status = format!("Name:\tx\nGroups:\t{groups}\nNSpid:\t4711\t12\t1\nThreads:\t1\n");
            std::fs::write(directory.path().join("status"), status).unwrap();
            let mut buffer = [0; READ_SIZE];
            let line = proc.read_line("status", NSPID_PREFIX, &mut buffer).unwrap();
            assert_eq!(parse_numbers(line).collect::<Vec<_>>(), [4711, 12, 1]);
        }
        std::fs::write(directory.path().join("status"), "Name:\tx\n").unwrap();
        assert_eq!(proc.read_line("status", NSPID_PREFIX, &mut [0; READ_SIZE]), Err(Errno::ESRCH));
    }

    #[test]
    fn the_number_of_a_process_is_found_from_its_pidfd() {
        let proc = Proc::open().unwrap();
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let number = i32::try_from(child.id()).unwrap();
        let fd = PidFd::open(Pid::from_raw(number)).unwrap();
        assert_eq!(proc.number_of(&fd), Ok(Some(number)));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(proc.number_of(&fd), Ok(None));
    }

    #[test]
    fn this_process_is_listed_and_is_not_nested() {
        let proc = Proc::open().unwrap();
        let own = proc.pid_info(getpid().as_raw()).unwrap();
        assert_eq!(own, PidInfo { pid: getpid(), is_nested: false });
        assert!(proc.is_in_own_namespace(getpid().as_raw()));
        let mut found = false;
        proc.for_each_process(|process| {
            found |= process.number == getpid().as_raw();
            true
        })
        .unwrap();
        assert!(found);
    }

    #[test]
    fn all_threads_of_a_process_are_counted() {
        const THREADS: usize = 10;
        let (proc, barrier) = (Proc::open().unwrap(), Barrier::new(THREADS + 1));
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let single = proc.threads(i32::try_from(child.id()).unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(single, Ok(1));
        thread::scope(|scope| {
            (0..THREADS).for_each(|_| drop(scope.spawn(|| barrier.wait())));
            let many = proc.threads(getpid().as_raw());
            barrier.wait();
            assert!(many.is_ok_and(|many| many as usize > THREADS), "{many:?}");
        });
    }

    /// Measures how long a read takes, because the supervisor reads the states of many threads, possibly under a CPU
    /// limit.
    #[test]
    fn reading_the_state_of_a_process_does_not_visit_all_its_threads() {
        const THREADS: usize = 1000;
        let (proc, number, barrier) = (Proc::open().unwrap(), getpid().as_raw(), Barrier::new(THREADS + 1));
        let read_many = |read: &dyn Fn()| {
            let started_at = clock::cpu_time();
            (0..100).for_each(|_| read());
            clock::cpu_time().saturating_sub(started_at)
        };
        // The minimum is used, because other programs on the machine can only make a measurement longer.
        let shortest = |read: &dyn Fn()| (0..20).map(|_| read_many(read)).min().unwrap();
        thread::scope(|scope| {
            for _ in 0..THREADS {
                thread::Builder::new().stack_size(32 * 1024).spawn_scoped(scope, || barrier.wait()).unwrap();
            }
            let thread_read = shortest(&|| assert!(proc.stat(number).is_ok()));
            let process_read = shortest(&|| assert!(proc.read_file(number, "stat", &mut [0; READ_SIZE]).is_ok()));
            barrier.wait();
            assert!(
                thread_read * 5 < process_read * 4,
                "reading the main thread's stat took {thread_read:?}, the whole process's {process_read:?}"
            );
        });
    }
}
