//! Searches for processes of the command that left the tree before they were seen in it.
//!
//! In a PID namespace that another program has created (`nsenter`, `runc exec`), orphans become children of the init
//! process of that namespace. Such processes are recognized by the run ID in their environment. Reading the environment
//! can block while the kernel waits for a page of that process, so a child process [searches](Search). The child is
//! part of the tree until it ends.

use std::time::Duration;

use leaderrun_core::instant::Instant;
use nix::unistd::Pid;

use super::not_nested::NotNested;
use super::proc::Proc;
use super::search::{self, Search};
use crate::process::clock;

/// The shortest time between the starts of two searches during a kill.
const SEARCH_INTERVAL: Duration = Duration::from_secs(1);

/// The pause before another search if one could not be started, or if its child was killed.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// How long the final search is retried if it cannot be started or its child is killed.
const RETRY_TIMEOUT: Duration = Duration::from_secs(30);

/// The search for the escaped processes of a run. The final search takes place when the tree seems empty.
#[derive(Debug)]
pub struct Escaped {
    run: String,
    search: Option<Search>,
    /// When the next search during a kill may start.
    next_search_in_kill: Instant,
    /// When the final search may start, or may be retried.
    next_final_search: Instant,
    /// Whether the final search was started, was unnecessary, or was given up.
    final_search_was_handled: bool,
    /// When a search first failed since a search last made progress. A search fails if it is interrupted, and the final
    /// search also if it cannot be started.
    failing_since: Option<Instant>,
}

impl Escaped {
    /// Creates the value for the run with this ID, without starting a search.
    pub fn new(run: &str) -> Self {
        let now = clock::now();
        Self {
            run: run.to_owned(),
            search: None,
            next_search_in_kill: now,
            next_final_search: now,
            final_search_was_handled: false,
            failing_since: None,
        }
    }

    /// Makes sure that no escaped process is left, by the final search if necessary. Returns true if that is certain,
    /// or if the search was given up. The tree must seem empty, so that the child of an earlier search is dead.
    pub fn confirm_none_left(&mut self, proc: &Proc, not_nested: &NotNested) -> bool {
        let now = clock::now();
        if self.end_search() {
            self.next_final_search = now + RETRY_PAUSE;
            self.final_search_was_handled = self.note_failure(now);
        }
        if !self.final_search_was_handled && now >= self.next_final_search {
            self.next_final_search = now + RETRY_PAUSE;
            match Search::start(proc, not_nested, &self.run) {
                Ok(search) => (self.search, self.final_search_was_handled) = (search, true),
                Err(_) => {
                    // The escaped processes may use up the limit of processes, so that no child can be forked.
                    search::kill_once(proc, &self.run);
                    self.final_search_was_handled = self.note_failure(now);
                }
            }
        }
        self.final_search_was_handled && self.search.is_none()
    }

    /// Starts a search during a kill, at most once a second. If all searches waited until the tree seemed empty, one
    /// process that does not end would keep escaped processes alive.
    pub fn search_in_kill(&mut self, proc: &Proc, not_nested: &NotNested) {
        let now = clock::now();
        if self.child().is_none() && now >= self.next_search_in_kill {
            self.next_search_in_kill = now + SEARCH_INTERVAL;
            self.end_search();
            self.search = Search::start(proc, not_nested, &self.run).ok().flatten();
        }
    }

    /// Returns the child of a search that is under way. Gives the search up if it is blocked.
    pub fn child(&mut self) -> Option<Pid> {
        self.search.as_mut().and_then(Search::check)
    }

    /// Returns the number of an escaped process that was killed and has not ended.
    pub fn dying(&self) -> Option<i32> {
        self.search.as_ref().and_then(Search::dying)
    }

    /// Prepares for the next command.
    pub fn reset(&mut self) {
        *self = Self::new(&self.run);
    }

    /// Ends a search whose child is dead. Returns whether the search was interrupted.
    fn end_search(&mut self) -> bool {
        let Some(mut search) = self.search.take() else { return false };
        let was_interrupted = search.was_interrupted();
        if search.has_progressed() {
            self.failing_since = None;
        }
        was_interrupted
    }

    /// Records that a search has failed. Returns whether searches have kept failing for [`RETRY_TIMEOUT`], so that the
    /// final search is given up.
    fn note_failure(&mut self, now: Instant) -> bool {
        now >= *self.failing_since.get_or_insert(now) + RETRY_TIMEOUT
    }
}
