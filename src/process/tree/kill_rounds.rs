//! Repeats [`Tree::kill`] until no process is left.

use std::mem;
use std::time::Duration;

use leaderrun_core::instant::Instant;
use leaderrun_core::kill_time::KillPace;

use super::{KillFailure, Tree};

/// The shortest pause between two rounds while no process ends. Each such pause is twice as long as the previous one.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);

const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// With more children than this, the deaths of children are handled together, [`MANY_PAUSE`] after each round.
/// Otherwise this process would interrupt them a thousand times while they end, if it has real-time priority.
const MANY_CHILDREN: usize = 16;

const MANY_PAUSE: Duration = Duration::from_millis(1);

/// How long rounds go without a scan as long as processes keep ending. The children of an ended process become children
/// of this process, so this is how most kills end, and a scan would only slow them down.
const SCAN_DELAY: Duration = Duration::from_millis(20);

/// How long a kill lasts before escaped processes are searched for beside it. Another candidate may start its command a
/// second after the kill begins.
const SEARCH_DELAY: Duration = Duration::from_millis(500);

/// If no process has ended for this long, one of those that are left is reported as stuck. The time is long enough for
/// a busy machine.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// How long leaderrun waits for children that are all dead but cannot be reaped. Other dead children are reaped within
/// milliseconds.
const UNREAPED_TIMEOUT: Duration = Duration::from_secs(1);

/// A kill that is under way, and when its next round is due.
#[derive(Debug)]
pub struct KillRounds {
    /// The pace that limits how many threads are killed at once, and its end.
    pace: Option<(KillPace, Instant)>,
    began_at: Instant,
    has_many_children: bool,
    next_round: Instant,
    pause: Duration,
    /// When the last process ended, or when the kill began if none has.
    progress_at: Instant,
    /// Since when all children have been dead without being reaped.
    all_dead_since: Option<Instant>,
    /// Whether a failure was returned. Later failures are not returned.
    has_failed: bool,
}

impl KillRounds {
    /// Begins a kill, which keeps to the pace, if there is one, until its end. The first round is due immediately.
    pub fn begin(now: Instant, pace: Option<(KillPace, Instant)>) -> Self {
        Self {
            pace,
            began_at: now,
            has_many_children: false,
            next_round: now,
            pause: SHORTEST_PAUSE,
            progress_at: now,
            all_dead_since: None,
            has_failed: false,
        }
    }

    /// Returns when to call [`run_round`](Self::run_round) again.
    pub fn next_round(&self) -> Instant {
        self.next_round
    }

    /// Makes the next round due, because children have ended and their own children have become children of this
    /// process.
    pub fn handle_ended(&mut self, now: Instant) {
        let pause = if self.has_many_children { MANY_PAUSE } else { Duration::ZERO };
        self.next_round = self.next_round.min(now + pause);
        (self.pause, self.progress_at) = (SHORTEST_PAUSE, now);
    }

    /// Returns whether so many children are ending that their deaths are handled together, at the next round.
    pub fn handles_deaths_together(&self) -> bool {
        self.has_many_children && self.pause <= SHORTEST_PAUSE * 2
    }

    /// Returns whether only dead children have been left for [`UNREAPED_TIMEOUT`], which means that they cannot be
    /// reaped. A debugger that is attached to a process and does not wait for it keeps the dead process from its
    /// parent. Such a process no longer runs, so leaderrun does not keep the lock until it is reaped.
    pub fn only_unreapable_left(&mut self, tree: &Tree, now: Instant) -> bool {
        if !tree.has_only_dead_children() {
            self.all_dead_since = None;
            return false;
        }
        now >= *self.all_dead_since.get_or_insert(now) + UNREAPED_TIMEOUT
    }

    /// Kills every child and, if the kill has a pace, has already lasted for [`SCAN_DELAY`], or nothing ends, every
    /// descendant that one scan finds, as far as the pace allows. If the kill has lasted for [`SEARCH_DELAY`], also
    /// searches for escaped processes.
    ///
    /// # Errors
    /// Returns why a process could not be killed. Only the first failure is returned.
    pub fn run_round(&mut self, tree: &mut Tree, now: Instant) -> Result<(), KillFailure> {
        if self.pace.take_if(|(_, end)| now >= *end).is_some() {
            tree.kill_groups();
        }
        let scans = self.pace.is_some() || self.pause > SHORTEST_PAUSE || now >= self.began_at + SCAN_DELAY;
        self.next_round = now + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        let mut result = tree.kill(self.pace.map(|(pace, _)| pace.max_killed_threads), scans);
        self.has_many_children = tree.listed_children() > MANY_CHILDREN;
        if now >= self.began_at + SEARCH_DELAY {
            tree.search_in_kill();
        }
        if result.is_ok() && !self.has_failed && now >= self.progress_at + STUCK_AFTER {
            result = tree.check_killed_are_gone();
        }
        if result.is_err() && mem::replace(&mut self.has_failed, true) {
            return Ok(());
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};
    use std::thread;

    use nix::sys::signal::killpg;
    use nix::unistd::Pid;
    use testkit::eventually;

    use super::super::proc::Proc;
    use super::super::search::tests::NestedProcess;
    use super::*;
    use crate::process::clock;

    #[test]
    fn at_the_end_of_a_gradual_kill_every_process_group_is_killed() {
        let mut tree = Tree::open("1").unwrap();
        let spawn = || {
            let mut command = Command::new("sh");
            command.args(["-c", "sleep 1000 & wait"]).process_group(0).stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().unwrap()
        };
        let mut children = [spawn(), spawn()];
        let leaders = children.each_ref().map(|child| Pid::from_raw(child.id().try_into().unwrap()));
        let is_dead = |leader: Pid| Proc::open().unwrap().stat(leader.as_raw()).unwrap().is_dead();
        let now = clock::now();
        let end = now + Duration::from_secs(1);
        let pace = KillPace { max_killed_threads: 1, duration: Duration::MAX };
        let mut kill = KillRounds::begin(now, Some((pace, end)));
        kill.run_round(&mut tree, now).unwrap();
        eventually("the first child is dead", || is_dead(leaders[0]));
        assert!(!is_dead(leaders[1]), "only one thread may be killed at a time");
        kill.run_round(&mut tree, end).unwrap();
        for (child, leader) in children.iter_mut().zip(leaders) {
            child.wait().unwrap();
            eventually("no process of the group is left", || killpg(leader, None).is_err());
        }
    }

    #[test]
    fn a_long_kill_searches_for_escaped_processes() {
        // The children of other threads are not part of the tree.
        let start = || NestedProcess::start(&Proc::open().unwrap(), "this run");
        let Some(escaped) = thread::spawn(start).join().unwrap() else { return };
        let (proc, mut tree) = (Proc::open().unwrap(), Tree::open("this run").unwrap());
        let now = clock::now();
        let mut kill = KillRounds::begin(now, None);
        kill.run_round(&mut tree, now).unwrap();
        assert!(!tree.is_searching());
        kill.run_round(&mut tree, now + SEARCH_DELAY).unwrap();
        eventually("the escaped process is dead", || escaped.is_dead(&proc));
    }
}
