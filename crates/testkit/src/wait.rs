//! Waits for conditions.

use std::thread;
use std::time::{Duration, Instant};

/// The time after which a test that waits for a condition fails. No condition takes this long, even on a busy machine.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// Waits until `condition` is true. Fails the test after [`TIMEOUT`], with `what` in the message.
#[track_caller]
pub fn eventually(what: &str, condition: impl Fn() -> bool) {
    eventually_some(what, || condition().then_some(()));
}

/// Waits until `attempt` returns a value, and returns it. Fails the test after [`TIMEOUT`], with `what` in the message.
#[track_caller]
pub fn eventually_some<T>(what: &str, attempt: impl Fn() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(start.elapsed() < TIMEOUT, "timed out after {TIMEOUT:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
