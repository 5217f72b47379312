//! What only the API server can say.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use http_body_util::BodyExt;
use humantime::format_duration;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap};
use hyper::{Request, Response};
use kube::Client;
use kube::client::Body;
use leaderrun_core::timing::{ATTEMPTS, Timing};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::rounded;
use super::table::{Row, Table};
use crate::announce::{self, RoutingTarget};
use crate::lock::kubernetes::{Cluster, ClusterOptions};
use crate::lock::{Kind, LockName, ObjectName, Rule};
use crate::process::clock;
use crate::subcommands::PATIENCE;
use crate::telemetry::log::{printable, printable_cause, printable_root_cause};

/// Requests whose slowest one counts; the first has to connect.
const SAMPLES: usize = 5;

/// The priority level that exists for requests like these.
const PRIORITY_LEVEL: &str = "leader-election";

/// The level of administrators, whose requests are served before all others.
const EXEMPT: &str = "exempt";

const PRIORITY_LEVELS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations";

const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

/// What is looked at.
pub struct Examined<'a> {
    pub kind: Kind,
    pub namespace: Option<String>,
    pub name: String,
    pub options: ClusterOptions,
    pub timing: &'a Timing,
    /// By what traffic finds the leader.
    pub target: Option<&'a RoutingTarget>,
}

impl Examined<'_> {
    /// Looks at the way to the API server, what it allows, and how it treats these requests.
    pub async fn examine(self, table: &mut Table) {
        let Self { kind, namespace, name, options, timing, target } = self;
        let user = options.impersonate.clone().unwrap_or_default();
        let cluster = match Cluster::from_options(options, timing.attempt()).await {
            Ok(cluster) => cluster,
            Err(reason) => {
                let remedy = "a kubeconfig by --kubeconfig or KUBECONFIG, or a pod with a service account";
                return table.add(Row::failed("API server", printable_cause(&reason), remedy));
            }
        };
        let namespace = namespace.unwrap_or_else(|| cluster.default_namespace().to_owned());
        let objects = kind.objects(&namespace, &name);
        let client = cluster.requests();
        let Some(path) = objects.iter().flat_map(ObjectName::rules).find_map(|rule| rule.object_path()) else { return };
        let Some(headers) = reach(table, &cluster.address(), &client, &path, timing).await else { return };
        examine_namespace(table, &client, &namespace).await;
        let lock = LockName::Objects { kind, namespace: Some(namespace.clone()), name };
        let manifest = manifest(&lock, &namespace, target, &user);
        for object in &objects {
            examine_rules(table, &client, &object.rules(), lock_without, &manifest).await;
        }
        if let Some(target) = target {
            let without = |_: &str| Without::Fails("; traffic is not led to the leader");
            examine_rules(table, &client, &target.rules(&namespace), without, &manifest).await;
        }
        let without = |_: &str| Without::Goes("; no Events are written");
        examine_rules(table, &client, &[announce::event_rule(&namespace)], without, &manifest).await;
        table.add(priority(&client, &headers, &manifest).await);
    }
}

/// The command that prints a Role with all of it, for this `user` where that is a service account beside the lock.
fn manifest(lock: &LockName, namespace: &str, target: Option<&RoutingTarget>, user: &str) -> String {
    let target = target.map(|target| format!(" {target}")).unwrap_or_default();
    let account = user.strip_prefix("system:serviceaccount:").and_then(|account| account.split_once(':'));
    let account = account.filter(|(its, _)| *its == namespace).map(|(_, name)| format!(" --service-account {name}"));
    format!("leaderrun manifest --lock {lock}{target}{}", account.unwrap_or_default())
}

/// Whether the API server answers, and in time. The headers of an answer if it does.
async fn reach(table: &mut Table, address: &str, client: &Client, path: &str, timing: &Timing) -> Option<HeaderMap> {
    let mut slowest = Duration::ZERO;
    let mut headers = None;
    for _ in 0..SAMPLES {
        let sent = clock::now();
        match ask(client, path, None).await {
            Ok(answer) if answer.status() == 401 => {
                let finding = format!("{address} does not know who is asking");
                table.add(Row::failed("API server", finding, "new credentials in the kubeconfig, or a valid token"));
                return None;
            }
            Ok(answer) => headers = Some(answer.into_parts().0.headers),
            Err(reason) => {
                let finding = format!("{address} cannot be reached: {}", printable_root_cause(reason.as_ref()));
                let remedy = "check the address, the network on the way there, and its certificate authority";
                table.add(Row::failed("API server", finding, remedy));
                return None;
            }
        }
        slowest = slowest.max(clock::now().since(sent));
    }
    table.add(Row::ok("API server", format!("{address} answers")));
    let limit = timing.attempt();
    let finding = format!(
        "the slowest of {SAMPLES} answers took {}; of the {} before the renew deadline each may take {}",
        rounded(slowest),
        ATTEMPTS,
        rounded(limit)
    );
    let remedy = "a longer --renew-deadline and --lease-duration, or find out why the API server is slow";
    table.add(match slowest {
        slowest if slowest >= limit => Row::failed("latency", finding, remedy),
        slowest if slowest >= limit / 2 => Row::note("latency", finding, remedy),
        _ => Row::ok("latency", finding),
    });
    headers
}

/// Whether the namespace is there, if this user may know that.
async fn examine_namespace(table: &mut Table, client: &Client, name: &str) {
    if ask(client, &format!("/api/v1/namespaces/{name}"), None).await.is_ok_and(|answer| answer.status() == 404) {
        let finding = format!("there is no namespace {name:?}");
        table.add(Row::failed(
            "namespace",
            finding,
            format!("kubectl create namespace {name}, or another one in --lock"),
        ));
    }
}

/// What becomes of a candidate that may not do something.
enum Without {
    Fails(&'static str),
    Goes(&'static str),
}

fn lock_without(verb: &str) -> Without {
    Without::Fails(match verb {
        "create" => "; the lock cannot be held before somebody else has made its object",
        "watch" => "; a waiting candidate reads it every --retry-period instead",
        _ => "; the lock cannot be held",
    })
}

/// What is needed for one object, or for a kind of them. Nobody has to create what is there.
async fn examine_rules(
    table: &mut Table,
    client: &Client,
    rules: &[Rule],
    without: impl Fn(&str) -> Without,
    manifest: &str,
) {
    let is_there = match rules.iter().find_map(Rule::object_path) {
        Some(path) => ask(client, &path, None).await.is_ok_and(|answer| answer.status() == 200),
        None => false,
    };
    let without = |verb: &str| match verb {
        "create" if is_there => Without::Goes("; its object is there, and has to stay"),
        verb => without(verb),
    };
    for rule in rules {
        permissions(table, client, rule, without, manifest).await;
    }
}

/// A row for each verb of a rule; `manifest` prints a Role that has it.
async fn permissions(
    table: &mut Table,
    client: &Client,
    rule: &Rule,
    without: impl Fn(&str) -> Without,
    manifest: &str,
) {
    let Rule { group, plural, namespace, name, verbs } = rule;
    let name = name.as_deref().unwrap_or_default();
    let what = match name {
        "" => format!("{plural} in namespace {namespace:?}"),
        name => format!("{plural} {name:?} in namespace {namespace:?}"),
    };
    let remedy = format!("{manifest} prints a Role that allows it");
    for verb in *verbs {
        let attributes =
            json!({ "namespace": namespace, "verb": verb, "group": group, "resource": plural, "name": name });
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": { "resourceAttributes": attributes },
        });
        let answer = ask(client, REVIEWS, Some(review)).await.and_then(|answer| json_of(&answer));
        let allowed = |review: Value| review["status"]["allowed"].as_bool().context("it answers something else");
        table.add(match (answer.and_then(allowed), without(verb)) {
            (Ok(true), _) => Row::ok(verb, format!("{what}: allowed")),
            (Ok(false), Without::Fails(what_then)) => {
                Row::failed(verb, format!("{what}: not allowed{what_then}"), &remedy)
            }
            (Ok(false), Without::Goes(what_then)) => {
                Row::note(verb, format!("{what}: not allowed{what_then}"), &remedy)
            }
            (Err(reason), without) => {
                let reason = printable_root_cause(reason.as_ref());
                let finding = format!("{what}: the API server does not say whether it is allowed: {reason}");
                match without {
                    Without::Fails(_) => Row::failed(verb, finding, &remedy),
                    Without::Goes(_) => Row::note(verb, finding, &remedy),
                }
            }
        });
    }
}

/// How the API server orders these requests among others when it is busy.
async fn priority(client: &Client, headers: &HeaderMap, manifest: &str) -> Row {
    let said = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(printable);
    let Some(level) = said("x-kubernetes-pf-prioritylevel-uid") else {
        return Row::ok("priority", "the API server does not say, or has none");
    };
    let schema = said("x-kubernetes-pf-flowschema-uid").unwrap_or_default();
    let uid = async |level: &str| {
        let answer = ask(client, &format!("{PRIORITY_LEVELS}/{level}"), None).await.ok()?;
        Some(json_of(&answer).ok()?["metadata"]["uid"].as_str()?.to_owned())
    };
    let remedy = format!("{manifest} prints a FlowSchema, by which a busy API server does not keep renewals waiting");
    match uid(PRIORITY_LEVEL).await {
        Some(uid) if uid == level => Row::ok("priority", format!("level {PRIORITY_LEVEL}")),
        Some(_) if uid(EXEMPT).await.is_some_and(|uid| uid == level) => {
            Row::ok("priority", format!("level {EXEMPT}: whoever asks here waits for nobody"))
        }
        Some(_) => Row::note(
            "priority",
            format!("level {level}, flow schema {schema}, and not level {PRIORITY_LEVEL}"),
            remedy,
        ),
        None => Row::note(
            "priority",
            format!("level {level}, flow schema {schema}; who asks here may not know their names"),
            format!(
                "unless kubectl get prioritylevelconfiguration {PRIORITY_LEVEL} -o jsonpath={{.metadata.uid}} says the same: {remedy}"
            ),
        ),
    }
}

/// Asks the API server, and returns whatever it answers.
async fn ask(client: &Client, path: &str, body: Option<Value>) -> Result<Response<Bytes>> {
    let request = match body {
        None => Request::get(path).body(Body::empty())?,
        Some(body) => {
            let body = serde_json::to_vec(&body)?;
            Request::post(path).header(CONTENT_TYPE, "application/json").body(Body::from(body))?
        }
    };
    let answer = async {
        let (head, body) = client.send(request).await?.into_parts();
        anyhow::Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
    };
    timeout(PATIENCE, answer).await.map_err(|_| anyhow!("no answer within {}", format_duration(PATIENCE)))?
}

fn json_of(answer: &Response<Bytes>) -> Result<Value> {
    let body: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
    match answer.status().is_success() {
        true => Ok(body),
        false => Err(anyhow!("{}", body["message"].as_str().unwrap_or(answer.status().as_str()))),
    }
}
