//! Releases the standard streams, so that only the command has them open.

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};

/// Replaces standard streams of this process with /dev/null. Otherwise programs that read the command's output would
/// not see its end when the command closes it, and programs that write to its input would not see that it is closed. If
/// /dev/null is missing, the streams stay open.
pub fn release(streams: impl IntoIterator<Item = RawFd>) {
    let Ok(null) = File::options().read(true).write(true).open("/dev/null") else { return };
    for stream in streams {
        // SAFETY: the call takes two integers, and nothing owns the standard streams.
        unsafe { libc::dup2(null.as_raw_fd(), stream) };
    }
}
