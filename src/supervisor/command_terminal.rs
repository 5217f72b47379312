//! Decides when the command gets the terminal and when it is taken back.

use std::time::Duration;

use leaderrun_core::instant::Instant;
use leaderrun_core::messages::End;
use nix::unistd::Pid;

use crate::process::clock;
use crate::process::terminal::{Terminal, TerminalPolicy};

/// The time between checks of whether a waiting command may have the terminal.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Tracks whether the command has the terminal or waits for it.
#[derive(Debug)]
pub struct CommandTerminal {
    elector: Pid,
    policy: TerminalPolicy,
    terminal: Option<Terminal>,
    /// The time of the next check, while the command is suspended because it needs the terminal.
    next_check: Option<Instant>,
}

impl CommandTerminal {
    /// Creates the state before the start of the command. The process group of `elector` is leaderrun's job.
    pub fn new(elector: Pid, policy: TerminalPolicy) -> Self {
        Self { elector, policy, terminal: None, next_check: None }
    }

    /// Determines the terminal for a command that is about to be started, and stores and returns it. Returns `None` if
    /// the command may not have it.
    pub fn choose_for_start(&mut self) -> Option<&Terminal> {
        self.terminal = Terminal::for_command(self.elector, self.policy, false);
        self.terminal.as_ref()
    }

    /// Returns whether the command has been given the terminal, at its start or later.
    pub fn is_given(&self) -> bool {
        self.terminal.is_some()
    }

    /// Returns whether a process group has the terminal.
    pub fn belongs_to(&self, group: Pid) -> bool {
        self.terminal.as_ref().is_some_and(|terminal| terminal.belongs_to(group))
    }

    /// Gives the terminal to the command's process group if leaderrun's job has it and the policy allows that, and
    /// returns whether it did. `needs_terminal` states whether the command needs the terminal now.
    pub fn give_to(&mut self, main: Pid, needs_terminal: bool) -> bool {
        let Some(terminal) = Terminal::for_command(self.elector, self.policy, needs_terminal) else { return false };
        terminal.give_to(main);
        self.terminal = Some(terminal);
        true
    }

    /// Schedules the next check of whether the command may have the terminal. Returns whether this is the first check
    /// of a wait.
    pub fn schedule_check(&mut self) -> bool {
        self.next_check.replace(clock::now() + CHECK_INTERVAL).is_none()
    }

    /// Ends the wait for the terminal.
    pub fn end_wait(&mut self) {
        self.next_check = None;
    }

    /// Returns when to check whether a waiting command may have the terminal.
    pub fn next_check(&self) -> Option<Instant> {
        self.next_check
    }

    /// Gives the terminal back to leaderrun's job after the end of the command. A command that was ended by a signal or
    /// because of `--max-run` may not have restored the terminal modes that it had changed, so they are restored here.
    pub fn take_back(&mut self, end: &End) {
        self.next_check = None;
        if let Some(terminal) = self.terminal.take() {
            terminal.take_back();
            if let End::Signaled(_) | End::TimedOut = end {
                terminal.restore_modes();
            }
        }
    }
}
