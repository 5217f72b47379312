//! The rows of the doctor's table about the API server, the permissions and the priority of requests.

use std::collections::BTreeSet;
use std::time::Duration;

use humantime::format_duration;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap};
use hyper::{Request, Response};
use leaderrun_core::timing::{ATTEMPTS, Timing};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::format_milliseconds;
use super::preparation::{credentials_row, examine_host_lookup, wall_clock_row};
use super::table::{Row, SEE_HELP, Table, finding_and_remedy};
use super::traffic::examine_routing;
use crate::events;
use crate::kubernetes::{Cluster, ClusterAccess, ClusterOptions, Error, ErrorKind, ObjectName, Rule, Verb};
use crate::lock::{self, LockName, OwnerConfig, SlotCount};
use crate::process::clock;
use crate::routing::{Routing, RoutingTarget};
use crate::subcommands::REQUEST_TIMEOUT;
use crate::telemetry::log::{printable, printable_error};

/// The number of requests whose times are measured; the slowest is reported. The first request includes the time to
/// connect.
const SAMPLES: usize = 5;

/// The priority level for leader-election requests.
const PRIORITY_LEVEL: &str = "leader-election";

/// The priority level of administrators. Their requests never wait.
const EXEMPT: &str = "exempt";

const PRIORITY_LEVELS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations";

const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

/// The inputs for examining a cluster: the lock, and the options that the user would pass to leaderrun to run a
/// command.
pub struct ClusterExamination<'a> {
    pub lock: LockName,
    pub slots: Option<SlotCount>,
    pub owner: Option<&'a OwnerConfig>,
    pub options: ClusterOptions,
    pub timing: &'a Timing,
    /// The label or the Service that routes traffic to the leader, if one is configured.
    pub routing_target: Option<&'a RoutingTarget>,
    /// How this candidate would route traffic to itself through `routing_target`; `None` only if that is `None`.
    pub routing: Option<&'a Routing>,
    /// Whether the run depends on the wall clock of this machine.
    pub uses_clock: bool,
}

impl ClusterExamination<'_> {
    /// Adds all rows about the cluster. Ends early if the API server cannot be reached or does not respond as it
    /// should.
    pub async fn run(self, table: &mut Table) {
        let Self { lock, slots, owner, options, timing, routing_target, routing, uses_clock } = self;
        let began = clock::now();
        let user = options.impersonate.clone().unwrap_or_default();
        let cluster = match Cluster::open(&ClusterAccess::new(options), timing.request_timeout()).await {
            Ok(cluster) => cluster,
            Err(reason) => {
                let remedy =
                    "pass a kubeconfig with --kubeconfig or KUBECONFIG, or run in a pod with a service account";
                return table.add(Row::failed("API server", printable_error(&reason), remedy));
            }
        };
        table.add(credentials_row(clock::now().since(began), timing));
        examine_host_lookup(table, &cluster, timing).await;
        let namespace = lock.namespace.clone().unwrap_or_else(|| cluster.default_namespace().to_owned());
        let lock = LockName { namespace: Some(namespace.clone()), ..lock };
        let slot_locks = lock.in_slots(slots);
        let objects: Vec<ObjectName> = slot_locks.iter().flat_map(|lock| lock.objects(&namespace)).collect();
        let Some(path) = objects.iter().flat_map(lock::rules).find_map(|rule| rule.object_path()) else { return };
        let Some(headers) = examine_api_server(table, &cluster, &path, timing).await else { return };
        if uses_clock {
            table.add(wall_clock_row(&headers));
        }
        examine_namespace(table, &cluster, &namespace).await;
        let manifest_command = manifest_command(&lock, slots, owner, &namespace, routing_target, &user);
        for object in &objects {
            examine_rules(table, &cluster, &lock::rules(object), if_denied_on_lock, &manifest_command).await;
        }
        for routing in routing.iter().flat_map(|routing| routing.in_slots(slots)) {
            examine_routing(table, &cluster, &namespace, &routing, &manifest_command).await;
        }
        if let Some(owner) = owner {
            let if_denied = |_| IfDenied::Failure("; the lock's objects get no owner");
            examine_rules(table, &cluster, &owner.name.rules(&namespace), if_denied, &manifest_command).await;
            examine_owner(table, &cluster, &namespace, owner).await;
        }
        let if_denied = |_| IfDenied::Note("; no Events are written");
        examine_rules(table, &cluster, &[events::rule(&namespace)], if_denied, &manifest_command).await;
        table.add(priority_row(&cluster, &headers, &manifest_command).await);
    }
}

/// Returns the command that prints a Role with every permission that the run needs. If `user` (the impersonated user,
/// or empty) is a service account in the namespace of the lock, the command also prints a RoleBinding for it.
fn manifest_command(
    lock: &LockName,
    slots: Option<SlotCount>,
    owner: Option<&OwnerConfig>,
    namespace: &str,
    routing_target: Option<&RoutingTarget>,
    user: &str,
) -> String {
    let slots = slots.map(|slots| format!(" --slots {slots}")).unwrap_or_default();
    let owner = owner.map(|owner| format!(" --owner {}", owner.name)).unwrap_or_default();
    let routing = routing_target.map(|target| format!(" {target}")).unwrap_or_default();
    let account = user.strip_prefix("system:serviceaccount:").and_then(|account| account.split_once(':'));
    let account = account
        .filter(|(account_namespace, _)| *account_namespace == namespace)
        .map(|(_, name)| format!(" --service-account {name}"));
    format!("leaderrun manifest --lock {lock}{slots}{owner}{routing}{}", account.unwrap_or_default())
}

/// Reads the object at `path` several times, and adds rows that say whether the API server responds, and whether it is
/// fast enough. Returns the headers of a response, or `None` if the API server does not respond as it should.
async fn examine_api_server(table: &mut Table, cluster: &Cluster, path: &str, timing: &Timing) -> Option<HeaderMap> {
    let address = cluster.address();
    let mut slowest = Duration::ZERO;
    let mut headers = None;
    for _ in 0..SAMPLES {
        let sent = clock::now();
        match ask(cluster, path, None).await {
            Ok(response) if response.status() == 401 => {
                let finding = format!("{address} does not accept the credentials");
                table.add(Row::failed(
                    "API server",
                    finding,
                    "put new credentials or a valid token into the kubeconfig",
                ));
                return None;
            }
            Ok(response) if !is_kubernetes(&response) => {
                let finding =
                    format!("{address} is not a Kubernetes API server: it responds with {}", response.status());
                table.add(Row::failed(
                    "API server",
                    finding,
                    "check the server's address in the kubeconfig, and the proxy",
                ));
                return None;
            }
            Ok(response) => headers = Some(response.into_parts().0.headers),
            Err(error) => {
                let finding = format!("{address} cannot be reached: {error}");
                let remedy = "check the address, the network path to it, and the certificate authority";
                table.add(Row::failed("API server", finding, remedy));
                return None;
            }
        }
        slowest = slowest.max(clock::now().since(sent));
    }
    table.add(Row::ok("API server", format!("{address} responds")));
    let limit = timing.request_timeout();
    let finding = format!(
        "the slowest of {SAMPLES} responses took {}; a request times out after {}, so that {} attempts fit before the renew deadline",
        format_milliseconds(slowest),
        format_milliseconds(limit),
        ATTEMPTS,
    );
    let remedy = "lengthen --renew-deadline and --lease-duration, or find out why the API server is slow";
    table.add(match slowest {
        slowest if slowest >= limit => Row::failed("latency", finding, remedy),
        slowest if slowest >= limit / 2 => Row::note("latency", finding, remedy),
        _ => Row::ok("latency", finding),
    });
    headers
}

/// Returns whether a response is an API object or a Status of an API server.
fn is_kubernetes(response: &Response<Bytes>) -> bool {
    let body: Value = serde_json::from_slice(response.body()).unwrap_or_default();
    body["apiVersion"].is_string() && body["kind"].is_string()
}

/// Adds a row if the namespace is known not to exist.
async fn examine_namespace(table: &mut Table, cluster: &Cluster, name: &str) {
    if ask(cluster, &format!("/api/v1/namespaces/{name}"), None).await.is_ok_and(|response| response.status() == 404) {
        let finding = format!("there is no namespace {name:?}");
        table.add(Row::failed(
            "namespace",
            finding,
            format!("kubectl create namespace {name}, or use an existing namespace in --lock"),
        ));
    }
}

/// Adds a row about whether the owner of the lock's objects exists, if this user may read it.
async fn examine_owner(table: &mut Table, cluster: &Cluster, namespace: &str, owner: &OwnerConfig) {
    table.add(match owner.find(cluster, namespace, REQUEST_TIMEOUT).await {
        Ok(found) => Row::ok("owner", format!("{found} becomes the owner of the lock's objects")),
        Err(error) if error.kind == ErrorKind::Forbidden => return,
        Err(error) => {
            let sentence = error.to_string();
            let (finding, remedy) = finding_and_remedy(&sentence, SEE_HELP);
            Row::failed("owner", finding, remedy)
        }
    });
}

/// How the table reports a missing permission, with the consequence that is appended to the finding.
pub enum IfDenied {
    /// As a failure: without the permission, the run does not work fully as configured.
    Failure(&'static str),
    /// As a note: the run can do without the permission.
    Note(&'static str),
}

/// Returns how the table reports a missing permission on an object of the lock.
fn if_denied_on_lock(verb: Verb) -> IfDenied {
    IfDenied::Failure(match verb {
        Verb::Create => "; another user must create the object of the lock first",
        Verb::Watch => "; a standby reads the lock every --retry-period instead",
        _ => "; the lock cannot be held",
    })
}

/// Adds rows for the permissions on some objects, or on all objects of a kind. If all the objects exist, a missing
/// permission to create them is not a failure.
pub async fn examine_rules(
    table: &mut Table,
    cluster: &Cluster,
    rules: &[Rule],
    if_denied: impl Fn(Verb) -> IfDenied,
    manifest_command: &str,
) {
    let paths: BTreeSet<String> = rules.iter().filter_map(Rule::object_path).collect();
    let consequence = if paths.len() == 1 {
        "; the object already exists, so this matters only if it is deleted"
    } else {
        "; the objects already exist, so this matters only if one of them is deleted"
    };
    let mut all_exist = !paths.is_empty();
    for path in paths {
        all_exist &= ask(cluster, &path, None).await.is_ok_and(|response| response.status() == 200);
    }
    let if_denied = |verb| match verb {
        Verb::Create if all_exist => IfDenied::Note(consequence),
        verb => if_denied(verb),
    };
    for rule in rules {
        examine_rule(table, cluster, rule, if_denied, manifest_command).await;
    }
}

/// Adds a row for each verb of a rule. `manifest_command` is the command that prints a Role with the rule.
async fn examine_rule(
    table: &mut Table,
    cluster: &Cluster,
    rule: &Rule,
    if_denied: impl Fn(Verb) -> IfDenied,
    manifest_command: &str,
) {
    let Rule { resource, namespace, name, verbs } = rule;
    let (group, plural) = (resource.group, resource.plural);
    let name = name.as_deref().unwrap_or_default();
    let objects = match name {
        "" => format!("{plural} in namespace {namespace:?}"),
        name => format!("{plural} {name:?} in namespace {namespace:?}"),
    };
    let remedy = format!("{manifest_command} prints a Role that allows it");
    for verb in verbs.iter().copied() {
        let attributes =
            json!({ "namespace": namespace, "verb": verb.name(), "group": group, "resource": plural, "name": name });
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": { "resourceAttributes": attributes },
        });
        let response = ask(cluster, REVIEWS, Some(review)).await.and_then(|response| json_of(&response));
        let not_a_review = || Error::unknown("the response is not a SelfSubjectAccessReview");
        let allowed = response.and_then(|review| review["status"]["allowed"].as_bool().ok_or_else(not_a_review));
        let label = verb.name();
        table.add(match (allowed, if_denied(verb)) {
            (Ok(true), _) => Row::ok(label, format!("{objects}: allowed")),
            (Ok(false), IfDenied::Failure(consequence)) => {
                Row::failed(label, format!("{objects}: not allowed{consequence}"), &remedy)
            }
            (Ok(false), IfDenied::Note(consequence)) => {
                Row::note(label, format!("{objects}: not allowed{consequence}"), &remedy)
            }
            (Err(error), if_denied) => {
                let finding = format!("{objects}: cannot find out whether this is allowed: {error}");
                match if_denied {
                    IfDenied::Failure(_) => Row::failed(label, finding, &remedy),
                    IfDenied::Note(_) => Row::note(label, finding, &remedy),
                }
            }
        });
    }
}

/// Returns a row about the priority that a busy API server gives to the requests of this user.
async fn priority_row(cluster: &Cluster, headers: &HeaderMap, manifest_command: &str) -> Row {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(printable);
    let Some(level) = header("x-kubernetes-pf-prioritylevel-uid") else {
        return Row::ok("priority", "the API server does not report priorities");
    };
    let schema = header("x-kubernetes-pf-flowschema-uid").unwrap_or_default();
    let remedy =
        format!("{manifest_command} --priority prints a FlowSchema that lets a busy API server serve renewals first");
    match name_of_level(cluster, &level).await {
        Some(name) if name == PRIORITY_LEVEL => Row::ok("priority", format!("level {PRIORITY_LEVEL}")),
        Some(name) if name == EXEMPT => Row::ok("priority", format!("level {EXEMPT}: these requests never wait")),
        Some(name) => {
            let finding = format!(
                "requests get level {name} (uid {level}, flow schema uid {schema}) instead of level {PRIORITY_LEVEL}"
            );
            Row::note("priority", finding, remedy)
        }
        None => Row::note(
            "priority",
            format!("requests get level {level}, flow schema {schema} (these are uids; the names could not be read)"),
            format!(
                "check whether kubectl get prioritylevelconfiguration {PRIORITY_LEVEL} -o jsonpath={{.metadata.uid}} prints {level}; if not, {remedy}"
            ),
        ),
    }
}

/// Returns the name of the priority level with this uid; `None` if it could not be read.
async fn name_of_level(cluster: &Cluster, uid: &str) -> Option<String> {
    let response = ask(cluster, PRIORITY_LEVELS, None).await.ok()?;
    let levels = json_of(&response).ok()?;
    let level = levels["items"].as_array()?.iter().find(|level| level["metadata"]["uid"] == uid)?;
    level["metadata"]["name"].as_str().map(printable)
}

/// Sends a GET request to the API server, or a POST request with `body`. Returns the response, even if its status is an
/// error.
///
/// # Errors
/// Fails if no response arrives within [`REQUEST_TIMEOUT`].
pub async fn ask(cluster: &Cluster, path: &str, body: Option<Value>) -> Result<Response<Bytes>, Error> {
    let request = match body {
        None => Request::get(path).body(Vec::new()),
        Some(body) => Request::post(path).header(CONTENT_TYPE, "application/json").body(body.to_string().into_bytes()),
    };
    let request = request.map_err(|invalid| Error::unknown(invalid.to_string()))?;
    let timeout_error = |_| Error::unknown(format!("no response within {}", format_duration(REQUEST_TIMEOUT)));
    timeout(REQUEST_TIMEOUT, cluster.send(request)).await.map_err(timeout_error)?
}

/// Returns the object in a response; null if the response is not JSON.
///
/// # Errors
/// Fails if the status of the response is an error.
pub fn json_of(response: &Response<Bytes>) -> Result<Value, Error> {
    let body: Value = serde_json::from_slice(response.body()).unwrap_or_default();
    if response.status().is_success() {
        return Ok(body);
    }
    let message = body["message"].as_str().map_or(response.status().to_string(), printable);
    Err(Error::unknown(message))
}
