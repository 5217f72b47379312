//! Tests of `leaderrun list`.

use serde_json::{Value, json};

use testkit::exit_status::FAILED;
use testkit::{Candidate, Cluster, TestLock, rbac_rule};

/// Configures a process that runs `leaderrun list` for the namespace of a lock, with the lock's kubeconfig.
fn list(lock: &TestLock) -> Candidate {
    let kubeconfig = lock.kubeconfig.as_ref().expect("the lock has a kubeconfig");
    Candidate::without_default_options("list").args(["list", "-n", lock.namespace(), "--kubeconfig"]).args([kubeconfig])
}

/// Returns the JSON objects that `leaderrun list` prints for the namespace of a lock.
fn listed(lock: &TestLock) -> Vec<Value> {
    let mut list = list(lock).args(["-o", "json"]).start();
    list.wait_for_exit(0);
    serde_json::from_str(&list.output()).expect("the output is a JSON array")
}

/// Returns a lock with the name `name` in the namespace of `lock`. `kind` is a prefix such as `configmap:`, or empty.
fn other_lock(lock: &TestLock, kind: &str, name: &str) -> TestLock {
    TestLock { name: format!("{kind}{}/{name}", lock.namespace()), ..lock.clone() }
}

#[testkit::test]
fn every_lock_is_listed_with_its_state() {
    let lock = TestLock::lease();
    Candidate::new("past", &other_lock(&lock, "", "free")).run(["true"]).wait_for_exit(0);
    let not_due = Candidate::new("past", &other_lock(&lock, "", "tick")).args(["--min-hold", "1h"]);
    not_due.run(["true"]).wait_for_exit(0);
    let a = Candidate::new("a", &other_lock(&lock, "configmap:", "held")).args(["--claim-delay", "2s"]);
    let a = a.run_script("echo held; exec sleep 1000");
    let spec = json!({
        "holderIdentity": "gone\u{1b}[2J", "leaseDurationSeconds": 15, "leaseTransitions": 3,
        "acquireTime": "2020-01-02T03:04:05.000000Z", "renewTime": "2020-01-02T03:04:05.000000Z",
    });
    let admin = Cluster::shared().admin();
    admin
        .replace(&lock.lease_path(), &json!({ "metadata": { "name": "job" }, "spec": spec }))
        .expect("the lease can be written");
    let config_maps = format!("/api/v1/namespaces/{}/configmaps", lock.namespace());
    admin
        .create(&config_maps, &json!({ "metadata": { "name": "settings" } }))
        .expect("a ConfigMap that is not a lock can be created");
    testkit::eventually("a leads", || !a.output().is_empty());

    let mut listing = list(&lock).start();
    listing.wait_for_exit(0);
    let table = listing.output();
    let lines: Vec<Vec<&str>> =
        table.lines().map(|line| line.split("   ").map(str::trim).filter(|cell| !cell.is_empty()).collect()).collect();
    let headings =
        ["NAME", "KIND", "SLOT", "STATE", "HOLDER", "HELD FOR", "RENEWED", "EXPIRES IN", "CLAIM DELAY", "TRANSITIONS"];
    assert_eq!(lines[0], headings);
    let relevant_cells = |cells: &Vec<&str>| {
        // The state has at most seven characters. A time may follow it.
        let state = cells[3].get(..7).unwrap_or(cells[3]);
        [cells[0], cells[1], cells[2], state, cells[4], cells[8]].map(str::to_owned)
    };
    let rows: Vec<[String; 6]> = lines[1..].iter().map(relevant_cells).collect();
    let expected = [
        ["free", "lease", "-", "free", "-", "-"],
        ["held", "configmap", "-", "held", "a", "2s"],
        ["job", "lease", "-", "expired", "gone\\u{1b}[2J", "-"],
        ["tick", "lease", "-", "not due", "-", "-"],
    ];
    assert_eq!(rows, expected, "{table}");
    assert!(lines[3].last() == Some(&"3") && lines[3][6].ends_with(" ago"), "{table}");

    let objects = listed(&lock);
    let values = |field: &str| objects.iter().map(|object| object[field].clone()).collect::<Vec<_>>();
    assert_eq!(values("state"), ["free", "held", "expired", "not-due"]);
    assert_eq!(
        objects[1]["lock"],
        format!("configmap:{}/held", lock.namespace()),
        "the name should be in the form that --lock accepts"
    );
    assert_eq!((&objects[1]["namespace"], &objects[1]["holder"]), (&lock.namespace().into(), &"a".into()));
    assert_eq!((&objects[1]["claimDelaySeconds"], &objects[1]["slot"]), (&json!(2.0), &Value::Null));
}

#[testkit::test]
fn each_used_slot_has_a_row_and_each_lock_with_slots_has_a_summary() {
    let lock = TestLock::of_kind("configmap");
    let run = |name| {
        let candidate = Candidate::new(name, &lock).args(["--slots", "11"]);
        candidate.run_script("echo $LEADERRUN_SLOT; exec sleep 1000")
    };
    let (mut a, b) = (run("a"), run("b"));
    testkit::eventually("both lead", || [&a, &b].iter().all(|leader| leader.output().ends_with('\n')));
    let slot = |leader: &testkit::Running| leader.output().trim().parse::<u32>().expect("the output is a slot");
    let mut slots = [(slot(&a), "a"), (slot(&b), "b")];
    slots.sort_unstable();
    let objects = listed(&lock);
    let listed_slots: Vec<_> =
        objects.iter().map(|object| [&object["slot"], &object["slots"], &object["holder"]]).collect();
    let expected = slots.map(|(slot, holder)| [json!(slot), json!(11), json!(holder)]);
    assert_eq!(
        listed_slots,
        expected.each_ref().map(|[slot, slots, holder]| [slot, slots, holder]),
        "the objects should be in the order of the slots"
    );
    let summary = |held: u32| format!("\n\nconfigmap:{}/job: {held} of 11 slots are held\n", lock.namespace());
    let print_table = || {
        let mut list = list(&lock).start();
        list.wait_for_exit(0);
        list.output()
    };
    for (slot, holder) in slots {
        let name = format!("job-{slot}");
        let (table, cell) = (print_table(), format!("configmap   {slot} of 11 "));
        let row = table
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")))
            .expect("the table has a row for each slot");
        assert!(row.contains(&cell) && row.contains(&format!(" held    {holder} ")), "{table}");
    }
    assert!(print_table().ends_with(&summary(2)), "{}", print_table());
    a.stop();
    assert!(print_table().ends_with(&summary(1)), "{}", print_table());
}

#[testkit::test]
fn a_list_of_all_namespaces_has_a_namespace_column() {
    let (first, second) = (TestLock::lease(), TestLock::lease());
    for lock in [&first, &second] {
        Candidate::new("a", lock).run(["true"]).wait_for_exit(0);
    }
    let kubeconfig = first.kubeconfig.as_ref().expect("the lock has a kubeconfig");
    let list_all =
        || Candidate::without_default_options("list").args(["list", "-A", "--kubeconfig"]).args([kubeconfig]);
    // The option takes precedence over the variable.
    let mut listing = list_all().env("LEADERRUN_NAMESPACE", "elsewhere").start();
    listing.wait_for_exit(0);
    let table = listing.output();
    assert!(table.starts_with("NAMESPACE"), "{table}");
    for lock in [&first, &second] {
        assert!(table.lines().any(|line| line.starts_with(&format!("{} ", lock.namespace()))), "{table}");
    }
    let mut refused = list_all().args(["-n", "x"]).start();
    refused.wait_for_exit(FAILED);
    assert_eq!(refused.log(), "leaderrun: -n x: cannot be used together with -A; leave one of them out\n");
}

#[testkit::test]
fn list_watch_prints_one_line_for_each_change() {
    let lock = TestLock::lease();
    let watch_command = list(&lock).args(["--watch"]).start();
    testkit::eventually("the table is printed", || watch_command.output().contains("TRANSITIONS"));
    let mut a = Candidate::new("a", &lock).run_script("exec sleep 1000");
    testkit::eventually("the acquisition by a is printed", || {
        watch_command.output().contains("job   lease   -   held   a   ")
    });
    a.stop();
    testkit::eventually("the release by a is printed", || {
        watch_command.output().contains("job   lease   -   free   -   ")
    });
    let lines = watch_command.output().lines().count();
    assert_eq!(lines, 3, "renewals should not be shown: {}", watch_command.output());
}

#[testkit::test]
fn list_watch_prints_the_number_of_held_slots_after_each_change() {
    let lock = TestLock::lease();
    let run = |name| Candidate::new(name, &lock).args(["--slots", "3"]).run_script("echo leads; exec sleep 1000");
    let mut a = run("a");
    testkit::eventually("a leads", || !a.output().is_empty());
    let watch_command = list(&lock).args(["--watch"]).start();
    let summary = |held: u32| format!("{}: {held} of 3 slots are held\n", lock.name);
    testkit::eventually("the summary is printed", || watch_command.output().ends_with(&format!("\n\n{}", summary(1))));
    let mut b = run("b");
    testkit::eventually("b is counted", || watch_command.output().ends_with(&summary(2)));
    a.stop();
    testkit::eventually("a is no longer counted", || watch_command.output().ends_with(&summary(1)));
    b.stop();
    testkit::eventually("b is no longer counted", || watch_command.output().ends_with(&summary(0)));
    let summaries = watch_command.output().lines().filter(|line| line.ends_with("slots are held")).count();
    assert_eq!(summaries, 4, "renewals should not change the summary: {}", watch_command.output());
}

#[testkit::test]
fn a_missing_list_permission_is_named() {
    let lock = TestLock::lease_through(Cluster::shared().kubeconfig_for("stranger"));
    let mut refused = list(&lock).start();
    refused.wait_for_exit(FAILED);
    let expected = format!(
        "not allowed to list leases.coordination.k8s.io in namespace \"{}\"; try kubectl create role ",
        lock.namespace()
    );
    assert!(refused.log().contains(&expected), "{}", refused.log());
    Cluster::shared().set_permissions(lock.namespace(), "stranger", json!([rbac_rule("leases", &[], &["list"])]));
    let mut partial = list(&lock).start();
    partial.wait_for_exit(0);
    assert!(partial.log().contains("warning: not allowed to list configmaps"), "{}", partial.log());
    assert!(partial.output().starts_with("NAME"), "{}", partial.output());
}

/// The maximum size of a response that leaderrun accepts, in bytes.
const MAX_RESPONSE: usize = 4 * 1024 * 1024;

#[testkit::test]
fn a_large_config_map_that_is_not_a_lock_does_not_hide_a_lock() {
    let lock = TestLock::of_kind("configmap");
    let config_maps = format!("/api/v1/namespaces/{}/configmaps", lock.namespace());
    // Each of these characters is a single byte in etcd, and six bytes in JSON.
    let data = "\u{1}".repeat(1000 * 1024);
    let large = json!({ "metadata": { "name": "large" }, "data": { "key": data } });
    assert!(large.to_string().len() > MAX_RESPONSE);
    Cluster::shared().admin().create(&config_maps, &large).expect("the ConfigMap can be created");
    Candidate::new("a", &lock).run(["true"]).wait_for_exit(0);
    let objects = listed(&lock);
    let locks: Vec<&Value> = objects.iter().map(|object| &object["lock"]).collect();
    assert_eq!(locks, [&json!(lock.name)]);
}

#[testkit::test]
fn locks_that_do_not_fit_into_one_response_are_listed() {
    let lock = TestLock::lease();
    let annotation = "x".repeat(250 * 1024);
    let names: Vec<String> = (0..=MAX_RESPONSE / annotation.len()).map(|number| format!("large-{number}")).collect();
    for name in &names {
        let large = json!({ "metadata": { "name": name, "annotations": { "key": annotation } }, "spec": {} });
        let path = lock.lease_path().replace("/job", &format!("/{name}"));
        Cluster::shared().admin().replace(&path, &large).expect("the Lease can be written");
    }
    let objects = listed(&lock);
    assert_eq!(objects.iter().map(|object| object["name"].clone()).collect::<Vec<_>>(), names);
}

#[testkit::test]
fn list_warns_about_a_namespace_that_does_not_exist() {
    let nowhere = TestLock { name: "nowhere/job".into(), ..TestLock::lease() };
    let mut empty = list(&nowhere).start();
    empty.wait_for_exit(0);
    assert!(empty.log().starts_with("leaderrun: warning: there is no namespace \"nowhere\"; "), "{}", empty.log());
}

#[testkit::test]
fn new_objects_are_labeled_as_managed_by_leaderrun_and_the_label_may_be_changed() {
    for (kind, plural) in [("lease", None), ("configmap", Some("configmaps")), ("endpoints", Some("endpoints"))] {
        let lock = TestLock::of_kind(kind);
        let path = plural.map_or_else(|| lock.lease_path(), |plural| lock.object_path(plural));
        let run = || Candidate::new("a", &lock).run(["true"]).wait_for_exit(0);
        let labels =
            || Cluster::shared().admin().get(&path).expect("the object can be read")["metadata"]["labels"].clone();
        run();
        assert_eq!(labels(), json!({ "app.kubernetes.io/managed-by": "leaderrun" }), "{kind}");
        let other_label = json!({ "metadata": { "labels": { "app.kubernetes.io/managed-by": "helm" } } });
        Cluster::shared().admin().merge_patch(&path, &other_label).expect("the label can be changed");
        run();
        assert_eq!(labels(), json!({ "app.kubernetes.io/managed-by": "helm" }), "{kind}");
    }
}
