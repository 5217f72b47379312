//! Tests of a leader under CPU limits and load. This command makes the measurements for the last table in the section
//! "CPU limits" of `docs/safety.md`:
//!
//! ```console
//! LEADERRUN_CPU_LIMIT_TRIALS=3 cargo test --test processes -- cpu_limits --nocapture
//! ```
//!
//! `LEADERRUN_CPU_LIMIT_TRIALS` is the number of trials for each row of the output. A row shows the worst outcome.

use std::ffi::{CString, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use serde_json::Value;
use testkit::exit_status::LOST;
use testkit::witness::nanos_since_boot;
use testkit::{Candidate, Cluster, Match, Proxy, Running, TIMEOUT, TestLock, Witnesses, eventually};

/// The CPU limits under which leaderrun is measured, in percent of one CPU. `None` means no limit.
const LIMITS: [Option<u32>; 5] = [Some(5), Some(10), Some(20), Some(50), None];

/// How many busy threads the command runs. Each number is measured separately.
const BUSY_THREADS: [u32; 4] = [0, 16, 64, 200];

/// leaderrun's default durations. Most other tests use shorter ones.
const TIMING: [&str; 6] = ["--lease-duration", "15s", "--renew-deadline", "10s", "--retry-period", "2s"];

/// How long the load lasts before the partition.
const LOAD_TIME: Duration = Duration::from_secs(15);

/// The bit of SIGKILL in a signal mask.
const SIGKILL_BIT: u64 = 1 << (libc::SIGKILL - 1);

const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// A version of the cgroup interface, and the paths and values that it uses.
struct CgroupVersion {
    /// The directory in which cgroups are created.
    root: &'static str,
    limit_file: &'static str,
    weight_file: &'static str,
    /// The largest CPU weight. The tests' cgroups get it so that other programs do not starve them.
    max_weight: &'static str,
}

const CGROUP_VERSIONS: [CgroupVersion; 2] = [
    CgroupVersion {
        root: "/sys/fs/cgroup/cpu",
        limit_file: "cpu.cfs_quota_us",
        weight_file: "cpu.shares",
        max_weight: "262144",
    },
    CgroupVersion { root: "/sys/fs/cgroup", limit_file: "cpu.max", weight_file: "cpu.weight", max_weight: "10000" },
];

/// A cgroup that is removed when dropped.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new() -> Self {
        let version = Self::version();
        let directory =
            Path::new(version.root).join(format!("leaderrun-test-{}-{:x}", std::process::id(), fastrand::u32(..)));
        fs::create_dir(&directory).expect("the cgroup can be created");
        fs::write(directory.join(version.weight_file), version.max_weight).expect("the weight can be set");
        Self(directory)
    }

    fn limited_to(percent: u32) -> Self {
        let cgroup = Self::new();
        cgroup.limit_to(percent);
        cgroup
    }

    /// Limits the CPU time to a percentage of one CPU.
    fn limit_to(&self, percent: u32) {
        // The limit is in microseconds for each period of 100 ms.
        let microseconds = percent * 1000;
        fs::write(self.0.join(Self::version().limit_file), microseconds.to_string()).expect("the limit can be set");
    }

    /// Removes the limit. Under a limit, killed threads may take minutes to end.
    fn unlimit(&self) {
        let file = self.0.join(Self::version().limit_file);
        // Version 1 accepts -1, and version 2 accepts max.
        let _ = ["-1", "max"].map(|unlimited| fs::write(&file, unlimited));
    }

    /// Returns the thread IDs in this cgroup, including those of killed threads that have not ended yet.
    fn threads(&self) -> Vec<String> {
        let list = ["tasks", "cgroup.threads"].map(|file| fs::read_to_string(self.0.join(file)));
        let list = list.into_iter().find_map(Result::ok).expect("the cgroup lists its threads");
        list.lines().map(str::to_owned).collect()
    }

    /// Returns the version that this machine uses.
    fn version() -> CgroupVersion {
        CGROUP_VERSIONS
            .into_iter()
            .find(|version| Path::new(version.root).exists())
            .expect("a cgroup file system is mounted")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        self.unlimit();
        eventually("the cgroup is empty", || fs::remove_dir(&self.0).is_ok());
    }
}

/// Returns the number of trials for each row, or `None` if no measurement is requested.
fn trials() -> Option<u32> {
    std::env::var("LEADERRUN_CPU_LIMIT_TRIALS").ok()?.parse().ok()
}

/// Returns an error if no measurement is requested, or if this user cannot limit the CPU time.
fn check_can_measure() -> Result<(), String> {
    trials().ok_or("LEADERRUN_CPU_LIMIT_TRIALS is not set")?;
    crate::other_users::check_root()
}

/// Makes a candidate start in this cgroup, without permission to set a real-time priority, as in most containers.
fn configure_as_in_container(candidate: Candidate, cgroup: Option<&Cgroup>) -> Candidate {
    const CAP_SYS_NICE: libc::c_ulong = 23;
    let members =
        cgroup.map(|Cgroup(directory)| CString::new(directory.join("cgroup.procs").into_os_string().into_vec()));
    let members = members.map(|path| path.expect("the path contains no null byte"));
    candidate.configure(move |command| {
        // SAFETY: only system calls are made between fork and exec.
        unsafe {
            command.pre_exec(move || {
                libc::prctl(libc::PR_CAPBSET_DROP, CAP_SYS_NICE, 0, 0, 0);
                if let Some(members) = &members {
                    let file = nix::fcntl::open(members.as_c_str(), OFlag::O_WRONLY, Mode::empty())?;
                    nix::unistd::write(&file, b"0")?;
                }
                Ok(())
            });
        }
    })
}

/// The result of one trial, in which a candidate with a busy command was cut off from the API server.
struct Outcome {
    /// How late leaderrun ran according to its warning, in seconds; 0 without a warning.
    lateness: f64,
    /// The time from the end of the command to the start of the next one, in seconds; `None` if the command never
    /// started.
    margin: Option<f64>,
    /// `true` if the candidate still led when it was cut off.
    led: bool,
}

/// Starts a thread that waits until a process has received SIGKILL or has ended. The thread's result is the time at
/// which that happened, in nanoseconds since boot. A process that has received SIGKILL executes no more code, although
/// its threads take a while to end.
fn watch_for_end(pid: u32) -> thread::JoinHandle<u64> {
    thread::spawn(move || {
        loop {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let field = |name| status.lines().find_map(|line: &str| line.strip_prefix(name));
            let pending = field("SigPnd:").and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
            let is_zombie = field("State:").is_some_and(|state| state.trim().starts_with('Z'));
            if is_zombie || pending.is_none_or(|pending| pending & SIGKILL_BIT != 0) {
                return nanos_since_boot();
            }
            thread::sleep(POLL_INTERVAL);
        }
    })
}

/// Runs a candidate with a busy command under a CPU limit, and cuts it off from the API server.
fn cut_off_busy_candidate(percent: Option<u32>, busy_threads: u32) -> Outcome {
    let proxy = Proxy::start(Cluster::shared());
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let cgroup = percent.map(Cgroup::limited_to);
    let a = Candidate::with_timing("a", &lock.through(proxy.kubeconfig()), TIMING).args(["--log-format", "json"]);
    let mut a = configure_as_in_container(a, cgroup.as_ref())
        .run_witness(&witnesses, &["ignore", &format!("busy={busy_threads}")]);
    let start = Instant::now();
    while witnesses.lifetimes_of("a").is_empty() && start.elapsed() < TIMEOUT {
        thread::sleep(POLL_INTERVAL);
    }
    let end = witnesses.lifetimes_of("a").first().map(|life| watch_for_end(life.pid));
    let mut b = Candidate::with_timing("b", &lock, TIMING).run_witness(&witnesses, &[]);
    thread::sleep(LOAD_TIME);
    let led = a.is_running() && witnesses.lifetimes_of("b").is_empty();
    proxy.partition();
    witnesses.wait_for("b", 1);
    let margin = end.map(|end| {
        let end = end.join().expect("the thread does not panic");
        (witnesses.lifetimes_of("b")[0].started_at as f64 - end as f64) / 1e9
    });
    a.wait();
    b.stop();
    Outcome { lateness: logged_number(&a, "runs_late", "delay_seconds"), margin, led }
}

/// Measures and prints a row of the output. Returns the row only if two commands were alive at the same time.
fn measure_row(percent: Option<u32>, busy_threads: u32) -> Option<String> {
    let outcomes: Vec<Outcome> = (0..trials()?).map(|_| cut_off_busy_candidate(percent, busy_threads)).collect();
    let lateness = outcomes.iter().map(|outcome| outcome.lateness).fold(0.0, f64::max);
    let margin = outcomes.iter().filter_map(|outcome| outcome.margin).min_by(f64::total_cmp);
    let led = outcomes.iter().filter(|outcome| outcome.led).count();
    let margin_text = margin.map_or("no command".to_owned(), |margin| format!("{margin:.1} s"));
    let percent = percent.map_or("none".to_owned(), |percent| format!("{percent} %"));
    let row = format!(
        "| {percent} | {busy_threads} | {lateness:.1} s | {margin_text} | led {led} of {} times |",
        outcomes.len()
    );
    println!("{row}");
    margin.filter(|margin| *margin <= 0.0).map(|_| row)
}

/// Returns the number in this field of a log event that is logged at most once, or 0 if it was not logged.
fn logged_number(candidate: &Running, event: &str, field: &str) -> f64 {
    let log = candidate.log();
    let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.filter(|logged| logged["event"] == event).find_map(|logged| logged[field].as_f64()).unwrap_or(0.0)
}

/// Killed threads need CPU time to end, and the limit applies to that time, too. If all 14,000 threads of this test
/// were killed together at the kill deadline, they would take minutes to end. leaderrun therefore begins earlier and
/// kills gradually. With the default durations there is too little time for that, and leaderrun would give up
/// leadership, so this test uses longer ones.
#[testkit::test(requires = check_can_measure())]
fn many_threads_under_a_cpu_limit_have_ended_before_the_next_start() {
    let proxy = Proxy::start(Cluster::shared());
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let cgroup = Cgroup::new();
    let timing = ["--lease-duration", "25s", "--renew-deadline", "20s", "--retry-period", "2s"];
    let a = Candidate::with_timing("a", &lock.through(proxy.kubeconfig()), timing);
    let process = witnesses.command(&["ignore", "threads=2000"]);
    let seven_copies = ["sh", "-c", "for i in 1 2 3 4 5 6; do \"$@\" & done; exec \"$@\"", "sh"].map(OsString::from);
    let mut a = configure_as_in_container(a, Some(&cgroup)).run(seven_copies.into_iter().chain(process));
    witnesses.wait_for("a", 7);
    cgroup.limit_to(10);
    let mut b = Candidate::with_timing("b", &lock, timing).run_witness(&witnesses, &[]);
    b.wait_for_log("held by a");
    a.wait_for_log("threads of the command would take about");
    let count_writes = || proxy.requests().iter().filter(|request| Match::put().covers(request)).count();
    let writes = count_writes();
    eventually("a has renewed after the warning", || count_writes() > writes);
    let leaderrun = [a.elector(), a.supervisor()].map(|process| process.to_string());
    proxy.partition();
    witnesses.wait_for("b", 1);
    let belongs_to_command = |thread: &String| {
        let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
        let process = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
        process.is_some_and(|process| !leaderrun.contains(&process.trim().to_owned()))
    };
    let left = cgroup.threads().iter().filter(|thread| belongs_to_command(thread)).count();
    cgroup.unlimit();
    assert_eq!(left, 0, "no threads of the command should be left: {}", a.log());
    a.wait_for_exit(LOST);
    b.stop();
    witnesses.assert_runs_one_at_a_time(2);
}

/// Measures and prints the table, and fails if two commands were alive at the same time. `docs/safety.md` says when
/// that is known to happen: with 200 busy threads under a CPU limit of 5 %.
#[testkit::test(requires = check_can_measure())]
fn commands_do_not_overlap_under_cpu_limits() {
    println!(
        "| CPU limit | Busy threads | Reported lateness | From the end of the command to the next start | Outcome |"
    );
    println!("|---|---|---|---|---|");
    let rows =
        |percent| move || BUSY_THREADS.into_iter().filter_map(|busy| measure_row(percent, busy)).collect::<Vec<_>>();
    let (limited, unlimited): (Vec<_>, Vec<_>) = LIMITS.into_iter().partition(Option::is_some);
    // Rows with different limits can be measured at the same time, because together they use less than one CPU.
    let limited: Vec<_> = limited.into_iter().map(|percent| thread::spawn(rows(percent))).collect();
    let overlaps = limited.into_iter().flat_map(|rows| rows.join().expect("no thread panics")).collect::<Vec<_>>();
    let overlaps: Vec<_> =
        overlaps.into_iter().chain(unlimited.into_iter().flat_map(|percent| rows(percent)())).collect();
    assert!(overlaps.is_empty(), "two commands overlapped: {overlaps:?}");
}
