//! Tests of leaderrun's processes in a container: as PID 1, under an init process, next to other containers, and when a
//! process of leaderrun is killed.

use nix::sys::signal::Signal;
use testkit::{TestLock, Witnesses};

use crate::engine::{Candidate, check_can_run_containers, docker, shared_file};

#[testkit::test(requires = check_can_run_containers())]
fn leaderrun_as_pid_1_reaps_orphans_and_exits_with_the_commands_status() {
    let script = "(setsid sh -c 'sleep 0.2' &); sleep 1; grep -l '^State:.Z' /proc/[0-9]*/status; exit 7";
    let witnesses = Witnesses::new();
    let a = Candidate::new("a", &shared_file()).run_script(&witnesses, &[], script);
    assert_eq!(a.wait(), 7, "{}", a.log());
    // The container's stdout lists the files that grep found.
    assert_eq!(docker(&["logs", &a.name]), "", "no zombie should be left");
}

#[testkit::test(requires = check_can_run_containers())]
fn a_candidate_runs_unprivileged_on_a_read_only_file_system() {
    let (lock, witnesses) = (shared_file(), Witnesses::new());
    let options = ["--user=65532:65532", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"];
    let candidate =
        |identity: &str| Candidate::new(identity, &lock).docker_options(&options).args(&["--kill-after", "1s"]);
    let a = candidate("a").run_witness(&witnesses, &["ignore", "hidden"]);
    witnesses.wait_for("a", 2);
    let b = candidate("b").run_witness(&witnesses, &[]);
    b.wait_for_log("held by a");
    a.docker(&["stop", "--time=20"]);
    witnesses.wait_for("b", 1);
    b.wait_for_log("a released");
    witnesses.assert_runs_one_at_a_time(2);
}

#[testkit::test(requires = check_can_run_containers())]
fn a_daemon_that_the_command_leaves_running_is_killed_before_the_release() {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let a = Candidate::new("a", &lock).run_script(&witnesses, &["ignore"], "setsid $WITNESS & sleep 1");
    witnesses.wait_for("a", 1);
    let _b = Candidate::new("b", &lock).run_witness(&witnesses, &[]);
    assert_eq!(a.wait(), 0);
    witnesses.wait_for("b", 1);
    a.wait_for_log("killing what the command left running");
    witnesses.assert_runs_one_at_a_time(2);
}

/// Kills leaderrun's process with the name `comm` in a container with these options. Checks that the command is dead
/// before another candidate's command starts.
fn assert_command_ends_after_kill(comm: &str, options: &[&str]) {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let a = Candidate::new("a", &lock).docker_options(options).run_witness(&witnesses, &["ignore", "hidden"]);
    witnesses.wait_for("a", 2);
    let b = Candidate::new("b", &lock).run_witness(&witnesses, &[]);
    b.wait_for_log("held by a");
    let pid = a.pid_of(comm);
    a.exec(&["/bin/kill", &format!("-{}", Signal::SIGKILL as i32), &pid]);
    witnesses.wait_for("b", 1);
    a.wait();
    witnesses.assert_runs_one_at_a_time(2);
}

#[testkit::test(requires = check_can_run_containers())]
fn the_command_ends_when_the_supervisor_is_killed() {
    assert_command_ends_after_kill("lr-supervisor", &[]);
}

/// PID 1 cannot be killed from inside its container. Under an init process, the elector is not PID 1.
#[testkit::test(requires = check_can_run_containers())]
fn the_command_ends_when_the_elector_is_killed() {
    assert_command_ends_after_kill("leaderrun", &["--init"]);
}

#[testkit::test(requires = check_can_run_containers())]
fn processes_of_other_containers_are_left_alone() {
    let (lock, witnesses) = (shared_file(), Witnesses::new());
    let neighbor = Candidate::new("neighbor", &shared_file()).run_script(&witnesses, &[], "exec sleep 1000");
    neighbor.wait_for_log("started the command");
    let shared_namespace = format!("--pid=container:{}", neighbor.name);
    let a =
        Candidate::new("a", &lock).docker_options(&[&shared_namespace]).run_witness(&witnesses, &["hidden", "ends"]);
    assert_eq!(a.wait(), 0, "{}", a.log());
    assert!(neighbor.is_running());
    assert!(!neighbor.log().contains("ended"), "{}", neighbor.log());
}
