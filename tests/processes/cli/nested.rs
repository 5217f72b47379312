//! Tests of a leaderrun that runs inside the command of another leaderrun.

use std::fs;
use std::os::unix::fs::symlink;

use testkit::exit_status::FAILED;
use testkit::{Candidate, Cluster, Proxy, TIMING, TestLock, leaderrun, scratch};

/// Returns leaderrun's options for a lock, for use in a shell script.
fn options(lock: &TestLock) -> String {
    let kubeconfig = lock.kubeconfig.as_ref().map(|path| format!(" --kubeconfig {}", path.display()));
    format!("--lock {}{} {}", lock.name, kubeconfig.unwrap_or_default(), TIMING.join(" "))
}

/// Checks that a nested run is refused. `outer` is the lock of the outer run, and `inner` contains the options of the
/// nested run.
fn assert_refused(outer: &TestLock, inner: &str) {
    let mut a = Candidate::new("a", outer).run_script(&format!("{} {inner} -- echo ran", leaderrun()));
    a.wait_for_exit(FAILED);
    assert_eq!(a.output(), "");
    let expected = "a holds it for the command that this leaderrun is running in, so the wait would never end; remove the inner leaderrun";
    assert!(a.log().contains(expected), "{inner}: {}", a.log());
}

#[testkit::test]
fn a_nested_run_refuses_to_wait_for_the_lock_of_the_outer_run() {
    for lock in ["lease", "configmap", "endpoints+lease"].map(TestLock::of_kind).into_iter().chain([TestLock::file()]) {
        assert_refused(&lock, &options(&lock));
        assert_refused(&lock, &format!("{} --wait 0s", options(&lock)));
    }
}

#[testkit::test]
fn a_nested_run_recognizes_the_same_lock_by_another_name() {
    let lock = TestLock::file();
    let path = lock.name.strip_prefix("file:").expect("the lock is a file lock");
    let (directory, name) = path.rsplit_once('/').expect("the path is absolute");
    let link = scratch::directory("link").join("to");
    symlink(directory, &link).expect("the link can be created");
    for other_name in [
        format!("{directory}/../{}/{name}", directory.rsplit('/').next().expect("rsplit returns at least one part")),
        format!("{}/{name}", link.display()),
    ] {
        let inner = TestLock { name: format!("file:{other_name}"), kubeconfig: None };
        assert_refused(&lock, &options(&inner));
    }
    let proxy = Proxy::start(Cluster::shared());
    let lease = TestLock::lease();
    assert_refused(&lease, &options(&lease.through(proxy.kubeconfig())));
}

#[testkit::test]
fn a_nested_run_recognizes_the_lock_of_a_run_two_levels_above() {
    let (outer, middle) = (TestLock::file(), TestLock::file());
    let program = leaderrun();
    let nested = format!("{program} {} -- {program} {} -- echo ran", options(&middle), options(&outer));
    let mut a = Candidate::new("a", &outer).run_script(&nested);
    a.wait_for_exit(FAILED);
    assert!(a.log().contains("the wait would never end"), "{}", a.log());
}

#[testkit::test]
fn a_nested_run_can_acquire_a_different_lock() {
    let (outer, inner) = (TestLock::file(), TestLock::file());
    let mut a = Candidate::new("a", &outer).run_script(&format!("{} {} -- env", leaderrun(), options(&inner)));
    a.wait_for_exit(0);
    let output = a.output();
    let value = |name: &str| output.lines().find_map(|line| line.strip_prefix(&format!("{name}="))).map(str::to_owned);
    let record = fs::read_to_string(outer.name.strip_prefix("file:").expect("the lock is a file lock"))
        .expect("the record can be read");
    let outer_run = value("LEADERRUN_OUTER_RUNS").expect("the environment names the outer run");
    assert!(record.contains(&outer_run), "{record}: {outer_run}");
    assert_ne!(value("LEADERRUN_RUN_ID"), Some(outer_run));
}

/// A process that outlives the run in which it was started still has the variables of that run.
#[testkit::test]
fn a_run_that_has_ended_is_not_an_outer_run() {
    let lock = TestLock::file();
    let mut a = Candidate::new("a", &lock).run_script("echo $LEADERRUN_RUN_ID");
    a.wait_for_exit(0);
    let mut later = Candidate::new("b", &lock).env("LEADERRUN_RUN_ID", a.output().trim()).run_script("echo ran");
    later.wait_for_exit(0);
}
