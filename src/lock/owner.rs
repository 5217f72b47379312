//! The owner of a lock's objects (`--owner`). Kubernetes deletes the objects when their owner is deleted.
//!
//! The lock works without an owner if the owner cannot be found or this user may not set owners.
//!
//! # Rules
//!
//! - Kubernetes deletes an object whose owners do not exist. Therefore the object of a held lock only gets an owner
//!   that has been found since the object was last deleted. If the owner is deleted while the lock is held, Kubernetes
//!   deletes the object too. The holder then creates the object again without an owner, and adds the deleted owner when
//!   it releases the lock, so that Kubernetes deletes the object.
//! - Other owners of the object are kept. If the owner was deleted and created again, its new reference replaces the
//!   old one.
//! - The reference never blocks the deletion of the owner.

use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};

use super::{check_name, log_events};
use crate::kubernetes::{
    CRON_JOBS, Cluster, Collection, DAEMON_SETS, DEPLOYMENTS, Error, ErrorKind, JOBS, PODS, REPLICA_SETS, Resource,
    Rule, STATEFUL_SETS, Verb,
};
use crate::telemetry::log::printable;

/// The kinds of owners, with kubectl's short names.
static KINDS: [(&Resource, &str); 6] = [
    (&DEPLOYMENTS, "deploy"),
    (&STATEFUL_SETS, "sts"),
    (&DAEMON_SETS, "ds"),
    (&REPLICA_SETS, "rs"),
    (&JOBS, "job"),
    (&CRON_JOBS, "cj"),
];

/// The kinds of controllers that often have a controller themselves: a Deployment or a CronJob.
static CONTROLLED_KINDS: [&Resource; 2] = [&REPLICA_SETS, &JOBS];

/// The value of `--owner` that means the controller of the pod.
const AUTO: &str = "auto";

/// The maximum number of controllers in a chain that begins at the pod.
const MAX_CONTROLLERS: usize = 4;

/// An owner, as `--owner` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnerName {
    /// The controller of the candidate's pod, for example its Deployment.
    Auto,
    Object {
        resource: &'static Resource,
        name: String,
    },
}

impl OwnerName {
    /// Returns the permissions that a candidate needs to find the owner.
    pub fn rules(&self, namespace: &str) -> Vec<Rule> {
        let get = |resource: &'static Resource, name| resource.rule(namespace, name, &[Verb::Get]);
        match self {
            // The names of the pods and their controllers are not known in advance.
            Self::Auto => [&PODS].into_iter().chain(CONTROLLED_KINDS).map(|resource| get(resource, None)).collect(),
            Self::Object { resource, name } => vec![get(resource, Some(name.clone()))],
        }
    }
}

impl FromStr for OwnerName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == AUTO {
            return Ok(Self::Auto);
        }
        let example = "for example deployment/my-job";
        let Some((kind, name)) = text.split_once('/') else {
            return Err(format!("an owner is {AUTO} or KIND/NAME; {example}"));
        };
        let is_named = |(resource, short): &&(&Resource, &str)| {
            let kind = kind.strip_suffix(&format!(".{}", resource.group)).unwrap_or(kind).to_lowercase();
            kind == resource.kind.to_lowercase() || kind == resource.plural || kind == *short
        };
        let Some((resource, _)) = KINDS.iter().find(is_named) else {
            let kinds = KINDS.map(|(resource, _)| resource.kind.to_lowercase()).join(", ");
            return Err(format!("the kind of an owner is one of {kinds}; {example}"));
        };
        check_name(name).map_err(|reason| format!("its name {reason}; {example}"))?;
        Ok(Self::Object { resource, name: name.to_owned() })
    }
}

/// Writes the value of `--owner`.
impl fmt::Display for OwnerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str(AUTO),
            Self::Object { resource, name } => write!(f, "{}/{name}", resource.kind.to_lowercase()),
        }
    }
}

/// The owner for the objects of a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerConfig {
    pub name: OwnerName,
    /// The pod of this candidate, whose controller is looked up for [`OwnerName::Auto`].
    pub pod: String,
}

impl OwnerConfig {
    /// Finds the owner, and returns the reference to it.
    ///
    /// # Errors
    /// Fails if there is no such owner, or if it cannot be read.
    pub async fn find(&self, cluster: &Cluster, namespace: &str, timeout: Duration) -> Result<OwnerReference, Error> {
        let finder = Finder { cluster, namespace, timeout };
        match &self.name {
            OwnerName::Object { resource, name } => {
                let object = finder.get(resource, name).await?;
                OwnerReference::of_object(resource, &object)
                    .ok_or_else(|| Error::unknown("the API server returned the owner without a uid"))
            }
            OwnerName::Auto => finder.controller_of_pod(&self.pod).await,
        }
    }
}

/// Reads the pods and the possible owners in a namespace.
struct Finder<'a> {
    cluster: &'a Cluster,
    namespace: &'a str,
    timeout: Duration,
}

impl Finder<'_> {
    async fn get(&self, resource: &'static Resource, name: &str) -> Result<Value, Error> {
        let objects = Collection::new(self.cluster, resource, self.namespace).with_timeout(self.timeout);
        objects.get(name).await?.ok_or_else(|| {
            let remedy = if *resource == PODS {
                "set --pod to the name of the pod that leaderrun runs in"
            } else {
                "set --owner to an existing object"
            };
            let kind = resource.kind;
            not_found(format!("there is no {kind} {name:?} in namespace {:?}; {remedy}", self.namespace))
        })
    }

    /// Returns the controller of a pod. If that is a ReplicaSet or a Job with a controller of its own, for example a
    /// Deployment, returns that controller.
    async fn controller_of_pod(&self, pod: &str) -> Result<OwnerReference, Error> {
        let mut object = self.get(&PODS, pod).await?;
        let no_controller =
            || not_found(format!("no controller created the pod {pod:?}; try --owner deployment/my-job"));
        let mut owner = OwnerReference::controller_of(&object).ok_or_else(no_controller)?;
        for _ in 1..MAX_CONTROLLERS {
            let Some(resource) = CONTROLLED_KINDS.into_iter().find(|resource| owner.is_of_kind(resource)) else {
                break;
            };
            object = self.get(resource, &owner.name).await?;
            if object["metadata"]["uid"] != owner.uid {
                return Err(not_found(format!("{owner} was deleted; restart leaderrun to look up the owner again")));
            }
            let Some(controller) = OwnerReference::controller_of(&object) else { break };
            owner = controller;
        }
        Ok(owner)
    }
}

fn not_found(message: String) -> Error {
    Error { kind: ErrorKind::NotFound, ..Error::unknown(message) }
}

/// One of an object's `ownerReferences`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerReference {
    api_version: String,
    kind: String,
    name: String,
    uid: String,
}

impl OwnerReference {
    /// Returns the reference to an object of this kind, if the object has a name and a uid.
    fn of_object(resource: &Resource, object: &Value) -> Option<Self> {
        let metadata = |field: &str| object["metadata"][field].as_str().map(str::to_owned);
        let (name, uid) = (metadata("name")?, metadata("uid")?);
        Some(Self { api_version: resource.api_version(), kind: resource.kind.to_owned(), name, uid })
    }

    /// Returns the reference to the controller of an object, if it has one.
    fn controller_of(object: &Value) -> Option<Self> {
        let references = object["metadata"]["ownerReferences"].as_array()?;
        Self::parse(references.iter().find(|reference| reference["controller"] == true)?)
    }

    fn parse(reference: &Value) -> Option<Self> {
        let field = |name: &str| reference[name].as_str().map(str::to_owned);
        Some(Self { api_version: field("apiVersion")?, kind: field("kind")?, name: field("name")?, uid: field("uid")? })
    }

    fn is_of_kind(&self, resource: &Resource) -> bool {
        self.kind == resource.kind && self.api_version == resource.api_version()
    }

    /// Adds the reference to an object, and keeps its other owners. Returns whether anything has changed.
    fn add_to(&self, object: &mut Value) -> bool {
        let metadata = &mut object["metadata"];
        let mut references = metadata["ownerReferences"].as_array().cloned().unwrap_or_default();
        let parsed = |reference: &Value| Self::parse(reference);
        if references.iter().filter_map(parsed).any(|reference| reference.uid == self.uid) {
            return false;
        }
        let is_other =
            |reference: &Value| parsed(reference).is_none_or(|other| Self { uid: self.uid.clone(), ..other } != *self);
        references.retain(is_other);
        let Self { api_version, kind, name, uid } = self;
        references.push(json!({ "apiVersion": api_version, "kind": kind, "name": name, "uid": uid }));
        metadata["ownerReferences"] = references.into();
        true
    }
}

impl fmt::Display for OwnerReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} {}", printable(&self.kind), printable(&self.name))
    }
}

/// The owner of the objects of a lock, or of all its slots.
pub struct Owner {
    config: OwnerConfig,
    cluster: Cluster,
    namespace: String,
    /// The name of the lock, for messages.
    lock: String,
    /// The timeout of each request that looks up the owner.
    timeout: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Whether the result of the last lookup is kept, so that the owner is not looked up again.
    is_looked_up: bool,
    /// The owner that was found last.
    found: Option<OwnerReference>,
    /// Whether the last lookup found the owner.
    was_found: bool,
    /// The error of the last lookup. It is kept until it is known whether the lock can be reached.
    failure: Option<Error>,
    /// Whether the API server has refused to let this user set owners.
    owners_are_refused: bool,
    /// The last reason that was logged.
    logged_reason: Option<String>,
}

impl Owner {
    /// Creates the owner of a lock in this namespace, without looking it up.
    pub fn new(config: OwnerConfig, cluster: &Cluster, namespace: &str, lock: &str, timeout: Duration) -> Self {
        let (cluster, namespace, lock) = (cluster.clone(), namespace.to_owned(), lock.to_owned());
        Self { config, cluster, namespace, lock, timeout, state: Mutex::default() }
    }

    /// Looks up the owner, unless the result of an earlier lookup is kept. A failure is only stored.
    pub async fn look_up(&self) {
        if self.state().is_looked_up {
            return;
        }
        let found = self.config.find(&self.cluster, &self.namespace, self.timeout).await;
        let mut state = self.state();
        (state.was_found, state.is_looked_up) = (found.is_ok(), found.is_ok());
        match found {
            Ok(owner) => {
                log_events::owner(&self.lock, &owner.to_string());
                state.found = Some(owner);
            }
            Err(error) => state.failure = Some(error),
        }
    }

    /// Records that a request for the lock succeeded. If the lookup of the owner failed, the connection was not the
    /// reason, so the error is logged. The owner is looked up again before the next read or creation of an object,
    /// unless it does not exist or this user may not read it.
    pub fn note_successful_request(&self) {
        let mut state = self.state();
        let Some(error) = state.failure.take() else { return };
        state.is_looked_up = matches!(error.kind, ErrorKind::NotFound | ErrorKind::Forbidden);
        let (lock, name) = (&self.lock, &self.config.name);
        let reason = if error.refused_by_rbac {
            format!("{error}; leaderrun manifest --lock {lock} --owner {name} prints a Role that allows it")
        } else if state.is_looked_up {
            error.to_string()
        } else {
            format!("{error}; trying again")
        };
        state.log_reason(lock, reason);
    }

    /// Discards the result of the last lookup, so that the owner is looked up again before the next read or creation
    /// of an object. This is called after an object was deleted, perhaps because its owner was deleted.
    pub fn forget(&self) {
        self.state().is_looked_up = false;
    }

    /// Adds the owner to an object. Returns whether it was added. If the object's new record names a holder
    /// (`is_held`), an owner is only added if the last lookup found it.
    pub fn add_to(&self, object: &mut Value, is_held: bool) -> bool {
        let state = self.state();
        let may_add = !state.owners_are_refused && (state.was_found || !is_held);
        state.found.as_ref().filter(|_| may_add).is_some_and(|owner| owner.add_to(object))
    }

    /// Returns whether a write failed because this user may not set owners. If so, no owner is added from then on.
    pub fn handle_refusal(&self, error: &Error) -> bool {
        // The admission plugin OwnerReferencesPermissionEnforcement can only be recognized by its message.
        let is_refused = error.kind == ErrorKind::Forbidden && error.message.contains("ownerRef");
        if is_refused {
            let mut state = self.state();
            state.owners_are_refused = true;
            state.log_reason(
                &self.lock,
                format!("{error}; allow this user to delete the lock's objects, or leave --owner out"),
            );
        }
        is_refused
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics while it holds this lock")
    }
}

impl State {
    /// Logs the reason, unless the same reason was logged last.
    fn log_reason(&mut self, lock: &str, reason: String) {
        if self.logged_reason.as_ref() != Some(&reason) {
            log_events::owner_not_set(lock, &reason);
            self.logged_reason = Some(reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(name: &str, uid: &str) -> Value {
        json!({ "apiVersion": "apps/v1", "kind": "Deployment", "name": name, "uid": uid })
    }

    fn owner(uid: &str) -> OwnerReference {
        OwnerReference::parse(&reference("web", uid)).expect("the reference is complete")
    }

    #[test]
    fn owner_kinds_are_spelled_as_in_kubectl() {
        let deployment = OwnerName::Object { resource: &DEPLOYMENTS, name: "web".into() };
        for text in ["deployment/web", "deployments/web", "deploy/web", "deployment.apps/web", "Deployment/web"] {
            assert_eq!(text.parse(), Ok(deployment.clone()), "{text}");
        }
        assert_eq!("cronjobs.batch/x".parse(), Ok(OwnerName::Object { resource: &CRON_JOBS, name: "x".into() }));
        assert_eq!("auto".parse(), Ok(OwnerName::Auto));
        for text in ["", "web", "/web", "service/web", "deployment.batch/web", "deployment/", "deployment/a b"] {
            assert!(text.parse::<OwnerName>().unwrap_err().ends_with("; for example deployment/my-job"), "{text}");
        }
    }

    #[test]
    fn other_owners_are_kept() {
        let other = json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": "web", "uid": "0", "controller": true });
        let mut object = json!({ "metadata": { "ownerReferences": [other] } });
        assert!(owner("1").add_to(&mut object));
        assert_eq!(object["metadata"]["ownerReferences"], json!([other, reference("web", "1")]));
        assert!(!owner("1").add_to(&mut object), "the same owner should not be added twice");
        assert!(owner("2").add_to(&mut object), "an owner that was created again should replace the earlier one");
        assert_eq!(object["metadata"]["ownerReferences"], json!([other, reference("web", "2")]));
    }
}
