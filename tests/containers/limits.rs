//! Limits of a container.

use testkit::{Cluster, Proxy, TestLock, Witnesses, leaderrun};

use crate::engine::{Candidate, is_possible};

/// Takes more memory than there is.
const GLUTTON: &str = "$WITNESS & exec perl -e 'my @all; push @all, \"x\" x 1_000_000 while 1'";

/// Takes all memory all the time. The kernel kills nothing but the program that does so, if it is there.
const SQUEEZE: &str = "$WITNESS & while :; do
    sh -c 'echo 1000 >/proc/self/oom_score_adj; exec perl -e \"push @all, chr(120) x 1_000_000 while 1\"'
done";

#[testkit::test(requires = is_possible())]
fn a_command_that_takes_all_memory_is_ended_and_the_lock_released() {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let limits = ["--memory=96m", "--memory-swap=96m"];
    let a = Candidate::new("a", &lock).docker(&limits).run_script(&witnesses, &["hidden"], GLUTTON);
    witnesses.wait_for("a", 1);
    let b = Candidate::new("b", &lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("b", 1);
    // Which process the kernel ends is its own choice.
    let status = a.wait();
    assert!([76, 128 + libc::SIGKILL].contains(&status), "{status}: {}", a.log());
    witnesses.assert_one_at_a_time(2);
    drop(b);
}

/// Has the kernel end leaderrun for lack of memory, before anything of the command.
fn leaderrun_is_ended(options: &[&str]) {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let a = Candidate::new("a", &lock)
        .docker(&["--memory=96m", "--memory-swap=96m"])
        .docker(options)
        .started_by(&format!("echo 1000 >/proc/self/oom_score_adj && exec {} \"$@\"", leaderrun()))
        .run_script(&witnesses, &["ignore"], &format!("echo 0 >/proc/self/oom_score_adj; {GLUTTON}"));
    witnesses.wait_for("a", 1);
    let b = Candidate::new("b", &lock).run_witness(&witnesses, &[]);
    // Which of leaderrun's processes the kernel ends first is its own choice.
    let status = a.wait();
    assert!([76, 128 + libc::SIGKILL].contains(&status), "{status}: {}", a.log());
    witnesses.wait_for("b", 1);
    witnesses.assert_one_at_a_time(2);
    drop(b);
}

#[testkit::test(requires = is_possible())]
fn the_command_ends_with_a_leaderrun_that_is_ended_for_lack_of_memory() {
    leaderrun_is_ended(&[]);
}

#[testkit::test(requires = is_possible())]
fn the_command_ends_with_a_leaderrun_below_an_init_that_is_ended_for_lack_of_memory() {
    leaderrun_is_ended(&["--init"]);
}

#[testkit::test(requires = is_possible())]
fn a_leaderrun_without_memory_ends_its_command_in_time() {
    let proxy = Proxy::start(Cluster::shared());
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    // Only the pages of a file that this container has read first count for it, and can be taken from it.
    let copy = witnesses.folder().join("leaderrun");
    let a = Candidate::new("a", &lock.through(proxy.kubeconfig()))
        .docker(&["--memory=64m", "--memory-swap=64m"])
        .started_by(&format!("cp {} {copy} && exec {copy} \"$@\"", leaderrun(), copy = copy.display()))
        .run_script(&witnesses, &["ignore", "hidden"], SQUEEZE);
    witnesses.wait_for("a", 2);
    let b = Candidate::new("b", &lock).run_witness(&witnesses, &[]);
    b.wait_for_log("is held by a");
    proxy.partition();
    let status = a.wait();
    assert!([76, 128 + libc::SIGKILL].contains(&status), "{status}: {}", a.log());
    witnesses.wait_for("b", 1);
    witnesses.assert_one_at_a_time(2);
    drop(b);
}

/// It fills the limit with processes that ignore SIGTERM.
const MANY_PROCESSES: &str = "trap '' TERM; $WITNESS & sleep 1; (while sleep 1000 & do :; done); wait";

#[testkit::test(requires = is_possible())]
fn a_command_that_takes_all_processes_is_ended_all_the_same() {
    assert_is_ended_on_request("--pids-limit=60", MANY_PROCESSES, "--time=20");
}

/// Checks that a container with this limit of processes stops, within the time that `docker stop` gives it, and hands its
/// lock over although its script ignores SIGTERM.
fn assert_is_ended_on_request(pids_limit: &str, script: &str, stop_time: &str) {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let a = Candidate::new("a", &lock).docker(&[pids_limit]).args(&["--kill-after", "1s"]);
    let a = a.run_script(&witnesses, &["ignore", "hidden"], script);
    witnesses.wait_for("a", 2);
    let b = Candidate::new("b", &lock).run_witness(&witnesses, &[]);
    b.wait_for_log("is held by a");
    a.docker(&["stop", stop_time]);
    witnesses.wait_for("b", 1);
    b.wait_for_log("a released");
    witnesses.assert_one_at_a_time(2);
}

/// As many threads as never end under a tenth of a CPU, if all of them are killed at once.
const MANY_THREADS: &str = "$WITNESS & $WITNESS & $WITNESS & $WITNESS & wait";

#[testkit::test(requires = is_possible())]
fn a_command_with_too_many_threads_for_its_cpu_limit_is_ended_while_the_lock_is_held() {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let a = Candidate::new("a", &lock).docker(&["--pids-limit=15000"]);
    let a = a.run_script(&witnesses, &["ignore", "threads=3000"], MANY_THREADS);
    witnesses.wait_for("a", 4);
    let b = Candidate::new("b", &lock).run_witness(&witnesses, &[]);
    b.wait_for_log("is held by a");
    a.docker(&["update", "--cpus=0.1"]);
    assert_eq!(a.wait(), 76);
    let log = a.log();
    assert!(log.contains("the command could not be killed in time if renewals failed"), "{log}");
    witnesses.wait_for("b", 1);
    witnesses.assert_one_at_a_time(2);
}

/// Each process of it leaves a child in a session of its own, and ends.
const FORK_STORM: &str = "trap '' TERM; $WITNESS & exec perl -e 'use POSIX; $SIG{TERM} = \"IGNORE\"; \
    for (1..100) { next if fork; while (1) { POSIX::setsid(); my $pid = fork; exit if $pid; sleep 1 unless defined $pid } } sleep'";

#[testkit::test(requires = is_possible())]
fn processes_that_fork_all_the_time_are_ended() {
    assert_is_ended_on_request("--pids-limit=2000", FORK_STORM, "--time=50");
}
