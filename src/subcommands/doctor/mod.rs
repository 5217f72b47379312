//! `leaderrun doctor`: checks whether a run would work, and what is missing.

mod cluster;
mod machine;
mod preparation;
mod run;
mod table;
mod traffic;

use std::time::Duration;

use anyhow::Result;
use humantime::format_duration;
use leaderrun_core::timing::Timing;

use self::cluster::ClusterExamination;
use self::table::{Row, Table};
use super::{CommandOutput, DoctorRequest, LockTarget};
use crate::lock::Store;

/// Examines the requested run and returns a table of the results. The exit status is 1 if a requirement is not met.
pub async fn doctor(request: DoctorRequest) -> Result<CommandOutput> {
    let DoctorRequest {
        target: LockTarget { lock, cluster },
        slots,
        owner,
        timing,
        routing_target,
        routing,
        http,
        command,
        uses_clock,
    } = request;
    let mut table = Table::default();
    if let Some(name) = command.first() {
        run::examine_command(&mut table, name);
    }
    if let Some(address) = http {
        run::examine_http(&mut table, address);
    }
    match lock.kind.store {
        Store::Objects(..) => {
            let examination = ClusterExamination {
                lock,
                slots,
                owner: owner.as_ref(),
                options: cluster,
                timing: &timing,
                routing_target: routing_target.as_ref(),
                routing: routing.as_ref(),
                uses_clock,
            };
            examination.run(&mut table).await;
        }
        Store::Local(store) => store.examine(&lock.name).into_iter().for_each(|finding| table.add(finding.into())),
    }
    table.add(clocks_row(&timing));
    machine::examine(&mut table);
    Ok(CommandOutput { text: table.to_string(), status: u8::from(table.has_failed()) })
}

/// Returns a row about the clock rates that the durations tolerate. How fast the clocks actually run cannot be measured
/// here.
fn clocks_row(timing: &Timing) -> Row {
    let margin = timing.lease_duration() - timing.renew_deadline() - timing.lost_grace();
    let finding = format!(
        "tolerates clock rates that differ by up to {:.2}x: the command is dead {} before another candidate may start it",
        timing.tolerated_clock_rate(),
        format_duration(margin)
    );
    Row::ok("clocks", finding)
}

/// Formats a duration, truncated to milliseconds.
fn format_milliseconds(duration: Duration) -> String {
    format_duration(Duration::from_millis(duration.as_millis().try_into().unwrap_or(u64::MAX))).to_string()
}
