//! Reruns tests that failed because the machine stalled for so long that leaderrun missed its deadlines.

use std::any::Any;
use std::panic::{UnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use crate::witness::OVERLAP;

/// How long a stall must be for a failed test to be rerun: half of the time between a renewal and the stop signal of
/// the candidates in tests.
const STALL: Duration = Duration::from_secs(2);

/// The largest number of times that a test is run.
const MAX_RUNS: usize = 3;

static LAST_STALL_ENDED: Mutex<Option<Instant>> = Mutex::new(None);

/// Starts a thread that detects when this process is not scheduled.
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

/// Runs a test, and reruns it if it fails during a stall. A test is never rerun if two commands overlapped.
pub fn run(name: &str, test: impl Fn() + Copy + UnwindSafe) {
    for _ in 1..MAX_RUNS {
        let start = Instant::now();
        let Err(failure) = catch_unwind(test) else { return };
        let stalled = LAST_STALL_ENDED.lock().expect("the last stall").is_some_and(|end| end > start);
        if !stalled || message(&*failure).starts_with(OVERLAP) {
            resume_unwind(failure);
        }
        eprintln!("{name}: the machine stalled for more than {STALL:?}; rerunning the test");
    }
    test();
}

fn message(failure: &(dyn Any + Send)) -> &str {
    let text = failure.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| failure.downcast_ref::<&str>().copied()).unwrap_or_default()
}
