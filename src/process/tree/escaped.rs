//! Processes of the command that left the tree before they were seen in it, and when they are searched for.
//!
//! In a PID namespace that another program has created (`nsenter`, `runc exec`), orphans become children of the init
//! process of that namespace. Such processes are recognized by the run ID in their environment. Reading the environment
//! can block while the kernel waits for a page of that process, so a child process [searches](Search). The child is part
//! of the tree until it ends.

use std::time::Duration;

use leaderrun_core::instant::Instant;
use nix::unistd::Pid;

use super::not_nested::NotNested;
use super::proc::Proc;
use super::search::Search;
use crate::process::clock;

/// The shortest time between the starts of two searches during a kill.
const SEARCH_INTERVAL: Duration = Duration::from_secs(1);

/// How long the last search is tried again if it cannot be started or its child is killed.
const RETRY_TIMEOUT: Duration = Duration::from_secs(30);

/// The escaped processes of a run.
#[derive(Debug)]
pub struct Escaped {
    run: String,
    search: Option<Search>,
    /// When the next search during a kill may start.
    next_search: Instant,
    /// Whether a search was started, or was not necessary, when the tree seemed empty.
    was_searched_at_end: bool,
    /// Since when the last search could not be started, or was interrupted.
    fails_since: Option<Instant>,
}

impl Escaped {
    /// Creates the escaped processes of the run with this ID, for which no search has been started.
    pub fn new(run: &str) -> Self {
        let run = run.to_owned();
        Self { run, search: None, next_search: clock::now(), was_searched_at_end: false, fails_since: None }
    }

    /// Returns whether no escaped process is left. Starts a search if that is not known. The tree must seem empty, so
    /// that the child of an earlier search is dead.
    pub fn none_left(&mut self, proc: &Proc, not_nested: &NotNested) -> bool {
        if self.end_search() {
            self.was_searched_at_end = self.is_overdue();
        }
        if !self.was_searched_at_end {
            self.was_searched_at_end = match Search::start(proc, not_nested, &self.run) {
                Ok(search) => {
                    self.search = search;
                    true
                }
                Err(_) => self.is_overdue(),
            };
        }
        self.was_searched_at_end && self.search.is_none()
    }

    /// Starts a search beside a kill, at most once a second. Otherwise one process that does not end would keep escaped
    /// processes alive.
    pub fn search_in_kill(&mut self, proc: &Proc, not_nested: &NotNested) {
        let now = clock::now();
        if self.child().is_none() && now >= self.next_search {
            self.next_search = now + SEARCH_INTERVAL;
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
        // A search that was given up would only be blocked again.
        self.was_searched_at_end |= search.is_given_up();
        search.was_interrupted()
    }

    /// Returns whether the last search has failed for [`RETRY_TIMEOUT`].
    fn is_overdue(&mut self) -> bool {
        let now = clock::now();
        now >= *self.fails_since.get_or_insert(now) + RETRY_TIMEOUT
    }
}
