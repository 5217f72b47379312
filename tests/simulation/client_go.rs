//! A candidate that follows client-go's implementation of the protocol, which has weaker rules.

use std::time::Duration;

use fastrand::Rng;
use jiff::Timestamp;
use leaderrun_core::record::Record;

use crate::events::Event;
use crate::invariants::is_displaced;
use crate::trace;
use crate::world::World;
use testkit::simulated_time::{MILLISECOND, SECOND, Time, wall};

/// The identity of the candidate.
const NAME: &str = "client_go";

/// The maximum number of earlier records that are kept. A fault can restore one of them.
const MAX_ARCHIVED: usize = 64;

/// The retry period of the candidate. A random delay of up to another period is added.
const RETRY: Time = 2 * SECOND;

/// A client-go candidate. It polls, reads the lease before each write, and ignores marks. Its release empties the lease
/// even if another candidate holds it. Its command is not simulated.
#[derive(Debug)]
pub struct ClientGo {
    observed: Option<Record>,
    observed_at: Time,
    /// The time at which the candidate stops leading, if it leads.
    leading_until: Option<Time>,
    /// `true` if the candidate releases the lock when it stops leading.
    releases: bool,
    lease_duration: Duration,
}

impl ClientGo {
    pub fn draw(rng: &mut Rng, longest_lease: Duration) -> Self {
        let lease_duration = Duration::from_secs(rng.u64(1..=longest_lease.as_secs()));
        Self { observed: None, observed_at: 0, leading_until: None, releases: rng.bool(), lease_duration }
    }
}

impl World {
    /// Takes a step of the client-go candidate, and schedules the next one.
    pub fn wake_client_go_candidate(&mut self) {
        let Some(mut client_go) = self.client_go.take() else { return };
        if self.faults_are_over() {
            return;
        }
        self.step_client_go_candidate(&mut client_go);
        self.client_go = Some(client_go);
        let pause = RETRY + self.rng.u64(0..RETRY);
        self.schedule(self.now + pause, Event::WakeClientGoCandidate);
    }

    fn step_client_go_candidate(&mut self, client_go: &mut ClientGo) {
        if self.server_down_until > self.now {
            return;
        }
        let current = self.store.record().cloned();
        if current != client_go.observed {
            client_go.observed = current.clone();
            client_go.observed_at = self.now;
        }
        let wall = wall(self.now);
        // A Lease stores times in microseconds.
        let wall = Timestamp::from_microsecond(wall.as_microsecond()).unwrap_or(wall);
        let held_record = Record {
            holder_identity: NAME.to_owned(),
            lease_duration_seconds: Some(client_go.lease_duration.as_secs() as u32),
            acquire_time: Some(wall),
            renew_time: Some(wall),
            ..current.clone().unwrap_or_default()
        };
        let holds = current.as_ref().is_some_and(|record| record.holder_identity == NAME);
        match client_go.leading_until {
            Some(until) if self.now >= until => {
                client_go.leading_until = None;
                if client_go.releases {
                    // The release does not check the current holder.
                    let empty =
                        Record { holder_identity: String::new(), lease_duration_seconds: Some(1), ..held_record };
                    self.outside_edit("releases the lease like client-go", |_| Some(empty));
                }
            }
            Some(_) if holds => self.outside_edit("renews", |_| Some(held_record)),
            Some(_) => client_go.leading_until = None,
            None => self.try_to_acquire(client_go, current, held_record),
        }
    }

    fn try_to_acquire(&mut self, client_go: &mut ClientGo, current: Option<Record>, held_record: Record) {
        let holder = current.as_ref().filter(|record| !record.holder_identity.is_empty());
        let expires_at = holder.map(|record| {
            let duration = record.lease_duration(client_go.lease_duration);
            client_go.observed_at + duration.as_nanos() as Time
        });
        if expires_at.is_none_or(|at| self.now > at) {
            client_go.leading_until = Some(self.now + self.rng.u64(500 * MILLISECOND..20 * SECOND));
            if expires_at.is_some() {
                self.check_client_go_takeover();
            }
            self.outside_edit("acquires the lock", |_| Some(held_record));
        }
    }

    /// Checks that the holder's command is dead when client-go takes over after waiting for the record's duration.
    fn check_client_go_takeover(&mut self) {
        for index in 0..self.live_runs.len() {
            let run = self.live_runs[index];
            let holds =
                self.store.record().and_then(|record| record.mark()).is_some_and(|mark| mark.run == self.runs[run].id);
            if holds && self.runs[run].tree.runs_command() && !self.excuses_overlap_with_client_go(run) {
                let description = format!(
                    "the command of {} is still alive although client-go has waited for the whole lease duration",
                    self.name(run)
                );
                self.record_violation(crate::invariants::ViolationKind::Overlap, description);
            }
        }
    }

    /// Archives the current record. A fault can restore it later.
    pub fn archive_current(&mut self) {
        if let Some(current) = self.store.object() {
            self.archive.push_back((current.record.clone(), current.version.uid.clone()));
            if self.archive.len() > MAX_ARCHIVED {
                self.archive.pop_front();
            }
        }
    }

    /// Carries out an edit of the lease by another client. `how` describes the edit in the trace.
    pub fn outside_edit(&mut self, how: &str, change: impl FnOnce(Option<Record>) -> Option<Record>) {
        // The edit may change the record's due time, which is therefore no longer checked.
        self.not_due_before = 0;
        let current = self.store.record().cloned();
        let marked_id = current.as_ref().and_then(Record::mark).map(|mark| mark.run.clone());
        let is_marked = |run: &usize| Some(&self.runs[*run].id) == marked_id.as_ref();
        let holder = self.live_runs.iter().copied().find(is_marked);
        let before = current.clone();
        self.archive_current();
        match change(current) {
            Some(record) => drop(self.store.write(record)),
            None if self.store.object().is_some() => self.store.delete(),
            None => return,
        }
        if let (Some(run), Some(before)) = (holder, before) {
            self.runs[run].displaced |= is_displaced(&before, self.store.record());
        }
        trace!(self, "another client {how}: {}", self.describe_object());
        self.publish();
    }
}
