//! Tests of how updates change the state of a candidate.

use leaderrun_core::updates::Loss;

use super::*;
use crate::telemetry::metrics::exposition;

fn at(seconds: u64) -> Instant {
    Instant::after_boot(Duration::from_secs(seconds))
}

fn state(ready_when: ReadyWhen, updates: impl IntoIterator<Item = Update>) -> CandidateState {
    let config = CandidateConfig {
        lock: "default/job".into(),
        slots: None,
        identity: "a".into(),
        lease_duration: Duration::from_secs(15),
        renew_deadline: Duration::from_secs(10),
        retry_period: Duration::from_secs(2),
        request_timeout: Duration::from_secs(2),
        ready_when,
        unhealthy_after: None,
    };
    let mut state = CandidateState::new(at(0), config, None);
    updates.into_iter().for_each(|update| state.apply(at(0), update));
    state
}

fn leading() -> [Update; 2] {
    [Update::Leading { stop: at(10), gone_by: at(13) }, Update::CommandStarted]
}

fn observed(holder: &str, transitions: Option<u32>) -> Update {
    Update::Observed(Observed { holder: holder.into(), since: None, transitions, acquirable_at: at(15) })
}

#[test]
fn an_election_that_does_not_act_in_time_is_stuck() {
    let state = state(ReadyWhen::Waiting, [Update::NextTimeout(Some(at(5)))]);
    assert_eq!(state.health(at(5)), Ok(()));
    assert_eq!(state.health(at(8)), Err("the election is stuck: it was due 3s ago".into()));
}

#[test]
fn an_election_without_a_timeout_is_not_stuck() {
    let state = state(ReadyWhen::Waiting, [Update::NextTimeout(Some(at(5))), Update::NextTimeout(None)]);
    assert_eq!(state.health(at(1000)), Ok(()));
}

#[test]
fn a_leader_whose_command_is_not_gone_in_time_is_unhealthy() {
    let mut state = state(ReadyWhen::Waiting, leading());
    assert_eq!(state.health(at(12)), Ok(()));
    assert_eq!(state.health(at(14)), Err("leadership should have ended 1s ago, but has not".into()));
    state.apply(at(14), Update::CommandGone);
    assert_eq!(state.health(at(14)), Ok(()));
}

#[test]
fn a_leader_is_ready_from_the_start_of_its_command_to_the_stop_signal() {
    for ready_when in [ReadyWhen::Waiting, ReadyWhen::Leading] {
        let mut state = state(ready_when, leading());
        assert_eq!(state.readiness(at(9)), Ok(()));
        assert_eq!(state.readiness(at(10)), Err("leadership is lost".into()));
        state.apply(at(9), Update::Lost(Loss::Taken));
        assert_eq!(state.readiness(at(9)), Err("leadership is lost".into()));
        state.apply(at(9), Update::LockResponded);
        state.apply(at(9), observed("", Some(3)));
        state.apply(at(9), Update::CommandGone);
        assert!(state.readiness(at(9)).is_err(), "a candidate that has lost its leadership stays unready");
    }
    let mut released = state(ReadyWhen::Waiting, leading());
    released.apply(at(9), Update::CommandGone);
    assert_eq!(released.readiness(at(9)), Err("the command has ended".into()));
    let [before_the_start, _] = leading();
    assert!(state(ReadyWhen::Leading, [before_the_start]).readiness(at(1)).is_err());
}

#[test]
fn ready_when_waiting_makes_a_standby_ready_if_it_can_take_over() {
    let standby = |ready_when| state(ready_when, [Update::LockResponded, observed("b", Some(3))]);
    assert_eq!(state(ReadyWhen::Waiting, []).readiness(at(1)), Err("default/job has not been read yet".into()));
    assert_eq!(standby(ReadyWhen::Waiting).readiness(at(16)), Ok(()));
    let silent = standby(ReadyWhen::Waiting).readiness(at(17));
    assert_eq!(silent, Err("default/job has not been read or watched successfully for 17s".into()));
    assert!(standby(ReadyWhen::Leading).readiness(at(1)).is_err());
}

#[test]
fn a_standby_whose_claims_are_refused_is_not_ready() {
    let free = Update::Observed(Observed { holder: "".into(), since: None, transitions: None, acquirable_at: at(0) });
    let mut state = state(ReadyWhen::Waiting, [Update::LockResponded, free, Update::WriteRefused]);
    assert_eq!(state.readiness(at(1)), Err("default/job is free, but attempts to acquire it are refused".into()));
    state.apply(at(1), observed("b", Some(1)));
    assert_eq!(state.readiness(at(1)), Ok(()));
}

#[test]
fn a_standby_that_has_been_unable_to_lead_for_too_long_is_unhealthy() {
    let mut state = state(ReadyWhen::Leading, [Update::LockResponded, observed("b", Some(3))]);
    assert_eq!(state.health(at(1000)), Ok(()), "without a limit it stays healthy");
    state.config.unhealthy_after = Some(Duration::from_secs(60));
    assert_eq!(state.health(at(59)), Ok(()));
    assert_eq!(
        state.health(at(60)),
        Err("unable to lead for 1m: default/job has not been read or watched successfully for 1m".into())
    );
    leading().into_iter().for_each(|update| state.apply(at(60), update));
    state.apply(at(60), Update::Leading { stop: at(170), gone_by: at(180) });
    assert_eq!(state.health(at(160)), Ok(()), "the limit does not apply to a leader");
}

#[test]
fn the_summary_describes_the_activity() {
    let released = state(ReadyWhen::Waiting, leading().into_iter().chain([Update::CommandGone]));
    assert_eq!(released.summary(at(1)), "the command has ended: releasing default/job");
    let free = Update::Observed(Observed { holder: "".into(), since: None, transitions: None, acquirable_at: at(15) });
    let mut state = state(ReadyWhen::Waiting, []);
    for (update, activity, summary) in [
        (Update::NextTimeout(None), "starting", "starting: default/job has not been read yet"),
        (Update::LockResponded, "starting", "starting: default/job has not been read yet"),
        (observed("b\nREADY=1", None), "waiting", "standby: default/job is held by b\\nREADY=1"),
        (free, "not_due", "standby: default/job is free, but the command is not due yet"),
        (Update::Leading { stop: at(10), gone_by: at(13) }, "leading", "leading default/job"),
        (Update::TerminationRequested, "leading", "leading default/job: ending the command"),
        (Update::Lost(Loss::Taken), "leading", "lost default/job: ending the command"),
        (Update::CommandGone, "releasing", "the command has ended after default/job was lost"),
    ] {
        state.apply(at(1), update);
        assert_eq!((state.activity(at(1)).label(), state.summary(at(1)).as_str()), (activity, summary));
        assert!(Activity::LABELS.contains(&activity));
    }
}

#[test]
fn known_transitions_are_exported_even_after_the_record_is_deleted() {
    let mut state = state(ReadyWhen::Waiting, []);
    let exports = |state: &CandidateState, sample: &str| exposition(state, at(1)).contains(sample);
    assert!(!exports(&state, "\nleaderrun_transitions_total{"));
    for update in [observed("b", Some(3)), observed("", None)] {
        state.apply(at(1), update);
        assert!(exports(&state, "\nleaderrun_transitions_total{name=\"default/job\"} 3\n"));
    }
}

#[test]
fn a_standby_of_a_lock_with_slots_exports_no_transitions() {
    let mut state = state(ReadyWhen::Waiting, [observed("b", Some(3))]);
    state.config.slots = Some(2);
    assert_eq!(state.transitions(), None);
    leading().into_iter().for_each(|update| state.apply(at(0), update));
    assert_eq!(state.transitions(), Some(3));
}

#[test]
fn saved_counters_are_restored() {
    let mut before = state(ReadyWhen::Waiting, leading());
    before.apply(at(1), Update::Renewed { margin: Duration::from_secs(7) });
    before.apply(at(1), Update::Lost(Loss::Taken));
    before.apply(at(1), Update::CommandGone);
    let after = CandidateState::new(at(0), before.config.clone(), Some(&before.saved_counters()));
    let metrics_without_state = |state: &CandidateState| {
        let text = exposition(state, at(1));
        text.lines().filter(|line| !line.starts_with("leaderrun_state")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(metrics_without_state(&after), metrics_without_state(&before));
}
