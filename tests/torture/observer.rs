//! Records the times at which each holder renewed its lease.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use jiff::Timestamp;

use crate::candidate::LEASE_DURATION;
use crate::record::{Observation, RecordStore};
use testkit::nanos_since_boot;

/// The interval at which the record is read: several times in each retry period, so that no renewal is missed.
const INTERVAL: Duration = Duration::from_millis(25);

/// The maximum age of a plausible renewTime when it is observed, in nanoseconds. An edit may set renewTime to an
/// arbitrary time.
const MAX_AGE: i64 = 5_000_000_000;

/// The time of each renewal and the expiry of the lease after it, in nanoseconds since boot, for each holder.
pub type Renewals = BTreeMap<String, Vec<(u64, u64)>>;

/// A thread that reads the record at intervals.
pub struct Observer {
    renewals: Arc<Mutex<Renewals>>,
    stop_requested: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Observer {
    pub fn start(store: RecordStore) -> Self {
        let (renewals, stop_requested) = (Arc::<Mutex<Renewals>>::default(), Arc::<AtomicBool>::default());
        let (thread_renewals, thread_stop_requested) = (Arc::clone(&renewals), Arc::clone(&stop_requested));
        let thread = thread::spawn(move || {
            let mut last_renewal = None;
            let mut holders = HashMap::new();
            while !thread_stop_requested.load(Ordering::Relaxed) {
                let observation = store.read();
                // A record without a holder or a mark, with a different lease duration, or with a holder other than
                // that of the mark's run was edited by another program, or released. It is not a renewal.
                let mut is_renewal = |observed: &Observation| {
                    let Some(run) = observed.run.as_ref().filter(|_| !observed.holder.is_empty()) else { return false };
                    let holder = holders.entry(run.clone()).or_insert_with(|| observed.holder.clone());
                    observed.holder == *holder && observed.lease_duration_seconds == LEASE_DURATION.as_secs()
                };
                let renewal =
                    observation.filter(|observed| is_renewal(observed) && Some(observed) != last_renewal.as_ref());
                if let Some(renewal) = renewal {
                    let renewed = renewed_at(&renewal);
                    let expires = renewed + renewal.lease_duration_seconds * 1_000_000_000;
                    let mut renewals = thread_renewals.lock().expect("no thread panics while it holds this lock");
                    renewals.entry(renewal.holder.clone()).or_default().push((renewed, expires));
                    last_renewal = Some(renewal);
                }
                thread::sleep(INTERVAL);
            }
        });
        Self { renewals, stop_requested, thread: Some(thread) }
    }

    /// Returns the renewals observed so far.
    pub fn renewals(&self) -> Renewals {
        self.renewals.lock().expect("no thread panics while it holds this lock").clone()
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.stop_requested.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Returns the time of a renewal, in nanoseconds since boot, computed from its renewTime. If the renewTime is not
/// plausible, returns the current time.
fn renewed_at(renewal: &Observation) -> u64 {
    let (now, wall) = (nanos_since_boot(), Timestamp::now());
    let age = renewal.renew_time.map_or(0, |time| wall.as_nanosecond() - time.as_nanosecond());
    match i64::try_from(age) {
        Ok(age @ 0..MAX_AGE) => now - age as u64,
        _ => now,
    }
}
