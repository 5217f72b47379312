//! leaderrun runs a command only while it is the leader.
//!
//! > Among leaderrun candidates, two commands for the same lock are never alive at the same time, as long as the ratio
//! > between the machines' clock *rates* stays within the tolerated limit. The clocks need not agree on the *time*.
//!
//! Two nested processes keep that promise. The [`elector`] takes part in the election, and the [`supervisor`] owns the
//! command. If either of them dies or freezes, the other ends the command in time. Three state machines without I/O
//! make the decisions: [`leaderrun_core::election`] decides which candidate may run the command and until when,
//! [`leaderrun_core::supervisor`] when the command must be stopped and killed, and [`leaderrun_core::elector`] when the
//! supervisor must be killed.
//!
//! Where to find other decisions and frequently changed definitions:
//!
//! - The exit status, for example 76 after a loss: `Exit::of` in `exit.rs`.
//! - Sending a signal to the command's process group: `Tree::signal_group` in `process/tree`.
//! - Killing all processes of the command: `Tree::kill` in `process/tree`, repeated by its `KillRounds`.
//! - The kinds of [`lock`]: each has a line in `KINDS` in `lock/kinds.rs`, which tells all other code what the kind
//!   supports. What the line refers to is in a file of `lock/`: a `static RecordFormat` if the lock is an object in the
//!   cluster, or an implementation of `LocalStore` if it is on this machine. CONTRIBUTING.md lists the tests and
//!   documents to change.
//! - Log events: the table `log_events!` in `log_events.rs` of the module that logs them. The events of the state
//!   machines and of the supervisor are in `elector/log_events.rs`; `elector/log_notices.rs` logs them.
//! - Metrics: `METRICS` in `telemetry/metrics.rs`.
//! - Help, man page, completions and reference: generated from the options by `cli/documents`. The test
//!   `the_documents_are_current` fails if the checked-in copies are stale.
//! - A fault that the simulation injects: `Fault`, its list `ALL`, and `inject_fault` in
//!   `tests/simulation/faults.rs`.
//!
//! [`subcommands`] contains the commands that inspect or change a lock. [`routing`] routes traffic to the leader, and
//! [`events`] writes Kubernetes Events about leadership.
//!
//! Imports run one way. Each module imports only modules that come later in this order: `cli`, then `subcommands`, then
//! `elector` and `supervisor`, then `routing` and `events`, then `lock`, then `kubernetes`, `channel` and `exit`, then
//! `telemetry`, then `process`. All of them import `leaderrun_core`.

mod channel;
mod cli;
mod elector;
mod events;
mod exit;
mod kubernetes;
mod lock;
mod process;
mod routing;
mod subcommands;
mod supervisor;
mod telemetry;

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Result;

use crate::cli::Invocation;
use crate::elector::ElectorConfig;
use crate::exit::Exit;
use crate::process::dead_mans_switch::DeadMansSwitch;
use crate::process::fork::{Role, fork_supervisor};
use crate::process::signals::{self, BlockedSignals, InheritedSignals};
use crate::process::title;
use crate::process::tree::SharedNested;
use crate::process::{limits, memory, required_system_calls};
use crate::subcommands::output::print;
use crate::subcommands::{CommandOutput, Subcommand};
use crate::supervisor::SupervisorConfig;
use crate::telemetry::log::printable_error;

fn main() -> ExitCode {
    let blocked = BlockedSignals::begin();
    let exit = limits::check_stack().map_or_else(|failure| fail(failure.into()), |()| execute_command_line(blocked));
    if let Exit::Signal { signal, to_group } = exit {
        signals::kill_self(signal, to_group);
    }
    ExitCode::from(exit.status())
}

/// Parses the command line and carries it out. It is not inlined into `main`, because `main` must check the size of the
/// stack before this function uses the stack.
#[inline(never)]
fn execute_command_line(blocked: BlockedSignals) -> Exit {
    match cli::parse(std::env::args_os()) {
        Ok(Invocation::Run(elector, supervisor)) => run(*elector, supervisor, blocked).unwrap_or_else(|failure| {
            report_failure(&failure);
            Exit::of_failure(&failure)
        }),
        Ok(Invocation::Subcommand(subcommand)) => {
            blocked.end();
            run_subcommand(subcommand).unwrap_or_else(fail)
        }
        Ok(Invocation::Print(text)) => {
            blocked.end();
            print(&text).map_or_else(fail, |_| Exit::Status(0))
        }
        Err(failure) => fail(failure.into()),
    }
}

fn fail(failure: anyhow::Error) -> Exit {
    report_failure(&failure);
    Exit::Status(exit::FAILED)
}

fn report_failure(failure: &anyhow::Error) {
    let _ = writeln!(io::stderr(), "leaderrun: {}", printable_error(failure));
}

fn run_subcommand(subcommand: Subcommand) -> Result<Exit> {
    limits::check_open_files()?;
    let CommandOutput { text, status } = subcommands::run(subcommand)?;
    print(&text)?;
    Ok(Exit::Status(status))
}

/// Forks the supervisor, and runs the elector in this process and the supervisor in the other.
fn run(elector_config: ElectorConfig, supervisor_config: SupervisorConfig, blocked: BlockedSignals) -> Result<Exit> {
    limits::check_open_files()?;
    required_system_calls::check()?;
    title::set_name(title::ELECTOR)?;
    let inherited = InheritedSignals::take(blocked)?;
    let (to_supervisor, to_elector) = channel::pair()?;
    let switch = DeadMansSwitch::new();
    let nested = SharedNested::new()?;
    memory::trim();
    match fork_supervisor()? {
        Role::Elector { supervisor } => {
            drop(to_elector);
            // The switch must stay open until this process ends. Closing it earlier would kill a command that outlives
            // the supervisor.
            let _held = switch.map(DeadMansSwitch::into_held);
            elector::run(elector_config, to_supervisor, supervisor, nested, inherited)
        }
        Role::Supervisor { elector } => {
            drop(to_supervisor);
            title::set_name(title::SUPERVISOR)?;
            title::replace_command_line(title::SUPERVISOR);
            supervisor::run(supervisor_config, to_elector, elector, nested, inherited, switch)
        }
    }
}
