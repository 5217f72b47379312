//! Waits for the lock again: after a loss with `--on-lost rejoin`, and after a success with `--every`.
//!
//! leaderrun re-executes its own program with execve(2). The process stays the same, which is necessary if it is PID 1
//! of a container, but apart from what is passed in environment variables, it keeps no state from the previous
//! leadership.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use leaderrun_core::instant::Instant;
use leaderrun_core::signal::ends_candidate;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::execve;

use crate::process::clock::{self, Timer};
use crate::process::environment;
use crate::process::signals::{InheritedSignals, Signals};
use crate::process::tree;
use crate::telemetry::log::LOG_START_VARIABLE;

/// The variable with the number of quick losses in a row. It is not for users, and the command does not inherit it.
pub const LOSSES_VARIABLE: &str = "LEADERRUN_LOSSES_IN_A_ROW";

/// The variable with the values of the metrics' counters and histograms, so that they continue after a rejoin. It is
/// not for users, and the command does not inherit it.
pub const COUNTERS_VARIABLE: &str = "LEADERRUN_COUNTED";

/// A loss is quick if it occurs within this time after leaderrun was executed. Time spent waiting for the lock counts
/// too, because the only purpose of the pause after a quick loss is to limit how often leaderrun re-executes itself.
const QUICK_LOSS_LIMIT: Duration = Duration::from_secs(60);

/// The pause after the first quick loss. It doubles with each further quick loss.
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);

const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The reason why leaderrun waits for the lock again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejoinAfter {
    /// Leadership was lost.
    Loss,
    /// The command ended with status 0.
    Success,
}

/// The reason why leaderrun does not wait for the lock again.
#[derive(Debug)]
pub enum NotRejoined {
    /// This signal arrived during the pause.
    Signaled(i32),
    Failed(io::Error),
}

/// Re-executes leaderrun, after a pause that grows with the number of quick losses in a row.
///
/// `executed_at` is when leaderrun was last executed. `counters` is the value for [`COUNTERS_VARIABLE`], and
/// `log_start` is when the log began. Both are passed on, so that the metrics and the log continue after the exec.
///
/// # Errors
/// Fails if a signal that ends leaderrun arrives during the pause, or if a system call fails.
pub fn rejoin(
    after: RejoinAfter,
    inherited: &InheritedSignals,
    executed_at: Instant,
    counters: Option<String>,
    log_start: Instant,
) -> Result<Infallible, NotRejoined> {
    let previous_losses: u32 = std::env::var(LOSSES_VARIABLE).ok().and_then(|losses| losses.parse().ok()).unwrap_or(0);
    let is_quick_loss = after == RejoinAfter::Loss && clock::now().since(executed_at) < QUICK_LOSS_LIMIT;
    let losses = if is_quick_loss { previous_losses.saturating_add(1) } else { 0 };
    if let Some(signal) = pause(pause_after(losses), inherited).map_err(NotRejoined::Failed)? {
        return Err(NotRejoined::Signaled(signal));
    }
    re_execute(losses, counters, log_start, inherited).map_err(NotRejoined::Failed)
}

/// Re-executes leaderrun. std's `exec` is not used, because it empties the signal mask, which must be preserved
/// for the command.
fn re_execute(
    losses: u32,
    counters: Option<String>,
    log_start: Instant,
    inherited: &InheritedSignals,
) -> io::Result<Infallible> {
    let arguments = own_command_line()?;
    let counters = counters.map(|counters| (COUNTERS_VARIABLE.into(), counters));
    let losses = (LOSSES_VARIABLE.into(), losses.to_string());
    let log_start = (LOG_START_VARIABLE.into(), log_start.as_nanos().to_string());
    let added: Vec<_> = [losses, log_start, inherited.prepare_exec()?].into_iter().chain(counters).collect();
    let environment = environment::modified(|_| false, &added);
    tree::kill_helpers();
    Ok(execve(c"/proc/self/exe", &arguments, &environment)?)
}

/// Returns the arguments for /proc/self/exe. If leaderrun was started through the dynamic loader, that file is the
/// loader, and the arguments begin with the loader's own, which std does not return.
fn own_command_line() -> io::Result<Vec<CString>> {
    let line = fs::read("/proc/self/cmdline")?;
    let arguments = line.split_inclusive(|byte| *byte == 0);
    arguments.map(|argument| CString::from_vec_with_nul(argument.to_vec()).map_err(io::Error::other)).collect()
}

fn pause_after(losses: u32) -> Duration {
    match losses {
        0 => Duration::ZERO,
        losses => SHORTEST_PAUSE.saturating_mul(2_u32.saturating_pow(losses - 1)).min(LONGEST_PAUSE),
    }
}

/// Waits for `duration`. If a signal that ends leaderrun arrives before that, returns the signal at once.
fn pause(duration: Duration, inherited: &InheritedSignals) -> io::Result<Option<i32>> {
    let (signals, timer) = (Signals::new(inherited)?, Timer::new()?);
    let end = clock::now() + duration;
    timer.set(Some(end))?;
    loop {
        let requests_end = |signal: &i32| ends_candidate(*signal) && !inherited.ignores(*signal);
        if let Some(signal) = signals.receive().numbers.into_iter().find(requests_end) {
            return Ok(Some(signal));
        }
        if clock::now() >= end {
            return Ok(None);
        }
        let mut either = [timer.as_fd(), signals.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        let _ = poll(&mut either, PollTimeout::NONE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_to_a_minute() {
        let seconds = |losses| pause_after(losses).as_secs_f64();
        assert_eq!([0, 1, 2, 3].map(seconds), [0.0, 0.5, 1.0, 2.0]);
        assert_eq!(seconds(100), 60.0);
    }
}
