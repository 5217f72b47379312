//! Pseudo-terminals for tests.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use nix::fcntl::{OFlag, open};
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::stat::Mode;
use nix::unistd::setsid;

use crate::eventually;

/// A pseudo-terminal.
pub struct Pty {
    /// The end at which the test types and reads in place of a user.
    pub master: OwnedFd,
    /// The end that programs use as their terminal.
    pub slave: OwnedFd,
}

impl Pty {
    /// Opens a new terminal. openpty(3) is not used because it does not set `O_CLOEXEC`: a program that another thread
    /// starts at the same time would inherit the terminal and keep it open.
    pub fn open() -> Self {
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let master = posix_openpt(flags).expect("a terminal can be opened");
        grantpt(&master).expect("access to the terminal can be granted");
        unlockpt(&master).expect("the terminal can be unlocked");
        let name = ptsname_r(&master).expect("the terminal has a name");
        let slave = open(name.as_str(), flags, Mode::empty()).expect("the terminal can be opened");
        Self { master: master.into(), slave }
    }
}

/// A pseudo-terminal that records everything shown on it. [`Screen::attach`] makes it the controlling terminal of a
/// command.
pub struct Screen {
    /// The master of the pseudo-terminal, to which the test writes keys.
    pub keyboard: File,
    contents: Arc<Mutex<Vec<u8>>>,
    /// The slave of the pseudo-terminal, which programs use as their terminal.
    pub terminal: OwnedFd,
}

impl Screen {
    /// Opens a new terminal.
    #[expect(clippy::new_without_default, reason = "a default value must not open a terminal")]
    pub fn new() -> Self {
        let pty = Pty::open();
        let keyboard = File::from(pty.master);
        let contents = Arc::new(Mutex::new(Vec::new()));
        let (mut reader, thread_contents) =
            (keyboard.try_clone().expect("a descriptor can be duplicated"), Arc::clone(&contents));
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = reader.read(&mut buffer) {
                thread_contents.lock().expect("no thread panics while it holds this lock").extend(&buffer[..length]);
            }
        });
        Self { keyboard, contents, terminal: pty.slave }
    }

    /// Makes the terminal the controlling terminal and the standard streams of a command.
    pub fn attach(&self, command: &mut Command) {
        let stream = || Stdio::from(self.terminal.try_clone().expect("a descriptor can be duplicated"));
        command.stdin(stream()).stdout(stream()).stderr(stream());
        // SAFETY: only system calls are made between fork and exec.
        unsafe {
            command.pre_exec(|| {
                setsid()?;
                match libc::ioctl(0, libc::TIOCSCTTY, 0) {
                    0 => Ok(()),
                    _ => Err(io::Error::last_os_error()),
                }
            });
        }
    }

    /// Sends keys to the terminal, as if a user typed them.
    pub fn type_keys(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).expect("the keys can be sent");
    }

    /// Waits until the screen has shown `text`.
    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        eventually(&format!("the screen shows {text:?}"), || self.text().contains(text));
    }

    /// Returns all text that the screen has shown so far, including the echo of typed keys.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.contents.lock().expect("no thread panics while it holds this lock")).into_owned()
    }
}
