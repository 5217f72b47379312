//! Starting the command: fork and exec by hand, so that an exec that hangs or fails is an event of the
//! supervisor's loop and never blocks it.

use std::ffi::{CString, NulError, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use leaderrun_core::tenure::Tenure;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{ForkResult, Pid, execvpe, fork, getpid, getppid, pipe2, read, setpgid, write};

use crate::process::clock;
use crate::process::environment;
use crate::process::inherited_fd;
use crate::process::signals::Inherited;
use crate::process::switch::DeadMansSwitch;
use crate::process::terminal::Terminal;

/// What the child writes into the exec pipe when it found, at the last moment, that no time was left.
const TOO_LATE: i32 = 0;

/// Everything that an exec needs, made before the fork: a forked child should not allocate.
#[derive(Debug)]
pub struct Program {
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

impl Program {
    /// A command with its arguments, as given.
    ///
    /// # Errors
    /// When there is a NUL in it, which no command line can carry.
    pub fn new(command: &[OsString]) -> Result<Self, NulError> {
        let arguments = command.iter().map(|argument| CString::new(argument.as_bytes())).collect::<Result<_, _>>()?;
        Ok(Self { arguments, environment: Vec::new() })
    }

    /// Why the program could not be executed. execvp(3) says "permission denied" when it could not look
    /// into one folder of PATH and found nothing in the others; a shell says "not found" then.
    pub fn failure(&self, errno: Errno) -> Errno {
        let name = OsStr::from_bytes(self.arguments[0].as_bytes());
        let path = std::env::var_os("PATH").unwrap_or_default();
        let is_there = |folder: PathBuf| folder.join(name).is_file();
        let is_path = name.as_bytes().contains(&b'/');
        match errno {
            Errno::EACCES if !is_path && !std::env::split_paths(&path).any(is_there) => Errno::ENOENT,
            errno => errno,
        }
    }

    /// This process's environment without the variables in `removed`, and with `added`.
    pub fn set_environment(&mut self, removed: &[String], added: &[(String, String)]) {
        self.environment = environment::with(|name| removed.iter().any(|other| name == other.as_str()), added);
    }
}

/// A child that has been forked; whether it could execute the command shows on the pipe.
#[derive(Debug)]
pub struct Spawned {
    pub pid: Pid,
    exec: OwnedFd,
}

/// What became of an exec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exec {
    Executed,
    Failed(Errno),
    /// The child found that no time was left, and ended without executing anything.
    TooLate,
    /// Still on its way.
    Pending,
}

impl Spawned {
    /// What became of the exec; to be asked when the descriptor is readable.
    pub fn exec(&self) -> Exec {
        let mut errno = [0; 4];
        match read(&self.exec, &mut errno) {
            Ok(4) => match i32::from_ne_bytes(errno) {
                TOO_LATE => Exec::TooLate,
                errno => Exec::Failed(Errno::from_raw(errno)),
            },
            Ok(_) => Exec::Executed,
            Err(_) => Exec::Pending,
        }
    }
}

impl AsFd for Spawned {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.exec.as_fd()
    }
}

/// What a command is started with.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    pub program: &'a Program,
    pub tenure: Tenure,
    /// The signal state that leaderrun was started with, and the command is.
    pub signals: &'a Inherited,
    /// The terminal of which the command's process group becomes the foreground group.
    pub terminal: Option<&'a Terminal>,
    /// The descriptor that `leaderrun check` reads.
    pub deadline: Option<BorrowedFd<'a>>,
    pub switch: Option<&'a DeadMansSwitch>,
}

impl Start<'_> {
    /// Forks, and executes the program in a process group of its own, unless the tenure is over by then.
    ///
    /// The child dies with the supervisor.
    ///
    /// # Errors
    /// When the kernel gives no pipe or no process.
    pub fn spawn(self) -> io::Result<Spawned> {
        let (exec, failure) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let supervisor = getpid();
        // SAFETY: this process has one thread, so the child may do whatever this one may.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => {
                // On both sides of the fork: whoever comes first, the group exists before a signal goes to it.
                let _ = setpgid(child, child);
                if let Some(terminal) = self.terminal {
                    terminal.give_to(child);
                }
                Ok(Spawned { pid: child, exec })
            }
            ForkResult::Child => {
                let errno = self.execute(supervisor);
                let _ = write(&failure, &errno.to_ne_bytes());
                // SAFETY: ends this process without running what belongs to the supervisor.
                unsafe { libc::_exit(127) }
            }
        }
    }

    /// In the child. Returns only when it did not execute the program: with the reason.
    fn execute(self, supervisor: Pid) -> i32 {
        if let Err(errno) = self.prepare() {
            return errno as i32;
        }
        // The supervisor may have died before its death could have killed this child.
        if getppid() != supervisor || clock::now() >= self.tenure.stop {
            return TOO_LATE;
        }
        let Program { arguments, environment } = self.program;
        let Some(name) = arguments.first() else { return Errno::ENOENT as i32 };
        match execvpe(name, arguments, environment) {
            Ok(never) => match never {},
            Err(errno) => errno as i32,
        }
    }

    /// In the child: what the command inherits, and what kills it.
    fn prepare(&self) -> nix::Result<()> {
        let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
        if let Some(terminal) = self.terminal {
            terminal.give_to(getpid());
        }
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        self.switch.map_or(Ok(()), DeadMansSwitch::arm)?;
        self.deadline.map_or(Ok(()), inherited_fd::pass_on)?;
        self.signals.restore()
    }
}
