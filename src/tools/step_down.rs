//! `leaderrun step-down`: asks the holder of a lock to hand it over.

use anyhow::{Result, bail};

use super::{Answer, Place, answered};
use crate::election::record::{Record, RunMark, Stored};
use crate::lock::{Lock, LockErrorKind};
use crate::telemetry::log::printable;

/// Nobody holds it, so nobody is asked.
const FREE: u8 = 1;

/// Puts the request into the record, which otherwise stays as it is, and returns. The holder finds it when it renews.
pub async fn step_down(place: Place) -> Result<Answer> {
    let (lock, name) = place.open().await?;
    let asked = answered(&name, ask(&*lock)).await??;
    Ok(match asked {
        Some(holder) => Answer { text: format!("asked {} to step down from {name}\n", printable(&holder)), status: 0 },
        None => Answer { text: format!("{name} is free\n"), status: FREE },
    })
}

/// The name of who was asked, if anybody holds it.
async fn ask(lock: &dyn Lock) -> Result<Option<String>> {
    loop {
        let Some(Stored { record, version }) = lock.get().await? else { return Ok(None) };
        if !record.is_held() {
            return Ok(None);
        }
        let holder = record.holder_identity.clone();
        let Some(RunMark { run, .. }) = record.mark().cloned() else {
            bail!("{} does not run leaderrun: it would not know what to do", printable(&holder));
        };
        if record.asks_to_step_down(&run) {
            return Ok(Some(holder));
        }
        match lock.update(version, Record { step_down: Some(run), ..record }).await {
            Ok(_) => return Ok(Some(holder)),
            // It was renewed in between.
            Err(refusal) if refusal.kind == LockErrorKind::Conflict => {}
            Err(failure) => return Err(failure.into()),
        }
    }
}
