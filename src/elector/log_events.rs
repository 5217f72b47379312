//! The log events of the elector, and those of the supervisor, which the elector logs.

use crate::telemetry::log_event::log_events;

log_events! {
    /// Logged for each environment variable whose name begins with `LEADERRUN_` but is unknown to leaderrun.
    warn unknown_variable(; sentence: &str) "{sentence}";

    /// Logged when leaderrun could lock only a part of itself in memory. If its program file is on a network file
    /// system that fails, leaderrun might not stop the command in time.
    detail memory_not_locked(locked_kilobytes: usize, total_kilobytes: usize; reason: &str)
        "leaderrun locked only {locked_kilobytes} of its {total_kilobytes} kB in memory: {reason}; raise the limit on locked memory (ulimit -l)";

    /// Logged when leaderrun runs as root with neither CAP_KILL nor CAP_SETUID. It then cannot stop a command that
    /// switches to another user.
    detail cannot_signal_others()
        "leaderrun is root with neither CAP_KILL nor CAP_SETUID, so it cannot stop a command that switches to another user; add the capability KILL, or run leaderrun as the command's user";

    /// Logged at the start, if the lock is in a cluster. `origin` is the configuration that leaderrun uses: a
    /// kubeconfig, or the pod's service account.
    info api_server(lock: &str, server: &str, origin: &str) "the API server of {lock} is {server}, according to {origin}";

    /// Logged once, after the first failed request whose error message contains no suggestion.
    info doctor_hint(lock: &str; command: &str) "to find out what is wrong, try {command}";

    /// Logged when this candidate cannot acquire the lock at once and starts to wait.
    info waiting(lock: &str, identity: &str; rate: f64)
        "waiting for {lock} as {identity}; tolerates clock rates that differ by up to {rate:.2}x";

    /// Logged when another candidate holds the lock. `since` is when the holder acquired it, by the holder's clock.
    info held(lock: &str, holder: &str, since: Option<&str>; sentence: &str) "{sentence}";

    /// Logged after a minute and after an hour of waiting, and then once a day.
    info still_waiting(lock: &str, holder: Option<&str>; sentence: &str) "{sentence}";

    /// Logged when the candidate that held the lock has released it.
    info released_by_holder(lock: &str, holder: &str) "{holder} released {lock}";

    /// Logged when `leaderrun release --force` has released the lock in place of its holder.
    warn released_by_force(lock: &str, holder: Option<&str>; sentence: &str) "{sentence}";

    /// Logged when the lock has expired, because its holder did not renew it for the lease duration in its record.
    info expired(lock: &str, holder: &str) "{lock} expired: {holder} did not renew it in time";

    /// Logged when the lock is free but must not be acquired yet, because of `--min-hold`.
    info not_due(lock: &str, not_before: &str) "{lock} is free, but the command is not due before {not_before}";

    /// Logged when another program emptied or deleted the record while another candidate held the lock. This candidate
    /// then waits for the lease duration that the record contained.
    warn displaced(lock: &str)
        "another program emptied or deleted the record of {lock} while the lock was held; waiting for the holder's lease to expire";

    /// Logged when another program emptied or deleted the record while this candidate held the lock. This candidate
    /// writes the record again.
    warn restoring(lock: &str)
        "another program emptied or deleted the record of {lock} while this candidate held the lock; writing the record again";

    /// Logged when another program edited the record while this candidate held the lock. This candidate writes the
    /// record again.
    warn edited(lock: &str)
        "another program edited the record of {lock} while this candidate held the lock; writing the record again";

    /// Logged when leaderrun cannot watch the lock and reads it every retry period instead.
    warn polling(lock: &str; sentence: &str) "{sentence}";

    /// Logged when leaderrun can watch the lock again.
    info watching(lock: &str) "watching {lock} again";

    /// Logged when this candidate has acquired the lock.
    detail leading(lock: &str, fencing_token: &str; rate: f64)
        "acquired {lock}, fencing token {fencing_token}; tolerates clock rates that differ by up to {rate:.2}x";

    /// Logged when the command has started.
    info started(pid: i32, lock: &str, fencing_token: &str)
        "started the command, process {pid}, as leader of {lock}, fencing token {fencing_token}";

    /// Logged when the command cannot be executed.
    error not_executed(command: &str; reason: &str) "cannot execute {command}: {reason}";

    /// Logged when `leaderrun step-down`, or a candidate with a shorter `--claim-delay`, asks this holder to release
    /// the lock.
    info step_down(lock: &str) "asked to release {lock} by leaderrun step-down, or by a candidate with a shorter claim delay";

    /// Logged when this candidate, with `--preempt`, asks a leader with a longer `--claim-delay` to release the lock.
    info preempting(lock: &str, holder: &str) "asking {holder}, which has a longer claim delay, to release {lock}";

    /// Logged when leaderrun terminates the command because leaderrun got a termination signal or the signal that
    /// `--stop-signal` names. A request to step down counts as SIGTERM.
    info terminating(signal: &str) "got {signal}; terminating the command";

    /// Logged when a signal ends the wait for the lock.
    info interrupted(signal: &str) "got {signal}; no longer waiting";

    /// Logged when a request for the lock fails, unless the same failure was just logged, and when opening the lock
    /// takes longer than 5 seconds. `stop_in_seconds` is present while this candidate leads and the command is not
    /// being stopped. `role` is a Role that grants the missing permission; it is present only for the first permission
    /// that is missing.
    warn request_failed(lock: &str, stop_in_seconds: Option<f64>, role: Option<&str>; sentence: &str) "{sentence}";

    /// Logged when requests for the lock succeed again.
    info recovered(lock: &str) "requests for {lock} succeed again";

    /// Logged when leadership is lost. `reason` is `taken`, `not_renewed` or `too_slow`. `lock` and `holder` are
    /// present for `taken`.
    warn lost(reason: &str, lock: Option<&str>, holder: Option<&str>; sentence: &str) "leadership lost: {sentence}";

    /// Logged when the command gets the stop signal because leadership is lost.
    warn stopping(signal: &str) "leadership lost: sending {signal} to the command";

    /// Logged when the command gets the stop signal because it has reached `--max-run`.
    warn timed_out(signal: &str; max_run: &str) "the command has reached {max_run}; sending {signal} to it";

    /// Logged when leaderrun kills processes of the command. `reason` is `lost`; `terminated`, after `--kill-after`;
    /// `timed_out`, after `--max-run`; `left_running`, if they outlived the command's main process; or
    /// `supervisor_died` or `supervisor_late`, if the supervisor failed.
    warn killing(reason: &str, processes: &str; sentence: &str) "{sentence}";

    /// Logged once, when the scheduler repeatedly wakes leaderrun late, for example because of a CPU limit.
    warn runs_late(delay_seconds: f64)
        "leaderrun runs up to {delay_seconds:.1} s late, so if renewals fail, it stops the command that much earlier; give it more CPU time";

    /// Logged once, when killing the command would take half a second or longer because it has many processes and
    /// threads, usually under a CPU limit. `kill_seconds` is the estimate; it is omitted if the CPU limit is too small
    /// for an estimate.
    warn slow_kill(kill_seconds: Option<f64>, processes: u32, threads: u32; estimate: &str)
        "killing the {threads} threads of the command would take {estimate}, so if renewals fail, leaderrun stops the command that much earlier; raise the CPU limit, or limit the number of threads";

    /// Logged when the command is stopped, or not started, because it might outlive the lease if renewals failed:
    /// leaderrun's delays and a kill would together take `advance_seconds`, which is longer than `max_advance_seconds`.
    warn too_slow(advance_seconds: Option<f64>, max_advance_seconds: f64; estimate: &str)
        "the command could not be killed in time if renewals failed: leaderrun's delays and the kill together take {estimate}, but only {max_advance_seconds:.1} s are available; raise the CPU limit, limit the number of threads, or lengthen --renew-deadline and --lease-duration";

    /// Logged when leaderrun is not permitted to send the command a signal.
    error signal_refused(signal: &str; reason: &str)
        "cannot send {signal} to the command: {reason}; run leaderrun as the command's user, or with CAP_KILL";

    /// Logged when a process cannot be killed, or has not ended 10 seconds after it was killed. The lock stays held
    /// until the process is gone.
    error cannot_kill(; process_and_reason: &str)
        "cannot kill {process_and_reason}; the lock stays held until the process is gone";

    /// Logged when leaderrun cannot kill a process of the command and exits as process 1 of a container.
    error exiting_as_init(; process_and_reason: &str)
        "cannot kill {process_and_reason}; exiting as process 1, so that the kernel kills every process of this container";

    /// Logged when the command's main process has ended on its own and leaderrun terminates the command's other
    /// processes.
    warn left_running(processes: &str)
        "the command's main process has ended; terminating what it left running: {processes}; try running the command in the foreground, or --wait-for all";

    /// Logged when the command's main process has ended and leaderrun, with `--wait-for all`, waits for the command's
    /// other processes.
    info waiting_for_left_running(processes: &str)
        "the command's main process has ended; waiting for what it left running: {processes}";

    /// Logged when the command has ended and none of its processes is left. Either `signal` or `status` is present;
    /// `status` is 124 after `--max-run`. Also logged, without these fields, when the command was not started.
    info ended(status: Option<i32>, signal: Option<&str>; sentence: &str) "{sentence}";

    /// Logged when this candidate has released the lock.
    detail release(lock: &str) "released {lock}";

    /// Logged when this candidate could not release the lock.
    warn release_failed(lock: &str) "cannot release {lock}; it will expire instead";

    /// Logged when the lock was not acquired within `--wait`, because another candidate holds it, the lease of its last
    /// holder has not expired, or the command is not due.
    info not_acquired(lock: &str, holder: Option<&str>; sentence: &str) "{sentence}";

    /// Logged when the lock could not be reached or used within `--wait`.
    warn unreachable(lock: &str; sentence: &str) "{sentence}";

    /// Logged when a user presses Ctrl-Z, which has no effect: the command, or the wait for the lock, continues.
    warn not_suspended(; sentence: &str) "{sentence}";

    /// Logged when a signal such as SIGSTOP suspends the command. The command has not ended, so this candidate keeps
    /// the lock and continues to renew it.
    warn command_stopped(pid: i32, signal: &str)
        "{signal} has suspended the command, and the lock stays held; to continue the command, run kill -CONT {pid}";

    /// Logged when the command becomes the terminal's foreground job.
    debug has_terminal() "the command has the terminal";

    /// Logged when the command is suspended because it used the terminal from the background.
    warn awaits_terminal()
        "the command is suspended until it gets the terminal, because it is not the foreground job; try fg, or --foreground in a pipeline";

    /// Logged when the command cannot use `leaderrun check`.
    warn check_unavailable(; reason: &str) "the command cannot use leaderrun check: {reason}";

    /// Logged when the dead-man's switch cannot be used. Without it, the command would survive if both of leaderrun's
    /// processes were killed at once.
    warn switch_unavailable(; reason: &str)
        "the command would survive if both of leaderrun's processes were killed at once: {reason}";

    /// Logged when the supervisor died before a command was started.
    error supervisor_died() "the supervisor died";

    /// Logged when leaderrun itself fails.
    error failed(; failure: &str) "{failure}";

    /// Logged when leaderrun, with `--on-lost rejoin`, waits for the lock again after a loss.
    info rejoining() "waiting for the lock again";

    /// Logged when leaderrun, with `--every`, waits for the next run because the command has succeeded.
    info repeating() "waiting for the next run";

    /// Logged when a request for the lock is sent.
    debug request_sent(lock: &str, request: &str) "sent a request: {request} {lock}";

    /// Logged when a watch of the lock fails.
    debug watch_failed(lock: &str; reason: &str) "cannot watch {lock}: {reason}";
}
