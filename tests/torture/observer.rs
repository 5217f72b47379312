//! Somebody who only watches: what the record said, and when.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use jiff::Timestamp;

use crate::entrant::LEASE;
use crate::place::{Place, Sight};
use testkit::boot_time;

/// Between two looks; several in a retry period, so that no renewal is missed.
const PAUSE: Duration = Duration::from_millis(25);

/// A renewal's own time counts if it is not further than this from when it was seen.
const CREDIBLE: i64 = 5_000_000_000;

/// Until when a holder's renewals bought time, nanoseconds since boot: when each was made, and its end.
pub type Renewals = BTreeMap<String, Vec<(u64, u64)>>;

/// A thread that looks at the record again and again.
pub struct Observer {
    seen: Arc<Mutex<Renewals>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Observer {
    pub fn start(place: Place) -> Self {
        let (seen, over) = (Arc::<Mutex<Renewals>>::default(), Arc::<AtomicBool>::default());
        let (book, end) = (Arc::clone(&seen), Arc::clone(&over));
        let thread = thread::spawn(move || {
            let mut last = None;
            let mut holders = HashMap::new();
            while !end.load(Ordering::Relaxed) {
                let sight = place.read();
                // What somebody else wrote is not what the holder goes by: another duration, or another's mark.
                let mut is_its_own = |sight: &Sight| {
                    let Some(run) = sight.run.as_ref().filter(|_| !sight.holder.is_empty()) else { return false };
                    let holder = holders.entry(run.clone()).or_insert_with(|| sight.holder.clone());
                    sight.holder == *holder && sight.seconds == LEASE.as_secs()
                };
                if let Some(sight) = sight.filter(|sight| is_its_own(sight) && Some(sight) != last.as_ref()) {
                    let renewed = renewed_at(&sight);
                    let until = renewed + sight.seconds * 1_000_000_000;
                    book.lock().expect("the book").entry(sight.holder.clone()).or_default().push((renewed, until));
                    last = Some(sight);
                }
                thread::sleep(PAUSE);
            }
        });
        Self { seen, over, thread: Some(thread) }
    }

    /// Everything seen so far.
    pub fn renewals(&self) -> Renewals {
        self.seen.lock().expect("the book").clone()
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// When a renewal was made, on the boot clock. Its own time is the earliest that it can be; somebody
/// who meddles may write any time.
fn renewed_at(sight: &Sight) -> u64 {
    let (seen, wall) = (boot_time(), Timestamp::now());
    let age = sight.renewed.map_or(0, |renewed| wall.as_nanosecond() - renewed.as_nanosecond());
    match i64::try_from(age) {
        Ok(age @ 0..CREDIBLE) => seen - age as u64,
        _ => seen,
    }
}
