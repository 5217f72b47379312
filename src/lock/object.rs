//! A lock whose record is stored in a Kubernetes object of any kind.

use std::sync::{Arc, Mutex};

use futures_util::future::{BoxFuture, ready};
use futures_util::stream::{BoxStream, StreamExt, iter};
use futures_util::{FutureExt, TryStreamExt};
use leaderrun_core::election::WatchEvent;
use leaderrun_core::record::{
    CLAIM_DELAY_ANNOTATION, CONTENDERS_ANNOTATION, FORCED_ANNOTATION, LOCK_ANNOTATION, NOT_BEFORE_ANNOTATION,
    REPLACED_VERSION_ANNOTATION, RETRY_PERIOD_ANNOTATION, RUN_ANNOTATION, Record, RecordSlot, RunId, SLOT_ANNOTATION,
    STEP_DOWN_ANNOTATION, Stored, Version,
};
use serde_json::{Value, json};

use super::owner::Owner;
use super::{Lock, LockError, LockErrorKind};
use crate::kubernetes::{self, Cluster, Collection, ErrorKind, ObjectEvent, ObjectName, Resource, Rule, Verb, role};
use crate::telemetry::log::printable;

/// The revision of etcd before anything is stored, so no object has this resourceVersion.
const EMPTY_STORE_VERSION: &str = "1";

/// The label that states which program created an object. It is only set on new objects.
const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";

/// The format of a record in objects of one kind.
#[derive(Debug)]
pub struct RecordFormat {
    pub resource: &'static Resource,
    /// Whether the record is part of the object's metadata, so that a list of metadata contains it.
    pub is_in_metadata: bool,
    /// Returns whether an object belongs to a lock.
    pub is_lock: fn(&Value) -> bool,
    /// Reads the record of an object, without leaderrun's annotations. An object without a record is a free lock.
    pub read: fn(&Value) -> Result<Record, String>,
    /// Puts a record into an object and keeps everything else.
    pub write: fn(&mut Value, &Record),
}

impl RecordFormat {
    /// Reads the record of an object, with leaderrun's annotations.
    ///
    /// # Errors
    /// Fails if the object contains something other than a valid record where the record should be.
    pub fn record(&self, object: &Value) -> Result<Record, String> {
        let mut record = (self.read)(object)?;
        let annotation = |name: &str| object["metadata"]["annotations"][name].as_str();
        // Older releases of leaderrun do not write LOCK_ANNOTATION, so their marks count in any object.
        let is_written_here = annotation(LOCK_ANNOTATION).is_none_or(|lock| is_written_for(lock, object));
        record.run = annotation(RUN_ANNOTATION).filter(|_| is_written_here).and_then(|text| text.parse().ok());
        record.replaced_version = annotation(REPLACED_VERSION_ANNOTATION).map(ToOwned::to_owned);
        record.not_before = annotation(NOT_BEFORE_ANNOTATION).and_then(|text| text.parse().ok());
        record.step_down = annotation(STEP_DOWN_ANNOTATION).map(RunId::new);
        record.contenders = annotation(CONTENDERS_ANNOTATION).and_then(|text| text.parse().ok());
        record.claim_delay_millis = annotation(CLAIM_DELAY_ANNOTATION).and_then(|text| text.parse().ok());
        record.retry_period_millis = annotation(RETRY_PERIOD_ANNOTATION).and_then(|text| text.parse().ok());
        record.slot = annotation(SLOT_ANNOTATION).and_then(RecordSlot::parse);
        record.forced = annotation(FORCED_ANNOTATION).and_then(|text| text.parse().ok());
        Ok(record)
    }
}

/// Returns whether a mark was written for this object, and was not copied from another object. `written_for` is the
/// value of [`LOCK_ANNOTATION`]: the namespace, the name and the uid of an object. The uid is missing if the write
/// created the object, because only the API server assigns it.
fn is_written_for(written_for: &str, object: &Value) -> bool {
    let metadata = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    let (lock, uid) = written_for.split_once(' ').unwrap_or((written_for, metadata("uid")));
    lock.split_once('/') == Some((metadata("namespace"), metadata("name"))) && uid == metadata("uid")
}

/// Returns the permissions that a candidate needs for an object of its lock.
pub fn rules(ObjectName { resource, namespace, name }: &ObjectName) -> Vec<Rule> {
    let name = Some(name.clone());
    if resource.created_by_put {
        return vec![resource.rule(namespace, name, &[Verb::Get, Verb::Create, Verb::Update, Verb::Watch])];
    }
    // RBAC cannot restrict a POST by name. The permission to create is not needed if the object exists already.
    vec![
        resource.rule(namespace, name, &[Verb::Get, Verb::Update, Verb::Watch]),
        resource.rule(namespace, None, &[Verb::Create]),
    ]
}

/// The names in the Role for a lock.
#[derive(Debug)]
pub struct RoleScope {
    /// The name of the lock, which is part of the Role's name.
    pub lock: String,
    /// The name of the lock's object, or the names of the objects of all its slots.
    pub object_names: Vec<String>,
}

/// A lock whose record is in one object.
pub struct ObjectLock {
    format: &'static RecordFormat,
    objects: Collection,
    object_name: ObjectName,
    role_scope: Arc<RoleScope>,
    /// The owner to set on the object; `None` if the object gets no owner.
    owner: Option<Arc<Owner>>,
    /// The object as last seen. Writes keep the fields that leaderrun does not use.
    seen: Mutex<Option<Value>>,
    /// The start of the next watch, if it is not the object's own version. If an object has not changed for minutes,
    /// its version may have left the API server's watch cache, and a watch from that version would fail at once.
    resume: Mutex<Option<Resume>>,
}

/// The start of the next watch while the object has the version `version`.
struct Resume {
    version: Version,
    /// The resourceVersion of a bookmark; empty for the current state.
    from: String,
}

impl ObjectLock {
    /// Creates the lock for the object with this name, without sending a request.
    pub fn new(
        cluster: &Cluster,
        format: &'static RecordFormat,
        namespace: &str,
        name: &str,
        role_scope: Arc<RoleScope>,
        owner: Option<Arc<Owner>>,
    ) -> Self {
        let objects = Collection::new(cluster, format.resource, namespace);
        let object_name =
            ObjectName { resource: format.resource, namespace: namespace.to_owned(), name: name.to_owned() };
        Self { format, objects, object_name, role_scope, owner, seen: Mutex::new(None), resume: Mutex::new(None) }
    }

    async fn read(&self) -> Result<Option<Stored>, LockError> {
        self.look_up_owner().await;
        let found = self.objects.get(&self.object_name.name).await;
        let found = found.map_err(|error| self.to_lock_error(error))?;
        self.owner.iter().for_each(|owner| owner.note_successful_request());
        if found.is_none() && self.seen.lock().expect("no thread panics while it holds this lock").is_some() {
            self.forget_owner();
        }
        found.map(|object| self.remember(object)).transpose()
    }

    async fn look_up_owner(&self) {
        if let Some(owner) = &self.owner {
            owner.look_up().await;
        }
    }

    fn forget_owner(&self) {
        self.owner.iter().for_each(|owner| owner.forget());
    }

    async fn create_object(&self, record: Record) -> Result<Stored, LockError> {
        let ObjectName { resource, namespace, name } = &self.object_name;
        let mut object = json!({
            "apiVersion": resource.api_version(),
            "kind": resource.kind,
            "metadata": { "name": name, "namespace": namespace, "labels": { MANAGED_BY_LABEL: "leaderrun" } },
        });
        self.put_record(&mut object, &record);
        if resource.created_by_put {
            // A PUT creates a missing object. An existing object never had this version, so it is not replaced. Without
            // a version a PUT would replace objects of some kinds unconditionally.
            object["metadata"]["resourceVersion"] = EMPTY_STORE_VERSION.into();
        }
        self.look_up_owner().await;
        let created = self.write_with_owner(Verb::Create, object, &record).await;
        let stored = self.remember(created.map_err(|error| self.to_lock_error(error))?)?;
        self.owner.iter().for_each(|owner| owner.note_successful_request());
        self.check_stored(&record, stored)
    }

    async fn replace(&self, version: Version, record: Record) -> Result<Stored, LockError> {
        // If a later version has been seen in the meantime, the API server would report a conflict too.
        let Some(mut object) = self.seen_with(&version) else {
            return Err(LockError::new(LockErrorKind::Conflict, "the object has changed"));
        };
        self.put_record(&mut object, &record);
        let written = self.write_with_owner(Verb::Update, object, &record).await;
        let stored = self.remember(written.map_err(|error| match error.kind {
            // The object was deleted after it was read.
            ErrorKind::NotFound => LockError::new(LockErrorKind::Conflict, error.message),
            _ => self.to_lock_error(error),
        })?)?;
        self.check_stored(&record, stored)
    }

    /// Checks that the API server has stored everything that other candidates must know about a holder. Admission
    /// webhooks and policies can change a write. If they changed one of these fields, other than by lengthening the
    /// lease duration, the write does not count as an acquisition or a renewal.
    fn check_stored(&self, written: &Record, stored: Stored) -> Result<Stored, LockError> {
        let [wanted, found] = [written, &stored.record].map(|record| record.lease_duration_seconds);
        let difference = if !written.is_held() {
            return Ok(stored);
        } else if stored.record.holder_identity != written.holder_identity {
            match stored.record.holder_identity.as_str() {
                "" => "no holder".to_owned(),
                holder => format!("the holder {}", printable(holder)),
            }
        } else if stored.record.mark() != written.mark() {
            format!("a {RUN_ANNOTATION} annotation or renewTime that differs from what leaderrun wrote")
        } else if let Some(wanted) = wanted.filter(|wanted| found < Some(*wanted)) {
            let found = found.map(|seconds| format!("a lease duration of {seconds} s"));
            format!("{} instead of {wanted} s", found.unwrap_or_else(|| "no lease duration".to_owned()))
        } else {
            return Ok(stored);
        };
        let changed = format!("the API server stored {} with {difference}", self.object_name);
        Err(LockError::new(
            LockErrorKind::Refused,
            format!("{changed}; look for an admission webhook or policy that changes it"),
        ))
    }

    /// Writes the object with the owner, unless the owner cannot be added or this user may not set owners.
    async fn write_with_owner(&self, verb: Verb, object: Value, record: &Record) -> Result<Value, kubernetes::Error> {
        if let Some(owner) = &self.owner {
            let mut owned = object.clone();
            if owner.add_to(&mut owned, record.is_held()) {
                match self.write(verb, &owned).await {
                    Err(error) if owner.handle_refusal(&error) => {}
                    result => return result,
                }
            }
        }
        self.write(verb, &object).await
    }

    async fn write(&self, verb: Verb, object: &Value) -> Result<Value, kubernetes::Error> {
        let ObjectName { resource, name, .. } = &self.object_name;
        match verb {
            Verb::Create if resource.created_by_put => self.objects.create_by_put(name, object).await,
            Verb::Create => self.objects.create(name, object).await,
            _ => self.objects.replace(name, object).await,
        }
    }

    /// Remembers the object as last seen, and returns its record.
    fn remember(&self, mut object: Value) -> Result<Stored, LockError> {
        // A write can leave this field out, because the API server maintains it.
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.remove("managedFields");
        }
        let stored = self.stored(&object)?;
        *self.seen.lock().expect("no thread panics while it holds this lock") = Some(object);
        Ok(stored)
    }

    /// Returns the record and the version in an object.
    fn stored(&self, object: &Value) -> Result<Stored, LockError> {
        let no_version = || {
            LockError::new(
                LockErrorKind::Unknown,
                format!("the API server returned {} without uid or resourceVersion", self.object_name),
            )
        };
        let version = version(object).ok_or_else(no_version)?;
        let unusable = |reason: String| {
            LockError::new(LockErrorKind::Refused, format!("cannot use {}: {}", self.object_name, printable(&reason)))
        };
        let record = self.format.record(object).map_err(unusable)?;
        Ok(Stored { record, version })
    }

    /// Replaces the record in the object, and keeps everything else.
    fn put_record(&self, object: &mut Value, record: &Record) {
        (self.format.write)(object, record);
        let ObjectName { namespace, name, .. } = &self.object_name;
        let uid = object["metadata"]["uid"].as_str().map(|uid| format!(" {uid}")).unwrap_or_default();
        let annotations = [
            (LOCK_ANNOTATION, record.run.as_ref().map(|_| format!("{namespace}/{name}{uid}"))),
            (RUN_ANNOTATION, record.run.as_ref().map(ToString::to_string)),
            (REPLACED_VERSION_ANNOTATION, record.replaced_version.clone()),
            (NOT_BEFORE_ANNOTATION, record.not_before.as_ref().map(ToString::to_string)),
            (CONTENDERS_ANNOTATION, record.contenders.map(|contenders| contenders.to_string())),
            (CLAIM_DELAY_ANNOTATION, record.claim_delay_millis.map(|millis| millis.to_string())),
            (RETRY_PERIOD_ANNOTATION, record.retry_period_millis.map(|millis| millis.to_string())),
            (SLOT_ANNOTATION, record.slot.map(|slot| slot.to_string())),
            (FORCED_ANNOTATION, record.forced.map(|time| format!("{time:.6}"))),
            (STEP_DOWN_ANNOTATION, record.step_down.as_ref().map(ToString::to_string)),
        ];
        for (name, text) in annotations {
            if let Some(text) = text {
                object["metadata"]["annotations"][name] = text.into();
            } else if let Some(annotations) = object["metadata"]["annotations"].as_object_mut() {
                annotations.remove(name);
            }
        }
    }

    /// Returns the object last seen, if it has this version.
    fn seen_with(&self, expected: &Version) -> Option<Value> {
        let seen = self.seen.lock().expect("no thread panics while it holds this lock").clone();
        seen.filter(|object| version(object).as_ref() == Some(expected))
    }

    /// Converts an event from the object's watch to a [`WatchEvent`], and remembers the object.
    fn to_watch_event(&self, event: Result<ObjectEvent, kubernetes::Error>) -> Result<WatchEvent, LockError> {
        match event {
            Ok(ObjectEvent::Changed(object)) => Ok(WatchEvent::Changed(self.remember(object)?)),
            Ok(ObjectEvent::Deleted) => {
                self.forget_owner();
                Ok(WatchEvent::Deleted)
            }
            Ok(ObjectEvent::Bookmark { resource_version }) => {
                self.resume_from(resource_version);
                Ok(WatchEvent::Bookmark)
            }
            Err(error) => {
                if error.kind == ErrorKind::Expired {
                    self.resume_from(String::new());
                }
                Err(self.to_lock_error(error))
            }
        }
    }

    /// Sets where the next watch starts while the object keeps the version that was last seen.
    fn resume_from(&self, from: String) {
        let seen = self.seen.lock().expect("no thread panics while it holds this lock");
        if let Some(version) = seen.as_ref().and_then(version) {
            *self.resume.lock().expect("no thread panics while it holds this lock") = Some(Resume { version, from });
        }
    }

    /// Returns the resourceVersion from which to watch an object that was last seen with the version `seen`; empty if
    /// the watch has to begin with the current state.
    fn watch_start(&self, seen: Option<Version>) -> String {
        let Some(seen) = seen else { return String::new() };
        let resume = self.resume.lock().expect("no thread panics while it holds this lock");
        match resume.as_ref().filter(|resume| resume.version == seen) {
            Some(resume) => resume.from.clone(),
            None => seen.resource_version,
        }
    }

    fn role(&self) -> String {
        let RoleScope { lock, object_names } = &*self.role_scope;
        let object = |name: &String| ObjectName { name: name.clone(), ..self.object_name.clone() };
        let rules: Vec<Rule> = object_names.iter().map(object).flat_map(|object| rules(&object)).collect();
        role(&self.object_name.namespace, lock, &rules)
    }

    /// Converts the error from a request. If RBAC refused the request, adds the Role that would permit it.
    fn to_lock_error(&self, error: kubernetes::Error) -> LockError {
        let kind = match error.kind {
            ErrorKind::Conflict => LockErrorKind::Conflict,
            ErrorKind::Forbidden => LockErrorKind::Forbidden,
            ErrorKind::NotFound | ErrorKind::Refused => LockErrorKind::Refused,
            ErrorKind::Expired | ErrorKind::TooLarge | ErrorKind::Unknown => LockErrorKind::Unknown,
        };
        let ObjectName { namespace, .. } = &self.object_name;
        let is_namespace_missing = error.kind == ErrorKind::NotFound
            && error.message.contains(&format!("namespaces \"{namespace}\" not found"));
        if is_namespace_missing {
            let message = format!(
                "there is no namespace {namespace:?}; try kubectl create namespace {namespace}, or use an existing namespace for the lock"
            );
            return LockError::new(kind, message);
        }
        let role = error.refused_by_rbac.then(|| self.role());
        LockError { kind, message: error.message, retry_after: error.retry_after, role }
    }
}

impl Lock for ObjectLock {
    fn get(&self) -> BoxFuture<'_, Result<Option<Stored>, LockError>> {
        self.read().boxed()
    }

    fn create(&self, record: Record) -> BoxFuture<'_, Result<Stored, LockError>> {
        self.create_object(record).boxed()
    }

    fn update(&self, version: Version, record: Record) -> BoxFuture<'_, Result<Stored, LockError>> {
        self.replace(version, record).boxed()
    }

    fn waiting_for(&self) -> Option<String> {
        self.objects.waiting_for()
    }

    fn allows_late_writes(&self) -> bool {
        true
    }

    fn watch(&self, from: Option<Version>) -> BoxStream<'_, Result<WatchEvent, LockError>> {
        let start = self.watch_start(from);
        async move {
            let opened = self.objects.watch(&self.object_name.name, &start).await;
            let events = opened.map_err(|error| self.to_lock_error(error))?;
            Ok(iter([Ok(WatchEvent::Opened)]).chain(events.then(|event| ready(self.to_watch_event(event)))))
        }
        .into_stream()
        .try_flatten()
        .boxed()
    }
}

fn version(object: &Value) -> Option<Version> {
    let metadata = &object["metadata"];
    let (uid, resource_version) = (metadata["uid"].as_str()?, metadata["resourceVersion"].as_str()?);
    Some(Version { uid: uid.to_owned(), resource_version: resource_version.to_owned() })
}
