//! Candidates that behave like other implementations of leader election: client-go or fabric8.
//!
//! client-go polls every retry period, with a GET and then a PUT. It takes over when the record has not changed for the
//! duration in its *own* configuration. To release the lock, it writes an empty holder and a duration of one second. It
//! keeps unknown annotations, and the times that it writes into annotations are whole seconds. fabric8 behaves the same
//! way, but uses another JSON format in annotations, with times in microsecond precision.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{Client, Cluster, eventually, nanos_since_boot};

/// The lease duration in the candidate's configuration.
const LEASE_DURATION: Duration = Duration::from_secs(6);

const RETRY_PERIOD: Duration = Duration::from_millis(300);

/// The identity that the candidate writes into the record.
pub const IDENTITY: &str = "other";

/// The annotation that contains the record.
pub const LEADER_ANNOTATION: &str = "control-plane.alpha.kubernetes.io/leader";

/// The path of the object that contains the record, in the spec of a Lease or in an annotation.
#[derive(Clone)]
pub enum RecordPath {
    Lease(String),
    Annotation(String),
}

/// The implementation that a candidate behaves like.
#[derive(Clone, Copy, PartialEq)]
pub enum Implementation {
    ClientGo,
    Fabric8,
}

/// The way in which the candidate's leadership ends.
#[derive(Clone, Copy, PartialEq)]
pub enum Ending {
    /// The candidate writes a record without a holder.
    Release,
    /// The candidate stops writing.
    Crash,
}

/// The period during which a candidate led. Times are in nanoseconds since boot.
#[derive(Clone, Copy, Debug)]
pub struct Leadership {
    pub began_at: u64,
    /// 0 while the candidate still leads.
    pub ended_at: u64,
}

/// A candidate that runs on its own thread. Dropping it simulates a crash.
pub struct OtherCandidate {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// `true` once the candidate has acquired the lock, even if it has lost it since.
    has_led: AtomicBool,
    /// `true` if the candidate must release the lock and stop.
    release_requested: AtomicBool,
    /// `true` if the candidate must stop without a release.
    crash_requested: AtomicBool,
    leadership: Mutex<Option<Leadership>>,
}

impl OtherCandidate {
    /// Starts a candidate for the record at `path` on the shared API server.
    pub fn start(path: RecordPath, implementation: Implementation) -> Self {
        let shared = Arc::<Shared>::default();
        let election =
            ElectionLoop { admin: Cluster::shared().admin(), path, implementation, shared: Arc::clone(&shared) };
        Self { shared, thread: Some(thread::spawn(move || election.run())) }
    }

    pub fn wait_until_leading(&self) {
        eventually("the other candidate leads", || self.shared.has_led.load(Ordering::SeqCst));
    }

    /// Ends the candidate's leadership, and returns the times at which it began and ended.
    pub fn end(mut self, ending: Ending) -> Leadership {
        match ending {
            Ending::Release => self.shared.release_requested.store(true, Ordering::SeqCst),
            Ending::Crash => self.shared.crash_requested.store(true, Ordering::SeqCst),
        }
        self.thread.take().expect("only this call takes the thread").join().expect("the election loop does not panic");
        self.shared
            .leadership
            .lock()
            .expect("no thread panics while it holds this lock")
            .expect("the candidate has led")
    }
}

impl Drop for OtherCandidate {
    fn drop(&mut self) {
        self.shared.crash_requested.store(true, Ordering::SeqCst);
    }
}

/// The election loop that the candidate's thread runs.
struct ElectionLoop {
    admin: Client,
    path: RecordPath,
    implementation: Implementation,
    shared: Arc<Shared>,
}

impl ElectionLoop {
    fn run(self) {
        let has_led = &self.shared.has_led;
        let (mut observed, mut observed_at) = (Value::Null, Instant::now());
        while !self.shared.crash_requested.load(Ordering::SeqCst) {
            if let Some((object, record)) = self.get() {
                if record != observed {
                    (observed, observed_at) = (record.clone(), Instant::now());
                }
                let holder = record["holderIdentity"].as_str().unwrap_or_default();
                if has_led.load(Ordering::SeqCst) && self.shared.release_requested.load(Ordering::SeqCst) {
                    self.end_leadership();
                    let _ = self.put(object, &record, "", Duration::from_secs(1));
                    return;
                }
                let is_free = holder.is_empty() || observed_at.elapsed() > LEASE_DURATION;
                if (holder == IDENTITY || is_free) && self.put(object, &record, IDENTITY, LEASE_DURATION) {
                    if !has_led.swap(true, Ordering::SeqCst) {
                        let began = Leadership { began_at: nanos_since_boot(), ended_at: 0 };
                        *self.shared.leadership.lock().expect("no thread panics while it holds this lock") =
                            Some(began);
                    }
                } else if has_led.load(Ordering::SeqCst) && holder != IDENTITY {
                    break;
                }
            }
            thread::sleep(RETRY_PERIOD);
        }
        if has_led.load(Ordering::SeqCst) {
            self.end_leadership();
        }
    }

    fn end_leadership(&self) {
        if let Some(leadership) =
            &mut *self.shared.leadership.lock().expect("no thread panics while it holds this lock")
        {
            leadership.ended_at = nanos_since_boot();
        }
    }

    /// Returns the object and the record in it. A Lease that cannot be read is treated as missing: the result is a new
    /// Lease without a record. Returns `None` if an object with an annotation cannot be read.
    fn get(&self) -> Option<(Value, Value)> {
        match &self.path {
            RecordPath::Lease(path) => match self.admin.get(path) {
                Ok(lease) => Some((lease.clone(), lease["spec"].clone())),
                Err(_) => Some((json!({ "metadata": { "name": "job" } }), Value::Null)),
            },
            RecordPath::Annotation(path) => {
                let object = self.admin.get(path).ok()?;
                // For client-go, an object without the annotation has an empty record. For fabric8, it has none.
                let missing = if self.implementation == Implementation::Fabric8 { "null" } else { "{}" };
                let text = object["metadata"]["annotations"][LEADER_ANNOTATION].as_str().unwrap_or(missing);
                let record = serde_json::from_str(text).expect("the record is JSON");
                if self.implementation == Implementation::Fabric8 && record != Value::Null {
                    assert_fabric8_can_read(&record);
                }
                Some((object, record))
            }
        }
    }

    /// Replaces `previous`, the record in the object that was read. Returns whether the server accepted the write.
    fn put(&self, mut object: Value, previous: &Value, holder: &str, duration: Duration) -> bool {
        let seconds = duration.as_secs();
        let now = Timestamp::now();
        let now = match (&self.path, self.implementation) {
            (RecordPath::Annotation(_), Implementation::ClientGo) => format!("{now:.0}"),
            _ => format!("{now:.6}"),
        };
        let acquire_time =
            if previous["holderIdentity"] == holder { previous["acquireTime"].clone() } else { json!(now) };
        let transitions = self.transitions(previous, holder);
        match (&self.path, self.implementation) {
            (RecordPath::Lease(path), _) => {
                object["spec"] = json!({
                    "holderIdentity": holder, "leaseDurationSeconds": seconds, "leaseTransitions": transitions,
                    "acquireTime": acquire_time, "renewTime": now,
                });
                self.admin.replace(path, &object).is_ok()
            }
            (RecordPath::Annotation(path), Implementation::ClientGo) => {
                let record = json!({
                    "holderIdentity": holder, "leaseDurationSeconds": seconds, "leaderTransitions": transitions,
                    "acquireTime": acquire_time, "renewTime": now,
                });
                self.annotate(path, object, &record)
            }
            (RecordPath::Annotation(path), Implementation::Fabric8) => {
                let mut record = json!({
                    "leaseDuration": format!("PT{seconds}S"), "leaderTransitions": transitions,
                    "acquireTime": acquire_time, "renewTime": now,
                });
                // fabric8 omits the field if there is no holder.
                if !holder.is_empty() {
                    record["holderIdentity"] = json!(holder);
                }
                self.annotate(path, object, &record)
            }
        }
    }

    /// Returns the number of transitions for the record that replaces `previous`. It grows with each
    /// acquisition, except for the one that creates the record.
    fn transitions(&self, previous: &Value, holder: &str) -> i64 {
        let field = if matches!(self.path, RecordPath::Lease(_)) { "leaseTransitions" } else { "leaderTransitions" };
        let is_acquisition = !previous.is_null() && !holder.is_empty() && previous["holderIdentity"] != holder;
        previous[field].as_i64().unwrap_or(0) + i64::from(is_acquisition)
    }

    fn annotate(&self, path: &str, mut object: Value, record: &Value) -> bool {
        object["metadata"]["annotations"][LEADER_ANNOTATION] = json!(record.to_string());
        self.admin.replace(path, &object).is_ok()
    }
}

/// Checks that a record has what fabric8 requires: a duration, and times with six fractional digits.
fn assert_fabric8_can_read(record: &Value) {
    assert!(record["leaseDuration"].as_str().is_some_and(|duration| duration.starts_with("PT")), "{record}");
    for time in ["acquireTime", "renewTime"] {
        let digits = record[time].as_str().and_then(|time| time.split_once('.')).map(|(_, rest)| rest.len());
        assert_eq!(digits, Some(7), "{time} should have six fractional digits and end with Z: {record}");
    }
}
