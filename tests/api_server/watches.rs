//! Tests of how watches start, which events they deliver, and how they end.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Namespace, QUIET_TIME, version};
use testkit::{Cluster, Watch};

/// Returns the type and the holder of an event.
fn type_and_holder(event: &Value) -> (&str, &str) {
    let holder = &event["object"]["spec"]["holderIdentity"];
    (event["type"].as_str().unwrap_or_default(), holder.as_str().unwrap_or_default())
}

/// Returns the next event of a watch that is not a bookmark.
fn next(watch: &Watch) -> Value {
    watch.next_change().expect("the watch is still open")
}

#[testkit::test]
fn a_watch_without_a_version_starts_with_the_current_state() {
    let namespace = Namespace::new();
    namespace.put("job", "a");
    for query in ["", "resourceVersion=", "resourceVersion=0"] {
        let watch =
            namespace.admin.watch(&format!("{}?{query}", namespace.leases())).expect("the watch can be started");
        assert_eq!(type_and_holder(&next(&watch)).0, "ADDED", "{query}");
    }
}

#[testkit::test]
fn a_watch_delivers_all_changes_in_order() {
    let namespace = Namespace::new();
    let watch = namespace.admin.watch(&namespace.leases()).expect("the watch can be started");
    let created = namespace.put("job", "a");
    let changed = namespace.set_holder("job", "b");
    namespace.admin.delete(&namespace.lease("job")).expect("the Lease can be deleted");
    let created_again = namespace.put("job", "c");

    let (added, modified) = (next(&watch), next(&watch));
    let (deleted, added_again) = (next(&watch), next(&watch));
    assert_eq!((type_and_holder(&added), &added["object"]), (("ADDED", "a"), &created));
    assert_eq!((type_and_holder(&modified), &modified["object"]), (("MODIFIED", "b"), &changed));
    assert_eq!(type_and_holder(&deleted), ("DELETED", "b"));
    assert!(version(&deleted["object"]) > version(&changed), "a deletion should have a new version");
    assert_eq!((type_and_holder(&added_again), &added_again["object"]), (("ADDED", "c"), &created_again));
}

#[testkit::test]
fn a_watch_does_not_hold_events_back() {
    let namespace = Namespace::new();
    let watch = namespace.admin.watch(&namespace.leases()).expect("the watch can be started");
    namespace.put("job", "a");
    next(&watch);
    let start = Instant::now();
    for round in 0..20 {
        namespace.set_holder("job", &format!("holder-{round}"));
        next(&watch);
    }
    // Ten seconds are enough even on a busy machine, unless the server delays each event by half a second.
    assert!(start.elapsed() < Duration::from_secs(10), "20 changes took {:?}", start.elapsed());
}

#[testkit::test]
fn a_watch_from_a_version_delivers_later_changes() {
    let namespace = Namespace::new();
    let created = namespace.put("job", "a");
    namespace.set_holder("job", "b");
    let watch = namespace
        .admin
        .watch(&format!("{}?resourceVersion={}", namespace.leases(), version(&created)))
        .expect("the watch can be started");
    assert_eq!(type_and_holder(&next(&watch)), ("MODIFIED", "b"));
}

#[testkit::test]
fn a_watch_from_a_future_version_delivers_no_events() {
    let namespace = Namespace::new();
    let watch = namespace
        .admin
        .watch(&format!("{}?resourceVersion=999999999", namespace.leases()))
        .expect("the watch can be started");
    namespace.put("job", "a");
    assert!(watch.is_silent_for(QUIET_TIME));
}

#[testkit::test]
fn a_watch_of_one_name_delivers_no_other_objects() {
    let namespace = Namespace::new();
    namespace.put("other", "x");
    let selector = "fieldSelector=metadata.name%3Djob";
    let watch = namespace.admin.watch(&format!("{}?{selector}", namespace.leases())).expect("the watch can be started");
    namespace.set_holder("other", "y");
    namespace.put("job", "a");
    assert_eq!(type_and_holder(&next(&watch)), ("ADDED", "a"));
}

#[testkit::test]
fn a_watch_by_label_delivers_label_changes_as_additions_and_deletions() {
    let namespace = Namespace::new();
    let label = |value: Value| json!({ "metadata": { "labels": { "app": value } } });
    let watch = namespace
        .admin
        .watch(&format!("{}?labelSelector=app%3Dweb", namespace.leases()))
        .expect("the watch can be started");
    namespace.put("job", "a");
    namespace.admin.merge_patch(&namespace.lease("job"), &label(json!("web"))).expect("the label can be added");
    namespace.set_holder("job", "b");
    namespace.admin.merge_patch(&namespace.lease("job"), &label(Value::Null)).expect("the label can be removed");
    assert_eq!(type_and_holder(&next(&watch)), ("ADDED", "a"));
    assert_eq!(type_and_holder(&next(&watch)), ("MODIFIED", "b"));
    assert_eq!(type_and_holder(&next(&watch)), ("DELETED", "b"));
}

#[testkit::test]
fn a_bookmark_ends_the_initial_events() {
    let namespace = Namespace::new();
    let name_query = "fieldSelector=metadata.name%3Djob&allowWatchBookmarks=true";
    for query in ["", "&resourceVersion=0", "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"] {
        let watch = namespace
            .admin
            .watch(&format!("{}?{name_query}{query}", namespace.leases()))
            .expect("the watch can be started");
        let event = watch.next().expect("the watch sends a bookmark");
        assert_eq!(event["type"], "BOOKMARK");
        let object = &event["object"];
        assert_eq!((&object["kind"], &object["apiVersion"]), (&json!("Lease"), &json!("coordination.k8s.io/v1")));
        assert_eq!(object["metadata"]["annotations"], json!({ "k8s.io/initial-events-end": "true" }));
        assert!(version(object) > 0);
    }
    namespace.put("job", "a");
    let watch =
        namespace.admin.watch(&format!("{}?{name_query}", namespace.leases())).expect("the watch can be started");
    assert_eq!(watch.next().expect("the watch sends the Lease")["type"], "ADDED");
    assert_eq!(watch.next().expect("the watch sends a bookmark")["type"], "BOOKMARK");

    let incomplete = namespace.admin.watch(&format!("{}?sendInitialEvents=true", namespace.leases()));
    assert_eq!(incomplete.err().expect("the request is refused").code, 422);
}

#[testkit::test]
fn a_watch_ends_without_an_error_at_its_timeout() {
    let namespace = Namespace::new();
    namespace.put("job", "a");
    let start = Instant::now();
    let watch =
        namespace.admin.watch(&format!("{}?timeoutSeconds=1", namespace.leases())).expect("the watch can be started");
    assert_eq!(type_and_holder(&next(&watch)), ("ADDED", "a"));
    assert_eq!(watch.next(), None);
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[testkit::test]
fn a_watch_from_a_version_that_is_too_old_gets_an_error_event() {
    let cluster = Cluster::start();
    let namespace = Namespace::on(&cluster);
    let created = namespace.put("job", "a");
    namespace.set_holder("job", "b");
    // A server only keeps the changes since its start, so a restart makes the version too old.
    cluster.restart();
    let watch = namespace
        .admin
        .watch(&format!("{}?resourceVersion={}", namespace.leases(), version(&created)))
        .expect("the watch can be started");
    let event = watch.next().expect("the watch is still open");
    assert_eq!((&event["type"], &event["object"]["kind"]), (&json!("ERROR"), &json!("Status")));
    assert_eq!((&event["object"]["code"], &event["object"]["reason"]), (&json!(410), &json!("Expired")));
    assert!(
        event["object"]["message"].as_str().expect("the error has a message").starts_with("too old resource version: ")
    );
    assert_eq!(watch.next(), None);
}

#[testkit::test]
fn newer_changes_of_the_same_resource_push_a_version_out_of_the_watch_cache() {
    let cluster = Cluster::start_in_process();
    cluster.api_server().set_watch_cache_size(3);
    let namespace = Namespace::on(&cluster);
    let quiet = namespace.put("quiet", "a");
    let from_quiet = format!("{}?resourceVersion={}", namespace.leases(), version(&quiet));
    for number in 0..5 {
        let other = json!({ "metadata": { "name": format!("other-{number}") } });
        namespace.admin.create(&namespace.configmaps(), &other).expect("the ConfigMap can be created");
    }
    for holder in ["b", "c"] {
        namespace.put(&format!("busy-{holder}"), holder);
        let watch = namespace.admin.watch(&from_quiet).expect("the watch can be started");
        assert_eq!(
            type_and_holder(&next(&watch)),
            ("ADDED", "b"),
            "the watch cache should still have the changes after the version"
        );
    }
    let running = namespace.admin.watch(&from_quiet).expect("the watch can be started");
    namespace.put("busy-d", "d");

    let expired =
        namespace.admin.watch(&from_quiet).expect("the watch can be started").next().expect("the watch is still open");
    assert_eq!((&expired["type"], &expired["object"]["code"]), (&json!("ERROR"), &json!(410)));
    let without_version = namespace.admin.watch(&namespace.leases()).expect("the watch can be started");
    assert_eq!(type_and_holder(&next(&without_version)).0, "ADDED");
    let events: Vec<Value> = (0..3).map(|_| next(&running)).collect();
    assert_eq!(type_and_holder(&events[2]), ("ADDED", "d"), "a running watch should miss no change");
}

#[testkit::test]
fn a_watch_can_be_resumed_from_a_bookmark() {
    let cluster = Cluster::start_in_process();
    cluster.api_server().set_watch_cache_size(3);
    cluster.api_server().set_bookmark_period(Duration::from_millis(50));
    let namespace = Namespace::on(&cluster);
    let quiet = namespace.put("quiet", "a");
    let watch_path = format!("{}?fieldSelector=metadata.name%3Dquiet&allowWatchBookmarks=true", namespace.leases());
    let watch = namespace
        .admin
        .watch(&format!("{watch_path}&resourceVersion={}", version(&quiet)))
        .expect("the watch can be started");
    let newest = (0..8)
        .map(|number| version(&namespace.put(&format!("busy-{number}"), "b")))
        .max()
        .expect("there is a newest version");
    let bookmark = loop {
        let event = watch.next().expect("the watch sends a bookmark");
        assert_eq!(event["type"], "BOOKMARK");
        assert_eq!(
            event["object"]["metadata"].get("annotations"),
            None,
            "a watch from a version should have no initial events"
        );
        if version(&event["object"]) >= newest {
            break event;
        }
    };
    let from_bookmark = format!("{watch_path}&resourceVersion={}", version(&bookmark["object"]));
    let resumed = namespace.admin.watch(&from_bookmark).expect("the watch can be started");
    namespace.set_holder("quiet", "c");
    assert_eq!(type_and_holder(&next(&resumed)), ("MODIFIED", "c"));
    let path_without_bookmarks = from_bookmark.replace("&allowWatchBookmarks=true", "");
    let without_bookmarks = namespace.admin.watch(&path_without_bookmarks).expect("the watch can be started");
    assert_eq!(without_bookmarks.next().expect("the watch is still open")["type"], "MODIFIED");
    assert!(without_bookmarks.is_silent_for(QUIET_TIME), "a watch should get bookmarks only if it asks for them");
}
