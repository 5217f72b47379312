//! Repeats [`Tree::kill`] until no process is left.

use std::mem;
use std::time::Duration;

use leaderrun_core::instant::Instant;
use leaderrun_core::kill_time::KillPace;

use super::{KillFailure, Tree};
use crate::process::clock;

/// The shortest pause between two rounds while no process ends. Each such pause is twice as long as the previous one,
/// up to [`LONGEST_PAUSE`].
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);

const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// With more children than this, the supervisor handles the deaths of several children together, in the next round.
/// Otherwise, if it has real-time priority, it would interrupt the dying children once for each death.
const MANY_CHILDREN: usize = 16;

/// With many children, the pause after a round is this many times as long as the round, but at least
/// [`SHORTEST_PAUSE_WITH_MANY`] and at most [`LONGEST_PAUSE_WITH_MANY`]. Otherwise this process, if it has real-time
/// priority, would keep one CPU busy with killing the same children again, which need the CPUs to end.
const PAUSE_FACTOR: u32 = 4;

const SHORTEST_PAUSE_WITH_MANY: Duration = Duration::from_millis(1);

const LONGEST_PAUSE_WITH_MANY: Duration = Duration::from_millis(10);

/// A kill without a pace scans when no process has ended for this long. The children of an ended process become
/// children of this process, so while processes end, the rounds usually reach all descendants, and a scan would slow
/// down the processes that are ending.
const SCAN_DELAY: Duration = Duration::from_millis(20);

/// A kill that has lasted for this long scans although processes are ending.
const LATEST_SCAN: Duration = Duration::from_millis(100);

/// How long a kill lasts before the search for escaped processes begins. Another candidate may start its command a
/// second after the kill begins, so the search must not wait until a long kill has ended.
const SEARCH_DELAY: Duration = Duration::from_millis(500);

/// If no process has ended for this long, one of those that are left is reported as stuck. Even on a busy machine, a
/// killed process normally ends sooner.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// If all children have been dead for this long and are still not reaped, they are considered unreapable. Other dead
/// children are reaped within milliseconds.
const UNREAPED_TIMEOUT: Duration = Duration::from_secs(1);

/// A kill that is under way, and when its next round is due.
#[derive(Debug)]
pub struct KillRounds {
    /// The pace that limits how many threads are killed at once, and when it ends.
    pace: Option<(KillPace, Instant)>,
    began_at: Instant,
    has_many_children: bool,
    next_round: Instant,
    pause: Duration,
    /// The shortest pause after the last round if it found many children.
    pause_with_many: Duration,
    /// When the last process ended, or when the kill began if none has.
    progress_at: Instant,
    /// When it was first found that no child is alive; `None` if a child was alive at the last check.
    all_dead_since: Option<Instant>,
    /// Whether a failure was returned. Later failures are not returned.
    has_failed: bool,
}

impl KillRounds {
    /// Begins a kill. If there is a pace, the kill keeps to it until the given instant. The first round is due at once.
    pub fn begin(now: Instant, pace: Option<(KillPace, Instant)>) -> Self {
        Self {
            pace,
            began_at: now,
            has_many_children: false,
            next_round: now,
            pause: SHORTEST_PAUSE,
            pause_with_many: SHORTEST_PAUSE_WITH_MANY,
            progress_at: now,
            all_dead_since: None,
            has_failed: false,
        }
    }

    /// Returns when to call [`run_round`](Self::run_round) next.
    pub fn next_round(&self) -> Instant {
        self.next_round
    }

    /// Records that children have ended, and brings the next round forward, because the children of the ended ones have
    /// become children of this process.
    pub fn handle_ended(&mut self, now: Instant) {
        let pause = if self.has_many_children { self.pause_with_many } else { Duration::ZERO };
        self.next_round = self.next_round.min(now + pause);
        (self.pause, self.progress_at) = (SHORTEST_PAUSE, now);
    }

    /// Returns whether so many children are ending that their deaths are handled together, at the next round.
    pub fn handles_deaths_together(&self) -> bool {
        // The pause is longer after two rounds without a death.
        self.has_many_children && self.pause <= SHORTEST_PAUSE * 2
    }

    /// Returns whether all calls for [`UNREAPED_TIMEOUT`] have found only dead children, which means that they cannot
    /// be reaped. A debugger that is attached to a process and does not wait for it prevents the parent from reaping
    /// the dead process. Such a process is no longer running, so leaderrun does not keep the lock until it is reaped.
    pub fn only_unreapable_left(&mut self, tree: &Tree, now: Instant) -> bool {
        if !tree.has_only_dead_children() {
            self.all_dead_since = None;
            return false;
        }
        now >= *self.all_dead_since.get_or_insert(now) + UNREAPED_TIMEOUT
    }

    /// Kills every child. If the kill has a pace, no process has ended for [`SCAN_DELAY`], or the kill has lasted for
    /// [`LATEST_SCAN`], every descendant that one scan finds is killed as well. A pace limits both; when it ends, all
    /// process groups that children lead are killed. After [`SEARCH_DELAY`], escaped processes are searched for.
    ///
    /// # Errors
    /// Returns why a process could not be killed, or which process is [stuck](KillFailure::Stuck). Later failures are
    /// not returned.
    pub fn run_round(&mut self, tree: &mut Tree, now: Instant) -> Result<(), KillFailure> {
        if self.pace.take_if(|(_, end)| now >= *end).is_some() {
            tree.kill_groups();
        }
        let killing_began_at = clock::now();
        let mut result = tree.kill(self.pace.map(|(pace, _)| pace.max_killed_threads), self.scans(now));
        self.has_many_children = tree.listed_children() > MANY_CHILDREN;
        let ended_at = clock::now();
        self.schedule_next(ended_at, ended_at.since(killing_began_at));
        if now >= self.began_at + SEARCH_DELAY {
            tree.search_in_kill();
        }
        if result.is_ok() && !self.has_failed && now >= self.progress_at + STUCK_AFTER {
            result = tree.check_found_are_dead();
        }
        if result.is_err() && mem::replace(&mut self.has_failed, true) {
            return Ok(());
        }
        result
    }

    /// Returns whether a round that begins now scans.
    fn scans(&self, now: Instant) -> bool {
        // Deaths that are handled together are only known after the round.
        let is_stalled = !self.handles_deaths_together() && now >= self.progress_at + SCAN_DELAY;
        self.pace.is_some() || is_stalled || now >= self.began_at + LATEST_SCAN
    }

    /// Schedules the round that follows a round which has just ended and took `duration`.
    fn schedule_next(&mut self, ended_at: Instant, duration: Duration) {
        let proportional = duration * PAUSE_FACTOR;
        self.pause_with_many = proportional.clamp(SHORTEST_PAUSE_WITH_MANY, LONGEST_PAUSE_WITH_MANY);
        let pause = if self.has_many_children { self.pause.max(self.pause_with_many) } else { self.pause };
        self.next_round = ended_at + pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
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
    fn a_long_round_leaves_most_of_the_cpu_time_to_many_killed_children() {
        let (ended_at, duration) = (clock::now(), Duration::from_millis(2));
        let mut kill = KillRounds { has_many_children: true, ..KillRounds::begin(ended_at, None) };
        kill.schedule_next(ended_at, duration);
        assert_eq!(kill.next_round(), ended_at + duration * PAUSE_FACTOR);
        kill.handle_ended(ended_at);
        assert_eq!(kill.next_round(), ended_at + duration * PAUSE_FACTOR);
        kill.schedule_next(ended_at, Duration::from_secs(1));
        assert_eq!(kill.next_round(), ended_at + LONGEST_PAUSE_WITH_MANY);
    }

    #[test]
    fn a_kill_scans_when_no_process_ends_or_it_takes_long() {
        let (now, moment) = (clock::now(), Duration::from_millis(1));
        let mut kill = KillRounds::begin(now, None);
        assert!(!kill.scans(now + SCAN_DELAY - moment));
        assert!(kill.scans(now + SCAN_DELAY));
        kill.handle_ended(now + SCAN_DELAY);
        assert!(!kill.scans(now + SCAN_DELAY * 2 - moment));
        assert!(kill.scans(now + SCAN_DELAY * 2));
        kill.has_many_children = true;
        assert!(!kill.scans(now + SCAN_DELAY * 2), "the deaths of many children are not known yet");
        assert!(kill.scans(now + LATEST_SCAN));
    }

    #[test]
    fn a_long_kill_searches_for_escaped_processes() {
        // The child of another thread is not part of the tree, so it has to be searched for.
        let start = || NestedProcess::start(&Proc::open().unwrap(), "this run");
        let Some(escaped) = thread::spawn(start).join().unwrap() else { return };
        let (proc, mut tree) = (Proc::open().unwrap(), Tree::open("this run").unwrap());
        let now = clock::now();
        let mut kill = KillRounds::begin(now, None);
        kill.run_round(&mut tree, now).unwrap();
        assert!(!tree.check_search());
        kill.run_round(&mut tree, now + SEARCH_DELAY).unwrap();
        eventually("the escaped process is dead", || escaped.is_dead(&proc));
    }
}
