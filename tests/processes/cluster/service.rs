//! Traffic is led to the leader by the endpoints of a Service.

use hyper::Method;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use testkit::{Candidate, Cluster, Match, Proxy, TestLock, Witnesses, eventually};

fn slice(lock: &TestLock) -> Option<Value> {
    let path = format!("/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices/web-leader", lock.namespace());
    Cluster::shared().admin().get(&path).ok()
}

fn addresses(lock: &TestLock) -> Vec<String> {
    let endpoints = slice(lock).map(|slice| slice["endpoints"].clone()).unwrap_or_default();
    let endpoints = endpoints.as_array().cloned().unwrap_or_default();
    endpoints.iter().map(|endpoint| endpoint["addresses"][0].as_str().expect("an address").to_owned()).collect()
}

fn leads_to(lock: &TestLock, wanted: &[&str]) {
    eventually(&format!("the Service leads to {wanted:?}"), || addresses(lock) == wanted);
}

fn serving(name: &str, lock: &TestLock, address: &str) -> Candidate {
    Candidate::new(name, lock).args(["--service", "web", "--port", "http:8080,dns:53/udp", "--address", address])
}

#[testkit::test]
fn the_service_has_the_leaders_address_only() {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let mut a = serving("a", &lock, "10.1.2.3").run_witness(&witnesses, &[]);
    leads_to(&lock, &["10.1.2.3"]);
    let made = slice(&lock).expect("a slice");
    assert_eq!(made["metadata"]["labels"]["kubernetes.io/service-name"], "web");
    assert_eq!(made["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"], "leaderrun");
    assert_eq!((&made["addressType"], &made["endpoints"][0]["conditions"]["ready"]), (&"IPv4".into(), &true.into()));
    let ports = json!([
        { "name": "http", "port": 8080, "protocol": "TCP" },
        { "name": "dns", "port": 53, "protocol": "UDP" },
    ]);
    assert_eq!(made["ports"], ports);
    let mut b = serving("b", &lock, "10.1.2.4").run_witness(&witnesses, &[]);
    b.wait_for_log("is held by a");
    assert_eq!(addresses(&lock), ["10.1.2.3"]);
    a.stop();
    leads_to(&lock, &["10.1.2.4"]);
    b.stop();
    leads_to(&lock, &[]);
}

#[testkit::test]
fn a_dead_leaders_address_is_replaced_by_the_next() {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let a = serving("a", &lock, "10.1.2.3").run_witness(&witnesses, &[]);
    leads_to(&lock, &["10.1.2.3"]);
    let mut b = serving("b", &lock, "10.1.2.4").run_witness(&witnesses, &[]);
    b.wait_for_log("is held by a");
    drop(a);
    leads_to(&lock, &["10.1.2.4"]);
    // As when its container begins again.
    let mut a = serving("a", &lock, "10.1.2.3").run_witness(&witnesses, &[]);
    a.wait_for_log("is held by b");
    a.signal(Signal::SIGTERM);
    a.wait_for_exit(143);
    assert_eq!(addresses(&lock), ["10.1.2.4"]);
    b.stop();
    leads_to(&lock, &[]);
}

/// On the same machine, with its address.
#[testkit::test]
fn a_candidate_beside_the_leader_takes_nothing_from_it() {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let mut a = serving("a", &lock, "10.1.2.3").run_witness(&witnesses, &[]);
    a.wait_for_log("leads here");
    let mut beside = serving("beside", &lock, "10.1.2.3").run_script("true");
    beside.wait_for_log("is held by a");
    beside.signal(Signal::SIGTERM);
    beside.wait_for_exit(143);
    assert_eq!(addresses(&lock), ["10.1.2.3"]);
    a.stop();
}

#[testkit::test]
fn an_address_that_arrives_late_is_refused() {
    let proxy = Proxy::start(Cluster::shared());
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let late = proxy.hold_requests(Match::method(Method::POST).on("/endpointslices").next(1));
    let mut a = serving("a", &lock.through(proxy.kubeconfig()), "10.1.2.3").run_witness(&witnesses, &[]);
    late.wait_until_held();
    a.stop();
    leads_to(&lock, &[]);
    let conflicts = proxy.conflicts();
    late.release();
    eventually("it has arrived", || proxy.conflicts() > conflicts);
    assert_eq!(addresses(&lock), [""; 0]);
}

/// Which had no time to read the slice while it was its own.
#[testkit::test]
fn a_late_withdrawal_leaves_the_later_leader_alone() {
    let proxy = Proxy::start(Cluster::shared());
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let mut a = serving("a", &lock.through(proxy.kubeconfig()), "10.1.2.3").run_witness(&witnesses, &[]);
    a.wait_for_log("leads here");
    let mut b = serving("b", &lock, "10.1.2.4").run_witness(&witnesses, &[]);
    b.wait_for_log("is held by a");
    let late = proxy.hold_requests(Match::any().on("/endpointslices"));
    a.signal(Signal::SIGTERM);
    leads_to(&lock, &["10.1.2.4"]);
    late.release();
    a.wait();
    assert_eq!(addresses(&lock), ["10.1.2.4"]);
    b.stop();
    leads_to(&lock, &[]);
}

/// Its own address is of another family, or the machine's own, by which it reaches the API server.
#[testkit::test]
fn who_cannot_be_reached_takes_a_dead_leader_out() {
    for (own, says) in [
        (&["--address", "fd00::7"][..], "the EndpointSlice web-leader is for \"IPv4\" addresses, and fd00::7 is none"),
        (&[], "nobody else reaches this candidate at 127.0.0.1; --address says where it answers"),
    ] {
        let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
        let a = serving("a", &lock, "10.1.2.3").run_witness(&witnesses, &[]);
        a.wait_for_log("leads here");
        drop(a);
        let mut b =
            Candidate::new("b", &lock).args(["--service", "web", "--port", "80"]).args(own).run_script("sleep inf");
        b.wait_for_log(says);
        leads_to(&lock, &[]);
        b.stop();
        assert!(!b.log().contains("no trouble any more"), "{}", b.log());
    }
}

#[testkit::test]
fn what_cannot_be_led_anywhere_is_refused() {
    let (lock, long) = (TestLock::lease(), "a".repeat(244));
    for (arguments, says) in [
        (vec!["--service", "web"], "--service web: a --port is missing; for example --service web --port 8080"),
        (
            vec!["--port", "80"],
            "--port 80: it is about a Service, and no --service is given; for example --port 80 --service my-service",
        ),
        (
            vec!["--pod-label", "a=b", "--address", "10.1.2.3"],
            "--address 10.1.2.3: it is about a Service, and no --service is given",
        ),
        (vec!["--pod-label", "role"], "--pod-label role: a label has a key and a value; try --pod-label role=true"),
        (vec!["--service", "Web", "--port", "1"], "--service Web: the name may have lower-case letters"),
        (vec!["--service", "web", "--port", "0"], "--port 0: ports are numbered 1 to 65535"),
        (
            vec!["--service", "web", "--port", "80", "--address", "127.0.0.1"],
            "--address 127.0.0.1: other machines cannot reach this address",
        ),
        (
            vec!["--service", "web", "--port", "80", "--address", "fe80::1"],
            "--address fe80::1: other machines cannot reach this address",
        ),
        (
            vec!["--service", "web", "--port", "80,443"],
            "--port 80,443: each of several ports needs a name of its own; for example --port http:80,https:443",
        ),
        (vec!["--service", "web", "--pod-label", "a=b"], "cannot be used together with"),
        (vec!["--lock", "file:/tmp/x", "--pod-label", "a=b"], "a file is in no cluster to route traffic in"),
        (vec!["--lock", &long, "--pod-label", "a=b"], "to route traffic its name may have 243 characters, not 244"),
    ] {
        let mut refused = Candidate::bare("refused").args(["--lock", &lock.name]).args(&arguments);
        if arguments[0] == "--lock" {
            refused = Candidate::bare("refused").args(&arguments);
        }
        let mut refused = refused.run_script("echo started");
        refused.wait_for_exit(125);
        assert!(refused.log().contains(says), "{arguments:?}: {}", refused.log());
        assert_eq!(refused.output(), "");
    }
}
