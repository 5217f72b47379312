//! Measures the performance and the resource usage of leaderrun. `cargo bench` prints a table of medians, 99th
//! percentiles and worst values.
//!
//! The benchmark runs real processes and sockets. It uses the in-process API server or, with `KUBEBUILDER_ASSETS`, a
//! real one. `LEADERRUN_BENCH_RUNS` sets how many times each figure is measured; slow figures are measured fewer times.
//! `cargo bench -- hand-over` only measures the figures whose names contain "hand-over". The memory, usage and
//! contention figures can only be selected as groups, by "memory", "per minute" and "200 candidates". The size of the
//! binary is always printed.

use std::fs;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use hyper::Method;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use testkit::client::{JSON, Session};
use testkit::{
    Candidate, Cluster, Lifetime, Proxy, Running, TIMEOUT, TestLock, Witnesses, descendants, eventually, leaderrun,
    nanos_since_boot,
};

/// The default durations of leaderrun. A [`Candidate`] has shorter ones.
const DEFAULTS: [&str; 6] = ["--lease-duration", "15s", "--renew-deadline", "10s", "--retry-period", "2s"];

fn main() -> ExitCode {
    if let Some(status) = testkit::harness!().run_as_command() {
        return status;
    }
    let argument = std::env::args_os().nth(1);
    // Cargo appends --bench.
    let filter = argument
        .and_then(|argument| argument.into_string().ok())
        .filter(|argument| argument != "--bench")
        .unwrap_or_default();
    let is_selected = |figure: &str| figure.contains(&filter);
    let runs = std::env::var("LEADERRUN_BENCH_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(200);
    println!("{:<44} {:>12} {:>12} {:>12}", "figure", "median", "99 %", "worst");
    let measure = |figure: &str, measurement: &dyn Fn() -> Vec<f64>| {
        if is_selected(figure) {
            show(figure, "ms", measurement());
        }
    };
    for (kind, lock) in [("lease", TestLock::lease as fn() -> TestLock), ("file", TestLock::file)] {
        measure(&format!("start to exec, {kind}"), &|| start_to_exec(&lock(), runs));
        measure(&format!("hand-over, {kind}"), &|| hand_over(&lock(), runs));
        measure(&format!("takeover after the lease expired, {kind}"), &|| takeover(lock, runs.div_ceil(20)));
        measure(&format!("exit of a standby, {kind}"), &|| standby_exit(&lock(), runs));
        if is_selected("memory") {
            print_memory(kind, &lock());
        }
    }
    measure("hand-over between plain clients, lease", &|| plain_hand_over(&TestLock::lease(), runs));
    measure("kill of 1000 processes, 20 deep", &|| kill_of_many(runs.div_ceil(10)));
    if is_selected("per minute") {
        print_usage_per_minute();
    }
    if is_selected("200 candidates") {
        print_contention(200);
    }
    let size = fs::metadata(leaderrun()).expect("leaderrun exists").len();
    println!("{:<44} {:>9.2} MB", "binary", size as f64 / 1e6);
    ExitCode::SUCCESS
}

/// Prints the median, the 99th percentile and the maximum of the values.
fn show(figure: &str, unit: &str, mut values: Vec<f64>) {
    values.sort_by(f64::total_cmp);
    let quantile = |fraction: f64| values[((values.len() - 1) as f64 * fraction).round() as usize];
    let cell = |value: f64| format!("{value:.2} {unit}");
    println!("{figure:<44} {:>12} {:>12} {:>12}", cell(quantile(0.5)), cell(quantile(0.99)), cell(quantile(1.0)));
}

/// Returns the milliseconds between two instants, which are in nanoseconds since boot.
fn milliseconds(from: u64, to: u64) -> f64 {
    (to as f64 - from as f64) / 1e6
}

/// Returns the last instant at which a command was known to be alive, in nanoseconds since boot.
fn last_known_alive(lifetime: &Lifetime) -> u64 {
    lifetime.last_seen_at.max(lifetime.signaled_at)
}

/// Measures the time from the start of leaderrun to the start of its command, including the creation of the record.
fn start_to_exec(lock: &TestLock, runs: usize) -> Vec<f64> {
    (0..runs)
        .map(|_| {
            // The lock is reused, because the first write to a new namespace takes 50 ms longer.
            remove_record(lock);
            let witnesses = Witnesses::new();
            let start = nanos_since_boot();
            let mut candidate = Candidate::new("a", lock).run_witness(&witnesses, &["ends"]);
            candidate.wait_for_exit(0);
            milliseconds(start, witnesses.lifetimes_of("a")[0].started_at)
        })
        .collect()
}

/// Removes the record of a lock that nobody holds, if there is one.
fn remove_record(lock: &TestLock) {
    match lock.name.strip_prefix("file:") {
        Some(path) => drop(fs::remove_file(path)),
        None => drop(Cluster::shared().admin().delete(&lock.lease_path())),
    }
}

/// Measures the time from the end of one command to the start of the next.
fn hand_over(lock: &TestLock, runs: usize) -> Vec<f64> {
    let witnesses = Witnesses::new();
    let mut leader = Candidate::new("a", lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    for run in 1..=runs {
        let next = Candidate::new("a", lock).run_witness(&witnesses, &[]);
        next.wait_for_log("held by");
        // The watch is opened right after this line is logged.
        thread::sleep(Duration::from_millis(50));
        leader.stop();
        eventually("the next candidate leads", || witnesses.lifetimes().len() > run);
        leader = next;
    }
    leader.stop();
    let lifetimes = witnesses.lifetimes();
    lifetimes.windows(2).map(|pair| milliseconds(last_known_alive(&pair[0]), pair[1].started_at)).collect()
}

/// Measures a lower bound for the duration of a hand-over: a release, its watch event, and a claim, by plain clients
/// with open connections.
fn plain_hand_over(lock: &TestLock, runs: usize) -> Vec<f64> {
    let client = Cluster::shared().admin();
    let session = || client.open_session().expect("a connection can be opened");
    let (leader, standby) = (session(), session());
    let path = lock.lease_path();
    let replace = |session: &Session, lease: &mut Value, holder: &str| {
        lease["spec"]["holderIdentity"] = json!(holder);
        let response = session.send(Method::PUT, &path, Some((JSON, lease)), TIMEOUT).expect("the server responds");
        assert_eq!(response.status, 200, "{}", response.body);
        response.json()
    };
    let collection = path.strip_suffix("/job").expect("the lease is named job");
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "job"},
        "spec": {"holderIdentity": "leader"},
    });
    let mut lease = client.create(collection, &lease).expect("the lease can be created");
    let version = lease["metadata"]["resourceVersion"].as_str().expect("a stored lease has a version");
    let query = format!("{collection}?fieldSelector=metadata.name%3Djob&resourceVersion={version}");
    let watch = client.watch(&query).expect("the watch is accepted");
    let mut durations = Vec::new();
    for _ in 0..runs {
        let released_at = nanos_since_boot();
        replace(&leader, &mut lease, "");
        let mut released = watch.next_change().expect("the release causes an event")["object"].take();
        lease = replace(&standby, &mut released, "standby");
        durations.push(milliseconds(released_at, nanos_since_boot()));
        watch.next_change().expect("the claim causes an event");
    }
    durations
}

/// Measures the time from the expiry of a lease to the start of the next command. The holder is frozen, so that it
/// cannot release the lock, and then killed with its command, as if its machine had failed.
fn takeover(lock: fn() -> TestLock, runs: usize) -> Vec<f64> {
    /// The lease duration in [`testkit::TIMING`], in nanoseconds.
    const LEASE_DURATION: u64 = 6_000_000_000;
    (0..runs)
        .map(|_| {
            let (lock, witnesses) = (lock(), Witnesses::new());
            let leader = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
            witnesses.wait_for("a", 1);
            let mut standby = Candidate::new("b", &lock).run_witness(&witnesses, &["ends"]);
            standby.wait_for_log("held by");
            let (elector, supervisor) = (leader.elector(), leader.supervisor());
            let renewed_at = wait_for_renewal(&lock);
            for process in [supervisor, elector] {
                kill(process, Signal::SIGSTOP).expect("the process is alive");
            }
            // This kills the elector, the supervisor and the command.
            drop(leader);
            standby.wait_for_exit(0);
            milliseconds(renewed_at + LEASE_DURATION, witnesses.lifetimes_of("b")[0].started_at)
        })
        .collect()
}

/// Waits for a renewal, and returns the instant at which it was observed, in nanoseconds since boot.
fn wait_for_renewal(lock: &TestLock) -> u64 {
    let record = || match lock.name.strip_prefix("file:") {
        Some(path) => fs::read_to_string(path).expect("the record can be read"),
        None => Cluster::shared().admin().get(&lock.lease_path()).expect("the lease can be read")["spec"].to_string(),
    };
    let before = record();
    while record() == before {
        thread::sleep(Duration::from_millis(1));
    }
    nanos_since_boot()
}

/// Measures the time from SIGTERM to the exit of a standby.
fn standby_exit(lock: &TestLock, runs: usize) -> Vec<f64> {
    let witnesses = Witnesses::new();
    let mut leader = Candidate::new("a", lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let durations = (0..runs)
        .map(|_| {
            let mut standby = Candidate::new("b", lock).run_witness(&witnesses, &[]);
            standby.wait_for_log("held by");
            let signaled_at = nanos_since_boot();
            standby.signal(Signal::SIGTERM);
            standby.wait_for_exit(143);
            milliseconds(signaled_at, nanos_since_boot())
        })
        .collect();
    leader.stop();
    durations
}

/// Prints the memory of the processes of a leader and of a standby.
fn print_memory(kind: &str, lock: &TestLock) {
    let witnesses = Witnesses::new();
    let leader = Candidate::new("a", lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let standby = Candidate::new("b", lock).run_witness(&witnesses, &[]);
    standby.wait_for_log("held by");
    wait_for_renewal(lock);
    let describe_processes = |running: &Running| {
        [("elector", running.elector()), ("supervisor", running.supervisor())].map(|(name, process)| {
            format!("{name} RSS {} kB, private {} kB", resident_memory(process), private_memory(process))
        })
    };
    for (role, running) in [("leader", &leader), ("standby", &standby)] {
        println!("{:<44} {}", format!("memory {role}, {kind}"), describe_processes(running).join("; "));
    }
}

/// Returns the resident memory of a process, in kilobytes.
fn resident_memory(process: Pid) -> u64 {
    kilobytes(process, &["Rss:"])
}

/// Returns the memory that a process shares with no other process, in kilobytes.
fn private_memory(process: Pid) -> u64 {
    kilobytes(process, &["Private_Clean:", "Private_Dirty:"])
}

/// Returns the sum of these fields of a process's `smaps_rollup`.
fn kilobytes(process: Pid, fields: &[&str]) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).expect("the process is alive");
    let values = rollup.lines().filter(|line| fields.iter().any(|field| line.starts_with(field)));
    values.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum()
}

/// Measures the time from the kill deadline to the end of leaderrun. The command consists of twenty generations of
/// fifty processes that ignore SIGTERM.
fn kill_of_many(runs: usize) -> Vec<f64> {
    let script = "trap '' TERM; grow() { i=0; while [ $i -lt 49 ]; do sleep 1000 & i=$((i+1)); done; if [ $1 -gt 1 ]; then (grow $(($1 - 1))) & fi; [ $1 = 1 ] && echo grown; wait; }; grow 20 & sleep 1000";
    /// The value of `--kill-after`, in nanoseconds.
    const KILL_AFTER: u64 = 1_000_000_000;
    (0..runs)
        .map(|_| {
            let mut candidate = Candidate::new("a", &TestLock::file()).args(["--kill-after", "1s"]).run_script(script);
            eventually("the tree has grown", || candidate.output().contains("grown"));
            let supervisor = candidate.supervisor();
            eventually("the tree is complete", || descendants(supervisor).len() >= 1000);
            let signaled_at = nanos_since_boot();
            candidate.signal(Signal::SIGTERM);
            candidate.wait_for_exit(137);
            milliseconds(signaled_at + KILL_AFTER, nanos_since_boot())
        })
        .collect()
}

/// Prints the resource usage of a leader and of a standby in one minute, with the default durations.
fn print_usage_per_minute() {
    let minute = Duration::from_secs(60);
    let (witnesses, lock) = (Witnesses::new(), TestLock::lease());
    let through_proxy = |name| {
        let proxy = Proxy::start(Cluster::shared());
        let candidate = Candidate::with_timing(name, &lock.through(proxy.kubeconfig()), DEFAULTS);
        (proxy, candidate.run_witness(&witnesses, &[]))
    };
    let (leader_proxy, leader) = through_proxy("a");
    witnesses.wait_for("a", 1);
    let (standby_proxy, standby) = through_proxy("b");
    standby.wait_for_log("held by");
    thread::sleep(Duration::from_millis(500));
    let usage = |proxy: &Proxy, running: &Running| {
        let cpu = [running.elector(), running.supervisor()].map(cpu_time).iter().sum::<Duration>();
        (proxy.requests().len(), cpu)
    };
    let before = [usage(&leader_proxy, &leader), usage(&standby_proxy, &standby)];
    thread::sleep(minute);
    let after = [usage(&leader_proxy, &leader), usage(&standby_proxy, &standby)];
    for (role, (before, after)) in ["leader", "standby"].iter().zip(before.iter().zip(after)) {
        println!("{:<44} {:>12}", format!("requests per minute, {role}"), after.0 - before.0);
        let cpu = (after.1 - before.1).as_secs_f64();
        let (per_hour, percent) = (cpu * 60.0, 100.0 * cpu / minute.as_secs_f64());
        println!("{:<44} {:>10.2} s {:>10.4} %", format!("CPU per hour, {role}"), per_hour, percent);
    }
}

/// Returns the CPU time of all threads of a process.
fn cpu_time(process: Pid) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("the process is alive").flatten();
    let first_field = |schedstat: String| schedstat.split(' ').next()?.parse::<u64>().ok();
    let spent = tasks.filter_map(|task| first_field(fs::read_to_string(task.path().join("schedstat")).ok()?));
    Duration::from_nanos(spent.sum())
}

/// Prints the memory of many candidates for one lock, how long their hand-overs take, and how many writes are refused
/// during hand-overs.
fn print_contention(size: usize) {
    /// The number of hand-overs that are not timed, because the candidates are still estimating how many there are.
    const WARM_UP: usize = 20;
    const MEASURED: usize = 40;
    let proxy = Proxy::start(Cluster::shared());
    let lock = TestLock::lease_through(proxy.kubeconfig());
    let witnesses = Witnesses::new();
    let mut candidates: Vec<Running> = Vec::new();
    for number in 0..size {
        let candidate = Candidate::with_timing(&number.to_string(), &lock, DEFAULTS).run_witness(&witnesses, &[]);
        candidate.wait_for_log(if number == 0 { "started the command" } else { "held by" });
        candidates.push(candidate);
    }
    let standbys = &candidates[1..];
    let kilobytes: u64 =
        standbys.iter().map(|standby| private_memory(standby.elector()) + private_memory(standby.supervisor())).sum();
    println!(
        "{:<44} {:>9} kB",
        format!("private memory per standby, {size} candidates"),
        kilobytes / standbys.len() as u64
    );
    // Causes `count` hand-overs, and returns how many writes were refused during them.
    let hand_overs = |count: usize| {
        let (conflicts_before, started_before) = (proxy.conflicts(), witnesses.lifetimes().len());
        for started in started_before..started_before + count {
            let leader: usize = witnesses
                .lifetimes()
                .last()
                .expect("a command has started")
                .holder()
                .parse()
                .expect("each candidate is named after its number");
            candidates[leader].wait_for_log("started the command");
            candidates[leader].signal(Signal::SIGTERM);
            eventually("the next candidate leads", || witnesses.lifetimes().len() > started);
        }
        proxy.conflicts() - conflicts_before
    };
    for (name, count) in [("first", WARM_UP), ("next", MEASURED)] {
        let refused_writes = hand_overs(count) as f64 / count as f64;
        println!("{:<44} {refused_writes:>12.1}", format!("refused writes per hand-over, {name} {count}"));
    }
    let lifetimes = witnesses.lifetimes();
    let durations =
        lifetimes.windows(2).skip(WARM_UP).map(|pair| milliseconds(last_known_alive(&pair[0]), pair[1].started_at));
    show(&format!("hand-over, {size} candidates"), "ms", durations.collect());
}
