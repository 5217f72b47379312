//! Tests of containers whose memory, number of processes or CPU time is limited.

use testkit::{Cluster, Proxy, TestLock, Witnesses, leaderrun};

use crate::engine::{Candidate, can_run_containers};

/// A command that uses more memory than the limit.
const MEMORY_EATER: &str = "$WITNESS & exec perl -e 'my @all; push @all, \"x\" x 1_000_000 while 1'";

/// A command that uses all memory again and again. Each time the kernel kills the program that has used it.
const MEMORY_PRESSURE: &str = "$WITNESS & while :; do
    sh -c 'echo 1000 >/proc/self/oom_score_adj; exec perl -e \"push @all, chr(120) x 1_000_000 while 1\"'
done";

#[testkit::test(requires = can_run_containers())]
fn a_command_that_uses_all_memory_is_killed_and_the_lock_is_released() {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let limits = ["--memory=96m", "--memory-swap=96m"];
    let a = Candidate::new("a", &lock).docker(&limits).run_script(&witnesses, &["hidden"], MEMORY_EATER);
    witnesses.wait_for("a", 1);
    let b = Candidate::new("b", &lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("b", 1);
    // The kernel may kill the command or leaderrun.
    let status = a.wait();
    assert!([76, 128 + libc::SIGKILL].contains(&status), "{status}: {}", a.log());
    witnesses.assert_one_at_a_time(2);
    drop(b);
}

/// Sets the OOM scores so that the kernel kills leaderrun instead of the command when memory runs out. Checks that the
/// command is dead before another candidate's command starts.
fn run_leaderrun_out_of_memory(options: &[&str]) {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let a = Candidate::new("a", &lock)
        .docker(&["--memory=96m", "--memory-swap=96m"])
        .docker(options)
        .started_by(&format!("echo 1000 >/proc/self/oom_score_adj && exec {} \"$@\"", leaderrun()))
        .run_script(&witnesses, &["ignore"], &format!("echo 0 >/proc/self/oom_score_adj; {MEMORY_EATER}"));
    witnesses.wait_for("a", 1);
    let b = Candidate::new("b", &lock).run_witness(&witnesses, &[]);
    // The kernel may kill either process of leaderrun first.
    let status = a.wait();
    assert!([76, 128 + libc::SIGKILL].contains(&status), "{status}: {}", a.log());
    witnesses.wait_for("b", 1);
    witnesses.assert_one_at_a_time(2);
    drop(b);
}

#[testkit::test(requires = can_run_containers())]
fn the_command_ends_when_leaderrun_is_killed_for_lack_of_memory() {
    run_leaderrun_out_of_memory(&[]);
}

#[testkit::test(requires = can_run_containers())]
fn the_command_ends_when_leaderrun_below_an_init_is_killed_for_lack_of_memory() {
    run_leaderrun_out_of_memory(&["--init"]);
}

#[testkit::test(requires = can_run_containers())]
fn a_leaderrun_without_memory_ends_its_command_in_time() {
    let proxy = Proxy::start(Cluster::shared());
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    // The kernel only reclaims pages of files that this container was the first to read.
    let copy = witnesses.folder().join("leaderrun");
    let a = Candidate::new("a", &lock.through(proxy.kubeconfig()))
        .docker(&["--memory=64m", "--memory-swap=64m"])
        .started_by(&format!("cp {} {copy} && exec {copy} \"$@\"", leaderrun(), copy = copy.display()))
        .run_script(&witnesses, &["ignore", "hidden"], MEMORY_PRESSURE);
    witnesses.wait_for("a", 2);
    let b = Candidate::new("b", &lock).run_witness(&witnesses, &[]);
    b.wait_for_log("held by a");
    proxy.partition();
    let status = a.wait();
    assert!([76, 128 + libc::SIGKILL].contains(&status), "{status}: {}", a.log());
    witnesses.wait_for("b", 1);
    witnesses.assert_one_at_a_time(2);
    drop(b);
}

/// A command that starts processes, which ignore SIGTERM, until the limit is reached.
const MANY_PROCESSES: &str = "trap '' TERM; $WITNESS & sleep 1; (while sleep 1000 & do :; done); wait";

#[testkit::test(requires = can_run_containers())]
fn a_command_that_uses_up_the_process_limit_ends_on_request() {
    assert_ends_on_request("--pids-limit=60", MANY_PROCESSES, "--time=20");
}

/// Checks that `docker stop` ends a container with a limit of processes whose command ignores SIGTERM, and that the
/// lock is handed over.
fn assert_ends_on_request(pids_limit: &str, script: &str, stop_time: &str) {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let a = Candidate::new("a", &lock).docker(&[pids_limit]).args(&["--kill-after", "1s"]);
    let a = a.run_script(&witnesses, &["ignore", "hidden"], script);
    witnesses.wait_for("a", 2);
    let b = Candidate::new("b", &lock).run_witness(&witnesses, &[]);
    b.wait_for_log("held by a");
    a.docker(&["stop", stop_time]);
    witnesses.wait_for("b", 1);
    b.wait_for_log("a released");
    witnesses.assert_one_at_a_time(2);
}

/// A command with so many threads that a tenth of a CPU cannot end them in time once renewals fail.
const MANY_THREADS: &str = "$WITNESS & $WITNESS & $WITNESS & $WITNESS & wait";

#[testkit::test(requires = can_run_containers())]
fn a_command_with_too_many_threads_for_its_cpu_limit_ends_while_the_lock_is_held() {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let a = Candidate::new("a", &lock).docker(&["--pids-limit=15000"]);
    let a = a.run_script(&witnesses, &["ignore", "threads=3000"], MANY_THREADS);
    witnesses.wait_for("a", 4);
    let b = Candidate::new("b", &lock).run_witness(&witnesses, &[]);
    b.wait_for_log("held by a");
    a.docker(&["update", "--cpus=0.1"]);
    assert_eq!(a.wait(), 76);
    let log = a.log();
    assert!(log.contains("the command could not be killed in time if renewals failed"), "{log}");
    witnesses.wait_for("b", 1);
    witnesses.assert_one_at_a_time(2);
}

/// A command whose processes each fork a child, which starts a new session, and then end.
const FORK_STORM: &str = "trap '' TERM; $WITNESS & exec perl -e 'use POSIX; $SIG{TERM} = \"IGNORE\"; \
    for (1..100) { next if fork; while (1) { POSIX::setsid(); my $pid = fork; exit if $pid; sleep 1 unless defined $pid } } sleep'";

#[testkit::test(requires = can_run_containers())]
fn processes_that_fork_continuously_end_on_request() {
    assert_ends_on_request("--pids-limit=2000", FORK_STORM, "--time=50");
}
