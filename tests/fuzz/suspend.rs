//! A machine that slept: on the boot clock, deadlines that passed meanwhile come before anything else.

use std::time::Duration;

use leaderrun_core::instant::Instant;
use leaderrun_core::messages::End;
use leaderrun_core::messages::Reason;
use leaderrun_core::supervisor::{Action, Policy, StopOptions};
use leaderrun_core::tenure::Tenure;
use leaderrun_core::timing::Timing;

use crate::fuzz;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn deadlines_come_first() {
    let timing = Timing::new(15 * SECOND, 10 * SECOND, 2 * SECOND, None).expect("the defaults");
    fuzz("suspend", 50_000, |mut random| {
        let kill_after = random.bool().then_some(SECOND);
        let stop_options = StopOptions { stop_signal: libc::SIGTERM, lost_grace: timing.lost_grace(), kill_after };
        let mut policy = Policy::new(stop_options);
        let mut now = Instant::after_boot(Duration::from_secs(random.u64(0..1000)));
        let mut newest = now;
        policy.handle_start(Tenure::of_renewal(newest, &timing));
        let slept_before_start = random.u8(..8) == 0;
        now = now + if slept_before_start { 60 * SECOND } else { Duration::from_millis(random.u64(0..9000)) };
        assert_eq!(policy.poll_action(), Some(Action::Start));
        assert_eq!(policy.may_start(now), !slept_before_start, "nothing is started late");
        if slept_before_start {
            policy.handle_not_started(now);
            assert!(matches!(policy.poll_action(), Some(Action::Report(gone)) if gone.lost));
            return;
        }
        policy.handle_started();
        // Awake: renewals in time, and nothing is done to the command.
        for _ in 0..random.usize(..5) {
            newest = now;
            policy.handle_extend(Tenure::of_renewal(newest, &timing));
            now = now + Duration::from_millis(random.u64(0..9000));
            policy.handle_timeout(now);
            assert_eq!(policy.poll_action(), None);
        }
        // Asleep. Renewals that were sent before wait in the queue, out of order; so do signals.
        let before = now;
        now = now + Duration::from_millis(1 << random.u32(..40));
        for _ in 0..random.usize(..4) {
            let sent = newest + Duration::from_millis(random.u64(0..2000));
            policy.handle_extend(Tenure::of_renewal(sent.min(before), &timing));
            newest = newest.max(sent.min(before));
        }
        policy.handle_timeout(now);
        if random.bool() {
            policy.handle_signal(now, libc::SIGTERM);
        }
        if random.u8(..4) == 0 {
            policy.handle_main_ended(now, End::Exited(0));
        }
        let tenure = Tenure::of_renewal(newest, &timing);
        assert_eq!(policy.tenure(), Some(tenure), "queued renewals count, the newest of them");
        let actions: Vec<Action> = std::iter::from_fn(|| policy.poll_action()).collect();
        let first = match () {
            () if now >= tenure.kill => &[Action::Stop, Action::Kill(Reason::Lost)][..],
            () if now >= tenure.stop => &[Action::Stop],
            () => &[],
        };
        assert!(actions.starts_with(first), "{first:?} before {actions:?}");
        let is_loss = |action: &Action| matches!(action, Action::Stop | Action::Kill(Reason::Lost));
        assert!(!actions[first.len()..].iter().any(is_loss), "and no more than that: {actions:?}");
        // What is renewed from here on keeps the lease, not the command.
        policy.handle_extend(Tenure::of_renewal(now, &timing));
        assert!(first.is_empty() || policy.tenure() == Some(tenure), "a kill instant is frozen");
    });
}
