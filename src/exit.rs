//! How leaderrun exits: its exit statuses, and the signals with which it kills itself.

use std::error::Error;
use std::fmt;
use std::io;

use leaderrun_core::elector::ExitReason;
use leaderrun_core::messages::End;

use crate::process::limits::LimitTooLow;
use crate::process::system_call::SystemCallError;
use crate::telemetry::http::ListenError;

/// The lock could not be reached or used within `--wait`, or something else that leaderrun needs was not available.
/// This is `EX_UNAVAILABLE` of sysexits.h.
pub const UNAVAILABLE: u8 = 69;
/// The lock was not acquired within `--wait`. This is `EX_TEMPFAIL` of sysexits.h.
pub const NOT_ACQUIRED: u8 = 75;
/// Leadership was lost, so the command was stopped or not started.
pub const LOST: u8 = 76;
/// The command was stopped after `--max-run`. timeout(1) has the same status.
pub const TIMED_OUT: u8 = 124;
/// The usage of leaderrun was invalid, or leaderrun cannot work on this system. Another start would fail as well.
pub const FAILED: u8 = 125;
/// The command was found but cannot be executed.
pub const NOT_EXECUTABLE: u8 = 126;
/// The command was not found.
pub const NOT_FOUND: u8 = 127;
/// The base of the statuses for signals. The status is this base plus the number of the signal that ended the command
/// or leaderrun.
pub const SIGNALED: u8 = 128;

/// How leaderrun's own process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Status(u8),
    /// leaderrun kills itself with the signal that ended the command or prevented its start. Shells can then stop their
    /// loops on Ctrl-C, and systemd can distinguish a stopped unit from a failed unit.
    Signal {
        signal: i32,
        /// Whether to send the signal to leaderrun's whole process group, as the terminal would have. While the command
        /// had the terminal, only the command received the signal from Ctrl-C, but a shell ends its script only if the
        /// shell receives the signal too.
        to_group: bool,
    },
}

impl Exit {
    /// Returns how leaderrun exits after a run that ended for this reason.
    pub fn of(reason: &ExitReason, command_had_terminal: bool) -> Self {
        match reason {
            ExitReason::Command(End::Exited(status)) => Self::Status(*status as u8),
            ExitReason::Command(End::Signaled(signal)) => {
                let is_keyboard_signal = matches!(*signal, libc::SIGINT | libc::SIGQUIT);
                Self::Signal { signal: *signal, to_group: command_had_terminal && is_keyboard_signal }
            }
            ExitReason::Signaled(signal) => Self::Signal { signal: *signal, to_group: false },
            ExitReason::Command(End::TimedOut) => Self::Status(TIMED_OUT),
            ExitReason::Command(End::NotExecuted(libc::ENOENT)) => Self::Status(NOT_FOUND),
            // The system is short of processes, memory or descriptors. The command itself may be fine.
            ExitReason::Command(End::NotExecuted(libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE)) => {
                Self::Status(UNAVAILABLE)
            }
            ExitReason::Command(End::NotExecuted(_)) => Self::Status(NOT_EXECUTABLE),
            ExitReason::Command(End::NotStarted) | ExitReason::Lost { .. } => Self::Status(LOST),
            ExitReason::NotAcquired => Self::Status(NOT_ACQUIRED),
            ExitReason::Unreachable | ExitReason::Failed { is_transient: true } => Self::Status(UNAVAILABLE),
            ExitReason::Failed { is_transient: false } => Self::Status(FAILED),
        }
    }

    /// Returns how leaderrun exits after a failure of its own.
    pub fn of_failure(failure: &anyhow::Error) -> Self {
        Self::Status(if is_transient(failure) { UNAVAILABLE } else { FAILED })
    }

    /// Returns the exit status. For a signal it is the status that shells show, in case the signal cannot end the
    /// process.
    pub fn status(self) -> u8 {
        match self {
            Self::Status(status) => status,
            Self::Signal { signal, .. } => of_signal(signal),
        }
    }
}

/// A failure that would occur again if leaderrun were started again.
#[derive(Debug)]
pub struct PermanentFailure(pub String);

impl fmt::Display for PermanentFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for PermanentFailure {}

/// Returns whether leaderrun may succeed if it is started again after this failure. A failure that is not known to be
/// permanent counts as transient, for example a file or a server that is not available.
pub fn is_transient(failure: &anyhow::Error) -> bool {
    let is_permanent = |cause: &(dyn Error + 'static)| {
        let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let call = cause.downcast_ref::<SystemCallError>().or_else(|| inner?.downcast_ref());
        cause.is::<PermanentFailure>()
            || cause.is::<LimitTooLow>()
            || call.is_some_and(SystemCallError::is_permanent)
            || cause.is::<ListenError>()
    };
    !failure.chain().any(is_permanent)
}

/// Returns the exit status that a shell shows for a process that was ended by this signal.
pub fn of_signal(signal: i32) -> u8 {
    SIGNALED.saturating_add(u8::try_from(signal).unwrap_or_default())
}

/// An exit status, as the man page and docs/reference.md describe it.
#[derive(Clone, Copy, Debug)]
pub struct StatusDescription {
    /// The number, or a range of numbers.
    pub status: &'static str,
    pub meaning: &'static str,
    /// The advice for scripts that see this status.
    #[cfg_attr(not(test), expect(dead_code, reason = "only the test that generates docs/reference.md reads it"))]
    pub advice: &'static str,
}

/// The exit statuses of a run, apart from the command's own.
pub const STATUSES: [StatusDescription; 8] = [
    StatusDescription {
        status: "69",
        meaning: "the lock could not be reached or used within --wait, or something else that leaderrun needs was not available: a file, a directory, a process, memory",
        advice: "report a failure, and start leaderrun again later, because the failure may be temporary; `leaderrun doctor` finds the reason",
    },
    StatusDescription {
        status: "75",
        meaning: "the lock was not acquired within --wait; --conflict-exit-code chooses another status",
        advice: "nothing: another candidate is running the command, the command is not due, or the lease of the last holder has not expired yet, in which case a later start runs the command",
    },
    StatusDescription {
        status: "76",
        meaning: "leadership was lost, so the command was stopped or not started",
        advice: "start leaderrun again; the work of the command may be incomplete. With `--on-lost rejoin`, leaderrun continues without being restarted",
    },
    StatusDescription {
        status: "124",
        meaning: "the command was stopped because it had run for --max-run",
        advice: "as for timeout(1): find out why the command took so long, or give it more time",
    },
    StatusDescription {
        status: "125",
        meaning: "the usage of leaderrun was invalid, or this system refuses something that leaderrun needs",
        advice: "report a failure, and do not start leaderrun again: the last line on stderr says what to change",
    },
    StatusDescription {
        status: "126",
        meaning: "the command was found but cannot be executed",
        advice: "report a failure: the file is not executable, or is for another machine",
    },
    StatusDescription {
        status: "127",
        meaning: "the command was not found",
        advice: "report a failure: use the full path, especially under cron and systemd",
    },
    StatusDescription {
        status: "128+N",
        meaning: "signal N ended the command, or ended leaderrun while it waited; leaderrun kills itself with the same signal",
        advice: "as for the command itself: 143 is SIGTERM, 137 is SIGKILL",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_is_described() {
        let numbers = [UNAVAILABLE, NOT_ACQUIRED, LOST, TIMED_OUT, FAILED, NOT_EXECUTABLE, NOT_FOUND]
            .map(|status| status.to_string());
        let expected: Vec<String> = numbers.into_iter().chain([format!("{SIGNALED}+N")]).collect();
        assert_eq!(STATUSES.map(|description| description.status).to_vec(), expected);
    }
}
