//! The options for the HTTP server and the notifications to systemd.

use std::time::Duration;

use clap::Args;

use super::{MONITORING, values};
use crate::telemetry::http::HttpAddress;
use crate::telemetry::state::ReadyWhen;
use crate::telemetry::systemd::NotifyBy;

/// The options for the HTTP server and the notifications to systemd.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = MONITORING)]
pub struct MonitoringArguments {
    /// Serve HTTP on this address, with /healthz, /readyz, /leader and /metrics: IP:PORT, or :PORT for all addresses [default: no HTTP server]
    #[arg(long, env = "LEADERRUN_HTTP", value_name = "ADDRESS", value_parser = values::http_address)]
    pub http: Option<HttpAddress>,

    /// When /readyz returns 200, and systemd is told that leaderrun is ready: waiting (while this candidate leads or could take over) or leading (only while it leads)
    #[arg(
        long,
        env = "LEADERRUN_READY_WHEN",
        value_name = "STATE",
        default_value = "waiting",
        hide_possible_values = true
    )]
    pub ready_when: ReadyWhen,

    /// Respond to /healthz with 503 when a problem has prevented this candidate from leading for this long, so that it is restarted [default: never]
    #[arg(long, env = "LEADERRUN_UNHEALTHY_AFTER", value_name = "DURATION", value_parser = values::duration)]
    pub unhealthy_after: Option<Duration>,

    /// The process that reports to systemd while the command runs, if NOTIFY_SOCKET is set: leaderrun or command (which requires NotifyAccess=all)
    #[arg(
        long,
        env = "LEADERRUN_NOTIFY",
        value_name = "WHO",
        default_value = "leaderrun",
        hide_possible_values = true
    )]
    pub notify: NotifyBy,
}
