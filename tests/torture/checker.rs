//! Detects two commands that overlap. It reads the lifetimes that the witnesses, the processes of the commands, have
//! written. It also lists all processes, because a stopped or blocked witness writes nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::observer::Renewals;
use crate::processes::{self, Process};
use testkit::Witnesses;

/// The interval at which all processes are listed.
const INTERVAL: Duration = Duration::from_millis(100);

/// The findings from the lists of processes.
#[derive(Default)]
struct Findings {
    /// The last time at which a process of each holder's command was seen alive, in nanoseconds since boot.
    last_seen: BTreeMap<String, u64>,
    /// The slot in which each holder's command runs.
    slots: BTreeMap<String, usize>,
    overlaps: Vec<String>,
}

/// A thread that lists all processes at intervals.
pub struct Checker {
    findings: Arc<Mutex<Findings>>,
    stop_requested: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The result of [`Checker::check`].
#[derive(Debug, Default)]
pub struct CheckResult {
    /// The overlaps of commands, candidates with commands in two slots, and fencing tokens that do not grow.
    pub violations: Vec<String>,
    pub commands: usize,
    pub witnesses: usize,
    pub hand_overs: usize,
    /// The smallest margin between the last time that a command was seen alive and the expiry of its lease, in
    /// nanoseconds. It is negative if a command outlived its lease.
    pub worst_margin: Option<i64>,
    /// The run with the smallest margin, and its renewals.
    pub worst_run: String,
}

/// The run of a candidate's command, with all its processes. Each candidate has a unique identity and starts its
/// command at most once. Times are in nanoseconds since boot.
#[derive(Clone, Debug)]
struct Run {
    token: u64,
    holder: String,
    slot: Option<usize>,
    started_at: u64,
    last_seen_at: u64,
}

impl Checker {
    /// Starts a checker for the torture run whose witnesses write to this directory.
    pub fn start(directory: PathBuf, has_slots: bool) -> Self {
        let findings = Arc::<Mutex<Findings>>::default();
        let stop_requested = Arc::<AtomicBool>::default();
        let (thread_findings, thread_stop_requested) = (Arc::clone(&findings), Arc::clone(&stop_requested));
        let thread = thread::spawn(move || {
            while !thread_stop_requested.load(Ordering::Relaxed) {
                let found = processes::of_torture_run(&directory);
                thread_findings.lock().expect("no thread panics while it holds this lock").add(&found, has_slots);
                thread::sleep(INTERVAL);
            }
        });
        Self { findings, stop_requested, thread: Some(thread) }
    }

    /// Checks all commands that have run so far. `renewals` has one entry for each slot, or one for a lock without
    /// slots.
    pub fn check(&self, witnesses: &Witnesses, renewals: &[Renewals]) -> CheckResult {
        let findings = self.findings.lock().expect("no thread panics while it holds this lock");
        let lifetimes = witnesses.lifetimes();
        let mut runs: BTreeMap<String, Run> = BTreeMap::new();
        for lifetime in &lifetimes {
            let (holder, token) = (lifetime.holder().to_owned(), lifetime.token());
            let slot = lifetime.slot();
            let run = runs.entry(holder.clone()).or_insert(Run {
                token,
                holder,
                slot,
                started_at: lifetime.started_at,
                last_seen_at: lifetime.last_seen_at,
            });
            (run.started_at, run.last_seen_at) =
                (run.started_at.min(lifetime.started_at), run.last_seen_at.max(lifetime.last_seen_at));
        }
        for (holder, seen) in &findings.last_seen {
            if let Some(run) = runs.get_mut(holder) {
                run.last_seen_at = run.last_seen_at.max(*seen);
            }
        }
        let mut runs: Vec<Run> = runs.into_values().collect();
        runs.sort_by_key(|run| (run.slot, run.started_at));
        let mut result = CheckResult {
            violations: findings.overlaps.clone(),
            commands: runs.len(),
            witnesses: lifetimes.len(),
            ..CheckResult::default()
        };
        let in_two_slots = lifetimes.iter().filter(|lifetime| lifetime.slot() != slot_of_run(&runs, lifetime.holder()));
        result
            .violations
            .extend(in_two_slots.map(|lifetime| format!("{} runs commands in two slots", lifetime.holder())));
        for pair in runs.windows(2) {
            let [before, after] = pair else { unreachable!("each window has two elements") };
            if before.slot != after.slot {
                continue;
            }
            result.hand_overs += usize::from(before.holder != after.holder);
            if before.last_seen_at >= after.started_at {
                let time = Duration::from_nanos(before.last_seen_at - after.started_at);
                result.violations.push(format!("{before:?} was still alive {time:?} after the start of {after:?}"));
            }
            if before.token >= after.token {
                result.violations.push(format!("{after:?} came after {before:?} with a token that is not greater"));
            }
        }
        let margins = runs.iter().filter_map(|run| Some((margin(run, renewals)?, run)));
        if let Some((worst, run)) = margins.min_by_key(|(margin, _)| *margin) {
            result.worst_margin = Some(worst);
            result.worst_run = format!("{run:?}, renewed {:?}", renewals_of(run, renewals));
        }
        result
    }
}

/// Returns the slot of the command that a holder ran, if the lock has slots.
fn slot_of_run(runs: &[Run], holder: &str) -> Option<usize> {
    runs.iter().find(|run| run.holder == holder).and_then(|run| run.slot)
}

impl Findings {
    fn add(&mut self, found: &[Process], has_slots: bool) {
        let mut processes_by_slot: BTreeMap<Option<usize>, BTreeMap<&str, Vec<&Process>>> = BTreeMap::new();
        for process in found {
            let Some(holder) = &process.holder else { continue };
            let last_seen_at = self.last_seen.entry(holder.clone()).or_default();
            *last_seen_at = (*last_seen_at).max(process.seen_at);
            if let Some(slot) = process.slot {
                self.slots.entry(holder.clone()).or_insert(slot);
            }
            // The environment of a process that is in the middle of an exec cannot be read, so the slot that was seen
            // before is used. If there is none, the process is ignored this time.
            let slot = process.slot.or(self.slots.get(holder).copied());
            if slot.is_some() == has_slots {
                processes_by_slot.entry(slot).or_default().entry(holder).or_default().push(process);
            }
        }
        for processes_by_holder in
            processes_by_slot.values_mut().filter(|processes_by_holder| processes_by_holder.len() > 1)
        {
            // One command may have ended before the other started, so check that both are still alive.
            processes_by_holder.retain(|_, processes| processes.iter().any(|process| process.is_alive()));
            if processes_by_holder.len() > 1 {
                self.overlaps.push(format!("seen alive at the same time: {processes_by_holder:?}"));
            }
        }
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        self.stop_requested.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Returns the margin between the last time that a run was seen alive and the expiry of its lease, in nanoseconds;
/// `None` if no renewal was observed before that time. Later renewals do not count.
fn margin(run: &Run, renewals: &[Renewals]) -> Option<i64> {
    let renewals = renewals_of(run, renewals)?;
    let (_, expires) = renewals.iter().rev().find(|(renewed, _)| *renewed <= run.last_seen_at)?;
    Some(*expires as i64 - run.last_seen_at as i64)
}

/// Returns the renewals of a run in the slot of its command. The run may also have claimed another slot, without
/// receiving the reply.
fn renewals_of<'a>(run: &Run, renewals: &'a [Renewals]) -> Option<&'a Vec<(u64, u64)>> {
    renewals[run.slot.unwrap_or_default()].get(&run.holder)
}
