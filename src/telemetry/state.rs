//! What is known of this candidate: told by the elector's threads, asked for over HTTP.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use humantime::format_duration;
use jiff::Timestamp;
use leaderrun_core::instant::Instant;
use leaderrun_core::updates::{Observed, Update};
use serde::Serialize;

use super::metrics::Metrics;

/// How late the election may be on a busy machine before it counts as stuck.
const LATE: Duration = Duration::from_secs(1);

/// Passes on what happens to its listeners. Telling never waits for a listener, and there may be none.
#[derive(Clone, Default)]
pub struct Observer(Vec<Listener>);

type Listener = Arc<dyn Fn(&Update) + Send + Sync>;

impl Observer {
    /// An observer with one listener, which must not block.
    pub fn new(listener: impl Fn(&Update) + Send + Sync + 'static) -> Self {
        Self(vec![Arc::new(listener)])
    }

    /// Tells the listeners of both.
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Tells the listeners something.
    pub fn tell(&self, update: Update) {
        self.0.iter().for_each(|listener| listener(&update));
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Observer({} listeners)", self.0.len())
    }
}

/// What does not change, or only once.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub lock: String,
    pub identity: String,
    pub renew_deadline: Duration,
    pub retry_period: Duration,
    pub ready_when: ReadyWhen,
}

/// When a candidate is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ReadyWhen {
    /// While it waits, too, so that a rolling update goes on.
    Waiting,
    /// Only while it leads, so that a Service leads to the leader.
    Leading,
}

#[derive(Debug)]
struct Leading {
    stop: Instant,
    gone: Instant,
    started: bool,
    lost: bool,
}

/// What is known of this candidate.
#[derive(Debug)]
pub struct State {
    candidate: Candidate,
    metrics: Metrics,
    acts_by: Option<Instant>,
    observed: Option<Observed>,
    transitions: Option<u32>,
    leading: Option<Leading>,
}

/// Who leads, for programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Leader<'a> {
    lock: &'a str,
    identity: &'a str,
    leading: bool,
    leader: Option<&'a str>,
    since: Option<Timestamp>,
    remaining_seconds: Option<f64>,
    transitions: Option<u32>,
}

impl State {
    /// Nothing is known but what the command line says, and what the program counted before it began
    /// again.
    pub fn new(candidate: Candidate, counted: Option<&str>) -> Self {
        let metrics = counted
            .and_then(|counted| serde_json::from_str(counted).ok())
            .unwrap_or_else(|| Metrics::new(candidate.renew_deadline, candidate.retry_period));
        Self { candidate, metrics, acts_by: None, observed: None, transitions: None, leading: None }
    }

    /// Takes in what happened.
    pub fn apply(&mut self, update: Update) {
        match update {
            Update::Lock(name) => self.candidate.lock = name,
            Update::ActsBy(instant) => self.acts_by = instant,
            Update::Observed(observed) => {
                self.transitions = observed.transitions.or(self.transitions);
                self.observed = Some(observed);
            }
            Update::WatchRestarted => self.metrics.watch_restarted(),
            Update::Renewal { result, took } => self.metrics.renewal(result, took),
            Update::Renewed { margin } => self.metrics.renewed(margin),
            Update::Leading { stop, gone } => match &mut self.leading {
                Some(leading) => (leading.stop, leading.gone) = (stop, gone),
                None => self.leading = Some(Leading { stop, gone, started: false, lost: false }),
            },
            Update::CommandStarted => {
                self.metrics.command_started();
                if let Some(leading) = &mut self.leading {
                    leading.started = true;
                }
            }
            Update::CommandEnded(status) => self.metrics.command_ended(status),
            Update::Lost(loss) => {
                self.metrics.lost(loss);
                if let Some(leading) = &mut self.leading {
                    leading.lost = true;
                }
            }
            Update::CommandGone => self.leading = None,
            Update::Acquired { .. } | Update::Terminating | Update::Exiting => {}
        }
    }

    /// Whether the program does what it should, or what is wrong.
    pub fn health(&self, now: Instant) -> Result<(), String> {
        let ago = |instant| format_duration(Duration::from_millis(now.since(instant).as_millis() as u64));
        if let Some(leading) = self.leading.as_ref().filter(|leading| now >= leading.gone) {
            return Err(format!("leadership should have ended {} ago, and has not", ago(leading.gone)));
        }
        match self.acts_by {
            Some(due) if now >= due + LATE => Err(format!("the election is stuck: it was due {} ago", ago(due))),
            _ => Ok(()),
        }
    }

    /// Whether it is ready in the sense that was chosen, or what is missing.
    pub fn readiness(&self, now: Instant) -> Result<(), String> {
        self.health(now)?;
        match (&self.leading, self.candidate.ready_when) {
            (Some(leading), _) if leading.lost || now >= leading.stop => Err("leadership is lost".into()),
            (Some(Leading { started: true, .. }), _) => Ok(()),
            (_, ReadyWhen::Leading) => Err("not leading".into()),
            (_, ReadyWhen::Waiting) if self.observed.is_some() => Ok(()),
            (_, ReadyWhen::Waiting) => Err("the lock was not read yet".into()),
        }
    }

    /// Who leads, as JSON.
    pub fn leader(&self, now: Instant) -> String {
        let observed = self.observed.as_ref().filter(|observed| !observed.holder.is_empty());
        let remaining = match &self.leading {
            Some(leading) => Some(leading.stop.since(now)),
            None => observed.map(|observed| observed.takeable_at.since(now)),
        };
        let leader = Leader {
            lock: &self.candidate.lock,
            identity: &self.candidate.identity,
            leading: self.leading.is_some(),
            leader: observed.map(|observed| observed.holder.as_str()),
            since: observed.and_then(|observed| observed.since),
            remaining_seconds: remaining.map(|remaining| remaining.as_millis() as f64 / 1000.0),
            transitions: self.transitions,
        };
        serde_json::to_string(&leader).unwrap_or_default() + "\n"
    }

    /// Everything that was counted, for a later [`State::new`].
    pub fn counted(&self) -> String {
        serde_json::to_string(&self.metrics).unwrap_or_default()
    }

    /// Everything that is counted and measured, as Prometheus reads it.
    pub fn metrics(&self) -> String {
        self.metrics.text(&self.candidate.lock, self.leading.is_some(), self.transitions)
    }
}

#[cfg(test)]
mod tests {
    use leaderrun_core::updates::Loss;

    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::after_boot(Duration::from_secs(seconds))
    }

    fn state(ready_when: ReadyWhen, updates: impl IntoIterator<Item = Update>) -> State {
        let mut state = State::new(
            Candidate {
                lock: "default/job".into(),
                identity: "a".into(),
                renew_deadline: Duration::from_secs(10),
                retry_period: Duration::from_secs(2),
                ready_when,
            },
            None,
        );
        updates.into_iter().for_each(|update| state.apply(update));
        state
    }

    fn leading() -> [Update; 2] {
        [Update::Leading { stop: at(10), gone: at(13) }, Update::CommandStarted]
    }

    fn observed(holder: &str, transitions: Option<u32>) -> Update {
        Update::Observed(Observed { holder: holder.into(), since: None, transitions, takeable_at: at(15) })
    }

    #[test]
    fn the_election_is_stuck_when_it_does_not_act_in_time() {
        let state = state(ReadyWhen::Waiting, [Update::ActsBy(Some(at(5)))]);
        assert_eq!(state.health(at(5)), Ok(()));
        assert_eq!(state.health(at(8)), Err("the election is stuck: it was due 3s ago".into()));
    }

    #[test]
    fn an_election_that_waits_for_nothing_in_particular_is_not_stuck() {
        let state = state(ReadyWhen::Waiting, [Update::ActsBy(Some(at(5))), Update::ActsBy(None)]);
        assert_eq!(state.health(at(1000)), Ok(()));
    }

    #[test]
    fn leadership_ends_at_the_kill_instant_or_is_ill() {
        let mut state = state(ReadyWhen::Waiting, leading());
        assert_eq!(state.health(at(12)), Ok(()));
        assert_eq!(state.health(at(14)), Err("leadership should have ended 1s ago, and has not".into()));
        state.apply(Update::CommandGone);
        assert_eq!(state.health(at(14)), Ok(()));
    }

    #[test]
    fn a_leader_is_ready_from_its_commands_start_to_its_stop() {
        for ready_when in [ReadyWhen::Waiting, ReadyWhen::Leading] {
            let mut state = state(ready_when, leading());
            assert_eq!(state.readiness(at(9)), Ok(()));
            assert_eq!(state.readiness(at(10)), Err("leadership is lost".into()));
            state.apply(Update::Lost(Loss::Taken));
            assert_eq!(state.readiness(at(9)), Err("leadership is lost".into()));
        }
        let [won, _] = leading();
        assert!(state(ReadyWhen::Leading, [won]).readiness(at(1)).is_err());
    }

    #[test]
    fn a_waiting_candidate_is_ready_when_it_has_read_the_lock_if_that_is_wanted() {
        assert!(state(ReadyWhen::Waiting, []).readiness(at(1)).is_err());
        assert_eq!(state(ReadyWhen::Waiting, [observed("b", Some(3))]).readiness(at(1)), Ok(()));
        assert!(state(ReadyWhen::Leading, [observed("b", Some(3))]).readiness(at(1)).is_err());
    }

    #[test]
    fn nothing_is_said_of_transitions_before_they_are_known_nor_forgotten_with_the_record() {
        let mut state = state(ReadyWhen::Waiting, []);
        assert!(!state.metrics().contains("leaderrun_transitions_total"));
        for update in [observed("b", Some(3)), observed("", None)] {
            state.apply(update);
            assert!(state.metrics().contains("leaderrun_transitions_total{name=\"default/job\"} 3\n"));
        }
    }

    #[test]
    fn what_was_counted_goes_on() {
        let mut before = state(ReadyWhen::Waiting, leading());
        before.apply(Update::Renewed { margin: Duration::from_secs(7) });
        before.apply(Update::Lost(Loss::Taken));
        before.apply(Update::CommandGone);
        let after = State::new(before.candidate.clone(), Some(&before.counted()));
        assert_eq!(after.metrics(), before.metrics());
    }
}
