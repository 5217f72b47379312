//! `leaderrun step-down`: asks the holder of a lock to hand it over.

use anyhow::{Result, bail};
use jiff::Timestamp;
use leaderrun_core::record::{Record, RunMark, Stored};

use super::lock_status::expires;
use super::{CommandOutput, LockTarget, answered};
use crate::lock::{Lock, LockErrorKind};
use crate::telemetry::log::printable;

/// Nobody holds it, so nobody is asked.
const FREE: u8 = 1;

/// Puts the request into the record, which otherwise stays as it is, and returns. The holder finds it when it renews.
pub async fn step_down(target: LockTarget) -> Result<CommandOutput> {
    let (lock, name) = target.open().await?;
    let Some(asked) = answered(&name, ask(&*lock)).await? else {
        return Ok(CommandOutput { text: format!("{name} is free\n"), status: FREE });
    };
    let has_run_out = expires(&asked).is_some_and(|at| at <= Timestamp::now());
    let but = if has_run_out { ", which has run out by this machine's clock: it may be dead" } else { "" };
    let holder = printable(&asked.holder_identity);
    Ok(CommandOutput { text: format!("asked {holder} to step down from {name}{but}\n"), status: 0 })
}

/// The record of who was asked, if anybody holds the lock.
async fn ask(lock: &dyn Lock) -> Result<Option<Record>> {
    loop {
        let Some(Stored { record, version }) = lock.get().await? else { return Ok(None) };
        if !record.is_held() {
            return Ok(None);
        }
        let Some(RunMark { run, .. }) = record.mark().cloned() else {
            bail!("{} does not run leaderrun: it would not know what to do", printable(&record.holder_identity));
        };
        if record.asks_to_step_down(&run) {
            return Ok(Some(record));
        }
        match lock.update(version, Record { step_down: Some(run), ..record.clone() }).await {
            Ok(_) => return Ok(Some(record)),
            // It was renewed in between.
            Err(refusal) if refusal.kind == LockErrorKind::Conflict => {}
            Err(failure) => return Err(failure.into()),
        }
    }
}
