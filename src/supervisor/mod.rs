//! The supervisor, the inner of leaderrun's two processes. It starts, stops and kills the command.
//!
//! It has one thread, and it does not use the network. It stops and kills the command at fixed instants, without the
//! elector's help. Only the elector can postpone these instants, so if it hangs or dies, the command still ends on
//! time. [`leaderrun_core::supervisor`] decides when the command must end.

mod command_terminal;
mod command_tree;
mod exec;
mod file_format;
mod main_loop;
mod relay;
mod spawn;

use std::ffi::OsString;
use std::io;
use std::process;
use std::time::Duration;

use leaderrun_core::messages::{Report, SupervisorNotice};
use leaderrun_core::record::RunId;
use leaderrun_core::supervisor::StopOptions;
use nix::unistd::Pid;

use self::main_loop::MainLoop;
use crate::channel::SupervisorEnd;
use crate::exit;
use crate::process::dead_mans_switch::DeadMansSwitch;
use crate::process::signals::InheritedSignals;
use crate::process::tree::SharedNested;

/// The processes that must have ended before the command counts as ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum WaitFor {
    /// Only the process that leaderrun started. The processes that it leaves running are terminated.
    Main,
    /// All processes of the command, including a daemon that it leaves in the background.
    All,
}

/// The configuration of the supervisor, from the command line.
#[derive(Debug)]
pub struct SupervisorConfig {
    pub command: Vec<OsString>,
    pub stop_options: StopOptions,
    pub wait_for: WaitFor,
    /// Whether the command gets the terminal whenever leaderrun's job has it (`--foreground`).
    pub foreground: bool,
    /// The environment variables that the command does not inherit, such as those that set leaderrun's own options.
    pub removed_variables: Vec<String>,
    pub run: RunId,
    /// Once the command is gone after a loss, the supervisor kills an elector whose last order is this old, because it
    /// is frozen; `None` to never kill it.
    pub frozen_elector_timeout: Option<Duration>,
    /// If the stop and the kill would have to be brought forward by more than this, no command may run.
    pub max_advance: Duration,
}

/// Runs the supervisor, and ends this process when the elector is dead and no process of the command is left, or when
/// the supervisor fails.
pub fn run(
    config: SupervisorConfig,
    channel: SupervisorEnd,
    elector: Pid,
    nested: SharedNested,
    inherited: InheritedSignals,
    switch: io::Result<DeadMansSwitch>,
) -> ! {
    // A panic prints no message: stderr belongs to the command, and might block. The elector logs the end of this
    // process.
    std::panic::set_hook(Box::new(|_| process::abort()));
    let main_loop = MainLoop::new(config, &channel, elector, nested, inherited, switch);
    let ended = main_loop.and_then(|mut main_loop| main_loop.run());
    if let Err(failure) = &ended {
        let _ = channel.send(&Report::Notice(SupervisorNotice::Failed { reason: failure.to_string() }));
    }
    // If this process has failed, the elector kills what is left of the command.
    process::exit(if ended.is_ok() { exit::LOST } else { exit::UNAVAILABLE }.into())
}
