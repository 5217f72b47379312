//! What leaderrun costs and how fast it is: `cargo bench` prints a table of medians and worst values.
//!
//! Whole processes over real sockets, against the API server of the tests or, with
//! `KUBEBUILDER_ASSETS`, a real one. `LEADERRUN_BENCH_RUNS` sets how often each figure is taken.

#[path = "../tests/processes/candidate.rs"]
#[allow(dead_code)]
mod candidate;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "../tests/processes/witness.rs"]
#[allow(dead_code)]
mod witness;

use std::fs;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use candidate::{Candidate, Running, TestLock, children, eventually};
use support::{Cluster, Proxy};
use witness::{Life, Witnesses, boot_time};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == "--witness") {
        return witness::run(arguments);
    }
    let runs = std::env::var("LEADERRUN_BENCH_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(30);
    println!("{:<44} {:>12} {:>12} {:>12}", "figure", "median", "99 %", "worst");
    for (kind, lock) in [("lease", TestLock::lease as fn() -> TestLock), ("file", TestLock::file)] {
        show(&format!("start to exec, {kind}"), "ms", start_to_exec(lock, runs));
        show(&format!("hand-over, {kind}"), "ms", hand_over(&lock(), runs));
        show(&format!("take-over after the lease's end, {kind}"), "ms", take_over(lock, runs.div_ceil(10)));
        show(&format!("end of a waiting candidate, {kind}"), "ms", end_of_waiting(&lock(), runs));
        memory(kind, &lock());
    }
    show("kill of 1000 processes, 20 deep", "ms", kill_of_many(runs.div_ceil(6)));
    requests();
    let size = fs::metadata(env!("CARGO_BIN_EXE_leaderrun")).expect("the program").len();
    println!("{:<44} {:>9.2} MB", "binary (bench profile)", size as f64 / 1e6);
    ExitCode::SUCCESS
}

fn show(figure: &str, unit: &str, mut values: Vec<f64>) {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
    let cell = |value: f64| format!("{value:.2} {unit}");
    println!("{figure:<44} {:>12} {:>12} {:>12}", cell(at(0.5)), cell(at(0.99)), cell(at(1.0)));
}

fn milliseconds(from: u64, to: u64) -> f64 {
    (to as f64 - from as f64) / 1e6
}

fn ended(life: &Life) -> u64 {
    life.last.max(life.told)
}

fn start_to_exec(lock: fn() -> TestLock, runs: usize) -> Vec<f64> {
    (0..runs)
        .map(|_| {
            let (lock, witnesses) = (lock(), Witnesses::new());
            let start = boot_time();
            let mut a = Candidate::new("a", &lock).witnessed(&witnesses, &["ends"]);
            a.ends_with(0);
            milliseconds(start, witnesses.of("a")[0].born)
        })
        .collect()
}

/// From the old command's last sign of life to the new one's first.
fn hand_over(lock: &TestLock, runs: usize) -> Vec<f64> {
    let witnesses = Witnesses::new();
    let mut leader = Candidate::new("a", lock).witnessed(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    for run in 1..=runs {
        let next = Candidate::new("a", lock).witnessed(&witnesses, &[]);
        next.says("is held by");
        // The watch opens right after this was said.
        thread::sleep(Duration::from_millis(50));
        leader.stop();
        eventually("the next one leads", || witnesses.lives().len() > run);
        leader = next;
    }
    leader.stop();
    let lives = witnesses.lives();
    lives.windows(2).map(|pair| milliseconds(ended(&pair[0]), pair[1].born)).collect()
}

/// As when the holder's machine is gone: how much later than the lease's end the next command starts.
fn take_over(lock: fn() -> TestLock, runs: usize) -> Vec<f64> {
    const LEASE: u64 = 6_000_000_000;
    (0..runs)
        .map(|_| {
            let (lock, witnesses) = (lock(), Witnesses::new());
            let a = Candidate::new("a", &lock).witnessed(&witnesses, &[]);
            witnesses.wait_for("a", 1);
            let mut b = Candidate::new("b", &lock).witnessed(&witnesses, &["ends"]);
            b.says("is held by");
            let (elector, supervisor) = (a.elector(), a.supervisor());
            let renewed = last_renewal(&lock);
            for process in [supervisor, elector] {
                kill(process, Signal::SIGSTOP).expect("it is alive");
            }
            drop(a);
            b.ends_with(0);
            milliseconds(renewed + LEASE, witnesses.of("b")[0].born)
        })
        .collect()
}

/// Waits for a renewal, and returns when it was seen.
fn last_renewal(lock: &TestLock) -> u64 {
    let record = || match lock.name.strip_prefix("file:") {
        Some(path) => fs::read_to_string(path).expect("the record"),
        None => Cluster::shared().admin().get(&lock.path()).expect("the lease")["spec"].to_string(),
    };
    let before = record();
    while record() == before {
        thread::sleep(Duration::from_millis(1));
    }
    boot_time()
}

fn end_of_waiting(lock: &TestLock, runs: usize) -> Vec<f64> {
    let witnesses = Witnesses::new();
    let mut leader = Candidate::new("a", lock).witnessed(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let ends = (0..runs)
        .map(|_| {
            let mut b = Candidate::new("b", lock).witnessed(&witnesses, &[]);
            b.says("is held by");
            let told = boot_time();
            b.signal(Signal::SIGTERM);
            b.ends_with(143);
            milliseconds(told, boot_time())
        })
        .collect();
    leader.stop();
    ends
}

fn memory(kind: &str, lock: &TestLock) {
    let witnesses = Witnesses::new();
    let leader = Candidate::new("a", lock).witnessed(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let waiting = Candidate::new("b", lock).witnessed(&witnesses, &[]);
    waiting.says("is held by");
    last_renewal(lock);
    let rows = |running: &Running| {
        let (elector, supervisor) = (running.elector(), running.supervisor());
        [("elector", elector), ("supervisor", supervisor)].map(|(name, process)| {
            format!(
                "{name} RSS {} kB, private {} kB",
                kilobytes(process, &["Rss:"]),
                kilobytes(process, &["Private_Clean:", "Private_Dirty:"])
            )
        })
    };
    for (role, running) in [("leading", &leader), ("waiting", &waiting)] {
        println!("{:<44} {}", format!("memory {role}, {kind}"), rows(running).join("; "));
    }
}

fn kilobytes(process: Pid, fields: &[&str]) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).expect("a process");
    let values = rollup.lines().filter(|line| fields.iter().any(|field| line.starts_with(field)));
    values.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum()
}

/// Twenty generations of fifty processes, deaf to SIGTERM: from SIGKILL's turn to the end of leaderrun.
fn kill_of_many(runs: usize) -> Vec<f64> {
    let script = "trap '' TERM; grow() { i=0; while [ $i -lt 49 ]; do sleep 1000 & i=$((i+1)); done; if [ $1 -gt 1 ]; then (grow $(($1 - 1))) & fi; [ $1 = 1 ] && echo grown; wait; }; grow 20 & sleep 1000";
    (0..runs)
        .map(|_| {
            let mut a = Candidate::new("a", &TestLock::file()).args(["--kill-after", "1s"]).script(script);
            eventually("the tree has grown", || a.output().contains("grown"));
            let supervisor = a.supervisor();
            eventually("all of it", || descendants(supervisor) >= 1000);
            a.signal(Signal::SIGTERM);
            a.says("did not end in time");
            let told = boot_time();
            a.ends_with(137);
            milliseconds(told, boot_time())
        })
        .collect()
}

fn descendants(process: Pid) -> usize {
    children(process).into_iter().map(|child| 1 + descendants(child)).sum()
}

/// Requests a minute with the default times, over one minute.
fn requests() {
    let minute = Duration::from_secs(60);
    let (witnesses, lock) = (Witnesses::new(), TestLock::lease());
    let by_proxy = |name, witnesses: &Witnesses| {
        let proxy = Proxy::start(Cluster::shared());
        let defaults = ["--lease-duration", "15s", "--renew-deadline", "10s", "--retry-period", "2s"];
        let running = Candidate::with_times(name, &lock.by(proxy.kubeconfig()), defaults).witnessed(witnesses, &[]);
        (proxy, running)
    };
    let (leading, _a) = by_proxy("a", &witnesses);
    witnesses.wait_for("a", 1);
    let (waiting, b) = by_proxy("b", &witnesses);
    b.says("is held by");
    thread::sleep(Duration::from_millis(500));
    let before = (leading.requests().len(), waiting.requests().len());
    thread::sleep(minute);
    let after = (leading.requests().len(), waiting.requests().len());
    println!("{:<44} {:>12}", "requests a minute, leading", after.0 - before.0);
    println!("{:<44} {:>12}", "requests a minute, waiting", after.1 - before.1);
}
