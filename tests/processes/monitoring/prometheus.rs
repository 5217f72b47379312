//! Tests of the metrics, alerts and dashboard with Prometheus and promtool, from Debian's package `prometheus`.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use testkit::http::{address, get, request, wait_for_status};
use testkit::{Candidate, Running, TIMEOUT, TestLock, Witnesses, eventually, scratch};

const REFERENCE: &str = include_str!("../../../docs/reference.md");
const ALERTS: &str = include_str!("../../../examples/alerts.yaml");
const ALERT_TESTS: &str = include_str!("../../../examples/alerts.test.yaml");
const DASHBOARD: &str = include_str!("../../../examples/dashboard.json");

/// The option that serves HTTP on any free port.
const HTTP: [&str; 2] = ["--http", "127.0.0.1:0"];

#[track_caller]
fn assert_success(output: &Output) {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && stderr.is_empty(), "{stdout}{stderr}");
}

#[testkit::test(requires = testkit::check_installed("promtool"))]
fn promtool_accepts_the_metrics() {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let a = Candidate::new("a", &lock).args(HTTP).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let b = Candidate::new("b", &lock).args(HTTP).run_witness(&witnesses, &[]);
    wait_for_status(&b, "/readyz", 200);
    for candidate in [&a, &b] {
        let mut promtool = Command::new("promtool");
        promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut promtool = promtool.spawn().expect("promtool can be started");
        let metrics = get(candidate, "/metrics").body;
        promtool.stdin.take().expect("stdin is a pipe").write_all(metrics.as_bytes()).expect("the write succeeds");
        assert_success(&promtool.wait_with_output().expect("promtool can be waited for"));
    }
}

/// Writes the alerting rules without the fields that only the Prometheus operator reads, as JSON, which is valid YAML.
fn write_rules(directory: &Path) {
    let rules: Value = serde_saphyr::from_str(ALERTS).expect("the alerts are valid YAML");
    fs::write(directory.join("rules.yaml"), rules["spec"].to_string()).expect("the rules can be written");
}

#[testkit::test(requires = testkit::check_installed("promtool"))]
fn the_alerts_fire_under_their_conditions() {
    let directory = scratch::directory("alerts");
    write_rules(&directory);
    fs::write(directory.join("alerts.test.yaml"), ALERT_TESTS).expect("the tests can be written");
    for arguments in [["check", "rules", "rules.yaml"], ["test", "rules", "alerts.test.yaml"]] {
        assert_success(
            &Command::new("promtool").args(arguments).current_dir(&directory).output().expect("promtool can be run"),
        );
    }
    let rules: Value = serde_saphyr::from_str(ALERTS).expect("the alerts are valid YAML");
    let tests: Value = serde_saphyr::from_str(ALERT_TESTS).expect("the tests are valid YAML");
    let tests = tests["tests"].as_array().expect("the file lists tests").iter();
    let cases: Vec<&Value> =
        tests.flat_map(|test| test["alert_rule_test"].as_array().expect("each test has cases")).collect();
    for rule in rules["spec"]["groups"][0]["rules"].as_array().expect("the group has rules") {
        let alert = &rule["alert"];
        let fires = |case: &Value| case["exp_alerts"].as_array().is_some_and(|alerts| !alerts.is_empty());
        assert!(
            cases.iter().any(|case| case["alertname"] == *alert && fires(case)),
            "{alert} should have a test in which it fires"
        );
    }
}

#[testkit::test]
fn every_metric_is_used_in_the_dashboard_or_in_an_alert() {
    let (_, table) = REFERENCE.split_once("\n## Metrics\n").expect("the reference has a section about metrics");
    let (table, _) = table.split_once("\n## ").unwrap_or((table, ""));
    let metrics: Vec<&str> = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert!(metrics.len() > 10, "{metrics:?}");
    let queries: String = dashboard_queries("lock").into_iter().map(|(_, query)| query).collect();
    let unused = metrics.into_iter().filter(|metric| !queries.contains(metric) && !ALERTS.contains(metric));
    assert_eq!(unused.collect::<Vec<_>>(), [""; 0]);
}

/// A Prometheus server that scrapes candidates every second.
struct Prometheus {
    process: Child,
    port: u16,
}

impl Prometheus {
    fn start(candidates: &[&Running]) -> Self {
        let directory = scratch::directory("prometheus");
        write_rules(&directory);
        let targets: Vec<String> = candidates.iter().map(|candidate| address(candidate).to_string()).collect();
        let config = json!({
            "global": { "scrape_interval": "1s", "evaluation_interval": "1s" },
            "rule_files": ["rules.yaml"],
            "scrape_configs": [{ "job_name": "leaderrun", "static_configs": [{ "targets": targets }] }],
        });
        fs::write(directory.join("prometheus.yaml"), config.to_string()).expect("the configuration can be written");
        let free = TcpListener::bind("127.0.0.1:0").expect("127.0.0.1 has a free port");
        let port = free.local_addr().expect("a bound socket has an address").port();
        drop(free);
        let process = Command::new("prometheus")
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .args(["--config.file=prometheus.yaml", "--storage.tsdb.path=data", "--log.level=error"])
            .current_dir(&directory)
            .stdin(Stdio::null())
            .spawn()
            .expect("prometheus can be started");
        Self { process, port }
    }

    /// Returns the current result of a query, which is empty while Prometheus is not ready.
    fn query(&self, query: &str) -> Vec<Value> {
        let path = format!("/api/v1/query?query={}", percent_encode(query));
        let head = format!("GET {path} HTTP/1.0\r\nHost: test\r\n\r\n");
        let Ok(page) = request(([127, 0, 0, 1], self.port).into(), &head, TIMEOUT) else { return Vec::new() };
        if page.status == 503 {
            return Vec::new();
        }
        let response: Value = serde_json::from_str(&page.body).expect("the response is JSON");
        assert_eq!(response["status"], "success", "{query}: {response}");
        response["data"]["result"].as_array().expect("a successful response has a result").clone()
    }

    /// Waits until the result of a query is not empty.
    #[track_caller]
    fn wait_for(&self, query: &str) {
        eventually(query, || !self.query(query).is_empty());
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Percent-encodes a query for a URL.
fn percent_encode(query: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric();
    query
        .bytes()
        .map(|byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// Returns all queries of the dashboard as Grafana would send them for `lock`, each with the title of its panel.
fn dashboard_queries(lock: &str) -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("the dashboard is JSON");
    let panels = dashboard["panels"].as_array().expect("the dashboard has panels").iter();
    let queries = panels.flat_map(|panel| {
        let title = panel["title"].as_str().expect("each panel has a title");
        let targets = panel["targets"].as_array().expect("each panel has targets").iter();
        targets.map(move |target| (title.to_owned(), target["expr"].as_str().expect("each target has a query")))
    });
    queries
        .map(|(title, query)| (title, query.replace("$lock", lock).replace("$__rate_interval", "10s")))
        .inspect(|(_, query)| assert!(!query.contains('$'), "{query}"))
        .collect()
}

#[testkit::test(requires = testkit::check_installed("prometheus"))]
fn prometheus_shows_a_hand_over() {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let mut a = Candidate::new("a", &lock).args(HTTP).args(["--on-lost", "rejoin"]).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let b = Candidate::new("b", &lock).args(HTTP).run_witness(&witnesses, &[]);
    wait_for_status(&b, "/readyz", 200);
    let (address_of_a, address_of_b) = (address(&a), address(&b));
    let prometheus = Prometheus::start(&[&a, &b]);
    let leads =
        |address| format!("leader_election_master_status{{name=\"{}\",instance=\"{address}\"}} == 1", lock.name);
    prometheus.wait_for(&leads(address_of_a));
    prometheus.wait_for(&format!("leaderrun_state{{state=\"waiting\",instance=\"{address_of_b}\"}} == 1"));
    a.signal(Signal::SIGTERM);
    a.wait();
    witnesses.wait_for("b", 1);
    prometheus.wait_for(&leads(address_of_b));
    prometheus.wait_for(&format!("leaderrun_transitions_total{{name=\"{}\"}} == 1", lock.name));
    // Until the next scrape, both candidates seem to lead.
    prometheus.wait_for(&format!("sum(leader_election_master_status{{name=\"{}\"}}) == 1", lock.name));
    prometheus.wait_for("count(leaderrun_renewal_margin_seconds_bucket) > 0");
    assert!(prometheus.query("ALERTS{alertstate=\"firing\",severity=\"critical\"}").is_empty());
    let panels_that_may_be_empty = ["Scheduling delay", "Time that a kill would take", "Slots"];
    for (title, query) in dashboard_queries(&lock.name) {
        // Even for an empty panel, Prometheus must accept the query.
        if panels_that_may_be_empty.contains(&&*title) {
            prometheus.query(&query);
        } else {
            prometheus.wait_for(&query);
        }
    }
}
