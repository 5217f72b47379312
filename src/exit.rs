//! Exit statuses of leaderrun's own; every other one is the command's.

/// Not acquired within `--wait`: `EX_TEMPFAIL` of sysexits.h, try again later.
pub const NOT_ACQUIRED: u8 = 75;
/// The leadership was lost and the command stopped for it.
pub const LOST: u8 = 76;
/// leaderrun itself failed, or was asked for something that makes no sense.
pub const FAILED: u8 = 125;
/// The command was found and cannot be executed.
pub const NOT_EXECUTABLE: u8 = 126;
/// The command was not found.
pub const NOT_FOUND: u8 = 127;
/// Added to the number of the signal that ended the command or leaderrun.
pub const SIGNALED: u8 = 128;

/// When that signal ended the command or leaderrun.
pub fn of_signal(signal: i32) -> u8 {
    SIGNALED.saturating_add(u8::try_from(signal).unwrap_or_default())
}
