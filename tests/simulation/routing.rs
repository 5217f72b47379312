//! Simulates the routing thread. It runs the production state machine, and the steps that it begins take a random time
//! and may fail.

use leaderrun_core::elector::ElectorNotice;
use leaderrun_core::messages::Report;
use leaderrun_core::routing::{Route, RouteAction, RouteInputs, RoutingStep, StepResult};
use leaderrun_core::updates::Update;

use crate::events::{Event, Thread};
use crate::plan::MachinePlan;
use crate::world::World;
use testkit::simulated_time::{MILLISECOND, SECOND};

/// The routing thread of one run.
#[derive(Debug)]
pub struct RoutingThread {
    route: Route,
    /// The number of the step in progress, if there is one. The results of earlier steps are ignored.
    current_step: Option<u32>,
    /// The number of steps that were begun.
    begun_steps: u32,
    updates: Vec<Update>,
    result: Option<StepResult>,
}

impl RoutingThread {
    pub fn new(plan: &MachinePlan) -> Self {
        let route = Route::new(plan.timing.request_timeout());
        Self { route, current_step: None, begun_steps: 0, updates: Vec::new(), result: None }
    }
}

/// Returns the update that the routing thread gets for a notice.
pub fn update_of_notice(notice: &ElectorNotice) -> Option<Update> {
    match notice {
        ElectorNotice::Leading(tenure) => {
            Some(Update::Leading { stop: tenure.stop, gone_by: tenure.elector_kill_at() })
        }
        ElectorNotice::Lost(loss) => Some(Update::Lost(*loss)),
        ElectorNotice::Terminating => Some(Update::Terminating),
        ElectorNotice::CommandGone => Some(Update::CommandGone),
        _ => None,
    }
}

/// Returns the update that the routing thread gets for a report.
pub fn update_of_report(report: &Report) -> Option<Update> {
    matches!(report, Report::Started { .. }).then_some(Update::CommandStarted)
}

impl World {
    pub fn update_routing(&mut self, run: usize, update: Update) {
        if let Some(routing) = &mut self.runs[run].elector.routing {
            routing.updates.push(update);
            self.wake_soon(run, Thread::Routing);
        }
    }

    /// Runs one iteration of the routing thread's loop.
    pub fn run_routing(&mut self, run: usize) {
        let now = self.clock(run).boot_time(self.now);
        let elector = &mut self.runs[run].elector;
        let Some(routing) = elector.routing.as_mut().filter(|_| elector.alive) else { return };
        let inputs = RouteInputs { updates: std::mem::take(&mut routing.updates), result: routing.result.take() };
        for action in routing.route.step(now, inputs) {
            match action {
                RouteAction::Begin(step) => self.begin_routing_step(run, &step),
                RouteAction::Withdrawn => {
                    self.runs[run].elector.withdrawn = true;
                    self.wake_soon(run, Thread::Main);
                }
                RouteAction::Finish => {}
            }
        }
        let next = self.runs[run].elector.routing.as_ref().and_then(|routing| routing.route.next_timeout(now));
        if let Some(at) = next {
            let at = self.clock(run).time_of(at) + self.rng.u64(0..MILLISECOND);
            self.wake(run, Thread::Routing, at);
        }
    }

    fn begin_routing_step(&mut self, run: usize, step: &RoutingStep) {
        let failure_probability = if self.faults_are_over() { 0.0 } else { 0.3 };
        let result = match step {
            _ if self.chance(failure_probability) => StepResult::Failed,
            RoutingStep::Withdraw { .. } if self.chance(failure_probability / 10.0) => StepResult::Forbidden,
            _ => StepResult::Succeeded,
        };
        let Some(routing) = &mut self.runs[run].elector.routing else { return };
        routing.begun_steps += 1;
        let number = routing.begun_steps;
        routing.current_step = Some(number);
        let longest = [20 * MILLISECOND, 3 * SECOND][usize::from(self.chance(0.2))];
        self.schedule_within(longest, Event::RoutingStepEnds { run, number, result });
    }

    /// Delivers the result of a routing step.
    pub fn deliver_routing_result(&mut self, run: usize, number: u32, result: StepResult) {
        let elector = &mut self.runs[run].elector;
        if let Some(routing) = elector.routing.as_mut().filter(|routing| routing.current_step == Some(number)) {
            (routing.current_step, routing.result) = (None, Some(result));
            self.wake_soon(run, Thread::Routing);
        }
    }
}
