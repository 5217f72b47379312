//! The command's processes, as the supervisor treats them: what it reaps, terminates and kills.

use std::time::Duration;

use leaderrun_core::instant::Instant;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::process::clock;
use crate::process::tree::{self, KillFailure, KillRounds, Reaped, Tree};

/// The least time between two looks for processes in PID namespaces below ours.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How many times longer than a look the time to the next one is: looking takes at most a 2000th of one CPU.
const LOOK_SHARE: u32 = 2000;

/// How often it is looked whether processes are dead that are not our children: no signal says so.
const NESTED_INTERVAL: Duration = Duration::from_millis(20);

/// Everything that the command has started.
#[derive(Debug)]
pub struct CommandTree {
    tree: Tree,
    kill: Option<KillRounds>,
    /// What the main process left running and has got SIGTERM, ascending; what is orphaned later gets it, too.
    terminated: Option<Vec<Pid>>,
    /// Only processes are left that are not our children.
    awaits_nested: bool,
    /// There may be more to reap than was reaped at once.
    is_partly_reaped: bool,
    next_look: Instant,
}

impl CommandTree {
    /// Creates the tree of a command that has not been started.
    pub fn new(tree: Tree) -> Self {
        Self {
            tree,
            kill: None,
            terminated: None,
            awaits_nested: false,
            is_partly_reaped: false,
            next_look: clock::now(),
        }
    }

    /// Reaps dead children. `has_command` says whether a command was started and is not reported gone.
    pub fn reap(&mut self, has_command: bool) -> Reaped {
        let mut reaped = tree::reap();
        self.is_partly_reaped = reaped.is_partial;
        if let Some(kill) = self.kill.as_mut().filter(|_| !reaped.ended.is_empty()) {
            kill.handle_ended(clock::now());
        }
        self.awaits_nested = has_command && reaped.none_left && !self.tree.is_empty();
        reaped.none_left &= !self.awaits_nested;
        if !reaped.none_left && self.terminated.is_some() {
            self.terminate_leftovers();
        }
        reaped
    }

    /// Returns whether there may be more to reap: no signal will say so.
    pub fn is_partly_reaped(&self) -> bool {
        self.is_partly_reaped
    }

    /// Returns when [`run_round`](Self::run_round) and [`reap`](Self::reap) are to be called if nothing happens until
    /// then.
    pub fn next_timeout(&self) -> Option<Instant> {
        let next_round = self.kill.as_ref().map(KillRounds::next_round);
        let nested = self.awaits_nested.then(|| clock::now() + NESTED_INTERVAL);
        next_round.into_iter().chain(nested).min()
    }

    /// Looks for processes in PID namespaces below ours, which may fall to others when what is above them dies.
    /// Something is due at `until`, and does not wait for the look to end.
    pub fn look(&mut self, until: Option<Instant>) {
        let began = clock::now();
        self.tree.remember_nested(until);
        let now = clock::now();
        self.next_look = now + LOOK_INTERVAL.max(now.since(began) * LOOK_SHARE);
    }

    /// Looks like [`look`](Self::look) if the last one is long enough ago.
    pub fn look_if_due(&mut self, until: Option<Instant>) {
        if clock::now() >= self.next_look {
            self.look(until);
        }
    }

    /// Sends a signal to the process group that the main process leads, which must not have been reaped.
    ///
    /// # Errors
    /// When we may not.
    pub fn signal_group(&self, main: Pid, signal: i32) -> nix::Result<()> {
        self.tree.signal_group(main, signal)
    }

    /// Returns the names of some of the children that live; none if there are none.
    pub fn names_of_living_children(&self) -> Option<String> {
        self.tree.names_of_living_children()
    }

    /// Sends a signal to everything that the main process left running.
    pub fn signal_children(&self, signal: i32) {
        for child in self.tree.children() {
            // SAFETY: takes two integers. Not nix's, which knows no real-time signals.
            unsafe { libc::kill(child.as_raw(), signal) };
        }
    }

    /// Sends SIGTERM to everything that the main process left running, and from now on to what is orphaned.
    pub fn begin_terminating(&mut self) {
        self.terminated = Some(Vec::new());
        self.terminate_leftovers();
    }

    fn terminate_leftovers(&mut self) {
        let Some(terminated) = &mut self.terminated else { return };
        for child in self.tree.children() {
            if let Err(place) = terminated.binary_search(&child) {
                terminated.insert(place, child);
                let _ = kill(child, Signal::SIGTERM);
                let _ = kill(child, Signal::SIGCONT);
            }
        }
        self.tree.terminate_nested();
    }

    /// Sends SIGKILL to everything, and begins to do so again and again. `main` is the main process if it was not
    /// reaped.
    ///
    /// # Errors
    /// Why something cannot be killed.
    pub fn begin_kill(&mut self, main: Option<Pid>) -> Result<(), KillFailure> {
        self.terminated = None;
        // At one stroke, while the unreaped main process keeps its group's number from being used again. Not where
        // processes below it would fall to others.
        if let Some(main) = main.filter(|_| !self.tree.has_nested()) {
            let _ = self.tree.signal_group(main, libc::SIGKILL);
        }
        let now = clock::now();
        self.kill.insert(KillRounds::begin(now)).run_round(&mut self.tree, now)
    }

    /// Kills again if it is time to.
    ///
    /// # Errors
    /// Why something cannot be killed, unless that was returned before.
    pub fn run_round(&mut self) -> Result<(), KillFailure> {
        let now = clock::now();
        let kill = self.kill.as_mut().filter(|kill| now >= kill.next_round());
        kill.map_or(Ok(()), |kill| kill.run_round(&mut self.tree, now))
    }

    /// Returns a sentence about why something cannot be killed.
    pub fn describe(&self, failure: KillFailure) -> String {
        self.tree.describe(failure)
    }

    /// Returns the names of some of the processes that the last round killed.
    pub fn names(&self) -> String {
        self.tree.names()
    }

    /// Handles that nothing is left.
    pub fn end(&mut self) {
        (self.kill, self.terminated, self.awaits_nested) = (None, None, false);
        self.tree.begin_again();
    }
}
