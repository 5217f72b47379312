//! Tests of an elector that is stuck, or whose credential plugin hangs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use testkit::StoppedThread;
use testkit::exit_status::{LOST, UNAVAILABLE};
use testkit::http::{get, samples, status, wait_for_status};
use testkit::{
    Candidate, Cluster, Match, Proxy, ReceivedRequest, Running, TestLock, Witnesses, children, eventually, is_alive,
    scratch,
};

/// The option that serves HTTP on any free port.
const HTTP: [&str; 2] = ["--http", "127.0.0.1:0"];

/// `Ok` if this user may stop threads; otherwise the reason why not.
static CAN_STOP_THREADS: LazyLock<Result<(), String>> = LazyLock::new(StoppedThread::check_permitted);

/// Writes a copy of a kubeconfig that gets its token from a credential plugin, and returns the path of the copy. The
/// plugin hangs while the file `hang` exists in the directory of the copy.
fn kubeconfig_with_plugin(kubeconfig: &Path) -> PathBuf {
    let directory = scratch::directory("plugin");
    let (plugin, hang) = (directory.join("plugin"), directory.join("hang"));
    let original = fs::read_to_string(kubeconfig).expect("the kubeconfig can be read");
    let mut config: Value = serde_json::from_str(&original).expect("the kubeconfig is JSON");
    let api_version = "client.authentication.k8s.io/v1";
    let token = &config["users"][0]["user"]["token"];
    let credential = json!({ "apiVersion": api_version, "kind": "ExecCredential", "status": { "token": token } });
    let script = format!("#!/bin/sh\nwhile [ -e {} ]; do sleep 0.1; done\necho '{credential}'\n", hang.display());
    fs::write(&plugin, script).expect("the plugin can be written");
    fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755)).expect("the plugin can be made executable");
    let exec = json!({ "apiVersion": api_version, "command": plugin, "interactiveMode": "Never" });
    config["users"][0]["user"] = json!({ "exec": exec });
    let kubeconfig = directory.join("kubeconfig");
    fs::write(&kubeconfig, config.to_string()).expect("the kubeconfig can be written");
    kubeconfig
}

/// Makes the plugin of this kubeconfig hang from now on.
fn make_plugin_hang(kubeconfig: &Path) {
    fs::write(kubeconfig.with_file_name("hang"), "").expect("the file can be written");
}

/// Returns the running plugins: the elector's children other than the supervisor.
fn plugins(running: &Running) -> Vec<Pid> {
    let supervisor = running.supervisor();
    children(running.elector()).into_iter().filter(|child| *child != supervisor).collect()
}

fn wait_until_reported_stuck(running: &Running) {
    wait_for_status(running, "/healthz", 503);
    let body = get(running, "/healthz").body;
    assert!(body.starts_with("the election is stuck: it was due "), "{body}");
    assert_eq!(status(running, "/readyz"), 503);
}

#[testkit::test]
fn a_plugin_that_hangs_at_the_start_is_reported() {
    let kubeconfig = kubeconfig_with_plugin(&Cluster::shared().kubeconfig());
    make_plugin_hang(&kubeconfig);
    let a = Candidate::new("a", &TestLock::lease().through(kubeconfig)).args(HTTP).run_script("true");
    assert_eq!(
        status(&a, "/healthz"),
        200,
        "leaderrun should be healthy at first, because a plugin may take some time"
    );
    wait_until_reported_stuck(&a);
}

#[testkit::test]
fn wait_zero_gives_up_on_a_plugin_that_hangs_and_kills_it() {
    let kubeconfig = kubeconfig_with_plugin(&Cluster::shared().kubeconfig());
    make_plugin_hang(&kubeconfig);
    let mut a = Candidate::new("a", &TestLock::lease().through(kubeconfig)).args(["--wait", "0s"]).run_script("true");
    eventually("the plugin is running", || !plugins(&a).is_empty());
    let running_plugins = plugins(&a);
    a.wait_for_exit(UNAVAILABLE);
    eventually("the plugin is dead", || !running_plugins.iter().any(is_alive));
    assert!(a.log().contains("within --wait 0s: still waiting for the credential plugin"), "{}", a.log());
}

#[testkit::test]
fn the_time_that_the_plugin_runs_counts_toward_the_wait() {
    const WAIT: Duration = Duration::from_secs(4);
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let _a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let kubeconfig = kubeconfig_with_plugin(&Cluster::shared().kubeconfig());
    make_plugin_hang(&kubeconfig);
    let start = Instant::now();
    let mut b = Candidate::new("b", &lock.through(kubeconfig)).args(["--wait", "4s"]).run_script("true");
    b.wait_for_exit(UNAVAILABLE);
    assert!(start.elapsed() < 2 * WAIT, "b waited for longer than --wait: {}", b.log());
}

#[testkit::test]
fn the_plugin_is_not_run_again_for_the_watch() {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let mut a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let proxy = Proxy::start(Cluster::shared());
    let kubeconfig = kubeconfig_with_plugin(&proxy.kubeconfig());
    let read = proxy.hold_responses(Match::get());
    let mut b = Candidate::new("b", &lock.through(kubeconfig.clone())).args(HTTP).run_witness(&witnesses, &[]);
    read.wait_until_held();
    make_plugin_hang(&kubeconfig);
    read.release();
    eventually("the standby is watching the lock", || proxy.requests().iter().any(ReceivedRequest::is_watch));
    a.stop();
    witnesses.wait_for("b", 1);
    assert!(plugins(&b).is_empty(), "{:?}", plugins(&b));
    assert_eq!(status(&b, "/healthz"), 200);
    b.stop();
}

#[testkit::test(requires = CAN_STOP_THREADS.clone())]
fn a_stuck_election_thread_is_reported_before_the_lock_is_lost() {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let timing = ["--lease-duration", "40s", "--renew-deadline", "30s", "--retry-period", "1s"];
    let mut a = Candidate::with_timing("a", &lock, timing).args(HTTP).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let stopped = StoppedThread::stop(a.elector(), "election").expect("the thread can be stopped");
    wait_until_reported_stuck(&a);
    assert_eq!(samples(&a).value("leader_election_master_status"), 1.0, "the leader should still lead");
    drop(stopped);
    wait_for_status(&a, "/healthz", 200);
    assert_eq!(witnesses.lifetimes_of("a")[0].signaled_at, 0, "the command got a stop signal: {}", a.log());
    a.signal(Signal::SIGTERM);
    a.wait_for_exit(0);
}

/// The supervisor and the elector's main thread are stopped, so neither can kill the command.
#[testkit::test(requires = CAN_STOP_THREADS.clone())]
fn leadership_that_should_have_ended_is_reported() {
    let (proxy, witnesses) = (Proxy::start(Cluster::shared()), Witnesses::new());
    let lock = TestLock::lease_through(proxy.kubeconfig());
    let mut a = Candidate::new("a", &lock).args(HTTP).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    wait_for_status(&a, "/readyz", 200);
    kill(a.supervisor(), Signal::SIGSTOP).expect("the process is alive");
    let stopped = StoppedThread::stop(a.elector(), "leaderrun").expect("the thread can be stopped");
    proxy.partition();
    wait_for_status(&a, "/healthz", 503);
    let body = get(&a, "/healthz").body;
    assert!(body.starts_with("leadership should have ended "), "{body}");
    assert_eq!(
        samples(&a).value("leader_election_master_status"),
        1.0,
        "a leader should count as leading while its command is alive"
    );
    drop(stopped);
    a.wait_for_exit(LOST);
}
