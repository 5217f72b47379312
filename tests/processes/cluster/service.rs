//! Tests that a Service's endpoints are set so that traffic goes to the leader.

use hyper::Method;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use testkit::exit_status::FAILED;
use testkit::{Candidate, Cluster, Match, Proxy, TestLock, Witnesses, eventually};

/// Returns the leader's EndpointSlice for IPv4, if it exists.
fn endpoint_slice(lock: &TestLock) -> Option<Value> {
    endpoint_slice_named(lock, "web-leader")
}

fn endpoint_slice_named(lock: &TestLock, name: &str) -> Option<Value> {
    let path = format!("/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices/{name}", lock.namespace());
    Cluster::shared().admin().get(&path).ok()
}

/// Returns the IPv4 addresses to which the Service routes.
fn addresses(lock: &TestLock) -> Vec<String> {
    addresses_in_slice(lock, "web-leader")
}

fn addresses_in_slice(lock: &TestLock, name: &str) -> Vec<String> {
    let endpoints = endpoint_slice_named(lock, name).map(|slice| slice["endpoints"].clone()).unwrap_or_default();
    let endpoints = endpoints.as_array().cloned().unwrap_or_default();
    endpoints
        .iter()
        .map(|endpoint| endpoint["addresses"][0].as_str().expect("each endpoint has an address").to_owned())
        .collect()
}

fn wait_for_addresses(lock: &TestLock, expected: &[&str]) {
    eventually(&format!("the Service routes to {expected:?}"), || addresses(lock) == expected);
}

fn services_path(lock: &TestLock) -> String {
    format!("/api/v1/namespaces/{}/services", lock.namespace())
}

/// Creates the Service `web` in the namespace of this lock.
fn create_service(lock: &TestLock, spec: &Value) {
    let service = json!({ "metadata": { "name": "web" }, "spec": spec });
    Cluster::shared().admin().create(&services_path(lock), &service).expect("the Service can be created");
}

/// Returns a lock whose namespace has a Service `web` with two ports.
fn lock_with_service() -> TestLock {
    let lock = TestLock::lease();
    create_service(&lock, &two_ports());
    lock
}

/// Returns the spec of a Service with a TCP port and a UDP port.
fn two_ports() -> Value {
    json!({ "ports": [
        { "name": "http", "port": 80, "targetPort": 8080 },
        { "name": "dns", "port": 53, "protocol": "UDP" },
    ] })
}

fn candidate_with_address(name: &str, lock: &TestLock, address: &str) -> Candidate {
    Candidate::new(name, lock).args(["--service", "web", "--port", "http:8080,dns:53/udp", "--address", address])
}

#[testkit::test]
fn the_service_has_only_the_address_of_the_leader() {
    let (lock, witnesses) = (lock_with_service(), Witnesses::new());
    let mut a = candidate_with_address("a", &lock, "10.1.2.3").run_witness(&witnesses, &[]);
    wait_for_addresses(&lock, &["10.1.2.3"]);
    let created = endpoint_slice(&lock).expect("the slice exists");
    assert_eq!(created["metadata"]["labels"]["kubernetes.io/service-name"], "web");
    assert_eq!(created["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"], "leaderrun");
    assert_eq!(
        (&created["addressType"], &created["endpoints"][0]["conditions"]["ready"]),
        (&"IPv4".into(), &true.into())
    );
    let ports = json!([
        { "name": "http", "port": 8080, "protocol": "TCP" },
        { "name": "dns", "port": 53, "protocol": "UDP" },
    ]);
    assert_eq!(created["ports"], ports);
    let mut b = candidate_with_address("b", &lock, "10.1.2.4").run_witness(&witnesses, &[]);
    b.wait_for_log("held by a");
    assert_eq!(addresses(&lock), ["10.1.2.3"]);
    a.stop();
    wait_for_addresses(&lock, &["10.1.2.4"]);
    b.stop();
    wait_for_addresses(&lock, &[]);
}

#[testkit::test]
fn the_next_leader_replaces_the_address_of_a_dead_leader() {
    let (lock, witnesses) = (lock_with_service(), Witnesses::new());
    let a = candidate_with_address("a", &lock, "10.1.2.3").run_witness(&witnesses, &[]);
    wait_for_addresses(&lock, &["10.1.2.3"]);
    let mut b = candidate_with_address("b", &lock, "10.1.2.4").run_witness(&witnesses, &[]);
    b.wait_for_log("held by a");
    drop(a);
    wait_for_addresses(&lock, &["10.1.2.4"]);
    // The container of the dead leader restarts.
    let mut a = candidate_with_address("a", &lock, "10.1.2.3").run_witness(&witnesses, &[]);
    a.wait_for_log("held by b");
    a.signal(Signal::SIGTERM);
    a.wait_for_exit(143);
    assert_eq!(addresses(&lock), ["10.1.2.4"]);
    b.stop();
    wait_for_addresses(&lock, &[]);
}

#[testkit::test]
fn a_standby_with_the_address_of_the_leader_does_not_remove_it() {
    let (lock, witnesses) = (lock_with_service(), Witnesses::new());
    let mut a = candidate_with_address("a", &lock, "10.1.2.3").run_witness(&witnesses, &[]);
    a.wait_for_log("routes to this candidate");
    let mut b = candidate_with_address("b", &lock, "10.1.2.3").run_script("true");
    b.wait_for_log("held by a");
    b.signal(Signal::SIGTERM);
    b.wait_for_exit(143);
    assert_eq!(addresses(&lock), ["10.1.2.3"]);
    a.stop();
}

#[testkit::test]
fn a_late_request_does_not_restore_a_withdrawn_address() {
    let proxy = Proxy::start(Cluster::shared());
    let (lock, witnesses) = (lock_with_service(), Witnesses::new());
    let late = proxy.hold_requests(Match::method(Method::POST).on("/endpointslices").next(1));
    let mut a = candidate_with_address("a", &lock.through(proxy.kubeconfig()), "10.1.2.3").run_witness(&witnesses, &[]);
    late.wait_until_held();
    a.stop();
    wait_for_addresses(&lock, &[]);
    let conflicts = proxy.conflicts();
    late.release();
    eventually("the late request is refused", || proxy.conflicts() > conflicts);
    assert_eq!(addresses(&lock), [""; 0]);
}

/// The first leader's request to remove its address arrives after the second leader has added its own address.
#[testkit::test]
fn a_late_withdrawal_does_not_remove_the_address_of_the_next_leader() {
    let proxy = Proxy::start(Cluster::shared());
    let (lock, witnesses) = (lock_with_service(), Witnesses::new());
    let mut a = candidate_with_address("a", &lock.through(proxy.kubeconfig()), "10.1.2.3").run_witness(&witnesses, &[]);
    a.wait_for_log("routes to this candidate");
    let mut b = candidate_with_address("b", &lock, "10.1.2.4").run_witness(&witnesses, &[]);
    b.wait_for_log("held by a");
    let late = proxy.hold_requests(Match::any().on("/endpointslices"));
    a.signal(Signal::SIGTERM);
    wait_for_addresses(&lock, &["10.1.2.4"]);
    late.release();
    a.wait();
    assert_eq!(addresses(&lock), ["10.1.2.4"]);
    b.stop();
    wait_for_addresses(&lock, &[]);
}

/// In one case, the second leader has an address of the wrong family. In the other case, it has no `--address`, and
/// reaches the API server from a loopback address, which other machines cannot use.
#[testkit::test]
fn a_leader_without_a_usable_address_removes_the_address_of_a_dead_leader() {
    for (options, expected) in [
        (
            &["--address", "fd00::7"][..],
            "has IPv4 only, but this candidate's address is IPv6; set --address to an IPv4 address",
        ),
        (&[], "other machines cannot reach this candidate at 127.0.0.1; set --address to this candidate's address"),
    ] {
        let (lock, witnesses) = (lock_with_service(), Witnesses::new());
        let a = candidate_with_address("a", &lock, "10.1.2.3").run_witness(&witnesses, &[]);
        a.wait_for_log("routes to this candidate");
        drop(a);
        let mut b = Candidate::new("b", &lock).args(["--service", "web"]).args(options).run_script("sleep inf");
        b.wait_for_log(expected);
        wait_for_addresses(&lock, &[]);
        b.stop();
        assert!(!b.log().contains("requests for the Service web succeed again"), "{}", b.log());
    }
}

#[testkit::test]
fn a_dual_stack_service_routes_to_an_address_of_each_family() {
    let (lock, admin) = (TestLock::lease(), Cluster::shared().admin());
    let mut spec = two_ports();
    spec["ipFamilyPolicy"] = "RequireDualStack".into();
    spec["ipFamilies"] = json!(["IPv4", "IPv6"]);
    // The test ends here if the cluster has only one address family, and therefore refuses a dual-stack Service.
    let Ok(_) = admin.create(&services_path(&lock), &json!({ "metadata": { "name": "web" }, "spec": spec })) else {
        return;
    };
    let wait_for_both = |ipv4: &[&str], ipv6: &[&str]| {
        wait_for_addresses(&lock, ipv4);
        eventually(&format!("the Service routes to {ipv6:?}"), || addresses_in_slice(&lock, "web-leader-ipv6") == ipv6);
    };
    let a = candidate_with_address("a", &lock, "10.1.2.3,fd00::3").run_script("sleep inf");
    a.wait_for_log("the Service web routes to this candidate");
    wait_for_both(&["10.1.2.3"], &["fd00::3"]);
    assert!(!a.log().contains("routes IPv4 only"), "{}", a.log());
    let second = endpoint_slice_named(&lock, "web-leader-ipv6").expect("the slice exists");
    assert_eq!(
        (&second["addressType"], &second["ports"]),
        (&"IPv6".into(), &endpoint_slice(&lock).expect("the slice exists")["ports"])
    );
    drop(a);
    let mut b = candidate_with_address("b", &lock, "10.1.2.4").run_script("sleep inf");
    b.wait_for_log("this candidate has no IPv6 address");
    wait_for_both(&["10.1.2.4"], &[]);
    b.stop();
    let mut c = candidate_with_address("c", &lock, "fd00::5,10.1.2.5").run_script("sleep inf");
    wait_for_both(&["10.1.2.5"], &["fd00::5"]);
    c.stop();
    wait_for_both(&[], &[]);
}

#[testkit::test]
fn invalid_routing_options_are_refused() {
    let (lock, long_name) = (TestLock::lease(), "a".repeat(244));
    for (arguments, expected) in [
        (vec!["--port", "80"], "--port 80: this option requires --service; for example --port 80 --service my-service"),
        (vec!["--pod-label", "a=b", "--address", "10.1.2.3"], "--address 10.1.2.3: this option requires --service"),
        (vec!["--pod-label", "role"], "--pod-label role: a label has a key and a value; try --pod-label role=true"),
        (vec!["--service", "Web", "--port", "1"], "--service Web: the name can contain only lower-case letters"),
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
            vec!["--service", "web", "--address", "10.1.2.3,10.1.2.4"],
            "give at most one IPv4 and one IPv6 address; for example --address 10.1.2.3",
        ),
        (vec!["--service", "web", "--pod-label", "a=b"], "cannot be used together with"),
        (
            vec!["--lock", "file:/tmp/x", "--pod-label", "a=b"],
            "routing traffic to the leader requires a lock in a cluster",
        ),
        (
            vec!["--lock", &long_name, "--pod-label", "a=b"],
            "the name has 244 characters, but at most 243 are allowed when traffic is routed",
        ),
    ] {
        let default_lock = if arguments.contains(&"--lock") { vec![] } else { vec!["--lock", &lock.name] };
        let refused = Candidate::without_default_options("refused").args(default_lock).args(&arguments);
        let mut refused = refused.run_script("echo started");
        refused.wait_for_exit(FAILED);
        assert!(refused.log().contains(expected), "{arguments:?}: {}", refused.log());
        assert_eq!(refused.output(), "");
    }
}

/// Each case consists of the spec of a Service, the value of `--port` if there is one, the ports to which traffic is
/// routed (null if there are none), and the expected text in the log.
#[testkit::test]
fn traffic_is_routed_to_the_ports_that_the_service_defines() {
    let headless = json!({ "clusterIP": "None", "ports": [{ "name": "http", "port": 8080 }] });
    let unnamed = json!({ "ports": [{ "port": 80, "targetPort": 8080 }] });
    let server = json!({ "ports": [{ "name": "server", "port": 80, "targetPort": 8080 }] });
    let target_by_name = json!({ "ports": [{ "name": "server", "port": 80, "targetPort": "http" }] });
    let selecting = json!({ "selector": { "app": "web" }, "ports": [{ "port": 80 }] });
    let external = json!({ "type": "ExternalName", "externalName": "example.com" });
    let port = |name: &str, number: u16, protocol: &str| json!({ "name": name, "port": number, "protocol": protocol });
    let (lock, routed) = (TestLock::lease(), "the Service web routes to this candidate");
    let namespace = lock.namespace();
    for (spec, port_option, ports, expected) in [
        (&two_ports(), None, json!([port("http", 8080, "TCP"), port("dns", 53, "UDP")]), routed.to_owned()),
        (&two_ports(), Some("8080"), json!([port("http", 8080, "TCP")]), format!("{routed}, but not on its port dns")),
        (&two_ports(), Some("53/udp"), json!([port("dns", 53, "UDP")]), format!("{routed}, but not on its port http")),
        (&headless, None, json!([port("http", 8080, "TCP")]), routed.to_owned()),
        (&unnamed, None, json!([port("", 8080, "TCP")]), routed.to_owned()),
        (&unnamed, Some("9090"), json!([port("", 9090, "TCP")]), routed.to_owned()),
        (&server, Some("8080"), json!([port("server", 8080, "TCP")]), routed.to_owned()),
        (&target_by_name, Some("http:8080"), json!([port("server", 8080, "TCP")]), routed.to_owned()),
        (&target_by_name, None, Value::Null, "set the number, for example --port server:8080".to_owned()),
        (&server, Some("http:8080"), Value::Null, format!("the Service {namespace}/web has no port named \"http\"")),
        (
            &two_ports(),
            Some("9090"),
            Value::Null,
            "has no port with the targetPort 9090; its ports are http (targetPort 8080), dns (targetPort 53)"
                .to_owned(),
        ),
        (
            &selecting,
            None,
            Value::Null,
            format!("remove the selector: kubectl patch service web -n {namespace} --type=json"),
        ),
        (&external, None, Value::Null, "is an ExternalName, which has no endpoints".to_owned()),
    ] {
        create_service(&lock, spec);
        let mut candidate = Candidate::new("a", &lock).args(["--service", "web", "--address", "10.1.2.3"]);
        if let Some(port_option) = port_option {
            candidate = candidate.args(["--port", port_option]);
        }
        let mut a = candidate.run_script("sleep inf");
        a.wait_for_log(&expected);
        assert_eq!(a.log().contains(routed), !ports.is_null(), "{}", a.log());
        let slice_with_endpoints = endpoint_slice(&lock)
            .filter(|slice| slice["endpoints"].as_array().is_some_and(|endpoints| !endpoints.is_empty()));
        assert_eq!(
            slice_with_endpoints.map(|slice| slice["ports"].clone()).unwrap_or_default(),
            ports,
            "{spec} {port_option:?}"
        );
        a.stop();
        wait_for_addresses(&lock, &[]);
        Cluster::shared().admin().delete(&format!("{}/web", services_path(&lock))).expect("the Service can be deleted");
    }
}

#[testkit::test]
fn a_leader_waits_for_a_service_that_does_not_exist_yet() {
    let lock = TestLock::lease();
    let mut a = Candidate::new("a", &lock).args(["--service", "web", "--address", "10.1.2.3"]).run_script("sleep inf");
    a.wait_for_log(&format!("there is no Service {}/web; create it without a selector", lock.namespace()));
    assert!(!a.log().contains("routes to this candidate"), "{}", a.log());
    assert_eq!(endpoint_slice(&lock), None);
    create_service(&lock, &two_ports());
    a.wait_for_log("the Service web routes to this candidate");
    wait_for_addresses(&lock, &["10.1.2.3"]);
    a.stop();
}

#[testkit::test]
fn a_candidate_without_permission_to_read_the_service_reports_only_the_slice() {
    let lock = lock_with_service();
    let rules = json!([
        testkit::rbac_rule("leases", &["job"], &testkit::CANDIDATE_VERBS),
        { "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "create", "update"] },
    ]);
    Cluster::shared().set_permissions(lock.namespace(), "candidate", rules);
    let lock = lock.through(Cluster::shared().kubeconfig_for("candidate"));
    let mut a = candidate_with_address("a", &lock, "10.1.2.3").run_script("sleep inf");
    a.wait_for_log("the EndpointSlice web-leader routes to this candidate");
    a.wait_for_log("cannot check whether the Service");
    assert!(
        a.log().contains("to get a Role that allows this check, run leaderrun manifest with --service web"),
        "{}",
        a.log()
    );
    assert!(!a.log().contains("the Service web routes to this candidate"), "{}", a.log());
    wait_for_addresses(&lock, &["10.1.2.3"]);
    a.stop();
}

/// When the selector of a Service is removed, the Service's endpoints are left behind.
#[testkit::test]
fn endpoints_other_than_those_of_the_leader_cause_a_warning() {
    let lock = lock_with_service();
    let (admin, namespace) = (Cluster::shared().admin(), lock.namespace());
    let subsets = json!([{ "addresses": [{ "ip": "10.1.9.9" }], "ports": [{ "name": "http", "port": 8080 }] }]);
    let endpoints = json!({ "metadata": { "name": "web" }, "subsets": subsets });
    admin
        .create(&format!("/api/v1/namespaces/{namespace}/endpoints"), &endpoints)
        .expect("the Endpoints can be created");
    let leftover = json!({
        "metadata": { "name": "web-x7k2p", "labels": { "kubernetes.io/service-name": "web" } },
        "addressType": "IPv4",
        "endpoints": [{ "addresses": ["10.1.9.9"] }],
    });
    let slices = format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices");
    admin.create(&slices, &leftover).expect("the slice can be created");
    let mut a = candidate_with_address("a", &lock, "10.1.2.3").run_script("sleep inf");
    a.wait_for_log(&format!(
        "delete them: kubectl delete endpoints web -n {namespace} && kubectl delete endpointslices web-x7k2p -n {namespace}"
    ));
    a.stop();
}
