//! The classification of the signals that leaderrun receives.

/// Returns whether a signal is relayed to the command. Signals about leaderrun's own children, pipes and use of the
/// terminal are not.
pub fn is_relayed(signal: i32) -> bool {
    !matches!(signal, libc::SIGCHLD | libc::SIGTTIN | libc::SIGTTOU | libc::SIGPIPE)
}

/// Returns whether a signal conventionally asks a process to terminate.
pub fn is_termination_signal(signal: i32) -> bool {
    matches!(signal, libc::SIGTERM | libc::SIGINT | libc::SIGHUP | libc::SIGQUIT)
}

/// Returns whether a signal ends a candidate that has no command to which it could be relayed. Almost every signal
/// does, because a container image can choose the signal that stops its containers: haproxy chooses SIGUSR1, httpd
/// SIGWINCH, and systemd a real-time signal.
pub fn ends_candidate(signal: i32) -> bool {
    is_relayed(signal) && !matches!(signal, libc::SIGCONT | libc::SIGURG | libc::SIGTSTP)
}
