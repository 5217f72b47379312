//! Running a test again that failed while the machine stood still: leaderrun is late then, and rightly says so.

use std::any::Any;
use std::panic::{UnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use crate::witness::OVERLAP;

/// How long this process must have stood still for a failed test to be run again: half of the time that the
/// candidates of tests leave between a renewal and the stop signal.
const STALL: Duration = Duration::from_secs(2);

/// How often a test is run at most.
const MAX_RUNS: usize = 3;

static LAST_STALL_ENDED: Mutex<Option<Instant>> = Mutex::new(None);

/// Starts a thread that notices when this process does not get to run.
pub fn watch_for_stalls() {
    thread::spawn(|| {
        loop {
            let before = Instant::now();
            thread::sleep(Duration::from_millis(50));
            if before.elapsed() > STALL {
                *LAST_STALL_ENDED.lock().expect("the last stall") = Some(Instant::now());
            }
        }
    });
}

/// Runs a test, and again if it fails during a stall. Two commands alive at once always fail it.
pub fn run(name: &str, test: impl Fn() + Copy + UnwindSafe) {
    for _ in 1..MAX_RUNS {
        let start = Instant::now();
        let Err(failure) = catch_unwind(test) else { return };
        let stalled = LAST_STALL_ENDED.lock().expect("the last stall").is_some_and(|end| end > start);
        if !stalled || message(&*failure).starts_with(OVERLAP) {
            resume_unwind(failure);
        }
        eprintln!("{name}: the machine stood still for more than {STALL:?}; running the test again");
    }
    test();
}

fn message(failure: &(dyn Any + Send)) -> &str {
    let text = failure.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| failure.downcast_ref::<&str>().copied()).unwrap_or_default()
}
