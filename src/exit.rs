//! Exit statuses.

use leaderrun_core::elector::Ending;
use leaderrun_core::messages::End;

/// The lock could not be reached or used within `--wait`: `EX_UNAVAILABLE` of sysexits.h.
pub const UNREACHABLE: u8 = 69;
/// The lock was not acquired within `--wait`: `EX_TEMPFAIL` of sysexits.h, try again later.
pub const NOT_ACQUIRED: u8 = 75;
/// The leadership was lost and the command stopped for it.
pub const LOST: u8 = 76;
/// leaderrun itself failed, or was used wrongly.
pub const FAILED: u8 = 125;
/// The command was found and cannot be executed.
pub const NOT_EXECUTABLE: u8 = 126;
/// The command was not found.
pub const NOT_FOUND: u8 = 127;
/// Added to the number of the signal that ended the command or leaderrun.
pub const SIGNALED: u8 = 128;

/// Returns the exit status that says how leaderrun ended.
pub fn status(ending: &Ending) -> u8 {
    match ending {
        Ending::Command(End::Exited(status)) => *status as u8,
        Ending::Command(End::Signaled(signal)) | Ending::Signaled(signal) => of_signal(*signal),
        Ending::Command(End::NotExecuted(libc::ENOENT)) => NOT_FOUND,
        // For want of processes or memory, which says nothing about the command.
        Ending::Command(End::NotExecuted(libc::EAGAIN | libc::ENOMEM)) => FAILED,
        Ending::Command(End::NotExecuted(_)) => NOT_EXECUTABLE,
        Ending::Command(End::NotStarted) | Ending::Lost { .. } => LOST,
        Ending::NotAcquired => NOT_ACQUIRED,
        Ending::Unreachable => UNREACHABLE,
        Ending::Failed => FAILED,
    }
}

/// Returns the exit status of a process that this signal ended, as a shell shows it.
pub fn of_signal(signal: i32) -> u8 {
    SIGNALED.saturating_add(u8::try_from(signal).unwrap_or_default())
}
