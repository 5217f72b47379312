//! The release of the standard streams, which belong to the command.

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};

/// Replaces standard streams of this process by /dev/null, so that readers of the command's output see its end when the
/// command closes it, and writers to its input see that it is closed. Without /dev/null, the streams stay open.
pub fn release(streams: impl IntoIterator<Item = RawFd>) {
    let Ok(null) = File::options().read(true).write(true).open("/dev/null") else { return };
    for stream in streams {
        // SAFETY: takes two integers, and nothing owns the standard streams.
        unsafe { libc::dup2(null.as_raw_fd(), stream) };
    }
}
