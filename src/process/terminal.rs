//! The terminal of leaderrun's job. The command's process group becomes its foreground group when [`TerminalPolicy`]
//! permits it.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal};
use std::os::unix::fs::OpenOptionsExt;

use nix::sys::stat::{SFlag, fstat};
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{Pid, getpgid, getpgrp, tcgetpgrp, tcsetpgrp};

/// Determines when the command gets the terminal.
#[derive(Clone, Copy, Debug)]
pub struct TerminalPolicy {
    /// Whether the command gets the terminal whenever leaderrun's job has it (`--foreground`).
    always: bool,
    /// Whether leaderrun seems to be part of a pipeline, so that other processes may need the terminal: stdin is not a
    /// terminal, or stdout is a pipe.
    in_pipeline: bool,
    /// Whether the command gets the terminal only when it needs it, because Ctrl-C must reach leaderrun.
    only_on_demand: bool,
}

impl TerminalPolicy {
    /// Creates the policy from the standard streams. This must be called before leaderrun releases them.
    pub fn new(always: bool) -> Self {
        Self { always, in_pipeline: !io::stdin().is_terminal() || stdout_is_a_pipe(), only_on_demand: false }
    }

    /// Sets whether the command gets the terminal only when it needs it. Until then Ctrl-C reaches leaderrun, which
    /// treats it as a termination signal and kills the command `--kill-after` later.
    pub fn only_on_demand(self, only_on_demand: bool) -> Self {
        Self { only_on_demand, ..self }
    }

    /// Returns whether a command may have the terminal. If leaderrun is not a job of its own, a script has started it.
    /// The command then gets the terminal only when it needs it, for example to read from it, because until then Ctrl-C
    /// is meant for the whole script.
    fn allows(self, is_own_job: bool, needs_terminal: bool) -> bool {
        self.always || (!self.in_pipeline && (needs_terminal || (is_own_job && !self.only_on_demand)))
    }
}

/// The terminal of leaderrun's job.
#[derive(Debug)]
pub struct Terminal {
    tty: File,
    /// The process group of leaderrun's job.
    job: Pid,
    /// The modes that the terminal had before the command got it.
    modes: Option<Termios>,
}

impl Terminal {
    /// Returns the controlling terminal of the elector, if it has one.
    pub fn of(elector: Pid) -> Option<Self> {
        let tty = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open("/dev/tty").ok()?;
        let job = getpgid(Some(elector)).ok()?;
        let modes = tcgetattr(&tty).ok();
        Some(Self { tty, job, modes })
    }

    /// Returns the terminal if the elector's job is its foreground job and the command may have it.
    /// `needs_terminal` states whether the command needs the terminal now.
    pub fn for_command(elector: Pid, policy: TerminalPolicy, needs_terminal: bool) -> Option<Self> {
        let terminal = Self::of(elector)?;
        (terminal.belongs_to(terminal.job) && policy.allows(terminal.job == elector, needs_terminal))
            .then_some(terminal)
    }

    /// Makes a process group the foreground group. The caller must block SIGTTOU, which would otherwise suspend
    /// its process.
    pub fn give_to(&self, group: Pid) {
        let _ = tcsetpgrp(&self.tty, group);
    }

    /// Returns whether a process group is the foreground group.
    pub fn belongs_to(&self, group: Pid) -> bool {
        tcgetpgrp(&self.tty) == Ok(group)
    }

    /// Makes the process group of leaderrun's job the foreground group again.
    pub fn take_back(&self) {
        self.give_to(self.job);
    }

    /// Restores the modes of the terminal after a command that died without restoring them.
    pub fn restore_modes(&self) {
        if let Some(modes) = &self.modes {
            let _ = tcsetattr(&self.tty, SetArg::TCSADRAIN, modes);
        }
    }
}

/// Returns whether stdin is a terminal and this process belongs to its foreground job, so that it may read from it.
pub fn is_foreground_job() -> bool {
    tcgetpgrp(io::stdin()) == Ok(getpgrp())
}

fn stdout_is_a_pipe() -> bool {
    fstat(io::stdout()).is_ok_and(|status| SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT == SFlag::S_IFIFO)
}
