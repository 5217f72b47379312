//! Sends signals to the command's process group, and handles signals that have suspended it.

use leaderrun_core::messages::SupervisorNotice;
use leaderrun_core::signal::is_termination_signal;
use nix::errno::Errno;
use nix::unistd::Pid;

use super::MainLoop;
use crate::process::clock;
use crate::process::signals::SignalHandling;
use crate::supervisor::relay::RelayedSignal;

impl MainLoop<'_> {
    /// Handles a command that a signal has suspended. If Ctrl-Z sent the signal, the command is continued: the shell
    /// would get the terminal back only if leaderrun suspended itself too, and then the lock would be lost.
    pub(super) fn handle_suspended(&mut self, pid: Pid, signal: i32) {
        match signal {
            libc::SIGTTIN | libc::SIGTTOU => self.handle_missing_terminal(pid),
            libc::SIGTSTP if self.terminal.belongs_to(pid) => {
                self.notify(SupervisorNotice::SuspendRefused);
                let _ = self.tree.signal_group(pid, libc::SIGCONT);
            }
            _ => self.notify(SupervisorNotice::CommandStopped { pid: pid.as_raw(), signal }),
        }
    }

    /// Handles a command that was suspended because it needs the terminal and does not have it. If leaderrun has become
    /// the foreground job in the meantime, the command gets the terminal and is continued; otherwise this is checked
    /// again later. leaderrun may not have noticed, because a shell's `fg` sends no SIGCONT to a job that is running.
    pub(super) fn handle_missing_terminal(&mut self, main: Pid) {
        self.give_terminal(main, true);
        if self.terminal.belongs_to(main) {
            self.terminal.end_wait();
            let _ = self.tree.signal_group(main, libc::SIGCONT);
        } else if self.terminal.schedule_check() {
            self.notify(SupervisorNotice::AwaitsTerminal);
        }
    }

    /// Sends a signal to the command, and returns whether that was permitted. If it was not, the elector is notified.
    pub(super) fn signal(&mut self, signal: i32) -> bool {
        let Some(main) = self.main else { return true };
        if signal == libc::SIGCONT {
            self.give_terminal(main, false);
        }
        let result = self.tree.signal_group(main, signal);
        if signal == self.config.stop_options.stop_signal || is_termination_signal(signal) {
            // A suspended process reacts to no signal except SIGKILL and SIGCONT, so it is continued.
            let _ = self.tree.signal_group(main, libc::SIGCONT);
        }
        let refusal = result.err().filter(|errno| *errno != Errno::ESRCH);
        if let Some(errno) = refusal {
            self.notify(SupervisorNotice::SignalRefused { signal, reason: errno.desc().to_owned() });
        }
        refusal.is_none()
    }

    /// Gives the command the terminal if leaderrun is now the foreground job, for example because a shell's `fg` has
    /// continued it. `needs_terminal` states whether the command needs the terminal now.
    fn give_terminal(&mut self, main: Pid, needs_terminal: bool) {
        if self.terminal.give_to(main, needs_terminal) {
            self.notify(SupervisorNotice::HasTerminal);
        }
    }

    /// Relays the signals that are now due, unless the command has received them directly. They were held back to find
    /// that out.
    pub(super) fn relay_due(&mut self) {
        for relayed in self.relay.take_due(clock::now()) {
            // Once the main process has been reaped, another process group may have the same number.
            if !self.supervisor.is_main_running() {
                continue;
            }
            match relayed {
                RelayedSignal::Send(signal) => {
                    self.signal(signal);
                }
                RelayedSignal::SendIfMissed(signal) => {
                    let handling = self.main.and_then(SignalHandling::of);
                    if handling.is_some_and(|handling| handling.is_killed_by(signal)) {
                        self.signal(signal);
                    }
                }
            }
        }
    }
}
