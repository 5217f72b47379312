//! What a candidate learns, from replies and from its watch.

use core::time::Duration;

use super::observed_record::ObservedRecord;
use super::protocol::{Action, Leadership, News, Now, Outcome, Reply};
use super::{Election, Phase, Watching, Write, herd};
use crate::instant::Instant;
use crate::record::{Record, RunId, Stored, Version};
use crate::tenure::Tenure;

/// After this many conflicts in a row the next request is put off: something is at odds with us.
const CONFLICTS_IN_A_ROW: u32 = 3;

/// Writes whose fate is unknown that are remembered; forgetting one only costs another write.
const DOUBTFUL_WRITES: usize = 16;

impl Election {
    /// What became of the request under way.
    pub(super) fn settle(&mut self, now: Now, reply: Reply) {
        let Some(attempt) = self.attempt.take() else { return };
        match reply {
            Reply::Read(stored) => {
                self.heard = now.boot;
                self.must_read = false;
                let changed = self.observe(now, stored);
                if changed && matches!(self.watching, Watching::Open { .. }) {
                    // The watch should have said so: it is dead, or begins in a future that never comes.
                    self.stop_watching();
                    self.watching = Watching::Closed { reopen_at: now.boot };
                }
                let reopens_later = matches!(self.watching, Watching::Closed { reopen_at } if reopen_at > now.boot);
                self.poll_at = reopens_later.then(|| now.boot + self.jittered_retry());
            }
            Reply::Written(stored) => {
                self.heard = now.boot;
                self.conflicts = 0;
                let nothing_written =
                    attempt.write.as_ref().is_some_and(|write| write.base.as_ref() == Some(&stored.version));
                if nothing_written {
                    self.must_read = true;
                    self.back_off(now.boot, None);
                } else {
                    self.doubtful.extend(attempt.write);
                    self.observe(now, Some(stored));
                }
            }
            Reply::Conflict => {
                self.heard = now.boot;
                self.must_read = true;
                self.send_at = now.boot;
                if self.is_waiting() {
                    self.refused = attempt.write.map(|write| write.transitions).or(self.refused);
                }
                self.conflicts += 1;
                if self.conflicts > CONFLICTS_IN_A_ROW {
                    self.back_off(now.boot, None);
                }
            }
            Reply::Refused { retry_after } => self.back_off(now.boot, retry_after),
            Reply::Unknown { retry_after } => {
                // What may have been won, or given back, is looked at before it is left.
                self.must_read |= attempt.write.is_some() && matches!(self.phase, Phase::Releasing { .. });
                self.doubtful.extend(attempt.write);
                if self.doubtful.len() > DOUBTFUL_WRITES {
                    self.doubtful.pop_front();
                }
                self.back_off(now.boot, retry_after);
            }
        }
    }

    /// Takes in the present record, from whichever source. True when it changed.
    pub(super) fn observe(&mut self, now: Now, stored: Option<Stored>) -> bool {
        let mine = stored.as_ref().filter(|stored| self.is_mine(&stored.record));
        let written = mine.and_then(|mine| self.write_of(&mine.record));
        let mine_since = written.map(|write| write.sent);
        // A create may be carried out late, when what others have created meanwhile was deleted: unseen,
        // they may have renewed until then.
        let out_of_turn = mine.is_some() && written.is_none_or(|write| write.base.as_ref() != self.sighted_version());
        let (is_mine, known) = (mine.is_some(), self.observed.is_some());
        let fallback = self.config.timing.lease_duration();
        let before = self.observed.as_ref().and_then(ObservedRecord::record).cloned();
        let changed = match &mut self.observed {
            Some(observed) => observed.update(now, stored.clone(), out_of_turn),
            none => {
                *none = Some(ObservedRecord::first(now, stored.clone(), fallback));
                true
            }
        };
        if changed {
            self.contenders = stored.as_ref().and_then(|stored| stored.record.contenders).unwrap_or(self.contenders);
            if let (Some(before), Some(stored)) = (&before, &stored) {
                let acquired = stored.record.lease_transitions.saturating_sub(before.lease_transitions);
                self.missed = self.missed.saturating_add(acquired).min(herd::MISSED_BY_MANY);
            }
            let came_to_a_free_one = !known && self.observed.as_ref().is_some_and(ObservedRecord::is_takeable);
            self.fraction = (!came_to_a_free_one).then(|| self.random.share());
        }
        let displaced = self.observed.as_ref().is_some_and(ObservedRecord::is_displaced);
        match &mut self.phase {
            Phase::Waiting => match (mine_since.filter(|_| !displaced), stored) {
                // With half of the renew deadline gone, a fresh claim comes first.
                (Some(sent), Some(stored)) if now.boot < sent + self.config.timing.renew_deadline() / 2 => {
                    self.win(sent, stored);
                }
                (_, stored) if changed && !is_mine => {
                    self.tell_change(before, stored.map(|stored| stored.record), known, now)
                }
                _ => {}
            },
            Phase::Holding { lost: true, .. } => {}
            Phase::Holding { tenure, lost, record } => {
                self.send_at = now.boot;
                match stored {
                    Some(stored) if is_mine => {
                        if is_edited(&stored.record, record) {
                            self.actions.push_back(Action::Tell(News::Edited));
                        }
                        if let Some(sent) = mine_since.filter(|sent| *sent > tenure.renewed) {
                            *tenure = Tenure::of_renewal(sent, &self.config.timing);
                            self.actions.push_back(Action::Extend(*tenure));
                        }
                        self.send_at = now.boot.max(tenure.renewed + self.config.timing.retry_period());
                    }
                    Some(Stored { record, .. }) if is_held_by_another(&record, &self.config.run) => {
                        *lost = true;
                        self.actions.push_back(Action::Lose { holder: record.holder_identity });
                    }
                    _ => self.actions.push_back(Action::Tell(News::Restoring)),
                }
            }
            Phase::Releasing { .. } => self.send_at = now.boot,
            Phase::Finished => {}
        }
        self.forget_settled_writes();
        self.heed_request_to_step_down();
        changed
    }

    /// Only in a record that is this run's own: what anybody else made of it is dealt with first.
    fn heed_request_to_step_down(&mut self) {
        let record = self.observed.as_ref().and_then(ObservedRecord::record);
        let asked = record.is_some_and(|record| self.is_mine(record) && record.asks_to_step_down(&self.config.run));
        if asked && matches!(self.phase, Phase::Holding { lost: false, .. }) && !self.asked_to_step_down {
            self.asked_to_step_down = true;
            self.actions.push_back(Action::StepDown);
        }
    }

    fn win(&mut self, sent: Instant, stored: Stored) {
        let tenure = Tenure::of_renewal(sent, &self.config.timing);
        self.stop_watching();
        // A read that began before this was known may tell of the time before it.
        self.attempt = self.attempt.take().filter(|attempt| attempt.write.is_some());
        self.claiming = false;
        self.send_at = sent + self.config.timing.retry_period();
        let (Version { uid, resource_version }, transitions) = (stored.version, stored.record.lease_transitions);
        self.actions.push_back(Action::Lead(Leadership { tenure, uid, resource_version, transitions }));
        self.phase = Phase::Holding { tenure, record: stored.record, lost: false };
    }

    /// Drops the writes that can no longer be carried out: the version they replace has been replaced.
    fn forget_settled_writes(&mut self) {
        let present = self.sighted_version().cloned();
        self.doubtful.retain(|write| write.base == present);
    }

    fn tell_change(&mut self, before: Option<Record>, after: Option<Record>, known: bool, now: Now) {
        match after {
            Some(Record { holder_identity: holder, acquire_time: since, .. }) if !holder.is_empty() => {
                if known && self.config.wait == Some(Duration::ZERO) {
                    // Whoever renews, or just took it, is alive.
                    return self.step_back(now, Outcome::NotAcquired);
                }
                if before.is_none_or(|before| before.holder_identity != holder) {
                    let lease_duration = self
                        .observed
                        .as_ref()
                        .map(|observed| observed.takeable_at().since(now.boot))
                        .unwrap_or_default();
                    self.actions.push_back(Action::Tell(News::Waiting { holder, since, lease_duration }));
                }
            }
            Some(record) if record.due().is_some_and(|due| due > now.wall) => {
                let not_before = record.due().unwrap_or_default();
                self.actions.push_back(Action::Tell(News::NotDue { not_before }));
                if self.config.wait == Some(Duration::ZERO) {
                    self.step_back(now, Outcome::NotAcquired);
                }
            }
            _ if self.observed.as_ref().is_some_and(|observed| observed.takeable_at() > now.boot) => {
                self.actions.push_back(Action::Tell(News::Displaced));
            }
            Some(_) => {
                if let Some(Record { holder_identity: holder, .. }) = before.filter(Record::is_held) {
                    self.actions.push_back(Action::Tell(News::Released { holder }));
                }
            }
            None => {}
        }
    }

    /// The write of ours that made this record.
    fn write_of(&self, record: &Record) -> Option<&Write> {
        let under_way = self.attempt.as_ref().and_then(|attempt| attempt.write.as_ref());
        self.doubtful.iter().chain(under_way).find(|write| write.renew_time == record.renew_time)
    }

    pub(super) fn sighted_version(&self) -> Option<&Version> {
        Some(&self.observed.as_ref()?.stored.as_ref()?.version)
    }
}

/// Whether somebody changed in a record of this run what no renewal changes.
fn is_edited(present: &Record, written: &Record) -> bool {
    let Record { renew_time, run, step_down, .. } = present.clone();
    Record { renew_time, run, step_down, ..written.clone() } != *present
}

/// Whether a record that is not this run's names another holder, rather than none.
fn is_held_by_another(record: &Record, run: &RunId) -> bool {
    !record.holder_identity.is_empty() || record.mark().is_some_and(|mark| mark.run != *run)
}
