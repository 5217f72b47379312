//! The inner process: it owns the command and everything the command forks.
//!
//! One thread, synchronous, without a network. It keeps the stop and kill instants by itself: an elector that hangs,
//! dies or is stopped can only stop *extending* the time. When the command must end is decided by
//! [`leaderrun_core::supervisor`].

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
use crate::process::memory;
use crate::process::signals::Inherited;
use crate::process::switch::DeadMansSwitch;

/// Whose end is the end of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum WaitFor {
    /// The process that leaderrun has started. What it leaves running is terminated.
    Main,
    /// All processes of the command, as with a daemon that goes into the background.
    All,
}

/// What the supervisor has to know from the command line.
#[derive(Debug)]
pub struct SupervisorConfig {
    pub command: Vec<OsString>,
    pub stop_options: StopOptions,
    pub wait_for: WaitFor,
    /// The command gets the terminal wherever leaderrun's job has it.
    pub foreground: bool,
    /// Variables that set leaderrun's own options, which the command does not inherit.
    pub own_variables: Vec<String>,
    pub run: RunId,
    /// How long after the last renewal an elector is killed that is silent though the command is gone; never if `None`.
    pub frozen_elector_timeout: Option<Duration>,
}

/// Runs the supervisor until the elector is dead or kills it. Never returns.
pub fn run(
    config: SupervisorConfig,
    channel: SupervisorEnd,
    elector: Pid,
    inherited: Inherited,
    switch: io::Result<DeadMansSwitch>,
) -> ! {
    // Without a message: stderr is the command's, and might block. The elector logs that this process is gone.
    std::panic::set_hook(Box::new(|_| process::abort()));
    // What is refused here is refused to the elector as well, which logs it.
    let _ = memory::lock();
    let main_loop = MainLoop::new(config, &channel, elector, inherited, switch);
    let ended = main_loop.and_then(|mut main_loop| main_loop.run());
    if let Err(failure) = &ended {
        let _ = channel.send(&Report::Notice(SupervisorNotice::Failed { reason: failure.to_string() }));
    }
    // The elector sees this process end and logs it; with nothing below it there is nothing to lose.
    process::exit(if ended.is_ok() { exit::LOST } else { exit::UNAVAILABLE }.into())
}
