//! The options for the durations of the election.

use std::time::Duration;

use clap::Args;

use super::{TIMES, values};

/// The options for the durations of the election.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = TIMES)]
pub struct TimeArguments {
    /// How long the lock stays held without a renewal, in whole seconds
    #[arg(long, env = "LEADERRUN_LEASE_DURATION", value_name = "DURATION", default_value = "15s", value_parser = values::duration)]
    pub lease_duration: Duration,

    /// How long after the last renewal the command gets the stop signal
    #[arg(long, env = "LEADERRUN_RENEW_DEADLINE", value_name = "DURATION", default_value = "10s", value_parser = values::duration)]
    pub renew_deadline: Duration,

    /// How often the lock is renewed
    #[arg(long, env = "LEADERRUN_RETRY_PERIOD", value_name = "DURATION", default_value = "2s", value_parser = values::duration)]
    pub retry_period: Duration,

    /// The time from the stop signal to SIGKILL, also for processes that the command has left running [default: half of the time between the renew deadline and the lease duration, or less if necessary, so that at least 1s remains until the lease duration ends]
    #[arg(long, env = "LEADERRUN_LOST_GRACE", value_name = "DURATION", value_parser = values::duration)]
    pub lost_grace: Option<Duration>,
}
