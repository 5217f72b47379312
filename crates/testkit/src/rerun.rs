//! A machine that stands still: what such a test sees of leaderrun is that it was late.

use std::any::Any;
use std::panic::{UnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use crate::witness::TWO_AT_ONCE;

/// Half of what the candidates of the tests leave between a renewal and the stop.
const LONG: Duration = Duration::from_secs(2);

/// How often a test is played that a stall has spoilt.
const PLAYS: usize = 3;

/// When the last stall ended.
static LAST: Mutex<Option<Instant>> = Mutex::new(None);

/// Watches from now on whether this process gets to run.
pub fn watch_for_stalls() {
    thread::spawn(|| {
        loop {
            let before = Instant::now();
            thread::sleep(Duration::from_millis(50));
            if before.elapsed() > LONG {
                *LAST.lock().expect("the last stall") = Some(Instant::now());
            }
        }
    });
}

/// Plays a test, and again if it failed on a machine that stood still. Two commands at once are never
/// excused by that.
pub fn run(name: &str, test: impl Fn() + Copy + UnwindSafe) {
    for _ in 1..PLAYS {
        let start = Instant::now();
        let Err(failure) = catch_unwind(test) else { return };
        let stalled = LAST.lock().expect("the last stall").is_some_and(|last| last > start);
        if !stalled || says(&*failure).starts_with(TWO_AT_ONCE) {
            resume_unwind(failure);
        }
        eprintln!("{name}: the machine stood still for more than {LONG:?}; once more");
    }
    test();
}

fn says(failure: &(dyn Any + Send)) -> &str {
    let text = failure.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| failure.downcast_ref::<&str>().copied()).unwrap_or_default()
}
