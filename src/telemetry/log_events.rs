//! The log events of the telemetry: of the HTTP server, the notifications to systemd, and the log itself.

use std::net::SocketAddr;

use super::log_event::log_events;

log_events! {
    /// Logged when leaderrun listens at the address of `--http`.
    info http(; address: SocketAddr) "answering at http://{address}";

    /// Logged when leaderrun cannot listen at the address of `--http`. If the address is in use, it is retried every second.
    warn http_failed(; sentence: &str) "{sentence}";

    /// Logged when systemd cannot be notified, once.
    warn notify_failed(; failure: &str) "cannot notify systemd: {failure}; check NOTIFY_SOCKET";

    /// Logged when leaderrun panicked, before it aborts.
    error panicked(; panic: &str) "leaderrun panicked; this is a bug: {panic}";
}
