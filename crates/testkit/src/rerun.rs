//! Reruns failed tests if the machine stalled for so long that leaderrun may have missed its deadlines.

use std::any::Any;
use std::panic::{UnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use crate::witness::OVERLAP;

/// The shortest stall after which a failed test is rerun: half of the renew deadline of the candidates in tests.
const MIN_STALL: Duration = Duration::from_secs(2);

/// The maximum number of runs of a test, including the first.
const MAX_RUNS: usize = 3;

static LAST_STALL_ENDED: Mutex<Option<Instant>> = Mutex::new(None);

/// Starts a thread that notices when this process was not scheduled for a long time.
pub fn watch_for_stalls() {
    thread::spawn(|| {
        loop {
            let before = Instant::now();
            thread::sleep(Duration::from_millis(50));
            if before.elapsed() > MIN_STALL {
                *LAST_STALL_ENDED.lock().expect("no thread panics while it holds this lock") = Some(Instant::now());
            }
        }
    });
}

/// Runs a test, and reruns it if it fails and the machine stalled while it was running. A test that fails because two
/// commands overlapped is never rerun.
pub fn run(name: &str, test: impl Fn() + Copy + UnwindSafe) {
    for _ in 1..MAX_RUNS {
        let start = Instant::now();
        let Err(failure) = catch_unwind(test) else { return };
        let stalled =
            LAST_STALL_ENDED.lock().expect("no thread panics while it holds this lock").is_some_and(|end| end > start);
        if !stalled || message(&*failure).starts_with(OVERLAP) {
            resume_unwind(failure);
        }
        eprintln!("{name}: the machine stalled for more than {MIN_STALL:?}; rerunning the test");
    }
    test();
}

fn message(failure: &(dyn Any + Send)) -> &str {
    let text = failure.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| failure.downcast_ref::<&str>().copied()).unwrap_or_default()
}
