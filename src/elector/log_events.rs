//! The log events of the elector and of the supervisor. The elector logs both.

use crate::telemetry::log_event::log_events;

log_events! {
    /// Logged when the name of an environment variable begins with `LEADERRUN_`, but the variable sets no option.
    warn unknown_variable(; sentence: &str) "{sentence}";

    /// Logged when not all of the program could be locked in memory. If the program is on a network disk that fails, it
    /// might then not stop the command in time.
    detail memory_not_locked(locked_kilobytes: usize, of_kilobytes: usize; reason: &str)
        "locked {locked_kilobytes} of {of_kilobytes} kB of leaderrun in memory: {reason}; raise the limit of locked memory (ulimit -l)";

    /// Logged when leaderrun is root without the capabilities KILL and SETUID, so that it could not stop a command that
    /// changes to another user.
    detail cannot_signal_others()
        "leaderrun is root without CAP_KILL, so it could not stop a command that changes to another user; add the capability KILL, or run leaderrun as the command's user";

    /// Logged first if the lock is in a cluster, with the address of the API server and the origin of that address.
    info api_server(lock: &str, server: &str, origin: &str) "the API server of {lock} is {server}, by {origin}";

    /// Logged once, after the first request for the lock has failed.
    info doctor_hint(lock: &str; command: &str) "to find out what is wrong, try {command}";

    /// Logged when this candidate starts to wait because it could not acquire the lock at once.
    info waiting(lock: &str, identity: &str; rate: f64)
        "waiting for {lock} as {identity}; tolerates clock rates that differ by up to {rate:.2}x";

    /// Logged when another candidate holds the lock. `since` is a time by the holder's clock.
    info held(lock: &str, holder: &str, since: Option<&str>; sentence: &str) "{sentence}";

    /// Logged when this candidate has waited for a minute, an hour, and each day.
    info still_waiting(lock: &str, holder: Option<&str>; sentence: &str) "{sentence}";

    /// Logged when the holder has released the lock.
    info released(lock: &str, holder: &str) "{holder} released {lock}";

    /// Logged when `leaderrun release --force` has released the lock for its holder.
    warn released_by_force(lock: &str, holder: Option<&str>; sentence: &str) "{sentence}";

    /// Logged when the holder has not renewed the lock for the lease duration in its record.
    info expired(lock: &str, holder: &str) "{lock} expired: {holder} did not renew it in time";

    /// Logged when the lock is free but must not be acquired yet, because of `--min-hold`.
    info not_due(lock: &str, not_before: &str) "{lock} is free, but its command is not due before {not_before}";

    /// Logged when another program emptied or deleted the record of another holder.
    warn displaced(lock: &str)
        "another program emptied or deleted the record of {lock} while the lock was held; waiting for the holder's lease duration";

    /// Logged when another program emptied or deleted the record while this candidate held the lock. This candidate
    /// writes the record again.
    warn restoring(lock: &str)
        "another program emptied or deleted the record of {lock} while this candidate held the lock; writing it again";

    /// Logged when another program changed the record while this candidate held the lock. This candidate writes the
    /// record again.
    warn edited(lock: &str)
        "another program edited the record of {lock} while this candidate held the lock; writing it again";

    /// Logged when the lock cannot be watched, so that it is read every retry period.
    warn polling(lock: &str; reason: &str) "cannot watch {lock}{reason}; reading it every retry period instead";

    /// Logged when the lock is watched again after it could not be watched.
    info watching(lock: &str) "watching {lock} again";

    /// Logged when this candidate has acquired the lock.
    detail leading(lock: &str, fencing_token: &str; rate: f64)
        "acquired {lock}, fencing token {fencing_token}; tolerates clock rates that differ by up to {rate:.2}x";

    /// Logged when the command runs.
    info started(pid: i32, lock: &str, fencing_token: &str)
        "started the command, process {pid}, as leader of {lock}, fencing token {fencing_token}";

    /// Logged when the command cannot be executed.
    error not_executed(command: &str; reason: &str) "cannot execute {command}: {reason}";

    /// Logged when `leaderrun step-down`, or a candidate with a shorter `--claim-delay`, asks this holder to release
    /// the lock.
    info step_down(lock: &str) "leaderrun step-down or a preferred candidate asks for the release of {lock}";

    /// Logged when this candidate asks a leader with a longer `--claim-delay` to release the lock, with `--preempt`.
    info preempting(lock: &str, holder: &str) "asking {holder} to release {lock}: its claim delay is longer";

    /// Logged when leaderrun gets a termination signal and forwards it to the command.
    info terminating(signal: &str) "got {signal}; terminating the command";

    /// Logged when a termination signal ends the wait for the lock.
    info interrupted(signal: &str) "got {signal}; no longer waiting";

    /// Logged when requests for the lock fail. `stop_in_seconds` is present while this candidate leads. `role` is
    /// present once if a right is missing.
    warn request_failed(lock: &str, stop_in_seconds: Option<f64>, role: Option<&str>; sentence: &str) "{sentence}";

    /// Logged when requests for the lock succeed again.
    info recovered(lock: &str) "requests for {lock} succeed again";

    /// Logged when leadership is lost. `reason` is `taken`, `not_renewed` or `too_slow`; `lock` and `holder` are
    /// present if it is `taken`.
    warn lost(reason: &str, lock: Option<&str>, holder: Option<&str>; sentence: &str) "leadership lost: {sentence}";

    /// Logged when the command gets the stop signal because leadership is lost.
    warn stopping(signal: &str) "leadership lost: sending {signal} to the command";

    /// Logged when the command gets the stop signal because it has run for `--max-run`.
    warn timed_out(signal: &str; max_run: &str) "the command has run for {max_run}; sending {signal} to it";

    /// Logged when processes of the command are killed. `reason` is `lost`, `terminated` (by `--kill-after`),
    /// `timed_out` (by `--max-run`), `left_running` (by the command), or, if the supervisor failed, `supervisor_died`
    /// or `supervisor_late`.
    warn killing(reason: &str, processes: &str; sentence: &str) "{sentence}";

    /// Logged once, when leaderrun itself is repeatedly woken late, for example under a CPU limit.
    warn runs_late(delay_seconds: f64)
        "leaderrun runs up to {delay_seconds:.1} s late, so after a loss it would stop the command that much earlier; give it more CPU";

    /// Logged once, when killing the command would take long because of the number of its processes and threads, mostly
    /// under a CPU limit. `kill_seconds` is the estimate; it is left out if the CPU limit is too small for an estimate.
    warn slow_kill(kill_seconds: Option<f64>, processes: u32, threads: u32; estimate: &str)
        "killing the {threads} threads of the command would take {estimate}, so the command is stopped that much earlier if renewals fail; raise the CPU limit, or limit the number of threads";

    /// Logged when no command is run, because leaderrun's delays and the time of a kill (together `advance_seconds`)
    /// are so long that the command might outlive the lease.
    warn too_slow(advance_seconds: Option<f64>, max_advance_seconds: f64; estimate: &str)
        "the command could not be killed in time if renewals failed: leaderrun's delays and the kill take {estimate} together, and at most {max_advance_seconds:.1} s are available; raise the CPU limit, limit the number of threads, or choose a longer --renew-deadline and --lease-duration";

    /// Logged when leaderrun is not permitted to send the command a signal.
    error signal_refused(signal: &str; reason: &str)
        "cannot send {signal} to the command: {reason}; run leaderrun as the command's user, or with CAP_KILL";

    /// Logged when a process cannot be killed, or has not ended 10 seconds after it was killed. The lock stays held
    /// until the process is gone.
    error cannot_kill(; processes: &str) "cannot kill {processes}; the lock is not released before the process is gone";

    /// Logged when leaderrun is process 1 of a container in which it cannot kill a process of the command.
    error exiting_as_init(; processes: &str)
        "cannot kill {processes}; exiting as process 1, so that the kernel kills every process of this container";

    /// Logged when the command's main process has ended by itself and leaderrun terminates the processes that it left
    /// running.
    warn left_running(processes: &str)
        "the command's main process has ended; terminating what it left running: {processes}; try running the command in the foreground, or --wait-for all";

    /// Logged when the command's main process has ended and leaderrun waits for its other processes, with `--wait-for
    /// all`.
    info awaits_left_running(processes: &str)
        "the command's main process has ended; waiting for the end of what it left running: {processes}";

    /// Logged when the command has ended and none of its processes is left. It has the field `status` or `signal`.
    info ended(status: Option<i32>, signal: Option<&str>; sentence: &str) "{sentence}";

    /// Logged when this candidate has released the lock.
    detail release(lock: &str) "released {lock}";

    /// Logged when this candidate could not release the lock.
    warn release_failed(lock: &str) "cannot release {lock}: it will expire";

    /// Logged when the lock was not acquired within `--wait`, because another candidate holds it or the command is not
    /// due.
    info not_acquired(lock: &str, holder: Option<&str>; sentence: &str) "{sentence}";

    /// Logged when the lock could not be reached or used within `--wait`.
    warn unreachable(lock: &str; sentence: &str) "{sentence}";

    /// Logged when Ctrl-Z was pressed and has no effect: the command, or the wait for the lock, continues.
    warn not_suspended(; sentence: &str) "{sentence}";

    /// Logged when the command has been stopped, for example by SIGSTOP. This candidate keeps the lock.
    warn command_stopped(pid: i32, signal: &str)
        "the command is stopped by {signal} and keeps the lock; kill -CONT {pid} continues it";

    /// Logged when the command gets the terminal of leaderrun's job.
    debug has_terminal() "the command has the terminal";

    /// Logged when the command is stopped because it needs the terminal.
    warn awaits_terminal()
        "the command is stopped: it waits for the terminal, because it is not the foreground job; try fg, or --foreground in a pipeline";

    /// Logged when the command cannot use `leaderrun check`.
    warn check_unavailable(; reason: &str) "the command cannot use leaderrun check: {reason}";

    /// Logged when the command would survive if both of leaderrun's processes were killed at once.
    warn switch_unavailable(; reason: &str)
        "the command would survive if both of leaderrun's processes were killed at once: {reason}";

    /// Logged when the supervisor died while there was no command.
    error supervisor_died() "the supervisor died";

    /// Logged when systemd cannot be notified through the socket that `NOTIFY_SOCKET` names.
    warn notify_failed(; failure: &str) "cannot notify systemd: {failure}; check NOTIFY_SOCKET";

    /// Logged when leaderrun itself fails.
    error failed(; failure: &str) "{failure}";

    /// Logged when leaderrun waits for the lock again after a loss, with `--on-lost rejoin`.
    info rejoining() "waiting for the lock again";

    /// Logged when leaderrun waits for the lock again because the command has succeeded, with `--every`.
    info repeating() "waiting for the next run";

    /// Logged when a request is sent.
    debug request_sent(lock: &str, request: &str) "sent a request: {request} {lock}";

    /// Logged when a watch fails.
    debug watch_failed(lock: &str; reason: &str) "cannot watch {lock}: {reason}";
}
