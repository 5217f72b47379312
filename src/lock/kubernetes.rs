//! The clients: how the API server is reached, and what its refusals mean.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::Status;
use kube::{Client, Config};
use tokio::sync::OnceCell;

use super::object::{ObjectName, Resource};
use super::{LockError, LockErrorKind};
use crate::telemetry::log;

/// What the command line says about the cluster.
#[derive(Clone, Debug, Default)]
pub struct ClusterOptions {
    pub kubeconfig: Option<PathBuf>,
    pub context: Option<String>,
    /// The user to act as.
    pub impersonate: Option<String>,
}

/// A cluster, with one client for the record's requests and another for the watch: a request that was
/// given up closes its connection, and the next one must not find another that is as dead.
#[derive(Clone)]
pub struct Cluster {
    config: Config,
    requests: Client,
    watches: Arc<OnceCell<Client>>,
}

impl Cluster {
    /// Finds out how to reach the API server; connects when the first request is sent. `attempt` is
    /// how long one request may take.
    ///
    /// # Errors
    /// When the kubeconfig cannot be used, or there is none and this is no pod either.
    pub async fn from_options(options: ClusterOptions, attempt: Duration) -> Result<Self> {
        let mut config = find_config(&options).await?;
        if let Some(user) = options.impersonate {
            config.auth_info.impersonate = Some(user);
        }
        // The election decides when to try again.
        config.default_retry = false;
        // Only the election's own patience counts: it closes a connection that it gives up.
        config.connect_timeout = Some(attempt * 2);
        let requests = client(&config)?;
        Ok(Self { config, requests, watches: Arc::default() })
    }

    /// The namespace where a lock names none.
    pub fn default_namespace(&self) -> &str {
        &self.config.default_namespace
    }

    pub(super) fn requests(&self) -> Client {
        self.requests.clone()
    }

    /// Made when first needed: a credential plugin runs once more for it.
    pub(super) async fn watches(&self) -> Result<Client, LockError> {
        let made = self.watches.get_or_try_init(async || client(&self.config)).await;
        made.cloned().map_err(|failure| error(format!("{failure:#}")))
    }
}

async fn find_config(options: &ClusterOptions) -> Result<Config> {
    let ClusterOptions { kubeconfig, context, .. } = options;
    let select = KubeConfigOptions { context: context.clone(), ..KubeConfigOptions::default() };
    if kubeconfig.is_none() && context.is_none() {
        return Config::infer().await.context(
            "no way to the API server: neither a kubeconfig (--kubeconfig, KUBECONFIG, ~/.kube/config) nor a pod's service account is usable",
        );
    }
    let from = match kubeconfig {
        Some(path) => Kubeconfig::read_from(path).with_context(|| {
            format!("--kubeconfig {}: cannot be used; the path of a readable kubeconfig would do", path.display())
        })?,
        None => Kubeconfig::read().context("--context needs a kubeconfig, and none can be read")?,
    };
    if let Some(context) = context
        && !from.contexts.iter().any(|known| known.name == *context)
    {
        match &from.contexts[..] {
            [] => bail!("--context {context:?}: the kubeconfig has no contexts; a kubeconfig with one would do"),
            [first, ..] => {
                bail!("--context {context:?}: the kubeconfig has no such context; {:?} would do", first.name)
            }
        }
    }
    Config::from_custom_kubeconfig(from, &select).await.context("the kubeconfig cannot be used")
}

fn client(config: &Config) -> Result<Client> {
    Client::try_from(config.clone()).context("cannot prepare a connection to the API server")
}

/// What is asked of the API server, as RBAC calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    Create,
    Update,
    Watch,
}

impl Verb {
    fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Create => "create",
            Self::Update => "update",
            Self::Watch => "watch",
        }
    }
}

/// A failure without an answer of the API server: no telling what became of the request.
pub(super) fn error(message: impl Into<String>) -> LockError {
    LockError::new(LockErrorKind::Unknown, message)
}

/// What an `ERROR` event on a watch means: mostly that the version asked for is too old.
pub(super) fn expired(status: &Status) -> LockError {
    error(format!("the watch broke: {}", answer(status)))
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} {}/{}", self.resource.kind, self.namespace, self.name)
    }
}

impl ObjectName {
    /// What a failed request for this object means.
    pub(super) fn error(&self, verb: Verb, failure: kube::Error) -> LockError {
        let kube::Error::Api(status) = failure else {
            return error(format!("cannot {} {self}: {}", verb.name(), log::printable(&innermost(&failure))));
        };
        let message = match status.code {
            403 => self.forbidden(verb, &status.message),
            _ => format!("cannot {} {self}: {}", verb.name(), answer(&status)),
        };
        let kind = match (status.code, verb) {
            (409, _) => LockErrorKind::Conflict,
            // What the API server says to a PUT without a resourceVersion where the object exists by now.
            (422, Verb::Update) if status.message.contains("must be specified for an update") => {
                LockErrorKind::Conflict
            }
            // Deleted since it was read, where a PUT does not create.
            (404, Verb::Update) => LockErrorKind::Conflict,
            (403, _) => LockErrorKind::Forbidden,
            (400..=499, _) => LockErrorKind::Refused,
            _ => LockErrorKind::Unknown,
        };
        let retry_after = status.details.as_ref().map(|details| details.retry_after_seconds);
        let retry_after = retry_after.filter(|seconds| *seconds > 0);
        LockError { kind, message, retry_after: retry_after.map(|seconds| Duration::from_secs(seconds.into())) }
    }

    /// That this object cannot be used as it is.
    pub(super) fn refusal(&self, reason: &str) -> LockError {
        LockError::new(LockErrorKind::Refused, format!("cannot use {self}: {}", log::printable(reason)))
    }

    fn forbidden(&self, verb: Verb, answer: &str) -> String {
        // A PUT may lack `update`, or `create` where the object does not exist yet: the answer says which.
        let refused = ["create", "update"].into_iter().find(|verb| answer.contains(&format!(" cannot {verb} ")));
        let Self { resource, namespace, name } = self;
        let group = if resource.group.is_empty() { String::new() } else { format!(".{}", resource.group) };
        format!(
            "not allowed to {} {}{group} {name:?} in namespace {namespace:?}; this Role, bound to the user or service account, would do:\n{}",
            refused.unwrap_or(verb.name()),
            resource.plural,
            self.role()
        )
    }

    /// The Role that a candidate for this lock needs, as YAML.
    pub fn role(&self) -> String {
        let Self { resource, namespace, name } = self;
        let Resource { group, plural, created_by_put, .. } = resource;
        let group = if group.is_empty() { "\"\"" } else { group };
        let verbs = if *created_by_put { "get, create, update, watch" } else { "get, update, watch" };
        let mut role = format!(
            "apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: leaderrun-{name}
  namespace: {namespace}
rules:
- apiGroups: [{group}]
  resources: [{plural}]
  resourceNames: [{name}]
  verbs: [{verbs}]"
        );
        if !created_by_put {
            // RBAC cannot restrict a POST by name. Not needed where the object was made beforehand.
            role.push_str(&format!("\n- apiGroups: [{group}]\n  resources: [{plural}]\n  verbs: [create]"));
        }
        role
    }
}

fn answer(status: &Status) -> String {
    match status.message.as_str() {
        "" => format!("HTTP status {}", status.code),
        message => log::printable(message),
    }
}

/// The cause that says most: errors of the HTTP stack wrap each other without adding a word.
fn innermost(failure: &kube::Error) -> String {
    let mut cause: &dyn std::error::Error = failure;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
