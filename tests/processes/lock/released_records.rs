//! Tests that records written by released versions of leaderrun keep their meaning.
//!
//! The directory `released_records` has a directory for each version that changed the format of the record. The files
//! in these directories are never removed.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::exit_status::NOT_ACQUIRED;
use testkit::{Candidate, Cluster, Running, TestLock, Witnesses};

const VERSIONS: [&str; 1] = ["0.1.0"];

/// The lease duration in all records.
const LEASE_DURATION: Duration = Duration::from_secs(3);

/// Returns a record that this version wrote, as the API object or the lock file that contains it.
fn record(version: &str, name: &str) -> Value {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/processes/lock/released_records");
    let text = fs::read_to_string(directory.join(version).join(name)).expect("the record can be read");
    serde_json::from_str(&text).expect("the record is valid JSON")
}

/// Returns a lock whose object or file contains a record that this version wrote.
fn lock_with(version: &str, name: &str) -> TestLock {
    let record = record(version, name);
    let (lock, path) = match record["kind"].as_str() {
        Some("ConfigMap") => {
            let lock = TestLock::of_kind("configmap");
            let path = lock.object_path("configmaps");
            (lock, path)
        }
        Some(_) => {
            let lock = TestLock::lease();
            let path = lock.lease_path();
            (lock, path)
        }
        None => {
            let lock = TestLock::file();
            fs::write(lock.name.trim_start_matches("file:"), record.to_string()).expect("the file can be written");
            return lock;
        }
    };
    Cluster::shared().admin().create(path.trim_end_matches("/job"), &record).expect("the object can be created");
    lock
}

fn status(lock: &TestLock) -> Value {
    let mut status = Candidate::subcommand("status", lock).args(["-o", "json"]).start();
    status.wait();
    serde_json::from_str(&status.output()).expect("the output is valid JSON")
}

/// Starts a candidate and waits until its command is running. Returns the candidate and the time that this took.
fn acquire(lock: &TestLock, witnesses: &Witnesses) -> (Running, Duration) {
    let start = Instant::now();
    let a = Candidate::new("a", lock).run_witness(witnesses, &[]);
    witnesses.wait_for("a", 1);
    (a, start.elapsed())
}

#[testkit::test]
fn a_lock_with_a_held_record_is_taken_over_after_the_lease_duration() {
    for version in VERSIONS {
        for name in ["lease-held.json", "lease-emptied.json", "configmap-held.json", "file-held.json"] {
            let (lock, witnesses) = (lock_with(version, name), Witnesses::new());
            let before = status(&lock);
            assert_eq!(before["run"], "0b1f7c1e-8a42-4a8e-9f7e-0c3f3f1d2a11", "{version} {name}: {before}");
            let (a, elapsed) = acquire(&lock, &witnesses);
            assert!(elapsed >= LEASE_DURATION, "{version} {name}: after {elapsed:?}:\n{}", a.log());
            assert_eq!(status(&lock)["transitions"], 4, "{version} {name}");
        }
    }
}

#[testkit::test]
fn a_lock_with_a_released_record_is_acquired_without_a_wait() {
    for version in VERSIONS {
        for name in ["lease-released.json", "file-released.json"] {
            let (lock, witnesses) = (lock_with(version, name), Witnesses::new());
            assert_eq!(status(&lock)["state"], "free", "{version} {name}");
            let (a, _) = acquire(&lock, &witnesses);
            assert!(!a.log().contains("held by"), "{version} {name}:\n{}", a.log());
            assert_eq!(status(&lock)["transitions"], 4, "{version} {name}");
        }
    }
}

#[testkit::test]
fn a_lock_is_not_acquired_while_its_record_says_that_the_command_is_not_due() {
    for version in VERSIONS {
        let (lock, witnesses) = (lock_with(version, "lease-not-due.json"), Witnesses::new());
        let mut a = Candidate::new("a", &lock).args(["--wait", "4s"]).run_witness(&witnesses, &[]);
        a.wait_for_exit(NOT_ACQUIRED);
        assert!(a.log().contains("not due before 2099-01-01"), "{version}:\n{}", a.log());
    }
}

/// Older versions must be able to read the records of this version.
#[testkit::test]
fn a_new_lease_has_all_fields_of_older_versions_and_a_mark_in_the_same_format() {
    let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
    let (_a, _) = acquire(&lock, &witnesses);
    let new = Cluster::shared().admin().get(&lock.lease_path()).expect("the Lease exists");
    for version in VERSIONS {
        let old = record(version, "lease-held.json");
        for field in old["spec"].as_object().expect("the spec is an object").keys() {
            assert!(!new["spec"][field].is_null(), "{version}: spec.{field}: {new}");
        }
        let mark = |lease: &Value| {
            lease["metadata"]["annotations"]["leaderrun/run"].as_str().expect("the Lease has a mark").to_owned()
        };
        let words = |mark: String| mark.split(' ').map(str::to_owned).collect::<Vec<_>>();
        // A mark consists of the run ID, the state and the renewal time. The run IDs must have the same length.
        let (old_mark, new_mark) = (words(mark(&old)), words(mark(&new)));
        assert_eq!(
            (new_mark.len(), new_mark[0].len(), &new_mark[1]),
            (old_mark.len(), old_mark[0].len(), &old_mark[1]),
            "{version}: {new}"
        );
        assert_eq!(new["spec"]["renewTime"], new_mark[2].as_str(), "{version}: {new}");
    }
}
