//! What others can ask over HTTP.

use clap::Args;

use super::{MONITORING, values};
use crate::telemetry::http::HttpAddress;
use crate::telemetry::state::ReadyWhen;

/// What others can ask over HTTP.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = MONITORING)]
pub struct MonitoringArguments {
    /// Answer HTTP at this address, with /healthz, /readyz, /leader and /metrics: IP:PORT, or :PORT for all addresses [default: nowhere]
    #[arg(long, env = "LEADERRUN_HTTP", value_name = "ADDRESS", value_parser = values::http_address)]
    pub http: Option<HttpAddress>,

    /// When /readyz answers 200: waiting (while waiting or leading) or leading (only while leading)
    #[arg(
        long,
        env = "LEADERRUN_READY_WHEN",
        value_name = "STATE",
        default_value = "waiting",
        hide_possible_values = true
    )]
    pub ready_when: ReadyWhen,
}
