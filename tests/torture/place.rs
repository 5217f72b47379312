//! Where the record is, for those who watch it and for those who meddle with it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use hyper::Method;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::plan::Meddling;
use testkit::{
    Client,
    client::{MERGE_PATCH, Session},
};

/// How long a request of the test's own may take; the server is at hand.
const LIMIT: Duration = Duration::from_secs(5);

const RUN_ANNOTATION: &str = "leaderrun/run";

/// The two kinds of lock that are tortured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Lease,
    File,
}

/// The record's place.
pub enum Place {
    Lease { client: Client, session: Mutex<Option<Session>>, path: String },
    File(PathBuf),
}

/// What the record said at one look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    pub holder: String,
    pub renewed: Option<Timestamp>,
    pub seconds: u64,
    /// The run whose mark it bears.
    pub run: Option<String>,
    /// The whole object, to replace it and no other.
    version: String,
}

impl Clone for Place {
    fn clone(&self) -> Self {
        match self {
            Self::Lease { client, path, .. } => Self::lease(client.clone(), path.clone()),
            Self::File(path) => Self::File(path.clone()),
        }
    }
}

impl Place {
    pub fn lease(client: Client, path: String) -> Self {
        Self::Lease { client, session: Mutex::default(), path }
    }

    /// The record, if there is one and it can be read.
    pub fn read(&self) -> Option<Sight> {
        match self {
            Self::Lease { client, session, path } => {
                let mut session = session.lock().expect("the session");
                if session.is_none() {
                    *session = client.open().ok();
                }
                let reply = session.as_ref()?.send(Method::GET, path, None, LIMIT);
                let Ok(reply) = reply else {
                    *session = None;
                    return None;
                };
                let lease: Value = serde_json::from_str(&reply.body).ok()?;
                let mark = &lease["metadata"]["annotations"][RUN_ANNOTATION];
                Some(sight(&lease["spec"], mark, lease["metadata"]["resourceVersion"].as_str()?))
            }
            Self::File(path) => {
                let contents: Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
                let record = &contents["record"];
                Some(sight(record, &record["run"], &contents["version"].to_string()))
            }
        }
    }

    /// Does something to the record that was seen, if it is still that one. `other` is a candidate that
    /// waits. False when it had changed.
    pub fn meddle(&self, deed: Meddling, seen: &Sight, other: &str) -> bool {
        match self {
            Self::Lease { client, path, .. } => meddle_with_lease(client, path, deed, seen, other).is_some(),
            Self::File(path) => {
                let Some(_locked) = lock_beside(path) else { return false };
                self.read().as_ref() == Some(seen) && meddle_with_file(path, deed, other).is_some()
            }
        }
    }
}

/// The lock that leaderrun takes to write the file.
pub fn lock_beside(path: &Path) -> Option<File> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    let lock = File::options().create(true).append(true).open(beside).ok()?;
    lock.try_lock().ok().map(|()| lock)
}

fn sight(record: &Value, mark: &Value, version: &str) -> Sight {
    Sight {
        holder: record["holderIdentity"].as_str().unwrap_or_default().to_owned(),
        renewed: record["renewTime"].as_str().and_then(|time| time.parse().ok()),
        seconds: record["leaseDurationSeconds"].as_u64().unwrap_or_default(),
        run: mark.as_str().and_then(|mark| mark.split(' ').next()).map(str::to_owned),
        version: version.to_owned(),
    }
}

/// What changes in the record: `null` removes.
fn changes(deed: Meddling, other: &str) -> Value {
    let past = "2020-01-01T00:00:00.000000Z";
    match deed {
        Meddling::Empty => json!({ "holderIdentity": "" }),
        Meddling::Wipe => {
            json!({ "holderIdentity": null, "leaseDurationSeconds": null, "acquireTime": null, "renewTime": null, "leaseTransitions": null, "run": null })
        }
        Meddling::ReleaseForeign => {
            json!({ "holderIdentity": "", "leaseDurationSeconds": 1, "acquireTime": past, "renewTime": past })
        }
        Meddling::GiveAway => json!({ "holderIdentity": "nobody" }),
        Meddling::GiveToOther => json!({ "holderIdentity": other }),
        Meddling::Shorten => json!({ "leaseDurationSeconds": 1 }),
        Meddling::Lengthen => json!({ "leaseDurationSeconds": 9 }),
        Meddling::Unmark => json!({ "run": null }),
        Meddling::Backdate => json!({ "renewTime": past }),
        Meddling::Delete | Meddling::Replace | Meddling::Label | Meddling::Garbage => json!({}),
    }
}

fn meddle_with_lease(client: &Client, path: &str, deed: Meddling, seen: &Sight, other: &str) -> Option<()> {
    let version = &seen.version;
    let send = |method, path: &str, kind, body: &Value| {
        let reply = client.send(method, path, Some((kind, body)), LIMIT).ok()?;
        (reply.status < 300).then_some(())
    };
    if matches!(deed, Meddling::Delete | Meddling::Replace) {
        let only_this = json!({ "preconditions": { "resourceVersion": version } });
        send(Method::DELETE, path, "application/json", &only_this)?;
        if deed == Meddling::Replace {
            let (leases, name) = path.rsplit_once('/')?;
            let empty =
                json!({ "metadata": { "name": name }, "spec": { "holderIdentity": "", "leaseDurationSeconds": 1 } });
            // The holder may have been faster.
            let _ = send(Method::POST, leases, "application/json", &empty);
        }
        return Some(());
    }
    let mut spec = changes(deed, other);
    let mut metadata = json!({ "resourceVersion": version });
    if let Some(run) = spec.as_object_mut().and_then(|spec| spec.remove("run")) {
        metadata["annotations"] = json!({ RUN_ANNOTATION: run });
    }
    if deed == Meddling::Label {
        metadata["labels"] = json!({ "seen": version });
    }
    send(Method::PATCH, path, MERGE_PATCH, &json!({ "metadata": metadata, "spec": spec }))
}

/// As a person with an editor would: the version is left alone.
fn meddle_with_file(path: &Path, deed: Meddling, other: &str) -> Option<()> {
    match deed {
        Meddling::Delete => return fs::remove_file(path).ok(),
        Meddling::Replace => return fs::write(path, "").ok(),
        Meddling::Garbage => return fs::write(path, "{ \"record\": [\u{1b}[2J").ok(),
        _ => {}
    }
    let mut contents: Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    let record = contents["record"].as_object_mut()?;
    for (name, value) in changes(deed, other).as_object()? {
        match value {
            Value::Null => drop(record.remove(name)),
            value => drop(record.insert(name.clone(), value.clone())),
        }
    }
    fs::write(path, contents.to_string()).ok()
}
