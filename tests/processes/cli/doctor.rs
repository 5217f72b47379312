//! Tests of `leaderrun doctor`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::json;

use testkit::exit_status::FAILED;
use testkit::{CANDIDATE_VERBS, Candidate, Cluster, Proxy, Running, TestLock, rbac_rule, scratch};

/// Runs `leaderrun doctor` with these arguments. It must exit with this status and an empty log.
fn doctor(lock: &TestLock, arguments: &[&str], status: i32) -> Running {
    let mut doctor = Candidate::subcommand("doctor", lock).args(arguments).start();
    doctor.wait_for_exit(status);
    assert_eq!(doctor.log(), "");
    doctor
}

/// Returns the first word after the grade (`ok `, `note ` or `FAILED `) in each line that has this grade.
fn subjects(doctor: &Running, grade: &str) -> Vec<String> {
    let output = doctor.output();
    let lines = output.lines().filter_map(|line| line.strip_prefix(grade));
    lines.map(|line| line.split_whitespace().next().expect("a subject follows the grade").to_owned()).collect()
}

#[testkit::test]
fn the_doctor_confirms_what_works() {
    let lock = TestLock::lease_with_verbs(&CANDIDATE_VERBS);
    let doctor = doctor(&lock, &["--lease-duration", "60s", "--renew-deadline", "30s", "--retry-period", "2s"], 0);
    let confirmed = subjects(&doctor, "ok ");
    for subject in ["API", "latency", "get", "create", "update", "watch", "clocks"] {
        assert!(confirmed.iter().any(|confirmed| confirmed == subject), "{subject}: {}", doctor.output());
    }
    assert!(
        doctor.output().contains("clocks      tolerates clock rates that differ by up to 1.33x"),
        "{}",
        doctor.output()
    );
    let missing = Cluster::shared().admin().get(&lock.lease_path()).unwrap_err();
    assert_eq!(missing.code, 404, "the doctor should write nothing");
}

#[testkit::test]
fn the_doctor_names_each_missing_verb() {
    for missing in CANDIDATE_VERBS {
        let lock = TestLock::lease_through(Cluster::shared().kubeconfig_for("standby"));
        let rest: Vec<&str> = CANDIDATE_VERBS.into_iter().filter(|verb| *verb != missing).collect();
        Cluster::shared().set_permissions(lock.namespace(), "standby", json!([rbac_rule("leases", &["job"], &rest)]));
        let doctor = doctor(&lock, &[], 1);
        assert_eq!(subjects(&doctor, "FAILED "), [missing], "{}", doctor.output());
        let remedy = format!("remedy: leaderrun manifest --lock {} prints a Role", lock.name);
        assert!(doctor.output().contains(&remedy), "{}", doctor.output());
    }
    let other_name = TestLock::lease_through(Cluster::shared().kubeconfig_for("standby"));
    Cluster::shared().set_permissions(
        other_name.namespace(),
        "standby",
        json!([rbac_rule("leases", &["other"], &CANDIDATE_VERBS)]),
    );
    assert_eq!(
        subjects(&doctor(&other_name, &[], 1), "FAILED "),
        CANDIDATE_VERBS,
        "permissions for another name should not count"
    );
}

#[testkit::test]
fn the_doctor_reports_a_missing_namespace() {
    let nowhere = TestLock { name: "nowhere/job".into(), ..TestLock::lease() };
    assert_eq!(subjects(&doctor(&nowhere, &[], 1), "FAILED "), ["namespace"]);
}

#[testkit::test]
fn the_doctor_reports_that_creating_a_configmap_needs_a_rule_without_resource_names() {
    let lock = TestLock::of_kind("configmap").through(Cluster::shared().kubeconfig_for("deputy"));
    let named = rbac_rule("configmaps", &["job"], &CANDIDATE_VERBS);
    Cluster::shared().set_permissions(lock.namespace(), "deputy", json!([named]));
    assert_eq!(subjects(&doctor(&lock, &[], 1), "FAILED "), ["create"]);
    Cluster::shared().set_permissions(
        lock.namespace(),
        "deputy",
        json!([named, rbac_rule("configmaps", &[], &["create"])]),
    );
    doctor(&lock, &[], 0);
}

#[testkit::test]
fn the_doctor_checks_the_permissions_for_both_objects_of_a_lock() {
    let lock = TestLock::of_kind("endpoints+lease").through(Cluster::shared().kubeconfig_for("operator"));
    let endpoints = rbac_rule("endpoints", &["job"], &CANDIDATE_VERBS);
    Cluster::shared().set_permissions(lock.namespace(), "operator", json!([endpoints]));
    let without_leases = doctor(&lock, &[], 1);
    assert_eq!(subjects(&without_leases, "FAILED "), CANDIDATE_VERBS, "{}", without_leases.output());
    assert!(without_leases.output().contains("leases \"job\" in namespace"), "{}", without_leases.output());
    Cluster::shared().set_permissions(
        lock.namespace(),
        "operator",
        json!([endpoints, rbac_rule("leases", &["job"], &CANDIDATE_VERBS)]),
    );
    doctor(&lock, &[], 0);
}

#[testkit::test]
fn the_doctor_reports_a_slow_api_server() {
    let proxy = Proxy::start(Cluster::shared());
    let lock = TestLock::lease_through(proxy.kubeconfig());
    proxy.delay_responses(Duration::from_millis(600));
    let short = ["--lease-duration", "4s", "--renew-deadline", "2s", "--retry-period", "500ms"];
    assert_eq!(subjects(&doctor(&lock, &short, 1), "FAILED "), ["latency"]);
}

#[testkit::test]
fn the_doctor_prints_a_remedy_for_an_api_server_that_cannot_be_used() {
    let proxy = Proxy::start(Cluster::shared());
    let lock = TestLock::lease_through(proxy.kubeconfig());
    proxy.partition();
    let silent = doctor(&lock, &[], 1);
    assert!(silent.output().contains("cannot be reached: no response within 10s\n"), "{}", silent.output());

    let text = fs::read_to_string(Cluster::shared().kubeconfig()).expect("the kubeconfig can be read");
    let wrong = scratch::directory("kubeconfig").join("wrong");
    fs::write(&wrong, text.replace("token-of-admin", "nonsense")).expect("the kubeconfig can be written");
    let unknown = doctor(&lock.through(wrong.clone()), &[], 1);
    assert!(unknown.output().contains("does not accept the credentials"), "{}", unknown.output());

    let none = doctor(&lock.through(wrong.with_file_name("none")), &[], 1);
    assert!(none.output().contains("FAILED  API server  --kubeconfig"), "{}", none.output());
    for doctor in [silent, unknown, none] {
        assert!(doctor.output().contains("remedy: "), "{}", doctor.output());
    }
}

#[testkit::test]
fn the_doctor_reports_a_lock_file_that_cannot_be_used() {
    doctor(&TestLock::file(), &[], 0);
    let missing = TestLock { name: "file:/no/such/directory/x".into(), kubeconfig: None };
    assert_eq!(subjects(&doctor(&missing, &[], 1), "FAILED "), ["record", "directory"]);
    let directory = scratch::directory("read-only");
    let inside = TestLock { name: format!("file:{}", directory.join("x").display()), kubeconfig: None };
    doctor(&inside, &[], 0);
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o555)).expect("the file mode can be changed");
    // root may write to any directory.
    if !nix::unistd::geteuid().is_root() {
        assert_eq!(subjects(&doctor(&inside, &[], 1), "FAILED "), ["directory"]);
        let usable = TestLock::file();
        let companion = format!("{}.lock", usable.name.strip_prefix("file:").expect("the lock is a file lock"));
        fs::write(&companion, "").expect("the file can be written");
        fs::set_permissions(&companion, fs::Permissions::from_mode(0o400)).expect("the file mode can be changed");
        doctor(&usable, &[], 0);
        fs::set_permissions(&companion, fs::Permissions::from_mode(0o000)).expect("the file mode can be changed");
        assert_eq!(subjects(&doctor(&usable, &[], 1), "FAILED "), ["PATH.lock"]);
        // The permissions of the directory do not matter if the record file can be written to.
        let existing = TestLock { name: format!("file:{}", directory.join("existing").display()), kubeconfig: None };
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).expect("the file mode can be changed");
        fs::write(directory.join("existing"), "").expect("the file can be written");
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o555)).expect("the file mode can be changed");
        doctor(&existing, &[], 0);
    }
}

#[testkit::test]
fn the_doctor_shows_the_priority_of_requests() {
    let lock = TestLock::lease();
    let report = doctor(&lock, &[], 0);
    if !Cluster::shared().is_real() {
        // The in-process API server has no priorities.
        assert!(
            report.output().contains("priority    the API server does not report priorities"),
            "{}",
            report.output()
        );
        return;
    }
    let level_uid = |name: &str| {
        let path = format!("/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations/{name}");
        let level = Cluster::shared().admin().get(&path).expect("the priority level exists");
        level["metadata"]["uid"].as_str().expect("an object has a uid").to_owned()
    };
    assert!(report.output().contains("ok      priority    level exempt"), "{}", report.output());
    // Neither account has any permissions, but the API server still assigns their requests to priority levels.
    for (account, level_name) in
        [(format!("{}:job", lock.namespace()), "workload-low"), ("kube-system:job".into(), "leader-election")]
    {
        let account = format!("system:serviceaccount:{account}");
        let mut doctor = Candidate::subcommand("doctor", &lock).args(["--as", &account]).start();
        doctor.wait_for_exit(1);
        assert!(
            doctor.output().contains(&format!("level {}", level_uid(level_name))),
            "{account}: {}",
            doctor.output()
        );
    }
}

#[testkit::test]
fn the_doctor_reports_the_errors_in_a_command_line() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("127.0.0.1 has a free port");
    let address = taken.local_addr().expect("a bound socket has an address").to_string();
    let lock = TestLock::file();
    let arguments = ["--wait", "0s", "--http", &address, "--kill-after", "5s", "--", "sleep 1"];
    let report = doctor(&lock, &arguments, 1);
    assert_eq!(subjects(&report, "FAILED "), ["command", "http"], "{}", report.output());
    assert!(
        report.output().contains("remedy: the command and its arguments were quoted as one word; try -- sleep 1"),
        "{}",
        report.output()
    );
    assert!(report.output().contains("remedy: try --http 127.0.0.1:0 for any free port"), "{}", report.output());
    drop(taken);
    let report = doctor(&lock, &["--http", &address, "--", "sleep", "1"], 0);
    assert!(report.output().contains("ok      command     /"), "{}", report.output());
    let report = doctor(&lock, &["--", "no-such-program"], 1);
    assert!(report.output().contains("no-such-program cannot be found"), "{}", report.output());
    let mut refused = Candidate::subcommand("doctor", &lock).args(["--port", "80"]).start();
    refused.wait_for_exit(FAILED);
    assert!(
        refused.log().contains("--port 80: this option requires --service"),
        "the message should be the same as without the subcommand: {}",
        refused.log()
    );
}

#[testkit::test]
fn the_doctor_finds_the_command_where_leaderrun_would_find_it() {
    let lock = TestLock::file();
    let report = |path: Option<&str>, status: i32| {
        let candidate = Candidate::subcommand("doctor", &lock).configure(|command| {
            match path {
                Some(path) => command.env("PATH", path),
                None => command.env_remove("PATH"),
            };
        });
        let mut doctor = candidate.run(["sh"]);
        doctor.wait_for_exit(status);
        doctor.output()
    };
    let without_path = report(None, 0);
    assert!(without_path.contains("ok      command     /bin/sh\n"), "{without_path}");

    let directory = scratch::directory("programs").join("two words");
    let program = directory.join("sh");
    fs::create_dir(&directory).expect("the directory can be created");
    fs::write(&program, "#!/bin/sh\n").expect("the file can be written");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o644)).expect("the file mode can be changed");
    let path = directory.to_str().expect("the path is UTF-8");
    let not_executable = report(Some(path), 1);
    let finding = format!("FAILED  command     {} is not executable by this user\n", program.display());
    assert!(not_executable.contains(&finding), "{not_executable}");
    let remedy = format!("remedy: chmod +x '{}'\n", program.display());
    assert!(not_executable.contains(&remedy), "{not_executable}");
    // As in a shell, a program in a later directory takes precedence over a file that is not executable.
    let later = report(Some(&format!("{path}:/bin")), 0);
    assert!(later.contains("ok      command     /bin/sh\n"), "{later}");
}

#[testkit::test]
fn the_doctor_reports_a_server_that_is_not_kubernetes() {
    let server = std::net::TcpListener::bind("127.0.0.1:0").expect("127.0.0.1 has a free port");
    let address = server.local_addr().expect("a bound socket has an address");
    std::thread::spawn(move || {
        for stream in server.incoming().flatten() {
            use std::io::{Read, Write};
            let mut stream = stream;
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello");
        }
    });
    let kubeconfig = scratch::directory("kubeconfig").join("other");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "x",
        "clusters": [{ "name": "x", "cluster": { "server": format!("http://{address}") } }],
        "users": [{ "name": "x", "user": {} }],
        "contexts": [{ "name": "x", "context": { "cluster": "x", "user": "x" } }],
    });
    fs::write(&kubeconfig, config.to_string()).expect("the kubeconfig can be written");
    let lock = TestLock { name: "default/job".into(), kubeconfig: Some(kubeconfig) };
    let report = doctor(&lock, &[], 1);
    assert!(report.output().contains("is not a Kubernetes API server: it responds with 200 OK"), "{}", report.output());
}

#[testkit::test]
fn the_doctor_reports_a_service_that_cannot_route_to_the_leader() {
    let lock = TestLock::lease();
    let services = format!("/api/v1/namespaces/{}/services", lock.namespace());
    let service = ["--service", "web", "--port", "8080"];
    let missing = doctor(&lock, &service, 1);
    assert_eq!(subjects(&missing, "FAILED "), ["Service"], "{}", missing.output());
    let spec = json!({ "selector": { "app": "x" }, "ports": [{ "port": 80, "targetPort": 8080, "protocol": "TCP" }] });
    let admin = Cluster::shared().admin();
    admin
        .create(&services, &json!({ "metadata": { "name": "web" }, "spec": spec }))
        .expect("the Service can be created");
    let with_selector = doctor(&lock, &service, 1);
    assert!(with_selector.output().contains("web has a selector"), "{}", with_selector.output());
    let no_selector = json!({ "spec": { "selector": null } });
    admin.merge_patch(&format!("{services}/web"), &no_selector).expect("the Service can be changed");
    let without_selector = doctor(&lock, &service, 0);
    assert!(
        without_selector.output().contains("the Service web can route to the leader"),
        "{}",
        without_selector.output()
    );
    assert!(
        without_selector
            .output()
            .contains("note    address     other machines cannot reach this candidate at 127.0.0.1"),
        "the report should contain the warning that a candidate logs"
    );
    let leftover = json!({ "metadata": { "name": "web" }, "subsets": [{ "addresses": [{ "ip": "10.1.9.9" }] }] });
    let endpoints = format!("/api/v1/namespaces/{}/endpoints", lock.namespace());
    admin.create(&endpoints, &leftover).expect("the Endpoints can be created");
    let report = doctor(&lock, &service, 0);
    assert!(report.output().contains("remedy: delete them: kubectl delete endpoints web"), "{}", report.output());
}

/// Only a Service with both address families needs a second EndpointSlice.
#[testkit::test]
fn the_doctor_checks_the_permissions_for_the_second_slice_of_a_dual_stack_service() {
    let lock = TestLock::lease_through(Cluster::shared().kubeconfig_for("candidate"));
    let (admin, namespace) = (Cluster::shared().admin(), lock.namespace());
    let rules = |slice_names: &[&str]| {
        json!([
            rbac_rule("leases", &["job"], &CANDIDATE_VERBS),
            rbac_rule("services", &["web"], &["get"]),
            rbac_rule("endpoints", &["web"], &["get"]),
            {
                "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"],
                "resourceNames": slice_names, "verbs": ["get", "update"],
            },
        ])
    };
    let services = format!("/api/v1/namespaces/{namespace}/services");
    let create_service = |policy: &str| {
        let spec = json!({ "ipFamilyPolicy": policy, "ports": [{ "port": 80 }] });
        admin
            .create(&services, &json!({ "metadata": { "name": "web" }, "spec": spec }))
            .expect("the Service can be created");
    };
    let create_slice = |name: &str, family: &str| {
        let slice = json!({ "metadata": { "name": name }, "addressType": family, "endpoints": [], "ports": [] });
        let path = format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices");
        admin.create(&path, &slice).expect("the EndpointSlice can be created");
    };
    let routing = ["--service", "web", "--address", "10.1.2.3,fd00::3"];
    create_slice("web-leader", "IPv4");
    Cluster::shared().set_permissions(namespace, "candidate", rules(&["web-leader"]));
    create_service("SingleStack");
    let single = doctor(&lock, &routing, 0);
    assert!(!single.output().contains("web-leader-ipv6"), "{}", single.output());
    admin.delete(&format!("{services}/web")).expect("the Service can be deleted");
    create_service("RequireDualStack");
    assert_eq!(subjects(&doctor(&lock, &routing, 1), "FAILED "), ["get", "update", "create"]);
    Cluster::shared().set_permissions(namespace, "candidate", rules(&["web-leader", "web-leader-ipv6"]));
    assert_eq!(subjects(&doctor(&lock, &routing, 1), "FAILED "), ["create"]);
    create_slice("web-leader-ipv6", "IPv6");
    doctor(&lock, &routing, 0);
}

#[testkit::test]
fn the_doctor_reports_a_pod_that_does_not_exist() {
    let lock = TestLock::lease();
    let report = doctor(&lock, &["--pod-label", "role=leader", "--pod", "no-such-pod"], 1);
    assert!(
        report.output().contains("FAILED  pod         there is no pod \"no-such-pod\" in namespace"),
        "{}",
        report.output()
    );
}

#[testkit::test]
fn the_doctor_does_not_comment_on_valid_durations() {
    let lock = TestLock::lease();
    // The lease duration is as short as leaderrun accepts with this renew deadline.
    let tight = ["--lease-duration", "11s", "--renew-deadline", "10s", "--lost-grace", "0s", "--min-hold", "1h"];
    let report = doctor(&lock, &tight, 0);
    // The limit on locked memory may be too low for an ordinary user.
    let notes = subjects(&report, "note ").into_iter().filter(|subject| subject != "memory");
    assert_eq!(notes.collect::<Vec<_>>(), Vec::<String>::new(), "{}", report.output());
    assert!(report.output().contains("ok      wall clock  "), "{}", report.output());
}
