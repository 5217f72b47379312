//! The files in examples/: command lines that the real parser takes, and objects that an API server takes.

use std::ffi::OsString;
use std::fs;

use leaderrun::cli::{self, Invocation};
use serde_json::Value;
use testkit::Cluster;

const MANIFESTS: [&str; 4] = ["deployment", "migration", "service", "tick"];

fn example(name: &str) -> String {
    fs::read_to_string(format!("{}/examples/{name}", env!("CARGO_MANIFEST_DIR"))).expect("an example")
}

fn documents(name: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(&example(&format!("{name}.yaml"))).expect("YAML")
}

fn assert_runs<'a>(arguments: impl Iterator<Item = &'a str>) {
    let arguments: Vec<&str> = arguments.collect();
    let invocation = cli::parse(arguments.iter().map(OsString::from));
    assert!(matches!(invocation, Ok(Invocation::Run(..))), "{arguments:?}: {invocation:?}");
}

/// Every container's command in which leaderrun comes first.
fn commands(document: &Value) -> Vec<Vec<&str>> {
    let pod = &document["spec"]["template"]["spec"];
    let containers = ["initContainers", "containers"].iter().filter_map(|kind| pod[kind].as_array()).flatten();
    let commands = containers.filter_map(|container| container["command"].as_array());
    let words = commands.map(|words| words.iter().filter_map(Value::as_str).collect::<Vec<_>>());
    words.filter(|words| words.first() == Some(&"leaderrun")).collect()
}

#[test]
fn the_command_lines_are_ones() {
    for name in MANIFESTS {
        let documents = documents(name);
        let commands: Vec<_> = documents.iter().flat_map(commands).collect();
        assert_eq!(commands.len(), 1, "{name}");
        commands.into_iter().for_each(|command| assert_runs(command.into_iter()));
    }
    for unit in ["singleton", "failover", "nightly"] {
        let unit = example(&format!("{unit}.service"));
        let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("a command line");
        assert_runs(start.split_whitespace());
    }
}

#[test]
fn an_api_server_takes_the_objects() {
    let (cluster, admin) = (Cluster::shared(), Cluster::shared().admin());
    let namespace = cluster.new_namespace();
    for document in MANIFESTS.into_iter().flat_map(documents) {
        let kind = document["kind"].as_str().expect("a kind").to_owned();
        let path = match &*kind {
            "Role" => format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles"),
            "RoleBinding" => format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings"),
            // Ours has none of these.
            "ServiceAccount" | "Service" | "Deployment" if !cluster.is_real() => continue,
            "ServiceAccount" => format!("/api/v1/namespaces/{namespace}/serviceaccounts"),
            "Service" => format!("/api/v1/namespaces/{namespace}/services"),
            "Deployment" => format!("/apis/apps/v1/namespaces/{namespace}/deployments"),
            other => panic!("what is a {other}?"),
        };
        let made = admin.create(&format!("{path}?fieldValidation=Strict"), &document);
        made.unwrap_or_else(|refusal| panic!("{kind}: {}", refusal.message));
    }
}
