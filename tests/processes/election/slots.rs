//! Tests of `--slots`: several leaders, each in a different slot.

use std::collections::BTreeSet;
use std::ffi::OsString;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use testkit::exit_status::{FAILED, LOST, NOT_ACQUIRED};
use testkit::http::{samples, wait_for_leader_report};
use testkit::{Candidate, Cluster, Proxy, Running, TestLock, Witnesses, eventually, eventually_some, is_alive};

/// A lock with slots, and separate witnesses for each slot, because commands of different slots may be alive at the
/// same time.
struct Slots {
    lock: TestLock,
    witnesses: Vec<Witnesses>,
}

impl Slots {
    fn new(lock: TestLock, count: usize) -> Self {
        Self { lock, witnesses: (0..count).map(|_| Witnesses::new()).collect() }
    }

    /// Creates a candidate for all slots. `lock` is `self.lock`, possibly reached through a proxy.
    fn candidate(&self, name: &str, lock: &TestLock) -> Candidate {
        Candidate::new(name, lock).args(["--slots", &self.witnesses.len().to_string()])
    }

    /// Returns a command that becomes a witness of the slot in which it runs.
    fn command(&self) -> Vec<OsString> {
        let command_line = |witnesses: &Witnesses| {
            let command = witnesses.command(&[]);
            let arguments: Vec<String> = command.iter().map(|argument| argument.to_string_lossy().into()).collect();
            arguments.join(" ")
        };
        let slots = self.witnesses.iter().enumerate();
        let cases: Vec<String> =
            slots.map(|(slot, witnesses)| format!("{slot}) exec {} ;;", command_line(witnesses))).collect();
        let script = format!("case $LEADERRUN_SLOT in {} esac", cases.join(" "));
        ["sh", "-c", &script].into_iter().map(OsString::from).collect()
    }

    fn run(&self, name: &str) -> Running {
        self.candidate(name, &self.lock).run(self.command())
    }

    /// Returns the candidate whose command runs in a slot now.
    fn holder(&self, slot: usize) -> Option<String> {
        let lifetimes = self.witnesses[slot].lifetimes();
        lifetimes.iter().find(|life| is_alive(life.pid)).map(|life| life.holder().to_owned())
    }

    /// Waits until every slot has a different leader and these leaders meet `condition`. Returns the leaders.
    #[track_caller]
    fn wait_until_filled(&self, condition: impl Fn(&[String]) -> bool) -> Vec<String> {
        let holders = || (0..self.witnesses.len()).map(|slot| self.holder(slot)).collect::<Option<Vec<_>>>();
        let is_filled = |holders: &Vec<String>| {
            holders.iter().collect::<BTreeSet<_>>().len() == holders.len() && condition(holders)
        };
        eventually_some("every slot has a different leader, and the leaders meet the condition", || {
            holders().filter(&is_filled)
        })
    }

    /// Checks that each slot had one command at a time. `runs` contains the expected number of runs in each slot.
    fn assert_runs_one_at_a_time(&self, runs: &[usize]) {
        for (witnesses, runs) in self.witnesses.iter().zip(runs) {
            witnesses.assert_runs_one_at_a_time(*runs);
        }
    }

    fn lock_of_slot(&self, slot: usize) -> TestLock {
        TestLock { name: format!("{}-{slot}", self.lock.name), ..self.lock.clone() }
    }
}

/// Returns the candidate with this name, which is its index.
fn candidate_named<'a>(candidates: &'a mut [Running], name: &str) -> &'a mut Running {
    let index: usize = name.parse().expect("candidates are numbered");
    &mut candidates[index]
}

#[testkit::test]
fn three_of_five_candidates_lead_and_a_slot_without_a_leader_is_filled_again() {
    for lock in [TestLock::lease(), TestLock::file(), TestLock::of_kind("configmap")] {
        let slots = Slots::new(lock, 3);
        let mut candidates: Vec<Running> = (0..5).map(|number| slots.run(&number.to_string())).collect();
        let first = slots.wait_until_filled(|_| true);

        // This kills the elector. Its supervisor then stops the command, and the record of the slot expires.
        candidate_named(&mut candidates, &first[0]).signal(Signal::SIGKILL);
        let second = slots.wait_until_filled(|holders| holders[0] != first[0]);
        assert_eq!(second[1..], first[1..], "the other slots should keep their leaders");

        let mut step_down = Candidate::subcommand("step-down", &slots.lock_of_slot(1)).start();
        step_down.wait_for_exit(0);
        let third = slots.wait_until_filled(|holders| holders[1] != second[1]);
        assert_eq!((&third[0], &third[2]), (&second[0], &second[2]));

        for holder in &third {
            candidate_named(&mut candidates, holder).stop();
        }
        slots.assert_runs_one_at_a_time(&[2, 2, 1]);
    }
}

#[testkit::test]
fn a_rolling_restart_fills_every_slot_again() {
    for lock in [TestLock::lease(), TestLock::file()] {
        let slots = Slots::new(lock, 3);
        let mut candidates: Vec<Running> = (0..5).map(|number| slots.run(&number.to_string())).collect();
        let mut holders = slots.wait_until_filled(|_| true);
        for (number, candidate) in candidates.iter_mut().enumerate() {
            let old = number.to_string();
            candidate.stop();
            *candidate = slots.run(&format!("new-{number}"));
            holders = slots.wait_until_filled(|holders| !holders.contains(&old));
        }
        assert!(holders.iter().all(|holder| holder.starts_with("new-")), "{holders:?}");
        let count_runs = |witnesses: &Witnesses| {
            witnesses.lifetimes().into_iter().map(|lifetime| lifetime.run).collect::<BTreeSet<_>>().len()
        };
        // How often a slot changes its leader depends on chance, so only overlaps are checked.
        let runs: Vec<usize> = slots.witnesses.iter().map(count_runs).collect();
        slots.assert_runs_one_at_a_time(&runs);
    }
}

#[testkit::test]
fn the_slot_of_a_leader_that_is_cut_off_is_taken_over() {
    let proxy = Proxy::start(Cluster::shared());
    let slots = Slots::new(TestLock::lease(), 2);
    let mut cut_off = slots.candidate("0", &slots.lock.through(proxy.kubeconfig())).run(slots.command());
    eventually("candidate 0 leads in one slot", || (0..2).any(|slot| slots.holder(slot).is_some()));
    let mut other_candidates: Vec<Running> = ["1", "2"].map(|name| slots.run(name)).into();
    let before = slots.wait_until_filled(|holders| holders.contains(&"0".to_owned()));
    proxy.partition();
    let after = slots.wait_until_filled(|holders| !holders.contains(&"0".to_owned()));
    cut_off.wait_for_exit(LOST);
    let slot = before.iter().position(|holder| holder == "0").expect("candidate 0 leads in one slot");
    assert_eq!(after[1 - slot], before[1 - slot], "the other slot should keep its leader");
    other_candidates.iter_mut().for_each(Running::stop);
    let runs = if slot == 0 { [2, 1] } else { [1, 2] };
    slots.assert_runs_one_at_a_time(&runs);
}

#[testkit::test]
fn the_slot_is_named_in_the_environment_and_in_the_leader_report_and_in_the_metrics() {
    let lock = TestLock::lease();
    let mut a = Candidate::new("a", &lock)
        .args(["--slots", "2", "--http", "127.0.0.1:0"])
        .env("LEADERRUN_SLOT", "7")
        .run_script("echo $LEADERRUN_SLOT $LEADERRUN_HELD_LOCK; sleep inf");
    let report = wait_for_leader_report(&a, "a leads", |leader| leader["leading"] == true);
    let slot = report["slot"].as_u64().expect("the report names the slot");
    assert_eq!((&report["lock"], &report["slots"]), (&json!(lock.name), &json!(2)));
    let held = format!("{}-{slot}", lock.name);
    eventually("the command has printed its slot", || a.output() == format!("{slot} {held}\n"));
    for number in 0..2 {
        let sample = format!("leaderrun_slot_leading{{slot=\"{number}\"}}");
        let expected = f64::from(u8::from(number == slot));
        assert_eq!(samples(&a).value(&sample), expected, "{sample}");
    }
    assert!(a.log().contains(&format!("as leader of {held}")), "{}", a.log());
    a.stop();
    // Without `--slots`, the variable is removed, because an outer leaderrun may have set it.
    let mut without_slots = Candidate::new("a", &lock).env("LEADERRUN_SLOT", "7").run_script("echo [$LEADERRUN_SLOT]");
    without_slots.wait_for_exit(0);
    assert_eq!(without_slots.output(), "[]\n");
}

#[testkit::test]
fn each_slot_has_its_own_min_hold() {
    let slots = Slots::new(TestLock::file(), 2);
    let run_job =
        |name| slots.candidate(name, &slots.lock).args(["--min-hold", "1h", "--wait", "0s"]).run_script("true");
    run_job("0").wait_for_exit(0);
    run_job("1").wait_for_exit(0);
    let mut third = run_job("2");
    third.wait_for_exit(NOT_ACQUIRED);
    assert!(third.log().contains("not due before"), "{}", third.log());
}

#[testkit::test]
fn the_printed_role_permits_leading_and_routing_in_every_slot() {
    let (lock, cluster) = (TestLock::lease(), Cluster::shared());
    cluster.set_permissions(lock.namespace(), "candidate", json!([]));
    let restricted = lock.through(cluster.kubeconfig_for("candidate"));
    let refused = Candidate::new("a", &restricted).args(["--slots", "3"]).run_script("true");
    refused.wait_for_log("resourceNames: [job-0, job-1, job-2]");
    assert_eq!(refused.log().matches("kind: Role").count(), 1, "{}", refused.log());
    drop(refused);

    let service = ["--service", "web-{slot}"];
    let mut printed = Candidate::without_default_options("manifest")
        .args(["manifest", "--lock", &lock.name, "--slots", "3"])
        .args(service)
        .start();
    printed.wait_for_exit(0);
    let documents: Vec<Value> = serde_saphyr::from_multiple(&printed.output()).expect("the output is valid YAML");
    // Permissions that only a cluster administrator may grant are in a separate Role.
    let roles = documents.iter().filter(|document| document["kind"] == "Role");
    let rules: Vec<Value> =
        roles.flat_map(|role| role["rules"].as_array().expect("a Role has rules").clone()).collect();
    let names = |plural: &str| {
        let of_kind = |rule: &&Value| rule["resources"] == json!([plural]) && !rule["resourceNames"].is_null();
        rules.iter().find(of_kind).expect("the Roles have a rule for each resource")["resourceNames"].clone()
    };
    assert_eq!(names("leases"), json!(["job-0", "job-1", "job-2"]));
    assert_eq!(names("services"), json!(["web-0", "web-1", "web-2"]));
    let slices = json!([
        "web-0-leader",
        "web-0-leader-ipv6",
        "web-1-leader",
        "web-1-leader-ipv6",
        "web-2-leader",
        "web-2-leader-ipv6",
    ]);
    assert_eq!(names("endpointslices"), slices);

    cluster.set_permissions(lock.namespace(), "candidate", rules.into());
    let services = format!("/api/v1/namespaces/{}/services", lock.namespace());
    for slot in 0..3 {
        let spec = json!({ "ports": [{ "port": 80, "targetPort": 8080 }] });
        let service_object = json!({ "metadata": { "name": format!("web-{slot}") }, "spec": spec });
        cluster.admin().create(&services, &service_object).expect("the Service can be created");
    }
    let serve = |name, address| {
        let candidate = Candidate::new(name, &restricted).args(["--slots", "3", "--address", address]).args(service);
        candidate.run_script("sleep inf")
    };
    let mut all = [serve("a", "10.1.2.3"), serve("b", "10.1.2.4"), serve("c", "10.1.2.5")];
    for candidate in &all {
        candidate.wait_for_log(" routes to this candidate");
        assert!(!candidate.log().contains("warning"), "{}", candidate.log());
    }
    let addresses: BTreeSet<String> = (0..3).map(|slot| address_in(&lock, slot)).collect();
    assert_eq!(addresses.into_iter().collect::<Vec<_>>(), ["10.1.2.3", "10.1.2.4", "10.1.2.5"]);
    all.iter_mut().for_each(Running::stop);
}

/// Returns the address to which a slot's traffic is routed.
fn address_in(lock: &TestLock, slot: usize) -> String {
    let slices = format!("/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices", lock.namespace());
    let slice =
        Cluster::shared().admin().get(&format!("{slices}/web-{slot}-leader")).expect("the EndpointSlice can be read");
    slice["endpoints"][0]["addresses"][0].as_str().expect("the EndpointSlice has an address").to_owned()
}

#[testkit::test]
fn invalid_slot_options_are_refused() {
    for (arguments, expected) in [
        (&["--lock", "a/b", "--slots", "1"][..], "--slots 1: a lock has 2 to 64 slots; try --slots 3"),
        (
            &["--lock", "endpoints+lease:a/b", "--slots", "3"],
            "--lock endpoints+lease:a/b: --slots 3 needs a lock that is stored in a single object; try --lock a/b",
        ),
        (
            &["--lock", "a/b", "--slots", "3", "--pod-label", "role=leader"],
            "--pod-label role=leader: each slot needs its own label; try --pod-label 'role=leader-{slot}'",
        ),
        (
            &["--lock", "a/b", "--service", "web-{slot}"],
            "--service 'web-{slot}': {slot} can only be used with --slots; try --service 'web-{slot}' --slots 3",
        ),
    ] {
        let mut refused = Candidate::without_default_options("refused").args(arguments).run_script("echo started");
        refused.wait_for_exit(FAILED);
        assert!(refused.log().contains(expected), "{arguments:?}: {}", refused.log());
    }
}
