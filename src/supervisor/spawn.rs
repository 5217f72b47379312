//! The start of the command by fork and exec. The supervisor does both itself, so that an exec that hangs or fails is
//! an event of its main loop and never blocks it.

use std::env;
use std::ffi::{CString, NulError, OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use leaderrun_core::tenure::Tenure;
use nix::fcntl::OFlag;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{ForkResult, Pid, fork, getpid, getppid, pipe2, read, setpgid, write};

use super::exec::{self, ExecFailure, MAX_MESSAGE};
use crate::process::clock;
use crate::process::environment;
use crate::process::inherited_fd;
use crate::process::signals::Inherited;
use crate::process::switch::DeadMansSwitch;
use crate::process::system_call::SystemCallError;
use crate::process::terminal::Terminal;

/// The message in the exec pipe of a child that found, at the last moment, that no time was left. An encoded failure is
/// longer.
const TOO_LATE: [u8; 1] = [0];

/// The variables in which systemd names the process that it passes sockets to, and the one that it watches.
const PROCESS_VARIABLES: [&str; 2] = ["LISTEN_PID", "WATCHDOG_PID"];

/// The variable in which newer versions of systemd identify the process that they pass sockets to.
const LISTEN_PIDFD_VARIABLE: &str = "LISTEN_PIDFDID";

/// The arguments and environment of the command.
#[derive(Debug)]
pub struct Program {
    arguments: Vec<CString>,
    environment: Vec<CString>,
    /// The variables that must name the command's process.
    names_process: Vec<&'static str>,
}

impl Program {
    /// Creates the program from the command line, still without an environment.
    ///
    /// # Errors
    /// Fails if an argument contains a NUL.
    pub fn new(command: &[OsString]) -> Result<Self, NulError> {
        let arguments = command.iter().map(|argument| CString::new(argument.as_bytes())).collect::<Result<_, _>>()?;
        Ok(Self { arguments, environment: Vec::new(), names_process: Vec::new() })
    }

    /// Gives the command this process's environment without the variables in `removed`, and with `added`. A variable of
    /// systemd's that names leaderrun, which is process `elector`, will name the command.
    pub fn set_environment(&mut self, removed: &[String], added: &[(String, String)], elector: Pid) {
        let elector = elector.to_string();
        let names_elector = |name: &&'static str| env::var(name).is_ok_and(|value| value == elector);
        self.names_process = PROCESS_VARIABLES.into_iter().filter(names_elector).collect();
        let is_removed = |name: &OsStr| {
            removed.iter().any(|other| name == other.as_str())
                || self.names_process.iter().any(|other| name == *other)
                || name == LISTEN_PIDFD_VARIABLE
        };
        self.environment = environment::with(is_removed, added);
    }

    /// Returns the environment of a command that is this process.
    fn environment_of(&self, command: Pid) -> Vec<CString> {
        let naming = self.names_process.iter().filter_map(|name| CString::new(format!("{name}={command}")).ok());
        self.environment.iter().cloned().chain(naming).collect()
    }
}

/// A child that has been forked, and the pipe that says whether it could execute the command.
#[derive(Debug)]
pub struct Spawned {
    pub pid: Pid,
    exec: OwnedFd,
}

/// The state of an exec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exec {
    Executed,
    Failed(ExecFailure),
    /// The child found that no time was left, and ended without executing anything.
    TooLate,
    /// The child has not executed the command yet.
    Pending,
}

impl Spawned {
    /// Returns the state of the exec. It changes when the descriptor becomes readable.
    pub fn exec(&self) -> Exec {
        let mut message = [0; MAX_MESSAGE];
        match read(&self.exec, &mut message) {
            Ok(0) => Exec::Executed,
            Ok(length) => ExecFailure::decode(&message[..length]).map_or(Exec::TooLate, Exec::Failed),
            Err(_) => Exec::Pending,
        }
    }
}

impl AsFd for Spawned {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.exec.as_fd()
    }
}

/// Everything that a command is started with.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    pub program: &'a Program,
    pub tenure: Tenure,
    /// The signal state that leaderrun was started with, which the command gets.
    pub signals: &'a Inherited,
    /// The terminal of which the command's process group becomes the foreground group.
    pub terminal: Option<&'a Terminal>,
    /// The descriptor that `leaderrun check` reads.
    pub deadline: Option<BorrowedFd<'a>>,
    pub switch: Option<&'a DeadMansSwitch>,
}

impl Start<'_> {
    /// Forks, and executes the program in a process group of its own, unless the tenure is over by then. The child is
    /// killed when the supervisor dies.
    ///
    /// # Errors
    /// Fails if the kernel refuses a pipe or a process.
    pub fn spawn(self) -> Result<Spawned, SystemCallError> {
        let (exec, failure) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).map_err(SystemCallError::of("pipe2"))?;
        let supervisor = getpid();
        // SAFETY: this process has one thread, so the child may do whatever this one may.
        match unsafe { fork() }.map_err(SystemCallError::of("clone"))? {
            ForkResult::Parent { child } => {
                // Both sides of the fork do this, so that the group exists before a signal goes to it.
                let _ = setpgid(child, child);
                if let Some(terminal) = self.terminal {
                    terminal.give_to(child);
                }
                Ok(Spawned { pid: child, exec })
            }
            ForkResult::Child => {
                let message = self.execute(supervisor).map_or(TOO_LATE.to_vec(), |failure| failure.encode());
                let _ = write(&failure, &message);
                // SAFETY: ends this process without running what belongs to the supervisor.
                unsafe { libc::_exit(127) }
            }
        }
    }

    /// Executes the program in the child. Returns only if that failed, with the reason, or if it was too late, without
    /// one.
    fn execute(self, supervisor: Pid) -> Option<ExecFailure> {
        if let Err(errno) = self.prepare() {
            return Some(errno.into());
        }
        let environment = self.program.environment_of(getpid());
        // The supervisor may have died before its death could have killed this child.
        if getppid() != supervisor || clock::now() >= self.tenure.stop {
            return None;
        }
        Some(exec::execute(&self.program.arguments, &environment))
    }

    /// Prepares in the child what the command inherits and what kills it.
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
