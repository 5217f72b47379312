//! Waiting for conditions.

use std::thread;
use std::time::{Duration, Instant};

/// How long a test waits for anything before it fails: longer than anything takes on a machine that is busy with
/// something else.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// Waits until `condition` is true. Fails the test after [`TIMEOUT`], with `what` in the message.
#[track_caller]
pub fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < TIMEOUT, "waited {TIMEOUT:?} in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
