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
        meaning: "signal N ended the command, or leaderrun while it waited",
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
