//! Tests of `leaderrun manifest`.

use serde_json::Value;

use testkit::exit_status::FAILED;
use testkit::{Candidate, Client, Cluster, TestLock, Witnesses, eventually};

/// Returns the documents that `leaderrun manifest` prints for the lock with this name.
fn documents(name: &str, arguments: &[&str]) -> Vec<Value> {
    let mut printed =
        Candidate::without_default_options("manifest").args(["manifest", "--lock", name]).args(arguments).start();
    printed.wait_for_exit(0);
    assert_eq!(printed.log(), "");
    serde_saphyr::from_multiple(&printed.output()).expect("the manifest is valid YAML")
}

/// Creates the object in each document. Skips FlowSchemas if the tests use the in-process API server, which does not
/// support this kind.
fn apply(documents: &[Value]) {
    let cluster = Cluster::shared();
    for document in documents {
        let namespace = document["metadata"]["namespace"].as_str().unwrap_or_default();
        let kind = document["kind"].as_str().expect("each document has a kind");
        let rbac = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}");
        let path = match kind {
            "Role" => format!("{rbac}/roles"),
            "RoleBinding" => format!("{rbac}/rolebindings"),
            "FlowSchema" if !cluster.is_real() => continue,
            "ServiceAccount" => format!("/api/v1/namespaces/{namespace}/serviceaccounts"),
            "FlowSchema" => "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas".to_owned(),
            other => panic!("the manifest should contain no {other}"),
        };
        let created = cluster.admin().create(&format!("{path}?fieldValidation=Strict"), document);
        created.unwrap_or_else(|refusal| panic!("{kind}: {}", refusal.message));
    }
}

/// Returns a client with which the administrator impersonates a service account.
fn client_for(namespace: &str, service_account: &str) -> Client {
    let user = format!("system:serviceaccount:{namespace}:{service_account}");
    Cluster::shared().admin().with_header("impersonate-user", &user)
}

#[testkit::test]
fn the_manifest_grants_all_permissions_that_a_candidate_needs() {
    for kind in ["lease", "endpoints", "configmap", "endpoints+lease", "configmap+lease"] {
        let (lock, witnesses) = (TestLock::of_kind(kind), Witnesses::new());
        let user = format!("system:serviceaccount:{}:job", lock.namespace());
        let early = Candidate::new("early", &lock).args(["--as", &user, "--wait", "0s"]).run_script("true");
        early.wait_for_log("not allowed to get");
        drop(early);

        let documents = documents(&lock.name, &["--priority"]);
        apply_and_wait(&lock, "job", &documents);
        let mut a = Candidate::new("a", &lock).args(["--as", &user]).run_witness(&witnesses, &[]);
        witnesses.wait_for("a", 1);
        let mut b = Candidate::new("b", &lock).args(["--as", &user]).run_witness(&witnesses, &["ends"]);
        b.wait_for_log("held by a");
        a.stop();
        b.wait_for_exit(0);
        for candidate in [&a, &b] {
            assert!(!candidate.log().contains("warning"), "{kind}: {}", candidate.log());
        }
        if Cluster::shared().is_real() {
            assert_flow_schema_is_applied(&lock, kind, &documents);
        }
    }
}

/// Applies the manifest of a lock, and waits until the service account has the permissions in it.
fn apply_and_wait(lock: &TestLock, service_account: &str, documents: &[Value]) {
    apply(documents);
    for role in documents.iter().filter(|document| document["kind"] == "Role") {
        testkit::wait_until_allowed(&client_for(lock.namespace(), service_account), lock.namespace(), &role["rules"]);
    }
}

#[testkit::test]
fn the_manifest_grants_all_permissions_that_routing_needs() {
    let service = ["--service", "web", "--port", "8080", "--address", "10.1.2.3"];
    let label = ["--pod-label", "role=leader", "--pod", "a"];
    for (arguments, route) in [(&service[..], "the Service web"), (&label[..], "the label role=leader on pod a")] {
        let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
        let pod_spec = serde_json::json!({ "containers": [{ "name": "main", "image": "registry.example.com/none" }] });
        let pod = serde_json::json!({ "metadata": { "name": "a" }, "spec": pod_spec });
        let pods = format!("/api/v1/namespaces/{}/pods", lock.namespace());
        Cluster::shared().admin().create(&pods, &pod).expect("the Pod can be created");
        let service = serde_json::json!({ "metadata": { "name": "web" }, "spec": { "ports": [{ "port": 8080 }] } });
        let services = format!("/api/v1/namespaces/{}/services", lock.namespace());
        Cluster::shared().admin().create(&services, &service).expect("the Service can be created");
        let user = format!("system:serviceaccount:{}:worker", lock.namespace());
        let doctor = |status| {
            let mut doctor = Candidate::subcommand("doctor", &lock).args(["--as", &user]).args(arguments).start();
            doctor.wait_for_exit(status);
            doctor.output()
        };
        let report_before = doctor(1);
        let options = [&arguments[..2], &["--service-account", "worker"]].concat();
        let remedy = format!("leaderrun manifest --lock {} {} ", lock.name, options.join(" "));
        assert!(report_before.contains("not allowed; traffic is not routed to the leader"), "{report_before}");
        // doctor may also print a remedy for a low limit on locked memory, which is not about permissions.
        let is_about_permissions = |line: &&str| line.contains("remedy: ") && !line.contains("locked memory");
        for line in report_before.lines().filter(is_about_permissions) {
            assert!(line.contains(&remedy), "{line}");
        }
        apply_and_wait(&lock, "worker", &documents(&lock.name, &options));
        let report_after = doctor(0);
        assert!(!report_after.contains("not allowed"), "{report_after}");
        let mut a = Candidate::new("a", &lock).args(["--as", &user]).args(arguments).run_witness(&witnesses, &[]);
        a.wait_for_log(&format!("{route} routes to this candidate"));
        a.stop();
        a.wait_for_log(&format!("{route} no longer routes to this candidate"));
        assert!(!a.log().contains("warning"), "{}", a.log());
    }
}

/// Checks that the API server applies the manifest's FlowSchema to requests for the lock's object.
fn assert_flow_schema_is_applied(lock: &TestLock, kind: &str, documents: &[Value]) {
    let admin = Cluster::shared().admin();
    let schema =
        documents.iter().find(|document| document["kind"] == "FlowSchema").expect("the manifest contains a FlowSchema");
    let name = schema["metadata"]["name"].as_str().expect("the FlowSchema has a name");
    let path = format!("/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/{name}");
    let uid = admin.get(&path).expect("the FlowSchema exists")["metadata"]["uid"].clone();
    let path = match kind.split('+').next() {
        Some("endpoints") => lock.object_path("endpoints"),
        Some("configmap") => lock.object_path("configmaps"),
        _ => lock.lease_path(),
    };
    let client = client_for(lock.namespace(), "job");
    eventually("the API server applies the FlowSchema", || {
        let response = client.send(hyper::Method::GET, &path, None, testkit::TIMEOUT).expect("the server responds");
        response
            .headers
            .get("x-kubernetes-pf-flowschema-uid")
            .is_some_and(|applied| *applied == *uid.as_str().expect("a stored object has a uid"))
    });
}

#[testkit::test]
fn names_that_yaml_could_read_as_another_type_are_quoted() {
    for (namespace, name) in [("123", "1e3"), ("0x1f", "true"), ("null", "no"), ("y", "on.1")] {
        let documents = documents(&format!("{namespace}/{name}"), &["--priority"]);
        let [account, role, binding, schema] = &documents[..] else { panic!("{documents:?}") };
        assert_eq!(
            (&account["metadata"]["namespace"], &account["metadata"]["name"]),
            (&namespace.into(), &name.into())
        );
        assert_eq!(role["metadata"]["namespace"], namespace);
        assert_eq!(role["rules"][0]["resourceNames"][0], name);
        assert_eq!(
            (&binding["metadata"]["namespace"], &binding["subjects"][0]["name"]),
            (&namespace.into(), &name.into())
        );
        assert_eq!(schema["spec"]["rules"][0]["subjects"][0]["serviceAccount"]["namespace"], namespace);
    }
}

#[testkit::test]
fn the_manifest_uses_the_chosen_service_account() {
    let documents = documents("default/job", &["--service-account", "worker", "--priority"]);
    assert_eq!(documents[0]["metadata"]["name"], "worker");
    assert_eq!(documents[1]["metadata"]["name"], "leaderrun-job");
    assert_eq!(documents[2]["subjects"][0]["name"], "worker");
    assert_eq!(documents[3]["spec"]["rules"][0]["subjects"][0]["serviceAccount"]["name"], "worker");
}

#[testkit::test]
fn manifest_refuses_a_lock_file_and_a_lock_whose_namespace_is_not_known() {
    for (lock, expected) in [
        (
            "file:/run/x",
            "--lock file:/run/x: this lock is not in a cluster, so it needs no permissions; name a lock in a cluster, for example --lock default/my-job",
        ),
        ("x", "--lock x: its namespace is not known: "),
    ] {
        let manifest = Candidate::without_default_options("manifest")
            .env("HOME", "/nonexistent")
            .args(["manifest", "--lock", lock]);
        let mut refused = manifest.start();
        refused.wait_for_exit(FAILED);
        assert!(refused.log().contains(expected), "{}", refused.log());
    }
}

#[testkit::test]
fn the_manifest_has_the_namespace_of_the_context_or_of_the_option() {
    let kubeconfig = Cluster::shared().kubeconfig();
    let kubeconfig = kubeconfig.to_str().expect("the path is valid UTF-8");
    let from_context = documents("job", &["--kubeconfig", kubeconfig, "--context", "test"]);
    assert!(from_context.iter().all(|document| document["metadata"]["namespace"] == "default"), "{from_context:?}");
    let from_option = documents("job", &["-n", "prod"]);
    assert!(from_option.iter().all(|document| document["metadata"]["namespace"] == "prod"), "{from_option:?}");
}

/// The administrator of one namespace must be able to apply the default manifest.
#[testkit::test]
fn permissions_that_only_a_cluster_administrator_may_grant_are_optional_or_in_a_separate_role() {
    let kinds = |arguments: &[&str]| -> Vec<String> {
        let kind = |document: &Value| document["kind"].as_str().expect("each document has a kind").to_owned();
        documents("default/job", arguments).iter().map(kind).collect()
    };
    assert_eq!(kinds(&[]), ["ServiceAccount", "Role", "RoleBinding"]);
    assert_eq!(kinds(&["--priority"]).last().map(String::as_str), Some("FlowSchema"));
    let service = documents("default/job", &["--service", "web"]);
    let resources = |role: &Value| -> Vec<String> {
        role["rules"]
            .as_array()
            .expect("a Role has rules")
            .iter()
            .map(|rule| rule["resources"][0].as_str().expect("each rule names a resource").to_owned())
            .collect()
    };
    let [_, main_role, _, separate_role, binding] = &service[..] else { panic!("{service:?}") };
    assert!(!resources(main_role).contains(&"endpointslices".to_owned()), "{main_role}");
    assert!(resources(separate_role).iter().all(|resource| resource == "endpointslices"), "{separate_role}");
    assert_eq!(
        (&separate_role["metadata"]["name"], &binding["roleRef"]["name"]),
        (&"leaderrun-job-service".into(), &"leaderrun-job-service".into())
    );
}
