//! What people and programs read of it: the sentences of the log, each with the name of what happened.
//!
//! Names and fields are for programs and stay as they are; the sentences say the same to people.

use humantime::format_duration;
use leaderrun_core::election::{ElectionConfig, ElectionNotice};
use leaderrun_core::elector::{ElectorNotice, SupervisorFailure};
use leaderrun_core::messages::{End, KillReason, SupervisorNotice};
use leaderrun_core::updates::Loss;
use tracing::{error, info, warn};

use crate::lock::LockName;
use crate::process::{signals, tree};
use crate::telemetry::log::{printable, printable_cause};

/// A variable looks like one of leaderrun's, and is none.
pub fn unknown_variable(sentence: &str) {
    warn!(event = "unknown_variable", "{sentence}");
}

/// A candidate begins.
pub fn waiting(lock: &LockName, config: &ElectionConfig) {
    let identity = printable(&config.identity);
    let rate = config.timing.tolerated_clock_rate();
    info!(event = "waiting", %lock, identity, "waiting for {lock} as {identity}; clocks may run {rate:.2}x apart");
}

/// What the election has to tell.
pub fn election(lock: &LockName, news: &ElectionNotice) {
    match news {
        ElectionNotice::Held { holder, since, lease_duration } => {
            let holder = shown(holder);
            let lasts = format_duration(*lease_duration);
            match since.map(|since| format!("{since:.0}")) {
                Some(since) => info!(
                    event = "held",
                    %lock,
                    holder,
                    since,
                    "{lock} is held by {holder} since {since}, for {lasts} after each renewal"
                ),
                None => {
                    info!(event = "held", %lock, holder, "{lock} is held by {holder}, for {lasts} after each renewal")
                }
            }
        }
        ElectionNotice::Released { holder } => {
            let holder = shown(holder);
            info!(event = "released", %lock, holder, "{holder} has given {lock} back");
        }
        ElectionNotice::Expired { holder } => {
            let holder = shown(holder);
            info!(event = "expired", %lock, holder, "the lease of {holder} has run out");
        }
        ElectionNotice::Restoring => {
            warn!(event = "restoring", %lock, "somebody emptied or deleted {lock} while it was held here: writing it again")
        }
        ElectionNotice::Edited => {
            warn!(event = "edited", %lock, "somebody edited {lock} while it was held here: writing it again")
        }
        ElectionNotice::Displaced => warn!(
            event = "displaced",
            %lock,
            "somebody emptied or deleted {lock} while it was held: waiting until that holder's time is over"
        ),
        ElectionNotice::NotDue { not_before } => {
            let not_before = format!("{not_before:.0}");
            info!(event = "not_due", %lock, not_before, "{lock} is free, and its command not due before {not_before}");
        }
        ElectionNotice::Watching => info!(event = "watching", %lock, "watching {lock} again"),
        // Said with the reason.
        ElectionNotice::Polling => {}
    }
}

/// A candidate does without its watch.
pub fn polling(lock: &LockName, reason: Option<String>) {
    let reason = reason.map(|reason| format!("; {reason}")).unwrap_or_default();
    warn!(event = "polling", %lock, "cannot watch {lock}: reading it every retry period instead{reason}");
}

/// The lock is won.
pub fn leading(lock: &LockName, fencing_token: &str) {
    info!(event = "leading", %lock, fencing_token, "leader of {lock}, fencing token {fencing_token}");
}

/// Somebody else has it.
pub fn taken(lock: &LockName, identity: &str, holder: &str) {
    let whom = if holder == identity { "somebody else of that name, " } else { "" };
    let holder = shown(holder);
    warn!(event = "lost", %lock, holder, reason = "taken", "leadership of {lock} lost: it is held by {whom}{holder}");
}

/// This run is asked to hand over.
pub fn step_down(lock: &LockName) {
    info!(event = "step_down", %lock, "asked to step down from {lock}");
}

/// Something goes wrong, for the first time.
pub fn trouble(lock: &LockName, complaint: &str) {
    warn!(event = "trouble", %lock, "{complaint}");
}

/// And is over.
pub fn answers_again(lock: &LockName) {
    info!(event = "trouble_over", %lock, "{lock} answers again");
}

/// The command runs.
pub fn started(pid: i32) {
    info!(event = "started", pid, "started the command, process {pid}");
}

/// What the supervisor has to tell.
pub fn supervisor(remark: &SupervisorNotice) {
    match remark {
        SupervisorNotice::Stopping { signal } => {
            let signal = signals::name(*signal);
            warn!(event = "stopping", signal, "leadership lost: telling the command to stop with {signal}");
        }
        SupervisorNotice::Killing { reason, processes } => {
            let processes = printable(processes);
            match reason {
                KillReason::Lost => {
                    warn!(
                        event = "killing",
                        reason = "lost",
                        processes,
                        "killing what is left of the command: {processes}"
                    )
                }
                KillReason::Terminated => warn!(
                    event = "killing",
                    reason = "asked_to_end",
                    processes,
                    "the command did not end in time: killing it: {processes}"
                ),
                KillReason::LeftRunning => warn!(
                    event = "killing",
                    reason = "left_running",
                    processes,
                    "killing what the command left running: {processes}"
                ),
            }
        }
        SupervisorNotice::CannotKill(what) => cannot_kill(what),
        SupervisorNotice::NotExecuted { command, reason } => {
            warn!(event = "not_executed", command, "cannot execute {command:?}: {reason}");
        }
        SupervisorNotice::SuspendRefused => {
            warn!(event = "not_suspended", "a command that holds a lease cannot be suspended: it goes on")
        }
        SupervisorNotice::AwaitsTerminal => warn!(
            event = "awaits_terminal",
            "the command is stopped: it waits for the terminal, of which it is not the foreground job"
        ),
        SupervisorNotice::CheckUnavailable { reason } => {
            warn!(event = "no_check", "the command cannot use leaderrun check: {reason}")
        }
    }
}

/// A process that has to die does not.
pub fn cannot_kill(what: &str) {
    error!(event = "cannot_kill", "cannot kill {what}; the lease is kept until it is gone");
}

/// The guard takes the supervisor's place.
pub fn last_resort(failure: SupervisorFailure) {
    let (reason, loss) = match failure {
        SupervisorFailure::Died => ("supervisor_died", "the supervisor died"),
        SupervisorFailure::Late => ("supervisor_late", "the supervisor did not have the command dead in time"),
    };
    let processes = printable(&tree::names());
    error!(event = "killing", reason, processes, "{loss}: killing the command: {processes}");
}

/// What the guard has to tell.
pub fn elector(news: &ElectorNotice) {
    match news {
        ElectorNotice::Lost(Loss::NotRenewed) => {
            warn!(event = "lost", reason = "not_renewed", "leadership lost: it could not be renewed in time")
        }
        ElectorNotice::CommandEnded(End::Exited(status)) => {
            info!(event = "ended", status, "the command has ended with status {status}, and nothing of it is left");
        }
        ElectorNotice::CommandEnded(End::Signaled(signal)) => {
            let signal = signals::name(*signal);
            info!(event = "ended", signal, "the command was ended by {signal}, and nothing of it is left");
        }
        ElectorNotice::CommandEnded(End::NotStarted) => info!(event = "ended", "the command was not started"),
        ElectorNotice::NotAcquired => info!(event = "not_acquired", "not acquired in time"),
        ElectorNotice::Unreachable => {
            warn!(event = "unreachable", "the lock could not be reached or used in time")
        }
        ElectorNotice::Released => info!(event = "given_back", "the lock is given back"),
        ElectorNotice::NotReleased => {
            warn!(event = "not_given_back", "the lease could not be given back: it will run out")
        }
        ElectorNotice::WaitInterrupted(signal) => {
            let signal = signals::name(*signal);
            info!(event = "interrupted", signal, "{signal}: waiting no longer");
        }
        ElectorNotice::TerminationSignal(signal) => {
            let signal = signals::name(*signal);
            info!(event = "asked_to_end", signal, "{signal}: the command is asked to end");
        }
        ElectorNotice::SupervisorDied => error!(event = "supervisor_died", "the supervisor died"),
        // Said by others, in the same breath.
        ElectorNotice::Leading(_)
        | ElectorNotice::Lost(_)
        | ElectorNotice::Terminating
        | ElectorNotice::CommandGone => {}
        ElectorNotice::CommandEnded(End::NotExecuted(_)) => {}
    }
}

/// leaderrun itself fails.
pub fn failed(failure: &anyhow::Error) {
    error!(event = "failed", "{}", printable_cause(failure));
}

/// After a loss, everything begins again.
pub fn rejoining() {
    info!(event = "rejoining", "waiting for the lock again");
}

/// A holder's identity, which comes from outside.
fn shown(holder: &str) -> String {
    match holder {
        "" => "nobody".to_owned(),
        holder => printable(holder),
    }
}
