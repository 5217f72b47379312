//! Tests of the single rules of the elector.

use super::*;

/// An elector, and the actions that the test has not checked yet.
struct Driver {
    elector: Elector,
    actions: Vec<ElectorAction>,
}

impl Driver {
    fn new(routes: bool) -> Self {
        let seconds = Duration::from_secs;
        let timing = Timing::new(seconds(6), seconds(4), seconds(1), None).unwrap();
        Self { elector: Elector::new(&timing, routes), actions: Vec::new() }
    }

    fn step(&mut self, now: Instant, inputs: ElectorInputs) {
        self.actions.extend(self.elector.step(now, inputs));
    }

    fn report(&mut self, now: Instant, report: Report) {
        self.step(now, ElectorInputs { reports: vec![report], ..ElectorInputs::default() });
    }

    fn election(&mut self, now: Instant, report: ElectionReport) {
        self.step(now, ElectorInputs { election: vec![report], ..ElectorInputs::default() });
    }

    fn supervisor_dies(&mut self, now: Instant) {
        self.step(now, ElectorInputs { supervisor_died: true, ..ElectorInputs::default() });
    }

    fn signal(&mut self, now: Instant, signal: i32) {
        self.step(now, ElectorInputs { signals: vec![signal], ..ElectorInputs::default() });
    }

    fn withdrawn(&mut self, now: Instant) {
        self.step(now, ElectorInputs { withdrawn: true, ..ElectorInputs::default() });
    }

    fn tree_empty(&mut self, now: Instant) {
        self.step(now, ElectorInputs { tree_empty: true, ..ElectorInputs::default() });
    }

    fn time(&mut self, now: Instant) {
        self.step(now, ElectorInputs::default());
    }

    /// Returns the unread actions, without notices.
    fn actions(&mut self) -> Vec<ElectorAction> {
        let actions = self.actions.drain(..);
        actions.filter(|action| !matches!(action, ElectorAction::Notify(_))).collect()
    }

    fn notices(&mut self) -> Vec<ElectorNotice> {
        let notice = |action| if let ElectorAction::Notify(notice) = action { Some(notice) } else { None };
        self.actions.drain(..).filter_map(notice).collect()
    }

    /// Returns why leaderrun exits, if it does at this instant.
    fn ends(&mut self, now: Instant) -> Option<Ending> {
        self.time(now);
        let ending = |action| if let ElectorAction::Exit(ending) = action { Some(ending) } else { None };
        self.actions().into_iter().find_map(ending)
    }
}

fn start() -> Instant {
    Instant::after_boot(Duration::from_secs(100))
}

fn tenure(renewal_sent_at: Instant) -> Tenure {
    let stop = renewal_sent_at + Duration::from_secs(4);
    Tenure { renewal_sent_at, stop, kill: stop + Duration::from_secs(1) }
}

fn gone(end: End, lost: bool) -> Report {
    Report::Gone(Gone { end, lost })
}

fn acquired(now: Instant) -> ElectionReport {
    ElectionReport::StartLeading { tenure: tenure(now), environment: Vec::new() }
}

/// Returns a candidate that acquired the lock at this instant.
fn leading_with(routes: bool, now: Instant) -> Driver {
    let mut driver = Driver::new(routes);
    driver.election(now, ElectionReport::Claiming);
    driver.election(now, acquired(now));
    let start = Order::Start { tenure: tenure(now), environment: Vec::new() };
    assert_eq!(driver.actions(), [ElectorAction::Order(start)]);
    driver
}

fn leading(now: Instant) -> Driver {
    leading_with(false, now)
}

/// Returns a leader whose command has started and gets traffic.
fn routed(now: Instant) -> Driver {
    let mut driver = leading_with(true, now);
    driver.report(now, Report::Started { pid: 7 });
    driver
}

fn signal(signal: i32) -> ElectorAction {
    ElectorAction::Order(Order::Signal(signal))
}

fn command_gone(succeeded: bool) -> ElectorAction {
    ElectorAction::CommandGone { succeeded }
}

const LOST: Ending = Ending::Lost { may_rejoin: true };
const LOST_FOR_GOOD: Ending = Ending::Lost { may_rejoin: false };

#[test]
fn a_supervisor_is_late_by_the_tenure_that_it_reported_as_enforced() {
    let now = start();
    let mut driver = leading(now);
    let (first, second) = (tenure(now), tenure(now + Duration::from_secs(2)));
    // An order that is not confirmed does not extend the tenure.
    driver.election(now, ElectionReport::Extend(second));
    assert_eq!(driver.actions(), [ElectorAction::Order(Order::Extend(second))]);
    assert_eq!(driver.elector.next_timeout(), Some(first.last_resort()));
    driver.report(now, Report::Enforcing(second));
    assert_eq!(driver.elector.next_timeout(), Some(second.last_resort()));
    driver.time(first.last_resort());
    assert_eq!(driver.actions(), []);
    driver.time(second.last_resort());
    assert_eq!(driver.actions(), [ElectorAction::KillAll(SupervisorFailure::Late)]);
}

#[test]
fn a_lock_held_by_another_leaves_no_grace_whatever_the_supervisor_reports() {
    let now = start();
    let mut driver = leading(now);
    driver.election(now, ElectionReport::Lose);
    assert_eq!(driver.actions(), [ElectorAction::Order(Order::Lose)]);
    driver.report(now, Report::Enforcing(tenure(now)));
    assert_eq!(driver.elector.next_timeout(), Some(Tenure::over(now).last_resort()));
}

#[test]
fn a_loss_is_notified_once() {
    let now = start();
    for (lose, loss) in [(None, Loss::NotRenewed), (Some(ElectionReport::Lose), Loss::Taken)] {
        let mut driver = leading(now);
        lose.into_iter().for_each(|event| driver.election(now, event));
        driver.report(now, gone(End::Signaled(libc::SIGKILL), true));
        let losses: Vec<ElectorNotice> =
            driver.notices().into_iter().filter(|notice| matches!(notice, ElectorNotice::Lost(_))).collect();
        assert_eq!(losses, [ElectorNotice::Lost(loss)]);
    }
}

#[test]
fn the_lock_is_released_only_when_all_children_of_a_failed_supervisor_are_gone() {
    let now = start();
    let mut driver = leading(now);
    driver.supervisor_dies(now);
    assert_eq!(driver.actions(), [ElectorAction::KillAll(SupervisorFailure::Died)]);
    // A late report and a second notice of the death are ignored.
    driver.report(now, gone(End::Exited(0), false));
    driver.supervisor_dies(now);
    driver.time(now + Duration::from_secs(3600));
    assert_eq!(driver.actions(), []);
    driver.tree_empty(now);
    assert_eq!(driver.actions(), [command_gone(false)]);
    driver.election(now, ElectionReport::Finished(Outcome::Released));
    assert_eq!(driver.ends(now), Some(LOST));
}

#[test]
fn a_report_sent_before_the_death_of_the_supervisor_counts() {
    let now = start();
    let mut driver = leading(now);
    driver.report(now, gone(End::Exited(7), false));
    driver.supervisor_dies(now);
    assert_eq!(driver.actions(), [command_gone(false)]);
    driver.election(now, ElectionReport::Finished(Outcome::Released));
    assert_eq!(driver.ends(now), Some(Ending::Command(End::Exited(7))));
}

#[test]
fn an_empty_tree_is_ignored_while_the_supervisor_is_alive() {
    let now = start();
    let mut driver = leading(now);
    driver.tree_empty(now);
    assert_eq!(driver.actions(), []);
}

#[test]
fn the_exit_waits_for_the_release_up_to_a_timeout() {
    let now = start();
    let mut driver = leading(now);
    driver.report(now, gone(End::Exited(0), false));
    assert_eq!(driver.actions(), [command_gone(true)]);
    assert_eq!(driver.elector.next_timeout(), Some(now + Duration::from_millis(2500)));
    assert_eq!(driver.ends(now), None);
    // A signal shortens the wait.
    driver.signal(now, libc::SIGTERM);
    assert_eq!(driver.actions(), [ElectorAction::StopElection]);
    assert_eq!(driver.ends(now + RELEASE_TIMEOUT), Some(Ending::Command(End::Exited(0))));
}

#[test]
fn a_signal_to_a_standby_exits_as_soon_as_there_is_nothing_to_release() {
    let now = start();
    let real_time = libc::SIGRTMIN() + 3;
    for (events, timeout, ends) in [
        (vec![], STOP_TIMEOUT, libc::SIGINT),
        (vec![ElectionReport::Claiming], RELEASE_TIMEOUT, libc::SIGUSR1),
        (vec![ElectionReport::Claiming, ElectionReport::ClaimFailed], STOP_TIMEOUT, libc::SIGWINCH),
        (vec![], STOP_TIMEOUT, real_time),
    ] {
        let mut driver = Driver::new(false);
        events.into_iter().for_each(|event| driver.election(now, event));
        for other in [libc::SIGCHLD, libc::SIGCONT, libc::SIGTSTP, libc::SIGURG] {
            driver.signal(now, other);
        }
        driver.step(now, ElectorInputs { resized: true, ..ElectorInputs::default() });
        assert_eq!(driver.actions(), []);
        driver.signal(now, ends);
        assert_eq!(driver.actions(), [ElectorAction::StopElection]);
        assert_eq!(driver.elector.next_timeout(), Some(now + timeout));
        // The lock is acquired after all, but no command is started.
        driver.election(now, acquired(now));
        assert_eq!(driver.actions(), [command_gone(false)]);
        assert_eq!(driver.ends(now + timeout), Some(Ending::Signaled(ends)));
    }
}

#[test]
fn a_leader_relays_signals_and_exits_by_them_if_the_command_was_not_started() {
    let now = start();
    let mut driver = leading(now);
    for signal in [libc::SIGCHLD, libc::SIGUSR1, libc::SIGTERM, libc::SIGINT] {
        driver.signal(now, signal);
    }
    let relayed = [libc::SIGUSR1, libc::SIGTERM, libc::SIGINT];
    assert_eq!(driver.actions(), relayed.map(|signal| ElectorAction::Order(Order::Signal(signal))));
    driver.report(now, gone(End::NotStarted, false));
    driver.election(now, ElectionReport::Finished(Outcome::Released));
    assert_eq!(driver.ends(now), Some(Ending::Signaled(15)));
}

#[test]
fn copies_of_one_request_to_end_are_relayed_once() {
    let now = start();
    let mut driver = routed(now);
    for _ in 0..3 {
        driver.signal(now, libc::SIGTERM);
        driver.signal(now, libc::SIGUSR1);
    }
    assert_eq!(driver.actions(), [libc::SIGUSR1; 3].map(signal), "the request is deferred, once");
    driver.withdrawn(now);
    driver.signal(now + Duration::from_millis(499), libc::SIGTERM);
    assert_eq!(driver.actions(), [signal(libc::SIGTERM)]);
    driver.signal(now + REPEAT_WINDOW, libc::SIGTERM);
    assert_eq!(driver.actions(), [signal(libc::SIGTERM)], "its sender repeats it");
}

#[test]
fn the_stop_signal_is_a_request_to_end() {
    let now = start();
    let mut driver = routed(now);
    driver.elector = driver.elector.with_stop_signal(libc::SIGUSR1);
    driver.signal(now, libc::SIGUSR1);
    assert_eq!(driver.actions(), [], "it is deferred");
    driver.withdrawn(now);
    assert_eq!(driver.actions(), [signal(libc::SIGUSR1)]);
    assert!(driver.elector.was_asked_to_end());
}

#[test]
fn a_request_to_step_down_is_relayed_as_sigterm() {
    let now = start();
    let mut driver = leading(now);
    driver.election(now, ElectionReport::StepDown);
    assert_eq!(driver.actions(), [ElectorAction::Order(Order::Signal(libc::SIGTERM))]);
}

#[test]
fn a_candidate_without_a_supervisor_stops_waiting() {
    let now = start();
    let mut driver = Driver::new(false);
    driver.supervisor_dies(now);
    assert_eq!(driver.actions(), [ElectorAction::StopElection]);
    assert_eq!(driver.ends(now + RELEASE_TIMEOUT), Some(Ending::Failed { may_pass: true }));
}

#[test]
fn a_candidate_that_did_not_acquire_the_lock_exits_at_once() {
    let now = start();
    let mut driver = Driver::new(false);
    driver.election(now, ElectionReport::Finished(Outcome::NotAcquired));
    assert_eq!(driver.ends(now), Some(Ending::NotAcquired));
}

#[test]
fn traffic_is_routed_away_before_the_command_gets_a_termination_signal() {
    let now = start();
    let mut driver = routed(now);
    driver.signal(now, libc::SIGTERM);
    driver.signal(now, libc::SIGUSR1);
    assert!(driver.actions.contains(&ElectorAction::Notify(ElectorNotice::Terminating)));
    assert_eq!(driver.actions(), [signal(libc::SIGUSR1)]);
    driver.withdrawn(now);
    driver.withdrawn(now);
    assert_eq!(driver.actions(), [signal(libc::SIGTERM)]);
}

#[test]
fn the_deferral_of_a_termination_signal_times_out() {
    let now = start();
    let mut driver = routed(now);
    driver.election(now, ElectionReport::StepDown);
    assert_eq!(driver.actions(), []);
    assert_eq!(driver.elector.next_timeout(), Some(now + WITHDRAWAL_TIMEOUT));
    driver.time(now + WITHDRAWAL_TIMEOUT);
    assert_eq!(driver.actions(), [signal(libc::SIGTERM)]);
    assert_eq!(driver.elector.next_timeout(), Some(tenure(now).last_resort()));
}

#[test]
fn a_second_termination_signal_ends_the_deferral() {
    let now = start();
    let mut driver = routed(now);
    for termination in [libc::SIGTERM, libc::SIGINT, libc::SIGTERM] {
        driver.signal(now, termination);
    }
    assert_eq!(driver.actions(), [libc::SIGTERM, libc::SIGINT, libc::SIGTERM].map(signal));
    driver.withdrawn(now);
    assert_eq!(driver.actions(), []);
}

#[test]
fn nothing_is_deferred_before_the_command_has_started() {
    let now = start();
    let mut driver = leading_with(true, now);
    driver.signal(now, libc::SIGTERM);
    assert!(
        driver.actions.contains(&ElectorAction::Notify(ElectorNotice::Terminating)),
        "no traffic is routed to it later"
    );
    assert_eq!(driver.actions(), [signal(libc::SIGTERM)]);
}

#[test]
fn sighup_and_sigquit_do_not_withdraw_traffic() {
    let now = start();
    let mut driver = routed(now);
    for other in [libc::SIGHUP, libc::SIGQUIT] {
        driver.signal(now, other);
        assert!(!driver.actions.contains(&ElectorAction::Notify(ElectorNotice::Terminating)));
        assert_eq!(driver.actions(), [signal(other)]);
    }
    driver.signal(now, libc::SIGTERM);
    assert_eq!(driver.notices(), [ElectorNotice::TerminationSignal(libc::SIGTERM), ElectorNotice::Terminating]);
}

#[test]
fn a_command_that_is_gone_gets_no_termination_signal() {
    let now = start();
    let mut driver = routed(now);
    driver.signal(now, libc::SIGTERM);
    driver.report(now, gone(End::Exited(0), false));
    driver.withdrawn(now);
    driver.time(now + WITHDRAWAL_TIMEOUT);
    assert_eq!(driver.actions(), [command_gone(true)]);
}

#[test]
fn a_claim_sent_during_the_shutdown_is_released() {
    let now = start();
    let mut driver = Driver::new(false);
    driver.signal(now, libc::SIGTERM);
    assert_eq!(driver.elector.next_timeout(), Some(now + STOP_TIMEOUT));
    driver.election(now, ElectionReport::Claiming);
    assert_eq!(driver.elector.next_timeout(), Some(now + RELEASE_TIMEOUT));
    driver.election(now, ElectionReport::Finished(Outcome::Stopped));
    assert_eq!(driver.ends(now), Some(Ending::Signaled(libc::SIGTERM)));
}

#[test]
fn a_command_runs_to_the_end_of_its_tenure_when_the_election_fails() {
    let now = start();
    for may_pass in [true, false] {
        let mut waiting = Driver::new(false);
        waiting.election(now, ElectionReport::Failed { may_pass });
        assert_eq!(waiting.ends(now), Some(Ending::Failed { may_pass }));
    }

    let mut driver = leading(now);
    driver.election(now, ElectionReport::Failed { may_pass: true });
    assert_eq!(driver.ends(now), None);
    driver.time(tenure(now).last_resort());
    assert_eq!(driver.actions(), [ElectorAction::KillAll(SupervisorFailure::Late)]);
    driver.tree_empty(now);
    driver.election(now, ElectionReport::Failed { may_pass: true });
    assert_eq!(driver.ends(now), Some(LOST));
}

#[test]
fn a_candidate_may_rejoin_after_a_loss_unless_its_end_was_requested() {
    let now = start();
    let exit_after = |action: &dyn Fn(&mut Driver), status: i32, lost: bool| {
        let mut driver = leading(now);
        driver.report(now, Report::Started { pid: 7 });
        action(&mut driver);
        driver.report(now, gone(End::Exited(status), lost));
        driver.election(now, ElectionReport::Finished(Outcome::Lost));
        driver.ends(now)
    };
    let for_good = Some(LOST_FOR_GOOD);
    let sends = |signal| move |driver: &mut Driver| driver.signal(now, signal);
    assert_eq!(exit_after(&|_| {}, 0, true), Some(LOST));
    assert_eq!(exit_after(&sends(libc::SIGHUP), 0, true), Some(LOST), "SIGHUP only reloads the command");
    assert_eq!(exit_after(&sends(libc::SIGTERM), 0, true), for_good);
    let status_of_a_loss = 76;
    assert_eq!(exit_after(&|_| {}, status_of_a_loss, false), Some(Ending::Command(End::Exited(status_of_a_loss))));

    let mut driver = leading(now);
    driver.supervisor_dies(now);
    driver.signal(now, libc::SIGTERM);
    driver.tree_empty(now);
    driver.election(now, ElectionReport::Finished(Outcome::Released));
    assert_eq!(driver.ends(now), for_good);

    let mut driver = leading(now);
    driver.report(now, gone(End::Exited(0), true));
    driver.signal(now, libc::SIGTERM);
    driver.election(now, ElectionReport::Finished(Outcome::Lost));
    assert_eq!(driver.ends(now), for_good);

    // A process that was frozen sees the loss and the signal when it is thawed.
    let mut driver = leading(now);
    driver.report(now, gone(End::Exited(0), true));
    let later = now + Duration::from_secs(60);
    driver.signal(later, libc::SIGTERM);
    assert_eq!(driver.ends(later), for_good);
}
