//! Tests of the operations that an election needs: creation by PUT, compare-and-swap, and versions that grow.

use std::collections::BTreeSet;
use std::sync::Barrier;
use std::thread;

use serde_json::json;

use super::{Namespace, held_by, put, version, without_metadata_field};
use testkit::Cluster;

#[testkit::test]
fn a_put_creates_a_missing_lease() {
    let namespace = Namespace::new();
    let response = put(&namespace.admin, &namespace.lease("job"), &held_by("job", "a"));
    assert_eq!(response.status, 201);
    let created = response.json();
    assert_eq!(created["kind"], "Lease");
    assert_eq!(created["apiVersion"], "coordination.k8s.io/v1");
    assert_eq!(created["metadata"]["namespace"], namespace.name.as_str());
    assert!(created["metadata"]["uid"].is_string());
    assert!(created["metadata"]["creationTimestamp"].is_string());
    assert!(created["metadata"].get("generation").is_none());
    assert_eq!(created, namespace.admin.get(&namespace.lease("job")).expect("the Lease exists"));
}

#[testkit::test]
fn exactly_one_of_several_concurrent_puts_creates_the_lease() {
    const WRITERS: usize = 6;
    for round in 0..5 {
        let namespace = Namespace::new();
        let start = Barrier::new(WRITERS);
        let create = |writer: usize| {
            start.wait();
            put(&namespace.admin, &namespace.lease("job"), &held_by("job", &format!("writer-{writer}")))
        };
        let responses = thread::scope(|scope| {
            let threads: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(move || create(writer))).collect();
            threads.into_iter().map(|thread| thread.join().expect("the writer does not panic")).collect::<Vec<_>>()
        });
        let created = responses.iter().filter(|response| response.status == 201).count();
        assert_eq!(created, 1, "round {round}: {responses:#?}");
        for refused in responses.iter().filter(|response| response.status != 201) {
            assert_eq!(refused.status, 422);
            let message = refused.json()["message"].to_string();
            assert!(message.contains("metadata.resourceVersion: Invalid value: 0: must be specified for an update"));
        }
    }
}

#[testkit::test]
fn an_update_must_name_the_current_version() {
    let namespace = Namespace::new();
    let old = namespace.put("job", "a");
    namespace.set_holder("job", "b");
    let conflict = namespace.admin.replace(&namespace.lease("job"), &old).unwrap_err();
    assert_eq!((conflict.code, conflict.reason.as_str()), (409, "Conflict"));
    assert_eq!(
        conflict.message,
        "Operation cannot be fulfilled on leases.coordination.k8s.io \"job\": the object has been modified; \
         please apply your changes to the latest version and try again"
    );
    let missing =
        namespace.admin.replace(&namespace.lease("job"), &without_metadata_field(&old, "resourceVersion")).unwrap_err();
    assert_eq!((missing.code, missing.reason.as_str()), (422, "Invalid"));
    let invalid =
        namespace.admin.merge_patch(&namespace.lease("job"), &json!({ "metadata": { "resourceVersion": "x" } }));
    assert_eq!(invalid.unwrap_err().code, 500);
}

#[testkit::test]
fn exactly_one_of_several_updates_of_one_version_succeeds() {
    const WRITERS: usize = 6;
    let namespace = Namespace::new();
    let free = namespace.put("job", "");
    let start = Barrier::new(WRITERS);
    let statuses = thread::scope(|scope| {
        let threads: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (namespace, start, mut lease) = (&namespace, &start, free.clone());
                scope.spawn(move || {
                    lease["spec"]["holderIdentity"] = format!("writer-{writer}").into();
                    start.wait();
                    put(&namespace.admin, &namespace.lease("job"), &lease).status
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("the writer does not panic")).collect::<Vec<_>>()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 409).count(), WRITERS - 1, "{statuses:?}");
}

#[testkit::test]
fn a_put_without_a_uid_recreates_a_deleted_lease() {
    let namespace = Namespace::new();
    let old = namespace.put("job", "a");
    namespace.admin.delete(&namespace.lease("job")).expect("the Lease can be deleted");
    let response = put(&namespace.admin, &namespace.lease("job"), &without_metadata_field(&old, "uid"));
    assert_eq!(response.status, 201);
    assert_ne!(response.json()["metadata"]["uid"], old["metadata"]["uid"]);
}

#[testkit::test]
fn a_put_with_the_uid_of_a_deleted_lease_is_refused() {
    let namespace = Namespace::new();
    let old = namespace.put("job", "a");
    namespace.admin.delete(&namespace.lease("job")).expect("the Lease can be deleted");
    let uid = old["metadata"]["uid"].as_str().expect("a Lease has a uid");

    let gone = namespace.admin.replace(&namespace.lease("job"), &old).unwrap_err();
    assert_eq!((gone.code, gone.reason.as_str()), (409, "Conflict"));
    let expected = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: ");
    assert!(gone.message.ends_with(&expected), "{}", gone.message);

    let new = namespace.put("job", "b");
    let other = namespace.admin.replace(&namespace.lease("job"), &old).unwrap_err();
    assert_eq!(other.code, 409);
    let expected = format!("{expected}{}", new["metadata"]["uid"].as_str().expect("a Lease has a uid"));
    assert!(other.message.ends_with(&expected), "{}", other.message);
}

#[testkit::test]
fn a_recreated_lease_has_a_greater_version() {
    let namespace = Namespace::new();
    let mut last = 0;
    for _ in 0..15 {
        let created = namespace.put("job", "a");
        assert!(version(&created) > last);
        last = version(&created);
        let deleted = namespace.admin.delete(&namespace.lease("job")).expect("the Lease can be deleted");
        assert_eq!((&deleted["status"], &deleted["details"]["uid"]), (&json!("Success"), &created["metadata"]["uid"]));
    }
}

#[testkit::test]
fn versions_grow_beyond_a_power_of_ten() {
    // Versions that are compared as strings are in the wrong order at a power of ten. A new cluster reaches one soon:
    // its first version is near zero on a real server, and just below ten thousand on the in-process one.
    let cluster = Cluster::start();
    let namespace = Namespace::on(&cluster);
    let mut last = version(&namespace.put("job", "a"));
    let digits = last.to_string().len();
    for round in 0..2_000 {
        let next = version(&namespace.set_holder("job", &format!("holder-{round}")));
        assert!(next > last);
        last = next;
        if last.to_string().len() > digits {
            return;
        }
    }
    panic!("the version still has {digits} digits: {last}");
}

#[testkit::test]
fn an_update_that_changes_nothing_keeps_the_version() {
    let namespace = Namespace::new();
    let lease = namespace.put("job", "a");
    let watch = namespace
        .admin
        .watch(&format!("{}?resourceVersion={}", namespace.leases(), version(&lease)))
        .expect("the watch is accepted");
    let response = put(&namespace.admin, &namespace.lease("job"), &lease);
    assert_eq!((response.status, version(&response.json())), (200, version(&lease)));
    let changed = namespace.set_holder("job", "b");
    let event = watch.next_change().expect("an event arrives");
    assert_eq!(version(&event["object"]), version(&changed), "the first event should report the first change");
}

#[testkit::test]
fn a_put_without_managed_fields_keeps_them() {
    let namespace = Namespace::new();
    let lease = namespace.put("job", "a");
    let managers = |lease: &serde_json::Value| {
        let entries = lease["metadata"]["managedFields"].as_array().expect("a Lease has managed fields");
        entries.iter().map(|entry| entry["manager"].to_string()).collect::<BTreeSet<_>>()
    };
    assert_eq!(managers(&lease), BTreeSet::from(["\"tests\"".to_owned()]));
    let mut bare = without_metadata_field(&lease, "managedFields");
    bare["metadata"]["annotations"] = json!({ "leaderrun/run": "1" });
    let path = format!("{}?fieldManager=other", namespace.lease("job"));
    let both = namespace.admin.replace(&path, &bare).expect("the Lease can be updated");
    assert_eq!(managers(&both), BTreeSet::from(["\"tests\"".to_owned(), "\"other\"".to_owned()]));
}

#[testkit::test]
fn a_restart_keeps_the_data_and_breaks_connections() {
    let cluster = Cluster::start();
    let namespace = Namespace::on(&cluster);
    let before = namespace.put("job", "a");
    let watch = namespace.admin.watch(&namespace.leases()).expect("the watch is accepted");
    cluster.restart();
    watch.wait_until_over();
    assert_eq!(namespace.admin.get(&namespace.lease("job")).expect("the Lease exists"), before);
    assert!(version(&namespace.set_holder("job", "b")) > version(&before));
}

#[testkit::test]
fn clusters_do_not_share_objects() {
    let (namespace, other_cluster) = (Namespace::new(), Cluster::start());
    namespace.put("job", "a");
    assert_eq!(other_cluster.admin().get(&namespace.lease("job")).unwrap_err().code, 404);
}
