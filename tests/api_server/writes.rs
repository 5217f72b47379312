//! Tests of deletions, patches, dry runs, ConfigMaps, Endpoints, and error responses.

use hyper::Method;
use serde_json::json;

use super::{Namespace, held_by, put, version, without_metadata_field};
use testkit::{Cluster, TIMEOUT};

#[testkit::test]
fn a_missing_object_is_not_found() {
    let namespace = Namespace::new();
    let missing = namespace.admin.get(&namespace.lease("job")).unwrap_err();
    assert_eq!((missing.code, missing.reason.as_str()), (404, "NotFound"));
    assert_eq!(missing.message, "leases.coordination.k8s.io \"job\" not found");
    let details = missing.details.as_ref().expect("the error has details");
    assert_eq!((details.group.as_str(), details.kind.as_str()), ("coordination.k8s.io", "leases"));
    assert_eq!(namespace.admin.delete(&namespace.lease("job")).unwrap_err().code, 404);
    assert_eq!(namespace.admin.merge_patch(&namespace.lease("job"), &json!({})).unwrap_err().code, 404);
}

#[testkit::test]
fn unknown_paths_and_methods_are_refused() {
    let namespace = Namespace::new();
    let (name, admin) = (&namespace.name, &namespace.admin);
    let unknown = admin.get(&format!("/apis/coordination.k8s.io/v1/namespaces/{name}/nothings")).unwrap_err();
    assert_eq!(unknown.message, "the server could not find the requested resource");
    assert_eq!(admin.get("/apis/nothing.example.com/v1/nothings").unwrap_err().code, 404);
    let post = admin.send(Method::POST, &namespace.lease("job"), None, TIMEOUT).expect("the server responds");
    assert_eq!((post.status, &post.json()["reason"]), (405, &json!("MethodNotAllowed")));
    assert_eq!(put(admin, &namespace.leases(), &held_by("job", "a")).status, 405);
}

#[testkit::test]
fn an_object_with_an_existing_name_cannot_be_created() {
    let namespace = Namespace::new();
    namespace.admin.create(&namespace.leases(), &held_by("job", "a")).expect("the Lease can be created");
    let twice = namespace.admin.create(&namespace.leases(), &held_by("job", "b")).unwrap_err();
    assert_eq!((twice.code, twice.reason.as_str()), (409, "AlreadyExists"));
    assert_eq!(twice.message, "leases.coordination.k8s.io \"job\" already exists");
    let generated = json!({ "metadata": { "generateName": "job-" } });
    let generated = namespace.admin.create(&namespace.leases(), &generated).expect("the Lease can be created");
    assert!(generated["metadata"]["name"].as_str().expect("the Lease has a name").starts_with("job-"));
}

#[testkit::test]
fn name_and_namespace_must_match_the_path() {
    let namespace = Namespace::new();
    for (metadata, message) in [
        (json!({ "name": "other" }), "the name of the object (other) does not match the name on the URL (job)"),
        (json!({}), "the name of the object (job based on URL) was undeterminable: name must be provided"),
        (
            json!({ "name": "job", "namespace": "default" }),
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
    ] {
        let refused = namespace.admin.replace(&namespace.lease("job"), &json!({ "metadata": metadata })).unwrap_err();
        assert_eq!((refused.code, refused.message.as_str()), (400, message));
    }
}

#[testkit::test]
fn a_write_requires_an_existing_namespace_but_a_list_does_not() {
    let admin = Cluster::shared().admin();
    let path = "/apis/coordination.k8s.io/v1/namespaces/nowhere/leases";
    for refused in
        [admin.replace(&format!("{path}/job"), &held_by("job", "a")), admin.create(path, &held_by("job", "a"))]
    {
        let refused = refused.unwrap_err();
        assert_eq!((refused.code, refused.message.as_str()), (404, "namespaces \"nowhere\" not found"));
    }
    assert_eq!(admin.get(path).expect("the list can be read")["items"], json!([]));
}

#[testkit::test]
fn the_default_namespace_cannot_be_deleted() {
    assert_eq!(Cluster::shared().admin().delete("/api/v1/namespaces/default").unwrap_err().code, 403);
}

#[testkit::test]
fn a_deletion_can_have_preconditions() {
    let namespace = Namespace::new();
    let lease = namespace.put("job", "a");
    for (preconditions, field) in [
        (json!({ "uid": "11111111-1111-1111-1111-111111111111" }), "UID"),
        (json!({ "resourceVersion": "1" }), "ResourceVersion"),
    ] {
        let options = json!({ "preconditions": preconditions });
        let refused = namespace.admin.delete_with(&namespace.lease("job"), &options).unwrap_err();
        assert_eq!((refused.code, refused.reason.as_str()), (409, "Conflict"));
        assert!(refused.message.contains(&format!("the {field} in the precondition")), "{}", refused.message);
    }
    let options = json!({ "preconditions": { "uid": lease["metadata"]["uid"] } });
    namespace.admin.delete_with(&namespace.lease("job"), &options).expect("the Lease can be deleted");
}

#[testkit::test]
fn finalizers_keep_a_deleted_object() {
    let namespace = Namespace::new();
    namespace.put("job", "a");
    let finalizers = json!({ "metadata": { "finalizers": ["example.com/hold"] } });
    namespace.admin.merge_patch(&namespace.lease("job"), &finalizers).expect("the finalizer can be added");
    let kept = namespace.admin.delete(&namespace.lease("job")).expect("the deletion begins");
    assert!(kept["metadata"]["deletionTimestamp"].is_string());
    let still_there = namespace.admin.get(&namespace.lease("job")).expect("the Lease exists");
    assert_eq!(still_there["metadata"]["deletionGracePeriodSeconds"], 0);
    let no_finalizers = json!({ "metadata": { "finalizers": null } });
    namespace.admin.merge_patch(&namespace.lease("job"), &no_finalizers).expect("the finalizer can be removed");
    assert_eq!(namespace.admin.get(&namespace.lease("job")).unwrap_err().code, 404);
}

#[testkit::test]
fn a_merge_patch_changes_only_its_fields_and_checks_the_version_and_the_uid() {
    let namespace = Namespace::new();
    namespace.put("job", "a");
    let patch = json!({ "metadata": { "annotations": { "one": "1" } }, "spec": { "leaseDurationSeconds": null } });
    let patched = namespace.admin.merge_patch(&namespace.lease("job"), &patch).expect("the Lease can be patched");
    assert_eq!(patched["metadata"]["annotations"], json!({ "one": "1" }));
    assert_eq!(patched["spec"], json!({ "holderIdentity": "a" }));
    let nothing = namespace.admin.merge_patch(&namespace.lease("job"), &json!({})).expect("an empty patch is accepted");
    assert_eq!(nothing, patched);

    let stale = json!({ "metadata": { "resourceVersion": "1" }, "spec": { "holderIdentity": "b" } });
    assert_eq!(namespace.admin.merge_patch(&namespace.lease("job"), &stale).unwrap_err().code, 409);
    let other = json!({ "metadata": { "uid": "11111111-1111-1111-1111-111111111111" } });
    let other = namespace.admin.merge_patch(&namespace.lease("job"), &other).unwrap_err();
    assert_eq!(other.code, 422);
    assert!(other.message.contains("field is immutable"), "{}", other.message);
}

#[testkit::test]
fn a_json_patch_changes_nothing_if_its_test_fails() {
    let namespace = Namespace::new();
    namespace.put("job", "a");
    let take_over_from = |holder: &str| {
        json!([
            { "op": "test", "path": "/spec/holderIdentity", "value": holder },
            { "op": "replace", "path": "/spec/holderIdentity", "value": "b" },
            { "op": "add", "path": "/metadata/annotations", "value": {} },
            { "op": "add", "path": "/metadata/annotations/example.com~1taken", "value": "yes" },
        ])
    };
    let wrong = namespace.admin.json_patch(&namespace.lease("job"), &take_over_from("nobody")).unwrap_err();
    assert_eq!((wrong.code, wrong.reason.as_str()), (422, "Invalid"));
    let taken =
        namespace.admin.json_patch(&namespace.lease("job"), &take_over_from("a")).expect("the Lease can be patched");
    assert_eq!(taken["spec"]["holderIdentity"], "b");
    assert_eq!(taken["metadata"]["annotations"]["example.com/taken"], "yes");
}

#[testkit::test]
fn a_malformed_patch_and_an_unknown_patch_type_are_refused() {
    let namespace = Namespace::new();
    namespace.put("job", "a");
    assert_eq!(namespace.admin.json_patch(&namespace.lease("job"), &json!({})).unwrap_err().code, 400);
    let unknown =
        namespace.admin.send(Method::PATCH, &namespace.lease("job"), Some(("text/plain", &json!({}))), TIMEOUT);
    assert_eq!(unknown.expect("the server responds").status, 415);
}

#[testkit::test]
fn a_configmap_cannot_be_created_by_put_but_can_be_updated_without_a_version() {
    let namespace = Namespace::new();
    let leader = |record: &str| {
        let annotations = json!({ "control-plane.alpha.kubernetes.io/leader": record });
        json!({ "metadata": { "name": "job", "annotations": annotations } })
    };
    let path = namespace.configmap("job");
    let missing = namespace.admin.replace(&path, &leader("{}")).unwrap_err();
    assert_eq!((missing.code, missing.message.as_str()), (404, "configmaps \"job\" not found"));

    let collection = path.strip_suffix("/job").expect("the path ends in the name");
    let created = namespace.admin.create(collection, &leader("{}")).expect("the ConfigMap can be created");
    let unconditional = namespace
        .admin
        .replace(&path, &leader("{\"holderIdentity\":\"a\"}"))
        .expect("an unconditional update is accepted");
    assert!(version(&unconditional) > version(&created));
    let stale = namespace.admin.replace(&path, &created).unwrap_err();
    assert_eq!(stale.code, 409);
    let other = json!({ "metadata": { "name": "job", "uid": "11111111-1111-1111-1111-111111111111" } });
    assert_eq!(namespace.admin.replace(&path, &other).unwrap_err().code, 409);
}

#[testkit::test]
fn endpoints_can_be_created_by_put_and_updated_without_a_version() {
    let namespace = Namespace::new();
    let path = format!("/api/v1/namespaces/{}/endpoints/job", namespace.name);
    let leader = |record: &str| {
        let annotations = json!({ "control-plane.alpha.kubernetes.io/leader": record });
        json!({ "metadata": { "name": "job", "annotations": annotations } })
    };
    assert_eq!(put(&namespace.admin, &path, &leader("{}")).status, 201);
    assert_eq!(put(&namespace.admin, &path, &leader("{\"holderIdentity\":\"a\"}")).status, 200);
}

#[testkit::test]
fn a_dry_run_writes_nothing() {
    let namespace = Namespace::new();
    let path = format!("{}?dryRun=All", namespace.lease("job"));
    let not_stored = namespace.admin.replace(&path, &held_by("job", "a")).expect("the dry run is accepted");
    assert_eq!(not_stored["spec"]["holderIdentity"], "a");
    assert_eq!(namespace.admin.get(&namespace.lease("job")).unwrap_err().code, 404);
}

#[testkit::test]
fn one_request_can_delete_all_leases_of_a_namespace() {
    let namespace = Namespace::new();
    namespace.put("one", "a");
    namespace.put("two", "b");
    let deleted = namespace.admin.delete(&namespace.leases()).expect("the Leases can be deleted");
    assert_eq!(deleted["items"].as_array().expect("the response has items").len(), 2);
    assert_eq!(namespace.admin.get(&namespace.leases()).expect("the list can be read")["items"], json!([]));
}

#[testkit::test]
fn a_post_with_a_version_is_refused() {
    let namespace = Namespace::new();
    let lease = namespace.put("job", "a");
    namespace.admin.delete(&namespace.lease("job")).expect("the Lease can be deleted");
    assert_eq!(namespace.admin.create(&namespace.leases(), &lease).unwrap_err().code, 500);
    namespace
        .admin
        .create(&namespace.leases(), &without_metadata_field(&lease, "resourceVersion"))
        .expect("the Lease can be created");
}
