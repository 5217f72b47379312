//! Tests of containers that an operator stops, kills, restarts or pauses.

use testkit::exit_status::LOST;
use testkit::{TestLock, Witnesses, eventually};

use crate::engine::{Candidate, Container, check_can_run_containers};

/// A leader and a standby, each PID 1 of a container.
struct Pair {
    witnesses: Witnesses,
    leader: Container,
    standby: Container,
}

impl Pair {
    /// Starts both candidates with `options`. `arguments` select the behavior of the leader's command.
    fn start(arguments: &[&str], options: &[&str]) -> Self {
        let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
        let leader = Candidate::new("a", &lock).args(options).run_witness(&witnesses, arguments);
        witnesses.wait_for("a", 1);
        let standby = Candidate::new("b", &lock).args(options).run_witness(&witnesses, &[]);
        standby.wait_for_log("held by a");
        Self { witnesses, leader, standby }
    }
}

#[testkit::test(requires = check_can_run_containers())]
fn after_docker_stop_the_leader_hands_over_once_the_command_has_ended() {
    let Pair { witnesses, leader, standby } = Pair::start(&["linger"], &[]);
    leader.docker(&["stop", "--time=20"]);
    witnesses.wait_for("b", 1);
    assert_eq!(leader.wait(), 0, "the status should be the command's own");
    standby.wait_for_log("a released");
    witnesses.assert_runs_one_at_a_time(2);
}

#[testkit::test(requires = check_can_run_containers())]
fn docker_stop_ends_a_command_that_ignores_signals() {
    let Pair { witnesses, leader, standby } = Pair::start(&["ignore", "hidden"], &["--kill-after", "1s"]);
    leader.docker(&["stop", "--time=20"]);
    witnesses.wait_for("b", 1);
    assert_eq!(leader.wait(), 128 + libc::SIGKILL);
    standby.wait_for_log("a released");
    witnesses.assert_runs_one_at_a_time(2);
}

#[testkit::test(requires = check_can_run_containers())]
fn after_docker_kill_another_candidate_leads_when_the_lease_expires() {
    let Pair { witnesses, leader, standby } = Pair::start(&["ignore", "hidden"], &[]);
    leader.docker(&["kill"]);
    witnesses.wait_for("b", 1);
    standby.wait_for_log("expired");
    witnesses.assert_runs_one_at_a_time(2);
}

#[testkit::test(requires = check_can_run_containers())]
fn a_leader_is_a_standby_after_docker_restart() {
    let Pair { witnesses, leader, standby: _standby } = Pair::start(&[], &[]);
    leader.docker(&["restart", "--time=20"]);
    witnesses.wait_for("b", 1);
    leader.wait_for_log("held by b");
    witnesses.assert_runs_one_at_a_time(2);
}

/// While the container is paused, its command cannot be ended, and the other candidate takes over. When the container
/// is unpaused, its command runs until leaderrun kills it. leaderrun does not promise to prevent this short overlap.
#[testkit::test(requires = check_can_run_containers())]
fn a_container_that_was_paused_past_its_lease_ends_its_command_when_it_is_unpaused() {
    let Pair { witnesses, leader, standby: _standby } = Pair::start(&["ignore", "hidden"], &[]);
    leader.docker(&["pause"]);
    witnesses.wait_for("b", 1);
    leader.docker(&["unpause"]);
    assert_eq!(leader.wait(), LOST);
    let last_seen = |holder| witnesses.lifetimes_of(holder).iter().map(|life| life.last_seen_at).max();
    let (last_of_a, last_of_b) = (last_seen("a"), last_seen("b"));
    eventually("b's command continues", || last_seen("b") > last_of_b);
    assert_eq!(last_seen("a"), last_of_a, "no process of a's command should be left");
}
