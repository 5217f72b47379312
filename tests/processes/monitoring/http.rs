//! Tests of `--http`: health, readiness, and who leads.

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use testkit::exit_status::LOST;
use testkit::http::{address, get, leader_report, request, samples, status, wait_for_leader_report, wait_for_status};
use testkit::{Candidate, Cluster, Proxy, Running, TIMEOUT, TestLock, Witnesses, children, eventually};

/// The option that serves HTTP on any free port.
const HTTP: [&str; 2] = ["--http", "127.0.0.1:0"];

#[testkit::test]
fn leader_and_standby_report_who_leads() {
    for lock in [TestLock::lease(), TestLock::file()] {
        let witnesses = Witnesses::new();
        let mut a = Candidate::new("a", &lock).args(HTTP).run_witness(&witnesses, &[]);
        witnesses.wait_for("a", 1);
        let mut b = Candidate::new("b", &lock).args(HTTP).run_witness(&witnesses, &[]);
        b.wait_for_log("held by a");
        let report_of_a = wait_for_leader_report(&a, "a leads", |leader| leader["leading"] == true);
        let report_of_b = wait_for_leader_report(&b, "b sees that a leads", |leader| leader["leader"] == "a");
        for (report, identity, leading) in [(&report_of_a, "a", true), (&report_of_b, "b", false)] {
            assert_eq!(report["lock"], lock.name.as_str());
            assert_eq!(report["identity"], identity);
            assert_eq!(report["leading"], leading);
            assert_eq!(report["leader"], "a");
            assert_eq!(report["since"], report_of_a["since"]);
            assert_eq!(report["transitions"], 0);
        }
        assert!(report_of_a["since"].is_string(), "{report_of_a}");
        let remaining_seconds =
            |leader: &serde_json::Value| leader["remainingSeconds"].as_f64().expect("the remaining time is a number");
        assert!(
            (0.0..=4.0).contains(&remaining_seconds(&report_of_a)),
            "the leader should report the time until the stop signal: {report_of_a}"
        );
        assert!(
            (0.0..=6.0).contains(&remaining_seconds(&report_of_b)),
            "the standby should report the time until the takeover: {report_of_b}"
        );
        for healthy in [&a, &b] {
            assert_eq!(status(healthy, "/healthz"), 200);
        }
        assert_eq!(samples(&a).value("leader_election_master_status"), 1.0);
        assert_eq!(samples(&b).value("leader_election_master_status"), 0.0);
        a.stop();
        witnesses.wait_for("b", 1);
        let report_of_b = wait_for_leader_report(&b, "b leads", |leader| leader["leading"] == true);
        assert_eq!((&report_of_b["leader"], &report_of_b["transitions"]), (&"b".into(), &1.into()));
        b.stop();
    }
}

#[testkit::test]
fn the_ready_when_option_determines_whether_a_standby_is_ready() {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let candidate = |name: &str, ready_when| {
        Candidate::new(name, &lock).args(HTTP).args(["--ready-when", ready_when]).run_witness(&witnesses, &[])
    };
    let mut a = candidate("a", "leading");
    witnesses.wait_for("a", 1);
    wait_for_status(&a, "/readyz", 200);
    let (unready_standby, ready_standby) = (candidate("unready", "leading"), candidate("ready", "waiting"));
    unready_standby.wait_for_log("held by a");
    ready_standby.wait_for_log("held by a");
    wait_for_status(&ready_standby, "/readyz", 200);
    let not_ready = get(&unready_standby, "/readyz");
    assert_eq!((not_ready.status, not_ready.body.as_str()), (503, "not leading\n"));
    assert_eq!(status(&unready_standby, "/healthz"), 200, "a standby should be healthy");
    drop(ready_standby);
    a.stop();
    wait_for_status(&unready_standby, "/readyz", 200);
}

#[testkit::test]
fn a_candidate_that_cannot_read_the_lock_is_healthy_and_not_ready() {
    let lock = TestLock::lease_through(Cluster::shared().kubeconfig_for("stranger"));
    let a = Candidate::new("a", &lock).args(HTTP).run_script("true");
    a.wait_for_log("not allowed to get");
    assert_eq!(status(&a, "/healthz"), 200);
    let not_ready = get(&a, "/readyz");
    assert_eq!((not_ready.status, not_ready.body), (503, format!("{} has not been read yet\n", lock.name)));
    assert_eq!(leader_report(&a)["leader"], serde_json::Value::Null);
}

#[testkit::test]
fn a_leader_is_not_ready_after_its_renew_deadline() {
    let (proxy, witnesses) = (Proxy::start(Cluster::shared()), Witnesses::new());
    let lock = TestLock::lease_through(proxy.kubeconfig());
    // With these durations, there are four seconds between the stop signal and the kill.
    let timing = ["--lease-duration", "12s", "--renew-deadline", "4s", "--retry-period", "500ms"];
    let mut a = Candidate::with_timing("a", &lock, timing).args(HTTP).run_witness(&witnesses, &["ignore"]);
    witnesses.wait_for("a", 1);
    wait_for_status(&a, "/readyz", 200);
    proxy.partition();
    wait_for_status(&a, "/readyz", 503);
    assert_eq!(status(&a, "/healthz"), 200, "a leader should be healthy during the grace period");
    assert_eq!(
        samples(&a).value("leader_election_master_status"),
        1.0,
        "a leader should count as leading while its command is alive"
    );
    a.wait_for_exit(LOST);
}

#[testkit::test]
fn a_port_that_is_taken_is_retried_until_it_is_free() {
    for (taken_address, suggestion) in [("127.0.0.1:0", "127.0.0.1:0"), ("[::1]:0", "[::1]:0"), ("127.0.0.1:0", ":0")] {
        // On a machine without IPv6, the case for [::1] is skipped.
        let Ok(taken) = TcpListener::bind(taken_address) else { continue };
        let bound = taken.local_addr().expect("a bound socket has an address");
        let address = if suggestion == ":0" { format!(":{}", bound.port()) } else { bound.to_string() };
        let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
        let mut a = Candidate::new("a", &lock).args(["--http", &address]).run_witness(&witnesses, &[]);
        a.wait_for_log(&format!(
            "warning: --http {address}: cannot listen: Address already in use; try --http {suggestion} for any free \
             port; retrying every second\n"
        ));
        witnesses.wait_for("a", 1);
        drop(taken);
        wait_for_status(&a, "/readyz", 200);
        assert_eq!(a.log().matches("cannot listen").count(), 1, "{}", a.log());
        a.stop();
    }
}

#[testkit::test]
fn only_the_elector_has_the_listening_socket() {
    let (lock, witnesses) = (TestLock::file(), Witnesses::new());
    let a = Candidate::new("a", &lock).args(HTTP).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let listening = listening_socket(address(&a).port());
    let has_socket = |process: Pid| {
        let descriptors = fs::read_dir(format!("/proc/{process}/fd")).expect("the descriptors can be listed").flatten();
        descriptors.filter_map(|fd| fs::read_link(fd.path()).ok()).any(|to| to.to_string_lossy() == listening)
    };
    assert!(has_socket(a.elector()));
    assert!(!has_socket(a.supervisor()), "a socket in the supervisor would outlive the elector");
    let command = children(a.supervisor())[0];
    assert!(!has_socket(command));
}

/// Returns the target of the link in /proc/PID/fd to the socket that listens on this port.
fn listening_socket(port: u16) -> String {
    let table = fs::read_to_string("/proc/net/tcp").expect("the TCP sockets can be listed");
    // A listening socket has no peer, and its state is 0A.
    let local = format!(":{port:04X} 00000000:0000 0A");
    let line = table.lines().find(|line| line.contains(&local)).expect("a socket listens on the port");
    format!("socket:[{}]", line.split_whitespace().nth(9).expect("the line contains an inode"))
}

#[testkit::test]
fn hundreds_of_silent_clients_do_not_delay_renewals() {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let mut a = Candidate::new("a", &lock).args(HTTP).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let address = address(&a);
    let renewals = |a: &Running| samples(a).value("leaderrun_renewals_total{result=\"success\"}");
    let before = renewals(&a);
    let descriptors =
        || fs::read_dir(format!("/proc/{}/fd", a.elector())).expect("the descriptors can be listed").count();
    let mut silent: Vec<TcpStream> = Vec::new();
    while silent.len() < 500 {
        let mut stream = TcpStream::connect(address).expect("leaderrun accepts connections");
        match silent.len() % 3 {
            0 => {}
            1 => stream.write_all(b"GET /metrics HTTP/1.1\r\nX-Slow: ").expect("the write succeeds"),
            _ => stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: never reads\r\n\r\n").expect("the write succeeds"),
        }
        silent.push(stream);
    }
    assert_eq!(status(&a, "/healthz"), 200, "other clients should get responses");
    assert!(descriptors() < 150, "leaderrun should limit its connections: {} descriptors", descriptors());
    eventually("the leader renews", || renewals(&a) >= before + 3.0);
    drop(silent);
    assert_eq!(samples(&a).value("leaderrun_renewals_total{result=\"timeout\"}"), 0.0);
    assert_eq!(witnesses.lifetimes_of("a")[0].signaled_at, 0, "the command got a stop signal: {}", a.log());
    a.signal(Signal::SIGTERM);
    a.wait_for_exit(0);
}

#[testkit::test]
fn invalid_requests_are_refused_and_unusual_ones_are_accepted() {
    let a = Candidate::new("a", &TestLock::file()).args(HTTP).run_script("sleep 1000");
    let address = address(&a);
    for (head, expected) in [
        ("GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        ("POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 405),
        ("nonsense\r\n\r\n", 400),
        ("GET /healthz?verbose HTTP/1.0\r\n\r\n", 200),
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 200),
    ] {
        let response = request(address, head, TIMEOUT).expect("leaderrun responds");
        assert_eq!(response.status, expected, "{response:?} to {}", &head[..head.len().min(40)]);
    }
    // The server does not read the whole request, so the connection may be reset before the client reads the response.
    let too_long = format!("GET /metrics HTTP/1.1\r\nX-Long: {}\r\n\r\n", "x".repeat(100_000));
    assert!(request(address, &too_long, TIMEOUT).map_or(true, |response| response.status == 431));
    let head = request(address, "HEAD /leader HTTP/1.1\r\nHost: x\r\n\r\n", TIMEOUT).expect("leaderrun responds");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}
