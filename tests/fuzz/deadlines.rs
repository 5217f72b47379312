//! Fuzzes the supervisor on a machine that is suspended. When the machine resumes, the supervisor must first apply the
//! renewals that have arrived. Then, before it does anything else, it must act on the deadlines that have passed.

use std::time::Duration;

use leaderrun_core::instant::Instant;
use leaderrun_core::messages::{End, Gone, KillReason, Order, Report};
use leaderrun_core::supervisor::{StartResult, StopOptions, Supervisor, SupervisorAction, SupervisorInputs};
use leaderrun_core::tenure::Tenure;
use leaderrun_core::timing::Timing;

use testkit::fuzz;

const SECOND: Duration = Duration::from_secs(1);

fn inputs_with_orders(orders: Vec<Order>) -> SupervisorInputs {
    SupervisorInputs { orders, ..SupervisorInputs::default() }
}

/// Returns `false` for an action that only announces a tenure, and `true` for every other action.
fn affects_command(action: &SupervisorAction) -> bool {
    !matches!(action, SupervisorAction::SetHeldUntil(_) | SupervisorAction::Report(Report::Enforcing(_)))
}

/// Returns whether an action ends the command because its tenure is over. A stop has no other cause in this test.
fn ends_command(action: &SupervisorAction) -> bool {
    matches!(action, SupervisorAction::Stop | SupervisorAction::Kill(KillReason::Lost))
}

fn command_actions(actions: Vec<SupervisorAction>) -> Vec<SupervisorAction> {
    actions.into_iter().filter(affects_command).collect()
}

#[testkit::test]
fn a_deadline_that_passed_during_a_suspend_comes_first() {
    let timing = Timing::new(15 * SECOND, 10 * SECOND, 2 * SECOND, None).expect("the default timing is valid");
    fuzz("suspend", 50_000, |mut random| {
        let kill_after = random.bool().then_some(SECOND);
        let stop_options =
            StopOptions { stop_signal: libc::SIGTERM, lost_grace: timing.lost_grace(), kill_after, max_run: None };
        let mut supervisor = Supervisor::new(stop_options);
        let mut now = Instant::after_boot(Duration::from_secs(random.u64(0..1000)));
        let mut newest_renewal = now;
        let first_tenure = Tenure::of_renewal(newest_renewal, &timing);
        let suspended_before_start = random.u8(..8) == 0;
        now = now + if suspended_before_start { 60 * SECOND } else { Duration::from_millis(random.u64(0..9000)) };
        let start = inputs_with_orders(vec![Order::Start { tenure: first_tenure, environment: Vec::new() }]);
        let actions = command_actions(supervisor.step(now, start));
        if suspended_before_start {
            let is_gone = |action: &SupervisorAction| {
                matches!(action, SupervisorAction::Report(Report::Gone(Gone { lost: true, .. })))
            };
            assert!(
                actions.len() == 1 && is_gone(&actions[0]),
                "the command should not start after the deadline: {actions:?}"
            );
            return;
        }
        assert_eq!(actions, [SupervisorAction::Start(first_tenure)]);
        let attempted = SupervisorInputs { start: Some(StartResult::Attempted), ..SupervisorInputs::default() };
        assert_eq!(command_actions(supervisor.step(now, attempted)), []);
        // While the machine runs, renewals arrive in time, and no action affects the command.
        for _ in 0..random.usize(..5) {
            newest_renewal = now;
            let renewed = inputs_with_orders(vec![Order::Extend(Tenure::of_renewal(newest_renewal, &timing))]);
            assert_eq!(command_actions(supervisor.step(now, renewed)), []);
            now = now + Duration::from_millis(random.u64(0..9000));
            assert_eq!(command_actions(supervisor.step(now, SupervisorInputs::default())), []);
        }
        // After the suspend, renewals and signals that were sent earlier are in the queue, in random order.
        let before_suspend = now;
        // The suspend lasts between a millisecond and 17 years.
        now = now + Duration::from_millis(1 << random.u32(..40));
        let mut queued = Vec::new();
        for _ in 0..random.usize(..4) {
            let sent = newest_renewal + Duration::from_millis(random.u64(0..2000));
            queued.push(Order::Extend(Tenure::of_renewal(sent.min(before_suspend), &timing)));
            newest_renewal = newest_renewal.max(sent.min(before_suspend));
        }
        if random.bool() {
            queued.push(Order::Signal(libc::SIGTERM));
        }
        random.shuffle(&mut queued);
        let main_ended = (random.u8(..4) == 0).then_some(End::Exited(0));
        let inputs = SupervisorInputs { orders: queued, main_ended, ..SupervisorInputs::default() };
        let actions = command_actions(supervisor.step(now, inputs));
        let tenure = Tenure::of_renewal(newest_renewal, &timing);
        assert_eq!(supervisor.tenure(), Some(tenure), "the newest of the queued renewals should count");
        let expected: &[SupervisorAction] = if now >= tenure.kill {
            &[SupervisorAction::Kill(KillReason::Lost), SupervisorAction::Stop]
        } else if now >= tenure.stop {
            &[SupervisorAction::Stop]
        } else {
            &[]
        };
        assert!(actions.starts_with(expected), "{actions:?} should begin with {expected:?}");
        let others = &actions[expected.len()..];
        assert!(!others.iter().any(ends_command), "there should be no other stop or kill: {actions:?}");
        // Once the command has been stopped, a later renewal does not give it more time.
        supervisor.step(now, inputs_with_orders(vec![Order::Extend(Tenure::of_renewal(now, &timing))]));
        assert!(expected.is_empty() || supervisor.tenure() == Some(tenure), "the kill instant should not change");
    });
}
