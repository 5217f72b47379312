//! The watch of a lock that does not change for long: the API server forgets the version at which it was last seen.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::{Candidate, Client, Cluster, Match, Proxy, Running, TestLock, Witnesses, eventually};

/// A standby of a lock that is free and not due for an hour.
struct Scene {
    admin: Client,
    proxy: Proxy,
    lease: String,
    standby: Running,
    _cluster: Cluster,
}

impl Scene {
    fn new(bookmark_period: Duration) -> Self {
        let cluster = Cluster::start_in_process();
        cluster.api_server().set_bookmark_period(bookmark_period);
        cluster.api_server().set_watch_cache(1);
        let proxy = Proxy::start(&cluster);
        let namespace = cluster.new_namespace();
        let lock = TestLock { name: format!("{namespace}/job"), kubeconfig: Some(proxy.kubeconfig()) };
        let witnesses = Witnesses::new();
        let mut last = Candidate::new("last", &lock).args(["--min-hold", "1h"]).run_script("true");
        last.wait_for_exit(0);
        let standby = Candidate::new("standby", &lock).run_witness(&witnesses, &[]);
        standby.wait_for_log("not due");
        let scene = Self { admin: cluster.admin(), proxy, lease: lock.lease_path(), standby, _cluster: cluster };
        eventually("the standby watches", || !scene.watches().is_empty());
        scene
    }

    /// Moves the watch cache on: another lease changes.
    fn change_another_lease(&self) {
        let another = self.lease.replace("/job", "/another");
        for holder in ["x", "y", "z"] {
            let _ = self.admin.delete(&another);
            let lease = json!({ "metadata": { "name": "another" }, "spec": { "holderIdentity": holder } });
            self.admin.replace(&another, &lease).expect("another lease");
        }
    }

    fn version(&self) -> String {
        let lease: Value = self.admin.get(&self.lease).expect("the lease");
        lease["metadata"]["resourceVersion"].as_str().expect("a version").to_owned()
    }

    /// The resourceVersions of the watches that were begun.
    fn watches(&self) -> Vec<String> {
        let watches = self.proxy.requests().into_iter().filter(|request| Match::watch().covers(request));
        let version = |path: String| {
            let (_, after) = path.split_once("resourceVersion=").expect("a version, or an empty one");
            after.split('&').next().unwrap_or_default().to_owned()
        };
        watches.map(|watch| version(watch.path)).collect()
    }

    /// Breaks the watch, and returns the versions of the watches after it once there are so many.
    fn watches_after_break(&self, count: usize) -> Vec<String> {
        let before = self.watches().len();
        self.proxy.break_existing();
        eventually("the watch is opened again", || self.watches().len() >= before + count);
        self.watches().split_off(before)
    }
}

#[testkit::test]
fn a_watch_is_resumed_from_a_bookmark() {
    let mut scene = Scene::new(Duration::from_millis(20));
    scene.change_another_lease();
    let version = scene.version();
    // A bookmark may come too late for the first break.
    eventually("it is resumed from a version later than the lock's own", || {
        scene.watches_after_break(1)[0].parse::<u64>().unwrap_or_default() > version.parse().expect("a number")
    });
    scene.standby.stop();
}

#[testkit::test]
fn a_version_that_has_left_the_watch_cache_is_asked_for_once() {
    let mut scene = Scene::new(Duration::from_secs(3600));
    scene.change_another_lease();
    assert_eq!(scene.watches_after_break(2), [scene.version(), String::new()]);
    let polls = scene.standby.log().matches("cannot watch").count();
    assert!(polls <= 1, "{}", scene.standby.log());
    scene.standby.stop();
}
