//! Tests of the variables and descriptors that the command inherits, and of the descriptors that leaderrun closes.

use std::io::Write;

use testkit::{Candidate, Running, TestLock, eventually, leaderrun};

/// Starts leaderrun with variables that name its own process, as systemd does.
fn run_with_systemd_variables(script: &str) -> Running {
    let start =
        "export LISTEN_FDS=1 LISTEN_PID=$$ LISTEN_PIDFDID=1 WATCHDOG_USEC=1000000 WATCHDOG_PID=$$; exec \"$0\" \"$@\"";
    Candidate::program("a", "sh")
        .args(["-c", start, leaderrun(), "--lock", &TestLock::file().name, "--", "sh", "-c", script])
        .start()
}

#[testkit::test]
fn systemd_variables_that_name_leaderrun_are_changed_to_name_the_command() {
    let mut a = run_with_systemd_variables("echo \"$LISTEN_FDS $LISTEN_PID $WATCHDOG_PID ${LISTEN_PIDFDID-none} $$\"");
    a.wait_for_exit(0);
    let output = a.output();
    let [listen_fds, listen_pid, watchdog_pid, pidfd, pid] = output.split_whitespace().collect::<Vec<_>>()[..] else {
        panic!("{output}")
    };
    assert_eq!((listen_fds, listen_pid, watchdog_pid, pidfd), ("1", pid, pid, "none"));
}

#[testkit::test]
fn a_systemd_variable_that_names_another_process_is_not_changed() {
    let mut a = Candidate::new("a", &TestLock::file())
        .env("LISTEN_PID", "1")
        .run_script("echo \"$LISTEN_PID ${WATCHDOG_PID-none}\"");
    a.wait_for_exit(0);
    assert_eq!(a.output(), "1 none\n");
}

#[testkit::test]
fn a_reader_sees_the_end_of_the_output_when_the_command_closes_its_stdout() {
    let (reader, mut input) = std::io::pipe().expect("a pipe can be created");
    let a = Candidate::new("a", &TestLock::file())
        .configure(|command| {
            command.stdin(reader);
        })
        .run_script("echo output; exec >&-; read line <&0; exit 0");
    eventually("the output ends", || a.output_has_ended());
    input.write_all(b"\n").expect("the command reads");
}

#[testkit::test]
fn a_writer_notices_that_the_command_has_closed_its_input() {
    let (reader, writer) = std::io::pipe().expect("a pipe can be created");
    let mut a = Candidate::new("a", &TestLock::file())
        .configure(|command| {
            command.stdin(reader);
        })
        .run_script("exec <&-; echo closed; trap 'exit 0' TERM; while :; do sleep 0.02; done");
    eventually("the command has closed its input", || a.output().contains("closed"));
    eventually("a write to the pipe fails", || (&writer).write_all(b"x").is_err());
    a.stop();
}

#[testkit::test]
fn a_command_that_runs_again_still_has_its_stdout() {
    // With --every, leaderrun keeps its own copies of the streams for the next run.
    let lock = TestLock::file();
    let a = Candidate::new("a", &lock).args(["--every", "1s"]).run_script("echo run");
    eventually("the command has run twice", || a.output().matches("run").count() >= 2);
}
