//! A record in a Kubernetes object, whichever kind of object that is.

use std::sync::Mutex;

use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, StreamExt};
use futures_util::{FutureExt, TryStreamExt};
use kube::api::{Api, ApiResource, DynamicObject, PostParams, WatchEvent as KubeEvent, WatchParams};
use leaderrun_core::election::WatchEvent;
use leaderrun_core::record::{
    CONTENDERS_ANNOTATION, NOT_BEFORE_ANNOTATION, RUN_ANNOTATION, Record, RunId, STEP_DOWN_ANNOTATION, Stored, Version,
};

use super::kubernetes::Cluster;
use super::resource::{ObjectName, Resource, Verb, error, expired};
use super::{Lock, LockError, LockErrorKind};

/// How long the server keeps a watch open: the longest that kube allows.
const WATCH_SECONDS: u32 = 290;

/// A resourceVersion that no object has: it is etcd's own, before anything is stored.
const NO_OBJECTS_VERSION: &str = "1";

/// The record in one object.
pub struct ObjectLock {
    cluster: Cluster,
    object: ObjectName,
    /// The object last seen: a write keeps what is not ours in it.
    seen: Mutex<Option<DynamicObject>>,
}

impl ObjectLock {
    /// The record in that object. Nothing is asked of the API server yet.
    pub fn new(cluster: Cluster, object: ObjectName) -> Self {
        Self { cluster, object, seen: Mutex::new(None) }
    }

    fn api(&self, client: kube::Client) -> Api<DynamicObject> {
        let ObjectName { resource, namespace, .. } = &self.object;
        Api::namespaced_with(client, namespace, &api_resource(resource))
    }

    async fn read(&self) -> Result<Option<Stored>, LockError> {
        let found = self.api(self.cluster.requests()).get_opt(&self.object.name).await;
        let found = found.map_err(|failure| self.object.error(Verb::Get, failure))?;
        found.map(|object| self.note(object)).transpose()
    }

    async fn make(&self, record: Record) -> Result<Stored, LockError> {
        let ObjectName { resource, namespace, name } = &self.object;
        let object = DynamicObject::new(name, &api_resource(resource)).within(namespace);
        let mut object = filled(resource, object, &record);
        let api = self.api(self.cluster.requests());
        let made = match resource.created_by_put {
            // A PUT creates where nothing is. What is there has another version than any that was ever given
            // to it, and is left alone; without a version a PUT would replace some kinds of objects blindly.
            true => {
                object.metadata.resource_version = Some(NO_OBJECTS_VERSION.to_owned());
                api.replace(name, &PostParams::default(), &object).await
            }
            false => api.create(&PostParams::default(), &object).await,
        };
        self.note(made.map_err(|failure| self.object.error(Verb::Create, failure))?)
    }

    async fn replace(&self, version: Version, record: Record) -> Result<Stored, LockError> {
        // What was seen since has another version, and the server would say the same.
        let Some(seen) = self.seen_with(&version) else {
            return Err(LockError::new(LockErrorKind::Conflict, "the object has changed"));
        };
        let object = filled(self.object.resource, seen, &record);
        let api = self.api(self.cluster.requests());
        let written = api.replace(&self.object.name, &PostParams::default(), &object).await;
        self.note(written.map_err(|failure| self.object.error(Verb::Update, failure))?)
    }

    fn note(&self, mut object: DynamicObject) -> Result<Stored, LockError> {
        // Only the API server's own bookkeeping; left out of a write it is kept.
        object.metadata.managed_fields = None;
        let stored = self.stored(&object)?;
        *self.seen.lock().expect("nothing panics while it is held") = Some(object);
        Ok(stored)
    }

    fn stored(&self, object: &DynamicObject) -> Result<Stored, LockError> {
        let version = version(object).ok_or_else(|| error(format!("{} came without uid or version", self.object)))?;
        let record = (self.object.resource.read)(object);
        let mut record = record.map_err(|reason| self.object.refusal(&reason))?;
        let annotations = object.metadata.annotations.as_ref();
        let annotation = |name| annotations.and_then(|all| all.get(name));
        record.run = annotation(RUN_ANNOTATION).and_then(|text| text.parse().ok());
        record.not_before = annotation(NOT_BEFORE_ANNOTATION).and_then(|text| text.parse().ok());
        record.step_down = annotation(STEP_DOWN_ANNOTATION).map(RunId::new);
        record.contenders = annotation(CONTENDERS_ANNOTATION).and_then(|text| text.parse().ok());
        Ok(Stored { record, version })
    }

    /// The object last seen, if it is the one that has this version.
    fn seen_with(&self, version_wanted: &Version) -> Option<DynamicObject> {
        let seen = self.seen.lock().expect("nothing panics while it is held").clone();
        seen.filter(|object| version(object).as_ref() == Some(version_wanted))
    }

    fn watched(&self, event: kube::Result<KubeEvent<DynamicObject>>) -> Result<Option<WatchEvent>, LockError> {
        match event.map_err(|failure| self.object.error(Verb::Watch, failure))? {
            KubeEvent::Added(object) | KubeEvent::Modified(object) => Ok(Some(WatchEvent::Changed(self.note(object)?))),
            KubeEvent::Deleted(_) => Ok(Some(WatchEvent::Deleted)),
            KubeEvent::Bookmark(_) => Ok(None),
            KubeEvent::Error(status) => Err(expired(&status)),
        }
    }
}

impl Lock for ObjectLock {
    fn get(&self) -> BoxFuture<'_, Result<Option<Stored>, LockError>> {
        self.read().boxed()
    }

    fn create(&self, record: Record) -> BoxFuture<'_, Result<Stored, LockError>> {
        self.make(record).boxed()
    }

    fn update(&self, version: Version, record: Record) -> BoxFuture<'_, Result<Stored, LockError>> {
        self.replace(version, record).boxed()
    }

    fn watch(&self, from: Option<Version>) -> BoxStream<'_, Result<WatchEvent, LockError>> {
        let version = from.map(|from| from.resource_version).unwrap_or_default();
        async move {
            let api = self.api(self.cluster.watches().await?);
            let only_this = format!("metadata.name={}", self.object.name);
            let only_this = WatchParams::default().fields(&only_this).timeout(WATCH_SECONDS);
            let events = api.watch(&only_this, &version).await;
            let events = events.map_err(|failure| self.object.error(Verb::Watch, failure))?;
            Ok(events.map(|event| self.watched(event)).filter_map(async |event| event.transpose()))
        }
        .into_stream()
        .try_flatten()
        .boxed()
    }
}

fn api_resource(resource: &Resource) -> ApiResource {
    let Resource { group, kind, plural, .. } = *resource;
    ApiResource {
        group: group.to_owned(),
        version: "v1".to_owned(),
        api_version: resource.api_version(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

fn version(object: &DynamicObject) -> Option<Version> {
    let (uid, resource_version) = (object.metadata.uid.clone()?, object.metadata.resource_version.clone()?);
    Some(Version { uid, resource_version })
}

/// The object with the record in place of its own; everything else is kept.
fn filled(resource: &Resource, mut object: DynamicObject, record: &Record) -> DynamicObject {
    (resource.write)(&mut object, record);
    let annotations = object.metadata.annotations.get_or_insert_default();
    let run = record.run.as_ref().map(ToString::to_string);
    let not_before = record.not_before.as_ref().map(ToString::to_string);
    let contenders = record.contenders.map(|contenders| contenders.to_string());
    let step_down = record.step_down.as_ref().map(ToString::to_string);
    for (name, text) in [
        (RUN_ANNOTATION, run),
        (NOT_BEFORE_ANNOTATION, not_before),
        (CONTENDERS_ANNOTATION, contenders),
        (STEP_DOWN_ANNOTATION, step_down),
    ] {
        match text {
            Some(text) => annotations.insert(name.to_owned(), text),
            None => annotations.remove(name),
        };
    }
    object
}
