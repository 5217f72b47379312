//! The fault proxy does what it says.

use std::io::ErrorKind;
use std::thread;
use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::json;

use super::{A_WHILE, Place, held_by};
use testkit::{
    Client, Cluster, Match, Proxy, TIMEOUT, Watch,
    client::{JSON, Session},
    eventually,
};

/// A namespace, a proxy in front of the server, and the administrator's way through it.
struct Scene {
    place: Place,
    proxy: Proxy,
    client: Client,
}

impl Scene {
    fn new() -> Scene {
        let proxy = Proxy::start(Cluster::shared());
        let client = proxy.client_for("admin");
        Scene { place: Place::new(), proxy, client }
    }

    /// A watch through the proxy, which has shown that it works.
    fn watch(&self) -> Watch {
        let watch = self.client.watch(&self.place.leases()).expect("a watch");
        self.place.put("watched", "a");
        watch.next_change().expect("an event");
        watch
    }

    /// A connection through the proxy, which has shown that it works.
    fn session(&self) -> Session {
        let session = self.client.open().expect("a connection");
        assert_eq!(self.read_by(&session, TIMEOUT), Ok(200));
        session
    }

    fn read_by(&self, session: &Session, limit: Duration) -> Result<u16, ErrorKind> {
        let reply = session.send(Method::GET, &self.place.leases(), None, limit);
        reply.map(|reply| reply.status).map_err(|error| error.kind())
    }

    /// Reads by a new connection.
    fn read(&self, limit: Duration) -> Result<u16, ErrorKind> {
        let reply = self.client.send(Method::GET, &self.place.leases(), None, limit);
        reply.map(|reply| reply.status).map_err(|error| error.kind())
    }

    fn works(&self) -> bool {
        self.read(TIMEOUT) == Ok(200)
    }

    /// Sends a PUT that gets no answer, and judges meanwhile; then ends it by closing its connection.
    fn while_a_put_waits(&self, judge: impl FnOnce(&str)) {
        let path = self.place.lease("job");
        thread::scope(|scope| {
            let put = scope.spawn(|| {
                let lease = held_by("job", "a");
                self.client.send(Method::PUT, &path, Some((JSON, &lease)), TIMEOUT)
            });
            judge(&path);
            thread::sleep(A_WHILE);
            assert!(!put.is_finished(), "there is no answer, and no end");
            self.proxy.break_existing();
            put.join().expect("a request").expect_err("no reply");
        });
    }
}

#[testkit::test]
fn without_faults_everything_passes() {
    let scene = Scene::new();
    let watch = scene.watch();
    for holder in ["b", "c"] {
        scene.place.give("watched", holder);
        assert_eq!(watch.next_change().expect("an event")["object"]["spec"]["holderIdentity"], holder);
    }
    let made = scene.client.replace(&scene.place.lease("job"), &held_by("job", "a")).expect("a Lease");
    assert_eq!(scene.place.admin.get(&scene.place.lease("job")).expect("the Lease"), made);
    assert!(scene.client.get("/no/such/path").is_err_and(|status| status.code == 404));
}

#[testkit::test]
fn it_keeps_a_book_of_requests() {
    let scene = Scene::new();
    let before = Instant::now();
    let _watch = scene.watch();
    let session = scene.session();
    let seen = scene.proxy.wait_for_request(|seen| seen.received_at > before && !seen.is_watch(), TIMEOUT);
    assert_eq!((seen.method, seen.path, seen.user), (Method::GET, scene.place.leases(), Some("admin")));
    assert_eq!(scene.read_by(&session, TIMEOUT), Ok(200));
    let requests = scene.proxy.requests();
    let connections: Vec<usize> = requests.iter().map(|seen| seen.connection).collect();
    assert_eq!(connections, [0, 1, 1]);
    assert!(requests[0].is_watch());
    assert_eq!(scene.proxy.connections().len(), 2);
}

#[testkit::test]
fn in_a_partition_everything_is_silent_and_nothing_is_closed() {
    let scene = Scene::new();
    let (watch, session) = (scene.watch(), scene.session());
    scene.proxy.partition();
    scene.place.give("watched", "b");
    assert!(watch.is_silent_for(A_WHILE), "a partition silences a watch that is under way");
    assert_eq!(scene.read_by(&session, A_WHILE), Err(ErrorKind::TimedOut));
    assert_eq!(scene.read(A_WHILE), Err(ErrorKind::TimedOut));

    scene.proxy.heal();
    assert!(scene.works());
    assert!(watch.is_silent_for(A_WHILE), "what went silent stays silent, and open");
}

#[testkit::test]
fn requests_alone_can_vanish() {
    let scene = Scene::new();
    let (watch, session) = (scene.watch(), scene.session());
    scene.proxy.partition_requests();
    let requests = scene.proxy.requests().len();
    assert_eq!(scene.read_by(&session, A_WHILE), Err(ErrorKind::TimedOut));
    assert_eq!(scene.proxy.requests().len(), requests, "the request vanished on the way");
    assert_eq!(scene.read(A_WHILE), Err(ErrorKind::TimedOut));
    scene.place.give("watched", "b");
    assert_eq!(watch.next_change().expect("an event")["type"], "MODIFIED");
}

#[testkit::test]
fn replies_alone_can_vanish() {
    let scene = Scene::new();
    let (watch, session) = (scene.watch(), scene.session());
    scene.proxy.partition_replies();
    let start = Instant::now();
    thread::scope(|scope| {
        let read = scope.spawn(|| scene.read_by(&session, TIMEOUT));
        scene.proxy.wait_for_request(|seen| seen.received_at > start, TIMEOUT);
        scene.place.give("watched", "b");
        assert!(watch.is_silent_for(A_WHILE));
        assert!(!read.is_finished());
        scene.proxy.break_existing();
        read.join().expect("a request").expect_err("no reply");
    });
    assert_eq!(scene.read(A_WHILE), Err(ErrorKind::TimedOut));
}

#[testkit::test]
fn present_connections_can_go_silent_while_new_ones_work() {
    let scene = Scene::new();
    let (watch, session) = (scene.watch(), scene.session());
    scene.proxy.silence_existing();
    assert_eq!(scene.read_by(&session, A_WHILE), Err(ErrorKind::TimedOut));
    assert!(scene.works());
    scene.place.give("watched", "b");
    assert!(watch.is_silent_for(A_WHILE));
}

#[testkit::test]
fn a_silent_connection_does_not_show_that_the_server_restarts() {
    let cluster = Cluster::start();
    let place = Place::on(&cluster);
    let (silent, open) = (Proxy::start(&cluster), Proxy::start(&cluster));
    let watches = [&silent, &open].map(|proxy| proxy.client_for("admin").watch(&place.leases()).expect("a watch"));
    silent.partition();
    cluster.restart();
    watches[1].wait_until_over();
    assert!(watches[0].is_silent_for(A_WHILE));
    silent.heal();
    assert!(silent.client_for("admin").get(&place.leases()).is_ok());
}

#[testkit::test]
fn connections_can_be_broken_and_refused() {
    let scene = Scene::new();
    let (watch, address) = (scene.watch(), scene.proxy.address());
    scene.proxy.break_existing();
    watch.wait_until_over();
    assert!(scene.works());

    let watch = scene.client.watch(&scene.place.leases()).expect("a watch");
    scene.proxy.refuse();
    watch.wait_until_over();
    assert_eq!(scene.read(TIMEOUT), Err(ErrorKind::ConnectionRefused));
    scene.proxy.heal();
    assert_eq!(scene.proxy.address(), address);
    assert!(scene.works());
}

#[testkit::test]
fn silent_connections_can_be_closed() {
    let scene = Scene::new();
    let watch = scene.watch();
    scene.proxy.partition();
    assert!(watch.is_silent_for(A_WHILE));
    scene.proxy.refuse();
    watch.wait_until_over();
}

#[testkit::test]
fn requests_and_replies_can_be_slow() {
    const DELAY: Duration = Duration::from_millis(200);
    for slow in [Proxy::delay, Proxy::delay_replies] {
        let scene = Scene::new();
        slow(&scene.proxy, DELAY);
        let start = Instant::now();
        assert!(scene.works());
        assert!(start.elapsed() >= DELAY);
    }
}

#[testkit::test]
fn a_reply_can_be_lost() {
    let scene = Scene::new();
    scene.proxy.lose_replies(Match::put().next(1));
    scene.while_a_put_waits(|path| {
        eventually("the server has done it", || scene.place.admin.get(path).is_ok());
        assert!(scene.works(), "reads are not meant");
    });
    let again = scene.client.replace(&scene.place.lease("job"), &held_by("job", "a"));
    assert_eq!(again.expect_err("a PUT without a version").code, 422, "the next PUT gets its reply");
}

#[testkit::test]
fn the_proxy_can_answer_in_place_of_the_server() {
    let scene = Scene::new();
    let path = scene.place.lease("job");
    scene.proxy.answer(Match::put().on("/job").next(1), 429, Some(7));
    let lease = held_by("job", "a");
    let reply = scene.client.send(Method::PUT, &path, Some((JSON, &lease)), TIMEOUT).expect("a reply");
    assert_eq!((reply.status, &reply.headers["retry-after"]), (429, &hyper::header::HeaderValue::from(7)));
    assert_eq!(reply.json()["details"]["retryAfterSeconds"], 7);
    assert_eq!(scene.place.admin.get(&path).unwrap_err().code, 404, "the server never heard of it");

    scene.proxy.answer(Match::any(), 503, None);
    for _ in 0..3 {
        assert_eq!(scene.client.get(&path).unwrap_err().reason, "ServiceUnavailable");
    }
    scene.proxy.heal();
    assert!(scene.works());
}

#[testkit::test]
fn a_request_can_be_held() {
    let scene = Scene::new();
    let path = scene.place.lease("job");
    let held = scene.proxy.hold_requests(Match::put().of("admin"));
    thread::scope(|scope| {
        let put = scope.spawn(|| scene.client.replace(&path, &held_by("job", "a")));
        held.wait_until_held();
        assert_eq!(scene.place.admin.get(&path).unwrap_err().code, 404);
        held.release();
        put.join().expect("a request").expect("a new Lease");
    });
    assert_eq!(scene.place.admin.get(&path).expect("the Lease")["spec"], held_by("job", "a")["spec"]);
}

#[testkit::test]
fn a_held_request_vanishes_in_a_partition() {
    let scene = Scene::new();
    let held = scene.proxy.hold_requests(Match::put());
    scene.while_a_put_waits(|_| {
        held.wait_until_held();
        scene.proxy.partition();
        held.release();
    });
    assert_eq!(scene.place.admin.get(&scene.place.lease("job")).unwrap_err().code, 404);
}

#[testkit::test]
fn a_reply_can_be_held() {
    let scene = Scene::new();
    let path = scene.place.lease("job");
    let held = scene.proxy.hold_replies(Match::method(Method::PUT));
    thread::scope(|scope| {
        let put = scope.spawn(|| scene.client.replace(&path, &held_by("job", "a")));
        held.wait_until_held();
        assert!(scene.place.admin.get(&path).is_ok(), "the server has done it");
        assert!(!put.is_finished());
        scene.proxy.heal();
        put.join().expect("a request").expect("a new Lease");
    });
}

#[testkit::test]
fn faults_choose_their_requests() {
    let scene = Scene::new();
    scene.proxy.answer(Match::get(), 500, None);
    let watch = scene.client.watch(&scene.place.leases()).expect("a watch is no plain read");
    assert_eq!(scene.client.get(&scene.place.leases()).unwrap_err().code, 500);
    scene.proxy.heal();
    scene.proxy.answer(Match::watch(), 500, None);
    assert!(scene.works());
    assert_eq!(scene.client.watch(&scene.place.leases()).err().expect("a refusal").code, 500);
    scene.proxy.answer(Match::any().of("stranger"), 429, None);
    assert_eq!(scene.proxy.client_for("stranger").get("/version").unwrap_err().code, 429);
    assert!(scene.works());
    scene.place.put("job", "a");
    assert_eq!(watch.next_change().expect("an event")["object"]["metadata"]["name"], json!("job"));
}
