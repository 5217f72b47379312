//! Commands that try to outlive leaderrun. Each is a [`witness`] with additional behaviors.

use std::env::ArgsOs;
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, id};
use std::thread::sleep;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl;
use nix::sys::signal::kill;
use nix::unistd::{ForkResult, Pid, fork, pause, setpgid, setsid};
use testkit::{Lifetime, nanos_since_boot, witness};

/// The time after which the descendants that record their lifetimes end by themselves, even without leaderrun.
const DESCENDANTS_END_AFTER: Duration = Duration::from_secs(60);

/// The number of processes that a chain still starts, as fast as possible, after the main process has died.
const GENERATIONS_AFTER_DEATH: u32 = 300;

/// The number of bytes that a flood writes to each of stdout and stderr, which is more than a pipe buffers by default.
const FLOOD: usize = 256 * 1024;

/// Runs a command whose behavior is selected by its arguments. It supports the arguments of [`witness::run`] and these:
///
/// - `exec`: it re-executes itself.
/// - `orphan-safe`: it clears its parent-death signal.
/// - `ignore-all`: it ignores every signal that can be ignored.
/// - `reaper`: it becomes the subreaper of its descendants.
/// - `regroup`: it moves to the process group of a child.
/// - `child`: it has a child in its process group that ignores every signal that can be ignored.
/// - `descendants`: it has a chain of descendants, each of which forks the next one and ends.
/// - `flood`: it fills its pipes.
/// - `closed`: it closes all its descriptors.
pub fn run(arguments: ArgsOs) -> ExitCode {
    let arguments: Vec<OsString> = arguments.collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    if has("exec") {
        let program = std::env::current_exe().expect("the path of this program is known");
        let rest = arguments.iter().filter(|argument| *argument != "exec");
        let failure = Command::new(program).arg(witness::FLAG).args(rest).exec();
        panic!("{failure}");
    }
    if has("orphan-safe") {
        prctl::set_pdeathsig(None).expect("the parent-death signal can be cleared");
    }
    if has("ignore-all") {
        ignore_all();
    }
    if has("reaper") {
        prctl::set_child_subreaper(true).expect("this process can become a subreaper");
        ignore(libc::SIGCHLD);
    }
    if has("regroup") {
        leave_process_group();
    }
    if has("child") {
        let directory = Path::new(&arguments[0]);
        in_child(|| run_child(directory));
    }
    if has("descendants") {
        start_chain(Path::new(&arguments[0]));
    }
    if has("flood") {
        flood();
    }
    if has("closed") {
        // SAFETY: no descriptor that is open here is used afterwards.
        unsafe { libc::close_range(0, u32::MAX, 0) };
    }
    witness::run(arguments.into_iter())
}

fn ignore(signal: i32) {
    // nix does not support real-time signals.
    // SAFETY: no handler is installed.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

fn ignore_all() {
    // The call fails for signals that cannot be ignored.
    (1..=libc::SIGRTMAX()).for_each(ignore);
}

/// Runs `work` in a child, which may call any function, because this process has one thread. Returns the child, or
/// `None` if it could not be forked.
fn in_child(work: impl FnOnce()) -> Option<Pid> {
    // SAFETY: this process has one thread.
    match unsafe { fork() }.ok()? {
        ForkResult::Parent { child } => Some(child),
        ForkResult::Child => {
            work();
            // SAFETY: `_exit` has no preconditions. It does not run the exit handlers that this process has inherited.
            unsafe { libc::_exit(0) }
        }
    }
}

/// Moves to the process group of a child that ignores SIGTERM, so that signals to the original group do not reach this
/// process.
fn leave_process_group() {
    let child = in_child(|| {
        ignore(libc::SIGTERM);
        // This child never ends by itself.
        loop {
            pause();
        }
    });
    if let Some(child) = child {
        let _ = setpgid(child, child);
        let _ = setpgid(Pid::from_raw(0), child);
    }
}

fn run_child(directory: &Path) {
    ignore_all();
    let mut lifetime = Lifetime::begin(witness::run_from_environment());
    let Ok(file) = lifetime.create_file(directory) else { return };
    let end = lifetime.started_at + DESCENDANTS_END_AFTER.as_nanos() as u64;
    while lifetime.last_seen_at < end {
        lifetime.last_seen_at = nanos_since_boot();
        lifetime.write(&file);
        sleep(Duration::from_millis(5));
    }
}

fn flood() {
    const CHUNK: [u8; 4096] = [b'~'; 4096];
    in_child(|| {
        for _ in 0..FLOOD / CHUNK.len() {
            let _ = std::io::stdout().write_all(&CHUNK);
            let _ = std::io::stderr().write_all(&CHUNK);
        }
    });
}

/// Starts a chain of orphans. Each lives for a few milliseconds and forks the next one.
fn start_chain(directory: &Path) {
    let main = Pid::from_raw(id() as i32);
    let intermediate = in_child(|| {
        in_child(|| run_chain(directory, main));
    });
    if let Some(intermediate) = intermediate {
        let _ = nix::sys::wait::waitpid(intermediate, None);
    }
}

fn run_chain(directory: &Path, main: Pid) {
    ignore_all();
    let mut lifetime = Lifetime::begin(witness::run_from_environment());
    let Ok(file) = lifetime.create_file(directory) else { return };
    let mut random = fastrand::Rng::with_seed(lifetime.started_at);
    let end = lifetime.started_at + DESCENDANTS_END_AFTER.as_nanos() as u64;
    let mut generations_left = GENERATIONS_AFTER_DEATH;
    loop {
        (lifetime.pid, lifetime.last_seen_at) = (id(), nanos_since_boot());
        lifetime.write(&file);
        match kill(main, None) {
            Err(Errno::ESRCH) => generations_left -= 1,
            _ => sleep(Duration::from_millis(random.u64(..6))),
        }
        if lifetime.last_seen_at > end || generations_left == 0 {
            return;
        }
        if random.bool() {
            let _ = setsid();
        }
        // SAFETY: this process has one thread.
        if let Ok(ForkResult::Parent { .. }) = unsafe { fork() } {
            return;
        }
    }
}
