//! One candidate of a torture run.

use std::os::unix::process::CommandExt;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testkit::{Candidate, Running, TestLock, Witnesses};

use crate::plan::LeaderrunProcess;
use crate::processes;
use crate::rules;

/// Short durations. They leave more than a second between a kill and a takeover, because the test keeps the machine
/// busy.
const TIMING: [&str; 6] = ["--lease-duration", "4s", "--renew-deadline", "2s", "--retry-period", "400ms"];
const LOST_GRACE: &str = "500ms";
pub const LEASE_DURATION: Duration = Duration::from_secs(4);

/// The processes of a candidate into which faults were injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultyProcesses {
    One(LeaderrunProcess),
    /// Both processes. They are killed, in some cases after a freeze.
    Both,
}

/// The state of a candidate: running, ended with a process left, or ended completely.
pub enum CandidateState {
    Running,
    /// leaderrun ended this long ago, but a process still holds its pipes open.
    PipesOpen(Duration),
    /// leaderrun has ended, and its pipes are closed.
    Ended,
}

/// A candidate with a unique identity.
pub struct TorturedCandidate {
    pub identity: String,
    /// The processes into which faults have been injected, if any.
    pub faulty: Option<FaultyProcesses>,
    /// `true` if both processes may be killed at the same time.
    pub may_kill_both: bool,
    /// The arguments of the command, and the options of leaderrun, for the trace.
    pub description: String,
    pub running: Running,
    supervisor: Pid,
    ended_at: Option<Instant>,
}

impl TorturedCandidate {
    pub fn start(
        identity: String,
        lock: &TestLock,
        witnesses: &Witnesses,
        arguments: &[String],
        options: &[&str],
    ) -> Self {
        let description = [arguments.join(" "), options.join(" ")].join(" ");
        let may_kill_both = rules::may_kill_both(arguments);
        // The witness ignores this argument, but `processes` reads it to find out whose command a process belongs to.
        let identity_argument = format!("as={identity}");
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain([identity_argument.as_str()]).collect();
        let mut candidate = Candidate::with_timing(&identity, lock, TIMING).args(options);
        if !options.contains(&"--lost-grace") {
            candidate = candidate.args(["--lost-grace", LOST_GRACE]);
        }
        let die_with_the_test = || nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(Into::into);
        let candidate = candidate.configure(|command| {
            // SAFETY: prctl is async-signal-safe.
            unsafe { command.pre_exec(die_with_the_test) };
        });
        let running = candidate.run_witness(witnesses, &arguments);
        // The supervisor is the elector's only child at this time.
        let supervisor = running.supervisor();
        Self { identity, faulty: None, may_kill_both, description, running, supervisor, ended_at: None }
    }

    /// Sends a signal to one of leaderrun's two processes. Returns `false` if that process is dead.
    pub fn send(&mut self, process: LeaderrunProcess, signal: Signal) -> bool {
        let pid = match process {
            LeaderrunProcess::Elector => self.running.is_running().then(|| self.running.elector()),
            LeaderrunProcess::Supervisor => self.unreaped_supervisor(),
        };
        pid.is_some_and(|pid| kill(pid, signal).is_ok())
    }

    /// Sends a signal to both processes of leaderrun. Returns `false` if one of them is dead.
    pub fn send_to_both(&mut self, signal: Signal) -> bool {
        let (elector, supervisor) = (self.running.elector(), self.unreaped_supervisor());
        supervisor.is_some_and(|supervisor| kill(elector, signal).and(kill(supervisor, signal)).is_ok())
    }

    /// Sends any signal, even a real-time one, to the elector. Returns `false` if the elector is dead.
    pub fn send_to_elector(&mut self, signal: i32) -> bool {
        // nix does not support real-time signals.
        // SAFETY: kill takes two integers; the elector has not been reaped.
        self.running.is_running() && unsafe { libc::kill(self.running.elector().as_raw(), signal) } == 0
    }

    /// Returns the supervisor if the elector has not reaped it, so its pid cannot belong to another process.
    fn unreaped_supervisor(&mut self) -> Option<Pid> {
        let elector = self.running.elector();
        let is_electors_child = processes::parent(self.supervisor.as_raw()) == Some(elector.as_raw());
        (is_electors_child && self.running.is_running()).then_some(self.supervisor)
    }

    pub fn elector_is_running(&mut self) -> bool {
        self.running.is_running()
    }

    /// Returns whether this candidate has logged that `holder` holds the lock.
    pub fn has_observed(&self, holder: &str) -> bool {
        let log = self.running.log();
        // The punctuation keeps `a-1` from matching `a-10`.
        [",", ";"].iter().any(|end| log.contains(&format!("held by {holder}{end}")))
    }

    /// Returns whether the command was started. From then on this candidate does not claim another slot.
    pub fn has_led(&self) -> bool {
        self.running.log().contains(", as leader of ")
    }

    /// Returns the state of this candidate. Once leaderrun has ended, resumes reading its pipes, because their end is
    /// only noticed while they are read.
    pub fn poll_state(&mut self) -> CandidateState {
        if self.running.is_running() {
            return CandidateState::Running;
        }
        self.running.set_reading_paused(false);
        let ended_at = *self.ended_at.get_or_insert_with(Instant::now);
        if self.running.has_ended() { CandidateState::Ended } else { CandidateState::PipesOpen(ended_at.elapsed()) }
    }
}
