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

/// How leaderrun's own process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Status(u8),
    /// By this signal, as the command did, or as a command that had not been started would have: so a shell stops its
    /// loop at Ctrl-C, and systemd knows a unit that was stopped from one that failed.
    Signal(i32),
}

impl Exit {
    /// Returns how leaderrun ends after this.
    pub fn of(ending: &Ending) -> Self {
        match ending {
            Ending::Command(End::Exited(status)) => Self::Status(*status as u8),
            Ending::Command(End::Signaled(signal)) | Ending::Signaled(signal) => Self::Signal(*signal),
            Ending::Command(End::NotExecuted(libc::ENOENT)) => Self::Status(NOT_FOUND),
            // For want of processes or memory, which says nothing about the command.
            Ending::Command(End::NotExecuted(libc::EAGAIN | libc::ENOMEM)) => Self::Status(FAILED),
            Ending::Command(End::NotExecuted(_)) => Self::Status(NOT_EXECUTABLE),
            Ending::Command(End::NotStarted) | Ending::Lost { .. } => Self::Status(LOST),
            Ending::NotAcquired => Self::Status(NOT_ACQUIRED),
            Ending::Unreachable => Self::Status(UNREACHABLE),
            Ending::Failed => Self::Status(FAILED),
        }
    }

    /// Returns the exit status, for a process that cannot end by a signal as well.
    pub fn status(self) -> u8 {
        match self {
            Self::Status(status) => status,
            Self::Signal(signal) => of_signal(signal),
        }
    }
}

/// Returns the exit status of a process that this signal ended, as a shell shows it.
pub fn of_signal(signal: i32) -> u8 {
    SIGNALED.saturating_add(u8::try_from(signal).unwrap_or_default())
}

/// A status of leaderrun, for its documents.
#[derive(Clone, Copy, Debug)]
pub struct StatusDescription {
    /// The number, or the numbers.
    pub status: &'static str,
    pub meaning: &'static str,
    /// What a script should do.
    #[cfg_attr(not(test), expect(dead_code, reason = "only the reference says it"))]
    pub advice: &'static str,
}

/// The statuses with which a run ends that are not the command's own.
pub const STATUSES: [StatusDescription; 7] = [
    StatusDescription {
        status: "69",
        meaning: "the lock could not be reached or used within --wait",
        advice: "report a failure: `leaderrun doctor` says what is wrong",
    },
    StatusDescription {
        status: "75",
        meaning: "not acquired within --wait; --conflict-exit-code chooses another status",
        advice: "nothing: another candidate runs the command, or it is not due",
    },
    StatusDescription {
        status: "76",
        meaning: "leadership was lost, and the command was stopped for it",
        advice: "start leaderrun again, unless with --on-lost rejoin; what the command did may be incomplete",
    },
    StatusDescription {
        status: "125",
        meaning: "leaderrun itself failed; also wrong usage",
        advice: "report a failure: the last line on stderr says what to change",
    },
    StatusDescription {
        status: "126",
        meaning: "the command was found and cannot be executed",
        advice: "report a failure: the file has no permission to be executed, or is for another machine",
    },
    StatusDescription {
        status: "127",
        meaning: "the command was not found",
        advice: "report a failure: give the full path, above all under cron and systemd",
    },
    StatusDescription {
        status: "128+N",
        meaning: "signal N ended the command, or leaderrun while it waited; leaderrun then ends by that signal, too",
        advice: "as for the command itself: 143 is SIGTERM, 137 is SIGKILL",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_is_described() {
        let own = [UNREACHABLE, NOT_ACQUIRED, LOST, FAILED, NOT_EXECUTABLE, NOT_FOUND].map(|own| own.to_string());
        let expected: Vec<String> = own.into_iter().chain([format!("{SIGNALED}+N")]).collect();
        assert_eq!(STATUSES.map(|description| description.status).to_vec(), expected);
    }
}
