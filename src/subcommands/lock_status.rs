//! The status of a lock, derived from its record and the time, as text and as JSON.

use std::fmt;
use std::time::Duration;

use anyhow::Result;
use humantime::format_duration;
use jiff::{SignedDuration, Timestamp};
use leaderrun_core::record::{Record, RecordSlot, RunId};
use serde::Serialize;

use crate::telemetry::log::{on_one_line, printable};

/// Durations below this limit are truncated to tenths of a second, longer ones to whole seconds.
const TENTHS_LIMIT: Duration = Duration::from_secs(10);

/// The status of a lock at one instant, according to this machine's clock.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LockStatus {
    pub lock: String,
    /// The slot number according to the record; `None` if there is no record, or if it states no slot.
    slot: Option<u32>,
    /// How many slots the lock has, according to the record.
    slots: Option<u32>,
    pub state: LockState,
    /// Whether there is a record. A lock without a record was never held, or its record was deleted.
    has_record: bool,
    pub holder: Option<String>,
    /// The run that the record's mark names; `None` without a valid mark, for example because another program wrote the
    /// record.
    run: Option<RunId>,
    acquired: Option<Timestamp>,
    pub held_for_seconds: Option<f64>,
    renewed: Option<Timestamp>,
    pub renewed_seconds_ago: Option<f64>,
    lease_duration_seconds: Option<u32>,
    pub expires_in_seconds: Option<f64>,
    /// How long the holder waits before it claims a free lock (`--claim-delay`); `None` if it does not wait, or if
    /// there is no holder.
    pub claim_delay_seconds: Option<f64>,
    pub transitions: u32,
    pub not_before: Option<Timestamp>,
}

/// The state of a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LockState {
    Held,
    Free,
    /// The lock is held, but according to this machine's clock it was not renewed in time.
    Expired,
    /// The lock is free, but must not be acquired yet because of `--min-hold`.
    NotDue,
}

impl LockStatus {
    /// Returns the status of a lock with this record at `now`, according to this machine's clock.
    pub fn new(lock: String, record: Option<&Record>, now: Timestamp) -> Self {
        let has_record = record.is_some();
        let free = Record::default();
        let record = record.unwrap_or(&free);
        let is_held = record.is_held();
        let acquired = record.acquire_time.filter(|_| is_held);
        let expires_at = expiry_time(record);
        let state = match expires_at {
            _ if !is_held && record.valid_not_before().is_some_and(|not_before| not_before > now) => LockState::NotDue,
            _ if !is_held => LockState::Free,
            Some(expires_at) if expires_at <= now => LockState::Expired,
            _ => LockState::Held,
        };
        let since = |time: Timestamp| seconds(now.duration_since(time));
        Self {
            lock,
            slot: record.slot.map(|slot| slot.number),
            slots: record.slot.map(|slot| slot.count),
            state,
            has_record,
            holder: is_held.then(|| record.holder_identity.clone()),
            run: record.mark().map(|mark| mark.run.clone()),
            acquired,
            held_for_seconds: acquired.map(since),
            renewed: record.renew_time,
            renewed_seconds_ago: record.renew_time.map(since),
            lease_duration_seconds: record.lease_duration_seconds,
            expires_in_seconds: expires_at.map(|at| seconds(at.duration_since(now))),
            claim_delay_seconds: Some(record.claim_delay().as_secs_f64()).filter(|delay| is_held && *delay > 0.0),
            transitions: record.lease_transitions,
            not_before: record.valid_not_before(),
        }
    }

    /// Returns whether two statuses of a lock differ in more than the renewal, the slot and durations. As time passes,
    /// they differ only once the lock expires or its not-before time passes.
    pub fn differs_from(&self, other: &Self) -> bool {
        let compared = |status: &Self| {
            let Self { state, has_record, holder, run, acquired, transitions, not_before, .. } = status;
            (*state, *has_record, holder.clone(), run.clone(), *acquired, *transitions, *not_before)
        };
        compared(self) != compared(other)
    }

    /// Returns the slot number and the number of slots, if the record states them.
    pub fn record_slot(&self) -> Option<RecordSlot> {
        Some(RecordSlot { number: self.slot?, count: self.slots? })
    }

    /// Returns a phrase that names the lock and its holder.
    pub fn held_by(&self) -> String {
        format!("{} is held by {}", self.lock, self.holder.as_deref().map(printable_holder).unwrap_or_default())
    }

    /// Returns the status as one sentence.
    pub fn sentence(&self) -> String {
        let Self { lock, state, holder, transitions, not_before, .. } = self;
        let holder = holder.as_deref().map(printable_holder).unwrap_or_default();
        match state {
            LockState::Held => format!("{}, transitions {transitions}", self.held_by()),
            LockState::Expired => {
                format!("{lock} has expired, by this machine's clock: {holder} has not renewed it in time")
            }
            LockState::Free if !self.has_record => format!("{lock} is free: it has no record"),
            LockState::Free => format!("{lock} is free, transitions {transitions}"),
            LockState::NotDue => {
                let when = not_before.map_or_else(|| "yet".to_owned(), |time| format!("before {time:.0}"));
                format!("{lock} is free, but its command is not due {when}")
            }
        }
    }

    /// Returns the status as one line of JSON. Characters other than printable ASCII, which only occur in strings, are
    /// escaped, so that the line is safe on a terminal.
    pub fn json(&self) -> Result<String> {
        Ok(escaped_json(&serde_json::to_string(self)?) + "\n")
    }
}

/// Escapes all characters of a JSON text that are not printable ASCII.
pub fn escaped_json(json: &str) -> String {
    let mut line = String::new();
    for character in json.chars() {
        match character {
            ' '..='~' => line.push(character),
            character => character.encode_utf16(&mut [0; 2]).iter().for_each(|unit| line += &format!("\\u{unit:04x}")),
        }
    }
    line
}

/// Returns a holder's identity, which may come from another program, in printable form.
fn printable_holder(holder: &str) -> String {
    if holder.is_empty() { "a holder without a name".to_owned() } else { printable(holder) }
}

/// Returns when a held record expires, according to the holder's clock.
pub fn expiry_time(record: &Record) -> Option<Timestamp> {
    let lease_duration = SignedDuration::from_secs(record.lease_duration_seconds?.into());
    record.renew_time.filter(|_| record.is_held())?.checked_add(lease_duration).ok()
}

/// Returns a duration in seconds, truncated to milliseconds.
fn seconds(duration: SignedDuration) -> f64 {
    duration.as_millis() as f64 / 1000.0
}

impl fmt::Display for LockStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, value: String| writeln!(f, "{name:<13} {}", on_one_line(&value));
        let unknown = "unknown: the record does not say".to_owned();
        line("lock", self.lock.clone())?;
        if let Some(slot) = self.record_slot() {
            line("slot", slot.to_string())?;
        }
        let state = match self.state {
            LockState::Held => "held",
            LockState::Free if self.has_record => "free",
            LockState::Free => "free: it has no record, so it was never held, or its record was deleted",
            LockState::Expired => "expired, by this machine's clock",
            LockState::NotDue => "free, but its command is not due yet",
        };
        line("state", state.to_owned())?;
        if let Some(holder) = &self.holder {
            line("holder", printable_holder(holder))?;
            let run = self.run.as_ref().map(|run| printable(&run.to_string()));
            line("run", run.unwrap_or_else(|| "none: the record was not written by leaderrun".to_owned()))?;
            line("held for", self.held_for_seconds.map_or(unknown.clone(), formatted_seconds))?;
        }
        match (self.state, self.renewed_seconds_ago) {
            (LockState::Free | LockState::NotDue, None) => {}
            (LockState::Free | LockState::NotDue, Some(ago)) => line("released", formatted_ago(ago))?,
            (_, ago) => line("last renewed", ago.map_or(unknown.clone(), formatted_ago))?,
        }
        match self.expires_in_seconds {
            _ if matches!(self.state, LockState::Free | LockState::NotDue) => {}
            Some(left) if left > 0.0 => line("expires in", formatted_seconds(left))?,
            Some(left) => line("expired", formatted_ago(-left))?,
            None => line("expires in", unknown)?,
        }
        if let Some(not_before) = self.not_before {
            line("not before", format!("{not_before:.0}"))?;
        }
        if let Some(delay) = self.claim_delay_seconds {
            line("claim delay", formatted_seconds(delay))?;
        }
        line("transitions", self.transitions.to_string())
    }
}

impl LockState {
    /// Returns the exit status of `leaderrun status`.
    pub fn exit_status(self) -> u8 {
        match self {
            Self::Held => 0,
            Self::Free | Self::NotDue => 1,
            Self::Expired => 2,
        }
    }

    /// Returns the word for the state in tables.
    pub fn word(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Free => "free",
            Self::Expired => "expired",
            Self::NotDue => "not due",
        }
    }
}

fn formatted_ago(seconds_ago: f64) -> String {
    if seconds_ago < 0.0 {
        format!("{} in the future: the holder's clock differs from this machine's", formatted_seconds(-seconds_ago))
    } else {
        format!("{} ago", formatted_seconds(seconds_ago))
    }
}

/// Formats a number of seconds as a duration.
pub fn formatted_seconds(seconds: f64) -> String {
    let duration = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX);
    let unit = if duration < TENTHS_LIMIT { 100 } else { 1000 };
    let units = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX) / unit;
    format_duration(Duration::from_millis(units.saturating_mul(unit))).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use leaderrun_core::record::{MarkState, RunMark};

    const RENEWED: &str = "2026-01-02T03:04:05Z";

    fn held() -> Record {
        let renew_time = RENEWED.parse().unwrap();
        Record {
            holder_identity: "pod-0".into(),
            lease_duration_seconds: Some(15),
            acquire_time: Some("2026-01-02T03:01:00Z".parse().unwrap()),
            renew_time: Some(renew_time),
            lease_transitions: 3,
            run: Some(RunMark { run: RunId::new("r"), state: MarkState::Held, renew_time }),
            ..Record::default()
        }
    }

    fn status_after(record: Option<&Record>, milliseconds: i64) -> LockStatus {
        let renewed: Timestamp = RENEWED.parse().unwrap();
        LockStatus::new("a/b".into(), record, renewed + SignedDuration::from_millis(milliseconds))
    }

    #[test]
    fn a_record_that_is_renewed_is_held() {
        let status = status_after(Some(&held()), 1250);
        assert_eq!(status.state, LockState::Held);
        assert_eq!((status.held_for_seconds, status.expires_in_seconds), (Some(186.25), Some(13.75)));
        let text = "\
lock          a/b
state         held
holder        pod-0
run           r
held for      3m 6s
last renewed  1s 200ms ago
expires in    13s
transitions   3
";
        assert_eq!(status.to_string(), text);
    }

    #[test]
    fn a_record_that_is_not_renewed_expires() {
        assert_eq!(status_after(Some(&held()), 14_999).state, LockState::Held);
        let status = status_after(Some(&held()), 16_000);
        assert_eq!(status.state, LockState::Expired);
        assert!(status.to_string().contains("expired       1s ago"), "{status}");
    }

    #[test]
    fn a_lock_that_was_released_or_never_held_is_free() {
        let mut released = Record { holder_identity: String::new(), ..held() };
        released.run = released.run.map(|mark| RunMark { state: MarkState::Released, ..mark });
        let status = status_after(Some(&released), 2000);
        assert_eq!((status.state, status.holder.clone(), status.expires_in_seconds), (LockState::Free, None, None));
        assert!(status.to_string().contains("released      2s ago"), "{status}");
        let never = status_after(None, 0);
        assert_eq!(never.state, LockState::Free);
        assert_eq!(
            never.to_string(),
            "lock          a/b\nstate         free: it has no record, so it was never held, or its record was deleted\ntransitions   0\n"
        );
    }

    #[test]
    fn a_released_lock_is_not_due_before_its_not_before_time() {
        let due = RENEWED.parse::<Timestamp>().unwrap() + SignedDuration::from_secs(10);
        let mut released = Record { holder_identity: String::new(), not_before: Some(due), ..held() };
        released.run = released.run.map(|mark| RunMark { state: MarkState::Released, ..mark });
        assert_eq!(status_after(Some(&released), 9999).state, LockState::NotDue);
        assert_eq!(
            status_after(Some(&released), 9999).sentence(),
            "a/b is free, but its command is not due before 2026-01-02T03:04:15Z"
        );
        assert_eq!(status_after(Some(&released), 10_000).state, LockState::Free);
    }

    #[test]
    fn time_alone_makes_no_difference_until_the_state_changes() {
        let renewed = Record { renew_time: Some(Timestamp::UNIX_EPOCH), ..held() };
        assert!(!status_after(Some(&held()), 0).differs_from(&status_after(Some(&held()), 5000)));
        assert!(
            status_after(Some(&held()), 0).differs_from(&status_after(Some(&renewed), 0)),
            "the mark is for another renewTime"
        );
        assert!(status_after(Some(&held()), 0).differs_from(&status_after(Some(&held()), 20_000)), "the lock expires");
        assert!(status_after(Some(&held()), 0).differs_from(&status_after(None, 0)));
    }

    #[test]
    fn a_renewal_in_the_future_is_explained_by_differing_clocks() {
        let status = status_after(Some(&held()), -5000);
        assert!(status.to_string().contains("last renewed  5s in the future: the holder's clock differs"), "{status}");
    }

    #[test]
    fn untrusted_text_cannot_control_the_terminal() {
        let mut hostile = held();
        hostile.holder_identity = "a\u{1b}[2J\u{9b}2J\u{202e}\n\u{1f600}".into();
        let status = status_after(Some(&hostile), 0);
        assert!(status.to_string().contains("holder        a\\u{1b}[2J\\u{9b}2J\\u{202e}\\n"), "{status}");
        let line = status.json().unwrap();
        assert!(line.trim_end().bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{line}");
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["holder"], *hostile.holder_identity);
    }
}
