//! Translates the notices of the state machines into log events.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use humantime::format_duration;
use jiff::Timestamp;
use leaderrun_core::election::ElectionNotice;
use leaderrun_core::elector::{ElectorNotice, SupervisorFailure};
use leaderrun_core::messages::{End, KillReason, SupervisorNotice};
use leaderrun_core::updates::Loss;

use super::command_hint::command_hint;
use super::{QuotedOptions, log_events};
use crate::exit;
use crate::process::memory::Locked;
use crate::process::signal_permission::SignalPermission;
use crate::process::signals;
use crate::telemetry::log::{printable, printable_error};

/// The lock that this process holds or has held, for log lines of the main thread. It is set at most once, because a
/// process leads at most once before it exits or re-executes itself.
static HELD_LOCK: OnceLock<HeldLock> = OnceLock::new();

/// Whether the warning that the supervisor runs late was logged. It is logged only once; a metric shows later delays.
static WARNED_OF_DELAY: AtomicBool = AtomicBool::new(false);

/// Whether the warning that a kill would take a long time was logged. It is logged only once; a metric shows later
/// estimates.
static WARNED_OF_KILL_TIME: AtomicBool = AtomicBool::new(false);

/// The shortest estimated kill time for which a warning is logged.
const LONG_KILL: Duration = Duration::from_millis(500);

/// A lock that this process holds, with the fencing token of the acquisition.
#[derive(Debug)]
struct HeldLock {
    lock: String,
    fencing_token: String,
}

/// The options that log lines name.
static OPTIONS: OnceLock<QuotedOptions> = OnceLock::new();

/// Stores the options that log lines name, as the user gave them.
pub fn set_options(options: QuotedOptions) {
    let _ = OPTIONS.set(options);
}

fn options() -> &'static QuotedOptions {
    OPTIONS.get().expect("the options are stored before the first line that names them")
}

/// Stores the lock that this process holds from now on.
pub fn set_held_lock(lock: &str, fencing_token: &str) {
    let _ = HELD_LOCK.set(HeldLock { lock: lock.to_owned(), fencing_token: fencing_token.to_owned() });
}

/// Logs how much of leaderrun is locked in memory, unless all of it is.
pub fn memory(locked: Locked) {
    if let Locked::Partly { locked, total, errno } = locked {
        log_events::memory_not_locked(locked / 1024, total / 1024, errno.desc());
    }
}

/// Logs a message if leaderrun is root but is not permitted to signal processes of other users.
pub fn signal_permission(permission: SignalPermission) {
    if permission == SignalPermission::OnlyRoot {
        log_events::cannot_signal_others();
    }
}

/// Logs a notice of the election.
pub fn election(lock: &str, notice: &ElectionNotice) {
    match notice {
        ElectionNotice::Held { holder, since, acquirable_in } => {
            let (holder, acquirable_in) = (printable_holder(holder), format_duration(*acquirable_in));
            let since = since.map(|since| format!("{since:.0}"));
            let held = match &since {
                Some(since) => format!("is held by {holder}, which acquired it at {since}"),
                None => format!("is held by {holder}"),
            };
            let sentence = format!("{lock} {held}; it expires {acquirable_in} after the last renewal");
            log_events::held(lock, &holder, since.as_deref(), &sentence);
        }
        ElectionNotice::ReleasedByForce { holder } => {
            let holder = holder.as_deref().map(printable_holder);
            let held = holder.as_ref().map(|holder| format!(", which {holder} held")).unwrap_or_default();
            let sentence = format!("leaderrun release --force released {lock}{held}");
            log_events::released_by_force(lock, holder.as_deref(), &sentence);
        }
        ElectionNotice::Released { holder } => log_events::released_by_holder(lock, &printable_holder(holder)),
        ElectionNotice::Expired { holder } => log_events::expired(lock, &printable_holder(holder)),
        ElectionNotice::Restoring => log_events::restoring(lock),
        ElectionNotice::Edited => log_events::edited(lock),
        ElectionNotice::Displaced => log_events::displaced(lock),
        ElectionNotice::NotDue { not_before } => log_events::not_due(lock, &format!("{not_before:.0}")),
        ElectionNotice::Preempting { holder } => log_events::preempting(lock, &printable_holder(holder)),
        ElectionNotice::Watching => log_events::watching(lock),
        // `ElectionLog::notify` logs this, with the reason.
        ElectionNotice::Polling => {}
    }
}

/// Logs how to find out why requests for the lock fail.
pub fn doctor_hint(lock: &str) {
    log_events::doctor_hint(lock, &options().doctor);
}

/// Logs how long this candidate has waited and, if it is known, why: requests fail, or another candidate holds the
/// lock.
pub fn still_waiting(lock: &str, holder: Option<&str>, failure: Option<&str>, waited: Duration) {
    let waited = format_duration(Duration::from_secs(waited.as_secs()));
    let holder = holder.map(printable_holder);
    let why = reason_to_wait(holder.as_deref(), failure).map(|why| format!(": {why}")).unwrap_or_default();
    log_events::still_waiting(lock, holder.as_deref(), &format!("still waiting for {lock} after {waited}{why}"));
}

/// Returns why a candidate still waits. A failure takes precedence, because what is known about the holder may be
/// outdated while requests fail.
fn reason_to_wait(holder: Option<&str>, failure: Option<&str>) -> Option<String> {
    failure.map(str::to_owned).or_else(|| Some(format!("it is held by {}", holder?)))
}

/// Logs that this candidate did not acquire the lock within `--wait`.
pub fn not_acquired(lock: &str, holder: Option<&str>, not_before: Option<Timestamp>) {
    let holder = holder.map(printable_holder);
    let why = match (&holder, not_before) {
        (Some(holder), _) => format!("it is held by {holder}"),
        (None, Some(not_before)) => format!("the command is not due before {not_before:.0}"),
        (None, None) => "the lease of its last holder has not expired".to_owned(),
    };
    let wait = &options().wait;
    log_events::not_acquired(lock, holder.as_deref(), &format!("could not acquire {lock} within {wait}: {why}"));
}

/// Logs that the lock could not be reached or used within `--wait`.
pub fn unreachable(lock: &str, failure: Option<&str>) {
    let why = failure.unwrap_or("it could not be acquired in time");
    log_events::unreachable(lock, &format!("could not use {lock} within {}: {why}", options().wait));
}

/// Logs a failed request. `role` is the Role that grants a missing permission, and `stop_in` is the time until the
/// command is stopped unless a renewal succeeds.
pub fn request_failed(lock: &str, failure: &str, role: Option<&str>, stop_in: Option<Duration>) {
    let mut sentence = match stop_in {
        None => failure.to_owned(),
        Some(time_left) => {
            let time_left = Duration::from_millis(u64::try_from(time_left.as_millis()).unwrap_or(u64::MAX) / 100 * 100);
            let time_left = format_duration(time_left);
            format!("{failure}; the command will be stopped in {time_left} unless a renewal succeeds")
        }
    };
    if role.is_some() {
        sentence += "; bind this Role to the user or service account:";
    }
    log_events::request_failed(lock, stop_in.map(|time_left| time_left.as_secs_f64()), role, &sentence);
}

/// Logs that this candidate lost the lock, because the record names another holder or none.
pub fn taken(lock: &str, identity: &str, holder: &str) {
    let sentence = match holder {
        "" => format!("the record of {lock} no longer names this candidate"),
        holder if holder == identity => {
            format!("{lock} is held by another candidate with the same identity, {}", printable_holder(holder))
        }
        holder => format!("{lock} is held by {}", printable_holder(holder)),
    };
    log_events::lost("taken", Some(lock), Some(&printable_holder(holder)), &sentence);
}

/// Logs that the command has started, with the lock and the fencing token.
fn started(pid: i32) {
    let (lock, fencing_token) = match HELD_LOCK.get() {
        Some(held) => (held.lock.as_str(), held.fencing_token.as_str()),
        None => ("the lock", "unknown"),
    };
    log_events::started(pid, lock, fencing_token);
}

/// Logs a notice of the supervisor.
fn supervisor(notice: &SupervisorNotice) {
    match notice {
        SupervisorNotice::Stopping { signal } => log_events::stopping(&signals::name(*signal)),
        SupervisorNotice::TimedOut { signal } => {
            log_events::timed_out(&signals::name(*signal), &options().max_run);
        }
        SupervisorNotice::Killing { reason, processes } => {
            let QuotedOptions { kill_after, max_run, .. } = options();
            let (reason, sentence) = match reason {
                KillReason::Lost => ("lost", "killing what is left of the command".to_owned()),
                KillReason::Terminated => {
                    ("terminated", format!("the command did not end within {kill_after}; killing it"))
                }
                KillReason::TimedOut => {
                    ("timed_out", format!("the command did not end in time after {max_run}; killing it"))
                }
                KillReason::LeftRunning => ("left_running", "killing what the command left running".to_owned()),
            };
            killing(reason, &sentence, processes);
        }
        SupervisorNotice::RunsLate { delay } => {
            if !delay.is_zero() && !WARNED_OF_DELAY.swap(true, Ordering::Relaxed) {
                log_events::runs_late(delay.as_secs_f64());
            }
        }
        SupervisorNotice::KillTime { kill_time, processes, threads, .. } => {
            if *kill_time >= LONG_KILL && !WARNED_OF_KILL_TIME.swap(true, Ordering::Relaxed) {
                log_events::slow_kill(seconds(*kill_time), *processes, *threads, &estimate(*kill_time));
            }
        }
        SupervisorNotice::TooSlow { advance, max_advance } => {
            log_events::too_slow(seconds(*advance), max_advance.as_secs_f64(), &estimate(*advance));
        }
        SupervisorNotice::SignalRefused { signal, reason } => {
            log_events::signal_refused(&signals::name(*signal), reason);
        }
        SupervisorNotice::LeftRunning { processes, awaited: true } => {
            log_events::waiting_for_left_running(&printable(processes));
        }
        SupervisorNotice::LeftRunning { processes, awaited: false } => log_events::left_running(&printable(processes)),
        SupervisorNotice::CannotKill(process_and_reason) => log_events::cannot_kill(process_and_reason),
        SupervisorNotice::NotExecuted { command, reason } => {
            let hint = command_hint(command).map(|hint| format!("; {hint}")).unwrap_or_default();
            log_events::not_executed(command, &format!("{reason}{hint}"));
        }
        SupervisorNotice::SuspendRefused => not_suspended(),
        SupervisorNotice::CommandStopped { pid, signal } => log_events::command_stopped(*pid, &signals::name(*signal)),
        SupervisorNotice::HasTerminal => log_events::has_terminal(),
        SupervisorNotice::AwaitsTerminal => log_events::awaits_terminal(),
        SupervisorNotice::CheckUnavailable { reason } => log_events::check_unavailable(reason),
        SupervisorNotice::Failed { reason } => log_events::failed(reason),
        SupervisorNotice::SwitchUnavailable { reason } => log_events::switch_unavailable(reason),
    }
}

/// Logs that Ctrl-Z does not suspend this candidate.
pub fn not_suspended() {
    log_events::not_suspended(match HELD_LOCK.get() {
        Some(_) => "the command continues: a leader cannot be suspended, because its lock would expire",
        None => {
            "still waiting: a candidate cannot be suspended, because it may be acquiring the lock; end it with Ctrl-C, or \
             start it in the background"
        }
    });
}

/// Logs that the elector kills the command in place of the supervisor.
pub fn elector_kill(failure: SupervisorFailure, processes: &str) {
    let (reason, sentence) = match failure {
        SupervisorFailure::Died => ("supervisor_died", "the supervisor died; killing the command"),
        SupervisorFailure::Late => ("supervisor_late", "the supervisor is late; killing the command"),
    };
    killing(reason, sentence, processes);
}

/// Logs that processes of the command are killed. `processes` is empty if no names are known, because the processes
/// have not executed a program yet or are dead already.
fn killing(reason: &str, sentence: &str, processes: &str) {
    let processes = printable(processes);
    let colon = if processes.is_empty() { "" } else { ": " };
    log_events::killing(reason, &processes, &format!("{sentence}{colon}{processes}"));
}

/// Logs a notice of the elector.
pub fn elector(notice: &ElectorNotice) {
    let lock = || HELD_LOCK.get().map_or("the lock", |held| held.lock.as_str());
    match notice {
        ElectorNotice::CommandStarted { pid } => started(*pid),
        ElectorNotice::Supervisor(notice) => supervisor(notice),
        ElectorNotice::Lost(Loss::TooSlow) => {
            log_events::lost(
                "too_slow",
                None,
                None,
                "the command could not have been killed in time if renewals had failed",
            );
        }
        ElectorNotice::Lost(Loss::NotRenewed) => {
            log_events::lost("not_renewed", None, None, "the lock could not be renewed in time");
        }
        ElectorNotice::CommandEnded(End::Exited(status)) => {
            let sentence = format!("the command ended with status {status}, and none of its processes is left");
            log_events::ended(Some(*status), None, &sentence);
        }
        ElectorNotice::CommandEnded(End::Signaled(signal)) => {
            let signal = signals::name(*signal);
            let sentence = format!("the command was ended by {signal}, and none of its processes is left");
            log_events::ended(None, Some(&signal), &sentence);
        }
        ElectorNotice::CommandEnded(End::TimedOut) => {
            let sentence =
                format!("the command was stopped after {}, and none of its processes is left", options().max_run);
            log_events::ended(Some(exit::TIMED_OUT.into()), None, &sentence);
        }
        ElectorNotice::CommandEnded(End::NotStarted) => log_events::ended(None, None, "the command was not started"),
        ElectorNotice::Released => log_events::release(lock()),
        ElectorNotice::NotReleased => log_events::release_failed(lock()),
        ElectorNotice::WaitInterrupted(signal) => log_events::interrupted(&signals::name(*signal)),
        ElectorNotice::TerminationSignal(signal) => log_events::terminating(&signals::name(*signal)),
        ElectorNotice::SupervisorDiedWhileWaiting => log_events::supervisor_died(),
        // These are not logged, or other code logs their cause.
        ElectorNotice::Leading(_)
        | ElectorNotice::Lost(_)
        | ElectorNotice::NotAcquired
        | ElectorNotice::Unreachable
        | ElectorNotice::Terminating
        | ElectorNotice::CommandGone
        | ElectorNotice::CommandEnded(End::NotExecuted(_)) => {}
    }
}

/// Logs why leaderrun itself has failed.
pub fn failed(failure: &anyhow::Error) {
    log_events::failed(&printable_error(failure));
}

/// Returns an estimated time for the field of an event, or `None` if the time is unbounded.
fn seconds(time: Duration) -> Option<f64> {
    (time < Duration::MAX).then_some(time.as_secs_f64())
}

/// Returns an estimated time as text.
fn estimate(time: Duration) -> String {
    seconds(time).map_or_else(|| "longer than can be estimated".to_owned(), |seconds| format!("about {seconds:.1} s"))
}

/// Returns a holder's identity in a form that is safe to log, because any program can write an identity into a record;
/// `nobody` if it is empty.
fn printable_holder(holder: &str) -> String {
    match holder {
        "" => "nobody".to_owned(),
        holder => printable(holder),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_request_takes_precedence_over_the_holder_as_the_reason_to_wait() {
        let failure = "cannot read /run/job.lease: Transport endpoint is not connected";
        assert_eq!(reason_to_wait(Some("a"), Some(failure)).as_deref(), Some(failure));
        assert_eq!(reason_to_wait(Some("a"), None).as_deref(), Some("it is held by a"));
        assert_eq!(reason_to_wait(None, None), None);
    }
}
