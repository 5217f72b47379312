//! Tests of the command line, the environment of the command, and the exit status.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};

use testkit::exit_status::{FAILED, NOT_EXECUTABLE, NOT_FOUND, UNAVAILABLE};
use testkit::{Candidate, TestLock, os_string, scratch};

#[testkit::test]
fn the_exit_status_says_how_the_command_ended() {
    let lock = TestLock::file();
    let not_executable = scratch::directory("program").join("text");
    fs::write(&not_executable, "not a program").expect("the file can be written");
    let not_executable = not_executable.to_str().expect("the path is UTF-8");
    for (command, status) in [
        (["sh", "-c", "exit 0"], 0),
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "kill -KILL $$"], 137),
        (["sh", "-c", "kill -TERM $$"], 143),
        (["sh", "-c", "kill -40 $$"], 168),
        (["/no/such/program", "", ""], NOT_FOUND),
        (["no-such-program", "", ""], NOT_FOUND),
        ([not_executable, "", ""], NOT_EXECUTABLE),
        (["/", "", ""], NOT_EXECUTABLE),
    ] {
        Candidate::new("a", &lock).run(command).wait_for_exit(status);
    }
}

#[testkit::test]
fn the_message_about_an_invalid_command_line_says_what_is_wrong() {
    let file = "file:/tmp/never-made.lease";
    for (arguments, expected) in [
        (&["--lock", file][..], "no command is given; for example -- echo leading"),
        (&["--", "true"], "--lock is missing; try --lock default/my-job"),
        (&["--lock", file, "true"], "true: the command must come after --; try -- true"),
        (&["--lock", "a/B", "--", "true"], "--lock a/B: the name can contain only lower-case"),
        (&["--lock", "", "--", "true"], "--lock '': the name is empty"),
        (&["--lock", "pod:a/b", "--", "true"], "--lock pod:a/b: the kind of a lock is"),
        (&["--lock", file, "--identity", "", "--", "true"], "--identity '': "),
        (&["--lock", file, "--identity", "a\nb", "--", "true"], "--identity \"a\\nb\": "),
        (&["--lock", file, "--lease-duration", "soon", "--", "true"], "--lease-duration soon: "),
        (
            &["--lock", file, "--lease-duration", "1500ms", "--", "true"],
            "--lease-duration 1500ms: it must be a whole number of seconds",
        ),
        (&["--lock", file, "--renew-deadline", "15s", "--", "true"], "--renew-deadline 15s: "),
        (&["--lock", file, "--retry-period", "10s", "--", "true"], "--retry-period 10s: "),
        (&["--lock", file, "--lost-grace", "5s", "--", "true"], "--lost-grace 5s: "),
        (&["--lock", file, "--stop-signal", "BYE", "--", "true"], "--stop-signal BYE: there is no such signal"),
        (&["--lock", file, "--wait", "-1s", "--", "true"], "--wait -1s: "),
        (&["--lock", file, "--log-format", "xml", "--", "true"], "--log-format xml: "),
        (&["--lock", file, "--http", "8080", "--", "true"], "--http 8080: "),
        (&["--lock", file, "--http", ":http", "--", "true"], "--http :http: "),
        (&["--lock", file, "--http", "localhost:80", "--", "true"], "--http localhost:80: "),
        (
            &["--lock", file, "--ready-when", "always", "--", "true"],
            "--ready-when always: the value must be waiting or",
        ),
        (&["--lock", file, "--lokc", "x", "--", "true"], "--lokc: leaderrun has no such option; try --lock"),
        (&["--lock", file, "--", ""], "-- '': the name of the command is empty"),
        (&["--lock", file, "status"], "status: a subcommand must be the first argument; try leaderrun status --lock"),
        (
            &["status", "--lock", file, "--", "true"],
            "true: leaderrun status takes only options; see leaderrun status -",
        ),
        (&["status"], "--lock is missing; try --lock default/my-job"),
        (&["status", "--lock", file, "-o", "xml"], "-o xml: "),
        (
            &["doctor", "--lock", file, "--renew-deadline", "15s"],
            "--renew-deadline 15s: it must be at least 1s shorter",
        ),
        (&["check", "--min-remaining", "soon"], "--min-remaining soon: not a valid duration; for example --min-rem"),
        (&["check", "--lock", file], "--lock: leaderrun check has no such option; see leaderrun check --help"),
        (&["check", "now"], "now: leaderrun check takes only options; see leaderrun check --help"),
    ] {
        assert_refused(arguments, FAILED, expected);
    }
}

/// Somebody may fix the file or the context later, so the status is 69, which lets systemd restart the unit.
#[testkit::test]
fn an_unusable_file_or_context_is_not_a_usage_error() {
    let missing = scratch::directory("kubeconfig").join("none").to_str().expect("the path is UTF-8").to_owned();
    let empty = scratch::directory("kubeconfig").join("empty");
    fs::write(&empty, "apiVersion: v1\nkind: Config\ncontexts: []\n").expect("the file can be written");
    let text = empty.with_file_name("text");
    fs::write(&text, "some text").expect("the file can be written");
    let [empty, text] = [&empty, &text].map(|path| path.to_str().expect("the path is UTF-8"));
    let valid = TestLock::lease().kubeconfig.expect("the lock has a kubeconfig");
    let valid = valid.to_str().expect("the path is UTF-8");
    for (arguments, expected) in [
        (
            &["--lock", "file:/no/such/directory/x", "--", "true"][..],
            "--lock file:/no/such/directory/x: cannot read /no/such/directory/x: its directory /no/such/directory does not exist; try mkdir -p",
        ),
        (
            &["--lock", &format!("file:{text}/x"), "--", "true"],
            &format!("cannot read {text}/x: {text} is a file, not a directory; try a path in a directory"),
        ),
        (&["--lock", "a/b", "--kubeconfig", &missing, "--", "true"], &format!("--kubeconfig {missing}: ")),
        (
            &["--lock", "a/b", "--kubeconfig", "/", "--", "true"],
            "kubeconfig /: it is a directory; give the path of a file",
        ),
        (
            &["--lock", "a/b", "--kubeconfig", text, "--", "true"],
            &format!("kubeconfig {text}: it is not a valid kubeconfig: "),
        ),
        (
            &["--lock", "a/b", "--kubeconfig", empty, "--context", "x", "--", "true"],
            "--context \"x\": the kubeconfig has no contexts",
        ),
        (
            &["--lock", "a/b", "--kubeconfig", valid, "--context", "x", "--", "true"],
            "--context \"x\": the kubeconfig has no such context; ",
        ),
        (&["--lock", "a/b", "--kubeconfig", empty, "--", "true"], "it has no contexts; use another kubeconfig"),
    ] {
        assert_refused(arguments, UNAVAILABLE, expected);
    }
}

#[testkit::test]
fn the_message_about_a_kubeconfig_or_a_context_names_the_variable_that_was_given() {
    let lock = TestLock::lease();
    let kubeconfig = lock.kubeconfig.as_ref().expect("the lock has a kubeconfig").to_str().expect("the path is UTF-8");
    for (variables, expected) in [
        (&[("LEADERRUN_KUBECONFIG", "/no/such")][..], "LEADERRUN_KUBECONFIG=/no/such: no such file; "),
        (
            &[("LEADERRUN_KUBECONFIG", kubeconfig), ("LEADERRUN_CONTEXT", "x")],
            "LEADERRUN_CONTEXT=\"x\": the kubeconfig has no such context; try LEADERRUN_CONTEXT=\"test\"",
        ),
    ] {
        let candidate = Candidate::without_default_options("a").args(["--lock", &lock.name]);
        let candidate = candidate.configure(|command| {
            command.envs(variables.iter().copied());
        });
        let mut refused = candidate.run(["true"]);
        refused.wait_for_exit(UNAVAILABLE);
        assert!(refused.log().contains(expected), "{}", refused.log());
    }
}

/// Checks that leaderrun refuses these arguments with this status and this text in its message.
#[track_caller]
fn assert_refused(arguments: &[&str], status: i32, expected: &str) {
    let mut refused = Candidate::without_default_options("a").args(arguments).start();
    refused.wait_for_exit(status);
    let log = refused.log();
    assert!(log.lines().any(|line| line.contains(expected)), "{arguments:?}: {log:?} instead of {expected:?}");
    assert!(log.lines().all(|line| line.starts_with("leaderrun: ") || line.starts_with("leaderrun +")), "{log:?}");
}

#[testkit::test]
fn the_message_about_an_invalid_variable_names_the_variable() {
    for (name, value, expected) in [
        ("LEADERRUN_WAIT", "soon", "LEADERRUN_WAIT=soon: not a valid duration; for example LEADERRUN_WAIT=30s"),
        ("LEADERRUN_WAIT", "1M", "LEADERRUN_WAIT=1M: M could be minutes or months; try LEADERRUN_WAIT=1m"),
        (
            "LEADERRUN_QUIET",
            "maybe",
            "LEADERRUN_QUIET=maybe: the value must be true or false; for example LEADERRUN_QUIET=",
        ),
        ("LEADERRUN_LOG_FORMAT", "xml", "LEADERRUN_LOG_FORMAT=xml: the value must be text or json; for example "),
        (
            "LEADERRUN_LEASE_DURATION",
            "5s",
            "LEADERRUN_LEASE_DURATION=5s: it must be at least 1s longer than the default",
        ),
        (
            "LEADERRUN_SERVICE",
            "web",
            "--pod-label: cannot be used together with LEADERRUN_SERVICE; leave one of them out",
        ),
    ] {
        let arguments = ["--lock", "job", "--pod-label", "role=leader", "--pod", "a"];
        let mut refused = Candidate::without_default_options("a").args(arguments).env(name, value).run(["true"]);
        refused.wait_for_exit(FAILED);
        assert!(refused.log().contains(expected), "{name}={value}: {}", refused.log());
    }
}

#[testkit::test]
fn only_a_mistyped_variable_is_reported() {
    // Kubernetes sets the second and third variables for a Service named `leaderrun`. An outer leaderrun sets the
    // fourth.
    let mut a = Candidate::new("a", &TestLock::file())
        .env("LEADERRUN_WIAT", "1m")
        .env("LEADERRUN_SERVICE_HOST", "10.0.0.1")
        .env("LEADERRUN_PORT_80_TCP", "tcp://10.0.0.1:80")
        .env("LEADERRUN_FENCING_TOKEN", "7")
        .run_script("true");
    a.wait_for_exit(0);
    let log = a.log();
    let warnings: Vec<&str> =
        log.lines().filter_map(|line| line.split_once("warning: ")).map(|(_, text)| text).collect();
    assert_eq!(warnings, ["LEADERRUN_WIAT: this variable sets no option; try LEADERRUN_WAIT"], "{log}");
}

#[testkit::test]
fn the_namespace_option_applies_to_a_lock_whose_name_has_no_namespace() {
    let lock = TestLock::lease();
    let (namespace, kubeconfig) = (lock.namespace(), lock.kubeconfig.as_ref().expect("the lock has a kubeconfig"));
    let candidate =
        || Candidate::without_default_options("a").args(["--lock", "job", "--kubeconfig"]).args([kubeconfig]);
    let with_option = candidate().args(["-n", namespace]);
    let with_variable = candidate().env("LEADERRUN_NAMESPACE", namespace);
    let full_name =
        Candidate::without_default_options("a").args(["--lock", &lock.name, "--kubeconfig"]).args([kubeconfig]);
    for candidate in [with_option, with_variable, full_name.env("LEADERRUN_NAMESPACE", "elsewhere")] {
        let mut a = candidate.run_script("echo $LEADERRUN_HELD_LOCK");
        a.wait_for_exit(0);
        assert_eq!(a.output(), format!("{}\n", lock.name));
    }
    let mut status =
        Candidate::without_default_options("status").args(["status", "-n", namespace, "--lock", "job", "--kubeconfig"]);
    status = status.args([kubeconfig]);
    let mut status = status.start();
    status.wait_for_exit(1);
    assert!(status.output().contains(&lock.name), "{}", status.output());
}

#[testkit::test]
fn the_message_says_why_a_command_cannot_be_found() {
    let lock = TestLock::file();
    for (command, hint) in [
        (
            "sleep 0",
            "error: cannot execute sleep 0: No such file or directory; the command and its arguments were quoted as one word; try -- sleep 0",
        ),
        ("echo a | cat", "only a shell can run this; try -- sh -c 'echo a | cat'"),
        ("no-such-program 1", "error: cannot execute no-such-program 1: No such file or directory\n"),
        ("--wait", "error: cannot execute --wait: No such file or directory; options of leaderrun come before --"),
    ] {
        let mut a = Candidate::new("a", &lock).run([command]);
        a.wait_for_exit(NOT_FOUND);
        assert!(a.log().contains(hint), "{command}: {}", a.log());
    }
    Candidate::new("a", &lock).run(["sleep", "0"]).wait_for_exit(0);
    Candidate::new("a", &lock).run(["sh", "-c", "echo a | cat"]).wait_for_exit(0);
}

#[testkit::test]
fn arguments_reach_the_command_as_given() {
    let written = scratch::directory("arguments").join("written");
    let arguments =
        [&b"with space"[..], b"quote's \"both\"", b"new\nline", b"\xff\xfe not UTF-8", b"", b"$HOME", b"--wait"];
    let script = format!("printf '%s\\0' \"$@\" > {}", written.display());
    let shell = ["sh".into(), "-c".into(), script.into(), "sh".into()];
    let command = shell.into_iter().chain(arguments.iter().map(|argument| os_string(argument)));
    Candidate::new("a", &TestLock::file()).run(command).wait_for_exit(0);
    let expected: Vec<u8> = arguments.iter().flat_map(|argument| [*argument, b"\0"].concat()).collect();
    assert_eq!(fs::read(written).expect("the file can be read"), expected);
}

#[testkit::test]
fn the_command_gets_variables_about_its_run_but_not_those_that_set_options() {
    let lock = TestLock::lease();
    let mut a = Candidate::new("a", &lock).env("LEADERRUN_WAIT", "1m").env("KEPT", "yes").run_script("env; echo done");
    a.wait_for_exit(0);
    let output = a.output();
    let leaderrun_variables: Vec<&str> = output.lines().filter(|line| line.starts_with("LEADERRUN_")).collect();
    let value =
        |name: &str| leaderrun_variables.iter().find_map(|line| line.strip_prefix(&format!("LEADERRUN_{name}=")));
    assert_eq!(value("HELD_LOCK"), Some(lock.name.as_str()));
    assert_eq!(value("HOLDER"), Some("a"));
    assert_eq!(value("TRANSITIONS"), Some("0"));
    assert!(value("FENCING_TOKEN").is_some_and(|token| token.parse::<u64>().is_ok()), "{leaderrun_variables:?}");
    assert!(value("RUN_ID").is_some_and(|run| run.len() == 36), "{leaderrun_variables:?}");
    assert!(
        value("TENURE_FD").is_some_and(|number| number.parse::<u32>().is_ok_and(|number| number >= 10)),
        "{leaderrun_variables:?}"
    );
    assert_eq!(leaderrun_variables.len(), 6, "{leaderrun_variables:?}");
    assert!(output.lines().any(|line| line == "KEPT=yes"));
}

#[testkit::test]
fn the_environment_sets_options_and_the_command_line_takes_precedence() {
    let lock = TestLock::file();
    let with_variables = || {
        Candidate::without_default_options("a")
            .env("LEADERRUN_LOCK", &lock.name)
            .env("LEADERRUN_IDENTITY", "environment")
    };
    let mut a = with_variables().run_script("echo $LEADERRUN_HOLDER");
    a.wait_for_exit(0);
    assert_eq!(a.output(), "environment\n");
    let mut a = with_variables().args(["--identity", "line"]).run_script("echo $LEADERRUN_HOLDER");
    a.wait_for_exit(0);
    assert_eq!(a.output(), "line\n");
    let mut quiet = with_variables().env("LEADERRUN_QUIET", "1").run_script("true");
    quiet.wait_for_exit(0);
    assert_eq!(quiet.log(), "");
    let mut not_quiet = with_variables().env("LEADERRUN_QUIET", "0").run_script("true");
    not_quiet.wait_for_exit(0);
    assert!(not_quiet.log().contains("leader of"));
    let mut quiet = with_variables().env("LEADERRUN_VERBOSE", "1").args(["--quiet"]).run_script("true");
    quiet.wait_for_exit(0);
    assert_eq!(quiet.log(), "", "an option should also take precedence over the variable of an opposite option");
}

/// The test compares the output with that of the same command without leaderrun. Both start in the same unusual signal
/// state. The pattern `fd/?` skips the descriptor in `LEADERRUN_TENURE_FD`, which is at least 10.
#[testkit::test]
fn the_command_has_the_signal_state_and_descriptors_that_it_would_have_without_leaderrun() {
    let script = "grep ^Sig /proc/$$/status | grep -v SigQ; for fd in /proc/$$/fd/?; do echo ${fd##*/}; done; \
                  echo end";
    let change_signal_state = |command: &mut Command| {
        // SAFETY: the closure calls only async-signal-safe functions.
        unsafe {
            command.pre_exec(|| {
                libc::signal(libc::SIGHUP, libc::SIG_IGN);
                for signal in [libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGCHLD] {
                    libc::signal(signal, libc::SIG_DFL);
                }
                sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::from_iter([Signal::SIGUSR2])), None)?;
                Ok(())
            });
        }
    };
    let mut direct = Command::new("sh");
    direct.args(["-c", script]).stdin(std::process::Stdio::null());
    change_signal_state(&mut direct);
    let direct = direct.output().expect("sh can be started");
    let mut a = Candidate::new("a", &TestLock::file()).configure(change_signal_state).run_script(script);
    a.wait_for_exit(0);
    assert_eq!(a.output(), String::from_utf8_lossy(&direct.stdout));
}

#[testkit::test]
fn help_and_version_are_printed_to_stdout() {
    for (options, expected) in [
        (&["--help"][..], "--renew-deadline"),
        (&["-h"], "--lock"),
        (&["--version"], env!("CARGO_PKG_VERSION")),
        (&["status", "--help"], "Exit status:"),
        (&["manifest", "--help"], "--service-account"),
        (&["check", "--help"], "--min-remaining"),
        (&["doctor", "--help"], "--renew-deadline"),
        (&["step-down", "--help"], "This command asks once, and waits only with --wait"),
    ] {
        let mut help = Candidate::without_default_options("a").args(options).start();
        help.wait_for_exit(0);
        assert!(help.output().contains(expected), "{}", help.output());
        assert_eq!(help.log(), "");
    }
}

#[testkit::test]
fn leaderrun_exits_with_the_status_of_the_command_even_if_its_parent_ignores_sigchld() {
    let ignore_sigchld = |command: &mut Command| {
        // SAFETY: signal(2) is async-signal-safe.
        unsafe {
            command.pre_exec(|| {
                libc::signal(libc::SIGCHLD, libc::SIG_IGN);
                Ok(())
            })
        };
    };
    let lock = TestLock::file();
    Candidate::new("a", &lock).configure(ignore_sigchld).run_script("exit 4").wait_for_exit(4);
    let mut a = Candidate::new("a", &lock).configure(ignore_sigchld).run(["grep", "SigIgn", "/proc/self/status"]);
    a.wait_for_exit(0);
    let ignored = a.output().split_whitespace().last().and_then(|mask| u64::from_str_radix(mask, 16).ok());
    assert!(
        ignored.is_some_and(|mask| mask & 1 << (libc::SIGCHLD - 1) != 0),
        "the command should inherit the ignored SIGCHLD: {}",
        a.output()
    );
}

#[testkit::test]
fn a_refusal_whose_message_cannot_be_written_keeps_its_status() {
    let (reader, writer) = std::io::pipe().expect("the pipe can be created");
    drop(reader);
    let unread = Candidate::without_default_options("a").args(["--wait"]).configure(move |command| {
        command.stderr(writer);
    });
    unread.start().wait_for_exit(FAILED);
}

#[testkit::test]
fn a_command_can_have_the_name_of_a_subcommand() {
    let lock = TestLock::file();
    let directory = scratch::directory("programs");
    let program = directory.join("status");
    fs::write(&program, "#!/bin/sh\necho \"$@\"\n").expect("the program can be written");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("the file mode can be changed");
    let path = format!("{}:{}", directory.display(), std::env::var("PATH").unwrap_or_default());
    let mut a = Candidate::new("a", &lock).env("PATH", &path).run(["status", "--lock", "x"]);
    a.wait_for_exit(0);
    assert_eq!(a.output(), "--lock x\n", "the command should have run, not the subcommand");
    let mut a = Candidate::without_default_options("a")
        .env("LEADERRUN_LOCK", &lock.name)
        .env("PATH", &path)
        .run(["status", "status"]);
    a.wait_for_exit(0);
    assert_eq!(a.output(), "status\n", "the first word after -- should be the command");
    let mut named = Candidate::without_default_options("a")
        .args(["--lock", &lock.name, "--identity", "status"])
        .run_script("echo $LEADERRUN_HOLDER");
    named.wait_for_exit(0);
    assert_eq!(named.output(), "status\n", "the value of an option should not be taken for a subcommand");
    let mut subcommand = Candidate::without_default_options("a")
        .env("LEADERRUN_LOCK", &lock.name)
        .env("LEADERRUN_WAIT", "soon")
        .args(["status"])
        .start();
    subcommand.wait_for_exit(1);
    assert_eq!(subcommand.log(), "", "a subcommand should not check the variables for the options of a run");
}
