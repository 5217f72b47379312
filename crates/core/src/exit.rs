//! How leaderrun ends: with one of the exit statuses of its own, or with the command's.

/// How leaderrun ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Exit {
    pub status: u8,
    /// The leadership was lost, and nobody has asked for an end: leaderrun can wait for the lock again. The status
    /// does not say that, since a command may end with any.
    pub may_rejoin: bool,
}

impl Exit {
    /// The leadership was lost.
    pub const AFTER_LOSS: Self = Self { status: LOST, may_rejoin: true };

    /// With this status, and for good.
    pub fn with(status: u8) -> Self {
        Self { status, may_rejoin: false }
    }

    /// When that signal ended the command or leaderrun.
    pub fn by_signal(signal: i32) -> Self {
        Self::with(of_signal(signal))
    }
}

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
