//! Tests that only the leader's pod has the label by which a Service selects it.

use hyper::Method;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use testkit::exit_status::LOST;
use testkit::{
    CANDIDATE_VERBS, Candidate, Client, Cluster, Match, Proxy, ReceivedRequest, TestLock, Witnesses, eventually,
    proxy::Hold,
};

/// The option that sets the label of the leader's pod.
pub const LABEL: [&str; 2] = ["--pod-label", "role=leader"];

/// Pods in the namespace of a lock. The pod of a candidate has the candidate's name.
pub struct Pods {
    client: Client,
    path: String,
}

impl Pods {
    pub fn new(lock: &TestLock, names: &[&str]) -> Self {
        let pods =
            Self { client: Cluster::shared().admin(), path: format!("/api/v1/namespaces/{}/pods", lock.namespace()) };
        for name in names {
            let spec = json!({ "containers": [{ "name": "main", "image": "registry.example.com/none" }] });
            let pod = json!({ "metadata": { "name": name, "labels": { "app": "worker" } }, "spec": spec });
            pods.client.create(&pods.path, &pod).expect("the pod can be created");
        }
        pods
    }

    pub fn get(&self, name: &str) -> Value {
        self.client.get(&format!("{}/{name}", self.path)).expect("the pod can be read")
    }

    /// Applies a merge patch to a pod.
    pub fn patch(&self, name: &str, patch: &Value) {
        self.client.merge_patch(&format!("{}/{name}", self.path), patch).expect("the pod can be changed");
    }

    /// Sets the label `role` of a pod.
    pub fn set_role(&self, name: &str, value: &str) {
        let label = json!({ "metadata": { "labels": { "role": value } } });
        self.patch(name, &label);
    }

    /// Returns the names of the pods that have the label `role=leader`.
    pub fn labeled(&self) -> Vec<String> {
        let list =
            self.client.get(&format!("{}?labelSelector=role%3Dleader", self.path)).expect("the pods can be listed");
        let name = |pod: &Value| pod["metadata"]["name"].as_str().expect("a pod has a name").to_owned();
        list["items"].as_array().expect("the items are a list").iter().map(name).collect()
    }

    pub fn wait_until_labeled(&self, names: &[&str]) {
        eventually(&format!("{names:?} have the label"), || self.labeled() == names);
    }

    /// Starts recording which pods have the label `role=leader`. The returned function ends the recording, and returns
    /// the names of the labeled pods after each change. There must be a pod `end`, which no candidate uses.
    fn record_labels(&self) -> impl FnOnce() -> Vec<Vec<String>> {
        let watch =
            self.client.watch(&format!("{}?labelSelector=role%3Dleader", self.path)).expect("the pods can be watched");
        let pods = Self { client: self.client.clone(), path: self.path.clone() };
        move || {
            // When this change arrives, all earlier changes have arrived.
            let end = json!({ "metadata": { "labels": { "role": "leader", "end": "yes" } } });
            pods.patch("end", &end);
            let (mut labeled, mut history) = (Vec::<String>::new(), Vec::new());
            loop {
                let event = watch.next_change().expect("the watch delivers a change");
                let name = event["object"]["metadata"]["name"].as_str().expect("a pod has a name").to_owned();
                if name == "end" {
                    return history;
                }
                labeled.retain(|other| *other != name);
                if event["type"] != "DELETED" {
                    labeled.push(name);
                }
                history.push(labeled.clone());
            }
        }
    }
}

/// Creates a candidate that labels the pod with the same name.
pub fn candidate(name: &str, lock: &TestLock) -> Candidate {
    Candidate::new(name, lock).args(LABEL).args(["--pod", name])
}

#[testkit::test]
fn the_label_is_on_the_leaders_pod_only() {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let pods = Pods::new(&lock, &["a", "b", "end"]);
    let history = pods.record_labels();
    let mut a = candidate("a", &lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    pods.wait_until_labeled(&["a"]);
    let mut b = candidate("b", &lock).run_witness(&witnesses, &[]);
    b.wait_for_log("held by a");
    a.stop();
    witnesses.wait_for("b", 1);
    pods.wait_until_labeled(&["b"]);
    b.stop();
    pods.wait_until_labeled(&[]);
    assert_eq!(pods.get("a")["metadata"]["labels"], json!({ "app": "worker" }), "other labels should be kept");
    let history = history();
    let names: Vec<Vec<&str>> = history.iter().map(|names| names.iter().map(String::as_str).collect()).collect();
    assert_eq!(names, [vec!["a"], vec![], vec!["b"], vec![]]);
    a.wait_for_log("the label role=leader on pod a routes to this candidate");
    a.wait_for_log("the label role=leader on pod a no longer routes to this candidate");
}

#[testkit::test]
fn the_label_is_removed_before_the_command_gets_the_termination_signal() {
    let proxy = Proxy::start(Cluster::shared());
    let (lock, witnesses) = (TestLock::lease_through(proxy.kubeconfig()), Witnesses::new());
    let pods = Pods::new(&lock, &["a"]);
    let mut a = candidate("a", &lock).run_witness(&witnesses, &[]);
    pods.wait_until_labeled(&["a"]);
    a.wait_for_log("routes to this candidate");
    let held = proxy.hold_responses(Match::method(Method::PATCH));
    a.signal(Signal::SIGTERM);
    held.wait_until_held();
    assert_eq!(pods.labeled(), [""; 0], "the label should already be removed while the response is held");
    assert_eq!(
        witnesses.lifetimes_of("a")[0].signaled_at,
        0,
        "the command should get no signal before leaderrun has the response"
    );
    held.release();
    a.wait();
    assert!(witnesses.lifetimes_of("a")[0].signaled_at > 0);
}

#[testkit::test]
fn a_command_gets_the_signal_even_if_the_label_cannot_be_removed() {
    let proxy = Proxy::start(Cluster::shared());
    let (lock, witnesses) = (TestLock::lease_through(proxy.kubeconfig()), Witnesses::new());
    let pods = Pods::new(&lock, &["a"]);
    let mut a = candidate("a", &lock).run_witness(&witnesses, &[]);
    pods.wait_until_labeled(&["a"]);
    let _held = proxy.hold_requests(Match::any().on("/pods"));
    a.signal(Signal::SIGTERM);
    a.wait();
    assert!(witnesses.lifetimes_of("a")[0].signaled_at > 0);
    let lease = Cluster::shared().admin().get(&lock.lease_path()).expect("the Lease exists");
    assert_eq!(lease["spec"]["holderIdentity"], "", "the lease should be released");
}

#[testkit::test]
fn a_second_signal_does_not_wait_for_the_removal_of_the_label() {
    let proxy = Proxy::start(Cluster::shared());
    let (lock, witnesses) = (TestLock::lease_through(proxy.kubeconfig()), Witnesses::new());
    let pods = Pods::new(&lock, &["a"]);
    let mut a = candidate("a", &lock).run_witness(&witnesses, &["linger"]);
    pods.wait_until_labeled(&["a"]);
    let held = proxy.hold_requests(Match::any().on("/pods"));
    a.signal(Signal::SIGTERM);
    held.wait_until_held();
    a.signal(Signal::SIGINT);
    eventually("the command gets the signal", || witnesses.lifetimes_of("a")[0].signaled_at > 0);
    held.release();
    a.wait();
}

#[testkit::test]
fn the_next_leader_removes_the_label_of_a_dead_leader() {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let pods = Pods::new(&lock, &["a", "b", "end"]);
    let a = candidate("a", &lock).run_witness(&witnesses, &[]);
    pods.wait_until_labeled(&["a"]);
    let mut b = candidate("b", &lock).run_witness(&witnesses, &[]);
    b.wait_for_log("held by a");
    let history = pods.record_labels();
    // All processes are killed at the same time, as when the node fails.
    drop(a);
    witnesses.wait_for("b", 1);
    pods.wait_until_labeled(&["b"]);
    b.stop();
    assert!(history().iter().all(|names| names.len() < 2));
}

#[testkit::test]
fn two_pods_never_have_the_label_at_the_same_time_during_a_partition() {
    let proxy = Proxy::start(Cluster::shared());
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let pods = Pods::new(&lock, &["a", "b", "end"]);
    let mut a =
        candidate("a", &lock.through(proxy.kubeconfig())).args(["--on-lost", "rejoin"]).run_witness(&witnesses, &[]);
    pods.wait_until_labeled(&["a"]);
    let mut b = candidate("b", &lock).run_witness(&witnesses, &[]);
    b.wait_for_log("held by a");
    let history = pods.record_labels();
    proxy.partition();
    witnesses.wait_for("b", 1);
    pods.wait_until_labeled(&["b"]);
    proxy.heal();
    a.wait_for_log("held by b");
    b.stop();
    eventually("a leads again", || witnesses.lifetimes_of("a").len() == 2);
    pods.wait_until_labeled(&["a"]);
    a.stop();
    assert!(history().iter().all(|names| names.len() < 2));
    witnesses.assert_runs_one_at_a_time(3);
}

#[testkit::test]
fn a_delayed_label_request_from_a_former_leader_is_refused() {
    let proxy = Proxy::start(Cluster::shared());
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let pods = Pods::new(&lock, &["a", "b"]);
    let first = proxy.hold_requests(Match::method(Method::PATCH).next(1));
    let mut a = candidate("a", &lock.through(proxy.kubeconfig())).run_witness(&witnesses, &[]);
    let late = hold_label_request(&proxy, first);
    a.stop();
    let mut b = candidate("b", &lock).run_witness(&witnesses, &[]);
    pods.wait_until_labeled(&["b"]);
    let conflicts = proxy.conflicts();
    late.release();
    eventually("the late request has arrived", || proxy.conflicts() > conflicts);
    assert_eq!(pods.labeled(), ["b"]);
    b.stop();
}

/// Releases the first write, which adds the token to the pod, and holds the next write, which adds the label. Returns
/// the hold on the next write.
fn hold_label_request(proxy: &Proxy, first: Hold) -> Hold {
    first.wait_until_held();
    let late = proxy.hold_requests(Match::method(Method::PATCH).next(1));
    first.release();
    late.wait_until_held();
    late
}

/// The request is sent before the partition and arrives after the next leader has labeled its pod.
#[testkit::test]
fn a_label_request_that_a_partition_delayed_is_refused() {
    let proxy = Proxy::start(Cluster::shared());
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let pods = Pods::new(&lock, &["a", "b", "end"]);
    let history = pods.record_labels();
    let first = proxy.hold_requests(Match::method(Method::PATCH).next(1));
    let mut a = candidate("a", &lock.through(proxy.kubeconfig())).run_witness(&witnesses, &[]);
    let late = hold_label_request(&proxy, first);
    // All later requests from `a` about pods fail.
    proxy.respond(Match::any().on("/pods"), 503, None);
    let mut b = candidate("b", &lock).run_witness(&witnesses, &[]);
    b.wait_for_log("held by a");
    proxy.partition_responses();
    a.wait_for_exit(LOST);
    pods.wait_until_labeled(&["b"]);
    let conflicts = proxy.conflicts();
    late.release();
    eventually("the late request has arrived", || proxy.conflicts() > conflicts || pods.labeled().len() > 1);
    b.stop();
    assert!(history().iter().all(|names| names.len() < 2));
}

#[testkit::test]
fn the_label_is_removed_when_a_signal_other_than_a_termination_signal_ends_the_command() {
    let lock = TestLock::lease();
    let pods = Pods::new(&lock, &["a"]);
    let mut a = candidate("a", &lock).run_script("trap 'echo handled' QUIT; while :; do sleep 0.01; done");
    a.wait_for_log("routes to this candidate");
    a.signal(Signal::SIGQUIT);
    eventually("the command has handled SIGQUIT", || a.output().contains("handled"));
    a.signal(Signal::SIGUSR1);
    a.wait_for_exit(138);
    assert!(!a.log().contains("terminating"), "{}", a.log());
    pods.wait_until_labeled(&[]);
}

#[testkit::test]
fn event_requests_that_hang_are_not_reported_as_a_failure_of_the_label() {
    let proxy = Proxy::start(Cluster::shared());
    let (lock, witnesses) = (TestLock::lease_through(proxy.kubeconfig()), Witnesses::new());
    let pods = Pods::new(&lock, &["a"]);
    let mut a = candidate("a", &lock).run_witness(&witnesses, &[]);
    a.wait_for_log("routes to this candidate");
    let _held = proxy.hold_requests(Match::any().on("/events"));
    a.stop();
    assert_eq!(pods.labeled(), [""; 0]);
    assert!(!a.log().contains("traffic may still be routed here"), "{}", a.log());
}

/// leaderrun sends a second request while it still waits for the response to the first one.
#[testkit::test]
fn a_late_response_is_still_used_to_remove_the_label() {
    let proxy = Proxy::start(Cluster::shared());
    let (lock, witnesses) = (TestLock::lease_through(proxy.kubeconfig()), Witnesses::new());
    let pods = Pods::new(&lock, &["a"]);
    let mut a = candidate("a", &lock).run_witness(&witnesses, &["linger"]);
    a.wait_for_log("routes to this candidate");
    let slow = proxy.hold_responses(Match::get().on("/pods/a").next(1));
    a.signal(Signal::SIGTERM);
    let is_pod_read = |request: &ReceivedRequest| request.method == Method::GET && request.path.ends_with("/pods/a");
    let _second = proxy.hold_requests(Match::get().on("/pods/a"));
    // The first of the three reads was made when the label was added.
    eventually("a second request is sent", || {
        proxy.requests().iter().filter(|request| is_pod_read(request)).count() > 2
    });
    slow.release();
    eventually("the label is removed after the late response", || pods.labeled().is_empty());
    a.wait();
}

#[testkit::test]
fn a_candidate_without_permission_to_label_pods_can_still_lead() {
    let lock = TestLock::lease_with_verbs(&CANDIDATE_VERBS);
    let witnesses = Witnesses::new();
    let mut a = candidate("a", &lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    a.wait_for_log("warning: the label role=leader on pod a: not allowed to list pods in namespace ");
    a.stop();
}
