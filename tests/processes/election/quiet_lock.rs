//! Tests of watches on a lock that has not changed for so long that its version is no longer in the API server's watch
//! cache.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::{Candidate, Client, Cluster, Match, Proxy, Running, TestLock, Witnesses, eventually};

/// A standby that does not claim the lock, although it is free, because its command is not due for an hour.
struct Fixture {
    admin: Client,
    proxy: Proxy,
    lease_path: String,
    standby: Running,
    _cluster: Cluster,
}

impl Fixture {
    fn new(bookmark_period: Duration) -> Self {
        let cluster = Cluster::start_in_process();
        cluster.api_server().set_bookmark_period(bookmark_period);
        cluster.api_server().set_watch_cache_size(1);
        let proxy = Proxy::start(&cluster);
        let namespace = cluster.new_namespace();
        let lock = TestLock { name: format!("{namespace}/job"), kubeconfig: Some(proxy.kubeconfig()) };
        let witnesses = Witnesses::new();
        let mut previous = Candidate::new("previous", &lock).args(["--min-hold", "1h"]).run_script("true");
        previous.wait_for_exit(0);
        let standby = Candidate::new("standby", &lock).run_witness(&witnesses, &[]);
        standby.wait_for_log("not due");
        let fixture = Self { admin: cluster.admin(), proxy, lease_path: lock.lease_path(), standby, _cluster: cluster };
        eventually("the standby watches", || !fixture.watched_versions().is_empty());
        fixture
    }

    /// Changes another lease several times, which pushes the lock's version out of the watch cache.
    fn change_another_lease(&self) {
        let another = self.lease_path.replace("/job", "/another");
        for holder in ["x", "y", "z"] {
            let _ = self.admin.delete(&another);
            let lease = json!({ "metadata": { "name": "another" }, "spec": { "holderIdentity": holder } });
            self.admin.replace(&another, &lease).expect("the other lease can be written");
        }
    }

    /// Returns the version of the lock's object.
    fn version(&self) -> String {
        let lease: Value = self.admin.get(&self.lease_path).expect("the lease can be read");
        lease["metadata"]["resourceVersion"].as_str().expect("an object has a version").to_owned()
    }

    /// Returns the versions from which the watches were started, in order.
    fn watched_versions(&self) -> Vec<String> {
        let watches = self.proxy.requests().into_iter().filter(|request| Match::watch().covers(request));
        let version = |path: String| {
            let (_, after) = path.split_once("resourceVersion=").expect("a watch has a resourceVersion parameter");
            after.split('&').next().unwrap_or_default().to_owned()
        };
        watches.map(|watch| version(watch.path)).collect()
    }

    /// Breaks the watch and waits for `count` new watches. Returns the versions from which they were started.
    fn versions_after_break(&self, count: usize) -> Vec<String> {
        let before = self.watched_versions().len();
        self.proxy.break_connections();
        eventually("new watches are opened", || self.watched_versions().len() >= before + count);
        self.watched_versions().split_off(before)
    }
}

#[testkit::test]
fn a_watch_is_resumed_from_a_bookmark() {
    let mut fixture = Fixture::new(Duration::from_millis(20));
    fixture.change_another_lease();
    let version = fixture.version();
    // The first watch may be broken before it gets a bookmark.
    eventually("the watch resumes from a version later than the lock's", || {
        fixture.versions_after_break(1)[0].parse::<u64>().unwrap_or_default()
            > version.parse().expect("the version is a number")
    });
    fixture.standby.stop();
}

#[testkit::test]
fn a_version_that_is_no_longer_in_the_watch_cache_is_requested_once() {
    let mut fixture = Fixture::new(Duration::from_secs(3600));
    fixture.change_another_lease();
    assert_eq!(fixture.versions_after_break(2), [fixture.version(), String::new()]);
    let failures = fixture.standby.log().matches("cannot watch").count();
    assert!(failures <= 1, "{}", fixture.standby.log());
    fixture.standby.stop();
}
