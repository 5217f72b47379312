//! A command that records when it is alive, and assertions about what was recorded.
//!
//! Each witness writes the time since boot into its own file, about every millisecond. Two commands overlapped if
//! the second one started before the last time that the first one wrote. This does not depend on leaderrun's own log.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::hint::spin_loop;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command, ExitCode};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::waitpid;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{ForkResult, Pid, fork, setsid};

use crate::scratch;
use crate::wait::eventually;

/// The first argument of a test binary that runs as a witness.
pub const FLAG: &str = "--witness";

/// The beginning of the failure message for two commands that overlapped.
pub const OVERLAP: &str = "two commands overlapped";

/// The stack size of an additional thread, in bytes.
const SMALL_STACK: usize = 16 * 1024;

/// The time from the first stop signal to the end of a witness with the argument `linger`.
const LINGER: Duration = Duration::from_secs(3);

/// Runs a witness. `arguments` are those after [`FLAG`]: first the directory that it writes to, then arguments that
/// select its behavior:
///
/// - `ignore`: the witness ignores SIGTERM and SIGINT. Otherwise these signals end it with status 0.
/// - `linger`: the witness takes three seconds to end after SIGTERM or SIGINT.
/// - `hidden`: the witness has a grandchild in a separate session, with an empty environment, that ignores SIGTERM.
/// - `worker`: the main thread ends, and another thread continues. /proc then shows the process as a zombie.
/// - `ends`: the witness ends immediately and leaves its descendants running.
/// - `life=MILLISECONDS`: the witness ends after that time.
/// - `busy=NUMBER`: the witness has this many additional threads, which use all the CPU time that they get.
/// - `threads=NUMBER`: the witness has this many additional threads, which do nothing.
/// - `run=TOKEN.HOLDER` or `run=TOKEN.HOLDER@SLOT`: the witness belongs to this run. Otherwise the run is taken from
///   the environment.
pub fn run(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let directory = PathBuf::from(arguments.next().expect("the directory is given"));
    let arguments: Vec<String> =
        arguments.map(|argument| argument.into_string().expect("the arguments are UTF-8")).collect();
    if arguments.iter().any(|argument| argument == "worker") {
        continue_in_worker(directory, arguments);
    }
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let value = |name: &str| arguments.iter().find_map(|argument| Some(argument.strip_prefix(name)?.to_owned()));
    let run = value("run=").unwrap_or_else(run_from_environment);
    let ends_at = value("life=")
        .map_or(u64::MAX, |life| nanos_since_boot() + life.parse::<u64>().expect("the value is a number") * 1_000_000);
    let mut lifetime = Lifetime::begin(run);
    if has("hidden") {
        start_hidden(&directory, &lifetime.run);
    }
    let stop_signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    // SIGUSR1, which some tests send, would end the witness by default.
    SigSet::from(Signal::SIGUSR1).thread_block().expect("the signal can be blocked");
    stop_signals.thread_block().expect("the signals can be blocked");
    for (name, thread_function) in [
        ("threads=", thread::park as fn()),
        ("busy=", || {
            loop {
                spin_loop();
            }
        }),
    ] {
        for _ in 0..value(name).map_or(0, |number| number.parse().expect("the value is a number")) {
            thread::Builder::new().stack_size(SMALL_STACK).spawn(thread_function).expect("a thread can be started");
        }
    }
    let file = lifetime.create_file(&directory).expect("the file can be created");
    lifetime.write(&file);
    if has("ends") {
        return ExitCode::SUCCESS;
    }
    let linger = if has("linger") { LINGER } else { Duration::ZERO }.as_nanos() as u64;
    loop {
        lifetime.last_seen_at = nanos_since_boot();
        lifetime.write(&file);
        if receives_any(&stop_signals, Duration::from_millis(1)) && lifetime.signaled_at == 0 {
            lifetime.signaled_at = nanos_since_boot();
            lifetime.write(&file);
        }
        let signaled = lifetime.signaled_at > 0 && !has("ignore");
        let lingered = lifetime.last_seen_at.saturating_sub(lifetime.signaled_at) >= linger;
        if (signaled && lingered) || lifetime.last_seen_at >= ends_at {
            return ExitCode::SUCCESS;
        }
    }
}

/// Runs a witness in a new thread, and ends the main thread.
fn continue_in_worker(directory: PathBuf, arguments: Vec<String>) -> ! {
    let others: Vec<OsString> =
        arguments.into_iter().filter(|argument| argument != "worker").map(OsString::from).collect();
    thread::spawn(move || {
        run([directory.into_os_string()].into_iter().chain(others));
        process::exit(0);
    });
    // SAFETY: the call only ends this thread, and no other thread uses its stack.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    unreachable!("this thread has ended")
}

/// Returns the name of the run that this process belongs to: the fencing token, holder and slot in its environment.
pub fn run_from_environment() -> String {
    let variable = |name| env::var(name).expect("leaderrun sets this variable");
    let slot = env::var("LEADERRUN_SLOT").map(|slot| format!("@{slot}")).unwrap_or_default();
    format!("{}.{}{slot}", variable("LEADERRUN_FENCING_TOKEN"), variable("LEADERRUN_HOLDER"))
}

/// Starts a witness that cannot be found by its process group, session, parent or environment.
fn start_hidden(directory: &Path, run: &str) {
    // SAFETY: this process has only one thread, so the child cannot inherit a lock that another thread holds.
    match unsafe { fork() }.expect("the process can fork") {
        ForkResult::Parent { child } => drop(waitpid(child, None)),
        ForkResult::Child => {
            setsid().expect("a child can start a session");
            // SAFETY: this process, too, has only one thread.
            if let ForkResult::Child = unsafe { fork() }.expect("the process can fork") {
                let arguments = [FLAG.as_ref(), directory.as_os_str(), "ignore".as_ref()];
                let failure = Command::new(this_program()).args(arguments).arg(format!("run={run}")).env_clear().exec();
                panic!("{failure}");
            }
            process::exit(0);
        }
    }
}

fn this_program() -> PathBuf {
    env::current_exe().expect("the path of this program is known")
}

/// Waits for one of these blocked signals. Returns whether one arrived in time.
fn receives_any(signals: &SigSet, timeout: Duration) -> bool {
    let timeout = libc::timespec { tv_sec: 0, tv_nsec: timeout.as_nanos() as i64 };
    // SAFETY: both references are valid during the call, and a null pointer requests no siginfo.
    unsafe { libc::sigtimedwait(signals.as_ref(), std::ptr::null_mut(), &timeout) > 0 }
}

/// Returns the nanoseconds since boot.
pub fn nanos_since_boot() -> u64 {
    Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME).expect("the clock can be read")).as_nanos() as u64
}

/// The recorded lifetime of one process. Times are in nanoseconds since boot.
#[derive(Clone, Debug)]
pub struct Lifetime {
    /// The run that the process belonged to: `TOKEN.HOLDER`, or `TOKEN.HOLDER@SLOT` if the lock has slots.
    pub run: String,
    pub pid: u32,
    pub started_at: u64,
    pub last_seen_at: u64,
    /// The time at which the first stop signal arrived; 0 if none arrived.
    pub signaled_at: u64,
}

impl Lifetime {
    /// Creates the lifetime of this process, which begins now.
    pub fn begin(run: String) -> Lifetime {
        let now = nanos_since_boot();
        Lifetime { run, pid: process::id(), started_at: now, last_seen_at: now, signaled_at: 0 }
    }

    /// Creates the file that this lifetime is written to.
    ///
    /// # Errors
    /// Fails if the file cannot be created, for example because descriptors are exhausted.
    pub fn create_file(&self, directory: &Path) -> std::io::Result<File> {
        File::create(directory.join(format!("{}.{}", self.pid, self.started_at)))
    }

    /// Replaces the lifetime in `file`.
    pub fn write(&self, file: &File) {
        let Lifetime { run, pid, started_at, last_seen_at, signaled_at } = self;
        let line = format!("{started_at:020} {last_seen_at:020} {signaled_at:020} {pid} {run}\n");
        file.write_all_at(line.as_bytes(), 0).expect("the write succeeds");
    }

    fn parse(text: &str) -> Option<Lifetime> {
        // In the torture test, the processes of a chain of orphans write to the same file, one after another. Writes
        // do not truncate the file, so a line may be followed by the end of an earlier, longer line from a process
        // whose pid had more digits.
        let mut fields = text.lines().next()?.splitn(5, ' ');
        let mut number = || fields.next()?.parse().ok();
        let (started_at, last_seen_at, signaled_at, pid) = (number()?, number()?, number()?, number()? as u32);
        Some(Lifetime { started_at, last_seen_at, signaled_at, pid, run: fields.next()?.to_owned() })
    }

    pub fn token(&self) -> u64 {
        self.run
            .split('.')
            .next()
            .and_then(|token| token.parse().ok())
            .expect("the run begins with a decimal fencing token")
    }

    pub fn holder(&self) -> &str {
        self.holder_and_slot().0
    }

    pub fn slot(&self) -> Option<usize> {
        self.holder_and_slot().1
    }

    fn holder_and_slot(&self) -> (&str, Option<usize>) {
        holder_and_slot(self.run.split_once('.').expect("the run names its holder").1)
    }
}

/// Splits `HOLDER@SLOT`, the end of a run's name.
pub fn holder_and_slot(text: &str) -> (&str, Option<usize>) {
    let with_slot = text.rsplit_once('@').and_then(|(holder, slot)| Some((holder, Some(slot.parse().ok()?))));
    with_slot.unwrap_or((text, None))
}

/// The directory that the commands of one test write to.
pub struct Witnesses(PathBuf);

impl Default for Witnesses {
    fn default() -> Self {
        Self::new()
    }
}

impl Witnesses {
    pub fn new() -> Self {
        Self(scratch::directory("witnesses"))
    }

    /// Returns the directory. It is on the command lines of the witnesses and of leaderrun, so it identifies their
    /// processes in /proc.
    pub fn directory(&self) -> &Path {
        &self.0
    }

    /// Returns the command line of a witness. `arguments` select its behavior (see [`run`]).
    pub fn command(&self, arguments: &[&str]) -> Vec<OsString> {
        let fixed = [this_program().into_os_string(), FLAG.into(), self.0.clone().into_os_string()];
        fixed.into_iter().chain(arguments.iter().map(OsString::from)).collect()
    }

    /// Returns the lifetimes of all processes so far, in the order in which they started.
    pub fn lifetimes(&self) -> Vec<Lifetime> {
        let files = fs::read_dir(&self.0).expect("the directory can be read").flatten();
        let mut lifetimes: Vec<Lifetime> =
            files.filter_map(|file| Lifetime::parse(&fs::read_to_string(file.path()).ok()?)).collect();
        lifetimes.sort_by_key(|lifetime| lifetime.started_at);
        lifetimes
    }

    /// Returns the lifetimes of the processes that `holder` ran.
    pub fn lifetimes_of(&self, holder: &str) -> Vec<Lifetime> {
        self.lifetimes().into_iter().filter(|lifetime| lifetime.holder() == holder).collect()
    }

    /// Waits until `holder` has run this many processes.
    pub fn wait_for(&self, holder: &str, processes: usize) {
        eventually(&format!("{holder} has run {processes} processes"), || self.lifetimes_of(holder).len() >= processes);
    }

    /// Sends SIGKILL to every process that `holder` ran.
    pub fn kill(&self, holder: &str) {
        for lifetime in self.lifetimes_of(holder) {
            // The kill fails if the process has already ended.
            let _ = kill(Pid::from_raw(lifetime.pid as i32), Signal::SIGKILL);
        }
    }

    /// Checks that there were `runs` runs, that no two of them were alive at the same time, and that they started in
    /// the order of their fencing tokens.
    pub fn assert_runs_one_at_a_time(&self, runs: usize) {
        let mut times_by_run: BTreeMap<(u64, String), (u64, u64)> = BTreeMap::new();
        for lifetime in self.lifetimes() {
            let Lifetime { started_at, last_seen_at, .. } = lifetime;
            let run = (lifetime.token(), lifetime.run);
            let (start, last_seen) = times_by_run.entry(run).or_insert((started_at, last_seen_at));
            (*start, *last_seen) = ((*start).min(started_at), (*last_seen).max(last_seen_at));
        }
        let times: Vec<_> = times_by_run.into_iter().collect();
        assert_eq!(times.len(), runs, "{times:?}");
        for pair in times.windows(2) {
            let [((_, before), (_, last_seen)), ((_, after), (start, _))] = pair else { unreachable!() };
            let overlap = last_seen.saturating_sub(*start);
            assert!(last_seen < start, "{OVERLAP}: {before} was alive {overlap} ns after {after} had started");
        }
    }
}
