//! `leaderrun status`: who holds a lock, as far as its record says.

use std::fmt;
use std::time::Duration;

use anyhow::Result;
use humantime::format_duration;
use jiff::{SignedDuration, Timestamp};
use leaderrun_core::record::{Record, RunId};
use serde::Serialize;

use super::{CommandOutput, LockTarget, Output, answered};
use crate::telemetry::log::printable;

/// Durations longer than this are shown in whole seconds.
const BRIEF: Duration = Duration::from_secs(10);

/// Reads the record and says what it means.
pub async fn status(target: LockTarget, output: Output) -> Result<CommandOutput> {
    let (lock, name) = target.open().await?;
    let stored = answered(&name, lock.get()).await?;
    let record = stored.map(|stored| stored.record);
    let status = Status::new(name.to_string(), record.as_ref(), Timestamp::now());
    let text = match output {
        Output::Text => status.to_string(),
        Output::Json => json(&status)?,
    };
    Ok(CommandOutput { text, status: status.state as u8 })
}

/// What the record says at some time of this machine's clock.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    lock: String,
    state: State,
    holder: Option<String>,
    /// Which run of leaderrun wrote the record; none where another program did.
    run: Option<RunId>,
    acquired: Option<Timestamp>,
    held_for_seconds: Option<f64>,
    renewed: Option<Timestamp>,
    renewed_seconds_ago: Option<f64>,
    lease_duration_seconds: Option<u32>,
    expires_in_seconds: Option<f64>,
    transitions: u32,
    not_before: Option<Timestamp>,
}

/// Its number is the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Held = 0,
    Free = 1,
    /// Held, and not renewed in time by this machine's clock.
    Expired = 2,
}

impl Status {
    fn new(lock: String, record: Option<&Record>, now: Timestamp) -> Self {
        let free = Record::default();
        let record = record.unwrap_or(&free);
        let is_held = record.is_held();
        let acquired = record.acquire_time.filter(|_| is_held);
        let expires = expires(record);
        let state = match expires {
            _ if !is_held => State::Free,
            Some(expires) if expires <= now => State::Expired,
            _ => State::Held,
        };
        let since = |time: Timestamp| seconds(now.duration_since(time));
        Self {
            lock,
            state,
            holder: is_held.then(|| record.holder_identity.clone()),
            run: record.mark().map(|mark| mark.run.clone()),
            acquired,
            held_for_seconds: acquired.map(since),
            renewed: record.renew_time,
            renewed_seconds_ago: record.renew_time.map(since),
            lease_duration_seconds: record.lease_duration_seconds,
            expires_in_seconds: expires.map(|expires| seconds(expires.duration_since(now))),
            transitions: record.lease_transitions,
            not_before: record.due(),
        }
    }
}

/// When a record that is held runs out, by the holder's clock.
pub(super) fn expires(record: &Record) -> Option<Timestamp> {
    let lasts = SignedDuration::from_secs(record.lease_duration_seconds?.into());
    record.renew_time.filter(|_| record.is_held())?.checked_add(lasts).ok()
}

/// With milliseconds.
fn seconds(duration: SignedDuration) -> f64 {
    duration.as_millis() as f64 / 1000.0
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, value: String| writeln!(f, "{name:<13} {value}");
        let unknown = "unknown: the record does not say".to_owned();
        line("lock", self.lock.clone())?;
        line("state", self.state.in_words().to_owned())?;
        if let Some(holder) = &self.holder {
            line("holder", if holder.is_empty() { "nobody by name".to_owned() } else { printable(holder) })?;
            let run = self.run.as_ref().map(|run| printable(&run.to_string()));
            line("run", run.unwrap_or_else(|| "none: the record was not written by leaderrun".to_owned()))?;
            line("held for", self.held_for_seconds.map_or(unknown.clone(), length))?;
        }
        match (self.state, self.renewed_seconds_ago) {
            (State::Free, None) => {}
            (State::Free, Some(ago)) => line("released", moment(ago))?,
            (_, ago) => line("last renewed", ago.map_or(unknown.clone(), moment))?,
        }
        match self.expires_in_seconds {
            _ if self.state == State::Free => {}
            Some(left) if left > 0.0 => line("expires in", length(left))?,
            Some(left) => line("ran out", moment(-left))?,
            None => line("expires in", unknown)?,
        }
        if let Some(not_before) = self.not_before {
            line("not before", format!("{not_before:.0}"))?;
        }
        line("transitions", self.transitions.to_string())
    }
}

impl State {
    fn in_words(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Free => "free",
            Self::Expired => "run out, by this machine's clock",
        }
    }
}

fn moment(seconds_ago: f64) -> String {
    match seconds_ago < 0.0 {
        true => format!("{} in the future: the holder's clock differs from this machine's", length(-seconds_ago)),
        false => format!("{} ago", length(seconds_ago)),
    }
}

fn length(seconds: f64) -> String {
    let length = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX);
    let unit = if length < BRIEF { 100 } else { 1000 };
    let units = u64::try_from(length.as_millis()).unwrap_or(u64::MAX) / unit;
    format_duration(Duration::from_millis(units.saturating_mul(unit))).to_string()
}

/// One line of JSON that is safe on a terminal: whatever is not ASCII, and only text can be, is escaped.
fn json(status: &Status) -> Result<String> {
    let mut line = String::new();
    for character in serde_json::to_string(status)?.chars() {
        match character {
            ' '..='~' => line.push(character),
            character => character.encode_utf16(&mut [0; 2]).iter().for_each(|unit| line += &format!("\\u{unit:04x}")),
        }
    }
    Ok(line + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use leaderrun_core::record::{RunMark, RunState};

    const RENEWED: &str = "2026-01-02T03:04:05Z";

    fn held() -> Record {
        let renew_time = RENEWED.parse().unwrap();
        Record {
            holder_identity: "pod-0".into(),
            lease_duration_seconds: Some(15),
            acquire_time: Some("2026-01-02T03:01:00Z".parse().unwrap()),
            renew_time: Some(renew_time),
            lease_transitions: 3,
            run: Some(RunMark { run: RunId::new("r"), state: RunState::Held, renew_time }),
            ..Record::default()
        }
    }

    fn after(record: Option<&Record>, milliseconds: i64) -> Status {
        let renewed: Timestamp = RENEWED.parse().unwrap();
        Status::new("a/b".into(), record, renewed + SignedDuration::from_millis(milliseconds))
    }

    #[test]
    fn a_record_that_is_renewed_is_held() {
        let status = after(Some(&held()), 1250);
        assert_eq!(status.state, State::Held);
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
    fn a_record_that_is_not_renewed_has_run_out() {
        assert_eq!(after(Some(&held()), 14_999).state, State::Held);
        let status = after(Some(&held()), 16_000);
        assert_eq!(status.state, State::Expired);
        assert!(status.to_string().contains("ran out       1s ago"), "{status}");
    }

    #[test]
    fn what_was_released_or_never_held_is_free() {
        let mut released = Record { holder_identity: String::new(), ..held() };
        released.run = released.run.map(|mark| RunMark { state: RunState::Released, ..mark });
        let status = after(Some(&released), 2000);
        assert_eq!((status.state, status.holder.clone(), status.expires_in_seconds), (State::Free, None, None));
        assert!(status.to_string().contains("released      2s ago"), "{status}");
        let never = after(None, 0);
        assert_eq!(never.state, State::Free);
        assert_eq!(never.to_string(), "lock          a/b\nstate         free\ntransitions   0\n");
    }

    #[test]
    fn a_clock_that_differs_is_said() {
        let status = after(Some(&held()), -5000);
        assert!(status.to_string().contains("last renewed  5s in the future: the holder's clock differs"), "{status}");
    }

    #[test]
    fn text_of_others_cannot_command_a_terminal() {
        let mut hostile = held();
        hostile.holder_identity = "a\u{1b}[2J\u{9b}2J\u{202e}\n\u{1f600}".into();
        let status = after(Some(&hostile), 0);
        assert!(status.to_string().contains("holder        a\\u{1b}[2J\\u{9b}2J\\u{202e}\\n"), "{status}");
        let line = json(&status).unwrap();
        assert!(line.trim_end().bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{line}");
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["holder"], *hostile.holder_identity);
    }
}
