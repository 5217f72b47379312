//! Reads and edits the record of the lock.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use hyper::Method;
use jiff::Timestamp;
use serde_json::{Value, json};
use testkit::Client;
use testkit::client::{MERGE_PATCH, Session};

use crate::plan::Edit;

/// The timeout of the torture test's own requests. No faults are injected into their connections.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

const RUN_ANNOTATION: &str = "leaderrun/run";

/// The kinds of lock that are tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    Lease,
    File,
}

/// A lock that is tested.
#[derive(Clone, Copy, Debug)]
pub struct TorturedLock {
    pub kind: LockKind,
    /// The number of its slots, if it has any.
    pub slots: Option<usize>,
}

/// The store of one record.
pub enum RecordStore {
    Lease { client: Client, session: Mutex<Option<Session>>, path: String },
    File(PathBuf),
}

/// The record as it was read at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    pub holder: String,
    pub renew_time: Option<Timestamp>,
    pub lease_duration_seconds: u64,
    /// The run in leaderrun's mark.
    pub run: Option<String>,
    /// The version of the object. An edit is refused if the version has changed since.
    version: String,
}

/// A clone opens its own connection.
impl Clone for RecordStore {
    fn clone(&self) -> Self {
        match self {
            Self::Lease { client, path, .. } => Self::lease(client.clone(), path.clone()),
            Self::File(path) => Self::File(path.clone()),
        }
    }
}

impl RecordStore {
    pub fn lease(client: Client, path: String) -> Self {
        Self::Lease { client, session: Mutex::default(), path }
    }

    /// Reads the record. Returns `None` if there is none or it cannot be read.
    pub fn read(&self) -> Option<Observation> {
        match self {
            Self::Lease { client, session, path } => {
                let mut session = session.lock().expect("no thread panics while it holds this lock");
                if session.is_none() {
                    *session = client.open_session().ok();
                }
                let response = session.as_ref()?.send(Method::GET, path, None, REQUEST_TIMEOUT);
                let Ok(response) = response else {
                    *session = None;
                    return None;
                };
                let lease: Value = serde_json::from_str(&response.body).ok()?;
                let mark = &lease["metadata"]["annotations"][RUN_ANNOTATION];
                Some(observation(&lease["spec"], mark, lease["metadata"]["resourceVersion"].as_str()?))
            }
            Self::File(path) => {
                let contents: Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
                let record = &contents["record"];
                Some(observation(record, &record["run"], &contents["version"].to_string()))
            }
        }
    }

    /// Edits the observed record as `kubectl edit` or a text editor does. `standby` is the identity of a standby.
    /// Returns `false` if the edit failed, for example because the record has changed since it was observed.
    pub fn edit(&self, edit: Edit, observed: &Observation, standby: &str) -> bool {
        match self {
            Self::Lease { client, path, .. } => edit_lease(client, path, edit, observed, standby).is_some(),
            Self::File(path) => {
                let Some(_locked) = acquire_write_lock(path) else { return false };
                self.read().as_ref() == Some(observed) && edit_file(path, edit, standby).is_some()
            }
        }
    }
}

/// Acquires the lock that leaderrun holds while it writes the file at `path`. Dropping the returned file releases it.
pub fn acquire_write_lock(path: &Path) -> Option<File> {
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let lock = File::options().create(true).append(true).open(lock_path).ok()?;
    lock.try_lock().ok().map(|()| lock)
}

fn observation(record: &Value, mark: &Value, version: &str) -> Observation {
    Observation {
        holder: record["holderIdentity"].as_str().unwrap_or_default().to_owned(),
        renew_time: record["renewTime"].as_str().and_then(|time| time.parse().ok()),
        lease_duration_seconds: record["leaseDurationSeconds"].as_u64().unwrap_or_default(),
        run: mark.as_str().and_then(|mark| mark.split(' ').next()).map(str::to_owned),
        version: version.to_owned(),
    }
}

/// Returns the fields that an edit changes. `null` removes a field.
fn changed_fields(edit: Edit, standby: &str) -> Value {
    let past = "2020-01-01T00:00:00.000000Z";
    match edit {
        Edit::ClearHolder => json!({ "holderIdentity": "" }),
        Edit::ClearAll => json!({
            "holderIdentity": null, "leaseDurationSeconds": null, "acquireTime": null, "renewTime": null,
            "leaseTransitions": null, "run": null,
        }),
        Edit::ReleaseLikeClientGo => {
            json!({ "holderIdentity": "", "leaseDurationSeconds": 1, "acquireTime": past, "renewTime": past })
        }
        Edit::GiveToNobody => json!({ "holderIdentity": "nobody" }),
        Edit::GiveToStandby => json!({ "holderIdentity": standby }),
        Edit::Shorten => json!({ "leaseDurationSeconds": 1 }),
        Edit::Lengthen => json!({ "leaseDurationSeconds": 9 }),
        Edit::RemoveMark => json!({ "run": null }),
        Edit::Backdate => json!({ "renewTime": past }),
        Edit::Delete | Edit::Recreate | Edit::Label | Edit::Garbage => json!({}),
    }
}

fn edit_lease(client: &Client, path: &str, edit: Edit, observed: &Observation, standby: &str) -> Option<()> {
    let version = &observed.version;
    let send = |method, path: &str, content_type, body: &Value| {
        let response = client.send(method, path, Some((content_type, body)), REQUEST_TIMEOUT).ok()?;
        (response.status < 300).then_some(())
    };
    if matches!(edit, Edit::Delete | Edit::Recreate) {
        let preconditions = json!({ "preconditions": { "resourceVersion": version } });
        send(Method::DELETE, path, "application/json", &preconditions)?;
        if edit == Edit::Recreate {
            let (leases, name) = path.rsplit_once('/')?;
            let empty =
                json!({ "metadata": { "name": name }, "spec": { "holderIdentity": "", "leaseDurationSeconds": 1 } });
            // This fails if a candidate has already created the Lease again.
            let _ = send(Method::POST, leases, "application/json", &empty);
        }
        return Some(());
    }
    let mut spec = changed_fields(edit, standby);
    let mut metadata = json!({ "resourceVersion": version });
    if let Some(run) = spec.as_object_mut().and_then(|spec| spec.remove("run")) {
        metadata["annotations"] = json!({ RUN_ANNOTATION: run });
    }
    if edit == Edit::Label {
        metadata["labels"] = json!({ "edited-version": version });
    }
    send(Method::PATCH, path, MERGE_PATCH, &json!({ "metadata": metadata, "spec": spec }))
}

/// Edits a lock file as a text editor would: the version in the file stays the same.
fn edit_file(path: &Path, edit: Edit, standby: &str) -> Option<()> {
    match edit {
        Edit::Delete => return fs::remove_file(path).ok(),
        Edit::Recreate => return fs::write(path, "").ok(),
        Edit::Garbage => return fs::write(path, "{ \"record\": [\u{1b}[2J").ok(),
        _ => {}
    }
    let mut contents: Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    let record = contents["record"].as_object_mut()?;
    for (name, value) in changed_fields(edit, standby).as_object()? {
        match value {
            Value::Null => drop(record.remove(name)),
            value => drop(record.insert(name.clone(), value.clone())),
        }
    }
    fs::write(path, contents.to_string()).ok()
}
