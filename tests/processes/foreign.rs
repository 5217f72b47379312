//! Sharing a lock with candidates that are not leaderrun, played from the published protocol.
//!
//! client-go's rules: poll every retry period; GET, then PUT; take over when the record did not change for
//! the *own* configured duration; release by an empty holder and a duration of one second. It sends
//! the resourceVersion but no uid it did not read, keeps annotations it does not know, and writes
//! whole seconds into annotations.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use testkit::candidate::{Candidate, TestLock, eventually};
use testkit::witness::{Witnesses, boot_time};
use testkit::{Client, Cluster};

const DURATION: Duration = Duration::from_secs(6);
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";

/// Where the record is.
#[derive(Clone)]
enum Place {
    Lease(String),
    Annotation(String),
}

/// How the other implementation spells the record.
#[derive(Clone, Copy, PartialEq)]
enum Spelling {
    ClientGo,
    Fabric8,
}

/// Another implementation, campaigning on a thread of its own.
struct Foreigner {
    leads: Arc<AtomicBool>,
    times: Arc<std::sync::Mutex<Vec<(u64, u64)>>>,
    release: Arc<AtomicBool>,
    die: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Foreigner {
    fn start(place: Place, spelling: Spelling) -> Self {
        let (leads, release, die) =
            (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let times = Arc::<std::sync::Mutex<Vec<(u64, u64)>>>::default();
        let player = Player {
            admin: Cluster::shared().admin(),
            place,
            spelling,
            leads: leads.clone(),
            times: times.clone(),
            release: release.clone(),
            die: die.clone(),
        };
        let thread = Some(thread::spawn(move || player.campaign()));
        Self { leads, times, release, die, thread }
    }

    fn wait_until_it_leads(&self) {
        eventually("the foreigner leads", || self.leads.load(Ordering::SeqCst));
    }

    /// Ends it, and returns from when to when it led.
    fn end(mut self, by: impl Fn(&Self)) -> (u64, u64) {
        by(&self);
        self.thread.take().expect("a thread").join().expect("a foreigner");
        self.times.lock().expect("times")[0]
    }

    fn releases(&self) {
        self.release.store(true, Ordering::SeqCst);
    }

    fn dies(&self) {
        self.die.store(true, Ordering::SeqCst);
    }
}

impl Drop for Foreigner {
    fn drop(&mut self) {
        self.dies();
    }
}

struct Player {
    admin: Client,
    place: Place,
    spelling: Spelling,
    leads: Arc<AtomicBool>,
    times: Arc<std::sync::Mutex<Vec<(u64, u64)>>>,
    release: Arc<AtomicBool>,
    die: Arc<AtomicBool>,
}

impl Player {
    fn campaign(self) {
        let (mut seen, mut since) = (Value::Null, Instant::now());
        let mut transitions = 0;
        while !self.die.load(Ordering::SeqCst) {
            if let Some((object, record)) = self.get() {
                if record != seen {
                    (seen, since) = (record.clone(), Instant::now());
                }
                let holder = record["holderIdentity"].as_str().unwrap_or_default();
                transitions = record["leaderTransitions"].as_i64().unwrap_or(transitions);
                if self.leads.load(Ordering::SeqCst) && self.release.load(Ordering::SeqCst) {
                    self.end_of_lead();
                    let _ = self.put(object, "", Duration::from_secs(1), transitions);
                    return;
                }
                let free = holder.is_empty() || since.elapsed() > DURATION;
                if (holder == "foreigner" || free) && self.put(object, "foreigner", DURATION, transitions) {
                    if !self.leads.swap(true, Ordering::SeqCst) {
                        self.times.lock().expect("times").push((boot_time(), 0));
                    }
                } else if self.leads.load(Ordering::SeqCst) && holder != "foreigner" {
                    break;
                }
            }
            thread::sleep(Duration::from_millis(300));
        }
        if self.leads.load(Ordering::SeqCst) {
            self.end_of_lead();
        }
    }

    fn end_of_lead(&self) {
        if let Some((_, end)) = self.times.lock().expect("times").last_mut() {
            *end = boot_time();
        }
    }

    /// The object and the record in it.
    fn get(&self) -> Option<(Value, Value)> {
        match &self.place {
            Place::Lease(path) => match self.admin.get(path) {
                Ok(lease) => Some((lease.clone(), lease["spec"].clone())),
                Err(_) => Some((json!({ "metadata": { "name": "job" } }), Value::Null)),
            },
            Place::Annotation(path) => {
                let object = self.admin.get(path).ok()?;
                let text = object["metadata"]["annotations"][LEADER].as_str().unwrap_or("null");
                let record = serde_json::from_str(text).expect("a record that both can read");
                if self.spelling == Spelling::Fabric8 && record != Value::Null {
                    assert_fabric8_can_read(&record);
                }
                Some((object, record))
            }
        }
    }

    fn put(&self, mut object: Value, holder: &str, duration: Duration, transitions: i64) -> bool {
        let now = jiff::Timestamp::now();
        let seconds = duration.as_secs();
        match &self.place {
            Place::Lease(path) => {
                let time = format!("{now:.6}");
                let spec = json!({ "holderIdentity": holder, "leaseDurationSeconds": seconds, "acquireTime": time, "renewTime": time, "leaseTransitions": transitions });
                object["spec"] = spec;
                self.admin.replace(path, &object).is_ok()
            }
            Place::Annotation(path) => {
                let record = match self.spelling {
                    Spelling::ClientGo => {
                        let time = format!("{now:.0}");
                        json!({ "holderIdentity": holder, "leaseDurationSeconds": seconds, "acquireTime": time, "renewTime": time, "leaderTransitions": transitions })
                    }
                    Spelling::Fabric8 => {
                        let time = format!("{now:.6}");
                        let mut record = json!({ "leaseDuration": format!("PT{seconds}S"), "acquireTime": time, "renewTime": time, "leaderTransitions": transitions });
                        if !holder.is_empty() {
                            record["holderIdentity"] = json!(holder);
                        }
                        record
                    }
                };
                object["metadata"]["annotations"][LEADER] = json!(record.to_string());
                self.admin.replace(path, &object).is_ok()
            }
        }
    }
}

/// It insists on a duration and on times with six digits of fraction.
fn assert_fabric8_can_read(record: &Value) {
    assert!(record["leaseDuration"].as_str().is_some_and(|duration| duration.starts_with("PT")), "{record}");
    for time in ["acquireTime", "renewTime"] {
        let digits = record[time].as_str().and_then(|time| time.split_once('.')).map(|(_, rest)| rest.len());
        assert_eq!(digits, Some(7), "{record}");
    }
}

/// The lease and the annotation kinds, with something in place to annotate.
fn places() -> Vec<(TestLock, Place, Spelling)> {
    let lease = TestLock::lease();
    let configmap = TestLock::of_kind("configmap");
    let path = configmap.core_path("configmaps");
    let admin = Cluster::shared().admin();
    admin.create(path.trim_end_matches("/job"), &json!({ "metadata": { "name": "job" } })).expect("a ConfigMap");
    let lease_place = Place::Lease(lease.path());
    vec![(lease, lease_place, Spelling::ClientGo), (configmap, Place::Annotation(path), Spelling::ClientGo)]
}

fn leaderrun_after_foreigner(end: fn(&Foreigner)) {
    for (lock, place, spelling) in places() {
        let witnesses = Witnesses::new();
        let foreigner = Foreigner::start(place, spelling);
        foreigner.wait_until_it_leads();
        let mut a = Candidate::new("a", &lock).witnessed(&witnesses, &[]);
        a.says("is held by foreigner");
        let (_, ended) = foreigner.end(end);
        witnesses.wait_for("a", 1);
        assert!(ended < witnesses.of("a")[0].born);
        a.stop();
    }
}

#[testkit::test]
fn leaderrun_takes_over_from_client_go_when_it_releases() {
    leaderrun_after_foreigner(Foreigner::releases);
}

#[testkit::test]
fn leaderrun_takes_over_from_client_go_when_it_dies() {
    leaderrun_after_foreigner(Foreigner::dies);
}

#[testkit::test]
fn client_go_takes_over_from_leaderrun_when_it_releases() {
    for (lock, place, spelling) in places() {
        foreigner_after_leaderrun(&lock, place, spelling);
    }
}

fn foreigner_after_leaderrun(lock: &TestLock, place: Place, spelling: Spelling) {
    let witnesses = Witnesses::new();
    let mut a = Candidate::new("a", lock).witnessed(&witnesses, &["linger"]);
    witnesses.wait_for("a", 1);
    let foreigner = Foreigner::start(place, spelling);
    a.stop();
    foreigner.wait_until_it_leads();
    let (began, _) = foreigner.end(Foreigner::dies);
    assert!(witnesses.of("a")[0].last < began);
}

#[testkit::test]
fn client_go_takes_over_from_leaderrun_when_it_dies() {
    for (lock, place, spelling) in places() {
        let witnesses = Witnesses::new();
        let a = Candidate::new("a", &lock).witnessed(&witnesses, &["hidden", "ignore"]);
        witnesses.wait_for("a", 2);
        let foreigner = Foreigner::start(place, spelling);
        nix::sys::signal::kill(a.elector(), nix::sys::signal::Signal::SIGKILL).expect("it is alive");
        foreigner.wait_until_it_leads();
        let (began, _) = foreigner.end(Foreigner::dies);
        assert!(witnesses.of("a").iter().all(|life| life.last < began));
    }
}

#[testkit::test]
fn fabric8_takes_over_from_leaderrun_and_back() {
    let lock = TestLock::of_kind("configmap");
    let place = Place::Annotation(lock.core_path("configmaps"));
    foreigner_after_leaderrun(&lock, place.clone(), Spelling::Fabric8);
    let foreigner = Foreigner::start(place, Spelling::Fabric8);
    foreigner.wait_until_it_leads();
    let witnesses = Witnesses::new();
    let mut a = Candidate::new("a", &lock).witnessed(&witnesses, &["ends"]);
    a.says("is held by foreigner");
    let (_, ended) = foreigner.end(Foreigner::releases);
    a.ends_with(0);
    assert!(ended < witnesses.of("a")[0].born);
}
