//! Tests of each of the supervisor's rules in isolation.

use super::*;

const LOSE: Order = Order::Lose;

/// The longest time by which the stop and the kill may be brought forward, in the tests that limit it.
const MAX_ADVANCE: Duration = Duration::from_millis(1500);

fn start_time() -> Instant {
    Instant::after_boot(Duration::from_secs(100))
}

/// Returns the tenure of a renewal: the stop 4 seconds after the renewal was sent, and the kill a second later.
fn tenure(renewal_sent_at: Instant) -> Tenure {
    let stop = renewal_sent_at + Duration::from_secs(4);
    Tenure { renewal_sent_at, stop, kill: stop + Duration::from_secs(1) }
}

fn orders(orders: &[Order]) -> SupervisorInputs {
    SupervisorInputs { orders: orders.to_vec(), ..SupervisorInputs::default() }
}

fn ended(end: End, tree_empty: bool) -> SupervisorInputs {
    SupervisorInputs { main_ended: Some(end), tree_empty, ..SupervisorInputs::default() }
}

fn gone(end: End) -> SupervisorAction {
    SupervisorAction::Report(Report::Gone(Gone { end, lost: false }))
}

/// Steps a supervisor, and returns its actions without `SetHeldUntil`.
fn step(supervisor: &mut Supervisor, now: Instant, inputs: SupervisorInputs) -> Vec<SupervisorAction> {
    let actions = supervisor.step(now, inputs).into_iter();
    actions.filter(|action| !matches!(action, SupervisorAction::SetHeldUntil(_))).collect()
}

fn new_supervisor() -> Supervisor {
    Supervisor::new(StopOptions {
        stop_signal: libc::SIGTERM,
        lost_grace: Duration::from_secs(1),
        kill_after: None,
        max_run: None,
    })
}

#[test]
fn a_supervisor_that_is_woken_late_stops_and_kills_earlier_by_that_delay() {
    let late = Duration::from_millis(300);
    let mut supervisor = running(start_time());
    assert_eq!(supervisor.note_delay(start_time(), late), None);
    assert_eq!(supervisor.note_delay(start_time(), late), Some(late));
    let renewed = start_time() + Duration::from_secs(1);
    let actions = step(&mut supervisor, renewed, orders(&[Order::Extend(tenure(renewed))]));
    let enforced = tenure(renewed).earlier_by(late);
    assert_eq!(
        actions,
        [SupervisorAction::Report(Report::Enforcing(enforced))],
        "the report contains the earlier deadlines"
    );
    let actions = step(&mut supervisor, enforced.stop, SupervisorInputs::default());
    assert_eq!(actions, [SupervisorAction::Stop]);
    assert_eq!(supervisor.next_timeout(), Some(enforced.kill));
}

#[test]
fn stop_and_kill_allow_for_the_longer_of_the_elector_and_supervisor_delays() {
    let (supervisor_delay, elector_delay) = (Duration::from_millis(300), Duration::from_millis(400));
    let mut supervisor = running(start_time());
    supervisor.note_delay(start_time(), supervisor_delay);
    supervisor.note_delay(start_time(), supervisor_delay);
    step(&mut supervisor, start_time(), orders(&[Order::ElectorLate { delay: elector_delay }]));
    assert_eq!(supervisor.next_timeout(), Some(tenure(start_time()).earlier_by(elector_delay).stop));
    step(&mut supervisor, start_time(), orders(&[Order::ElectorLate { delay: Duration::ZERO }]));
    assert_eq!(supervisor.next_timeout(), Some(tenure(start_time()).earlier_by(supervisor_delay).stop));
}

#[test]
fn stop_and_kill_become_earlier_as_soon_as_a_kill_takes_longer() {
    let mut supervisor = running(start_time());
    let kill_time = Duration::from_millis(1500);
    assert!(supervisor.set_kill_time(kill_time) && !supervisor.set_kill_time(kill_time));
    let enforced = tenure(start_time()).earlier_by(kill_time);
    let actions = step(&mut supervisor, start_time(), SupervisorInputs::default());
    assert_eq!(actions, [SupervisorAction::Report(Report::Enforcing(enforced))], "the change is reported at once");
    assert_eq!(step(&mut supervisor, start_time(), SupervisorInputs::default()), [], "the change is reported once");
    assert_eq!(supervisor.next_timeout(), Some(enforced.stop));
    assert_eq!(step(&mut supervisor, enforced.stop, SupervisorInputs::default()), [SupervisorAction::Stop]);
    let sooner = Duration::from_millis(200);
    supervisor.set_kill_time(kill_time + sooner);
    assert_eq!(step(&mut supervisor, enforced.stop, SupervisorInputs::default()), []);
    supervisor.set_kill_time(Duration::ZERO);
    let actions = step(&mut supervisor, enforced.kill - sooner, SupervisorInputs::default());
    assert_eq!(actions, [SupervisorAction::Kill(KillReason::Lost)], "a scheduled kill is never postponed");
}

/// Returns the notice that the stop and the kill would have to be brought forward by `advance`, although at most
/// [`MAX_ADVANCE`] is allowed.
fn too_slow(advance: Duration) -> SupervisorAction {
    SupervisorAction::Report(Report::Notice(SupervisorNotice::TooSlow { advance, max_advance: MAX_ADVANCE }))
}

#[test]
fn a_command_that_could_not_be_killed_in_time_is_stopped_while_the_lock_is_held() {
    let mut supervisor = running(start_time()).with_max_advance(MAX_ADVANCE);
    supervisor.set_kill_time(MAX_ADVANCE);
    step(&mut supervisor, start_time(), SupervisorInputs::default());
    // The result is the same whether or not the previous tenure's stop, once brought forward, has already passed.
    for longer in [MAX_ADVANCE + Duration::from_millis(1), MAX_ADVANCE * 2] {
        let mut supervisor = supervisor.clone();
        supervisor.set_kill_time(longer);
        let renewed = start_time() + Duration::from_secs(1);
        let now = renewed + Duration::from_millis(500);
        let actions = step(&mut supervisor, now, orders(&[Order::Extend(tenure(renewed))]));
        let enforced = tenure(renewed).earlier_by(longer);
        let report = SupervisorAction::Report(Report::Enforcing(enforced));
        assert_eq!(actions, [report, too_slow(longer), SupervisorAction::Stop]);
        assert_eq!(supervisor.next_timeout(), Some(now + Duration::from_secs(1)), "the usual grace period");
    }
}

#[test]
fn a_kill_that_would_take_too_long_is_not_reported_after_the_command_is_gone() {
    let mut supervisor = running(start_time()).with_max_advance(MAX_ADVANCE);
    let actions = step(&mut supervisor, start_time(), ended(End::Exited(0), true));
    assert_eq!(actions, [gone(End::Exited(0))]);
    supervisor.set_kill_time(MAX_ADVANCE * 2);
    assert_eq!(step(&mut supervisor, start_time(), SupervisorInputs::default()), []);
}

#[test]
fn a_supervisor_that_is_woken_too_late_starts_no_command() {
    let mut supervisor = new_supervisor().with_max_advance(MAX_ADVANCE);
    let late = MAX_ADVANCE * 2;
    supervisor.note_delay(start_time(), late);
    supervisor.note_delay(start_time(), late);
    let order = Order::Start { tenure: tenure(start_time()), environment: Vec::new() };
    let actions = step(&mut supervisor, start_time(), orders(&[order]));
    let gone = Report::Gone(Gone { end: End::NotStarted, lost: true });
    let enforced = Report::Enforcing(tenure(start_time()).earlier_by(late));
    let expected = [SupervisorAction::Report(enforced), too_slow(late), SupervisorAction::Report(gone)];
    assert_eq!(actions, expected);
}

#[test]
fn an_elector_that_sends_no_orders_after_a_loss_is_killed_only_once() {
    let timeout = Duration::from_secs(12);
    let mut supervisor = new_supervisor().with_frozen_elector_timeout(Some(timeout));
    let begin = start_time();
    let order = Order::Start { tenure: tenure(begin), environment: Vec::new() };
    step(&mut supervisor, begin, orders(&[order]));
    let forked = SupervisorInputs { start: Some(StartResult::Attempted), ..SupervisorInputs::default() };
    step(&mut supervisor, begin, forked);
    let kill = tenure(begin).kill;
    step(&mut supervisor, kill, SupervisorInputs::default());
    assert_eq!(supervisor.next_timeout(), None, "the elector is not killed before the command is gone");
    step(&mut supervisor, kill, ended(End::Signaled(libc::SIGKILL), true));
    assert_eq!(supervisor.next_timeout(), Some(begin + timeout));
    let actions = step(&mut supervisor, begin + timeout, SupervisorInputs::default());
    assert_eq!(actions, [SupervisorAction::KillElector]);
    assert_eq!(supervisor.next_timeout(), None);
}

#[test]
fn an_elector_that_sends_orders_is_not_killed() {
    let timeout = Duration::from_secs(12);
    let mut supervisor = running(start_time()).with_frozen_elector_timeout(Some(timeout));
    let kill = tenure(start_time()).kill;
    step(&mut supervisor, kill, SupervisorInputs::default());
    step(&mut supervisor, kill, ended(End::Signaled(libc::SIGKILL), true));
    step(&mut supervisor, kill, orders(&[Order::Extend(tenure(kill))]));
    assert_eq!(supervisor.next_timeout(), Some(kill + timeout));
}

/// Returns the supervisor of a command that was started at `now`, the instant at which the lock was acquired.
fn running(now: Instant) -> Supervisor {
    let mut supervisor = new_supervisor();
    assert_eq!(supervisor.held_until(), None);
    let start = Order::Start { tenure: tenure(now), environment: Vec::new() };
    let actions = step(&mut supervisor, now, orders(&[start]));
    let enforcing = SupervisorAction::Report(Report::Enforcing(tenure(now)));
    assert_eq!(actions, [enforcing, SupervisorAction::Start(tenure(now))]);
    let forked = SupervisorInputs { start: Some(StartResult::Attempted), ..SupervisorInputs::default() };
    assert_eq!(step(&mut supervisor, now, forked), []);
    supervisor
}

#[test]
fn an_overdue_stop_comes_before_a_queued_signal() {
    let now = start_time();
    let mut supervisor = running(now);
    let actions = step(&mut supervisor, tenure(now).stop, orders(&[Order::Signal(libc::SIGUSR1)]));
    assert_eq!(actions, [SupervisorAction::Stop, SupervisorAction::Signal(libc::SIGUSR1)]);
}

#[test]
fn a_loss_kills_nothing_if_no_process_is_left() {
    let now = start_time();
    let mut supervisor = running(now);
    assert_eq!(step(&mut supervisor, now, ended(End::Exited(0), true)), [gone(End::Exited(0))]);
    assert_eq!(step(&mut supervisor, now, orders(&[LOSE])), []);
    assert_eq!(supervisor.next_timeout(), None);
    let mut not_started = new_supervisor();
    assert_eq!((step(&mut not_started, now, orders(&[LOSE])), not_started.next_timeout()), (vec![], None));
}

#[test]
fn a_queued_renewal_comes_before_an_overdue_stop() {
    let now = start_time();
    let mut supervisor = running(now);
    let renewed = tenure(now + Duration::from_secs(2));
    let queued = [Order::Signal(libc::SIGUSR1), Order::Extend(renewed)];
    let actions = step(&mut supervisor, tenure(now).stop, orders(&queued));
    let enforcing = SupervisorAction::Report(Report::Enforcing(renewed));
    assert_eq!(actions, [SupervisorAction::Signal(libc::SIGUSR1), enforcing]);
}

#[test]
fn an_elector_that_renews_after_the_end_of_the_command_gets_the_report_again() {
    let now = start_time();
    let mut supervisor = running(now);
    assert_eq!(step(&mut supervisor, now, ended(End::Exited(7), true)), [gone(End::Exited(7))]);
    assert_eq!(step(&mut supervisor, now, orders(&[Order::Signal(libc::SIGTERM)])), []);
    let renewed = Order::Extend(tenure(now + Duration::from_secs(1)));
    assert_eq!(step(&mut supervisor, now, orders(&[renewed])), [gone(End::Exited(7))]);
}

#[test]
fn after_a_loss_the_published_deadline_is_removed_first() {
    let now = start_time();
    let renewed_stop = now + Duration::from_secs(5);
    let elector_died = SupervisorInputs { elector_died: true, ..SupervisorInputs::default() };
    for (at, loss) in [(renewed_stop, SupervisorInputs::default()), (now, orders(&[LOSE])), (now, elector_died)] {
        let mut supervisor = running(now);
        let renewed = tenure(now + Duration::from_secs(1));
        let actions = supervisor.step(now, orders(&[Order::Extend(renewed)]));
        assert_eq!(actions[0], SupervisorAction::SetHeldUntil(Some(renewed_stop)));
        let actions = supervisor.step(at, loss);
        assert_eq!(
            actions[0],
            SupervisorAction::SetHeldUntil(None),
            "removing the published deadline should be the first action"
        );
        supervisor.step(at, orders(&[Order::Extend(tenure(now + Duration::from_secs(6)))]));
        assert_eq!(supervisor.held_until(), None, "a later renewal does not save the command");
    }
}

#[test]
fn a_command_that_was_sent_a_termination_signal_or_the_stop_signal_is_killed_once_kill_after_has_passed() {
    let now = start_time();
    let after = Duration::from_millis(300);
    for (signal, stop_signal) in
        [(libc::SIGTERM, libc::SIGTERM), (libc::SIGINT, libc::SIGTERM), (libc::SIGUSR1, libc::SIGUSR1)]
    {
        let mut supervisor = running(now);
        supervisor.stop_options.stop_signal = stop_signal;
        supervisor.stop_options.kill_after = Some(after);
        assert_eq!(step(&mut supervisor, now, orders(&[Order::Signal(signal)])), [SupervisorAction::Signal(signal)]);
        let actions = step(&mut supervisor, now + after, SupervisorInputs::default());
        assert_eq!(actions, [SupervisorAction::Kill(KillReason::Terminated)]);
    }
}

/// Returns the supervisor of a command that was started at this instant with `--wait-for all`, and whose main process
/// has ended and left a daemon running.
fn waiting_for_daemon(now: Instant) -> Supervisor {
    let mut supervisor = running(now).with_wait_for_all(true);
    let actions = step(&mut supervisor, now, ended(End::Exited(0), false));
    assert_eq!(actions, [SupervisorAction::ReportLeftovers { awaited: true }]);
    supervisor
}

/// Returns the inputs after the last process has ended.
fn tree_empty() -> SupervisorInputs {
    SupervisorInputs { tree_empty: true, ..SupervisorInputs::default() }
}

#[test]
fn with_wait_for_all_the_command_runs_until_its_last_process_has_ended() {
    let now = start_time();
    let mut supervisor = waiting_for_daemon(now);
    assert_eq!(supervisor.next_timeout(), Some(tenure(now).stop), "only the tenure limits the command");
    assert_eq!(step(&mut supervisor, now, tree_empty()), [gone(End::Exited(0))]);
}

#[test]
fn with_wait_for_all_signals_are_relayed_to_the_processes_that_are_left_running() {
    let now = start_time();
    let mut supervisor = waiting_for_daemon(now);
    let reload = orders(&[Order::Signal(libc::SIGHUP)]);
    assert_eq!(step(&mut supervisor, now, reload), [SupervisorAction::SignalLeftovers(libc::SIGHUP)]);
}

#[test]
fn with_wait_for_all_a_termination_signal_terminates_the_processes_that_are_left_running() {
    let now = start_time();
    let mut supervisor = waiting_for_daemon(now);
    supervisor.stop_options.kill_after = Some(Duration::from_millis(300));
    let term = orders(&[Order::Signal(libc::SIGTERM)]);
    assert_eq!(step(&mut supervisor, now, term.clone()), [SupervisorAction::TerminateLeftovers]);
    assert_eq!(step(&mut supervisor, now, term), [SupervisorAction::TerminateLeftovers], "after a repeated signal");
    let actions = step(&mut supervisor, now + Duration::from_millis(300), SupervisorInputs::default());
    assert_eq!(actions, [SupervisorAction::Kill(KillReason::Terminated)]);
}

#[test]
fn with_wait_for_all_a_loss_ends_the_processes_that_are_left_running() {
    let now = start_time();
    let mut supervisor = waiting_for_daemon(now);
    let actions = step(&mut supervisor, tenure(now).stop, SupervisorInputs::default());
    assert_eq!(actions, [SupervisorAction::TerminateLeftovers]);
    let actions = step(&mut supervisor, tenure(now).kill, SupervisorInputs::default());
    assert_eq!(actions, [SupervisorAction::Kill(KillReason::Lost)]);
    let report = Report::Gone(Gone { end: End::Exited(0), lost: true });
    assert_eq!(step(&mut supervisor, now, tree_empty()), [SupervisorAction::Report(report)]);
}

#[test]
fn processes_are_not_reported_as_left_running_if_the_end_was_requested_or_the_main_process_was_killed() {
    let (now, term) = (start_time(), orders(&[Order::Signal(libc::SIGTERM)]));
    let report = SupervisorAction::ReportLeftovers { awaited: false };
    for (end_was_requested, end, expected) in
        [(false, End::Exited(0), true), (true, End::Exited(0), false), (false, End::Signaled(libc::SIGKILL), false)]
    {
        let mut supervisor = running(now);
        if end_was_requested {
            step(&mut supervisor, now, term.clone());
        }
        assert_eq!(step(&mut supervisor, now, ended(end, false)).contains(&report), expected);
    }
}

#[test]
fn processes_that_the_main_process_left_running_are_terminated() {
    let now = start_time();
    let mut supervisor = running(now);
    let actions = step(&mut supervisor, now, ended(End::Exited(0), false));
    let report = SupervisorAction::ReportLeftovers { awaited: false };
    assert_eq!(actions, [report, SupervisorAction::TerminateLeftovers]);
    let actions = step(&mut supervisor, now + Duration::from_secs(1), SupervisorInputs::default());
    assert_eq!(actions, [SupervisorAction::Kill(KillReason::LeftRunning)]);
}

#[test]
fn no_command_is_started_after_a_termination_signal_or_when_no_time_is_left() {
    let now = start_time();
    let start = Order::Start { tenure: tenure(now), environment: Vec::new() };
    let terminated = orders(&[start.clone(), Order::Signal(libc::SIGTERM)]);
    for (at, inputs) in [(now, terminated), (tenure(now).stop, orders(&[start]))] {
        let mut supervisor = new_supervisor();
        let actions = supervisor.step(at, inputs);
        assert!(!actions.iter().any(|action| matches!(action, SupervisorAction::Start(_))), "{actions:?}");
        let is_gone = |action: &SupervisorAction| {
            matches!(action, SupervisorAction::Report(Report::Gone(Gone { end: End::NotStarted, .. })))
        };
        assert!(actions.iter().any(is_gone), "{actions:?}");
    }
}

/// Returns the supervisor of a command that was started at this instant and may run for two seconds.
fn running_with_max_run(now: Instant) -> Supervisor {
    let mut supervisor = running(now);
    supervisor.stop_options.max_run = Some(Duration::from_secs(2));
    supervisor.runs_until = Some(now + Duration::from_secs(2));
    supervisor
}

#[test]
fn a_command_that_runs_for_too_long_is_stopped_and_killed() {
    let now = start_time();
    let mut supervisor = running_with_max_run(now);
    let second = Duration::from_secs(1);
    assert_eq!(supervisor.next_timeout(), Some(now + second * 2));
    assert_eq!(step(&mut supervisor, now + second * 2, SupervisorInputs::default()), [SupervisorAction::TimeOut]);
    let actions = step(&mut supervisor, now + second * 3, SupervisorInputs::default());
    assert_eq!(actions, [SupervisorAction::Kill(KillReason::TimedOut)]);
    let actions = step(&mut supervisor, now + second * 3, ended(End::Signaled(libc::SIGKILL), true));
    assert_eq!(actions, [gone(End::TimedOut)]);
}

#[test]
fn a_command_that_exits_on_the_stop_signal_of_max_run_has_timed_out() {
    let now = start_time();
    let mut supervisor = running_with_max_run(now);
    step(&mut supervisor, now + Duration::from_secs(2), SupervisorInputs::default());
    let actions = step(&mut supervisor, now + Duration::from_secs(2), ended(End::Exited(0), true));
    assert_eq!(actions, [gone(End::TimedOut)]);
    assert_eq!(supervisor.next_timeout(), None);
}

#[test]
fn max_run_also_limits_the_processes_that_the_main_process_left_running() {
    let now = start_time();
    let mut supervisor = running_with_max_run(now).with_wait_for_all(true);
    step(&mut supervisor, now, ended(End::Exited(0), false));
    let later = now + Duration::from_secs(2);
    assert_eq!(supervisor.next_timeout(), Some(later));
    assert_eq!(step(&mut supervisor, later, SupervisorInputs::default()), [SupervisorAction::TerminateLeftovers]);
    assert_eq!(step(&mut supervisor, later, tree_empty()), [gone(End::TimedOut)]);
}

#[test]
fn a_loss_takes_precedence_over_max_run() {
    let now = start_time();
    let mut supervisor = running_with_max_run(now);
    step(&mut supervisor, now, orders(&[LOSE]));
    let later = now + Duration::from_secs(2);
    assert!(!step(&mut supervisor, later, SupervisorInputs::default()).contains(&SupervisorAction::TimeOut));
    let mut supervisor = running_with_max_run(now);
    step(&mut supervisor, later, SupervisorInputs::default());
    step(&mut supervisor, later, orders(&[LOSE]));
    let [SupervisorAction::Report(Report::Gone(gone))] = &step(&mut supervisor, later, ended(End::Exited(0), true))[..]
    else {
        panic!("the end of the command should be reported")
    };
    assert!(gone.lost);
}
