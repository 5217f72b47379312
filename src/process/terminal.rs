//! The terminal: the command's process group is its foreground group while the command runs.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal};
use std::os::unix::fs::OpenOptionsExt;

use nix::sys::stat::{SFlag, fstat};
use nix::unistd::{Pid, getpgid, getpgrp, tcgetpgrp, tcsetpgrp};

/// A terminal of which leaderrun is the foreground job.
#[derive(Debug)]
pub struct Terminal {
    tty: File,
    job: Pid,
}

impl Terminal {
    /// The controlling terminal, if `elector` is its foreground job all by itself. In the background,
    /// in a pipeline or in a script the terminal belongs to others as well and is left alone.
    pub fn of_foreground_job(elector: Pid) -> Option<Self> {
        let tty = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open("/dev/tty").ok()?;
        let job = getpgid(Some(elector)).ok()?;
        let alone = job == elector && io::stdin().is_terminal() && !stdout_is_a_pipe();
        (alone && tcgetpgrp(&tty) == Ok(job)).then_some(Self { tty, job })
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
}

/// Returns whether stdin is a terminal of which this process belongs to the foreground job, so that it may be read.
pub fn is_foreground_job() -> bool {
    tcgetpgrp(io::stdin()) == Ok(getpgrp())
}

fn stdout_is_a_pipe() -> bool {
    fstat(io::stdout()).is_ok_and(|status| SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT == SFlag::S_IFIFO)
}
