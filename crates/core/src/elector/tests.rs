use super::*;

fn policy() -> Policy {
    let seconds = Duration::from_secs;
    Policy::new(&Timing::new(seconds(6), seconds(4), seconds(1), None).unwrap(), false)
}

fn tenure(renewed: Instant) -> Tenure {
    let stop = renewed + Duration::from_secs(4);
    Tenure { renewed, stop, kill: stop + Duration::from_secs(1) }
}

fn gone(end: End, lost: bool) -> Report {
    Report::Gone(Gone { end, lost })
}

/// A candidate that won the lease at this instant.
fn leading(now: Instant) -> Policy {
    let mut policy = policy();
    policy.handle_event(now, Event::Claiming);
    policy.handle_event(now, Event::Lead { tenure: tenure(now), environment: Vec::new() });
    let start = Order::Start { tenure: tenure(now), environment: Vec::new() };
    assert_eq!(actions(&mut policy), [Action::Order(start)]);
    policy
}

/// What is to be done, besides what is to be told.
fn actions(policy: &mut Policy) -> Vec<Action> {
    let actions = core::iter::from_fn(|| policy.poll_action());
    actions.filter(|action| !matches!(action, Action::Tell(_))).collect()
}

fn told(policy: &mut Policy) -> Vec<News> {
    let actions = core::iter::from_fn(|| policy.poll_action());
    actions.filter_map(|action| if let Action::Tell(news) = action { Some(news) } else { None }).collect()
}

/// How it ends at once.
fn ends(policy: &mut Policy, now: Instant) -> Option<Exit> {
    policy.handle_timeout(now);
    actions(policy).into_iter().find_map(|action| if let Action::End(exit) = action { Some(exit) } else { None })
}

/// The status it ends with at once.
fn ends_with(policy: &mut Policy, now: Instant) -> Option<u8> {
    ends(policy, now).map(|exit| exit.status)
}

#[test]
fn a_supervisor_is_late_by_what_it_says_it_enforces() {
    let now = Instant::after_boot(Duration::from_secs(100));
    let mut policy = leading(now);
    let (first, second) = (tenure(now), tenure(now + Duration::from_secs(2)));
    // Ordered is not yet enforced.
    policy.handle_event(now, Event::Extend(second));
    assert_eq!(actions(&mut policy), [Action::Order(Order::Extend(second))]);
    assert_eq!(policy.next_timeout(), Some(first.last_resort()));
    policy.handle_report(now, Report::Enforcing(second));
    assert_eq!(policy.next_timeout(), Some(second.last_resort()));
    policy.handle_timeout(first.last_resort());
    assert_eq!(actions(&mut policy), []);
    policy.handle_timeout(second.last_resort());
    assert_eq!(actions(&mut policy), [Action::LastResort(Failure::Late)]);
}

#[test]
fn a_lease_known_to_be_lost_leaves_no_time_whatever_the_supervisor_says() {
    let now = Instant::after_boot(Duration::from_secs(100));
    let mut policy = leading(now);
    policy.handle_event(now, Event::Lose);
    assert_eq!(actions(&mut policy), [Action::Order(Order::Lose)]);
    policy.handle_report(now, Report::Enforcing(tenure(now)));
    assert_eq!(policy.next_timeout(), Some(Tenure::over(now).last_resort()));
}

#[test]
fn a_loss_is_told_once() {
    let now = Instant::after_boot(Duration::from_secs(100));
    for (lose, loss) in [(None, Loss::NotRenewed), (Some(Event::Lose), Loss::Taken)] {
        let mut policy = leading(now);
        lose.into_iter().for_each(|event| policy.handle_event(now, event));
        policy.handle_report(now, gone(End::Signaled(libc::SIGKILL), true));
        let losses: Vec<News> = told(&mut policy).into_iter().filter(|news| matches!(news, News::Lost(_))).collect();
        assert_eq!(losses, [News::Lost(loss)]);
    }
}

#[test]
fn what_a_failed_supervisor_leaves_is_gone_before_the_lease_is_given_back() {
    let now = Instant::after_boot(Duration::from_secs(100));
    let mut policy = leading(now);
    policy.handle_supervisor_dead(now);
    assert_eq!(actions(&mut policy), [Action::LastResort(Failure::Died)]);
    // Its last word came too late, and its death is no news.
    policy.handle_report(now, gone(End::Exited(0), false));
    policy.handle_supervisor_dead(now);
    policy.handle_timeout(now + Duration::from_secs(3600));
    assert_eq!(actions(&mut policy), []);
    policy.handle_tree_empty(now);
    assert_eq!(actions(&mut policy), [Action::Notify(Notice::TreeGone { well: false })]);
    policy.handle_event(now, Event::Finished(Outcome::Released));
    assert_eq!(ends_with(&mut policy, now), Some(exit::LOST));
}

#[test]
fn a_last_word_counts_when_it_comes_before_the_death() {
    let now = Instant::after_boot(Duration::from_secs(100));
    let mut policy = leading(now);
    policy.handle_report(now, gone(End::Exited(7), false));
    policy.handle_supervisor_dead(now);
    assert_eq!(actions(&mut policy), [Action::Notify(Notice::TreeGone { well: false })]);
    policy.handle_event(now, Event::Finished(Outcome::Released));
    assert_eq!(ends_with(&mut policy, now), Some(7));
}

#[test]
fn a_tree_is_empty_before_there_is_a_command_and_ends_nothing() {
    let now = Instant::after_boot(Duration::from_secs(100));
    let mut policy = leading(now);
    policy.handle_tree_empty(now);
    assert_eq!(actions(&mut policy), []);
}

#[test]
fn an_end_waits_for_the_election_but_not_for_ever() {
    let now = Instant::after_boot(Duration::from_secs(100));
    let mut policy = leading(now);
    policy.handle_report(now, gone(End::Exited(0), false));
    assert_eq!(actions(&mut policy), [Action::Notify(Notice::TreeGone { well: true })]);
    assert_eq!(policy.next_timeout(), Some(now + Duration::from_millis(2500)));
    assert_eq!(ends_with(&mut policy, now), None);
    // Somebody is in a hurry.
    policy.handle_signal(now, libc::SIGTERM);
    assert_eq!(actions(&mut policy), [Action::Notify(Notice::Stop)]);
    assert_eq!(ends_with(&mut policy, now + RELEASE_TIMEOUT), Some(0));
}

#[test]
fn a_signal_ends_the_wait_as_soon_as_there_is_nothing_to_give_back() {
    let now = Instant::after_boot(Duration::from_secs(100));
    for (events, patience) in [
        (vec![], STOP_TIMEOUT),
        (vec![Event::Claiming], RELEASE_TIMEOUT),
        (vec![Event::Claiming, Event::NotWon], STOP_TIMEOUT),
    ] {
        let mut policy = policy();
        events.into_iter().for_each(|event| policy.handle_event(now, event));
        policy.handle_signal(now, libc::SIGUSR1);
        assert_eq!(actions(&mut policy), []);
        policy.handle_signal(now, libc::SIGINT);
        assert_eq!(actions(&mut policy), [Action::Notify(Notice::Stop)]);
        assert_eq!(policy.next_timeout(), Some(now + patience));
        // Won after all: nothing is started.
        policy.handle_event(now, Event::Lead { tenure: tenure(now), environment: Vec::new() });
        assert_eq!(actions(&mut policy), [Action::Notify(Notice::TreeGone { well: false })]);
        assert_eq!(ends_with(&mut policy, now + patience), Some(exit::SIGNALED + 2));
    }
}

#[test]
fn a_leader_relays_signals_and_ends_by_them_what_had_not_begun() {
    let now = Instant::after_boot(Duration::from_secs(100));
    let mut policy = leading(now);
    for signal in [libc::SIGCHLD, libc::SIGUSR1, libc::SIGTERM, libc::SIGINT] {
        policy.handle_signal(now, signal);
    }
    let relayed = [libc::SIGUSR1, libc::SIGTERM, libc::SIGINT];
    assert_eq!(actions(&mut policy), relayed.map(|signal| Action::Order(Order::Signal(signal))));
    policy.handle_report(now, gone(End::NotStarted, false));
    policy.handle_event(now, Event::Finished(Outcome::Released));
    assert_eq!(ends_with(&mut policy, now), Some(exit::SIGNALED + 15));
}

#[test]
fn a_request_to_step_down_is_a_sigterm() {
    let now = Instant::after_boot(Duration::from_secs(100));
    let mut policy = leading(now);
    policy.handle_event(now, Event::StepDown);
    assert_eq!(actions(&mut policy), [Action::Order(Order::Signal(libc::SIGTERM))]);
}

#[test]
fn without_a_supervisor_nobody_goes_on_waiting() {
    let now = Instant::after_boot(Duration::from_secs(100));
    let mut policy = policy();
    policy.handle_supervisor_dead(now);
    assert_eq!(actions(&mut policy), [Action::Notify(Notice::Stop)]);
    assert_eq!(ends_with(&mut policy, now + RELEASE_TIMEOUT), Some(exit::FAILED));
}

#[test]
fn who_waited_in_vain_ends_at_once() {
    let now = Instant::after_boot(Duration::from_secs(100));
    let mut policy = policy();
    policy.handle_event(now, Event::Finished(Outcome::NotAcquired));
    assert_eq!(ends_with(&mut policy, now), Some(exit::NOT_ACQUIRED));
}

/// A leader whose command has started, and to which traffic is led.
fn routed(now: Instant) -> Policy {
    let mut policy = Policy { routes: true, ..leading(now) };
    policy.handle_report(now, Report::Started { pid: 7 });
    policy
}

fn signal(signal: i32) -> Action {
    Action::Order(Order::Signal(signal))
}

#[test]
fn traffic_is_led_away_before_the_command_is_asked_to_end() {
    let now = Instant::after_boot(Duration::from_secs(100));
    let mut policy = routed(now);
    policy.handle_signal(now, libc::SIGTERM);
    policy.handle_signal(now, libc::SIGUSR1);
    assert!(policy.actions.contains(&Action::Tell(News::Ending)));
    assert_eq!(actions(&mut policy), [signal(libc::SIGUSR1)]);
    policy.handle_withdrawn();
    policy.handle_withdrawn();
    assert_eq!(actions(&mut policy), [signal(libc::SIGTERM)]);
}

#[test]
fn a_command_is_asked_to_end_at_last() {
    let now = Instant::after_boot(Duration::from_secs(100));
    let mut policy = routed(now);
    policy.handle_event(now, Event::StepDown);
    assert_eq!(actions(&mut policy), []);
    assert_eq!(policy.next_timeout(), Some(now + WITHDRAWAL_PATIENCE));
    policy.handle_timeout(now + WITHDRAWAL_PATIENCE);
    assert_eq!(actions(&mut policy), [signal(libc::SIGTERM)]);
    assert_eq!(policy.next_timeout(), Some(tenure(now).last_resort()));
}

#[test]
fn who_asks_again_for_an_end_does_not_wait() {
    let now = Instant::after_boot(Duration::from_secs(100));
    let mut policy = routed(now);
    for asks in [libc::SIGTERM, libc::SIGINT, libc::SIGTERM] {
        policy.handle_signal(now, asks);
    }
    assert_eq!(actions(&mut policy), [libc::SIGTERM, libc::SIGINT, libc::SIGTERM].map(signal));
    policy.handle_withdrawn();
    assert_eq!(actions(&mut policy), []);
}

#[test]
fn before_the_command_has_started_nothing_is_led_to_it() {
    let now = Instant::after_boot(Duration::from_secs(100));
    let mut policy = Policy { routes: true, ..leading(now) };
    policy.handle_signal(now, libc::SIGTERM);
    assert!(policy.actions.contains(&Action::Tell(News::Ending)), "and nothing will be");
    assert_eq!(actions(&mut policy), [signal(libc::SIGTERM)]);
}

#[test]
fn a_command_that_reads_its_settings_again_or_shows_what_it_does_keeps_its_traffic() {
    let now = Instant::after_boot(Duration::from_secs(100));
    let mut policy = routed(now);
    for other in [libc::SIGHUP, libc::SIGQUIT] {
        policy.handle_signal(now, other);
        assert!(!policy.actions.contains(&Action::Tell(News::Ending)));
        assert_eq!(actions(&mut policy), [signal(other)]);
    }
    policy.handle_signal(now, libc::SIGTERM);
    assert_eq!(told(&mut policy), [News::AskedToEnd(libc::SIGTERM), News::Ending]);
}

#[test]
fn a_command_that_is_gone_is_not_asked_to_end() {
    let now = Instant::after_boot(Duration::from_secs(100));
    let mut policy = routed(now);
    policy.handle_signal(now, libc::SIGTERM);
    policy.handle_report(now, gone(End::Exited(0), false));
    policy.handle_withdrawn();
    policy.handle_timeout(now + WITHDRAWAL_PATIENCE);
    assert_eq!(actions(&mut policy), [Action::Notify(Notice::TreeGone { well: true })]);
}

#[test]
fn a_claim_that_crossed_with_the_end_is_given_back() {
    let now = Instant::after_boot(Duration::from_secs(100));
    let mut policy = policy();
    policy.handle_signal(now, libc::SIGTERM);
    assert_eq!(policy.next_timeout(), Some(now + STOP_TIMEOUT));
    policy.handle_event(now, Event::Claiming);
    assert_eq!(policy.next_timeout(), Some(now + RELEASE_TIMEOUT));
    policy.handle_event(now, Event::Finished(Outcome::Stopped));
    assert_eq!(ends_with(&mut policy, now), Some(exit::SIGNALED + libc::SIGTERM as u8));
}

#[test]
fn an_election_that_fails_leaves_the_command_its_time_and_nothing_behind() {
    let now = Instant::after_boot(Duration::from_secs(100));
    let mut waiting = policy();
    waiting.handle_election_failed(now);
    assert_eq!(ends_with(&mut waiting, now), Some(exit::FAILED));

    let mut policy = leading(now);
    policy.handle_election_failed(now);
    assert_eq!(ends_with(&mut policy, now), None);
    policy.handle_timeout(tenure(now).last_resort());
    assert_eq!(actions(&mut policy), [Action::LastResort(Failure::Late)]);
    policy.handle_tree_empty(now);
    policy.handle_election_failed(now);
    assert_eq!(ends_with(&mut policy, now), Some(exit::LOST));
}

#[test]
fn a_loss_lets_it_lead_again_unless_an_end_was_asked_for() {
    let now = Instant::after_boot(Duration::from_secs(100));
    let exit_after = |happens: &dyn Fn(&mut Policy), status: i32, lost: bool| {
        let mut policy = leading(now);
        policy.handle_report(now, Report::Started { pid: 7 });
        happens(&mut policy);
        policy.handle_report(now, gone(End::Exited(status), lost));
        policy.handle_event(now, Event::Finished(Outcome::Lost));
        ends(&mut policy, now)
    };
    let for_good = Some(Exit { status: exit::LOST, may_rejoin: false });
    let asks = |signal| move |policy: &mut Policy| policy.handle_signal(now, signal);
    assert_eq!(exit_after(&|_| {}, 0, true), Some(Exit::AFTER_LOSS));
    assert_eq!(exit_after(&asks(libc::SIGHUP), 0, true), Some(Exit::AFTER_LOSS), "it has read its settings again");
    assert_eq!(exit_after(&asks(libc::SIGTERM), 0, true), for_good);
    assert_eq!(exit_after(&|_| {}, exit::LOST.into(), false), for_good, "the status is the command's own");

    let mut policy = leading(now);
    policy.handle_supervisor_dead(now);
    policy.handle_signal(now, libc::SIGTERM);
    policy.handle_tree_empty(now);
    policy.handle_event(now, Event::Finished(Outcome::Released));
    assert_eq!(ends(&mut policy, now), for_good);

    let mut policy = leading(now);
    policy.handle_report(now, gone(End::Exited(0), true));
    policy.handle_signal(now, libc::SIGTERM);
    policy.handle_event(now, Event::Finished(Outcome::Lost));
    assert_eq!(ends(&mut policy, now), for_good);

    // It was frozen, and finds both when it goes on.
    let mut policy = leading(now);
    policy.handle_report(now, gone(End::Exited(0), true));
    let later = now + Duration::from_secs(60);
    policy.handle_timeout(later);
    policy.handle_signal(later, libc::SIGTERM);
    assert_eq!(ends(&mut policy, later), for_good);
}
