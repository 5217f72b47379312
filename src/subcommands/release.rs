//! `leaderrun release --force`: releases a lock whose holder is known to be dead.

use std::time::Duration;

use anyhow::Result;
use humantime::format_duration;
use jiff::Timestamp;
use leaderrun_core::record::{Record, Stored};
use tokio::time::sleep;

use super::lock_status::LockStatus;
use super::output::print;
use super::{CommandOutput, LockTarget, READ_INTERVAL, open, warn_if_slotted, with_request_timeout};
use crate::kubernetes::ClusterAccess;
use crate::lock::{Lock, LockErrorKind, LockName};
use crate::process::clock;
use crate::telemetry::log::on_one_line;

/// The exit status if the lock is free and no candidate has to wait for an earlier holder.
const FREE: u8 = 1;

/// The exit status if the lock is renewed or acquired.
const RENEWED: u8 = 2;

/// How many of the holder's retry periods to wait for a renewal. It is more than one, because a renewal may be late.
const RETRY_PERIODS: u32 = 2;

/// The shortest wait for a renewal.
const MIN_OBSERVATION_TIME: Duration = Duration::from_secs(2);

/// The lease duration that is assumed if the record contains none.
const USUAL_LEASE_DURATION: Duration = Duration::from_secs(15);

/// If the record does not contain the holder's retry period, the wait for a renewal is the lease duration divided by
/// this number.
const LEASE_DIVISOR: u32 = 3;

/// Releases the lock, unless its holder renews it within `observe`. The default is [`observation_time`].
pub async fn release(target: LockTarget, observe: Option<Duration>) -> Result<CommandOutput> {
    let access = ClusterAccess::new(target.cluster);
    let (lock, name) = open(target.lock, &access).await?;
    let before = with_request_timeout(&name, &*lock, lock.get()).await?;
    // If the lock has slots, candidates use only the locks of the slots. No candidate holds this one or waits for it.
    if before.is_none() && warn_if_slotted(&name, &access).await {
        return Ok(CommandOutput::sentence(&format!("{name} is free"), FREE));
    }
    let record = before.as_ref().map(|stored| &stored.record);
    // If the record names no holder, only a valid mark proves that the last holder released the lock; another client
    // may have removed the name.
    if record.is_some_and(|record| !record.is_held() && record.mark().is_some()) {
        return Ok(CommandOutput::sentence(&format!("{name} is free"), FREE));
    }
    let observe = observe.unwrap_or_else(|| observation_time(record));
    let held = describe(&name, record);
    print(&format!("{}; waiting {} for a renewal\n", on_one_line(&held), format_duration(observe)))?;
    let until = clock::now() + observe;
    let mut latest = before.clone();
    while clock::now() < until {
        sleep(READ_INTERVAL.min(until.since(clock::now()))).await;
        latest = with_request_timeout(&name, &*lock, lock.get()).await?;
        if renewed_part(latest.as_ref()) != renewed_part(before.as_ref()) {
            return Ok(refused(&name));
        }
    }
    let released = latest.as_ref().map(|stored| stored.record.clone()).unwrap_or_default();
    let released = released.released_by_force(Timestamp::now());
    if !with_request_timeout(&name, &*lock, write(&*lock, latest, released)).await? {
        return Ok(refused(&name));
    }
    let sentence = format!(
        "forcibly released {name}: any candidate may acquire it immediately, even if a command of the earlier holder is \
         still running"
    );
    Ok(CommandOutput::sentence(&sentence, 0))
}

/// Writes the record if the stored record has not changed since it was seen. Returns whether the record was written.
async fn write(lock: &dyn Lock, seen: Option<Stored>, record: Record) -> Result<bool> {
    let written = match seen {
        Some(Stored { version, .. }) => lock.update(version, record).await,
        None => lock.create(record).await,
    };
    match written {
        Ok(_) => Ok(true),
        Err(refusal) if refusal.kind == LockErrorKind::Conflict => Ok(false),
        Err(failure) => Err(failure.into()),
    }
}

/// Returns the parts of a stored record whose change counts as a renewal: everything except a request to step down and
/// the resourceVersion.
fn renewed_part(stored: Option<&Stored>) -> Option<(Record, &str)> {
    stored.map(|stored| (Record { step_down: None, ..stored.record.clone() }, stored.version.uid.as_str()))
}

/// Returns how long to wait for a renewal.
fn observation_time(record: Option<&Record>) -> Duration {
    let by_record = record.and_then(Record::retry_period).map(|period| period.saturating_mul(RETRY_PERIODS));
    let lease = record.map_or(USUAL_LEASE_DURATION, |record| record.lease_duration(USUAL_LEASE_DURATION));
    by_record.unwrap_or(lease / LEASE_DIVISOR).max(MIN_OBSERVATION_TIME)
}

/// Describes the current state of the lock, which the release overrides.
fn describe(name: &LockName, record: Option<&Record>) -> String {
    let status = LockStatus::new(name.to_string(), record, Timestamp::now());
    match record.filter(|record| record.is_held()) {
        None => {
            format!("{name} has no holder, but candidates may still be waiting for an earlier holder's lease to expire")
        }
        Some(record) => {
            let acquired = record.acquire_time.map(|time| format!(", acquired at {time:.0}")).unwrap_or_default();
            let renewed = record.renew_time.map(|time| format!(", last renewed at {time:.0}")).unwrap_or_default();
            let lease = format_duration(record.lease_duration(USUAL_LEASE_DURATION));
            format!("{}{acquired}{renewed}, and expires {lease} after the last renewal", status.held_by())
        }
    }
}

fn refused(name: &LockName) -> CommandOutput {
    let sentence = format!("{name} is being renewed, so its holder is alive; try leaderrun step-down --lock {name}");
    CommandOutput::sentence(&sentence, RENEWED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use leaderrun_core::record::{MarkState, RunId, RunMark};

    #[test]
    fn the_wait_for_a_renewal_covers_two_retry_periods_or_a_third_of_the_lease() {
        let renew_time = Timestamp::UNIX_EPOCH;
        let mark = RunMark { run: RunId::new("r"), state: MarkState::Held, renew_time };
        let observation_with = |lease_duration_seconds, retry_period_millis| {
            let renew_time = Some(renew_time);
            let run = Some(mark.clone());
            observation_time(Some(&Record {
                lease_duration_seconds,
                retry_period_millis,
                renew_time,
                run,
                ..Record::default()
            }))
        };
        assert_eq!(observation_with(Some(3600), Some(2000)), Duration::from_secs(4));
        assert_eq!(
            observation_with(Some(3600), None),
            Duration::from_secs(1200),
            "without a retry period in the record, the wait should be a third of the lease duration"
        );
        assert_eq!(observation_with(Some(6), Some(100)), MIN_OBSERVATION_TIME);
        assert_eq!(observation_time(None), Duration::from_secs(5));
    }
}
