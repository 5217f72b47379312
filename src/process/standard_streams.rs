//! The standard streams belong to the command.

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};

/// Replaces standard streams of this process by /dev/null, so that whatever reads the command's output sees its end when
/// the command closes it, and whatever writes to its input that nobody reads any more. Where there is no /dev/null,
/// they stay open.
pub fn release(streams: impl IntoIterator<Item = RawFd>) {
    let Ok(null) = File::options().read(true).write(true).open("/dev/null") else { return };
    for stream in streams {
        // SAFETY: takes two integers, and nothing owns the standard streams.
        unsafe { libc::dup2(null.as_raw_fd(), stream) };
    }
}
