//! `leaderrun step-down`: asks the holder of a lock to release it.

use std::time::Duration;

use anyhow::{Result, bail};
use humantime::format_duration;
use jiff::Timestamp;
use leaderrun_core::instant::Instant;
use leaderrun_core::record::{Record, RunMark, Stored};
use tokio::time::sleep;

use super::lock_status::expiry_time;
use super::{CommandOutput, LockTarget, READ_INTERVAL, open, warn_if_slotted, with_request_timeout};
use crate::kubernetes::ClusterAccess;
use crate::lock::{Lock, LockErrorKind, LockName};
use crate::process::clock;
use crate::telemetry::log::printable;

/// The exit status if the lock is free: there is no holder to ask.
const FREE: u8 = 1;

/// The exit status if the holder still holds the lock at the end of the wait.
const STILL_HELD: u8 = 2;

/// How long to wait after the release for the next holder, whose name is printed.
const NEXT_HOLDER_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether to wait for the holder to release the lock, and for how long.
#[derive(Clone, Copy, Debug)]
pub enum Wait {
    Never,
    For(Duration),
    Forever,
}

/// Asks the holder to step down and, depending on `wait`, waits until it has released the lock.
pub async fn step_down(target: LockTarget, wait: Wait) -> Result<CommandOutput> {
    let access = ClusterAccess::new(target.cluster);
    let (lock, name) = open(target.lock, &access).await?;
    let Some(asked) = with_request_timeout(&name, &*lock, ask(&*lock)).await? else {
        warn_if_slotted(&name, &access).await;
        return Ok(CommandOutput::sentence(&format!("{name} is free"), FREE));
    };
    let end = match wait {
        Wait::Never => {
            let holder = printable(&asked.holder_identity);
            let hint = if has_expired(&asked) {
                format!(", but by this machine's clock the lease has expired, so {holder} may be dead")
            } else {
                String::new()
            };
            return Ok(CommandOutput::sentence(&format!("asked {holder} to step down from {name}{hint}"), 0));
        }
        Wait::For(limit) => Some(clock::now() + limit),
        Wait::Forever => None,
    };
    wait_for_hand_over(&*lock, &name, &asked, end).await
}

fn has_expired(record: &Record) -> bool {
    expiry_time(record).is_some_and(|at| at <= Timestamp::now())
}

/// Writes the request to step down into the record, and changes nothing else. The holder finds the request at its next
/// renewal. Returns the record of the holder, if there is one.
async fn ask(lock: &dyn Lock) -> Result<Option<Record>> {
    loop {
        let Some(Stored { record, version }) = lock.get().await? else { return Ok(None) };
        if !record.is_held() {
            return Ok(None);
        }
        let Some(RunMark { run, .. }) = record.mark().cloned() else {
            bail!("{} does not run leaderrun, so it cannot understand the request", printable(&record.holder_identity));
        };
        if record.asks_to_step_down(&run) {
            return Ok(Some(record));
        }
        match lock.update(version, Record { step_down: Some(run), ..record.clone() }).await {
            Ok(_) => return Ok(Some(record)),
            // The record has changed since the read, usually by a renewal.
            Err(refusal) if refusal.kind == LockErrorKind::Conflict => {}
            Err(failure) => return Err(failure.into()),
        }
    }
}

async fn wait_for_hand_over(
    lock: &dyn Lock,
    name: &LockName,
    asked: &Record,
    end: Option<Instant>,
) -> Result<CommandOutput> {
    let began = clock::now();
    let holder = printable(&asked.holder_identity);
    let run = asked.mark().map(|mark| mark.run.clone());
    let mut free_since = None;
    loop {
        let record = with_request_timeout(name, lock, lock.get()).await?.map(|stored| stored.record);
        let now = clock::now();
        let Some(record) = record.filter(Record::is_held) else {
            if now >= *free_since.get_or_insert(now) + NEXT_HOLDER_TIMEOUT {
                let sentence = format!("{holder} released {name}, and nobody holds it now");
                return Ok(CommandOutput::sentence(&sentence, 0));
            }
            sleep(READ_INTERVAL).await;
            continue;
        };
        if !run.as_ref().is_some_and(|run| record.is_marked_by(run)) {
            let next = printable(&record.holder_identity);
            return Ok(CommandOutput::sentence(&format!("{holder} handed {name} over to {next}"), 0));
        }
        if end.is_some_and(|end| now >= end) {
            let waited = format_duration(Duration::from_secs(now.since(began).as_secs()));
            let hint = if has_expired(&record) {
                format!(", but its lease has expired; if {holder} is dead, try leaderrun release --force --lock {name}")
            } else {
                String::new()
            };
            let sentence = format!("{holder} still holds {name} after {waited}{hint}");
            return Ok(CommandOutput::sentence(&sentence, STILL_HELD));
        }
        sleep(READ_INTERVAL).await;
    }
}
