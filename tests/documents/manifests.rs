//! Checks the manifests in the documents and examples: an API server must accept them unchanged, and the permissions in
//! them must be enough for their candidates to lead.

use serde_json::Value;
use testkit::{Candidate, Cluster};

use crate::blocks::{blocks_in, read};

/// The namespace of objects whose manifest has no namespace.
const NAMESPACE: &str = "default";

/// The command that the candidates run instead of their own, which needs the image in the manifest.
const COMMAND: [&str; 3] = ["sh", "-c", "exec sleep 1000"];

/// The variable that a manifest sets from the pod's status.
const ADDRESS: &str = "LEADERRUN_ADDRESS";

/// The examples that are manifests for an API server. Another test checks the examples for Prometheus.
const EXAMPLES: [&str; 5] = ["deployment", "migration", "ready", "service", "tick"];

/// Creates the objects with strict validation. `name` identifies the manifest in failure messages.
fn apply(cluster: &Cluster, name: &str, objects: &[Value]) {
    for object in objects {
        let field = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{name}: {object}")).to_owned();
        let (version, kind) = (field(&object["apiVersion"]), field(&object["kind"]));
        let root = if version.contains('/') { format!("/apis/{version}") } else { format!("/api/{version}") };
        let plural = format!("{}s", kind.to_lowercase());
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or(NAMESPACE);
        let path = format!("{root}/namespaces/{namespace}/{plural}?fieldValidation=Strict");
        let created = cluster.admin().create(&path, object);
        created.unwrap_or_else(|refusal| panic!("{name}: {kind}: {}", refusal.message));
    }
}

/// Returns leaderrun's options in the command line of a container, with any free port for `--http`; `None` if the
/// container does not run leaderrun.
fn options(container: &Value) -> Option<Vec<String>> {
    let words: Vec<&str> = container["command"].as_array()?.iter().filter_map(Value::as_str).collect();
    let (program, words) = words.split_first()?;
    if !program.ends_with("leaderrun") {
        return None;
    }
    let mut options: Vec<String> = words.iter().take_while(|word| **word != "--").map(|word| (*word).into()).collect();
    if let Some(http) = options.iter().position(|word| word == "--http") {
        // Another program on this machine may use the port in the manifest.
        options[http + 1] = "127.0.0.1:0".to_owned();
    }
    Some(options)
}

/// Applies a manifest to a new cluster, and runs the candidates of its pods one after another, each as its service
/// account. Returns the number of candidates.
fn apply_and_run(name: &str, text: &str) -> usize {
    let objects: Vec<Value> = serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{name}: {error}"));
    let cluster = Cluster::start();
    apply(&cluster, name, &objects);
    let mut candidates = 0;
    for object in objects {
        let pod = &object["spec"]["template"]["spec"];
        let containers = ["initContainers", "containers"].iter().filter_map(|kind| pod[kind].as_array()).flatten();
        for (container, options) in containers.filter_map(|container| Some((container, options(container)?))) {
            let account = pod["serviceAccountName"].as_str().unwrap_or_else(|| panic!("{name}: no service account"));
            let mut candidate = Candidate::without_default_options(name);
            if container["env"].as_array().is_some_and(|all| all.iter().any(|variable| variable["name"] == ADDRESS)) {
                candidate = candidate.env(ADDRESS, "192.0.2.1");
            }
            let candidate = candidate
                .args(options)
                .env("LEADERRUN_KUBECONFIG", &cluster.kubeconfig().to_string_lossy())
                .env("LEADERRUN_AS", &format!("system:serviceaccount:{NAMESPACE}:{account}"))
                .env("LEADERRUN_VERBOSE", "1")
                .run(COMMAND);
            candidate.wait_for_log("started the command");
            assert!(!candidate.log().contains("not allowed"), "{name}:\n{}", candidate.log());
            candidates += 1;
        }
    }
    candidates
}

#[testkit::test]
fn manifests_in_documents_are_accepted_and_their_candidates_lead() {
    let candidates: usize = blocks_in("yaml").iter().map(|block| apply_and_run(&block.to_string(), &block.text)).sum();
    assert!(candidates >= 1);
}

#[testkit::test]
fn manifests_in_examples_are_accepted_and_their_candidates_lead() {
    for name in EXAMPLES {
        let file = format!("examples/{name}.yaml");
        assert_eq!(apply_and_run(&file, &read(&file)), 1, "{file}");
    }
}
