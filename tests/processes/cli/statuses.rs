//! Tests of the exit statuses that let a script distinguish a held lock from a failure.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;
use testkit::exit_status::{NOT_ACQUIRED, UNAVAILABLE};
use testkit::{Candidate, Cluster, Running, TestLock, Witnesses, scratch};

/// Long durations. A candidate with `--wait 0s` must give up well before any of them has passed.
const LONG_DURATIONS: [&str; 6] = ["--lease-duration", "1h", "--renew-deadline", "30m", "--retry-period", "1m"];

/// Returns a candidate that does not wait, as in a crontab.
fn candidate_that_does_not_wait(lock: &TestLock) -> Candidate {
    Candidate::with_timing("b", lock, LONG_DURATIONS).args(["--quiet", "--wait", "0s"])
}

/// Checks that a candidate for this lock gives up with the exit status for an unusable lock, and names the reason.
#[track_caller]
fn assert_unusable(lock: &TestLock, reason: &str) {
    let start = Instant::now();
    let mut b = candidate_that_does_not_wait(lock).run(["echo", "ran"]);
    b.wait_for_exit(UNAVAILABLE);
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    assert_eq!(b.output(), "");
    let last = b.log().lines().last().unwrap_or_default().to_owned();
    let expected = format!("could not use {} within --wait 0s: ", lock.name);
    assert!(last.contains(&expected) && last.contains(reason), "{reason:?}: {}", b.log());
}

/// Writes a copy of the administrator's kubeconfig in which `text` is replaced with `replacement`. Returns its path.
fn kubeconfig_with(text: &str, replacement: &str) -> PathBuf {
    let original = fs::read_to_string(Cluster::shared().kubeconfig()).expect("the kubeconfig can be read");
    assert!(original.contains(text), "{original}");
    let path = scratch::directory("kubeconfig").join("changed");
    fs::write(&path, original.replace(text, replacement)).expect("the kubeconfig can be written");
    path
}

/// Starts the candidate `a`, which holds the lock until the returned process is dropped.
fn start_holder(lock: &TestLock) -> Running {
    let witnesses = Witnesses::new();
    let a = Candidate::new("a", lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    a
}

#[testkit::test]
fn a_held_lock_is_a_conflict_whose_status_can_be_chosen() {
    for lock in [TestLock::file(), TestLock::lease()] {
        let _a = start_holder(&lock);
        for (option, status) in [(&[][..], NOT_ACQUIRED), (&["-E", "0"], 0), (&["--conflict-exit-code=3"], 3)] {
            let mut b = candidate_that_does_not_wait(&lock).args(option).run(["echo", "ran"]);
            b.wait_for_exit(status);
            assert_eq!(
                (b.output(), b.log()),
                (String::new(), String::new()),
                "there should be neither output nor a log"
            );
        }
        let with_variables = Candidate::without_default_options("b")
            .env("LEADERRUN_CONFLICT_EXIT_CODE", "4")
            .env("LEADERRUN_WAIT", "0s");
        let kubeconfig = lock.kubeconfig.iter().map(|path| format!("--kubeconfig={}", path.display()));
        let mut b = with_variables.args(["--lock", &lock.name]).args(kubeconfig).run(["true"]);
        b.wait_for_exit(4);
        let expected = format!("could not acquire {} within LEADERRUN_WAIT=0s: it is held by a", lock.name);
        assert!(b.log().contains(&expected), "{}", b.log());
    }
}

#[testkit::test]
fn a_lock_whose_command_is_not_due_is_a_conflict() {
    let lock = TestLock::file();
    let mut a = Candidate::new("a", &lock).args(["--min-hold", "1h"]).run(["true"]);
    a.wait_for_exit(0);
    let mut b = Candidate::new("b", &lock).args(["--wait", "0s", "-E", "9"]).run(["true"]);
    b.wait_for_exit(9);
    // The time begins with the year.
    assert!(b.log().contains("within --wait 0s: the command is not due before 20"), "{}", b.log());
}

#[testkit::test]
fn a_missing_namespace_is_not_a_conflict() {
    let lock = TestLock { name: "nowhere/job".into(), ..TestLock::lease() };
    assert_unusable(&lock, "there is no namespace \"nowhere\"; try kubectl create namespace nowhere");
}

#[testkit::test]
fn a_missing_permission_is_not_a_conflict() {
    let lock = TestLock::lease_through(Cluster::shared().kubeconfig_for("stranger"));
    assert_unusable(&lock, "not allowed to get leases.coordination.k8s.io \"job\" in namespace");
    Cluster::shared().set_permissions(
        lock.namespace(),
        "stranger",
        json!([testkit::rbac_rule("leases", &["job"], &["get"])]),
    );
    assert_unusable(&lock, "not allowed to update leases");
}

#[testkit::test]
fn an_api_server_that_cannot_be_used_is_not_a_conflict() {
    let address = Cluster::shared().address().to_string();
    // The listener is dropped immediately, so nothing listens at this address.
    let unused = TcpListener::bind("127.0.0.1:0")
        .expect("127.0.0.1 has a free port")
        .local_addr()
        .expect("a bound socket has an address")
        .to_string();
    // The reasons lack their first letter, which may be upper-case or lower-case. An empty reason stands for any
    // reason.
    for (kubeconfig, reason) in [
        (kubeconfig_with("token-of-admin", "nonsense"), "nauthorized"),
        (kubeconfig_with(&address, &unused), "onnection refused"),
        (kubeconfig_with(&format!("https://{address}"), "https://no.such.host.invalid"), ""),
        (kubeconfig_with("certificate-authority-data", "ignored"), ""),
    ] {
        assert_unusable(&TestLock { name: "default/job".into(), kubeconfig: Some(kubeconfig) }, reason);
    }
}

#[testkit::test(requires = check_ordinary_user())]
fn a_directory_that_cannot_be_written_to_is_not_a_conflict() {
    let directory = scratch::directory("read-only");
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o555)).expect("the file mode can be changed");
    let lock = TestLock { name: format!("file:{}", directory.join("x").display()), kubeconfig: None };
    assert_unusable(&lock, "may not write to it");
}

/// Returns an error if this user is root, who may write to any directory.
fn check_ordinary_user() -> Result<(), String> {
    if nix::unistd::geteuid().is_root() { Err("root may write everywhere".to_owned()) } else { Ok(()) }
}
