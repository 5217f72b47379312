//! The configuration of a process that a test starts, usually a candidate.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use crate::harness::leaderrun;
use crate::{Running, TestLock, Witnesses};

/// Options for durations that are short, but leave enough time on a busy machine: the command gets the stop signal 4 s
/// after the last renewal, is killed after 5 s, and another candidate may take over after 6 s.
pub const TIMING: [&str; 6] = ["--lease-duration", "6s", "--renew-deadline", "4s", "--retry-period", "1s"];

/// A process that is configured but not started yet: a candidate, a subcommand of leaderrun, or another program.
pub struct Candidate {
    pub name: String,
    command: Command,
}

impl Candidate {
    /// Configures a candidate for a lock, with `name` as its identity and with short durations.
    pub fn new(name: &str, lock: &TestLock) -> Self {
        Self::with_timing(name, lock, TIMING)
    }

    /// Configures a candidate with these durations: three options, each followed by its value.
    pub fn with_timing(name: &str, lock: &TestLock, timing: [&str; 6]) -> Self {
        Self::of_build(leaderrun(), name, lock, timing)
    }

    /// Like [`Candidate::with_timing`], but runs another build of leaderrun, `program`.
    pub fn of_build(program: &str, name: &str, lock: &TestLock, timing: [&str; 6]) -> Self {
        Self::program(name, program).for_lock(lock).args(["--identity", name]).args(timing)
    }

    /// Configures the subcommand `name` with `--lock`.
    pub fn subcommand(name: &str, lock: &TestLock) -> Self {
        Self::subcommand_of_build(leaderrun(), name, lock)
    }

    /// Like [`Candidate::subcommand`], but runs another build of leaderrun, `program`.
    pub fn subcommand_of_build(program: &str, name: &str, lock: &TestLock) -> Self {
        Self::program(name, program).args([name]).for_lock(lock)
    }

    fn for_lock(self, lock: &TestLock) -> Self {
        let candidate = self.args(["--lock", &lock.name]);
        match &lock.kubeconfig {
            Some(kubeconfig) => candidate.args(["--kubeconfig".as_ref(), kubeconfig.as_os_str()]),
            None => candidate,
        }
    }

    /// Configures leaderrun without the options that [`Candidate::new`] and [`Candidate::subcommand`] add.
    pub fn without_default_options(name: &str) -> Self {
        Self::program(name, leaderrun())
    }

    /// Configures another program, for example one that starts leaderrun.
    pub fn program(name: &str, program: &str) -> Self {
        let mut command = Command::new(program);
        // Tests may inherit ignored signals from nohup or from a script that runs them in the background, and
        // descriptors from make or a pipeline. The process must inherit neither.
        // SAFETY: signal(2) and close_range(2) are async-signal-safe.
        unsafe {
            command.pre_exec(|| {
                libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as i32);
                for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGCHLD] {
                    libc::signal(signal, libc::SIG_DFL);
                }
                Ok(())
            });
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for (variable, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("LEADERRUN_")) {
            command.env_remove(variable);
        }
        command.env_remove("KUBECONFIG");
        Self { name: name.to_owned(), command }
    }

    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Changes the [`Command`] that starts the process.
    pub fn configure(mut self, change: impl FnOnce(&mut Command)) -> Self {
        change(&mut self.command);
        self
    }

    /// Starts the process with a witness as its command. `arguments` select the witness's behavior (see
    /// [`witness::run`](crate::witness::run)).
    pub fn run_witness(self, witnesses: &Witnesses, arguments: &[&str]) -> Running {
        self.run(witnesses.command(arguments))
    }

    /// Starts the process with a shell script as its command.
    pub fn run_script(self, script: &str) -> Running {
        self.run(["sh", "-c", script])
    }

    /// Starts the process with this command.
    pub fn run<S: AsRef<OsStr>>(mut self, command: impl IntoIterator<Item = S>) -> Running {
        self.command.arg("--").args(command);
        self.start()
    }

    /// Starts the process without a command.
    pub fn start(self) -> Running {
        Running::start(self.name, self.command)
    }
}

/// Returns an argument with these bytes, which need not be UTF-8.
pub fn os_string(bytes: &[u8]) -> OsString {
    OsString::from_vec(bytes.to_vec())
}
