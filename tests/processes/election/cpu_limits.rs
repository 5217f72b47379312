//! Measures under which CPU limits and loads leaderrun keeps its promise. The table in `docs/safety.md` is printed by:
//!
//! ```console
//! LEADERRUN_CPU_LIMITS=1 cargo test --release --test processes -- cpu_limits --nocapture
//! ```

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use serde_json::Value;
use testkit::{Candidate, Cluster, Proxy, Running, TIMEOUT, TestLock, Witnesses};

/// Percentages of a CPU; none is without a limit.
const LIMITS: [Option<u32>; 5] = [Some(5), Some(10), Some(20), Some(50), None];

const BUSY_THREADS: [u32; 4] = [0, 16, 64, 200];

/// The defaults.
const TIMING: [&str; 6] = ["--lease-duration", "15s", "--renew-deadline", "10s", "--retry-period", "2s"];

/// How long the load lasts before the partition.
const LOAD_TIME: Duration = Duration::from_secs(20);

const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// The folders in which cgroups with a CPU limit are created, with the file of the limit: for cgroup v1 and v2.
const ROOTS: [(&str, &str); 2] = [("/sys/fs/cgroup/cpu", "cpu.cfs_quota_us"), ("/sys/fs/cgroup", "cpu.max")];

/// A cgroup with a CPU limit. When this is dropped, the processes in it are killed.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(percent: u32) -> Self {
        let (root, file) = ROOTS.into_iter().find(|(root, _)| Path::new(root).exists()).expect("a cgroup file system");
        let folder = Path::new(root).join(format!("leaderrun-test-{}-{:x}", std::process::id(), fastrand::u32(..)));
        fs::create_dir(&folder).expect("a cgroup");
        fs::write(folder.join(file), (percent * 1000).to_string()).expect("a limit");
        Self(folder)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

fn is_asked_for() -> Result<(), String> {
    if std::env::var_os("LEADERRUN_CPU_LIMITS").is_none() {
        return Err("LEADERRUN_CPU_LIMITS is not set".to_owned());
    }
    crate::other_users::root()
}

/// Moves the candidate into this cgroup, and removes the right to a real-time priority, as in most containers.
fn limit(candidate: Candidate, cgroup: Option<&Cgroup>) -> Candidate {
    const CAP_SYS_NICE: libc::c_ulong = 23;
    let members = cgroup.map(|Cgroup(folder)| CString::new(folder.join("cgroup.procs").into_os_string().into_vec()));
    let members = members.map(|path| path.expect("a path"));
    candidate.configure(move |command| {
        // SAFETY: between fork and exec, only system calls.
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

/// Runs one candidate under a limit with a busy command, cuts it off, and returns a row of the table.
fn row(percent: Option<u32>, busy_threads: u32) -> String {
    let proxy = Proxy::start(Cluster::shared());
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let cgroup = percent.map(Cgroup::new);
    let a = Candidate::with_timing("a", &lock.through(proxy.kubeconfig()), TIMING).args(["--log-format", "json"]);
    let mut a = limit(a, cgroup.as_ref()).run_witness(&witnesses, &["ignore", &format!("busy={busy_threads}")]);
    let start = Instant::now();
    while witnesses.lifetimes_of("a").is_empty() && start.elapsed() < TIMEOUT {
        thread::sleep(POLL_INTERVAL);
    }
    let mut b = Candidate::with_timing("b", &lock, TIMING).run_witness(&witnesses, &[]);
    thread::sleep(LOAD_TIME);
    let led = if a.is_running() { "led" } else { "stepped down" };
    proxy.partition();
    witnesses.wait_for("b", 1);
    a.wait();
    b.stop();
    let last_seen = witnesses.lifetimes_of("a").iter().map(|life| life.last_seen_at).max();
    let margin = last_seen.map(|last_seen| witnesses.lifetimes_of("b")[0].started_at as f64 - last_seen as f64);
    let lateness = logged(&a, "runs_late", "delay_seconds");
    let margin = margin.map_or("not led".to_owned(), |margin| format!("{:.1} s", margin / 1e9));
    let percent = percent.map_or("none".to_owned(), |percent| format!("{percent} %"));
    witnesses.assert_one_at_a_time(if last_seen.is_some() { 2 } else { 1 });
    format!("| {percent} | {busy_threads} | {lateness:.1} s | {margin} | {led} |")
}

/// Returns the greatest number that was logged in this field of this event; zero if none was.
fn logged(candidate: &Running, event: &str, field: &str) -> f64 {
    let log = candidate.log();
    let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.filter(|logged| logged["event"] == event).filter_map(|logged| logged[field].as_f64()).fold(0.0, f64::max)
}

#[testkit::test(requires = is_asked_for())]
fn the_table_of_cpu_limits() {
    println!("| CPU limit | Busy threads | Lateness | From the last sign of the command to the next start | Outcome |");
    println!("|---|---|---|---|---|");
    for percent in LIMITS {
        for busy_threads in BUSY_THREADS {
            println!("{}", row(percent, busy_threads));
        }
    }
}
