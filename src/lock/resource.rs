//! Kinds of Kubernetes objects that a record can live in, and what the API server's refusals mean.

use std::fmt;
use std::time::Duration;

use kube::api::DynamicObject;
use kube::core::Status;
use leaderrun_core::record::Record;

use super::rbac::{Rule, role};
use super::{LockError, LockErrorKind};
use crate::telemetry::log;

/// A kind of object, and where in it the record is.
#[derive(Debug)]
pub struct Resource {
    pub group: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    /// Whether a PUT to its name creates it, so that a Role for that one name is all a candidate needs.
    pub created_by_put: bool,
    /// The record in an object, without leaderrun's mark. A free one where there is none.
    pub read: fn(&DynamicObject) -> Result<Record, String>,
    /// Puts a record into an object and leaves everything else there as it is.
    pub write: fn(&mut DynamicObject, &Record),
}

impl Resource {
    /// The group with its version, as objects say it.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { "v1".to_owned() } else { format!("{}/v1", self.group) }
    }
}

/// An object by its name.
#[derive(Clone, Debug)]
pub struct ObjectName {
    pub resource: &'static Resource,
    pub namespace: String,
    pub name: String,
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
            return error(format!("cannot {} {self}: {}", verb.name(), log::printable_root_cause(&failure)));
        };
        // As RBAC says it. A 403 can have other reasons: a quota, a webhook, a namespace that goes.
        let lacks_role = status.code == 403 && status.message.contains(" cannot ");
        let (message, role) = match lacks_role {
            true => (self.not_allowed(verb, &status.message), Some(role(&self.namespace, &self.name, &self.rules()))),
            false => (format!("cannot {} {self}: {}", verb.name(), answer(&status)), None),
        };
        let kind = match (status.code, verb) {
            (409, _) => LockErrorKind::Conflict,
            // Deleted since it was read, where a PUT does not create. What cannot be created misses its namespace.
            (404, Verb::Update) => LockErrorKind::Conflict,
            (403, _) => LockErrorKind::Forbidden,
            (400..=499, _) => LockErrorKind::Refused,
            _ => LockErrorKind::Unknown,
        };
        let retry_after = status.details.as_ref().map(|details| details.retry_after_seconds);
        let retry_after = retry_after.filter(|seconds| *seconds > 0);
        LockError { kind, message, retry_after: retry_after.map(|seconds| Duration::from_secs(seconds.into())), role }
    }

    /// That this object cannot be used as it is.
    pub(super) fn refusal(&self, reason: &str) -> LockError {
        LockError::new(LockErrorKind::Refused, format!("cannot use {self}: {}", log::printable(reason)))
    }

    fn not_allowed(&self, verb: Verb, answer: &str) -> String {
        // A PUT may lack `update`, or `create` where the object does not exist yet: the answer says which.
        let refused = ["create", "update"].into_iter().find(|verb| answer.contains(&format!(" cannot {verb} ")));
        let Self { resource, namespace, name } = self;
        let group = if resource.group.is_empty() { String::new() } else { format!(".{}", resource.group) };
        let (verb, plural) = (refused.unwrap_or(verb.name()), resource.plural);
        format!("not allowed to {verb} {plural}{group} {name:?} in namespace {namespace:?}")
    }

    /// What a candidate for this lock needs.
    pub fn rules(&self) -> Vec<Rule> {
        let Resource { group, plural, created_by_put, .. } = *self.resource;
        let rule = |name, verbs| Rule { group, plural, namespace: self.namespace.clone(), name, verbs };
        let name = Some(self.name.clone());
        match created_by_put {
            true => vec![rule(name, &["get", "create", "update", "watch"])],
            // RBAC cannot restrict a POST by name. Not needed where the object was made beforehand.
            false => vec![rule(name, &["get", "update", "watch"]), rule(None, &["create"])],
        }
    }
}

fn answer(status: &Status) -> String {
    match status.message.as_str() {
        "" => format!("HTTP status {}", status.code),
        message => log::printable(message),
    }
}

#[cfg(test)]
mod tests {
    use super::super::lease::LEASE;
    use super::*;

    #[test]
    fn a_refusal_prints_a_role_if_one_would_help() {
        let name = ObjectName { resource: &LEASE, namespace: "default".into(), name: "job".into() };
        let refusal = |message: &str| {
            let status = Status { code: 403, message: message.into(), ..Status::default() };
            let LockError { message, role, .. } = name.error(Verb::Create, kube::Error::Api(status.boxed()));
            (message, role.is_some())
        };
        let rbac = refusal("leases is forbidden: User \"u\" cannot update resource \"leases\" in API group \"\"");
        assert_eq!(
            rbac,
            ("not allowed to update leases.coordination.k8s.io \"job\" in namespace \"default\"".into(), true)
        );
        let quota = refusal("leases \"job\" is forbidden: exceeded quota: leases=1");
        let says = "cannot create the Lease default/job: leases \"job\" is forbidden: exceeded quota: leases=1";
        assert_eq!(quota, (says.into(), false));
    }
}
