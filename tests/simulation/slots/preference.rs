//! Tests of preferences: the preferred candidate leads after a hand-over, and preemption causes no flapping.

use std::time::Duration;

use leaderrun_core::election::Preference;

use super::world::{Event, World};
use testkit::simulated_time::SECOND;

/// Returns the preferences of three candidates: the first has no claim delay, and the others have one of five seconds.
fn preferences(preempt_after: Option<Duration>) -> [Preference; 3] {
    let preferred = Preference { claim_delay: Duration::ZERO, preempt_after };
    let other = Preference { claim_delay: Duration::from_secs(5), preempt_after };
    [preferred, other.clone(), other]
}

fn leader(world: &World) -> Option<usize> {
    world.live_commands[0].map(|(candidate, _)| candidate)
}

#[test]
fn a_hand_over_goes_to_the_preferred_candidate_while_it_is_healthy() {
    for seed in 0..100 {
        let mut world = World::with_preferences(seed, 1, &preferences(None), 0);
        world.stop_candidate(0);
        world.run_until(30 * SECOND);
        let first = leader(&world).expect("a candidate leads");
        world.restart_candidate(0);
        world.run_until(world.now + 30 * SECOND);
        assert_eq!(leader(&world), Some(first), "without preemption, the leader should keep the lock");
        world.schedule(world.now, first, Event::End { slot: 0 });
        world.run_until(world.now + SECOND);
        assert_eq!(leader(&world), Some(0), "seed {seed}");
        // The lease expires after 15 seconds, and the claim delay of the others is 5 seconds.
        world.stop_candidate(0);
        world.run_until(world.now + 22 * SECOND);
        assert!(leader(&world).is_some_and(|leader| leader != 0), "seed {seed}");
    }
}

#[test]
fn a_preferred_candidate_leads_again_after_it_has_been_a_standby_for_the_configured_time() {
    for seed in 0..20 {
        let mut world = World::with_preferences(seed, 1, &preferences(Some(Duration::from_secs(60))), 0);
        world.stop_candidate(0);
        world.run_until(30 * SECOND);
        assert_ne!(leader(&world).expect("a candidate leads"), 0, "seed {seed}");
        world.restart_candidate(0);
        world.run_until(world.now + 50 * SECOND);
        assert_ne!(
            leader(&world).expect("a candidate leads"),
            0,
            "preempted before it had been a standby for a minute"
        );
        world.run_until(world.now + 20 * SECOND);
        assert_eq!(leader(&world), Some(0), "seed {seed}");
        world.run_until(world.now + 3600 * SECOND);
        assert_eq!((leader(&world), world.requests_to_step_down), (Some(0), 1), "seed {seed}");
    }
}

/// The candidates crash and restart often.
#[test]
fn flapping_candidates_request_at_most_one_step_down_per_preempt_after_on_average() {
    let preempt_after = Some(Duration::from_secs(10));
    let preferences = [0, 1, 2, 3].map(|delay| Preference { claim_delay: Duration::from_secs(delay), preempt_after });
    let mut most = 0;
    for seed in 0..5 {
        let mut world = World::with_preferences(seed, 1, &preferences, 3600 * SECOND);
        world.run_until(3600 * SECOND);
        assert_eq!(world.violation, None, "seed {seed}");
        // An hour is 360 times the configured ten seconds.
        assert!(world.requests_to_step_down <= 360, "seed {seed}: {}", world.requests_to_step_down);
        most = most.max(world.requests_to_step_down);
    }
    assert!(most > 10, "{most} requests an hour are too few to test the limit");
}
