//! Tests of leaderrun on a terminal: the command is in the foreground, Ctrl-C reaches it, and the terminal is restored.

use nix::sys::termios::tcgetattr;
use nix::unistd::tcgetpgrp;

use testkit::{Candidate, Running, Screen, TestLock, eventually, leaderrun};

/// Starts leaderrun on a terminal, with this script as its command.
fn run_on(screen: &Screen, script: &str) -> Running {
    Candidate::new("a", &TestLock::file()).configure(|command| screen.attach(command)).run_script(script)
}

#[testkit::test]
fn the_command_is_in_the_foreground_and_the_terminal_is_restored() {
    let mut screen = Screen::new();
    let mut a = run_on(&screen, "read line; echo read \"<$line>\"; read line; exit 4");
    screen.wait_for("started the command");
    let elector = a.elector();
    eventually("the command has the terminal", || tcgetpgrp(&screen.keyboard).is_ok_and(|group| group != elector));
    screen.type_keys(b"typed\n");
    screen.wait_for("read <typed>");
    screen.type_keys(b"\n");
    a.wait_for_exit(4);
    // The first leaderrun was the session leader, so the session ended with it. Only a session that continues, such as
    // that of a shell, shows whether the terminal is restored.
    let mut screen = Screen::new();
    let script = format!(
        "{} --lock {} -q -- sh -c 'exit 5'; read line; echo \"status $?, <$line>\"",
        leaderrun(),
        TestLock::file().name
    );
    let mut shell = shell(&screen, &["-i", "-c", &script]);
    screen.type_keys(b"to the shell\n");
    screen.wait_for("<to the shell>");
    shell.wait();
}

#[testkit::test]
fn ctrl_c_reaches_the_command() {
    let mut screen = Screen::new();
    let mut a = run_on(&screen, "trap 'echo interrupted; exit 6' INT; echo ready; while :; do sleep 0.01; done");
    screen.wait_for("ready");
    screen.type_keys(b"\x03");
    a.wait_for_exit(6);
    screen.wait_for("interrupted");
    assert_eq!(screen.text().matches("interrupted").count(), 1, "the command should get one signal: {}", screen.text());
}

#[testkit::test]
fn ctrl_z_does_not_suspend_a_leader() {
    let mut screen = Screen::new();
    let mut a = run_on(&screen, "echo ready; while read line; do echo \"still $line\"; done");
    screen.wait_for("ready");
    screen.type_keys(b"\x1a");
    screen.wait_for("cannot be suspended");
    screen.type_keys(b"here\n");
    screen.wait_for("still here");
    screen.type_keys(b"\x04");
    a.wait_for_exit(0);
}

#[testkit::test]
fn ctrl_z_does_not_suspend_a_standby() {
    let lock = TestLock::file();
    let a = Candidate::new("a", &lock).run_script("echo leads; exec sleep 1000");
    eventually("a leads", || a.output().contains("leads"));
    let mut screen = Screen::new();
    let line = format!("{} --lock {} -- echo acquired", leaderrun(), lock.name);
    let mut shell = shell(&screen, &["-i", "-c", &line]);
    screen.wait_for("held by a");
    screen.type_keys(b"\x1a");
    screen.wait_for("still waiting: a candidate cannot be suspended");
    drop(a);
    screen.wait_for("acquired");
    shell.wait();
}

#[testkit::test]
fn in_a_pipeline_the_other_programs_can_still_read_from_the_terminal() {
    let mut screen = Screen::new();
    let script = format!(
        "{} --lock {} -q -- sh -c 'echo from the command; sleep 0.2' | sh -c 'cat; read line < /dev/tty; echo \"<$line>\"'",
        leaderrun(),
        TestLock::file().name
    );
    let mut shell = shell(&screen, &["-i", "-c", &script]);
    screen.type_keys(b"typed\n");
    screen.wait_for("from the command");
    screen.wait_for("<typed>");
    shell.wait();
}

#[testkit::test]
fn in_a_pipeline_ctrl_z_does_not_stop_the_command() {
    let mut screen = Screen::new();
    let job = job("while :; do echo tick; sleep 0.02; done");
    let pipeline = format!("{job} | sh -c \"trap '' TSTP; exec cat\"");
    let mut shell = shell(&screen, &["-i", "-c", &pipeline]);
    screen.wait_for("tick");
    screen.type_keys(b"\x1a");
    screen.wait_for("^Z");
    let ticks = || screen.text().matches("tick").count();
    let before = ticks();
    eventually("the command continues", || ticks() > before + 50);
    screen.type_keys(b"\x03");
    shell.wait();
}

/// Starts a shell on a terminal. It reads no startup files, because they may take a long time or wait for input.
fn shell(screen: &Screen, arguments: &[&str]) -> Running {
    Candidate::program("shell", "bash")
        .args(["--norc"])
        .args(arguments)
        .configure(|command| screen.attach(command))
        .start()
}

/// Returns a shell command that runs leaderrun with `script` as its command.
fn job(script: &str) -> String {
    job_with("", script)
}

/// Like [`job`], with these additional options.
fn job_with(options: &str, script: &str) -> String {
    format!("{} {options} --lock {} -- sh -c '{script}'", leaderrun(), TestLock::file().name)
}

#[testkit::test]
fn ctrl_c_ends_a_command_that_waits_for_the_terminal_in_a_pipeline() {
    let mut screen = Screen::new();
    let mut shell = shell(&screen, &["-i", "-c", &format!("{} | cat", job("read line"))]);
    screen.wait_for("suspended until it gets the terminal");
    screen.type_keys(b"\x03");
    shell.wait();
}

#[testkit::test]
fn fg_gives_the_terminal_to_a_command_that_waits_for_it() {
    let mut screen = Screen::new();
    let mut shell = shell(&screen, &["-i"]);
    screen.type_keys(format!("{} &\n", job("read line; echo \"<$line>\"")).as_bytes());
    screen.wait_for("suspended until it gets the terminal");
    screen.type_keys(b"fg\n");
    let foreground_program = || {
        let group = tcgetpgrp(&screen.keyboard).ok()?;
        std::fs::read_to_string(format!("/proc/{group}/comm")).ok()
    };
    eventually("the command has the terminal", || foreground_program().as_deref() == Some("sh\n"));
    screen.type_keys(b"typed\n");
    screen.wait_for("<typed>");
    screen.type_keys(b"exit 0\n");
    shell.wait();
}

/// Starts a shell script on a terminal.
fn start_script(screen: &Screen, shell: &str, script: &str) -> Running {
    Candidate::program("script", shell).args(["-c", script]).configure(|command| screen.attach(command)).start()
}

#[testkit::test]
fn in_a_script_a_command_can_read_from_the_terminal() {
    for shell in ["bash", "dash"] {
        let mut screen = Screen::new();
        let lines = format!("{}; echo \"status $?\"", job("printf \"go on? \"; read line; echo \"<$line>\""));
        let mut script = start_script(&screen, shell, &lines);
        screen.wait_for("go on?");
        screen.type_keys(b"yes\n");
        screen.wait_for("<yes>");
        screen.wait_for("status 0");
        script.wait_for_exit(0);
    }
}

/// Ctrl-C ends the whole script, just as it would without leaderrun, even while only the command has the terminal.
#[testkit::test]
fn ctrl_c_ends_a_script() {
    for shell in ["bash", "dash"] {
        for command in ["echo ready; exec sleep 1000", "echo ready; read line"] {
            let mut screen = Screen::new();
            let lines = format!("for i in 1 2 3; do {}; done; echo went on", job(command));
            let mut script = start_script(&screen, shell, &lines);
            screen.wait_for("ready");
            screen.wait_for("started the command");
            if command.contains("read line") {
                let script_group = script.pid();
                eventually("the command has the terminal", || {
                    tcgetpgrp(&screen.keyboard).is_ok_and(|group| group != script_group)
                });
            }
            screen.type_keys(b"\x03");
            script.wait();
            assert_eq!(screen.text().matches("ready").count(), 1, "{}", screen.text());
            assert!(!screen.text().contains("went on"), "{}", screen.text());
        }
    }
}

#[testkit::test]
fn with_foreground_a_command_in_a_pipeline_has_the_terminal() {
    let mut screen = Screen::new();
    let lines = format!("{} | cat", job_with("--foreground", "read line; echo \"<$line>\""));
    let mut shell = shell(&screen, &["-i", "-c", &lines]);
    screen.wait_for("started the command");
    screen.type_keys(b"typed\n");
    screen.wait_for("<typed>");
    shell.wait();
}

#[testkit::test]
fn the_modes_of_the_terminal_are_restored_after_a_command_that_was_killed() {
    let killed: [(&[&str], _); 2] = [(&[], "kill -9 $$"), (&["--max-run", "1s"], "while :; do sleep 0.1; done")];
    for (options, end) in killed {
        let screen = Screen::new();
        let modes = || tcgetattr(&screen.terminal).expect("the modes of the terminal can be read");
        let before = modes();
        let a = Candidate::new("a", &TestLock::file()).args(options.iter().copied());
        a.configure(|command| screen.attach(command)).run_script(&format!("stty raw -echo; {end}")).wait();
        let after = modes();
        assert_eq!((after.local_flags, after.input_flags), (before.local_flags, before.input_flags), "{end}");
    }
}

#[testkit::test]
fn kill_after_is_counted_from_ctrl_c() {
    for in_script in [false, true] {
        let mut screen = Screen::new();
        let job = job_with("--kill-after 300ms", "trap \"\" INT; echo ready; while :; do sleep 0.02; done");
        let line = format!("{job}; echo \"status $?\"");
        let mut shell =
            if in_script { start_script(&screen, "bash", &line) } else { shell(&screen, &["-i", "-c", &line]) };
        screen.wait_for("ready");
        screen.type_keys(b"\x03");
        screen.wait_for("the command did not end within --kill-after");
        shell.wait();
    }
}

#[testkit::test]
fn with_kill_after_a_command_can_read_from_the_terminal() {
    let line = job_with("--kill-after 5s", "printf \"go on? \"; read line; echo \"<$line>\"");
    // If a line consists of one command, the shell replaces itself with it, so leaderrun inherits the shell's ignored
    // SIGTTIN.
    for line in [line.clone(), format!("{line}; true")] {
        let mut screen = Screen::new();
        let mut shell = shell(&screen, &["-i", "-c", &line]);
        screen.wait_for("go on?");
        screen.type_keys(b"yes\n");
        screen.wait_for("<yes>");
        shell.wait();
    }
}
