//! Tests of the leader's label on pods that also have labels from other leaders, locks or programs.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use testkit::exit_status::NOT_FOUND;
use testkit::{Candidate, Cluster, Match, Proxy, TestLock, Witnesses, eventually};

use super::pod_label::{LABEL, Pods, candidate};

/// The label with the fencing token of the leader that labeled the pod.
const TOKEN_LABEL: &str = "job.leaderrun/token";

/// Returns the value of the token label, which begins with the fencing token.
fn token_label(pod: &Value) -> Option<String> {
    pod["metadata"]["labels"][TOKEN_LABEL].as_str().map(str::to_owned)
}

/// The two leaders are configured with different labels, and the first leader's requests to remove its label are
/// delayed.
#[testkit::test]
fn a_leader_removes_the_label_of_the_previous_leader_even_if_its_own_label_differs() {
    let proxy = Proxy::start(Cluster::shared());
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let pods = Pods::new(&lock, &["a", "b"]);
    let mut a = candidate("a", &lock.through(proxy.kubeconfig())).run_witness(&witnesses, &[]);
    pods.wait_until_labeled(&["a"]);
    a.wait_for_log("routes to this candidate");
    let mut b =
        Candidate::new("b", &lock).args(["--pod-label", "part=primary", "--pod", "b"]).run_witness(&witnesses, &[]);
    b.wait_for_log("held by a");
    let late = proxy.hold_requests(Match::any().on("/pods"));
    a.signal(Signal::SIGTERM);
    eventually("b is labeled", || pods.get("b")["metadata"]["labels"]["part"] == "primary");
    late.release();
    a.wait();
    b.stop();
    for pod in ["a", "b"] {
        assert_eq!(pods.get(pod)["metadata"]["labels"], json!({ "app": "worker" }));
        assert_eq!(pods.get(pod)["metadata"]["annotations"]["job.leaderrun/label"], Value::Null);
    }
}

#[testkit::test]
fn a_label_that_the_pod_already_had_is_left_alone() {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let pods = Pods::new(&lock, &["a"]);
    pods.set_role("a", "leader");
    let mut a = candidate("a", &lock).run_witness(&witnesses, &[]);
    a.wait_for_log("another program has set role=leader on the pod; try another key");
    a.stop();
    assert_eq!(pods.labeled(), ["a"]);
}

/// Both candidates are in the same pod. The first leader's request to remove its label arrives after the second leader
/// has added its label.
#[testkit::test]
fn a_late_withdrawal_does_not_remove_the_label_of_the_next_leader() {
    let proxy = Proxy::start(Cluster::shared());
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let pods = Pods::new(&lock, &["a"]);
    let mut a = candidate("a", &lock.through(proxy.kubeconfig())).run_witness(&witnesses, &[]);
    pods.wait_until_labeled(&["a"]);
    a.wait_for_log("routes to this candidate");
    let first_value = token_label(&pods.get("a")).expect("the pod has a token");
    let mut b = Candidate::new("b", &lock).args(LABEL).args(["--pod", "a"]).run_witness(&witnesses, &[]);
    b.wait_for_log("held by a");
    let late = proxy.hold_requests(Match::any().on("/pods"));
    a.signal(Signal::SIGTERM);
    eventually("the pod has b's token", || token_label(&pods.get("a")).is_some_and(|value| value != first_value));
    late.release();
    a.wait();
    assert_eq!(pods.labeled(), ["a"]);
    b.stop();
    pods.wait_until_labeled(&[]);
}

#[testkit::test]
fn a_leader_does_not_remove_the_label_of_another_lock() {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let other_lock = TestLock { name: format!("{}/other", lock.namespace()), ..lock.clone() };
    let pods = Pods::new(&lock, &["a", "b"]);
    let a = candidate("a", &lock).run_witness(&witnesses, &[]);
    pods.wait_until_labeled(&["a"]);
    let mut c =
        Candidate::new("c", &other_lock).args(["--pod-label", "shard=one", "--pod", "a"]).run_script("sleep inf");
    c.wait_for_log("routes to this candidate");
    let mut b = candidate("b", &lock).run_witness(&witnesses, &[]);
    b.wait_for_log("held by a");
    drop(a);
    pods.wait_until_labeled(&["b"]);
    assert_eq!(pods.get("a")["metadata"]["labels"]["shard"], "one");
    b.stop();
    c.stop();
    assert_eq!(pods.get("a")["metadata"]["labels"], json!({ "app": "worker" }));
}

#[testkit::test]
fn labels_of_earlier_leaders_are_removed() {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let pods = Pods::new(&lock, &["a", "b", "c"]);
    let labels = json!({ "role": "leader", TOKEN_LABEL: "7.1767323045000000000" });
    let annotations = json!({ "job.leaderrun/label": "role=leader" });
    let stale = json!({ "metadata": { "labels": labels, "annotations": annotations } });
    for pod in ["a", "b"] {
        pods.patch(pod, &stale);
    }
    let mut c = candidate("c", &lock).run_witness(&witnesses, &[]);
    pods.wait_until_labeled(&["c"]);
    c.stop();
    // A leader whose command cannot be started removes an earlier leader's label from its own pod.
    pods.patch("a", &stale);
    let mut a = candidate("a", &lock).run(["/no/such/program"]);
    a.wait_for_exit(NOT_FOUND);
    pods.wait_until_labeled(&[]);
}

#[testkit::test]
fn labels_that_another_program_has_set_are_left_alone() {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let pods = Pods::new(&lock, &["a", "b", "redis"]);
    pods.set_role("redis", "leader");
    pods.set_role("b", "worker");
    let mut b = candidate("b", &lock).run_witness(&witnesses, &[]);
    b.wait_for_log("another program has set role=worker on the pod; try another key");
    let mut a = candidate("a", &lock).run_witness(&witnesses, &[]);
    a.wait_for_log("held by b");
    b.stop();
    pods.wait_until_labeled(&["a", "redis"]);
    a.stop();
    pods.wait_until_labeled(&["redis"]);
    assert_eq!(pods.get("b")["metadata"]["labels"]["role"], "worker");
}

#[testkit::test]
fn a_standby_in_the_leaders_pod_does_not_remove_the_leaders_label() {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let pods = Pods::new(&lock, &["a"]);
    let mut a = candidate("a", &lock).run_witness(&witnesses, &[]);
    a.wait_for_log("routes to this candidate");
    let mut b = Candidate::new("b", &lock).args(LABEL).args(["--pod", "a"]).run_script("true");
    b.wait_for_log("held by a");
    b.signal(Signal::SIGTERM);
    b.wait_for_exit(143);
    assert_eq!(pods.labeled(), ["a"]);
    a.stop();
}
