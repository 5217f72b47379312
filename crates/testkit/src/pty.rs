//! Terminals for tests.

use std::os::fd::OwnedFd;

use nix::fcntl::{OFlag, open};
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::stat::Mode;

/// A pseudo-terminal.
pub struct Pty {
    /// The end that stands for the user's keyboard and screen.
    pub master: OwnedFd,
    /// The end that programs use as their terminal.
    pub slave: OwnedFd,
}

impl Pty {
    /// Opens a new terminal with `O_CLOEXEC`. openpty(3) does not set it, so a program that another thread starts at
    /// the same time would inherit the terminal and keep it open.
    pub fn open() -> Self {
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let master = posix_openpt(flags).expect("a new terminal");
        grantpt(&master).expect("to own the terminal");
        unlockpt(&master).expect("to unlock the terminal");
        let name = ptsname_r(&master).expect("the terminal's name");
        let slave = open(name.as_str(), flags, Mode::empty()).expect("the terminal");
        Self { master: master.into(), slave }
    }
}
