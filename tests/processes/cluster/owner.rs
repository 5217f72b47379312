//! Tests of `--owner`, which sets the owner of a lock's objects.

use serde_json::{Value, json};

use testkit::exit_status::FAILED;
use testkit::{CANDIDATE_VERBS, Candidate, Client, Cluster, TestLock, eventually, rbac_rule};

const OWNER_OPTION: [&str; 2] = ["--owner", "deployment/web"];

/// Durations that leave enough time for every request, even on a busy machine.
const TIMING: [&str; 6] = ["--lease-duration", "60s", "--renew-deadline", "40s", "--retry-period", "1s"];

fn candidate(lock: &TestLock) -> Candidate {
    Candidate::with_timing("a", lock, TIMING)
}

/// Creates owners, and pods that they control, in the namespace of a lock.
struct Owners {
    client: Client,
    namespace: String,
}

impl Owners {
    fn new(lock: &TestLock) -> Self {
        Self { client: Cluster::shared().admin(), namespace: lock.namespace().to_owned() }
    }

    /// Returns the path of the objects of this kind.
    fn path(&self, kind: &str) -> String {
        let prefix = match kind {
            "Pod" => "/api/v1",
            "Job" | "CronJob" => "/apis/batch/v1",
            _ => "/apis/apps/v1",
        };
        format!("{prefix}/namespaces/{}/{}s", self.namespace, kind.to_lowercase())
    }

    /// Creates an object, which is controlled by `controller` if there is one. Returns a reference to the new object.
    fn create(&self, kind: &str, name: &str, controller: Option<&Value>) -> Value {
        let labels = json!({ "app": "web" });
        let pod_spec = json!({ "containers": [{ "name": "main", "image": "registry.example.com/none" }] });
        let template = json!({ "metadata": { "labels": labels }, "spec": pod_spec });
        let mut job_template = template.clone();
        job_template["spec"]["restartPolicy"] = "Never".into();
        let spec = match kind {
            "Pod" => pod_spec,
            "Job" => json!({ "template": job_template }),
            "CronJob" => json!({ "schedule": "0 3 * * *", "jobTemplate": { "spec": { "template": job_template } } }),
            _ => json!({ "selector": { "matchLabels": labels }, "serviceName": "web", "template": template }),
        };
        let references: Vec<Value> = controller.into_iter().map(as_controller).collect();
        let object = json!({ "metadata": { "name": name, "ownerReferences": references }, "spec": spec });
        let path = self.path(kind);
        let object = self.client.create(&path, &object).unwrap_or_else(|refusal| panic!("{kind}: {refusal:?}"));
        let (prefix, _) = path.split_once("/namespaces/").expect("the path contains a namespace");
        let api_version = prefix.trim_start_matches("/apis/").trim_start_matches("/api/");
        json!({ "apiVersion": api_version, "kind": kind, "name": name, "uid": object["metadata"]["uid"] })
    }
}

/// Returns a copy of `reference` that marks its object as the controller.
fn as_controller(reference: &Value) -> Value {
    let mut reference = reference.clone();
    reference["controller"] = true.into();
    reference
}

/// Returns the owner references of the object at this path.
fn owners_at(path: &str) -> Value {
    Cluster::shared().admin().get(path).expect("the object exists")["metadata"]["ownerReferences"].clone()
}

/// Returns the path of a Lease in the namespace of a lock.
fn lease_path(lock: &TestLock, name: &str) -> String {
    format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases/{name}", lock.namespace())
}

#[testkit::test]
fn every_object_of_a_lock_gets_the_owner() {
    for (kind, slots) in [("lease", None), ("configmap", None), ("endpoints+lease", None), ("lease", Some("2"))] {
        let lock = TestLock::of_kind(kind);
        let deployment = Owners::new(&lock).create("Deployment", "web", None);
        let slot_options: Vec<&str> = slots.into_iter().flat_map(|slots| ["--slots", slots]).collect();
        let mut run = candidate(&lock).args(OWNER_OPTION).args(&slot_options).run_script("echo $LEADERRUN_SLOT");
        run.wait_for_exit(0);
        let lease_name = if slots.is_none() { "job".to_owned() } else { format!("job-{}", run.output().trim()) };
        let paths = match kind {
            "lease" => vec![lease_path(&lock, &lease_name)],
            "configmap" => vec![lock.object_path("configmaps")],
            _ => vec![lock.object_path("endpoints"), lease_path(&lock, "job")],
        };
        for path in paths {
            // The reference has neither `controller` nor `blockOwnerDeletion`: the owner does not manage the lock, and
            // its deletion need not wait for the deletion of the lock.
            assert_eq!(owners_at(&path), json!([deployment]), "{path}");
        }
        assert!(!run.log().contains("has no owner"), "{}", run.log());
    }
}

#[testkit::test]
fn an_existing_lock_gets_the_owner_when_it_is_acquired() {
    let lock = TestLock::lease();
    candidate(&lock).run(["true"]).wait_for_exit(0);
    assert_eq!(owners_at(&lock.lease_path()), json!(null), "there should be no owner by default");
    let owners = Owners::new(&lock);
    let other = owners.create("StatefulSet", "other", None);
    let first = owners.create("Deployment", "web", None);
    let other_owner = json!({ "metadata": { "ownerReferences": [other] } });
    owners.client.merge_patch(&lock.lease_path(), &other_owner).expect("the owner can be added");
    let run = || candidate(&lock).args(OWNER_OPTION).run_script("exec sleep 1000");
    let mut a = run();
    eventually("the owner is added", || owners_at(&lock.lease_path()) == json!([other, first]));
    a.stop();
    // A recreated Deployment has a different uid.
    owners.client.delete(&format!("{}/web", owners.path("Deployment"))).expect("the object is deleted");
    let second = owners.create("Deployment", "web", None);
    let mut a = run();
    eventually("the owner is replaced", || owners_at(&lock.lease_path()) == json!([other, second]));
    a.stop();
}

#[testkit::test]
fn with_owner_auto_the_topmost_controller_of_the_pod_becomes_the_owner() {
    // Each chain begins with the expected owner and ends with the controller of the pod.
    let chains: [&[(&str, &str)]; 5] = [
        &[("Deployment", "web"), ("ReplicaSet", "web-1")],
        &[("CronJob", "web"), ("Job", "web-1")],
        &[("StatefulSet", "web")],
        &[("DaemonSet", "web")],
        &[("Job", "web-1")],
    ];
    for chain in chains {
        let lock = TestLock::lease();
        let owners = Owners::new(&lock);
        let mut references: Vec<Value> = Vec::new();
        for (kind, name) in chain {
            references.push(owners.create(kind, name, references.last()));
        }
        owners.create("Pod", "web-1-x", references.last());
        let auto = ["--owner", "auto", "--pod", "web-1-x"];
        let mut run = candidate(&lock).args(auto).run(["true"]);
        run.wait_for_exit(0);
        assert_eq!(owners_at(&lock.lease_path()), json!([references[0]]), "{chain:?}");
    }
}

#[testkit::test]
fn a_lock_whose_owner_cannot_be_found_works_without_an_owner() {
    let cluster = Cluster::shared();
    let lock = TestLock::lease_through(cluster.kubeconfig_for("candidate"));
    let rules = json!([rbac_rule("leases", &["job"], &CANDIDATE_VERBS)]);
    cluster.set_permissions(lock.namespace(), "candidate", rules);
    let namespace = lock.namespace();
    let pod_spec = json!({ "containers": [{ "name": "main", "image": "registry.example.com/none" }] });
    let pod = json!({ "metadata": { "name": "alone" }, "spec": pod_spec });
    cluster.admin().create(&format!("/api/v1/namespaces/{namespace}/pods"), &pod).expect("the pod can be created");
    let as_admin = TestLock { name: format!("{namespace}/other"), ..lock.through(cluster.kubeconfig()) };
    for (lock, options, expected) in [
        (
            &lock,
            &OWNER_OPTION[..],
            format!(
                "{namespace}/job has no owner: not allowed to get deployments.apps \"web\" in namespace \"{namespace}\"; \
                 leaderrun manifest --lock {namespace}/job --owner deployment/web prints a Role that allows it"
            ),
        ),
        (
            &as_admin,
            &OWNER_OPTION,
            format!("there is no Deployment \"web\" in namespace \"{namespace}\"; set --owner to an existing object"),
        ),
        (&as_admin, &["--owner", "auto", "--pod", "none"], "there is no Pod \"none\"".to_owned()),
        (&as_admin, &["--owner", "auto", "--pod", "alone"], "no controller created the pod \"alone\"".to_owned()),
    ] {
        let mut run = candidate(lock).args(options).run(["true"]);
        run.wait_for_exit(0);
        assert!(run.log().contains(&expected), "{expected}: {}", run.log());
        assert_eq!(run.log().matches("has no owner").count(), 1, "the warning should be logged once: {}", run.log());
    }
}

#[testkit::test]
fn the_manifest_for_an_owner_grants_all_permissions_that_leaderrun_doctor_requires() {
    let cluster = Cluster::shared();
    for options in [&OWNER_OPTION[..], &["--owner", "auto"]] {
        let lock = TestLock::lease_through(cluster.kubeconfig_for("candidate"));
        let owners = Owners::new(&lock);
        let pod: &[&str] = if options.contains(&"auto") { &["--pod", "web-1-x"] } else { &[] };
        let doctor = || Candidate::subcommand("doctor", &lock).args(options).args(pod).start();
        cluster.set_permissions(
            lock.namespace(),
            "candidate",
            json!([rbac_rule("leases", &["job"], &CANDIDATE_VERBS)]),
        );
        let mut forbidden = doctor();
        forbidden.wait_for_exit(1);
        assert!(forbidden.output().contains("not allowed; the lock's objects get no owner"), "{}", forbidden.output());
        let remedy = format!("leaderrun manifest --lock {} {} prints a Role", lock.name, options.join(" "));
        assert!(forbidden.output().contains(&remedy), "{}", forbidden.output());

        let mut printed = Candidate::without_default_options("manifest")
            .args(["manifest", "--lock", &lock.name])
            .args(options)
            .start();
        printed.wait_for_exit(0);
        let documents: Vec<Value> = serde_saphyr::from_multiple(&printed.output()).expect("the output is valid YAML");
        let role = documents.iter().find(|document| document["kind"] == "Role").expect("the output contains a Role");
        cluster.set_permissions(lock.namespace(), "candidate", role["rules"].clone());
        let mut missing = doctor();
        missing.wait_for_exit(1);
        assert!(missing.output().contains("FAILED  owner       there is no "), "{}", missing.output());

        let deployment = owners.create("Deployment", "web", None);
        let replica_set = owners.create("ReplicaSet", "web-1", Some(&deployment));
        owners.create("Pod", "web-1-x", Some(&replica_set));
        let mut found = doctor();
        found.wait_for_exit(0);
        let expected = "ok      owner       the Deployment web becomes the owner of the lock's objects";
        assert!(found.output().contains(expected), "{}", found.output());
        let mut run = candidate(&lock).args(options).args(pod).run(["true"]);
        run.wait_for_exit(0);
        assert_eq!(owners_at(&lock.lease_path()), json!([deployment]));
        assert!(!run.log().contains("has no owner"), "{}", run.log());
    }
}

/// The test deletes the Lease itself, as Kubernetes' garbage collector does once the owner is gone.
#[testkit::test]
fn a_held_lock_outlives_its_owner_and_gets_its_owner_back_on_release() {
    let lock = TestLock::lease();
    let owners = Owners::new(&lock);
    let deployment = owners.create("Deployment", "web", None);
    let mut a = candidate(&lock).args(OWNER_OPTION).run_script("echo $LEADERRUN_RUN_ID; exec sleep 1000");
    eventually("a leads", || !a.output().is_empty());
    assert_eq!(owners_at(&lock.lease_path()), json!([deployment]));
    let admin = &owners.client;
    admin.delete(&format!("{}/web", owners.path("Deployment"))).expect("the Deployment is deleted");
    admin.delete(&lock.lease_path()).expect("the Lease is deleted");
    let lease = || admin.get(&lock.lease_path()).unwrap_or_default();
    eventually("the holder recreates the Lease", || lease()["spec"]["holderIdentity"] == "a");
    assert_eq!(
        owners_at(&lock.lease_path()),
        json!(null),
        "there should be no owner: if the deleted owner were set, Kubernetes would delete the Lease again"
    );
    a.wait_for_log("has no owner: there is no Deployment");
    a.stop();
    assert_eq!(
        owners_at(&lock.lease_path()),
        json!([deployment]),
        "a released lock should have its deleted owner again, so that Kubernetes deletes the Lease"
    );
}

#[testkit::test]
fn a_lock_works_if_the_api_server_refuses_to_set_its_owner() {
    let cluster = Cluster::start_in_process();
    let namespace = cluster.new_namespace();
    let lock = TestLock { name: format!("{namespace}/job"), kubeconfig: Some(cluster.kubeconfig_for("candidate")) };
    let owner_rule = json!({ "apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get"] });
    let rules = json!([rbac_rule("leases", &["job"], &CANDIDATE_VERBS), owner_rule]);
    cluster.set_permissions(&namespace, "candidate", rules);
    let owners = Owners { client: cluster.admin(), namespace };
    let deployment = owners.create("Deployment", "web", None);
    candidate(&lock).run(["true"]).wait_for_exit(0);
    cluster.api_server().protect_owners();
    let run = || candidate(&lock).args(OWNER_OPTION).run(["true"]);
    let mut refused = run();
    refused.wait_for_exit(0);
    let expected =
        "cannot set an ownerRef on a resource you can't delete: , <nil>; allow this user to delete the lock's objects";
    assert!(refused.log().contains(expected), "{}", refused.log());
    assert_eq!(refused.log().matches("has no owner").count(), 1, "{}", refused.log());
    let lease = || cluster.admin().get(&lock.lease_path()).expect("the Lease exists");
    assert_eq!(lease()["metadata"]["ownerReferences"], json!(null));
    // The API server still permits a candidate to create an object with an owner.
    cluster.admin().delete(&lock.lease_path()).expect("the object is deleted");
    let mut created = run();
    created.wait_for_exit(0);
    assert!(!created.log().contains("has no owner"), "{}", created.log());
    assert_eq!(lease()["metadata"]["ownerReferences"], json!([deployment]));
}

#[testkit::test]
fn invalid_owners_are_refused() {
    for (lock, owner, expected) in [
        ("a/b", "web", "--owner web: an owner is auto or KIND/NAME; try --owner deployment/web"),
        (
            "a/b",
            "service/web",
            "--owner service/web: the kind of an owner is one of deployment, statefulset, daemonset, replicaset, job, cronjob; \
             for example --owner deployment/my-job",
        ),
        ("a/b", "deploy/Web", "try --owner deploy/web"),
        (
            "file:/tmp/x",
            "auto",
            "--owner auto: --lock file:/tmp/x is not in a cluster, so it has no owner; leave --owner out",
        ),
    ] {
        let mut refused =
            Candidate::without_default_options("refused").args(["--lock", lock, "--owner", owner]).run(["true"]);
        refused.wait_for_exit(FAILED);
        assert!(refused.log().contains(expected), "{owner}: {}", refused.log());
    }
}
