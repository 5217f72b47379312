//! Tests of each of the elector's rules in isolation.

mod ending;
mod failures;
mod signals;
mod traffic;

use super::*;
use crate::messages::KillReason;

/// An elector, and the actions that the test has not checked yet.
struct Driver {
    elector: Elector,
    actions: Vec<ElectorAction>,
}

impl Driver {
    fn new(routes_traffic: bool) -> Self {
        let seconds = Duration::from_secs;
        let timing = Timing::new(seconds(6), seconds(4), seconds(1), None).unwrap();
        Self { elector: Elector::new(&timing, routes_traffic), actions: Vec::new() }
    }

    fn step(&mut self, now: Instant, inputs: ElectorInputs) {
        self.actions.extend(self.elector.step(now, inputs));
    }

    fn supervisor_reports(&mut self, now: Instant, report: Report) {
        self.step(now, ElectorInputs { reports: vec![report], ..ElectorInputs::default() });
    }

    fn election_reports(&mut self, now: Instant, report: ElectionReport) {
        self.step(now, ElectorInputs { election: vec![report], ..ElectorInputs::default() });
    }

    fn supervisor_dies(&mut self, now: Instant) {
        self.step(now, ElectorInputs { supervisor_died: true, ..ElectorInputs::default() });
    }

    fn signal(&mut self, now: Instant, signal: i32) {
        self.step(now, ElectorInputs { signals: vec![signal], ..ElectorInputs::default() });
    }

    fn traffic_is_withdrawn(&mut self, now: Instant) {
        self.step(now, ElectorInputs { withdrawn: true, ..ElectorInputs::default() });
    }

    fn tree_becomes_empty(&mut self, now: Instant) {
        self.step(now, ElectorInputs { tree_empty: true, ..ElectorInputs::default() });
    }

    /// Steps the elector although nothing has arrived.
    fn wake(&mut self, now: Instant) {
        self.step(now, ElectorInputs::default());
    }

    /// Takes all unchecked actions, and returns those that are not notices.
    fn take_actions(&mut self) -> Vec<ElectorAction> {
        let actions = self.actions.drain(..);
        actions.filter(|action| !matches!(action, ElectorAction::Notify(_))).collect()
    }

    /// Takes all unchecked actions, and returns the notices among them.
    fn take_notices(&mut self) -> Vec<ElectorNotice> {
        let notice = |action| if let ElectorAction::Notify(notice) = action { Some(notice) } else { None };
        self.actions.drain(..).filter_map(notice).collect()
    }

    /// Returns the reason for leaderrun's exit if it exits at this instant.
    fn exit_at(&mut self, now: Instant) -> Option<ExitReason> {
        self.wake(now);
        let reason = |action| if let ElectorAction::Exit(reason) = action { Some(reason) } else { None };
        self.take_actions().into_iter().find_map(reason)
    }
}

fn start_time() -> Instant {
    Instant::after_boot(Duration::from_secs(100))
}

/// Returns the tenure of a renewal: the stop 4 seconds after the renewal was sent, and the kill a second later.
fn tenure(renewal_sent_at: Instant) -> Tenure {
    let stop = renewal_sent_at + Duration::from_secs(4);
    Tenure { renewal_sent_at, stop, kill: stop + Duration::from_secs(1) }
}

fn gone(end: End, lost: bool) -> Report {
    Report::Gone(Gone { end, lost })
}

fn acquired(now: Instant) -> ElectionReport {
    ElectionReport::Acquired { tenure: tenure(now), environment: Vec::new() }
}

/// Returns a candidate that acquired the lock at this instant. `routes_traffic` states whether traffic is routed to its
/// command.
fn leading_with_routing(routes_traffic: bool, now: Instant) -> Driver {
    let mut driver = Driver::new(routes_traffic);
    driver.election_reports(now, ElectionReport::Claiming);
    driver.election_reports(now, acquired(now));
    let start = Order::Start { tenure: tenure(now), environment: Vec::new() };
    assert_eq!(driver.take_actions(), [ElectorAction::Order(start)]);
    driver
}

fn leading(now: Instant) -> Driver {
    leading_with_routing(false, now)
}

/// Returns a leader whose command has started and to which traffic is routed.
fn leading_with_traffic(now: Instant) -> Driver {
    let mut driver = leading_with_routing(true, now);
    driver.supervisor_reports(now, Report::Started { pid: 7 });
    driver
}

/// Returns the order to send this signal to the command.
fn relayed(signal: i32) -> ElectorAction {
    ElectorAction::Order(Order::Signal(signal))
}

fn command_gone(succeeded: bool) -> ElectorAction {
    ElectorAction::ReportCommandGone { succeeded }
}

const LOST: ExitReason = ExitReason::Lost { may_rejoin: true };
const LOST_WITHOUT_REJOINING: ExitReason = ExitReason::Lost { may_rejoin: false };
