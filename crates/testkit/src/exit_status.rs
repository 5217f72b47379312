//! Exit statuses of leaderrun. Scripts rely on the numbers, so the tests do not take them from leaderrun's source.

/// The lock could not be reached or used within `--wait`, or something else that leaderrun needs was not available.
pub const UNAVAILABLE: i32 = 69;

/// The lock was not acquired within `--wait`, because another candidate held it or the command was not due.
pub const NOT_ACQUIRED: i32 = 75;

/// Leadership was lost, so the command was stopped.
pub const LOST: i32 = 76;

/// The command was stopped after `--max-run`.
pub const TIMED_OUT: i32 = 124;

/// The usage of leaderrun was invalid, or leaderrun cannot work on this system.
pub const FAILED: i32 = 125;

/// The command was found but cannot be executed.
pub const NOT_EXECUTABLE: i32 = 126;

/// The command was not found.
pub const NOT_FOUND: i32 = 127;
