//! The classification of the signals that leaderrun receives.

/// Returns whether a signal is relayed to the command. Signals about leaderrun's own children, pipes and terminal are
/// not.
pub fn is_relayed(signal: i32) -> bool {
    !matches!(signal, libc::SIGCHLD | libc::SIGTTIN | libc::SIGTTOU | libc::SIGPIPE)
}

/// Returns whether a signal ends leaderrun while there is no command to relay it to.
pub fn is_termination_signal(signal: i32) -> bool {
    matches!(signal, libc::SIGTERM | libc::SIGINT | libc::SIGHUP | libc::SIGQUIT)
}
