//! Whether two commands were ever alive at once: by what they wrote, and by looking at all processes,
//! since a process that is stopped or blocked writes nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::observer::Renewals;
use crate::processes::{self, Process};
use testkit::Witnesses;

/// Between two looks at all processes.
const PAUSE: Duration = Duration::from_millis(100);

/// A deletion this long before a command's birth may have come after it won.
const START: u64 = 2_000_000_000;

#[derive(Default)]
struct Findings {
    /// When anything of a holder's command was last surely alive.
    last_seen: BTreeMap<String, u64>,
    overlaps: Vec<String>,
}

/// A thread that looks at all processes again and again.
pub struct Judge {
    findings: Arc<Mutex<Findings>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Verdict {
    pub overlaps: Vec<String>,
    pub commands: usize,
    pub witnesses: usize,
    pub hand_overs: usize,
    pub worst_margin: Option<i64>,
    /// The run that had it.
    pub worst: String,
}

/// One run of a command, all its processes together.
#[derive(Clone, Debug)]
struct Run {
    token: u64,
    holder: String,
    started_at: u64,
    last_seen_at: u64,
}

impl Judge {
    pub fn start(folder: PathBuf) -> Self {
        let (findings, over) = (Arc::<Mutex<Findings>>::default(), Arc::<AtomicBool>::default());
        let (book, end) = (Arc::clone(&findings), Arc::clone(&over));
        let thread = thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                let found = processes::in_folder(&folder);
                book.lock().expect("the book").note(&found);
                thread::sleep(PAUSE);
            }
        });
        Self { findings, over, thread: Some(thread) }
    }

    /// The verdict so far. `deletions` are when a file was deleted: its counter starts again then.
    pub fn verdict(&self, witnesses: &Witnesses, renewals: &Renewals, deletions: &[u64]) -> Verdict {
        let findings = self.findings.lock().expect("the book");
        let lives = witnesses.lifetimes();
        let mut runs: BTreeMap<String, Run> = BTreeMap::new();
        for life in &lives {
            let (holder, token) = (life.holder().to_owned(), life.token());
            let run = runs.entry(holder.clone()).or_insert(Run {
                token,
                holder,
                started_at: life.started_at,
                last_seen_at: life.last_seen_at,
            });
            (run.started_at, run.last_seen_at) =
                (run.started_at.min(life.started_at), run.last_seen_at.max(life.last_seen_at));
        }
        for (holder, seen) in &findings.last_seen {
            if let Some(run) = runs.get_mut(holder) {
                run.last_seen_at = run.last_seen_at.max(*seen);
            }
        }
        let mut runs: Vec<Run> = runs.into_values().collect();
        runs.sort_by_key(|run| run.started_at);
        let mut verdict = Verdict {
            overlaps: findings.overlaps.clone(),
            commands: runs.len(),
            witnesses: lives.len(),
            ..Verdict::default()
        };
        for pair in runs.windows(2) {
            let [before, after] = pair else { unreachable!("windows of two") };
            verdict.hand_overs += usize::from(before.holder != after.holder);
            if before.last_seen_at >= after.started_at {
                let time = Duration::from_nanos(before.last_seen_at - after.started_at);
                verdict.overlaps.push(format!("{before:?} was alive {time:?} after the birth of {after:?}"));
            }
            let began_anew =
                deletions.iter().any(|at| (before.started_at.saturating_sub(START)..after.started_at).contains(at));
            if before.token >= after.token && !began_anew {
                verdict.overlaps.push(format!("{after:?} came after {before:?}, by a token that is not greater"));
            }
        }
        let margins = runs.iter().filter_map(|run| Some((margin(run, renewals)?, run)));
        if let Some((worst, run)) = margins.min_by_key(|(margin, _)| *margin) {
            verdict.worst_margin = Some(worst);
            verdict.worst = format!("{run:?}, renewed {:?}", renewals.get(&run.holder));
        }
        verdict
    }
}

impl Findings {
    fn note(&mut self, found: &[Process]) {
        let mut by_holder: BTreeMap<&str, Vec<&Process>> = BTreeMap::new();
        for process in found {
            if let Some(holder) = &process.holder {
                by_holder.entry(holder).or_default().push(process);
                let last = self.last_seen.entry(holder.clone()).or_default();
                *last = (*last).max(process.seen);
            }
        }
        if by_holder.len() < 2 {
            return;
        }
        // One may have gone while the next one came: two that live on did not.
        by_holder.retain(|_, processes| processes.iter().any(|process| process.is_alive()));
        if by_holder.len() > 1 {
            self.overlaps.push(format!("seen alive at once: {by_holder:?}"));
        }
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// From a run's last sign of life to the end of what its last renewal before that bought.
fn margin(run: &Run, renewals: &Renewals) -> Option<i64> {
    let renewals = renewals.get(&run.holder)?;
    let (_, until) = renewals.iter().rev().find(|(renewed, _)| *renewed <= run.last_seen_at)?;
    Some(*until as i64 - run.last_seen_at as i64)
}
