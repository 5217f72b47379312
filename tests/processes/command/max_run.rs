//! Tests of `--max-run` and `--ignore-min-hold`.

use testkit::exit_status::{NOT_ACQUIRED, NOT_FOUND, TIMED_OUT};
use testkit::{Candidate, TestLock, Witnesses};

#[testkit::test]
fn a_command_that_runs_for_too_long_gets_the_stop_signal() {
    let lock = TestLock::file();
    let script = "trap 'echo stopped; exit 0' USR1; echo runs; while :; do sleep 0.05; done";
    let mut a = Candidate::new("a", &lock).args(["--max-run", "500ms", "--stop-signal", "USR1"]).run_script(script);
    a.wait_for_exit(TIMED_OUT);
    assert_eq!(a.output(), "runs\nstopped\n");
    assert!(a.log().contains("the command has reached --max-run 500ms; sending SIGUSR1 to it"), "{}", a.log());
    assert!(
        a.log().contains("the command was stopped after --max-run 500ms, and none of its processes is left"),
        "{}",
        a.log()
    );
    Candidate::new("b", &lock).args(["--wait", "0s"]).run(["true"]).wait_for_exit(0);
}

#[testkit::test]
fn a_command_that_ignores_the_stop_signal_after_max_run_is_killed() {
    for option in ["--kill-after", "--lost-grace"] {
        let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
        let candidate = Candidate::new("a", &lock).args(["--max-run", "500ms", option, "300ms"]);
        let mut a = candidate.run_witness(&witnesses, &["ignore", "hidden"]);
        witnesses.wait_for("a", 1);
        let mut b = Candidate::new("b", &lock).run_witness(&witnesses, &["ends"]);
        a.wait_for_exit(TIMED_OUT);
        assert!(a.log().contains("the command did not end in time after --max-run 500ms; killing it: "), "{}", a.log());
        b.wait_for_exit(0);
        witnesses.assert_runs_one_at_a_time(2);
    }
}

#[testkit::test]
fn leaderrun_exits_with_the_status_of_a_command_that_ends_within_max_run() {
    let lock = TestLock::file();
    Candidate::new("a", &lock).args(["--max-run", "1h"]).run(["sh", "-c", "exit 3"]).wait_for_exit(3);
    Candidate::new("a", &lock).args(["--max-run", "1h"]).run(["/no/such/program"]).wait_for_exit(NOT_FOUND);
}

#[testkit::test]
fn with_ignore_min_hold_a_command_runs_before_min_hold_has_passed() {
    for lock in [TestLock::file(), TestLock::lease(), TestLock::of_kind("configmap+lease")] {
        Candidate::new("a", &lock).args(["--min-hold", "1h"]).run(["true"]).wait_for_exit(0);
        Candidate::new("b", &lock).args(["--wait", "0s"]).run(["true"]).wait_for_exit(NOT_ACQUIRED);
        let mut c = Candidate::new("c", &lock).args(["--wait", "0s", "--ignore-min-hold"]).run(["echo", "ran"]);
        c.wait_for_exit(0);
        assert_eq!(c.output(), "ran\n");
    }
}
