//! `--max-run`, and a run by hand of what is not due.

use testkit::{Candidate, TestLock, Witnesses};

#[testkit::test]
fn a_command_that_runs_for_too_long_gets_the_stop_signal() {
    let lock = TestLock::file();
    let script = "trap 'echo stopped; exit 0' USR1; echo runs; while :; do sleep 0.05; done";
    let mut a = Candidate::new("a", &lock).args(["--max-run", "500ms", "--stop-signal", "USR1"]).run_script(script);
    a.wait_for_exit(124);
    assert_eq!(a.output(), "runs\nstopped\n");
    assert!(a.log().contains("the command has run for --max-run 500ms; sending SIGUSR1 to it"), "{}", a.log());
    assert!(
        a.log().contains("the command was stopped after --max-run 500ms, and no process of it is left"),
        "{}",
        a.log()
    );
    Candidate::new("b", &lock).args(["--wait", "0s"]).run(["true"]).wait_for_exit(0);
}

#[testkit::test]
fn one_that_does_not_end_is_killed_with_all_of_its_processes() {
    for grace in ["--kill-after", "--lost-grace"] {
        let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
        let limit = Candidate::new("a", &lock).args(["--max-run", "500ms", grace, "300ms"]);
        let mut a = limit.run_witness(&witnesses, &["ignore", "hidden"]);
        witnesses.wait_for("a", 1);
        let mut b = Candidate::new("b", &lock).run_witness(&witnesses, &["ends"]);
        a.wait_for_exit(124);
        assert!(a.log().contains("the command did not end in time after --max-run 500ms; killing it: "), "{}", a.log());
        b.wait_for_exit(0);
        witnesses.assert_one_at_a_time(2);
    }
}

#[testkit::test]
fn one_that_ends_in_time_keeps_its_status() {
    let lock = TestLock::file();
    Candidate::new("a", &lock).args(["--max-run", "1h"]).run(["sh", "-c", "exit 3"]).wait_for_exit(3);
    Candidate::new("a", &lock).args(["--max-run", "1h"]).run(["/no/such/program"]).wait_for_exit(127);
}

#[testkit::test]
fn what_is_not_due_runs_by_hand() {
    for lock in [TestLock::file(), TestLock::lease(), TestLock::of_kind("configmap+lease")] {
        Candidate::new("a", &lock).args(["--min-hold", "1h"]).run(["true"]).wait_for_exit(0);
        Candidate::new("b", &lock).args(["--wait", "0s"]).run(["true"]).wait_for_exit(75);
        let mut by_hand = Candidate::new("c", &lock).args(["--wait", "0s", "--ignore-min-hold"]).run(["echo", "ran"]);
        by_hand.wait_for_exit(0);
        assert_eq!(by_hand.output(), "ran\n");
    }
}
