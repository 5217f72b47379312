//! Tests of authentication, RBAC and impersonation.

use serde_json::{Value, json};

use super::{Namespace, held_by, put};
use testkit::{Client, Cluster, users::ADMIN};

/// Returns the rules of a Role that permits these verbs on the Lease `job`.
fn rules_for_one_name(verbs: &[&str]) -> Value {
    json!([{
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "resourceNames": ["job"],
        "verbs": verbs,
    }])
}

/// Returns a namespace in which these rules apply to the user `candidate`, and a client for that user.
fn namespace_with_rules(rules: Value) -> (Namespace, Client) {
    let namespace = Namespace::new();
    let cluster = Cluster::shared();
    cluster.set_permissions(&namespace.name, "candidate", rules);
    (namespace, cluster.client_for("candidate"))
}

#[testkit::test]
fn an_unknown_user_is_unauthorized() {
    let namespace = Namespace::new();
    let server = Cluster::shared().address();
    let nobody = Client::anonymous(server);
    for client in [nobody.clone(), nobody.with_header("authorization", "Bearer nonsense")] {
        let refused = client.get(&namespace.leases()).unwrap_err();
        assert_eq!(
            (refused.code, refused.reason.as_str(), refused.message.as_str()),
            (401, "Unauthorized", "Unauthorized")
        );
    }
    assert!(Client::new(server, ADMIN).get(&namespace.leases()).is_ok());
}

#[testkit::test]
fn the_refusal_of_a_request_names_the_missing_permission() {
    let namespace = Namespace::new();
    let stranger = Cluster::shared().client_for("stranger");
    let name = &namespace.name;
    let cannot = |verb: &str| {
        format!(
            "User \"stranger\" cannot {verb} resource \"leases\" in API group \"coordination.k8s.io\" in the namespace \"{name}\""
        )
    };
    let about_job = "leases.coordination.k8s.io \"job\" is forbidden: ";
    let about_leases = "leases.coordination.k8s.io is forbidden: ";
    let job = namespace.lease("job");
    let lease = held_by("job", "a");
    for (refused, message) in [
        (stranger.get(&job), format!("{about_job}{}", cannot("get"))),
        (stranger.replace(&job, &lease), format!("{about_job}{}", cannot("update"))),
        (stranger.merge_patch(&job, &lease), format!("{about_job}{}", cannot("patch"))),
        (stranger.delete(&job), format!("{about_job}{}", cannot("delete"))),
        (stranger.create(&namespace.leases(), &lease), format!("{about_leases}{}", cannot("create"))),
        (stranger.get(&namespace.leases()), format!("{about_leases}{}", cannot("list"))),
        (stranger.watch(&namespace.leases()).map(|_| Value::Null), format!("{about_leases}{}", cannot("watch"))),
    ] {
        let refused = refused.unwrap_err();
        assert_eq!((refused.code, refused.reason.as_str(), refused.message), (403, "Forbidden", message));
    }
    let at_cluster_scope = stranger.get("/api/v1/namespaces").unwrap_err().message.clone();
    assert_eq!(
        at_cluster_scope,
        "namespaces is forbidden: User \"stranger\" cannot list resource \"namespaces\" in API group \"\" at the cluster scope"
    );
    let for_path = stranger.get("/metrics").unwrap_err().message.clone();
    assert_eq!(for_path, "forbidden: User \"stranger\" cannot get path \"/metrics\"");
}

#[testkit::test]
fn every_user_may_use_discovery() {
    let stranger = Cluster::shared().client_for("stranger");
    assert!(stranger.get("/version").expect("every user may read the version")["gitVersion"].is_string());
    assert_eq!(stranger.get("/api").expect("every user may read the API versions")["versions"], json!(["v1"]));
    let resources = stranger.get("/apis/coordination.k8s.io/v1").expect("every user may read the resources");
    let leases = resources["resources"]
        .as_array()
        .expect("the resources are a list")
        .iter()
        .find(|resource| resource["name"] == "leases");
    assert_eq!(leases.expect("leases are a resource")["kind"], "Lease");
}

#[testkit::test]
fn four_verbs_for_one_name_are_enough_for_a_candidate() {
    let (namespace, candidate) = namespace_with_rules(rules_for_one_name(&["get", "create", "update", "watch"]));
    let watch_path = format!("{}?fieldSelector=metadata.name%3Djob", namespace.leases());
    let watch = candidate.watch(&watch_path).expect("a watch is accepted before the object exists");
    assert_eq!(candidate.get(&namespace.lease("job")).unwrap_err().code, 404);
    assert_eq!(put(&candidate, &namespace.lease("job"), &held_by("job", "a")).status, 201);
    assert_eq!(watch.next_change().expect("an event arrives")["type"], "ADDED");
    let mut lease = candidate.get(&namespace.lease("job")).expect("the Lease can be read");
    lease["spec"]["holderIdentity"] = "b".into();
    candidate.replace(&namespace.lease("job"), &lease).expect("the Lease can be updated");
}

#[testkit::test]
fn a_permission_for_one_name_does_not_cover_other_names() {
    let (namespace, candidate) =
        namespace_with_rules(rules_for_one_name(&["get", "create", "update", "watch", "list"]));
    let other = "fieldSelector=metadata.name%3Dother";
    assert_eq!(candidate.get(&namespace.lease("other")).unwrap_err().code, 403);
    assert_eq!(put(&candidate, &namespace.lease("other"), &held_by("other", "a")).status, 403);
    assert_eq!(
        candidate.watch(&format!("{}?{other}", namespace.leases())).err().expect("the watch is refused").code,
        403
    );
    assert_eq!(candidate.watch(&namespace.leases()).err().expect("the watch is refused").code, 403);
    assert_eq!(candidate.get(&namespace.leases()).unwrap_err().code, 403);
    assert!(candidate.get(&format!("{}?fieldSelector=metadata.name%3Djob", namespace.leases())).is_ok());
    let post = candidate.create(&namespace.leases(), &held_by("job", "a")).unwrap_err();
    assert_eq!(post.code, 403, "a Role cannot permit a POST by name, because the path of a POST contains no name");
}

#[testkit::test]
fn creation_by_put_requires_update_and_create() {
    let (namespace, candidate) = namespace_with_rules(rules_for_one_name(&["update"]));
    let refused = candidate.replace(&namespace.lease("job"), &held_by("job", "a")).unwrap_err();
    assert_eq!(refused.code, 403);
    assert!(refused.message.contains("cannot create resource \"leases\""), "{}", refused.message);

    let (namespace, candidate) = namespace_with_rules(rules_for_one_name(&["create"]));
    let refused = candidate.replace(&namespace.lease("job"), &held_by("job", "a")).unwrap_err();
    assert!(refused.message.contains("cannot update resource \"leases\""), "{}", refused.message);
}

#[testkit::test]
fn requests_are_refused_after_the_permission_is_revoked() {
    let (namespace, candidate) = namespace_with_rules(rules_for_one_name(&["get", "update"]));
    namespace.put("job", "a");
    assert!(candidate.get(&namespace.lease("job")).is_ok());
    Cluster::shared().set_permissions(&namespace.name, "candidate", rules_for_one_name(&["update"]));
    assert_eq!(candidate.get(&namespace.lease("job")).unwrap_err().code, 403);
    Cluster::shared().set_permissions(&namespace.name, "candidate", json!([]));
    assert_eq!(put(&candidate, &namespace.lease("job"), &held_by("job", "a")).status, 403);
}

#[testkit::test]
fn a_user_can_ask_what_it_is_allowed_to_do() {
    let (namespace, candidate) = namespace_with_rules(rules_for_one_name(&["get"]));
    let ask = |verb: &str, name: &str| {
        let access = json!({
            "namespace": namespace.name,
            "group": "coordination.k8s.io",
            "resource": "leases",
            "verb": verb,
            "name": name,
        });
        let review = json!({ "spec": { "resourceAttributes": access } });
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        candidate.create(path, &review).expect("the review can be created")["status"].clone()
    };
    let allowed = ask("get", "job");
    assert_eq!(allowed["allowed"], true);
    let name = &namespace.name;
    let reason =
        format!("RBAC: allowed by RoleBinding \"candidate/{name}\" of Role \"candidate\" to User \"candidate\"");
    assert_eq!(allowed["reason"], reason);
    assert_eq!(ask("get", "")["allowed"], false);
    assert_eq!(ask("update", "job")["allowed"], false);
}

#[testkit::test]
fn a_user_needs_permission_to_impersonate_another() {
    let (namespace, candidate) = namespace_with_rules(rules_for_one_name(&["get"]));
    namespace.put("job", "a");
    let cluster = Cluster::shared();
    let as_candidate = |user: &str| cluster.client_for(user).with_header("impersonate-user", "candidate");
    assert!(as_candidate("admin").get(&namespace.lease("job")).is_ok());
    let refused = as_candidate("admin").delete(&namespace.lease("job")).unwrap_err();
    assert!(refused.message.contains("User \"candidate\" cannot delete"), "{}", refused.message);

    assert_eq!(as_candidate("deputy").get(&namespace.lease("job")).unwrap_err().code, 403);
    permit_impersonation(&namespace.admin);
    testkit::eventually("the deputy may impersonate the candidate", || {
        as_candidate("deputy").get(&namespace.lease("job")).is_ok()
    });
    let masters = candidate.with_header("impersonate-user", "x").with_header("impersonate-group", "system:masters");
    assert_eq!(masters.get(&namespace.lease("job")).unwrap_err().code, 403);
}

/// Permits the user `deputy` to impersonate the user `candidate`.
fn permit_impersonation(admin: &Client) {
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let rule =
        json!({ "apiGroups": [""], "resources": ["users"], "resourceNames": ["candidate"], "verbs": ["impersonate"] });
    let role = json!({ "metadata": { "name": "deputy" }, "rules": [rule] });
    admin.replace(&format!("{rbac}/clusterroles/deputy"), &role).expect("the ClusterRole can be written");
    let group = "rbac.authorization.k8s.io";
    let binding = json!({
        "metadata": { "name": "deputy" },
        "roleRef": { "apiGroup": group, "kind": "ClusterRole", "name": "deputy" },
        "subjects": [{ "apiGroup": group, "kind": "User", "name": "deputy" }],
    });
    admin
        .replace(&format!("{rbac}/clusterrolebindings/deputy"), &binding)
        .expect("the ClusterRoleBinding can be written");
}

#[testkit::test]
fn a_server_that_has_not_read_the_roles_yet_refuses_permitted_requests() {
    let cluster = Cluster::start_in_process();
    let namespace = Namespace::on(&cluster);
    cluster.set_permissions(&namespace.name, "candidate", rules_for_one_name(&["get", "create", "update", "watch"]));
    let candidate = cluster.client_for("candidate");
    namespace.put("job", "a");
    let get = || candidate.get(&namespace.lease("job"));
    assert!(get().is_ok());

    cluster.api_server().forget_roles();
    let refused = get().unwrap_err();
    let ordinary = cluster.client_for("stranger").get(&namespace.lease("job")).unwrap_err();
    assert_eq!(
        refused.message,
        ordinary.message.replace("stranger", "candidate"),
        "the refusal should look like any other"
    );
    assert_eq!((refused.code, &refused.details), (403, &ordinary.details));
    assert!(namespace.admin.get(&namespace.lease("job")).is_ok(), "an administrator should need no Role");
    cluster.api_server().read_roles();
    assert!(get().is_ok());

    cluster.api_server().forget_roles_for(2);
    let outcomes = [get(), get(), get(), get()].map(|outcome| outcome.is_ok());
    assert_eq!(outcomes, [false, false, true, true]);
}
