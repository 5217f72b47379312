//! The log events about the HTTP server, notifications to systemd, and panics.

use std::net::SocketAddr;

use super::log_event::log_events;

log_events! {
    /// Logged when leaderrun serves HTTP on the address of `--http`.
    info http(; address: SocketAddr) "serving HTTP on http://{address}";

    /// Logged when leaderrun cannot serve HTTP on the address of `--http`. If the address is not available, leaderrun
    /// tries again every second.
    warn http_failed(; sentence: &str) "{sentence}";

    /// Logged once, when leaderrun cannot notify systemd through the socket that `NOTIFY_SOCKET` names.
    warn notify_failed(; failure: &str) "cannot notify systemd: {failure}; check NOTIFY_SOCKET";

    /// Logged when leaderrun panics, before it aborts.
    error panicked(; panic: &str) "leaderrun panicked; this is a bug: {panic}";
}
