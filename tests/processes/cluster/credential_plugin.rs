//! Tests of credential plugins, and of a kubeconfig that cannot be read yet.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use serde_json::{Value, json};

use testkit::exit_status::UNAVAILABLE;
use testkit::users::ADMIN;
use testkit::{
    Candidate, Cluster, Screen, TestLock, Witnesses, eventually, eventually_some, is_alive, kubeconfig, scratch,
};

/// A directory with a credential plugin, which is a shell script, and a kubeconfig that names it.
struct Plugin {
    directory: PathBuf,
}

impl Plugin {
    /// Creates a plugin that runs `script` in its directory, and then prints the administrator's token. According to
    /// the plugin, the token expires after `lifetime` seconds, or never.
    fn new(script: &str, lifetime: Option<u32>) -> Self {
        let expires = match lifetime {
            Some(lifetime) => format!(r#","expirationTimestamp":"'$(date -u -d '+{lifetime} seconds' +%FT%TZ)'""#),
            None => String::new(),
        };
        let version = "client.authentication.k8s.io/v1";
        let credential = format!(
            r#"{{"kind":"ExecCredential","apiVersion":"{version}","status":{{"token":"{}"{expires}}}}}"#,
            ADMIN.token
        );
        Self::from_script(&format!("{script}\necho '{credential}'"))
    }

    /// Creates a plugin that runs `script` in its directory, and prints only the output of the script. Each run adds a
    /// line to the file `runs`.
    fn from_script(script: &str) -> Self {
        let directory = scratch::directory("plugin");
        let program = directory.join("plugin");
        let script = format!("#!/bin/sh\ncd {}\necho run >> runs\n{script}\n", directory.display());
        fs::write(&program, script).expect("the plugin can be written");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("the file mode can be changed");
        let plugin = Self { directory };
        plugin.configure(&json!({ "command": program }));
        plugin
    }

    /// Writes the kubeconfig. Its `exec` section gets `fields` in addition to the usual ones.
    fn configure(&self, fields: &Value) {
        let mut exec = json!({ "apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "IfAvailable" });
        exec.as_object_mut()
            .expect("the section is an object")
            .extend(fields.as_object().expect("the fields are an object").clone());
        let (server, credentials) = (Cluster::shared().address(), json!({ "exec": exec }));
        kubeconfig::write_with(&self.file("kubeconfig"), server, ADMIN.name, &credentials);
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn lock(&self) -> TestLock {
        TestLock::lease_through(self.file("kubeconfig"))
    }

    /// Returns how many times the plugin has run.
    fn runs(&self) -> usize {
        fs::read_to_string(self.file("runs")).map_or(0, |runs| runs.lines().count())
    }
}

/// Waits until a file contains a pid. Returns the pid.
fn wait_for_pid(path: &Path) -> Pid {
    let text = eventually_some("the file contains a pid", || {
        fs::read_to_string(path).ok().filter(|text| text.ends_with('\n'))
    });
    Pid::from_raw(text.trim().parse().expect("the pid is a number"))
}

#[testkit::test]
fn one_run_of_the_plugin_serves_all_requests_of_a_candidate() {
    let plugin = Plugin::new("", Some(3600));
    Candidate::new("a", &plugin.lock()).run_script("sleep 1.5").wait_for_exit(0);
    assert_eq!(plugin.runs(), 1);
}

#[testkit::test]
fn a_plugin_does_not_read_the_input_of_the_command() {
    let plugin = Plugin::new("cat > stdin", None);
    let input = plugin.file("input");
    fs::write(&input, "one\ntwo\n").expect("the input can be written");
    let mut a = Candidate::new("a", &plugin.lock())
        .configure(|command| {
            command.stdin(File::open(&input).expect("the input can be opened"));
        })
        .run_script("cat");
    a.wait_for_exit(0);
    assert_eq!(a.output(), "one\ntwo\n");
    assert_eq!(fs::read_to_string(plugin.file("stdin")).expect("the plugin has written the file"), "");
}

#[testkit::test]
fn a_plugin_that_takes_longer_than_the_request_timeout_does_not_cause_a_loss() {
    // With the tests' usual durations, the request timeout is one second.
    let (plugin, witnesses) = (Plugin::new("sleep 2", Some(6)), Witnesses::new());
    let mut a = Candidate::new("a", &plugin.lock()).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    eventually("the token is renewed three times", || plugin.runs() >= 4);
    assert_eq!(witnesses.lifetimes_of("a")[0].signaled_at, 0, "the command got a stop signal: {}", a.log());
    a.stop();
    witnesses.assert_runs_one_at_a_time(1);
}

#[testkit::test]
fn a_plugin_that_hangs_is_logged_and_killed_when_leaderrun_ends() {
    let plugin = Plugin::from_script("echo $$ > pid; sleep 1000 & echo $! > child; wait");
    let mut a = Candidate::new("a", &plugin.lock()).args(["--wait", "2s"]).run_script("echo started");
    let processes = [wait_for_pid(&plugin.file("pid")), wait_for_pid(&plugin.file("child"))];
    a.wait_for_exit(UNAVAILABLE);
    let expected = format!("still waiting for the credential plugin {}", plugin.file("plugin").display());
    assert!(a.log().contains(&expected), "{}", a.log());
    assert_eq!((a.output().as_str(), plugin.runs()), ("", 1));
    eventually("the plugin is dead", || !processes.iter().any(|process| is_alive(*process)));
}

#[testkit::test]
fn the_message_about_a_plugin_that_fails_gives_the_reason() {
    let status = |plugin: &Plugin| {
        let mut status = Candidate::subcommand("status", &plugin.lock()).start();
        status.wait();
        status.log()
    };
    for (script, reason) in [
        ("echo first >&2; echo no network >&2; exit 3", "it ended with status 3: no network"),
        ("kill -9 $$", "it was ended by SIGKILL"),
        ("true", "it printed nothing"),
        ("echo hello", "it did not print an ExecCredential"),
        ("echo '{\"kind\":\"Status\"}'", "it did not print an ExecCredential: the output has kind \"Status\""),
    ] {
        let plugin = Plugin::from_script(script);
        let (log, program) = (status(&plugin), plugin.file("plugin"));
        let failure = format!("the credential plugin {} failed: {reason}", program.display());
        assert!(log.contains(&failure), "{script}: {log}");
        assert!(log.contains("; check the user's exec section in the kubeconfig"), "{script}: {log}");
    }
    let without_interpreter = Plugin::from_script("");
    fs::write(without_interpreter.file("plugin"), "#!/no/such/interpreter\n").expect("the plugin can be written");
    let log = status(&without_interpreter);
    assert!(log.contains("failed: the interpreter in its #! line does not exist"), "{log}");
    let missing = Plugin::from_script("");
    missing.configure(&json!({ "command": "no-such-plugin", "installHint": "run: install no-such-plugin" }));
    let log = status(&missing);
    let failure =
        "the credential plugin no-such-plugin failed: there is no such program in PATH; run: install no-such-plugin";
    assert!(log.contains(failure), "{log}");
    let interactive = Plugin::new("", None);
    interactive.configure(&json!({ "command": interactive.file("plugin"), "interactiveMode": "Always" }));
    assert!(status(&interactive).contains("it needs a terminal (interactiveMode Always)"), "{}", status(&interactive));
}

#[testkit::test]
fn a_plugin_can_ask_the_user_at_the_terminal() {
    let script = "[ -t 0 ] || exit 1; printf 'code? ' >&2; read code; [ \"$code\" = 42 ] || exit 2";
    let (plugin, mut screen) = (Plugin::new(script, None), Screen::new());
    plugin.configure(&json!({ "command": plugin.file("plugin"), "interactiveMode": "Always" }));
    let mut a = Candidate::new("a", &plugin.lock());
    a = a.configure(|command| screen.attach(command));
    let mut a = a.run_script("read line; echo \"the command read <$line>\"");
    screen.wait_for("code? ");
    screen.type_keys(b"42\n");
    screen.wait_for("started the command");
    screen.type_keys(b"for the command\n");
    screen.wait_for("the command read <for the command>");
    a.wait_for_exit(0);
    assert_eq!(plugin.runs(), 1);
}

#[testkit::test]
fn long_output_of_a_plugin_is_accepted_but_endless_output_is_refused() {
    let plugin = Plugin::new("head -c 3000000 /dev/zero | tr '\\0' ' '", None);
    // The status 1 means that the lock is free, so the token was accepted.
    Candidate::subcommand("status", &plugin.lock()).start().wait_for_exit(1);
    let endless = Plugin::from_script("yes");
    let mut status = Candidate::subcommand("status", &endless.lock()).start();
    status.wait();
    assert!(status.log().contains("it printed too much"), "{}", status.log());
}

#[testkit::test]
fn a_plugin_that_fails_is_run_again_until_it_succeeds() {
    let plugin = Plugin::new("[ -e network ] || { echo no network >&2; exit 1; }", None);
    let mut a = Candidate::new("a", &plugin.lock()).run_script("echo started");
    a.wait_for_log("it ended with status 1: no network");
    fs::write(plugin.file("network"), "").expect("the file can be written");
    a.wait_for_exit(0);
    assert_eq!(a.output(), "started\n");
}

#[testkit::test]
fn a_plugin_gets_information_about_the_cluster_if_that_is_configured() {
    let plugin = Plugin::new("echo \"$KUBERNETES_EXEC_INFO\" > info", None);
    plugin.configure(&json!({ "command": plugin.file("plugin"), "provideClusterInfo": true }));
    let mut status = Candidate::subcommand("status", &plugin.lock()).start();
    status.wait_for_exit(1);
    let info: Value = serde_json::from_slice(&fs::read(plugin.file("info")).expect("the plugin has written the file"))
        .expect("the file is valid JSON");
    assert_eq!(info["kind"], "ExecCredential");
    assert_eq!(info["spec"]["interactive"], false);
    assert_eq!(info["spec"]["cluster"]["server"], format!("https://{}", Cluster::shared().address()));
    assert!(info["spec"]["cluster"]["certificate-authority-data"].is_string(), "{info}");
}

#[testkit::test]
fn waiting_for_a_kubeconfig_that_cannot_be_read_yet_is_logged() {
    let fifo = scratch::directory("kubeconfig").join("fifo");
    mkfifo(&fifo, Mode::from_bits_truncate(0o600)).expect("the named pipe can be created");
    let lock = TestLock { name: "default/job".to_owned(), kubeconfig: Some(fifo.clone()) };
    let mut a = Candidate::new("a", &lock).args(["--wait", "2s"]).run_script("echo started");
    a.wait_for_exit(UNAVAILABLE);
    assert!(a.log().contains(&format!("still waiting for the contents of {}", fifo.display())), "{}", a.log());
    let mut b = Candidate::new("b", &lock).run_script("echo started");
    b.wait_for_log(&format!("still waiting for the contents of {}", fifo.display()));
    b.signal(nix::sys::signal::Signal::SIGTERM);
    b.wait();
}

#[testkit::test]
fn credentials_are_renewed_after_the_kubeconfig_was_deleted() {
    let (plugin, witnesses) = (Plugin::new("", Some(6)), Witnesses::new());
    let lock = plugin.lock();
    let mut a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    fs::remove_file(plugin.file("kubeconfig")).expect("the kubeconfig can be deleted");
    let before = plugin.runs();
    eventually("the token is renewed twice", || plugin.runs() >= before + 2);
    a.wait_for_log("still using the previous credentials: --kubeconfig");
    assert_eq!(witnesses.lifetimes_of("a")[0].signaled_at, 0, "the command got a stop signal: {}", a.log());
    a.stop();
    // If leaderrun is stopped while the plugin is running, it kills the plugin and logs this line once more, but with
    // another reason. Only the reason that names the kubeconfig is counted.
    assert_eq!(a.log().matches("still using the previous credentials: --kubeconfig").count(), 1, "{}", a.log());
}

#[testkit::test]
fn unusable_credentials_are_reported_with_the_plugin_that_printed_them() {
    let certificate = "\"clientCertificateData\":\"none\",\"clientKeyData\":\"none\"";
    for (fields, reason) in [
        ("\"token\":\"a\\nb\"", "it contains characters that a token cannot contain"),
        (certificate, "it contains no certificate"),
    ] {
        let version = "client.authentication.k8s.io/v1";
        let credential = format!(r#"{{"kind":"ExecCredential","apiVersion":"{version}","status":{{{fields}}}}}"#);
        let plugin = Plugin::from_script(&format!("cat <<'END'\n{credential}\nEND"));
        let mut status = Candidate::subcommand("status", &plugin.lock()).start();
        status.wait();
        let expected =
            format!("the credential plugin {} failed: its output cannot be used: ", plugin.file("plugin").display());
        assert!(status.log().contains(&expected) && status.log().contains(reason), "{}", status.log());
    }
}
