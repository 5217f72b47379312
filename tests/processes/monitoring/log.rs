//! Tests of the log in its text and JSON formats.

use std::fs::File;
use std::io::Read;
use std::process::Stdio;

use serde_json::Value;

use testkit::exit_status::{LOST, NOT_FOUND};
use testkit::{Candidate, Cluster, Proxy, Pty, Running, TestLock, Witnesses, scratch};

/// Returns the lines of the log without their prefixes.
fn sentences(running: &Running) -> Vec<String> {
    let log = running.log();
    let sentence = |line: &str| {
        let (when, sentence) =
            line.strip_prefix("leaderrun +").and_then(|rest| rest.split_once(": ")).expect("a line has a prefix");
        assert!(when.ends_with('s') && when.starts_with(|first: char| first.is_ascii_digit()), "{line}");
        sentence.to_owned()
    };
    log.lines().map(sentence).collect()
}

#[testkit::test]
fn a_hand_over_is_logged_in_sentences() {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let mut a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let mut b = Candidate::new("b", &lock).run_script("exit 3");
    b.wait_for_log("held by a");
    a.stop();
    b.wait_for_exit(3);
    let lease = Cluster::shared().admin().get(&lock.lease_path()).expect("the Lease exists");
    let name = &lock.name;
    let [server, started, terminating, ended] = &sentences(&a)[..] else { panic!("{}", a.log()) };
    assert!(server.starts_with(&format!("the API server of {name} is https://")), "{server}");
    assert!(started.starts_with("started the command, process "), "{started}");
    assert!(started.contains(&format!(", as leader of {name}, fencing token ")), "{started}");
    assert_eq!(terminating, "got SIGTERM; terminating the command");
    assert_eq!(ended, "the command ended with status 0, and none of its processes is left");
    let [_, waiting, held, released, started, ended] = &sentences(&b)[..] else { panic!("{}", b.log()) };
    assert_eq!(*waiting, format!("waiting for {name} as b; tolerates clock rates that differ by up to 1.20x"));
    assert!(
        held.starts_with(&format!("{name} is held by a, which acquired it at 20"))
            && held.ends_with("Z; it expires 6s after the last renewal"),
        "{held}"
    );
    assert_eq!(*released, format!("a released {name}"));
    assert!(started.starts_with("started the command, process "), "{started}");
    assert_eq!(ended, "the command ended with status 3, and none of its processes is left");
    assert_eq!(lease["spec"]["holderIdentity"], "");
}

/// Paths and variable names can contain line breaks and escape sequences.
#[testkit::test]
fn text_from_outside_cannot_forge_a_line() {
    let hostile = "x\nleaderrun +0.0s: error: forged\r\u{1b}[2J";
    let lock =
        TestLock { name: format!("file:{}", scratch::directory("hostile").join(hostile).display()), kubeconfig: None };
    let mut a = Candidate::new("a", &lock)
        .env(&format!("LEADERRUN_{hostile}"), "1")
        .env("PATH", &format!("/{hostile}"))
        .env("NOTIFY_SOCKET", &format!("/{hostile}"))
        .args(["-v", "--http", "127.0.0.1:0"])
        .run(["no-such-program"]);
    a.wait_for_exit(NOT_FOUND);
    let mut texts = vec![a.log()];
    for subcommand in [&["status"][..], &["doctor"], &["step-down"], &["release", "--force"]] {
        let mut run = Candidate::subcommand(subcommand[0], &lock).args(&subcommand[1..]).start();
        run.wait();
        texts.push(run.output() + &run.log());
    }
    for text in texts {
        assert!(text.contains("x\\nleaderrun +0.0s: error: forged\\r\\u{1b}[2J"), "{text}");
        assert!(!text.contains("\nleaderrun +0.0s: error: forged") && !text.contains(['\r', '\u{1b}']), "{text}");
    }
}

/// leaderrun logs one line when the command starts and one when it ends. For a lock in a cluster, another line names
/// the API server.
#[testkit::test]
fn a_run_that_acquires_the_lock_without_waiting_logs_few_lines() {
    // With these durations, slow requests on a busy machine are not reported.
    const LONG_DURATIONS: [&str; 6] = ["--lease-duration", "300s", "--renew-deadline", "200s", "--retry-period", "1s"];
    for (lock, lines) in [(TestLock::file(), 2), (TestLock::lease(), 3)] {
        let mut a = Candidate::with_timing("a", &lock, LONG_DURATIONS).run_script("exit 3");
        a.wait_for_exit(3);
        let sentences = sentences(&a);
        assert_eq!(sentences.len(), lines, "{}", a.log());
        let mut verbose = Candidate::with_timing("a", &lock, LONG_DURATIONS).args(["-v"]).run_script("exit 3");
        verbose.wait_for_exit(3);
        for expected in
            ["sent a request: read ", "acquired ", "tolerates clock rates", "started the command", "released "]
        {
            assert!(verbose.log().contains(expected), "{expected}: {}", verbose.log());
        }
        assert!(!verbose.log().contains("Record"), "the log should contain no type names: {}", verbose.log());
    }
}

/// Returns the objects in a JSON log.
fn objects(running: &Running) -> Vec<Value> {
    running.log().lines().map(|line| serde_json::from_str(line).expect("a line is a JSON object")).collect()
}

#[testkit::test]
fn a_hand_over_is_logged_as_json() {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let mut a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let mut b = Candidate::new("b", &lock).args(["--log-format", "json"]).run_script("exit 3");
    b.wait_for_log("held");
    a.stop();
    b.wait_for_exit(3);
    let mut objects = objects(&b);
    // leaderrun logs this event if the user is not permitted to lock enough memory.
    objects.retain(|object| object["event"] != "memory_not_locked");
    let events: Vec<&str> =
        objects.iter().map(|object| object["event"].as_str().expect("an object has an event")).collect();
    assert_eq!(
        events,
        ["api_server", "waiting", "held", "released_by_holder", "leading", "started", "ended", "release"]
    );
    for object in &objects {
        assert_eq!(object["level"], "INFO");
        assert!(object["timestamp"].is_string() && object["message"].is_string(), "{object}");
    }
    let [_, waiting, held, released, leading, started, ended, _] = &objects[..] else { panic!("{objects:?}") };
    for object in [waiting, held, released, leading] {
        assert_eq!(object["lock"], *lock.name);
    }
    assert_eq!((&held["holder"], &released["holder"]), (&"a".into(), &"a".into()));
    assert!(held["since"].is_string() && leading["fencing_token"].is_string(), "{objects:?}");
    assert!(started["pid"].is_number() && ended["status"] == 3, "{objects:?}");
}

#[testkit::test]
fn only_a_log_on_a_terminal_has_colors() {
    let on_terminal = |variable: &str| {
        let terminal = Pty::open();
        let lock = TestLock::file();
        let candidate = Candidate::new("a", &lock).env(variable, "1").configure(|command| {
            command.stderr(Stdio::from(terminal.slave));
        });
        candidate.run_script("true").wait_for_exit(0);
        let mut written = Vec::new();
        // Reading from a terminal fails once its other end is closed.
        let _ = File::from(terminal.master).read_to_end(&mut written);
        String::from_utf8(written).expect("the log is UTF-8")
    };
    let colored = on_terminal("UNRELATED");
    assert!(
        colored.starts_with("\x1b[2mleaderrun +") && colored.contains(":\x1b[0m started the command"),
        "{colored:?}"
    );
    let plain = on_terminal("NO_COLOR");
    assert!(plain.starts_with("leaderrun +") && !plain.contains('\x1b'), "{plain:?}");
    let mut a = Candidate::new("a", &TestLock::file()).run_script("true");
    a.wait_for_exit(0);
    assert!(!a.log().contains('\x1b'), "{}", a.log());
}

#[testkit::test]
fn the_log_names_the_processes_that_are_killed() {
    let mut a = Candidate::new("a", &TestLock::file()).run_script("trap '' TERM; sleep 1000 & sleep 1000 & exit 0");
    a.wait_for_exit(0);
    let log = a.log();
    let killed = log.lines().find_map(|line| line.split_once("killing what the command left running: "));
    let (_, killed) = killed.unwrap_or_else(|| panic!("{log}"));
    let names: Vec<&str> =
        killed.split(", ").map(|process| process.split(' ').next().expect("a process has a name")).collect();
    assert_eq!(names, ["sleep", "sleep"]);
}

#[testkit::test]
fn a_lasting_failure_is_logged_once() {
    let proxy = Proxy::start(Cluster::shared());
    let (lock, witnesses) = (TestLock::lease_through(proxy.kubeconfig()), Witnesses::new());
    let mut a = Candidate::new("a", &lock).run_witness(&witnesses, &["linger"]);
    witnesses.wait_for("a", 1);
    proxy.partition();
    a.wait_for_exit(LOST);
    let sentences = sentences(&a);
    let count = |event: &str| sentences.iter().filter(|sentence| sentence.contains(event)).count();
    assert_eq!(count("does not respond; trying again; the command will be stopped in "), 1, "{}", a.log());
    assert_eq!(count("leadership lost: sending SIGTERM to the command"), 1, "{}", a.log());
    // On a busy machine, the elector may have to kill the supervisor together with its command. It then logs this
    // message, and the two messages that are checked below may be missing.
    let late = count("the supervisor is late; killing the command: ");
    assert_eq!(count("killing what is left of the command: ").max(late), 1, "{}", a.log());
    assert_eq!(count("leadership lost: the lock could not be renewed in time").max(late), 1, "{}", a.log());
}

#[testkit::test]
fn the_format_of_times_in_the_log_can_be_chosen() {
    for (time, prefix) in [("wall", "leaderrun 20"), ("none", "leaderrun: "), ("elapsed", "leaderrun +")] {
        let mut a = Candidate::new("a", &TestLock::file()).args(["--log-time", time]).run(["true"]);
        a.wait_for_exit(0);
        assert!(a.log().lines().all(|line| line.starts_with(prefix)), "{}", a.log());
        if time == "wall" {
            let log = a.log();
            let (prefix, _) = log.split_once(": ").expect("the line has a prefix");
            let logged_time: jiff::Timestamp =
                prefix.trim_start_matches("leaderrun ").parse().expect("the prefix contains a time");
            assert!(jiff::Timestamp::now().duration_since(logged_time).as_secs() < 60, "{prefix}");
        }
    }
}
