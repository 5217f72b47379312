//! The record in a `coordination.k8s.io/v1` Lease.

use std::sync::Mutex;

use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, StreamExt};
use futures_util::{FutureExt, TryStreamExt};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, PostParams, WatchEvent as KubeEvent, WatchParams};

use super::kubernetes::{Cluster, Verb, error, expired, lease_error};
use super::{Lock, LockError, LockErrorKind};
use crate::election::WatchEvent;
use crate::election::record::{RUN_ANNOTATION, Record, Stored, Version};

/// How long the server keeps a watch open: the longest that kube allows.
const WATCH_SECONDS: u32 = 290;

/// A Lease, created by PUT to its name: so a Role for that one name is all a candidate needs.
pub struct LeaseLock {
    cluster: Cluster,
    namespace: String,
    name: String,
    /// The object last seen: a write keeps what is not ours in it.
    seen: Mutex<Option<Lease>>,
}

impl LeaseLock {
    /// The Lease `namespace/name`. Nothing is asked of the API server yet.
    pub fn new(cluster: Cluster, namespace: String, name: String) -> Self {
        Self { cluster, namespace, name, seen: Mutex::new(None) }
    }

    async fn read(&self) -> Result<Option<Stored>, LockError> {
        let lease = self.api().get_opt(&self.name).await.map_err(|failure| self.error(Verb::Get, failure))?;
        lease.map(|lease| self.note(lease)).transpose()
    }

    async fn put(&self, lease: Lease) -> Result<Stored, LockError> {
        // A PUT without a resourceVersion creates, and is refused where the Lease exists.
        let written = self.api().replace(&self.name, &PostParams::default(), &lease).await;
        self.note(written.map_err(|failure| self.error(Verb::Update, failure))?)
    }

    fn api(&self) -> Api<Lease> {
        Api::namespaced(self.cluster.requests(), &self.namespace)
    }

    fn error(&self, verb: Verb, failure: kube::Error) -> LockError {
        lease_error(verb, &self.namespace, &self.name, failure)
    }

    fn note(&self, mut lease: Lease) -> Result<Stored, LockError> {
        // Only the API server's own bookkeeping; left out of a write it is kept.
        lease.metadata.managed_fields = None;
        let stored = stored(&lease)?;
        *self.seen.lock().expect("nothing panics while it is held") = Some(lease);
        Ok(stored)
    }

    /// The object last seen, if it is the one that has this version.
    fn seen_with(&self, version: &Version) -> Option<Lease> {
        let seen = self.seen.lock().expect("nothing panics while it is held").clone()?;
        let Version { uid, resource_version } = version;
        let same = seen.metadata.uid.as_ref() == Some(uid)
            && seen.metadata.resource_version.as_ref() == Some(resource_version);
        same.then_some(seen)
    }
}

impl Lock for LeaseLock {
    fn get(&self) -> BoxFuture<'_, Result<Option<Stored>, LockError>> {
        self.read().boxed()
    }

    fn create(&self, record: Record) -> BoxFuture<'_, Result<Stored, LockError>> {
        let metadata = ObjectMeta {
            name: Some(self.name.clone()),
            namespace: Some(self.namespace.clone()),
            ..ObjectMeta::default()
        };
        self.put(filled(Lease { metadata, spec: None }, record)).boxed()
    }

    fn update(&self, version: Version, record: Record) -> BoxFuture<'_, Result<Stored, LockError>> {
        async move {
            // What was seen since has another version, and the server would say the same.
            let Some(seen) = self.seen_with(&version) else {
                return Err(LockError::new(LockErrorKind::Conflict, "the lease has changed"));
            };
            self.put(filled(seen, record)).await
        }
        .boxed()
    }

    fn watch(&self, from: Option<Version>) -> BoxStream<'_, Result<WatchEvent, LockError>> {
        let version = from.map(|from| from.resource_version).unwrap_or_default();
        async move {
            let leases: Api<Lease> = Api::namespaced(self.cluster.watches().await?, &self.namespace);
            let only_this =
                WatchParams::default().fields(&format!("metadata.name={}", self.name)).timeout(WATCH_SECONDS);
            let events = leases.watch(&only_this, &version).await;
            let events = events.map_err(|failure| self.error(Verb::Watch, failure))?;
            Ok(events.map(|event| self.watched(event)).filter_map(async |event| event.transpose()))
        }
        .into_stream()
        .try_flatten()
        .boxed()
    }
}

impl LeaseLock {
    fn watched(&self, event: kube::Result<KubeEvent<Lease>>) -> Result<Option<WatchEvent>, LockError> {
        match event.map_err(|failure| self.error(Verb::Watch, failure))? {
            KubeEvent::Added(lease) | KubeEvent::Modified(lease) => Ok(Some(WatchEvent::Changed(self.note(lease)?))),
            KubeEvent::Deleted(_) => Ok(Some(WatchEvent::Deleted)),
            KubeEvent::Bookmark(_) => Ok(None),
            KubeEvent::Error(status) => Err(expired(&status)),
        }
    }
}

/// The lease with the record in place of its own; everything else is kept.
fn filled(mut lease: Lease, record: Record) -> Lease {
    let time = |time: Option<Timestamp>| time.map(MicroTime);
    let annotations = lease.metadata.annotations.get_or_insert_default();
    match record.run {
        Some(run) => annotations.insert(RUN_ANNOTATION.to_owned(), run.to_string()),
        None => annotations.remove(RUN_ANNOTATION),
    };
    lease.spec = Some(LeaseSpec {
        holder_identity: Some(record.holder_identity),
        lease_duration_seconds: record.lease_duration_seconds.and_then(|seconds| seconds.try_into().ok()),
        acquire_time: time(record.acquire_time),
        renew_time: time(record.renew_time),
        lease_transitions: record.lease_transitions.try_into().ok(),
        ..lease.spec.unwrap_or_default()
    });
    lease
}

fn stored(lease: &Lease) -> Result<Stored, LockError> {
    let version = match (&lease.metadata.uid, &lease.metadata.resource_version) {
        (Some(uid), Some(version)) => Version { uid: uid.clone(), resource_version: version.clone() },
        _ => return Err(error("the API server sent a Lease without uid or resourceVersion")),
    };
    let spec = lease.spec.clone().unwrap_or_default();
    let run = lease.metadata.annotations.as_ref().and_then(|annotations| annotations.get(RUN_ANNOTATION));
    let record = Record {
        holder_identity: spec.holder_identity.unwrap_or_default(),
        lease_duration_seconds: spec.lease_duration_seconds.and_then(|seconds| seconds.try_into().ok()),
        acquire_time: spec.acquire_time.map(|MicroTime(time)| time),
        renew_time: spec.renew_time.map(|MicroTime(time)| time),
        lease_transitions: spec.lease_transitions.and_then(|transitions| transitions.try_into().ok()).unwrap_or(0),
        run: run.and_then(|text| text.parse().ok()),
    };
    Ok(Stored { record, version })
}
