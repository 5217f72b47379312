//! One torture run, which starts and ends candidates and injects faults. After the faults, every slot must have a
//! leader, and after the last candidate has ended, no process may be left.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testkit::{Cluster, Proxy, TestLock, Witnesses, nanos_since_boot, scratch};

use crate::candidate::{CandidateState, TorturedCandidate};
use crate::checker::{CheckResult, Checker};
use crate::faults::FaultEnd;
use crate::observer::{Observer, Renewals};
use crate::plan::Plan;
use crate::processes;
use crate::record::{LockKind, RecordStore, TorturedLock};
use crate::statistics::Statistics;

/// The interval at which candidates that have ended are replaced, and faults are ended.
const INTERVAL: Duration = Duration::from_millis(10);

/// The time within which every slot must have a leader after the end of all faults, and another one after the test has
/// ended these leaders. An edit may have extended the lease duration to nine seconds, and the test keeps the machine
/// busy.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(25);

/// The time within which leaderrun must end after the last SIGTERM, and within which all its descendants must be dead
/// after its end.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(15);

/// The maximum average time between hand-overs. It is long because some injected edits name another holder or extend
/// the lease duration, after which all candidates wait.
const MAX_HAND_OVER_INTERVAL: Duration = Duration::from_secs(30);

/// The time between two checks of the results during the run.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// The number of trace lines that are kept.
const TRACE_LENGTH: usize = 120;

/// A sequence of candidates that run one after another and share a proxy.
pub struct CandidateSeries {
    pub proxy: Option<Proxy>,
    pub candidate: Option<TorturedCandidate>,
    /// The number of candidates that were started.
    starts: u32,
    /// The time at which the next candidate starts, if none is running.
    start_at: Instant,
}

/// One torture run: a lock, its candidates, and the faults that are injected.
pub struct TortureRun {
    kind: LockKind,
    lock: TestLock,
    /// The stores of the lock's records: one for each slot, or one for a lock without slots.
    pub stores: Vec<RecordStore>,
    pub cluster: Option<Cluster>,
    pub series: Vec<CandidateSeries>,
    pub witnesses: Witnesses,
    plan: Plan,
    checker: Checker,
    observers: Vec<Observer>,
    pub statistics: Statistics,
    /// The end of each current fault, and the time at which it is due.
    pub fault_ends: Vec<(Instant, FaultEnd)>,
    /// The instant before which no candidate may start; see [`crate::rules`].
    pub no_start_before: Instant,
    trace_lines: VecDeque<String>,
    began_at: Instant,
}

impl TortureRun {
    pub fn new(tortured: TorturedLock, seed: u64) -> Self {
        println!("torture of {tortured:?}: LEADERRUN_TORTURE_SEED={seed}");
        let TorturedLock { kind, slots } = tortured;
        let (cluster, lock) = match kind {
            LockKind::Lease => {
                let cluster = Cluster::start();
                let name = format!("{}/job", cluster.new_namespace());
                let lock = TestLock { name, kubeconfig: Some(cluster.kubeconfig()) };
                (Some(cluster), lock)
            }
            LockKind::File => {
                let path = scratch::directory("torture").join("job.lease");
                (None, TestLock { name: format!("file:{}", path.display()), kubeconfig: None })
            }
        };
        let suffixes = match slots {
            None => vec![String::new()],
            Some(slots) => (0..slots).map(|slot| format!("-{slot}")).collect(),
        };
        let store = |suffix: &String| match (&cluster, lock.name.strip_prefix("file:")) {
            (Some(cluster), _) => RecordStore::lease(cluster.admin(), lock.lease_path() + suffix),
            (None, path) => RecordStore::File(PathBuf::from(path.unwrap_or_default().to_owned() + suffix)),
        };
        let stores: Vec<RecordStore> = suffixes.iter().map(store).collect();
        let witnesses = Witnesses::new();
        let now = Instant::now();
        let new_series = |_| CandidateSeries {
            proxy: cluster.as_ref().map(Proxy::start),
            candidate: None,
            starts: 0,
            start_at: now,
        };
        // There are more candidates than leaders, so some of them are standbys.
        let series_count = if slots.is_some() { stores.len() + 2 } else { 4 };
        Self {
            kind,
            lock,
            series: (0..series_count).map(new_series).collect(),
            checker: Checker::start(witnesses.directory().to_owned(), slots.is_some()),
            observers: stores.iter().cloned().map(Observer::start).collect(),
            plan: Plan::new(kind, series_count, stores.len(), seed),
            stores,
            cluster,
            witnesses,
            statistics: Statistics::default(),
            fault_ends: Vec::new(),
            no_start_before: now,
            trace_lines: VecDeque::new(),
            began_at: now,
        }
    }

    fn has_slots(&self) -> bool {
        self.stores.len() > 1
    }

    /// Injects faults for `duration`. Then checks that every slot has a leader, that other candidates take over from
    /// the leaders, and that no process is left at the end.
    pub fn run(mut self, duration: Duration) {
        let mut checked_at = Instant::now();
        while self.began_at.elapsed() < duration {
            let step = self.plan.step();
            self.run_for(step.pause);
            self.inject(step);
            if checked_at.elapsed() > CHECK_INTERVAL {
                checked_at = Instant::now();
                self.check();
            }
        }
        self.end_all_faults();
        let first_leaders = self.wait_for_leaders(&[]);
        for leader in &first_leaders {
            if let Some(leader) = self.candidate(leader) {
                leader.send_to_elector(libc::SIGTERM);
            }
        }
        // The commands get SIGKILL immediately, because some of them ignore SIGTERM.
        self.kill_processes(|process| process.holder.as_ref().is_some_and(|holder| first_leaders.contains(holder)));
        self.wait_for_leaders(&first_leaders);
        self.end_all_candidates();
        let result = self.check();
        let minimum = (duration.as_secs_f64() / MAX_HAND_OVER_INTERVAL.as_secs_f64()) as usize;
        self.require(result.hand_overs >= minimum, &format!("only {} hand-overs", result.hand_overs));
        println!("torture of {:?} for {:?}:\n{}", self.kind, self.began_at.elapsed(), self.statistics);
    }

    /// Ends faults when they are due, and replaces candidates that have ended, for `duration`.
    fn run_for(&mut self, duration: Duration) {
        let end = Instant::now() + duration;
        loop {
            self.end_due_faults();
            for index in 0..self.series.len() {
                self.update_series(index);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::sleep(left.min(INTERVAL));
        }
    }

    /// If a candidate of the series is running, removes it once it has ended. Otherwise starts the next one when it is
    /// due. Fails the test if processes are left [`CLEANUP_TIMEOUT`] after the candidate's end.
    fn update_series(&mut self, index: usize) {
        let now = Instant::now();
        let series = &mut self.series[index];
        match &mut series.candidate {
            Some(candidate) => {
                let state = candidate.poll_state();
                let description = format!("{} has ended:\n{}", candidate.identity, candidate.running.log());
                match state {
                    CandidateState::Running => {}
                    CandidateState::PipesOpen(time_since_end) => {
                        let message = format!("a process is left behind; {description}");
                        self.require(time_since_end < CLEANUP_TIMEOUT, &message);
                    }
                    CandidateState::Ended => {
                        let (_, _, pause) = self.plan.candidate(index, series.starts);
                        (series.candidate, series.start_at) = (None, now + pause);
                        self.trace(description);
                    }
                }
            }
            None if now >= series.start_at && now >= self.no_start_before => self.start(index),
            None => {}
        }
    }

    fn start(&mut self, index: usize) {
        let series = &mut self.series[index];
        series.starts += 1;
        let (command_arguments, options, _) = self.plan.candidate(index, series.starts);
        let identity = format!("{}-{}", ["a", "b", "c", "d", "e"][index], series.starts);
        let lock = match &series.proxy {
            Some(proxy) => self.lock.through(proxy.kubeconfig()),
            None => self.lock.clone(),
        };
        let slots = self.stores.len().to_string();
        let slots: &[&str] = if self.has_slots() { &["--slots", &slots] } else { &[] };
        let options = [slots, &options].concat();
        let candidate = TorturedCandidate::start(identity, &lock, &self.witnesses, &command_arguments, &options);
        self.statistics.starts += 1;
        let description = format!("{} starts: {}", candidate.identity, candidate.description);
        self.series[index].candidate = Some(candidate);
        self.trace(description);
    }

    pub fn candidate(&mut self, identity: &str) -> Option<&mut TorturedCandidate> {
        let mut candidates = self.series.iter_mut().filter_map(|series| series.candidate.as_mut());
        candidates.find(|candidate| candidate.identity == identity)
    }

    /// Waits until every slot has had a live command of a candidate that is not in `except`. Returns the
    /// identities of these candidates.
    fn wait_for_leaders(&mut self, except: &[String]) -> Vec<String> {
        let start = Instant::now();
        let mut leaders: BTreeMap<usize, String> = BTreeMap::new();
        while leaders.len() < self.stores.len() {
            self.run_for(INTERVAL * 5);
            for process in processes::of_torture_run(self.witnesses.directory()) {
                let slot = if self.has_slots() { process.slot } else { Some(0) };
                if let Some((slot, holder)) = slot.zip(process.holder).filter(|(_, holder)| !except.contains(holder)) {
                    leaders.insert(slot, holder);
                }
            }
            self.require(
                start.elapsed() < RECOVERY_TIMEOUT,
                &format!(
                    "within {RECOVERY_TIMEOUT:?}, only these slots got a leader other than {except:?}: {leaders:?}"
                ),
            );
        }
        leaders.into_values().collect()
    }

    /// Ends all candidates, and checks that none of their processes is left.
    fn end_all_candidates(&mut self) {
        // No new candidate may start.
        self.no_start_before = Instant::now() + Duration::from_secs(3600);
        for series in &mut self.series {
            if let Some(candidate) = &mut series.candidate {
                candidate.send_to_elector(libc::SIGTERM);
            }
        }
        self.kill_processes(|process| process.holder.is_some());
        let start = Instant::now();
        while self.series.iter().any(|series| series.candidate.is_some()) {
            self.require(start.elapsed() < CLEANUP_TIMEOUT, "leaderrun has not ended");
            self.run_for(INTERVAL);
            self.kill_processes(|process| process.holder.is_some());
        }
        let left = processes::of_torture_run(self.witnesses.directory());
        self.require(left.is_empty(), &format!("processes are left behind: {left:?}"));
    }

    fn kill_processes(&self, is_selected: impl Fn(&processes::Process) -> bool) {
        for process in
            processes::of_torture_run(self.witnesses.directory()).iter().filter(|process| is_selected(process))
        {
            let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
        }
    }

    fn check(&mut self) -> CheckResult {
        let renewals: Vec<Renewals> = self.observers.iter().map(Observer::renewals).collect();
        let result = self.checker.check(&self.witnesses, &renewals);
        self.statistics.commands = result.commands;
        self.statistics.witnesses = result.witnesses;
        self.statistics.hand_overs = result.hand_overs;
        self.statistics.worst_margin = result.worst_margin;
        self.statistics.violations = result.violations.len();
        self.require(result.violations.is_empty(), &format!("violations: {:#?}", result.violations));
        // A command that outlives its lease is a failure even if no candidate took over in the meantime.
        let dead_in_time = result.worst_margin.is_none_or(|margin| margin > 0);
        self.require(dead_in_time, &format!("a command outlived its lease: {}", result.worst_run));
        result
    }

    /// Adds a line to the trace, which is printed if the test fails.
    pub fn trace(&mut self, line: String) {
        if self.trace_lines.len() == TRACE_LENGTH {
            self.trace_lines.pop_front();
        }
        let elapsed = self.began_at.elapsed().as_secs_f64();
        self.trace_lines.push_back(format!("[{elapsed:.3} s, {} ns since boot] {line}", nanos_since_boot()));
    }

    /// Fails the test and prints the trace unless the condition is true.
    #[track_caller]
    fn require(&self, condition: bool, failure: &str) {
        if !condition {
            let lines: Vec<&str> = self.trace_lines.iter().map(String::as_str).collect();
            panic!("{failure}\n--- trace:\n{}\n--- statistics:\n{}", lines.join("\n"), self.statistics);
        }
    }
}

impl Drop for TortureRun {
    fn drop(&mut self) {
        // Only a failed test leaves processes. Some of them fork new ones, so this repeats until none is left.
        while !processes::of_torture_run(self.witnesses.directory()).is_empty() {
            self.kill_processes(|_| true);
            thread::sleep(INTERVAL);
        }
    }
}
