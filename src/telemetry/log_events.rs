//! The log events of the telemetry: of the HTTP server, the notifications to systemd, and the log itself.

use std::net::SocketAddr;

use super::log_event::log_events;

log_events! {
    /// Logged when leaderrun listens on the address of `--http`.
    info http(; address: SocketAddr) "serving HTTP on http://{address}";

    /// Logged when leaderrun cannot listen on the address of `--http`. If the address is not available, leaderrun tries
    /// again every second.
    warn http_failed(; sentence: &str) "{sentence}";

    /// Logged once, when systemd cannot be notified.
    warn notify_failed(; failure: &str) "cannot notify systemd: {failure}; check NOTIFY_SOCKET";

    /// Logged when leaderrun panics, before it aborts.
    error panicked(; panic: &str) "leaderrun panicked; this is a bug: {panic}";
}
