//! Tests of the fault proxy.

use std::io::ErrorKind;
use std::thread;
use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::json;

use super::{Namespace, QUIET_TIME, held_by};
use testkit::{
    Client, Cluster, Match, Proxy, TIMEOUT, Watch,
    client::{JSON, Session},
    eventually,
    proxy::ReceivedRequest,
};

/// A namespace, a proxy in front of the server, and an administrator's client that uses the proxy.
struct Fixture {
    namespace: Namespace,
    proxy: Proxy,
    client: Client,
}

impl Fixture {
    fn new() -> Fixture {
        let proxy = Proxy::start(Cluster::shared());
        let client = proxy.client_for("admin");
        Fixture { namespace: Namespace::new(), proxy, client }
    }

    /// Returns a watch of the Leases through the proxy, after it has delivered the creation of the Lease `watched`.
    fn watch(&self) -> Watch {
        let watch = self.client.watch(&self.namespace.leases()).expect("the watch is accepted");
        self.namespace.put("watched", "a");
        watch.next_change().expect("an event arrives");
        watch
    }

    /// Returns a connection through the proxy, after it has served a request.
    fn session(&self) -> Session {
        let session = self.client.open_session().expect("the session can be opened");
        assert_eq!(self.read_on(&session, TIMEOUT), Ok(200));
        session
    }

    /// Lists the Leases on an existing connection, and returns the status.
    fn read_on(&self, session: &Session, timeout: Duration) -> Result<u16, ErrorKind> {
        let response = session.send(Method::GET, &self.namespace.leases(), None, timeout);
        response.map(|response| response.status).map_err(|error| error.kind())
    }

    /// Lists the Leases on a new connection, and returns the status.
    fn read(&self, timeout: Duration) -> Result<u16, ErrorKind> {
        let response = self.client.send(Method::GET, &self.namespace.leases(), None, timeout);
        response.map(|response| response.status).map_err(|error| error.kind())
    }

    /// Returns whether a read on a new connection succeeds.
    fn works(&self) -> bool {
        self.read(TIMEOUT) == Ok(200)
    }

    /// Sends a PUT that gets no response, calls `check` with its path while the PUT waits, and then breaks the
    /// connection.
    fn while_a_put_waits(&self, check: impl FnOnce(&str)) {
        let path = self.namespace.lease("job");
        thread::scope(|scope| {
            let put = scope.spawn(|| {
                let lease = held_by("job", "a");
                self.client.send(Method::PUT, &path, Some((JSON, &lease)), TIMEOUT)
            });
            check(&path);
            thread::sleep(QUIET_TIME);
            assert!(!put.is_finished(), "the PUT should get no response, and its connection should stay open");
            self.proxy.break_connections();
            put.join().expect("the client does not panic").expect_err("the request should get no response");
        });
    }
}

#[testkit::test]
fn without_faults_everything_is_forwarded() {
    let fixture = Fixture::new();
    let watch = fixture.watch();
    for holder in ["b", "c"] {
        fixture.namespace.set_holder("watched", holder);
        assert_eq!(watch.next_change().expect("an event arrives")["object"]["spec"]["holderIdentity"], holder);
    }
    let created = fixture
        .client
        .replace(&fixture.namespace.lease("job"), &held_by("job", "a"))
        .expect("the Lease can be created");
    assert_eq!(fixture.namespace.admin.get(&fixture.namespace.lease("job")).expect("the Lease exists"), created);
    assert!(fixture.client.get("/no/such/path").is_err_and(|status| status.code == 404));
}

#[testkit::test]
fn requests_are_recorded() {
    let fixture = Fixture::new();
    let before = Instant::now();
    let _watch = fixture.watch();
    let session = fixture.session();
    let is_read = |request: &ReceivedRequest| request.received_at > before && !request.is_watch();
    let request = fixture.proxy.wait_for_request(is_read, TIMEOUT);
    assert_eq!((request.method, request.path, request.user), (Method::GET, fixture.namespace.leases(), Some("admin")));
    assert_eq!(fixture.read_on(&session, TIMEOUT), Ok(200));
    let requests = fixture.proxy.requests();
    let connections: Vec<usize> = requests.iter().map(|request| request.connection).collect();
    assert_eq!(connections, [0, 1, 1]);
    assert!(requests[0].is_watch());
    assert_eq!(fixture.proxy.connection_times().len(), 2);
}

#[testkit::test]
fn a_partition_drops_all_traffic_but_leaves_connections_open() {
    let fixture = Fixture::new();
    let (watch, session) = (fixture.watch(), fixture.session());
    fixture.proxy.partition();
    fixture.namespace.set_holder("watched", "b");
    assert!(watch.is_silent_for(QUIET_TIME), "a partition should silence a running watch");
    assert_eq!(fixture.read_on(&session, QUIET_TIME), Err(ErrorKind::TimedOut));
    assert_eq!(fixture.read(QUIET_TIME), Err(ErrorKind::TimedOut));

    fixture.proxy.heal();
    assert!(fixture.works());
    assert!(watch.is_silent_for(QUIET_TIME), "a connection that was silenced should stay silent and open");
}

#[testkit::test]
fn requests_can_be_lost_while_responses_arrive() {
    let fixture = Fixture::new();
    let (watch, session) = (fixture.watch(), fixture.session());
    fixture.proxy.partition_requests();
    let requests = fixture.proxy.requests().len();
    assert_eq!(fixture.read_on(&session, QUIET_TIME), Err(ErrorKind::TimedOut));
    assert_eq!(fixture.proxy.requests().len(), requests, "a lost request should not be recorded as received");
    assert_eq!(fixture.read(QUIET_TIME), Err(ErrorKind::TimedOut));
    fixture.namespace.set_holder("watched", "b");
    assert_eq!(watch.next_change().expect("an event arrives")["type"], "MODIFIED");
}

#[testkit::test]
fn responses_can_be_lost_while_requests_arrive() {
    let fixture = Fixture::new();
    let (watch, session) = (fixture.watch(), fixture.session());
    fixture.proxy.partition_responses();
    let start = Instant::now();
    thread::scope(|scope| {
        let read = scope.spawn(|| fixture.read_on(&session, TIMEOUT));
        fixture.proxy.wait_for_request(|request| request.received_at > start, TIMEOUT);
        fixture.namespace.set_holder("watched", "b");
        assert!(watch.is_silent_for(QUIET_TIME));
        assert!(!read.is_finished());
        fixture.proxy.break_connections();
        read.join().expect("the client does not panic").expect_err("the request should get no response");
    });
    assert_eq!(fixture.read(QUIET_TIME), Err(ErrorKind::TimedOut));
}

#[testkit::test]
fn existing_connections_can_be_silenced_while_new_ones_work() {
    let fixture = Fixture::new();
    let (watch, session) = (fixture.watch(), fixture.session());
    fixture.proxy.silence_connections();
    assert_eq!(fixture.read_on(&session, QUIET_TIME), Err(ErrorKind::TimedOut));
    assert!(fixture.works());
    fixture.namespace.set_holder("watched", "b");
    assert!(watch.is_silent_for(QUIET_TIME));
}

#[testkit::test]
fn a_silent_connection_hides_a_restart_of_the_server() {
    let cluster = Cluster::start();
    let namespace = Namespace::on(&cluster);
    let (silent, working) = (Proxy::start(&cluster), Proxy::start(&cluster));
    let watch = |proxy: &Proxy| proxy.client_for("admin").watch(&namespace.leases()).expect("the watch is accepted");
    let (silent_watch, working_watch) = (watch(&silent), watch(&working));
    silent.partition();
    cluster.restart();
    working_watch.wait_until_over();
    assert!(silent_watch.is_silent_for(QUIET_TIME));
    silent.heal();
    assert!(silent.client_for("admin").get(&namespace.leases()).is_ok());
}

#[testkit::test]
fn connections_can_be_broken_and_refused() {
    let fixture = Fixture::new();
    let (watch, address) = (fixture.watch(), fixture.proxy.address());
    fixture.proxy.break_connections();
    watch.wait_until_over();
    assert!(fixture.works());

    let watch = fixture.client.watch(&fixture.namespace.leases()).expect("the watch is accepted");
    fixture.proxy.refuse_connections();
    watch.wait_until_over();
    assert_eq!(fixture.read(TIMEOUT), Err(ErrorKind::ConnectionRefused));
    fixture.proxy.heal();
    assert_eq!(fixture.proxy.address(), address);
    assert!(fixture.works());
}

#[testkit::test]
fn silent_connections_can_be_closed() {
    let fixture = Fixture::new();
    let watch = fixture.watch();
    fixture.proxy.partition();
    assert!(watch.is_silent_for(QUIET_TIME));
    fixture.proxy.refuse_connections();
    watch.wait_until_over();
}

#[testkit::test]
fn requests_and_responses_can_be_delayed() {
    const DELAY: Duration = Duration::from_millis(200);
    for add_delay in [Proxy::delay_requests, Proxy::delay_responses] {
        let fixture = Fixture::new();
        add_delay(&fixture.proxy, DELAY);
        let start = Instant::now();
        assert!(fixture.works());
        assert!(start.elapsed() >= DELAY);
    }
}

#[testkit::test]
fn a_response_can_be_lost() {
    let fixture = Fixture::new();
    fixture.proxy.drop_responses(Match::put().next(1));
    fixture.while_a_put_waits(|path| {
        eventually("the server has carried out the PUT", || fixture.namespace.admin.get(path).is_ok());
        assert!(fixture.works(), "the fault should not apply to a read");
    });
    let second_response = fixture.client.replace(&fixture.namespace.lease("job"), &held_by("job", "a"));
    assert_eq!(
        second_response.expect_err("the PUT should be refused").code,
        422,
        "the next PUT should get its response"
    );
}

#[testkit::test]
fn the_proxy_can_respond_in_place_of_the_server() {
    let fixture = Fixture::new();
    let path = fixture.namespace.lease("job");
    fixture.proxy.respond(Match::put().on("/job").next(1), 429, Some(7));
    let lease = held_by("job", "a");
    let response = fixture.client.send(Method::PUT, &path, Some((JSON, &lease)), TIMEOUT).expect("the proxy responds");
    assert_eq!((response.status, &response.headers["retry-after"]), (429, &hyper::header::HeaderValue::from(7)));
    assert_eq!(response.json()["details"]["retryAfterSeconds"], 7);
    assert_eq!(fixture.namespace.admin.get(&path).unwrap_err().code, 404, "the server should not get the request");

    fixture.proxy.respond(Match::any(), 503, None);
    for _ in 0..3 {
        assert_eq!(fixture.client.get(&path).unwrap_err().reason, "ServiceUnavailable");
    }
    fixture.proxy.heal();
    assert!(fixture.works());
}

#[testkit::test]
fn a_request_can_be_held() {
    let fixture = Fixture::new();
    let path = fixture.namespace.lease("job");
    let held = fixture.proxy.hold_requests(Match::put().by_user("admin"));
    thread::scope(|scope| {
        let put = scope.spawn(|| fixture.client.replace(&path, &held_by("job", "a")));
        held.wait_until_held();
        assert_eq!(fixture.namespace.admin.get(&path).unwrap_err().code, 404);
        held.release();
        put.join().expect("the client does not panic").expect("the Lease can be created");
    });
    assert_eq!(fixture.namespace.admin.get(&path).expect("the Lease exists")["spec"], held_by("job", "a")["spec"]);
}

#[testkit::test]
fn a_held_request_is_lost_in_a_partition() {
    let fixture = Fixture::new();
    let held = fixture.proxy.hold_requests(Match::put());
    fixture.while_a_put_waits(|_| {
        held.wait_until_held();
        fixture.proxy.partition();
        held.release();
    });
    assert_eq!(fixture.namespace.admin.get(&fixture.namespace.lease("job")).unwrap_err().code, 404);
}

#[testkit::test]
fn a_response_can_be_held() {
    let fixture = Fixture::new();
    let path = fixture.namespace.lease("job");
    let held = fixture.proxy.hold_responses(Match::method(Method::PUT));
    thread::scope(|scope| {
        let put = scope.spawn(|| fixture.client.replace(&path, &held_by("job", "a")));
        held.wait_until_held();
        assert!(fixture.namespace.admin.get(&path).is_ok(), "the server should have carried out the request");
        assert!(!put.is_finished());
        fixture.proxy.heal();
        put.join().expect("the client does not panic").expect("the Lease can be created");
    });
}

#[testkit::test]
fn faults_only_apply_to_matching_requests() {
    let fixture = Fixture::new();
    fixture.proxy.respond(Match::get(), 500, None);
    let watch = fixture.client.watch(&fixture.namespace.leases()).expect("`Match::get` matches no watch");
    assert_eq!(fixture.client.get(&fixture.namespace.leases()).unwrap_err().code, 500);
    fixture.proxy.heal();
    fixture.proxy.respond(Match::watch(), 500, None);
    assert!(fixture.works());
    assert_eq!(fixture.client.watch(&fixture.namespace.leases()).err().expect("the watch is refused").code, 500);
    fixture.proxy.respond(Match::any().by_user("operator"), 429, None);
    assert_eq!(fixture.proxy.client_for("operator").get("/version").unwrap_err().code, 429);
    assert!(fixture.works());
    fixture.namespace.put("job", "a");
    assert_eq!(watch.next_change().expect("an event arrives")["object"]["metadata"]["name"], json!("job"));
}
