//! Tests of `/metrics`: the values that alerts use, and the rules for names.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use serde::Deserialize;
use serde_json::json;

use testkit::http::{get, samples, wait_for_samples};
use testkit::{Candidate, Cluster, Match, Proxy, Running, TestLock, Witnesses, eventually};

const REFERENCE: &str = include_str!("../../../docs/reference.md");

/// The option that serves HTTP on any free port.
const HTTP: [&str; 2] = ["--http", "127.0.0.1:0"];

#[testkit::test]
fn the_renewal_margin_shrinks_before_a_slow_api_server_causes_a_loss() {
    let (proxy, witnesses) = (Proxy::start(Cluster::shared()), Witnesses::new());
    let lock = TestLock::lease_through(proxy.kubeconfig());
    let timing = ["--lease-duration", "40s", "--renew-deadline", "20s", "--retry-period", "1s"];
    let a = Candidate::with_timing("a", &lock, timing).args(HTTP).run_witness(&witnesses, &[]);
    let minimum = "leaderrun_renewal_margin_minimum_seconds";
    let low_margins = "leaderrun_renewal_margin_seconds_bucket{le=\"16\"}";
    let slow_renewals = |samples: &testkit::http::Samples| {
        samples.value("leaderrun_renewal_duration_seconds_count")
            - samples.value("leaderrun_renewal_duration_seconds_bucket{le=\"2.5\"}")
    };
    let before = wait_for_samples(&a, "a renewal", |samples| samples.value(minimum) < 20.0);
    proxy.delay_requests(Duration::from_secs(3));
    let after = wait_for_samples(&a, "two late renewals", |samples| {
        samples.value(low_margins) >= before.value(low_margins) + 2.0
    });
    assert!(after.value(minimum) <= 16.0, "{}", after.value(minimum));
    assert!(slow_renewals(&after) >= slow_renewals(&before) + 2.0);
    assert_eq!(after.value("leader_election_master_status"), 1.0);
    assert_eq!(after.value("leaderrun_losses_total{reason=\"not_renewed\"}"), 0.0);
    assert_eq!(witnesses.lifetimes_of("a")[0].signaled_at, 0, "the command got a stop signal: {}", a.log());
}

#[testkit::test]
fn renewals_are_counted_by_their_results() {
    let (proxy, witnesses) = (Proxy::start(Cluster::shared()), Witnesses::new());
    let lock = TestLock::lease_through(proxy.kubeconfig());
    let a = Candidate::new("a", &lock).args(HTTP).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let next_renewal = || Match::put().next(1);
    let wait_until_counted = |result: &str| {
        let series = format!("leaderrun_renewals_total{{result=\"{result}\"}}");
        wait_for_samples(&a, &format!("a renewal with the result {result}"), |samples| samples.value(&series) >= 1.0);
    };
    wait_until_counted("success");
    for (status, result) in [(409, "conflict"), (429, "refused"), (500, "error")] {
        proxy.respond(next_renewal(), status, None);
        wait_until_counted(result);
    }
    proxy.drop_responses(next_renewal());
    wait_until_counted("timeout");
}

/// Waits until a candidate has rejoined this many times.
fn wait_for_rejoins(running: &Running, times: usize) {
    eventually("the candidate has rejoined", || running.log().matches("serving HTTP on").count() == times + 1);
}

#[testkit::test]
fn losses_are_counted_across_rejoins() {
    let (proxy, witnesses) = (Proxy::start(Cluster::shared()), Witnesses::new());
    let lock = TestLock::lease_through(proxy.kubeconfig());
    let a = Candidate::new("a", &lock).args(HTTP).args(["--on-lost", "rejoin"]).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    proxy.partition();
    a.wait_for_log("waiting for the lock again");
    proxy.heal();
    wait_for_rejoins(&a, 1);
    witnesses.wait_for("a", 2);
    let other_holder = json!({ "spec": { "holderIdentity": "somebody", "leaseDurationSeconds": 2 } });
    Cluster::shared().admin().merge_patch(&lock.lease_path(), &other_holder).expect("the Lease can be changed");
    wait_for_rejoins(&a, 2);
    witnesses.wait_for("a", 3);
    let counted =
        wait_for_samples(&a, "three starts", |samples| samples.value("leaderrun_command_starts_total") == 3.0);
    assert_eq!(counted.value("leaderrun_losses_total{reason=\"not_renewed\"}"), 1.0);
    assert_eq!(counted.value("leaderrun_losses_total{reason=\"taken\"}"), 1.0);
    assert_eq!(
        counted.value("leaderrun_command_ends_total{status=\"0\"}"),
        1.0,
        "the first command should be ended by the stop signal"
    );
    // On a busy machine, the elector may have to kill the supervisor together with its command. The command's status
    // is then unknown.
    assert!(
        a.log().contains("the supervisor is late; killing the command")
            || counted.value("leaderrun_command_ends_total{status=\"137\"}") == 1.0,
        "the second command should be killed without a grace period: {}",
        a.log()
    );
    // One transition was from the candidate's own earlier run, and one from another holder.
    assert_eq!(counted.value("leaderrun_transitions_total"), 2.0);
}

#[testkit::test]
fn failures_of_the_supervisor_are_counted() {
    let (lock, witnesses) = (TestLock::file(), Witnesses::new());
    let a = Candidate::new("a", &lock).args(HTTP).args(["--on-lost", "rejoin"]).run_witness(&witnesses, &[]);
    for (rejoins, (signal, reason)) in
        [(Signal::SIGKILL, "supervisor_died"), (Signal::SIGSTOP, "supervisor_late")].into_iter().enumerate()
    {
        witnesses.wait_for("a", rejoins + 1);
        kill(a.supervisor(), signal).expect("the process is alive");
        wait_for_rejoins(&a, rejoins + 1);
        assert_eq!(samples(&a).value(&format!("leaderrun_losses_total{{reason=\"{reason}\"}}")), 1.0);
    }
}

#[testkit::test]
fn restarts_of_a_watch_are_counted() {
    let (proxy, witnesses) = (Proxy::start(Cluster::shared()), Witnesses::new());
    let lock = TestLock::lease();
    let _a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let b = Candidate::new("b", &lock.through(proxy.kubeconfig())).args(HTTP).run_witness(&witnesses, &[]);
    proxy.wait_for_request(testkit::ReceivedRequest::is_watch, testkit::TIMEOUT);
    assert_eq!(samples(&b).value("leaderrun_watch_restarts_total"), 0.0);
    proxy.break_connections();
    wait_for_samples(&b, "another watch", |samples| samples.value("leaderrun_watch_restarts_total") >= 1.0);
}

/// Returns the metrics of a leader after its first renewal.
fn leader_metrics() -> String {
    let a = Candidate::new("a", &TestLock::file()).args(HTTP).run_script("sleep 1000");
    wait_for_samples(&a, "a renewal", |samples| samples.value("leaderrun_renewal_margin_seconds_count") >= 1.0);
    get(&a, "/metrics").body
}

/// A metric family: the texts of its HELP and TYPE lines, and the names of its samples and labels.
#[derive(Debug, Default)]
struct Family {
    help: String,
    kind: String,
    samples: BTreeSet<String>,
    labels: BTreeSet<String>,
}

/// Parses metrics in the text format. Checks that the lines of each family are together, with HELP and TYPE first.
fn families(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            let family = Family { help: help.to_owned(), ..Family::default() };
            assert!(families.insert(name.to_owned(), family).is_none(), "{name} has two HELP lines");
            current = name.to_owned();
            continue;
        }
        let family = families.get_mut(&current).expect("HELP comes first");
        if let Some(kind) = line.strip_prefix(&format!("# TYPE {current} ")) {
            assert!(family.kind.is_empty() && family.samples.is_empty(), "{line}");
            family.kind = kind.to_owned();
            continue;
        }
        let (name, rest) = line.split_once('{').expect("each sample has labels");
        let (labels, value) = rest.rsplit_once("} ").expect("each sample has a value");
        let _: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
        let labels = labels.split(',').map(|label| label.split('=').next().expect("each label has a name").to_owned());
        family.labels.extend(labels);
        family.samples.insert(name.to_owned());
    }
    families
}

/// Checks the rules of client_golang's promlint, and some of our own.
#[testkit::test]
fn the_names_follow_the_rules_of_promlint() {
    let families = families(&leader_metrics());
    assert!(families.len() > 10, "{families:#?}");
    for (name, Family { help, kind, samples, labels }) in &families {
        assert!(REFERENCE.contains(&format!("`{name}`")), "docs/reference.md does not list {name}");
        assert!(!help.trim().is_empty(), "{name} should have a help text");
        let words: Vec<&str> = name.split('_').collect();
        for unit in ["milliseconds", "microseconds", "nanoseconds", "minutes", "hours", "days", "weeks", "percent"] {
            assert!(!words.contains(&unit), "{name} should use base units");
        }
        for abbreviation in ["s", "ms", "us", "ns", "sec", "b", "kb", "mb", "m", "h", "d"] {
            assert!(!words.contains(&abbreviation), "{name} should not abbreviate its unit");
        }
        if words.contains(&"seconds") {
            assert_eq!(words.last(), Some(&"seconds"), "{name} should end in its unit");
        }
        assert_eq!(
            kind == "counter",
            name.ends_with("_total"),
            "{name}: counters, and only counters, should end in _total"
        );
        if kind == "histogram" {
            let expected = ["bucket", "sum", "count"].map(|suffix| format!("{name}_{suffix}"));
            assert_eq!(*samples, BTreeSet::from(expected));
            assert!(labels.contains("le"));
        } else {
            assert_eq!(*samples, BTreeSet::from([name.clone()]));
            assert!(!["_bucket", "_sum", "_count"].iter().any(|suffix| name.ends_with(suffix)), "{name}");
            assert!(!labels.contains("le") && !labels.contains("quantile"), "{name}: {labels:?}");
        }
        assert!(["counter", "gauge", "histogram"].contains(&kind.as_str()), "{name}: {kind}");
        for kind in ["counter", "gauge", "histogram", "summary", "untyped", "metric"] {
            assert!(!words.contains(&kind), "{name} should not contain a type");
        }
        let is_snake_case = |name: &str| name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        assert!(
            is_snake_case(name) && labels.iter().all(|label| is_snake_case(label)),
            "{name}, {labels:?}: names should be in snake_case, without colons"
        );
        assert!(labels.contains("name"), "{name} should have a label with the name of the lock");
    }
}

#[derive(Deserialize)]
struct PrometheusRule {
    spec: Spec,
}

#[derive(Deserialize)]
struct Spec {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    alert: String,
    expr: String,
}

#[testkit::test]
fn the_alerts_only_use_metrics_that_exist() {
    let rules: PrometheusRule = serde_saphyr::from_str(include_str!("../../../examples/alerts.yaml"))
        .expect("the alerts are a valid PrometheusRule");
    let rules: Vec<Rule> = rules.spec.groups.into_iter().flat_map(|group| group.rules).collect();
    let mut samples: BTreeSet<String> =
        families(&leader_metrics()).into_values().flat_map(|family| family.samples).collect();
    // These metrics are only present after a measurement or with --slots.
    let conditional_metrics =
        ["leaderrun_scheduling_delay_seconds", "leaderrun_kill_seconds", "leaderrun_slot_leading"];
    samples.extend(conditional_metrics.map(str::to_owned));
    assert!(rules.len() >= 4);
    for Rule { alert, expr } in rules {
        let is_word_character = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let words = expr.split(|c: char| !is_word_character(c));
        let metrics: Vec<&str> = words.filter(|word| word.starts_with("leader")).collect();
        assert!(!metrics.is_empty(), "{alert}: {expr}");
        for metric in metrics {
            assert!(samples.contains(metric), "{alert}: no metric is called {metric}; the metrics are {samples:#?}");
        }
    }
}
