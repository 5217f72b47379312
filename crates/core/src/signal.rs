//! What signals mean to leaderrun.

/// Returns whether a signal that leaderrun is sent is meant for the command: not those about leaderrun's own children
/// and its own use of the terminal.
pub fn is_relayed(signal: i32) -> bool {
    !matches!(signal, libc::SIGCHLD | libc::SIGTTIN | libc::SIGTTOU | libc::SIGPIPE)
}

/// Returns whether a signal asks leaderrun to end, as long as there is no command to relay it to.
pub fn is_termination_signal(signal: i32) -> bool {
    matches!(signal, libc::SIGTERM | libc::SIGINT | libc::SIGHUP | libc::SIGQUIT)
}
