//! One leaderrun in the arena.

use std::os::unix::process::CommandExt;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::plan::Own;
use crate::processes;
use testkit::{Candidate, Running, TestLock, Witnesses};

/// Short, with more than a second between kill and takeover: machines that run tests are busy.
const TIMES: [&str; 6] = ["--lease-duration", "4s", "--renew-deadline", "2s", "--retry-period", "400ms"];
const GRACE: &str = "500ms";
pub const LEASE: Duration = Duration::from_secs(4);

/// A leaderrun, known by an identity that no other one has.
pub struct Entrant {
    pub identity: String,
    /// Which of its two processes has been struck.
    pub struck: Option<Own>,
    /// How it was started, for the story.
    pub words: String,
    pub running: Running,
    supervisor: Pid,
    ended: Option<Instant>,
}

impl Entrant {
    pub fn start(identity: String, lock: &TestLock, witnesses: &Witnesses, words: &[String], options: &[&str]) -> Self {
        let story = [words.join(" "), options.join(" ")].join(" ");
        let known_as = format!("as={identity}");
        let words: Vec<&str> = words.iter().map(String::as_str).chain([known_as.as_str()]).collect();
        let mut candidate = Candidate::with_timing(&identity, lock, TIMES).args(options);
        if !options.contains(&"--lost-grace") {
            candidate = candidate.args(["--lost-grace", GRACE]);
        }
        let dies_with_the_test = || nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(Into::into);
        let candidate = candidate.configure(|command| {
            // SAFETY: prctl is async-signal-safe.
            unsafe { command.pre_exec(dies_with_the_test) };
        });
        let running = candidate.run_witness(witnesses, &words);
        // The elector's first child, long before there can be another.
        let supervisor = running.supervisor();
        Self { identity, struck: None, words: story, running, supervisor, ended: None }
    }

    /// Sends a signal to one of its two processes. False when that one is dead.
    pub fn send(&mut self, own: Own, signal: Signal) -> bool {
        let process = match own {
            Own::Elector => self.running.is_running().then(|| self.running.elector()),
            Own::Supervisor => self.living_supervisor(),
        };
        process.is_some_and(|process| kill(process, signal).is_ok())
    }

    /// Sends any signal to the elector.
    pub fn relay(&mut self, signal: i32) -> bool {
        // SAFETY: kill takes two integers; the elector has not been reaped. Not nix's, which knows no
        // real-time signals.
        self.running.is_running() && unsafe { libc::kill(self.running.elector().as_raw(), signal) } == 0
    }

    /// The supervisor while its pid is its own: the elector has not reaped it.
    fn living_supervisor(&mut self) -> Option<Pid> {
        let elector = self.running.elector();
        let is_its_child = processes::parent(self.supervisor.as_raw()) == Some(elector.as_raw());
        (is_its_child && self.running.is_running()).then_some(self.supervisor)
    }

    pub fn has_elector(&mut self) -> bool {
        self.running.is_running()
    }

    /// Whether it said that `holder` holds the lease.
    pub fn knows(&self, holder: &str) -> bool {
        self.running.log().contains(&format!("is held by {holder},"))
    }

    /// Whether nothing is left of it, and how long ago leaderrun itself ended.
    pub fn has_ended(&mut self) -> (bool, Duration) {
        if self.running.is_running() {
            return (false, Duration::ZERO);
        }
        self.running.pause_reading(false);
        let ended = *self.ended.get_or_insert_with(Instant::now);
        (self.running.has_ended(), ended.elapsed())
    }
}
