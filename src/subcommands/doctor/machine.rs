//! The rows of the `doctor` table about what this machine or container permits leaderrun to do.

use leaderrun_core::timing::MIN_KILL_MARGIN;

use super::table::{Row, SEE_HELP, Table, finding_and_remedy};
use crate::process::cpu_limit::{CpuCgroups, Throttling};
use crate::process::memory::{self, Locked};
use crate::process::signal_permission::{self, SignalPermission};
use crate::process::tree::Tree;

/// If the CPU limit is lower than this, a few busy threads of the command can delay leaderrun.
const ENOUGH_CPUS: f64 = 1.0;

/// Examines the list of processes, the CPU limit, the limit on locked memory, and the permission to send signals.
pub fn examine(table: &mut Table) {
    table.add(processes_row());
    table.add(cpu_row(CpuCgroups::find()));
    table.add(locked_memory_row());
    table.add(signals_row());
}

fn processes_row() -> Row {
    // The run ID does not matter, because no process is searched for.
    match Tree::open("") {
        Ok(_) => Row::ok("processes", "leaderrun can list the processes of a command"),
        Err(failure) => {
            let sentence = failure.to_string();
            let (finding, remedy) = finding_and_remedy(&sentence, SEE_HELP);
            Row::failed("processes", finding, remedy)
        }
    }
}

fn cpu_row(mut cgroups: CpuCgroups) -> Row {
    let Some(limit) = cgroups.read_limit() else { return Row::ok("CPU", "no cgroup limits the CPUs") };
    let throttled = match cgroups.throttling() {
        Some(Throttling { periods, throttled_periods }) => {
            format!("; processes were throttled in {throttled_periods} of {periods} scheduling periods")
        }
        None => String::new(),
    };
    let (cpus, threads) = (limit.cpus(), limit.threads_ended_within(MIN_KILL_MARGIN));
    let finding = format!("limited to {cpus:.2} CPUs{throttled}");
    if cpus < ENOUGH_CPUS {
        let finding =
            format!("{finding}; about {threads} threads of a command can be killed within {MIN_KILL_MARGIN:?}");
        let remedy = "raise or remove the CPU limit, or choose a longer --lease-duration: busy threads of the command can delay \
                      leaderrun, which allows for this by stopping the command earlier";
        Row::note("CPU", finding, remedy)
    } else {
        Row::ok("CPU", finding)
    }
}

fn locked_memory_row() -> Row {
    match memory::lock_code() {
        Locked::Everything => Row::ok("memory", "all of leaderrun can be locked in memory"),
        Locked::Partly { locked, total, errno } => Row::note(
            "memory",
            format!(
                "only {} of {} kB of leaderrun can be locked in memory: {}",
                locked / 1024,
                total / 1024,
                errno.desc()
            ),
            "raise the limit on locked memory (ulimit -l, LimitMEMLOCK=) if the leaderrun program is on a network file system: \
             if that file system fails, leaderrun may stop the command too late",
        ),
    }
}

fn signals_row() -> Row {
    match signal_permission::signal_permission() {
        SignalPermission::AnyUser => Row::ok("signals", "can be sent to a command of any user"),
        SignalPermission::OwnUser => {
            Row::ok("signals", "can be sent to a command that does not switch to another user")
        }
        SignalPermission::OnlyRoot => {
            let finding = "leaderrun is root with neither CAP_KILL nor CAP_SETUID: a command that switches to another user cannot be stopped";
            Row::note("signals", finding, "add the capability KILL, or run leaderrun as the command's user")
        }
    }
}
