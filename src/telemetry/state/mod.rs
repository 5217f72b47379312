//! The state of this candidate (health, readiness, the leader), collected from the updates of the elector's threads.

mod activity;

use std::time::Duration;

use humantime::format_duration;
use jiff::Timestamp;
use leaderrun_core::instant::Instant;
use leaderrun_core::updates::{MeasuredThread, Observed, Update};
use serde::Serialize;

pub use self::activity::Activity;
use crate::telemetry::counters::Counters;
use crate::telemetry::freshness::{Freshness, Obstacle, ObstacleKind};
use crate::telemetry::log::printable;

/// How late the election may act before it is considered stuck. The limit is long because the machine may be busy.
pub const ELECTION_DELAY_LIMIT: Duration = Duration::from_secs(1);

/// The configuration of a candidate.
#[derive(Clone, Debug)]
pub struct CandidateConfig {
    /// The name of the lock. Its namespace may be missing until the lock has been opened.
    pub lock: String,
    /// The number of slots of the lock; `None` if the lock has no slots.
    pub slots: Option<usize>,
    pub identity: String,
    pub lease_duration: Duration,
    pub renew_deadline: Duration,
    pub retry_period: Duration,
    /// The timeout of a request.
    pub request_timeout: Duration,
    pub ready_when: ReadyWhen,
    /// How long a candidate may be unable to take over before it is unhealthy; `None` for no limit.
    pub unhealthy_after: Option<Duration>,
}

/// The condition under which a candidate is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ReadyWhen {
    /// The candidate is ready while it waits and while it leads, so that a rolling update can proceed.
    Waiting,
    /// The candidate is ready only while it leads, so that the leader is the only endpoint of a Service.
    Leading,
}

/// The state of this candidate's leadership, from the first tenure until no process of the command is left.
#[derive(Debug)]
struct LeadershipState {
    /// When the command gets the stop signal if the tenure is not extended.
    stop: Instant,
    /// When the supervisor must have reported that every process of the command is dead.
    gone_by: Instant,
    command_started: bool,
    /// Whether the lock was lost.
    lost: bool,
    /// Whether the end of the command was requested, by a signal or by a request to step down.
    is_ending: bool,
}

/// The state of this candidate.
#[derive(Debug)]
pub struct CandidateState {
    config: CandidateConfig,
    counters: Counters,
    /// The instant by which the election must act; `None` while it only waits for input.
    election_due: Option<Instant>,
    observed: Option<Observed>,
    /// The number of transitions in the last record that was seen.
    transitions: Option<u32>,
    /// The acquired slot; `None` until one is acquired, or if the lock has no slots.
    slot: Option<usize>,
    freshness: Freshness,
    leading: Option<LeadershipState>,
    /// Whether this leadership is over: no process of the command is left, and leaderrun is about to exit or to rejoin.
    is_over: bool,
    /// Whether the lock was lost before the command ended.
    was_lost: bool,
    scheduling_delays: SchedulingDelays,
    /// How long it is estimated to take to kill the command; `None` if that is negligible.
    kill_time: Option<Duration>,
}

/// The scheduling delay of each thread; `None` before it was measured.
#[derive(Debug, Default)]
struct SchedulingDelays {
    elector: Option<Duration>,
    election: Option<Duration>,
    supervisor: Option<Duration>,
}

/// The JSON document of `/leader`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LeaderResponse<'a> {
    lock: &'a str,
    /// The number of slots; omitted if the lock has no slots.
    #[serde(skip_serializing_if = "Option::is_none")]
    slots: Option<usize>,
    /// The slot in which this candidate leads, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    slot: Option<usize>,
    identity: &'a str,
    leading: bool,
    leader: Option<&'a str>,
    since: Option<Timestamp>,
    remaining_seconds: Option<f64>,
    transitions: Option<u32>,
}

impl CandidateState {
    /// Creates the state of a candidate that is starting. After a rejoin, `saved_counters` is what
    /// [`saved_counters`](Self::saved_counters) returned before leaderrun re-executed itself.
    pub fn new(now: Instant, config: CandidateConfig, saved_counters: Option<&str>) -> Self {
        let counters = saved_counters
            .and_then(|saved| serde_json::from_str(saved).ok())
            .unwrap_or_else(|| Counters::new(config.renew_deadline));
        let freshness = Freshness::new(now, config.lease_duration, config.request_timeout);
        Self {
            config,
            counters,
            election_due: None,
            observed: None,
            transitions: None,
            slot: None,
            freshness,
            leading: None,
            is_over: false,
            was_lost: false,
            scheduling_delays: SchedulingDelays::default(),
            kill_time: None,
        }
    }

    /// Applies an update.
    pub fn apply(&mut self, now: Instant, update: Update) {
        match update {
            Update::Lock(name) => self.config.lock = name,
            Update::NextTimeout(instant) => self.election_due = instant,
            Update::Observed(observed) => {
                if !observed.holder.is_empty() && now < observed.acquirable_at {
                    self.freshness.handle_acquisition();
                }
                self.transitions = observed.transitions.or(self.transitions);
                self.observed = Some(observed);
            }
            Update::Slot(slot) => self.slot = Some(slot),
            Update::LockResponded => self.freshness.handle_success(now),
            Update::WriteRefused => self.freshness.handle_refused_write(now),
            Update::WatchRestarted => self.counters.watch_restarts += 1,
            Update::Renewal { result, took } => self.counters.count_renewal(result, took),
            Update::Renewed { margin } => self.counters.count_margin(margin),
            Update::Leading { stop, gone_by } => match &mut self.leading {
                Some(leading) => (leading.stop, leading.gone_by) = (stop, gone_by),
                None => {
                    self.leading =
                        Some(LeadershipState { stop, gone_by, command_started: false, lost: false, is_ending: false });
                }
            },
            Update::CommandStarted => {
                self.counters.command_starts += 1;
                if let Some(leading) = &mut self.leading {
                    leading.command_started = true;
                }
            }
            Update::CommandEnded(status) => self.counters.command_ends.increment(&status),
            Update::Lost(loss) => {
                self.counters.count_loss(loss);
                if let Some(leading) = &mut self.leading {
                    leading.lost = true;
                }
            }
            Update::SchedulingDelay { thread, delay } => {
                let delays = &mut self.scheduling_delays;
                let measured = match thread {
                    MeasuredThread::Elector => &mut delays.elector,
                    MeasuredThread::Election => &mut delays.election,
                    MeasuredThread::Supervisor => &mut delays.supervisor,
                };
                *measured = Some(delay);
            }
            Update::KillTime(kill_time) => self.kill_time = Some(kill_time).filter(|time| !time.is_zero()),
            Update::TerminationRequested => {
                if let Some(leading) = &mut self.leading {
                    leading.is_ending = true;
                }
            }
            Update::CommandGone => {
                self.was_lost = self.leading.take().is_some_and(|leading| leading.lost);
                (self.is_over, self.kill_time) = (true, None);
            }
            Update::Acquired { .. } | Update::Terminating | Update::RunEnding => {}
        }
    }

    /// Returns the configuration.
    pub fn config(&self) -> &CandidateConfig {
        &self.config
    }

    /// Returns the counters.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Returns the number of transitions in the last record that was seen, even if it has since been deleted. Returns
    /// `None` for a standby of a lock with slots: it sees the records of all slots, and the metric must not jump
    /// between their numbers.
    pub fn transitions(&self) -> Option<u32> {
        self.transitions.filter(|_| self.config.slots.is_none() || self.is_leading())
    }

    /// Returns the slot in which the command may be alive.
    pub fn leading_slot(&self) -> Option<usize> {
        self.slot.filter(|_| self.is_leading())
    }

    /// Returns whether the command may be alive.
    pub fn is_leading(&self) -> bool {
        self.leading.is_some()
    }

    /// Returns whether the command has been started and may be alive.
    pub fn is_command_running(&self) -> bool {
        self.leading.as_ref().is_some_and(|leading| leading.command_started)
    }

    /// Returns whether the end of the command was requested and the command may still be alive.
    pub fn is_ending(&self) -> bool {
        self.leading.as_ref().is_some_and(|leading| leading.is_ending)
    }

    /// Returns the activity of this candidate.
    pub fn activity(&self, now: Instant) -> Activity {
        match &self.observed {
            _ if self.is_leading() => Activity::Leading,
            _ if self.is_over => Activity::Releasing,
            None => Activity::Starting,
            Some(observed) if now >= observed.acquirable_at => Activity::Claiming,
            Some(observed) if observed.holder.is_empty() => Activity::NotDue,
            Some(_) => Activity::Waiting,
        }
    }

    /// Returns the time since the lock was last read, written or watched successfully, or since the start.
    pub fn last_success_age(&self, now: Instant) -> Duration {
        self.freshness.age(now)
    }

    /// Returns the measured scheduling delays, each with the label of its thread.
    pub fn scheduling_delays(&self) -> impl Iterator<Item = (&'static str, Duration)> {
        let SchedulingDelays { elector, election, supervisor } = self.scheduling_delays;
        let delays = [("elector", elector), ("election", election), ("supervisor", supervisor)];
        delays.into_iter().filter_map(|(thread, delay)| Some((thread, delay?)))
    }

    /// Returns how long it is estimated to take to kill the command; `None` if that is negligible.
    pub fn kill_time(&self) -> Option<Duration> {
        self.kill_time
    }

    /// Checks whether this process is healthy. If it is not, a restart may help.
    ///
    /// # Errors
    /// Returns the reason why it is unhealthy.
    pub fn health(&self, now: Instant) -> Result<(), String> {
        if let Some(leading) = self.leading.as_ref().filter(|leading| now >= leading.gone_by) {
            return Err(format!(
                "leadership should have ended {} ago, but has not",
                formatted_age(leading.gone_by, now)
            ));
        }
        if let Some(due) = self.election_due.filter(|due| now >= *due + ELECTION_DELAY_LIMIT) {
            return Err(format!("the election is stuck: it was due {} ago", formatted_age(due, now)));
        }
        match (self.config.unhealthy_after, self.obstacle(now)) {
            (Some(limit), Some(obstacle)) if now >= obstacle.since + limit => {
                let reason = self.explain(&obstacle, now);
                Err(format!("unable to lead for {}: {reason}", formatted_age(obstacle.since, now)))
            }
            _ => Ok(()),
        }
    }

    /// Checks whether this candidate is ready according to `--ready-when`.
    ///
    /// # Errors
    /// Returns the reason why it is not ready.
    pub fn readiness(&self, now: Instant) -> Result<(), String> {
        self.health(now)?;
        match (&self.leading, self.config.ready_when) {
            (Some(leading), _) if leading.lost || now >= leading.stop => Err("leadership is lost".into()),
            (Some(LeadershipState { command_started: true, .. }), _) => Ok(()),
            (_, ReadyWhen::Leading) => Err("not leading".into()),
            (None, ReadyWhen::Waiting) if self.was_lost => Err("leadership is lost".into()),
            (None, ReadyWhen::Waiting) if self.is_over => Err("the command has ended".into()),
            (_, ReadyWhen::Waiting) => match self.obstacle(now) {
                Some(obstacle) => Err(self.explain(&obstacle, now)),
                None => Ok(()),
            },
        }
    }

    /// Returns the reason why this candidate cannot take over, if there is one.
    fn obstacle(&self, now: Instant) -> Option<Obstacle> {
        if self.is_leading() || self.is_over {
            return None;
        }
        self.freshness.obstacle(now, self.observed.as_ref().map(|observed| observed.acquirable_at))
    }

    fn explain(&self, obstacle: &Obstacle, now: Instant) -> String {
        let lock = &self.config.lock;
        match obstacle.kind {
            ObstacleKind::NeverRead => format!("{lock} has not been read yet"),
            ObstacleKind::NoResponse => {
                let silence = formatted_age(obstacle.since, now);
                format!("{lock} has not been read or watched successfully for {silence}")
            }
            ObstacleKind::ClaimsRefused => format!("{lock} is free, but attempts to acquire it are refused"),
        }
    }

    /// Returns a description of this candidate's activity, on one line.
    pub fn summary(&self, now: Instant) -> String {
        let lock = &match self.slot {
            Some(slot) => format!("{}-{slot}", self.config.lock),
            None => self.config.lock.clone(),
        };
        if let Some(leading) = &self.leading {
            return match leading {
                LeadershipState { lost: true, .. } => format!("lost {lock}: ending the command"),
                LeadershipState { is_ending: true, .. } => format!("leading {lock}: ending the command"),
                LeadershipState { .. } => format!("leading {lock}"),
            };
        }
        if self.is_over {
            return if self.was_lost {
                format!("the command has ended after {lock} was lost")
            } else {
                format!("the command has ended: releasing {lock}")
            };
        }
        match (self.obstacle(now).map(|obstacle| obstacle.kind), &self.observed) {
            (Some(ObstacleKind::NeverRead), _) | (None, None) => format!("starting: {lock} has not been read yet"),
            (Some(ObstacleKind::NoResponse), _) => format!("standby: cannot read or watch {lock}"),
            (Some(ObstacleKind::ClaimsRefused), _) => format!("standby: attempts to acquire {lock} are refused"),
            (None, Some(observed)) => match self.activity(now) {
                Activity::Claiming => format!("standby: acquiring {lock}"),
                Activity::NotDue => format!("standby: {lock} is free, but the command is not due yet"),
                _ => format!("standby: {lock} is held by {}", printable(&observed.holder)),
            },
        }
    }

    /// Returns the JSON document of `/leader`.
    pub fn leader(&self, now: Instant) -> String {
        let observed = self.observed.as_ref().filter(|observed| !observed.holder.is_empty());
        let remaining = match &self.leading {
            Some(leading) => Some(leading.stop.since(now)),
            None => observed.map(|observed| observed.acquirable_at.since(now)),
        };
        let response = LeaderResponse {
            lock: &self.config.lock,
            slots: self.config.slots,
            slot: self.leading_slot(),
            identity: &self.config.identity,
            leading: self.is_leading(),
            leader: observed.map(|observed| observed.holder.as_str()),
            since: observed.and_then(|observed| observed.since),
            remaining_seconds: remaining.map(|remaining| remaining.as_millis() as f64 / 1000.0),
            transitions: self.transitions,
        };
        serde_json::to_string(&response).unwrap_or_default() + "\n"
    }

    /// Returns the counters as text, for [`new`](Self::new) after a rejoin.
    pub fn saved_counters(&self) -> String {
        serde_json::to_string(&self.counters).unwrap_or_default()
    }
}

/// Returns the time since an instant as text, rounded down to a second.
fn formatted_age(instant: Instant, now: Instant) -> String {
    format_duration(Duration::from_secs(now.since(instant).as_secs())).to_string()
}

#[cfg(test)]
mod tests;
