//! Tests of validation: which objects the server accepts or refuses, and which fields it drops.

use serde_json::{Value, json};

use super::{Namespace, put};

/// Sends a PUT of a new Lease with this spec. Returns the status and the body of the response.
fn put_lease_with_spec(spec: &Value) -> (u16, Value) {
    let namespace = Namespace::new();
    let response =
        put(&namespace.admin, &namespace.lease("job"), &json!({ "metadata": { "name": "job" }, "spec": spec }));
    (response.status, response.json())
}

#[testkit::test]
fn durations_and_transitions_have_bounds() {
    for (field, number, message) in [
        ("leaseDurationSeconds", 0, "Invalid value: 0: must be greater than 0"),
        ("leaseDurationSeconds", -5, "Invalid value: -5: must be greater than 0"),
        ("leaseTransitions", -1, "Invalid value: -1: must be greater than or equal to 0"),
    ] {
        let (status, body) = put_lease_with_spec(&json!({ field: number }));
        assert_eq!((status, &body["reason"]), (422, &json!("Invalid")));
        let cause = &body["details"]["causes"][0];
        assert_eq!(cause["field"], format!("spec.{field}"));
        assert_eq!((&cause["message"], &cause["reason"]), (&json!(message), &json!("FieldValueInvalid")));
        assert_eq!(body["message"], format!("Lease.coordination.k8s.io \"job\" is invalid: spec.{field}: {message}"));
    }
    for spec in [json!({ "leaseDurationSeconds": 3_000_000_000_u32 }), json!({ "leaseDurationSeconds": 1.5 })] {
        assert_eq!(put_lease_with_spec(&spec).0, 400, "{spec}");
    }
}

#[testkit::test]
fn times_must_be_valid_and_have_exactly_six_fractional_digits() {
    for (time, expected) in [
        ("2026-01-01T00:00:00Z", r#"cannot parse "Z" as ".000000""#),
        ("2026-01-01T00:00:00.001Z", r#"cannot parse ".001Z" as ".000000""#),
        ("2026-01-01T00:00:00.000000001Z", r#"cannot parse "001Z" as "Z07:00""#),
        ("yesterday", r#"cannot parse "yesterday" as "2006""#),
        ("", r#"cannot parse "" as "2006""#),
    ] {
        for field in ["renewTime", "acquireTime"] {
            let (status, body) = put_lease_with_spec(&json!({ field: time }));
            assert_eq!((status, &body["reason"]), (400, &json!("BadRequest")), "{time}");
            let message = body["message"].as_str().expect("the refusal has a message");
            assert!(message.starts_with("Lease in version \"v1\" cannot be handled as a Lease: "), "{message}");
            assert!(message.ends_with(expected), "{message}");
        }
    }
    let (status, lease) = put_lease_with_spec(&json!({ "renewTime": "2026-01-01T02:00:00.000001+02:00" }));
    assert_eq!((status, &lease["spec"]["renewTime"]), (201, &json!("2026-01-01T00:00:00.000001Z")));
}

#[testkit::test]
fn an_empty_holder_is_kept_and_a_null_field_is_dropped() {
    let (status, lease) = put_lease_with_spec(&json!({ "holderIdentity": "", "renewTime": null }));
    assert_eq!((status, &lease["spec"]), (201, &json!({ "holderIdentity": "" })));
}

#[testkit::test]
fn fields_that_are_unknown_or_need_a_disabled_feature_gate_are_dropped() {
    let (status, lease) = put_lease_with_spec(&json!({
        "holderIdentity": "a",
        "strategy": "OldestEmulationVersion",
        "preferredHolder": "b",
        "nonsense": { "deep": true },
    }));
    assert_eq!((status, &lease["spec"]), (201, &json!({ "holderIdentity": "a" })));
}

#[testkit::test]
fn unknown_fields_are_refused_with_strict_validation() {
    let namespace = Namespace::new();
    let path = format!("{}?fieldValidation=Strict", namespace.lease("job"));
    let lease = json!({ "metadata": { "name": "job" }, "spec": { "holderIdentity": "a", "holder": "a" } });
    let refused = namespace.admin.replace(&path, &lease).unwrap_err();
    assert_eq!((refused.code, refused.reason.as_str()), (400, "BadRequest"));
    assert!(refused.message.ends_with("strict decoding error: unknown field \"spec.holder\""), "{}", refused.message);
    let lease = json!({ "metadata": { "name": "job", "labels": { "a": "b" } }, "spec": { "holderIdentity": "" } });
    namespace.admin.replace(&path, &lease).expect("the Lease can be created");
}

#[testkit::test]
fn wrong_types_and_kinds_are_refused() {
    let namespace = Namespace::new();
    for object in [
        json!({ "metadata": { "name": "job" }, "spec": { "holderIdentity": 5 } }),
        json!({ "metadata": { "name": "job" }, "spec": { "renewTime": 5 } }),
        json!({ "metadata": { "name": "job", "annotations": { "a": 5 } } }),
        json!({ "kind": "Pod", "metadata": { "name": "job" } }),
        json!({ "apiVersion": "v1", "metadata": { "name": "job" } }),
        json!([]),
    ] {
        let response = put(&namespace.admin, &namespace.lease("job"), &object);
        assert_eq!((response.status, &response.json()["reason"]), (400, &json!("BadRequest")), "{object}");
    }
}

#[testkit::test]
fn invalid_metadata_is_refused() {
    let namespace = Namespace::new();
    for (metadata, field) in [
        (json!({ "name": "Upper" }), "metadata.name"),
        (json!({ "name": "under_score" }), "metadata.name"),
        (json!({ "name": "-dash" }), "metadata.name"),
        (json!({ "name": "n".repeat(254) }), "metadata.name"),
        (json!({ "generateName": "Upper-" }), "metadata.generateName"),
        (json!({}), "metadata.name"),
        (json!({ "name": "job", "annotations": { "two words": "" } }), "metadata.annotations"),
        (json!({ "name": "job", "annotations": { "a/b/c": "" } }), "metadata.annotations"),
        (json!({ "name": "job", "annotations": { "/a": "" } }), "metadata.annotations"),
        (json!({ "name": "job", "annotations": { "a": "x".repeat(300_000) } }), "metadata.annotations"),
        (json!({ "name": "job", "labels": { "a": "two words" } }), "metadata.labels"),
        (json!({ "name": "job", "labels": { "-a": "b" } }), "metadata.labels"),
        (
            json!({ "name": "job", "ownerReferences": [{ "kind": "Pod", "name": "p" }] }),
            "metadata.ownerReferences.apiVersion",
        ),
    ] {
        let refused = namespace.admin.create(&namespace.leases(), &json!({ "metadata": metadata })).unwrap_err();
        assert_eq!((refused.code, refused.reason.as_str()), (422, "Invalid"), "{field}");
        let causes = &refused.details.as_ref().expect("the refusal has details").causes;
        assert_eq!(causes[0].field, field);
    }
    let valid = json!({ "metadata": { "name": "a.b-c.9", "annotations": { "Example.COM/Some_key": "any text: {}" } } });
    namespace.admin.create(&namespace.leases(), &valid).expect("the Lease can be created");
    let dotted = namespace.admin.create("/api/v1/namespaces", &json!({ "metadata": { "name": "a.b" } })).unwrap_err();
    assert!(dotted.message.contains("must not contain dots"), "{}", dotted.message);
}

#[testkit::test]
fn roles_and_bindings_are_validated() {
    let namespace = Namespace::new();
    let rbac = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{}", namespace.name);
    let role = json!({ "metadata": { "name": "r:1" }, "rules": [{ "apiGroups": [""], "resources": ["pods"] }] });
    let without_verbs = namespace.admin.replace(&format!("{rbac}/roles/r:1"), &role).unwrap_err();
    assert_eq!(without_verbs.details.as_ref().expect("the refusal has details").causes[0].field, "rules[0].verbs");

    let binding = |role: &str| {
        let reference = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role });
        json!({ "metadata": { "name": "b" }, "roleRef": reference, "subjects": [] })
    };
    let path = format!("{rbac}/rolebindings/b");
    assert_eq!(put(&namespace.admin, &path, &binding("one")).status, 201);
    let changed = namespace.admin.replace(&path, &binding("two")).unwrap_err();
    assert!(changed.message.ends_with("cannot change roleRef"), "{}", changed.message);
}

#[testkit::test]
fn an_endpointslice_has_one_address_family() {
    let namespace = Namespace::new();
    let path = format!("/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices", namespace.name);
    let slice = |family: &str, address: &str| {
        let endpoints = json!([{ "addresses": [address] }]);
        json!({ "metadata": { "name": "web" }, "addressType": family, "endpoints": endpoints, "ports": [] })
    };
    for (family, address, message) in [
        ("IPv4", "fd00::7", "Invalid value: \"fd00::7\": must be an IPv4 address"),
        ("IPv6", "10.1.2.3", "Invalid value: \"10.1.2.3\": must be an IPv6 address"),
    ] {
        let refused = namespace.admin.create(&path, &slice(family, address)).unwrap_err();
        assert_eq!(refused.code, 422);
        assert!(refused.message.contains(message), "{}", refused.message);
    }
    namespace.admin.create(&path, &slice("IPv4", "10.1.2.3")).expect("the slice can be created");
    let refused = namespace.admin.replace(&format!("{path}/web"), &slice("IPv6", "fd00::7")).unwrap_err();
    assert_eq!(refused.code, 422);
    assert!(refused.message.contains("field is immutable"), "{}", refused.message);
}

#[testkit::test]
fn a_service_gets_the_address_families_of_its_policy() {
    let namespace = Namespace::new();
    let services = format!("/api/v1/namespaces/{}/services", namespace.name);
    let port = json!([{ "port": 80 }]);
    // A headless Service without a selector gets both families, because the cluster does not choose its endpoints.
    for (name, spec, policy, families) in [
        ("single", json!({}), "SingleStack", &["IPv4"][..]),
        ("six", json!({ "ipFamilies": ["IPv6"] }), "SingleStack", &["IPv6"]),
        ("prefer", json!({ "ipFamilyPolicy": "PreferDualStack" }), "PreferDualStack", &["IPv4", "IPv6"]),
        (
            "require",
            json!({ "ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"] }),
            "RequireDualStack",
            &["IPv6", "IPv4"],
        ),
        ("headless", json!({ "clusterIP": "None" }), "RequireDualStack", &["IPv4", "IPv6"]),
        ("headless-selecting", json!({ "clusterIP": "None", "selector": { "app": "x" } }), "SingleStack", &["IPv4"]),
    ] {
        let mut spec = spec;
        spec["ports"] = port.clone();
        let service = json!({ "metadata": { "name": name }, "spec": spec });
        let stored = namespace.admin.create(&services, &service).expect("the Service can be created");
        assert_eq!(
            (&stored["spec"]["ipFamilyPolicy"], &stored["spec"]["ipFamilies"]),
            (&json!(policy), &json!(families))
        );
    }
    let both = json!({ "ipFamilies": ["IPv4", "IPv6"], "ports": port });
    let refused =
        namespace.admin.create(&services, &json!({ "metadata": { "name": "both" }, "spec": both })).unwrap_err();
    assert_eq!(refused.code, 422);
    assert!(refused.message.contains("must be 'RequireDualStack' or 'PreferDualStack'"), "{}", refused.message);
}
