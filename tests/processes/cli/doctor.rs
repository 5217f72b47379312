//! `leaderrun doctor`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::json;

use testkit::{CANDIDATE_VERBS, Candidate, Cluster, Proxy, Running, TestLock, rbac_rule, scratch};

fn doctor(lock: &TestLock, arguments: &[&str], status: i32) -> Running {
    let mut doctor = Candidate::subcommand("doctor", lock).args(arguments).start();
    doctor.wait_for_exit(status);
    assert_eq!(doctor.log(), "");
    doctor
}

fn lines(doctor: &Running, grade: &str) -> Vec<String> {
    let output = doctor.output();
    let lines = output.lines().filter_map(|line| line.strip_prefix(grade));
    lines.map(|line| line.split_whitespace().next().expect("what it is about").to_owned()).collect()
}

#[testkit::test]
fn the_doctor_confirms_what_works() {
    let lock = TestLock::lease_through(Cluster::shared().kubeconfig_for("candidate"));
    Cluster::shared().grant(lock.namespace(), "candidate", json!([rbac_rule("leases", &["job"], &CANDIDATE_VERBS)]));
    let doctor = doctor(&lock, &["--lease-duration", "60s", "--renew-deadline", "30s", "--retry-period", "2s"], 0);
    let ok = lines(&doctor, "ok ");
    for what in ["API", "latency", "get", "create", "update", "watch", "clocks"] {
        assert!(ok.iter().any(|line| line == what), "{what}: {}", doctor.output());
    }
    assert!(doctor.output().contains("clocks      may run 1.33x apart"), "{}", doctor.output());
    let nothing = Cluster::shared().admin().get(&lock.lease_path()).unwrap_err();
    assert_eq!(nothing.code, 404, "nothing is written");
}

#[testkit::test]
fn the_doctor_names_each_missing_verb() {
    for missing in CANDIDATE_VERBS {
        let lock = TestLock::lease_through(Cluster::shared().kubeconfig_for("standby"));
        let rest: Vec<&str> = CANDIDATE_VERBS.into_iter().filter(|verb| *verb != missing).collect();
        Cluster::shared().grant(lock.namespace(), "standby", json!([rbac_rule("leases", &["job"], &rest)]));
        let doctor = doctor(&lock, &[], 1);
        assert_eq!(lines(&doctor, "FAILED "), [missing], "{}", doctor.output());
        let remedy = format!("remedy: leaderrun manifest --lock {} prints a Role", lock.name);
        assert!(doctor.output().contains(&remedy), "{}", doctor.output());
    }
    let nowhere = TestLock { name: "nowhere/job".into(), ..TestLock::lease() };
    assert_eq!(lines(&doctor(&nowhere, &[], 1), "FAILED "), ["namespace"]);
    let elsewhere = TestLock::lease_through(Cluster::shared().kubeconfig_for("standby"));
    Cluster::shared().grant(
        elsewhere.namespace(),
        "standby",
        json!([rbac_rule("leases", &["other"], &CANDIDATE_VERBS)]),
    );
    assert_eq!(lines(&doctor(&elsewhere, &[], 1), "FAILED "), CANDIDATE_VERBS, "rights for another name do not count");
}

#[testkit::test]
fn a_configmap_needs_an_open_create() {
    let lock = TestLock::of_kind("configmap").through(Cluster::shared().kubeconfig_for("deputy"));
    let named = rbac_rule("configmaps", &["job"], &CANDIDATE_VERBS);
    Cluster::shared().grant(lock.namespace(), "deputy", json!([named]));
    assert_eq!(lines(&doctor(&lock, &[], 1), "FAILED "), ["create"]);
    Cluster::shared().grant(lock.namespace(), "deputy", json!([named, rbac_rule("configmaps", &[], &["create"])]));
    doctor(&lock, &[], 0);
}

#[testkit::test]
fn both_objects_are_checked() {
    let lock = TestLock::of_kind("endpoints+lease").through(Cluster::shared().kubeconfig_for("operator"));
    let endpoints = rbac_rule("endpoints", &["job"], &CANDIDATE_VERBS);
    Cluster::shared().grant(lock.namespace(), "operator", json!([endpoints]));
    let without = doctor(&lock, &[], 1);
    assert_eq!(lines(&without, "FAILED "), CANDIDATE_VERBS, "{}", without.output());
    assert!(without.output().contains("leases \"job\" in namespace"), "{}", without.output());
    Cluster::shared().grant(
        lock.namespace(),
        "operator",
        json!([endpoints, rbac_rule("leases", &["job"], &CANDIDATE_VERBS)]),
    );
    doctor(&lock, &[], 0);
}

#[testkit::test]
fn a_slow_api_server_is_a_failure() {
    let proxy = Proxy::start(Cluster::shared());
    let lock = TestLock::lease_through(proxy.kubeconfig());
    proxy.delay_replies(Duration::from_millis(600));
    let short = ["--lease-duration", "4s", "--renew-deadline", "2s", "--retry-period", "500ms"];
    assert_eq!(lines(&doctor(&lock, &short, 1), "FAILED "), ["latency"]);
}

#[testkit::test]
fn an_unreachable_server_has_a_remedy() {
    let proxy = Proxy::start(Cluster::shared());
    let lock = TestLock::lease_through(proxy.kubeconfig());
    proxy.partition();
    let silent = doctor(&lock, &[], 1);
    assert!(silent.output().contains("cannot be reached: no answer within 10s\n"), "{}", silent.output());

    let text = fs::read_to_string(Cluster::shared().kubeconfig()).expect("a kubeconfig");
    let wrong = scratch::folder("kubeconfig").join("wrong");
    fs::write(&wrong, text.replace("token-of-admin", "nonsense")).expect("a kubeconfig");
    let unknown = doctor(&lock.through(wrong.clone()), &[], 1);
    assert!(unknown.output().contains("does not know who is asking"), "{}", unknown.output());

    let none = doctor(&lock.through(wrong.with_file_name("none")), &[], 1);
    assert!(none.output().contains("FAILED  API server  --kubeconfig"), "{}", none.output());
    for doctor in [silent, unknown, none] {
        assert!(doctor.output().contains("remedy: "), "{}", doctor.output());
    }
}

#[testkit::test]
fn a_file_needs_a_folder_that_can_be_written_to() {
    doctor(&TestLock::file(), &[], 0);
    let missing = TestLock { name: "file:/no/such/folder/x".into(), kubeconfig: None };
    assert_eq!(lines(&doctor(&missing, &[], 1), "FAILED "), ["record", "folder"]);
    let folder = scratch::folder("read-only");
    let inside = TestLock { name: format!("file:{}", folder.join("x").display()), kubeconfig: None };
    doctor(&inside, &[], 0);
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o555)).expect("a folder");
    // Nobody keeps root from writing.
    if !nix::unistd::geteuid().is_root() {
        assert_eq!(lines(&doctor(&inside, &[], 1), "FAILED "), ["folder"]);
        let beside = TestLock::file();
        let lock_file = format!("{}.lock", beside.name.strip_prefix("file:").expect("a file"));
        fs::write(&lock_file, "").expect("a file");
        fs::set_permissions(&lock_file, fs::Permissions::from_mode(0o400)).expect("its rights");
        doctor(&beside, &[], 0);
        fs::set_permissions(&lock_file, fs::Permissions::from_mode(0o000)).expect("its rights");
        assert_eq!(lines(&doctor(&beside, &[], 1), "FAILED "), ["lock"]);
        // A file that can be written needs nothing of its folder.
        let made = TestLock { name: format!("file:{}", folder.join("made").display()), kubeconfig: None };
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("a folder");
        fs::write(folder.join("made"), "").expect("a file");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o555)).expect("a folder");
        doctor(&made, &[], 0);
    }
}

#[testkit::test]
fn the_doctor_shows_the_priority_of_requests() {
    let lock = TestLock::lease();
    let shown = doctor(&lock, &[], 0);
    if !Cluster::shared().is_real() {
        // Ours has no priorities.
        assert!(shown.output().contains("priority    the API server does not say"), "{}", shown.output());
        return;
    }
    let level = |name: &str| {
        let path = format!("/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations/{name}");
        Cluster::shared().admin().get(&path).expect("a level")["metadata"]["uid"].as_str().expect("a uid").to_owned()
    };
    assert!(shown.output().contains("ok      priority    level exempt"), "{}", shown.output());
    // Neither may do anything; the API server orders their requests all the same.
    for (account, of) in
        [(format!("{}:job", lock.namespace()), "workload-low"), ("kube-system:job".into(), "leader-election")]
    {
        let account = format!("system:serviceaccount:{account}");
        let mut doctor = Candidate::subcommand("doctor", &lock).args(["--as", &account]).start();
        doctor.wait_for_exit(1);
        assert!(doctor.output().contains(&format!("level {}", level(of))), "{account}: {}", doctor.output());
    }
}
