//! Commands that misbehave: a [`witness`](crate::witness) that does everything to stay alive first.

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
use nix::unistd::{ForkResult, Pid, fork, setpgid, setsid};

use testkit::witness;
use testkit::{self, Lifetime, boot_time};

/// What a brood does not outlive, whatever becomes of leaderrun.
const BROOD_LIVES: Duration = Duration::from_secs(60);

/// So many generations follow each other as fast as they can when the main process is dead.
const SPRINT: u32 = 300;

/// What a flood writes to each of stdout and stderr: more than a pipe takes.
const FLOOD: usize = 256 * 1024;

/// How a monster behaves: words on its command line, on top of those of a witness.
///
/// - `exec`: executes itself once more.
/// - `orphan-safe`: takes back its parent-death signal.
/// - `deaf`: ignores every signal that can be ignored.
/// - `reaper`: keeps its orphans to itself.
/// - `regroup`: leaves its process group for that of a child.
/// - `breed`: has a chain of descendants, each of which forks the next one and ends.
/// - `flood`: fills its pipes.
/// - `closed`: closes all its descriptors.
pub fn run(arguments: ArgsOs) -> ExitCode {
    let arguments: Vec<OsString> = arguments.collect();
    let is = |word: &str| arguments.iter().any(|argument| argument == word);
    if is("exec") {
        let own = std::env::current_exe().expect("this program");
        let rest = arguments.iter().filter(|word| *word != "exec");
        let failure = Command::new(own).arg(witness::FLAG).args(rest).exec();
        panic!("{failure}");
    }
    if is("orphan-safe") {
        prctl::set_pdeathsig(None).expect("no parent-death signal");
    }
    if is("deaf") {
        ignore_everything();
    }
    if is("reaper") {
        prctl::set_child_subreaper(true).expect("to be a subreaper");
        ignore(libc::SIGCHLD);
    }
    if is("regroup") {
        leave_group();
    }
    if is("breed") {
        breed(Path::new(&arguments[0]));
    }
    if is("flood") {
        flood();
    }
    if is("closed") {
        // SAFETY: nothing here has a descriptor open that it uses afterwards.
        unsafe { libc::close_range(0, u32::MAX, 0) };
    }
    witness::run(arguments.into_iter())
}

fn ignore(signal: i32) {
    // SAFETY: no handler is installed. Not nix's, which knows no real-time signals.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

fn ignore_everything() {
    // Those that cannot be ignored refuse.
    (1..=libc::SIGRTMAX()).for_each(ignore);
}

/// In a child; this process has one thread, so it may do whatever it wants.
fn in_child(work: impl FnOnce()) -> Option<Pid> {
    // SAFETY: as above.
    match unsafe { fork() }.ok()? {
        ForkResult::Parent { child } => Some(child),
        ForkResult::Child => {
            work();
            // SAFETY: ends this process without running what belongs to its parent.
            unsafe { libc::_exit(0) }
        }
    }
}

/// The supervisor's signals to the process group that it made meet nobody but the child.
fn leave_group() {
    let child = in_child(|| {
        ignore(libc::SIGTERM);
        loop {
            sleep(BROOD_LIVES);
        }
    });
    if let Some(child) = child {
        let _ = setpgid(child, child);
        let _ = setpgid(Pid::from_raw(0), child);
    }
}

fn flood() {
    in_child(|| {
        for _ in 0..FLOOD / 4096 {
            let _ = std::io::stdout().write_all(&[b'~'; 4096]);
            let _ = std::io::stderr().write_all(&[b'~'; 4096]);
        }
    });
}

/// A process that is never the same for longer than some milliseconds.
fn breed(folder: &Path) {
    let main = Pid::from_raw(id() as i32);
    let between = in_child(|| {
        in_child(|| brood(folder, main));
    });
    if let Some(between) = between {
        let _ = nix::sys::wait::waitpid(between, None);
    }
}

fn brood(folder: &Path, main: Pid) {
    ignore_everything();
    let mut life = Lifetime::begin(witness::run_from_environment());
    let born = life.started_at;
    let Ok(file) = life.create_file(folder) else { return };
    let mut random = fastrand::Rng::with_seed(born);
    let (end, mut sprint) = (born + BROOD_LIVES.as_nanos() as u64, SPRINT);
    loop {
        (life.pid, life.last_seen_at) = (id(), boot_time());
        life.write(&file);
        match kill(main, None) {
            Err(Errno::ESRCH) => sprint -= 1,
            _ => sleep(Duration::from_millis(random.u64(..6))),
        }
        if life.last_seen_at > end || sprint == 0 {
            return;
        }
        if random.bool() {
            let _ = setsid();
        }
        // SAFETY: as in `in_child`.
        if let Ok(ForkResult::Parent { .. }) = unsafe { fork() } {
            return;
        }
    }
}
