//! A command that bears witness of when it was alive, and the judge of what many of them wrote.
//!
//! Each process writes, about every millisecond, the present boot time into a file of its own. Two
//! commands were alive at once if the time of one begins before the other's has ended; nobody's log is
//! asked.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal, kill};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{ForkResult, Pid, fork, setsid};

use crate::candidate::eventually;
use crate::scratch;

/// The first argument of a test binary that is started as a command.
pub const FLAG: &str = "--witness";

/// How the verdict begins that leaderrun has failed.
pub const TWO_AT_ONCE: &str = "two commands at once";

/// How a witness behaves: words on its command line.
///
/// - `ignore`: ignores SIGTERM and SIGINT; otherwise it ends at once with status 0.
/// - `linger`: takes three seconds to end after SIGTERM.
/// - `hidden`: has a grandchild in a session of its own, with an empty environment, that ignores SIGTERM.
/// - `ends`: ends by itself, at once, whatever it started goes on.
/// - `life=MILLISECONDS`: ends by itself after so long.
pub fn run(mut words: impl Iterator<Item = OsString>) -> ExitCode {
    let folder = PathBuf::from(words.next().expect("the folder"));
    let words: Vec<String> = words.map(|word| word.into_string().expect("words")).collect();
    let is = |word: &str| words.iter().any(|other| other == word);
    let value = |name: &str| words.iter().find_map(|word| Some(word.strip_prefix(name)?.to_owned()));
    let run = value("run=").unwrap_or_else(run_in_environment);
    let end = value("life=").map_or(u64::MAX, |life| boot_time() + life.parse::<u64>().expect("a number") * 1_000_000);
    let mut life = Life { run: run.clone(), pid: std::process::id(), born: boot_time(), last: boot_time(), told: 0 };
    if is("hidden") {
        hide(&folder, &run);
    }
    let told = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    SigSet::from(Signal::SIGUSR1).thread_block().expect("to block a signal");
    told.thread_block().expect("to block signals");
    let file = File::create(folder.join(format!("{}.{}", life.pid, life.born))).expect("a file to write to");
    life.write(&file);
    if is("ends") {
        return ExitCode::SUCCESS;
    }
    loop {
        life.last = boot_time();
        life.write(&file);
        if told_within(&told, Duration::from_millis(1)) && life.told == 0 {
            life.told = boot_time();
            life.write(&file);
        }
        let patience = if is("linger") { Duration::from_secs(3) } else { Duration::ZERO };
        let obeys = life.told > 0 && !is("ignore") && life.last.saturating_sub(life.told) >= patience.as_nanos() as u64;
        if obeys || life.last >= end {
            return ExitCode::SUCCESS;
        }
    }
}

/// What a witness is called that leaderrun runs: by the fencing token and the holder.
pub fn run_in_environment() -> String {
    let variable = |name| std::env::var(name).expect("run by leaderrun");
    format!("{}.{}", variable("LEADERRUN_FENCING_TOKEN"), variable("LEADERRUN_HOLDER"))
}

/// Starts a witness that nobody would find by process group, session, parent or environment.
fn hide(folder: &Path, run: &str) {
    // SAFETY: this process has one thread; each child only makes system calls before it executes.
    match unsafe { fork() }.expect("a fork") {
        ForkResult::Parent { child } => drop(nix::sys::wait::waitpid(child, None)),
        ForkResult::Child => {
            setsid().expect("a session");
            // SAFETY: as above.
            if let ForkResult::Child = unsafe { fork() }.expect("a fork") {
                let own = std::env::current_exe().expect("this program");
                let words = [FLAG.as_ref(), folder.as_os_str(), "ignore".as_ref()];
                let failure = Command::new(own).args(words).arg(format!("run={run}")).env_clear().exec();
                panic!("{failure}");
            }
            std::process::exit(0);
        }
    }
}

fn told_within(signals: &SigSet, patience: Duration) -> bool {
    let patience = libc::timespec { tv_sec: 0, tv_nsec: patience.as_nanos() as i64 };
    // SAFETY: both pointers are valid for the call, and no siginfo is asked for.
    unsafe { libc::sigtimedwait(signals.as_ref(), std::ptr::null_mut(), &patience) > 0 }
}

/// Nanoseconds since boot.
pub fn boot_time() -> u64 {
    Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME).expect("the time")).as_nanos() as u64
}

/// What one process wrote about itself; times in nanoseconds since boot.
#[derive(Clone, Debug)]
pub struct Life {
    /// The fencing token and the holder, with a dot between them.
    pub run: String,
    pub pid: u32,
    pub born: u64,
    pub last: u64,
    /// When it was first told to end; 0 if it was not.
    pub told: u64,
}

impl Life {
    pub fn write(&self, file: &File) {
        let Life { run, pid, born, last, told } = self;
        let line = format!("{born:020} {last:020} {told:020} {pid} {run}\n");
        file.write_all_at(line.as_bytes(), 0).expect("to write");
    }

    fn parse(text: &str) -> Option<Life> {
        // Behind a line that became shorter is the rest of the one before.
        let mut words = text.lines().next()?.splitn(5, ' ');
        let mut number = || words.next()?.parse().ok();
        let (born, last, told, pid) = (number()?, number()?, number()?, number()? as u32);
        Some(Life { born, last, told, pid, run: words.next()?.to_owned() })
    }

    pub fn token(&self) -> u64 {
        self.run.split('.').next().and_then(|token| token.parse().ok()).expect("a decimal fencing token")
    }

    pub fn holder(&self) -> &str {
        self.run.split_once('.').expect("a holder").1
    }
}

/// The folder that the commands of one test write to.
pub struct Witnesses(PathBuf);

impl Default for Witnesses {
    fn default() -> Self {
        Self::new()
    }
}

impl Witnesses {
    pub fn new() -> Self {
        Self(scratch::folder("witnesses"))
    }

    /// Where they write to. It is on the command line of each of them, and of each leaderrun that runs one.
    pub fn folder(&self) -> &Path {
        &self.0
    }

    /// The command line of a witness that behaves as `words` say.
    pub fn command(&self, words: &[&str]) -> Vec<OsString> {
        let own = std::env::current_exe().expect("this program");
        let fixed = [own.into_os_string(), FLAG.into(), self.0.clone().into_os_string()];
        fixed.into_iter().chain(words.iter().map(OsString::from)).collect()
    }

    /// Every process that wrote something, in the order of their births.
    pub fn lives(&self) -> Vec<Life> {
        let files = fs::read_dir(&self.0).expect("the folder").flatten();
        let mut lives: Vec<Life> =
            files.filter_map(|file| Life::parse(&fs::read_to_string(file.path()).ok()?)).collect();
        lives.sort_by_key(|life| life.born);
        lives
    }

    /// The processes of the command that `holder` ran.
    pub fn of(&self, holder: &str) -> Vec<Life> {
        self.lives().into_iter().filter(|life| life.holder() == holder).collect()
    }

    /// Sends SIGKILL to every process of the command that `holder` ran.
    pub fn kill(&self, holder: &str) {
        for life in self.of(holder) {
            // Some have ended by themselves.
            let _ = kill(Pid::from_raw(life.pid as i32), Signal::SIGKILL);
        }
    }

    /// Waits until `holder` runs its command, with so many processes.
    pub fn wait_for(&self, holder: &str, processes: usize) {
        eventually(&format!("{holder} runs {processes} processes"), || self.of(holder).len() >= processes);
    }

    /// The verdict, of as many runs as there must have been: no two of them at once, and each one's
    /// fencing token greater than the one's before.
    pub fn assert_one_at_a_time(&self, runs: usize) {
        let mut by_run: BTreeMap<(u64, String), (u64, u64)> = BTreeMap::new();
        for life in self.lives() {
            let (born, last) = by_run.entry((life.token(), life.run.clone())).or_insert((life.born, life.last));
            (*born, *last) = ((*born).min(life.born), (*last).max(life.last));
        }
        let in_order_of_tokens: Vec<_> = by_run.into_iter().collect();
        assert_eq!(in_order_of_tokens.len(), runs, "{in_order_of_tokens:?}");
        for pair in in_order_of_tokens.windows(2) {
            let [((_, before), (_, last)), ((_, after), (born, _))] = pair else { unreachable!() };
            assert!(last < born, "{TWO_AT_ONCE}: {before} was alive {} ns after {after} was born", last - born);
        }
    }
}
