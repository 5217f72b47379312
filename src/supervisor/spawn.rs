//! Starts the command by fork and exec. The supervisor does not use `std::process::Command`, which waits until the exec
//! has succeeded or failed: an exec that hangs must not block the main loop.

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
use crate::process::dead_mans_switch::DeadMansSwitch;
use crate::process::environment;
use crate::process::inherited_fd;
use crate::process::signals::InheritedSignals;
use crate::process::system_call::SystemCallError;
use crate::process::terminal::Terminal;

/// The message that a child writes to the exec pipe if, just before exec, no time was left or the supervisor was dead.
/// It is shorter than an encoded failure, so it cannot be confused with one.
const TOO_LATE: [u8; 1] = [0];

/// The systemd variables that contain a pid: that of the process to which sockets are passed, and that of the process
/// that must send watchdog messages.
const PID_VARIABLES: [&str; 2] = ["LISTEN_PID", "WATCHDOG_PID"];

/// The variable in which newer versions of systemd also identify the process to which sockets are passed, by the ID of
/// its pidfd.
const LISTEN_PIDFD_VARIABLE: &str = "LISTEN_PIDFDID";

/// The arguments and environment of the command.
#[derive(Debug)]
pub struct Program {
    arguments: Vec<CString>,
    environment: Vec<CString>,
    /// Those of [`PID_VARIABLES`] that must contain the pid of the command.
    pid_variables: Vec<&'static str>,
}

impl Program {
    /// Creates the program from a command line, without an environment.
    ///
    /// # Errors
    /// Fails if an argument contains a NUL.
    pub fn new(command: &[OsString]) -> Result<Self, NulError> {
        let arguments = command.iter().map(|argument| CString::new(argument.as_bytes())).collect::<Result<_, _>>()?;
        Ok(Self { arguments, environment: Vec::new(), pid_variables: Vec::new() })
    }

    /// Sets the environment of the command: that of this process, without the variables in `removed` and with those in
    /// `added`. A systemd variable that contains the elector's pid is set to the command's pid instead.
    /// `LISTEN_PIDFDID` is removed.
    pub fn set_environment(&mut self, removed: &[String], added: &[(String, String)], elector: Pid) {
        let elector = elector.to_string();
        let names_elector = |name: &&'static str| env::var(name).is_ok_and(|value| value == elector);
        self.pid_variables = PID_VARIABLES.into_iter().filter(names_elector).collect();
        let is_removed = |name: &OsStr| {
            removed.iter().any(|other| name == other.as_str())
                || self.pid_variables.iter().any(|other| name == *other)
                || name == LISTEN_PIDFD_VARIABLE
        };
        self.environment = environment::modified(is_removed, added);
    }

    /// Returns the environment of a command with this pid.
    fn environment_of(&self, command: Pid) -> Vec<CString> {
        let with_pid = self.pid_variables.iter().filter_map(|name| CString::new(format!("{name}={command}")).ok());
        self.environment.iter().cloned().chain(with_pid).collect()
    }
}

/// A forked child, and the pipe on which it reports whether it could execute the command.
#[derive(Debug)]
pub struct Spawned {
    pub pid: Pid,
    /// The read end of the pipe. An exec closes the write end, and so does the death of the child.
    exec_pipe: OwnedFd,
}

/// The state of an exec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecState {
    /// The child has executed the command, or was killed before that.
    Executed,
    Failed(ExecFailure),
    /// No time was left, or the supervisor was dead, so the child ended without executing the command.
    TooLate,
    /// The child has not executed the command yet.
    Pending,
}

impl Spawned {
    /// Returns the state of the exec. It can change only when [`as_fd`](AsFd::as_fd) becomes readable.
    pub fn exec_state(&self) -> ExecState {
        let mut message = [0; MAX_MESSAGE];
        match read(&self.exec_pipe, &mut message) {
            Ok(0) => ExecState::Executed,
            Ok(length) => ExecFailure::decode(&message[..length]).map_or(ExecState::TooLate, ExecState::Failed),
            Err(_) => ExecState::Pending,
        }
    }
}

impl AsFd for Spawned {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.exec_pipe.as_fd()
    }
}

/// The inputs for starting a command.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    pub program: &'a Program,
    pub tenure: Tenure,
    /// The signal state that leaderrun was started with. The command is started with the same state.
    pub signals: &'a InheritedSignals,
    /// The terminal to give to the command, by making the command's process group its foreground process group.
    pub terminal: Option<&'a Terminal>,
    /// The descriptor from which `leaderrun check` reads the deadline. The command inherits it.
    pub deadline_fd: Option<BorrowedFd<'a>>,
    pub switch: Option<&'a DeadMansSwitch>,
}

impl Start<'_> {
    /// Forks, and executes the program in a new process group, unless the tenure's stop time has passed by then.
    /// The kernel kills the child when the supervisor dies.
    ///
    /// # Errors
    /// Fails if the kernel refuses to create a pipe or a process.
    pub fn spawn(self) -> Result<Spawned, SystemCallError> {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).map_err(SystemCallError::of("pipe2"))?;
        let supervisor = getpid();
        // The error names clone, because glibc implements fork with that system call.
        // SAFETY: this process has only one thread, so the child may call any function.
        match unsafe { fork() }.map_err(SystemCallError::of("clone"))? {
            ForkResult::Parent { child } => {
                // Parent and child both do this, so that the process group exists before a signal is sent to it.
                let _ = setpgid(child, child);
                if let Some(terminal) = self.terminal {
                    terminal.give_to(child);
                }
                Ok(Spawned { pid: child, exec_pipe: reader })
            }
            ForkResult::Child => {
                let message = self.execute(supervisor).map_or(TOO_LATE.to_vec(), |failure| failure.encode());
                let _ = write(&writer, &message);
                // SAFETY: `_exit` has no preconditions. The supervisor's destructors and exit handlers must not run
                // here.
                unsafe { libc::_exit(127) }
            }
        }
    }

    /// Executes the program in the child. Returns the reason if that fails, or `None` if it was too late or the
    /// supervisor is dead.
    fn execute(self, supervisor: Pid) -> Option<ExecFailure> {
        if let Err(errno) = self.prepare() {
            return Some(errno.into());
        }
        let environment = self.program.environment_of(getpid());
        // If the supervisor died before the parent-death signal was set, nothing would kill this child.
        if getppid() != supervisor || clock::now() >= self.tenure.stop {
            return None;
        }
        Some(exec::execute(&self.program.arguments, &environment))
    }

    /// Runs in the child: sets up what the command inherits, and arranges for the command to be killed when leaderrun
    /// dies.
    fn prepare(&self) -> nix::Result<()> {
        let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
        if let Some(terminal) = self.terminal {
            terminal.give_to(getpid());
        }
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        self.switch.map_or(Ok(()), DeadMansSwitch::arm)?;
        self.deadline_fd.map_or(Ok(()), inherited_fd::pass_on)?;
        self.signals.restore()
    }
}
