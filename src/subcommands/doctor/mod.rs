//! `leaderrun doctor`: will it run, and what is missing?

mod cluster;
mod machine;
mod run;
mod table;
mod traffic;
mod way;

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use humantime::format_duration;
use leaderrun_core::timing::Timing;
use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

use self::table::{Row, Table};
use super::{CommandOutput, DoctorRequest, LockTarget, PATIENCE};
use crate::lock::{FileLock, LockName};
use crate::telemetry::log::printable_cause;

/// Looks at everything, and says what it found.
pub async fn doctor(request: DoctorRequest) -> Result<CommandOutput> {
    let DoctorRequest {
        target: LockTarget { lock, cluster },
        slots,
        timing,
        traffic,
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
    match lock {
        LockName::Objects { kind, namespace, name } => {
            let cluster = cluster::Examined {
                kind,
                namespace,
                name,
                slots,
                options: cluster,
                timing: &timing,
                target: traffic.as_ref(),
                routing: routing.as_ref(),
                uses_clock,
            };
            cluster.examine(&mut table).await;
        }
        LockName::File(path) => examine_file(&mut table, &path),
    }
    table.add(clocks(&timing));
    machine::examine(&mut table);
    Ok(CommandOutput { text: table.to_string(), status: u8::from(table.has_failed()) })
}

fn examine_file(table: &mut Table, path: &Path) {
    let elsewhere = "choose a file in a folder that is there, on this machine: --lock file:/run/job.lease";
    match FileLock::new(path, PATIENCE) {
        Ok(lock) => {
            table.add(Row::ok("record", format!("{} can be read, or made", path.display())));
            examine_lock_file(table, lock.lock_file());
        }
        Err(reason) => {
            table.add(Row::failed("record", format!("{}: {}", path.display(), printable_cause(&reason)), elsewhere))
        }
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let can_write = access(path, AccessFlags::R_OK | AccessFlags::W_OK).is_ok();
    table.add(match access(folder, AccessFlags::W_OK | AccessFlags::X_OK) {
        Ok(()) => Row::ok("folder", format!("{} can be written to", folder.display())),
        Err(_) if can_write => {
            Row::ok("folder", format!("{} cannot be written to, but its file {} can", folder.display(), path.display()))
        }
        Err(errno) => {
            let finding = format!("{} cannot be written to: {}", folder.display(), errno.desc());
            Row::failed("folder", finding, "let this user write there, or choose another folder")
        }
    });
}

fn examine_lock_file(table: &mut Table, path: &Path) {
    if let Err(errno) = access(path, AccessFlags::R_OK)
        && errno != Errno::ENOENT
    {
        let finding = format!("{} cannot be opened: {}", path.display(), errno.desc());
        table.add(Row::failed("lock file", finding, "let this user read it, or choose another file"));
    }
}

/// What the settings mean for clocks: nothing that could be measured here.
fn clocks(timing: &Timing) -> Row {
    let margin = timing.lease_duration() - timing.renew_deadline() - timing.lost_grace();
    let finding = format!(
        "tolerates clock rates that differ by up to {:.2}x: the command is dead {} before another candidate may start it",
        timing.tolerated_clock_rate(),
        format_duration(margin)
    );
    Row::ok("clocks", finding)
}

/// Rounded to what people want to know of a time that something took.
fn rounded(duration: Duration) -> String {
    format_duration(Duration::from_millis(duration.as_millis().try_into().unwrap_or(u64::MAX))).to_string()
}
