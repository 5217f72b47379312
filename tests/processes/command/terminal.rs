//! leaderrun on a terminal: the command is in the foreground, Ctrl-C reaches it, and the terminal is restored.

use nix::sys::termios::tcgetattr;
use nix::unistd::tcgetpgrp;

use testkit::{Candidate, Running, Screen, TestLock, eventually, leaderrun};

fn on(screen: &Screen, script: &str) -> Running {
    Candidate::new("a", &TestLock::file()).configure(|command| screen.attach(command)).run_script(script)
}

#[testkit::test]
fn the_command_is_in_the_foreground_and_the_terminal_is_restored() {
    let mut screen = Screen::new();
    let mut a = on(&screen, "read line; echo read \"<$line>\"; read line; exit 4");
    screen.shows("started the command");
    let elector = a.elector();
    eventually("the command has the terminal", || tcgetpgrp(&screen.keyboard).is_ok_and(|group| group != elector));
    screen.types(b"typed\n");
    screen.shows("read <typed>");
    // The session ends with its leader, so the restored terminal can only be seen from inside the session.
    screen.types(b"\n");
    a.wait_for_exit(4);
    let mut screen = Screen::new();
    let script = format!(
        "{} --lock {} -q -- sh -c 'exit 5'; read line; echo \"status $?, <$line>\"",
        leaderrun(),
        TestLock::file().name
    );
    let mut shell = shell(&screen, &["-i", "-c", &script]);
    screen.types(b"again mine\n");
    screen.shows("<again mine>");
    shell.wait();
}

#[testkit::test]
fn ctrl_c_reaches_the_command() {
    let mut screen = Screen::new();
    let mut a = on(&screen, "trap 'echo interrupted; exit 6' INT; echo ready; while :; do sleep 0.01; done");
    screen.shows("ready");
    screen.types(b"\x03");
    a.wait_for_exit(6);
    screen.shows("interrupted");
    assert_eq!(screen.text().matches("interrupted").count(), 1, "once: {}", screen.text());
}

#[testkit::test]
fn ctrl_z_does_not_suspend_a_leader() {
    let mut screen = Screen::new();
    let mut a = on(&screen, "echo ready; n=0; while read line; do echo \"still $line\"; done");
    screen.shows("ready");
    screen.types(b"\x1a");
    screen.shows("cannot be suspended");
    screen.types(b"here\n");
    screen.shows("still here");
    screen.types(b"\x04");
    a.wait_for_exit(0);
}

#[testkit::test]
fn ctrl_z_does_not_suspend_a_standby() {
    let lock = TestLock::file();
    let a = Candidate::new("a", &lock).run_script("echo leads; exec sleep 1000");
    eventually("a leads", || a.output().contains("leads"));
    let mut screen = Screen::new();
    let line = format!("{} --lock {} -- echo acquired", leaderrun(), lock.name);
    let mut shell = shell(&screen, &["--norc", "-i", "-c", &line]);
    screen.shows("is held by a");
    screen.types(b"\x1a");
    screen.shows("still waiting: a candidate cannot be suspended");
    drop(a);
    screen.shows("acquired");
    shell.wait();
}

#[testkit::test]
fn in_a_pipeline_the_foreground_group_is_not_changed() {
    let mut screen = Screen::new();
    let script = format!(
        "{} --lock {} -q -- sh -c 'echo from the command; sleep 0.2' | sh -c 'cat; read line < /dev/tty; echo \"<$line>\"'",
        leaderrun(),
        TestLock::file().name
    );
    let mut shell = shell(&screen, &["-i", "-c", &script]);
    screen.types(b"typed\n");
    screen.shows("from the command");
    screen.shows("<typed>");
    shell.wait();
}

#[testkit::test]
fn in_a_pipeline_ctrl_z_does_not_stop_the_command() {
    let mut screen = Screen::new();
    let job = job("while :; do echo tick; sleep 0.02; done");
    let pipeline = format!("{job} | sh -c \"trap '' TSTP; exec cat\"");
    let mut shell = shell(&screen, &["-i", "-c", &pipeline]);
    screen.shows("tick");
    screen.types(b"\x1a");
    screen.shows("^Z");
    let ticks = || screen.text().matches("tick").count();
    let before = ticks();
    eventually("the command continues", || ticks() > before + 50);
    screen.types(b"\x03");
    shell.wait();
}

fn shell(screen: &Screen, arguments: &[&str]) -> Running {
    Candidate::program("shell", "bash").args(arguments).configure(|command| screen.attach(command)).start()
}

fn job(script: &str) -> String {
    format!("{} --lock {} -- sh -c '{script}'", leaderrun(), TestLock::file().name)
}

#[testkit::test]
fn ctrl_c_ends_a_command_that_waits_for_a_terminal_it_cannot_have() {
    let mut screen = Screen::new();
    let mut shell = shell(&screen, &["-i", "-c", &format!("{} | cat", job("read line"))]);
    screen.shows("waits for the terminal");
    screen.types(b"\x03");
    shell.wait();
}

#[testkit::test]
fn fg_gives_the_terminal_to_a_command_that_waits_for_it() {
    let mut screen = Screen::new();
    let mut shell = shell(&screen, &["--norc", "-i"]);
    screen.types(format!("{} &\n", job("read line; echo \"<$line>\"")).as_bytes());
    screen.shows("waits for the terminal");
    screen.types(b"fg\n");
    let in_foreground = || {
        let group = tcgetpgrp(&screen.keyboard).ok()?;
        std::fs::read_to_string(format!("/proc/{group}/comm")).ok()
    };
    eventually("the command has the terminal", || in_foreground().as_deref() == Some("sh\n"));
    screen.types(b"typed\n");
    screen.shows("<typed>");
    screen.types(b"exit 0\n");
    shell.wait();
}

fn script(screen: &Screen, shell: &str, script: &str) -> Running {
    Candidate::program("script", shell).args(["-c", script]).configure(|command| screen.attach(command)).start()
}

#[testkit::test]
fn in_a_script_a_command_can_ask() {
    for shell in ["bash", "dash"] {
        let mut screen = Screen::new();
        let lines = format!("{}; echo \"status $?\"", job("printf \"go on? \"; read line; echo \"<$line>\""));
        let mut script = script(&screen, shell, &lines);
        screen.shows("go on?");
        screen.types(b"yes\n");
        screen.shows("<yes>");
        screen.shows("status 0");
        script.wait_for_exit(0);
    }
}

/// The script ends as with the command alone, even if only the command had the terminal.
#[testkit::test]
fn ctrl_c_ends_a_script() {
    for shell in ["bash", "dash"] {
        for command in ["echo ready; exec sleep 1000", "echo ready; read line"] {
            let mut screen = Screen::new();
            let lines = format!("for i in 1 2 3; do {}; done; echo went on", job(command));
            let mut script = script(&screen, shell, &lines);
            screen.shows("ready");
            screen.shows("started the command");
            if command.contains("read line") {
                let of_script = script.elector();
                eventually("the command has the terminal", || {
                    tcgetpgrp(&screen.keyboard).is_ok_and(|group| group != of_script)
                });
            }
            screen.types(b"\x03");
            script.wait();
            assert_eq!(screen.text().matches("ready").count(), 1, "{}", screen.text());
            assert!(!screen.text().contains("went on"), "{}", screen.text());
        }
    }
}

#[testkit::test]
fn with_foreground_a_command_in_a_pipeline_has_the_terminal() {
    let mut screen = Screen::new();
    let lines = format!("{} | cat", job("read line; echo \"<$line>\"").replace(" --lock", " --foreground --lock"));
    let mut shell = shell(&screen, &["-i", "-c", &lines]);
    screen.shows("started the command");
    screen.types(b"typed\n");
    screen.shows("<typed>");
    shell.wait();
}

#[testkit::test]
fn a_terminal_has_its_modes_again_when_the_command_was_killed() {
    let screen = Screen::new();
    let before = tcgetattr(&screen.terminal).expect("its modes");
    let mut a = on(&screen, "stty raw -echo; kill -9 $$");
    a.wait();
    let after = tcgetattr(&screen.terminal).expect("its modes");
    assert_eq!((after.local_flags, after.input_flags), (before.local_flags, before.input_flags));
}

#[testkit::test]
fn ctrl_c_begins_the_time_to_the_kill() {
    for in_script in [false, true] {
        let mut screen = Screen::new();
        let deaf = job("trap \"\" INT; echo ready; while :; do sleep 0.02; done");
        let line = format!("{}; echo \"status $?\"", deaf.replace(" --lock", " --kill-after 300ms --lock"));
        let mut shell = match in_script {
            true => script(&screen, "bash", &line),
            false => shell(&screen, &["-i", "-c", &line]),
        };
        screen.shows("ready");
        screen.types(b"\x03");
        screen.shows("the command did not end within --kill-after");
        shell.wait();
    }
}

#[testkit::test]
fn with_kill_after_a_command_can_ask() {
    let line = job("printf \"go on? \"; read line; echo \"<$line>\"").replace(" --lock", " --kill-after 5s --lock");
    // The first is replaced by leaderrun, which inherits from it that SIGTTIN is ignored.
    for line in [line.clone(), format!("{line}; true")] {
        let mut screen = Screen::new();
        let mut shell = shell(&screen, &["-i", "-c", &line]);
        screen.shows("go on?");
        screen.types(b"yes\n");
        screen.shows("<yes>");
        shell.wait();
    }
}
