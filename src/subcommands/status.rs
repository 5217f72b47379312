//! `leaderrun status`: shows who holds a lock, according to its record.

use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::Result;
use futures_util::StreamExt;
use futures_util::future::try_join_all;
use jiff::{SignedDuration, Timestamp};
use leaderrun_core::election::WatchEvent;
use leaderrun_core::record::{Record, Stored};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::lock_status::{LockState, LockStatus, escaped_json, expiry_time};
use super::output::{print, warn};
use super::{
    CommandOutput, OutputFormat, REQUEST_TIMEOUT, StatusRequest, open, open_slots, warn_if_slotted,
    with_request_timeout,
};
use crate::kubernetes::{Cluster, ClusterAccess};
use crate::lock::{Lock, LockError, LockErrorKind, LockName, SlotCount};
use crate::telemetry::log::on_one_line;

/// How often a lock that cannot be watched is read.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// How long a watch may be silent before the record is read again. A watch whose connection is dead never ends.
const SILENT_WATCH_LIMIT: Duration = Duration::from_secs(90);

/// Reads the record, or the records of all slots, and describes them.
pub async fn status(request: StatusRequest) -> Result<CommandOutput> {
    let StatusRequest { target, slots, output, watch: _ } = request;
    let access = ClusterAccess::new(target.cluster);
    if let Some(slots) = slots {
        return status_of_slots(target.lock, slots, &access, output).await;
    }
    let (lock, name) = open(target.lock, &access).await?;
    let stored = with_request_timeout(&name, &*lock, lock.get()).await?;
    if stored.is_none() {
        warn_if_slotted(&name, &access).await;
    }
    if stored.is_none()
        && let Some(namespace) = &name.namespace
        && let Ok(cluster) = Cluster::open(&access, REQUEST_TIMEOUT).await
        && cluster.lacks_namespace(namespace).await
    {
        warn(&format!("there is no namespace {namespace:?}; try kubectl create namespace {namespace}"));
    }
    let record = stored.map(|stored| stored.record);
    let status = LockStatus::new(name.to_string(), record.as_ref(), Timestamp::now());
    let text = match output {
        OutputFormat::Text => status.to_string(),
        OutputFormat::Json => status.json()?,
    };
    Ok(CommandOutput { text, status: status.state.exit_status() })
}

async fn status_of_slots(
    lock: LockName,
    slots: SlotCount,
    access: &ClusterAccess,
    output: OutputFormat,
) -> Result<CommandOutput> {
    let mut statuses = Vec::new();
    for (lock, name) in open_slots(lock, Some(slots), access).await? {
        let record = with_request_timeout(&name, &*lock, lock.get()).await?.map(|stored| stored.record);
        statuses.push(LockStatus::new(name.to_string(), record.as_ref(), Timestamp::now()));
    }
    let count = |state: LockState| statuses.iter().filter(|status| status.state == state).count();
    let (held, expired) = (count(LockState::Held), count(LockState::Expired));
    let text = match output {
        OutputFormat::Text => {
            let lines: String = statuses.iter().map(|status| status.sentence() + "\n").collect();
            format!("{lines}{held} of {slots} slots are held\n")
        }
        OutputFormat::Json => escaped_json(&serde_json::to_string(&statuses)?) + "\n",
    };
    let status = match held {
        held if held == statuses.len() => LockState::Held,
        held if held + expired == statuses.len() => LockState::Expired,
        _ => LockState::Free,
    };
    Ok(CommandOutput { text, status: status.exit_status() })
}

/// Prints a line about the record, or about the record of each slot, and then a line for each change, until no process
/// reads stdout any more.
pub async fn watch(request: StatusRequest) -> Result<CommandOutput> {
    let StatusRequest { target, slots, output, watch: _ } = request;
    let locks = open_slots(target.lock, slots, &ClusterAccess::new(target.cluster)).await?;
    try_join_all(locks.iter().map(|(lock, name)| watch_one(&**lock, name, output))).await?;
    Ok(CommandOutput::nothing())
}

async fn watch_one(lock: &dyn Lock, name: &LockName, output: OutputFormat) -> Result<()> {
    let mut printer = Printer { name: name.to_string(), output, last: None };
    let mut stored = with_request_timeout(name, lock, lock.get()).await?;
    let mut logged_error = None;
    while printer.print(stored.as_ref())? {
        let watched_since = Instant::now();
        match next_record(lock, stored.as_ref(), &mut printer).await {
            Ok(ControlFlow::Continue(next)) => {
                // Don't send requests in a tight loop if every watch ends as soon as it is opened.
                if next == stored {
                    sleep_until(watched_since + POLL_INTERVAL).await;
                }
                stored = next;
                logged_error = None;
            }
            Ok(ControlFlow::Break(result)) => return result,
            Err(error) => {
                if logged_error.as_ref() != Some(&error.message) {
                    warn(&format!("{error}; reading {name} every {}s instead", POLL_INTERVAL.as_secs()));
                    logged_error = Some(error.message);
                }
                sleep(POLL_INTERVAL).await;
                if let Ok(Ok(after)) = timeout(REQUEST_TIMEOUT, lock.get()).await {
                    stored = after;
                }
            }
        }
    }
    Ok(())
}

/// Waits until the record changes, or the watch ends or is silent for too long, and returns the current record, if
/// there is one. If the lock expires before that, or its not-before time passes, prints the new status. Returns `Break`
/// if no process reads stdout any more or it cannot be written to.
async fn next_record(
    lock: &dyn Lock,
    stored: Option<&Stored>,
    printer: &mut Printer,
) -> Result<ControlFlow<Result<()>, Option<Stored>>, LockError> {
    let mut events = lock.watch(stored.map(|stored| stored.version.clone()));
    loop {
        let limit = printer.next_change(stored).min(SILENT_WATCH_LIMIT);
        match timeout(limit, events.next()).await {
            Ok(Some(Ok(WatchEvent::Changed(after)))) if Some(&after) != stored => {
                return Ok(ControlFlow::Continue(Some(after)));
            }
            Ok(Some(Ok(WatchEvent::Deleted))) if stored.is_some() => return Ok(ControlFlow::Continue(None)),
            Ok(Some(Ok(WatchEvent::Forbidden | WatchEvent::Broken))) | Ok(None) | Ok(Some(Ok(WatchEvent::Ended))) => {
                return lock.get().await.map(ControlFlow::Continue);
            }
            Ok(Some(Ok(_))) => {}
            Ok(Some(Err(error))) if error.kind == LockErrorKind::Unknown => {
                return lock.get().await.map(ControlFlow::Continue);
            }
            Ok(Some(Err(error))) => return Err(error),
            Err(_) if limit == SILENT_WATCH_LIMIT => return lock.get().await.map(ControlFlow::Continue),
            Err(_) => match printer.print(stored) {
                Ok(true) => {}
                Ok(false) => return Ok(ControlFlow::Break(Ok(()))),
                Err(failure) => return Ok(ControlFlow::Break(Err(failure))),
            },
        }
    }
}

/// Prints a line for each change.
struct Printer {
    name: String,
    output: OutputFormat,
    last: Option<LockStatus>,
}

impl Printer {
    /// Prints the current status if it differs from the last one. Returns false if no process reads stdout any more.
    fn print(&mut self, stored: Option<&Stored>) -> Result<bool> {
        let now = Timestamp::now();
        let status = LockStatus::new(self.name.clone(), stored.map(|stored| &stored.record), now);
        if self.last.as_ref().is_some_and(|last| !status.differs_from(last)) {
            return Ok(true);
        }
        let line = match self.output {
            OutputFormat::Text => format!("{now:.0} {}\n", on_one_line(&status.sentence())),
            OutputFormat::Json => status.json()?,
        };
        self.last = Some(status);
        print(&line)
    }

    /// Returns the time until the status changes although the record does not: until the lock expires, or until its
    /// not-before time has passed. Returns [`Duration::MAX`] if neither will happen.
    fn next_change(&self, stored: Option<&Stored>) -> Duration {
        let now = Timestamp::now();
        let record = stored.map(|stored| &stored.record);
        let next =
            record.and_then(expiry_time).or(record.and_then(Record::valid_not_before)).filter(|next| *next > now);
        let left = next.map(|next| next.duration_since(now) + SignedDuration::from_millis(1));
        left.and_then(|left| Duration::try_from(left).ok()).unwrap_or(Duration::MAX)
    }
}
