//! The terminal: the command's process group is its foreground group while the command runs.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal};
use std::os::unix::fs::OpenOptionsExt;

use nix::sys::stat::{SFlag, fstat};
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{Pid, getpgid, getpgrp, tcgetpgrp, tcsetpgrp};

/// In which cases the command gets the terminal.
#[derive(Clone, Copy, Debug)]
pub struct TerminalPolicy {
    /// Wherever leaderrun's job has it: `--foreground`.
    always: bool,
    /// Others in a pipeline may need it.
    in_pipeline: bool,
    /// What its keys send has to reach leaderrun.
    only_when_asked: bool,
}

impl TerminalPolicy {
    /// Looks at the standard streams, which leaderrun does not keep.
    pub fn new(always: bool) -> Self {
        Self { always, in_pipeline: !io::stdin().is_terminal() || stdout_is_a_pipe(), only_when_asked: false }
    }

    /// Makes a command get the terminal only when it asks for it, so that Ctrl-C is sent to leaderrun until then: it is
    /// a request to end from which on `--kill-after` counts.
    pub fn only_when_asked(self, only_when_asked: bool) -> Self {
        Self { only_when_asked, ..self }
    }

    /// Returns whether a command may have the terminal. In a script it gets it when it asks for it, by reading for
    /// example: until then Ctrl-C is for the whole script.
    fn allows(self, is_own_job: bool, asks: bool) -> bool {
        self.always || (!self.in_pipeline && (asks || (is_own_job && !self.only_when_asked)))
    }
}

/// The terminal of leaderrun's job.
#[derive(Debug)]
pub struct Terminal {
    tty: File,
    job: Pid,
    /// What the command found.
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

    /// Returns the terminal if the elector's job is its foreground job and the command may have it. `asks` says that
    /// the command needs it now.
    pub fn for_command(elector: Pid, policy: TerminalPolicy, asks: bool) -> Option<Self> {
        let terminal = Self::of(elector)?;
        (terminal.belongs_to(terminal.job) && policy.allows(terminal.job == elector, asks)).then_some(terminal)
    }

    /// Makes a process group the foreground group. The caller blocks SIGTTOU, so it may.
    pub fn give_to(&self, group: Pid) {
        let _ = tcsetpgrp(&self.tty, group);
    }

    /// Whether a process group is the foreground group.
    pub fn belongs_to(&self, group: Pid) -> bool {
        tcgetpgrp(&self.tty) == Ok(group)
    }

    /// Gives the terminal back to leaderrun's own process group.
    pub fn take_back(&self) {
        self.give_to(self.job);
    }

    /// Gives the terminal the modes that the command found, for a command that died without doing so.
    pub fn restore_modes(&self) {
        if let Some(modes) = &self.modes {
            let _ = tcsetattr(&self.tty, SetArg::TCSADRAIN, modes);
        }
    }
}

/// Returns whether stdin is a terminal of which this process belongs to the foreground job, so that it may be read.
pub fn is_foreground_job() -> bool {
    tcgetpgrp(io::stdin()) == Ok(getpgrp())
}

fn stdout_is_a_pipe() -> bool {
    fstat(io::stdout()).is_ok_and(|status| SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT == SFlag::S_IFIFO)
}
