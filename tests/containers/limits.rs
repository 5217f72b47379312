//! Tests of containers whose memory, number of processes or CPU time is limited.

use testkit::exit_status::LOST;
use testkit::{Cluster, Proxy, TestLock, Witnesses, leaderrun};

use crate::engine::{Candidate, check_can_run_containers};

/// A script that starts a witness, and then uses more memory than the container is allowed.
const MEMORY_EATER: &str = "$WITNESS & exec perl -e 'my @all; push @all, \"x\" x 1_000_000 while 1'";

/// A script that starts a witness, and then repeatedly runs a program that uses all memory until the kernel kills it.
const MEMORY_PRESSURE: &str = "$WITNESS & while :; do
    sh -c 'echo 1000 >/proc/self/oom_score_adj; exec perl -e \"push @all, chr(120) x 1_000_000 while 1\"'
done";

#[testkit::test(requires = check_can_run_containers())]
fn a_command_that_uses_all_memory_is_dead_before_the_next_starts() {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let limits = ["--memory=96m", "--memory-swap=96m"];
    let a = Candidate::new("a", &lock).docker_options(&limits).run_script(&witnesses, &["hidden"], MEMORY_EATER);
    witnesses.wait_for("a", 1);
    let _b = Candidate::new("b", &lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("b", 1);
    // The kernel may kill the command or leaderrun.
    let status = a.wait();
    assert!([LOST, 128 + libc::SIGKILL].contains(&status), "{status}: {}", a.log());
    witnesses.assert_runs_one_at_a_time(2);
}

/// Sets the OOM scores so that the kernel kills leaderrun instead of the command when memory runs out. Checks that the
/// command is dead before another candidate's command starts.
fn assert_command_ends_after_oom_kill_of_leaderrun(options: &[&str]) {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let a = Candidate::new("a", &lock)
        .docker_options(&["--memory=96m", "--memory-swap=96m"])
        .docker_options(options)
        .started_by(&format!("echo 1000 >/proc/self/oom_score_adj && exec {} \"$@\"", leaderrun()))
        .run_script(&witnesses, &["ignore"], &format!("echo 0 >/proc/self/oom_score_adj; {MEMORY_EATER}"));
    witnesses.wait_for("a", 1);
    let _b = Candidate::new("b", &lock).run_witness(&witnesses, &[]);
    // The kernel may kill either of leaderrun's processes first.
    let status = a.wait();
    assert!([LOST, 128 + libc::SIGKILL].contains(&status), "{status}: {}", a.log());
    witnesses.wait_for("b", 1);
    witnesses.assert_runs_one_at_a_time(2);
}

#[testkit::test(requires = check_can_run_containers())]
fn the_command_ends_when_leaderrun_is_killed_for_lack_of_memory() {
    assert_command_ends_after_oom_kill_of_leaderrun(&[]);
}

#[testkit::test(requires = check_can_run_containers())]
fn the_command_ends_when_leaderrun_under_an_init_process_is_killed_for_lack_of_memory() {
    assert_command_ends_after_oom_kill_of_leaderrun(&["--init"]);
}

#[testkit::test(requires = check_can_run_containers())]
fn leaderrun_ends_its_command_in_time_under_memory_pressure() {
    let proxy = Proxy::start(Cluster::shared());
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    // The pages of a file count towards the limit of the container that read them first. This container runs its own
    // copy of leaderrun, so that its limit applies to the pages of the program as well.
    let copy = witnesses.directory().join("leaderrun");
    let a = Candidate::new("a", &lock.through(proxy.kubeconfig()))
        .docker_options(&["--memory=64m", "--memory-swap=64m"])
        .started_by(&format!("cp {} {copy} && exec {copy} \"$@\"", leaderrun(), copy = copy.display()))
        .run_script(&witnesses, &["ignore", "hidden"], MEMORY_PRESSURE);
    witnesses.wait_for("a", 2);
    let b = Candidate::new("b", &lock).run_witness(&witnesses, &[]);
    b.wait_for_log("held by a");
    proxy.partition();
    let status = a.wait();
    assert!([LOST, 128 + libc::SIGKILL].contains(&status), "{status}: {}", a.log());
    witnesses.wait_for("b", 1);
    witnesses.assert_runs_one_at_a_time(2);
}

/// A script that starts a witness, and then as many processes as the limit allows. All of them ignore SIGTERM.
const MANY_PROCESSES: &str = "trap '' TERM; $WITNESS & sleep 1; (while sleep 1000 & do :; done); wait";

#[testkit::test(requires = check_can_run_containers())]
fn docker_stop_ends_a_command_that_has_reached_the_process_limit() {
    assert_docker_stop_hands_over(60, MANY_PROCESSES, 20);
}

/// Checks that `docker stop` leads to a release and a hand-over, although the command ignores SIGTERM. The container is
/// limited to `pids_limit` processes, and Docker would kill it after `stop_seconds`.
fn assert_docker_stop_hands_over(pids_limit: u32, script: &str, stop_seconds: u32) {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let limit = format!("--pids-limit={pids_limit}");
    let a = Candidate::new("a", &lock).docker_options(&[&limit]).args(&["--kill-after", "1s"]);
    let a = a.run_script(&witnesses, &["ignore", "hidden"], script);
    witnesses.wait_for("a", 2);
    let b = Candidate::new("b", &lock).run_witness(&witnesses, &[]);
    b.wait_for_log("held by a");
    a.docker(&["stop", &format!("--time={stop_seconds}")]);
    witnesses.wait_for("b", 1);
    b.wait_for_log("a released");
    witnesses.assert_runs_one_at_a_time(2);
}

/// A script that runs four witnesses. With 3000 threads each, they cannot be killed in time with a tenth of a CPU.
const MANY_THREADS: &str = "$WITNESS & $WITNESS & $WITNESS & $WITNESS & wait";

#[testkit::test(requires = check_can_run_containers())]
fn a_command_with_too_many_threads_for_its_cpu_limit_is_dead_before_the_next_starts() {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let a = Candidate::new("a", &lock).docker_options(&["--pids-limit=15000"]);
    let a = a.run_script(&witnesses, &["ignore", "threads=3000"], MANY_THREADS);
    witnesses.wait_for("a", 4);
    let b = Candidate::new("b", &lock).run_witness(&witnesses, &[]);
    b.wait_for_log("held by a");
    a.docker(&["update", "--cpus=0.1"]);
    assert_eq!(a.wait(), LOST);
    let log = a.log();
    assert!(log.contains("the command could not be killed in time if renewals failed"), "{log}");
    witnesses.wait_for("b", 1);
    witnesses.assert_runs_one_at_a_time(2);
}

/// A script that starts a witness and a hundred other processes. Each of these starts a new session, forks a child that
/// does the same, and exits, so there are always new processes.
const FORK_STORM: &str = "trap '' TERM; $WITNESS & exec perl -e 'use POSIX; $SIG{TERM} = \"IGNORE\"; \
    for (1..100) { next if fork; while (1) { POSIX::setsid(); my $pid = fork; exit if $pid; sleep 1 unless defined $pid } } sleep'";

#[testkit::test(requires = check_can_run_containers())]
fn docker_stop_ends_processes_that_fork_continuously() {
    assert_docker_stop_hands_over(2000, FORK_STORM, 50);
}
