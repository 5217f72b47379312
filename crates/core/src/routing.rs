//! When traffic is led to this candidate's command, and when it is led away again.
//!
//! A state machine without clock or network: it is told what happens and how its steps went, and says
//! what to do next.

use alloc::string::String;
use core::mem;
use core::time::Duration;

use crate::instant::Instant;
use crate::updates::Update;

/// How long after the first look a leader looks again whether traffic is still led to it, and only to it: what a
/// predecessor had sent may have come late. Doubled after each further look.
const LOOKS: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(60));

/// Between two tries of what goes wrong, likewise.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Before another try of what is not allowed.
const FORBIDDEN: Duration = Duration::from_secs(60);

/// What is done about it next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Lead it here, and away from everybody else. Nothing of that is sent once the time is over. Written `anew`,
    /// even if it seems to be led here, where it may just be led away.
    Show { token: String, until: Instant, anew: bool },
    /// Lead it away from here, after the leadership with this token, of which a write may still be on its way.
    Withdraw { token: String },
}

impl Step {
    /// Whether this goes on with the other one.
    pub fn is_same_way(&self, other: &Self) -> bool {
        mem::discriminant(self) == mem::discriminant(other)
    }
}

/// How a step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    Well,
    Badly,
    /// It is not allowed; roles may arrive later.
    Forbidden,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Shown { look_at: Instant },
    Withdrawn,
    Unknown,
}

/// The way of the traffic, as far as it concerns this candidate, which leads once at most.
#[derive(Debug)]
pub struct Route {
    /// So long before the stop of the command the traffic is led away: a request takes its time.
    lead: Duration,
    /// The fencing token of the leadership.
    token: Option<String>,
    stop: Option<Instant>,
    started: bool,
    /// The command was told to stop, or is about to be.
    ending: bool,
    known: Known,
    /// A withdrawal was begun and not seen to end.
    withdraws: bool,
    look_after: Duration,
    /// Steps in a row that went badly.
    failures: u32,
    /// The next one is not taken before this.
    again_at: Option<Instant>,
}

impl Route {
    /// The way that a predecessor has left. `lead` is how long leading it away may take.
    pub fn new(lead: Duration) -> Self {
        Self {
            lead,
            token: None,
            stop: None,
            started: false,
            ending: false,
            known: Known::Unknown,
            withdraws: false,
            look_after: LOOKS.0,
            failures: 0,
            again_at: None,
        }
    }

    /// Something happened to the leadership.
    pub fn told(&mut self, update: &Update) {
        match update {
            Update::Leading { stop, .. } => return self.stop = Some(*stop),
            Update::Acquired { token, .. } => self.token = Some(token.clone()),
            Update::CommandStarted => self.started = true,
            Update::Terminating | Update::Lost(_) | Update::CommandGone | Update::Exiting => self.ending = true,
            _ => return,
        }
        (self.failures, self.again_at) = (0, None);
    }

    /// What to do at this instant, if anything.
    pub fn next(&self, now: Instant) -> Option<Step> {
        if self.again_at.is_some_and(|at| now < at) {
            return None;
        }
        match (self.shown_until().filter(|until| now < *until), &self.token, self.known) {
            (Some(_), Some(_), Known::Shown { look_at }) if now < look_at => None,
            (Some(until), Some(token), _) => Some(Step::Show { token: token.clone(), until, anew: self.withdraws }),
            (_, _, Known::Withdrawn) => None,
            // Before the start it is left to where a predecessor led it.
            (_, Some(token), _) if self.started || self.ending => Some(Step::Withdraw { token: token.clone() }),
            _ => None,
        }
    }

    /// When to ask again, if nothing happens until then.
    pub fn next_timeout(&self, now: Instant) -> Option<Instant> {
        let look_at = match self.known {
            Known::Shown { look_at } => Some(look_at),
            Known::Withdrawn | Known::Unknown => None,
        };
        self.again_at.into_iter().chain(look_at).chain(self.shown_until()).filter(|at| *at > now).min()
    }

    /// A step is begun: from here on it may have been done.
    pub fn begun(&mut self, step: &Step) {
        match step {
            Step::Show { .. } => self.known = Known::Unknown,
            Step::Withdraw { .. } => self.withdraws = true,
        }
    }

    /// A step has ended.
    pub fn ended(&mut self, now: Instant, step: &Step, done: Done) {
        if done != Done::Well {
            let pause = match done {
                Done::Forbidden => FORBIDDEN,
                _ => PAUSES.0.saturating_mul(2_u32.saturating_pow(self.failures)).min(PAUSES.1),
            };
            self.failures += 1;
            self.again_at = Some(now + pause);
            return;
        }
        (self.failures, self.again_at, self.withdraws) = (0, None, false);
        self.known = match step {
            Step::Show { .. } => {
                let look_at = now + self.look_after;
                self.look_after = (self.look_after * 2).min(LOOKS.1);
                Known::Shown { look_at }
            }
            Step::Withdraw { .. } => Known::Withdrawn,
        };
    }

    /// Whether this process may have led it here, and has not led it away yet.
    pub fn may_be_shown(&self) -> bool {
        self.token.is_some() && self.known != Known::Withdrawn
    }

    fn shown_until(&self) -> Option<Instant> {
        self.stop.filter(|_| self.started && !self.ending).map(|stop| stop - self.lead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::updates::Loss;

    const LEAD: Duration = Duration::from_secs(2);

    fn at(seconds: u64) -> Instant {
        Instant::after_boot(Duration::from_secs(seconds))
    }

    fn leading(stop: u64) -> Update {
        Update::Leading { stop: at(stop), gone: at(stop + 3) }
    }

    fn show(until: u64) -> Option<Step> {
        Some(Step::Show { token: "7".into(), until: at(until), anew: false })
    }

    fn withdraw() -> Option<Step> {
        Some(Step::Withdraw { token: "7".into() })
    }

    fn won() -> Update {
        Update::Acquired { token: "7".into(), uids: Vec::new() }
    }

    fn take(route: &mut Route, now: u64, done: Done) -> Step {
        let step = route.next(at(now)).expect("a step");
        route.begun(&step);
        route.ended(at(now), &step, done);
        step
    }

    /// A leader to which the traffic is led since the first second; its command is stopped in the tenth.
    fn shown() -> Route {
        let mut route = Route::new(LEAD);
        for update in [won(), leading(10), Update::CommandStarted] {
            route.told(&update);
        }
        take(&mut route, 1, Done::Well);
        assert_eq!(route.next(at(1)), None);
        route
    }

    #[test]
    fn who_waits_changes_nothing() {
        let mut route = Route::new(LEAD);
        assert_eq!((route.next(at(0)), route.next_timeout(at(0))), (None, None));
        for update in [Update::Lost(Loss::Taken), Update::Exiting] {
            route.told(&update);
            assert_eq!(route.next(at(1)), None);
        }
    }

    #[test]
    fn what_is_not_allowed_is_tried_again_after_a_minute() {
        let mut route = shown();
        route.told(&Update::Terminating);
        assert_eq!(take(&mut route, 2, Done::Forbidden), withdraw().unwrap());
        assert_eq!((route.next(at(61)), route.next_timeout(at(61))), (None, Some(at(62))));
        assert_eq!(route.next(at(62)), withdraw());
    }

    #[test]
    fn what_goes_wrong_is_tried_less_and_less_often_until_something_happens() {
        let mut route = shown();
        route.told(&Update::Terminating);
        let pauses = (0..12).map(|now| {
            take(&mut route, 1000 * now, Done::Badly);
            route.next_timeout(at(1000 * now)).expect("another try").since(at(1000 * now)).as_millis()
        });
        let pauses: Vec<_> = pauses.collect();
        assert_eq!(pauses[..4], [100, 200, 400, 800]);
        assert_eq!(pauses[11], 10_000);
        route.told(&Update::Exiting);
        assert_eq!(route.next(at(11_000)), withdraw());
    }

    #[test]
    fn traffic_is_led_to_a_command_that_has_started() {
        let mut route = Route::new(LEAD);
        for update in [won(), leading(10)] {
            route.told(&update);
            assert_eq!(route.next(at(1)), None);
        }
        route.told(&Update::CommandStarted);
        assert_eq!(route.next(at(1)), show(8));
    }

    #[test]
    fn it_is_led_away_before_the_stop_unless_a_renewal_comes() {
        let mut route = shown();
        assert_eq!((route.next(at(4)), route.next_timeout(at(6))), (None, Some(at(8))));
        assert_eq!(route.next(at(8)), withdraw());
        route.told(&leading(12));
        assert_eq!(route.next_timeout(at(8)), Some(at(10)));
    }

    #[test]
    fn what_may_just_be_led_away_is_led_here_anew() {
        let mut route = shown();
        route.begun(&route.next(at(8)).expect("a withdrawal"));
        route.told(&leading(12));
        assert!(matches!(take(&mut route, 8, Done::Well), Step::Show { anew: true, .. }));
        route.told(&leading(1000));
        assert!(matches!(route.next(at(500)), Some(Step::Show { anew: false, .. })));
    }

    #[test]
    fn it_is_led_away_whenever_the_command_ends() {
        for end in [Update::Terminating, Update::Lost(Loss::Taken), Update::CommandGone] {
            let mut route = shown();
            route.told(&end);
            assert_eq!(route.next(at(2)), withdraw());
            route.told(&leading(12));
            assert_eq!(route.next(at(2)), withdraw(), "renewals keep the lock, not the command");
            assert!(route.may_be_shown());
            take(&mut route, 2, Done::Well);
            assert!(!route.may_be_shown());
        }
    }

    #[test]
    fn a_leader_looks_again_less_and_less_often() {
        let mut route = shown();
        route.told(&leading(1000));
        let mut looks = vec![1];
        for _ in 0..6 {
            let next = route.next_timeout(at(*looks.last().unwrap())).expect("a look");
            let next = next.since(at(0)).as_secs();
            take(&mut route, next, Done::Well);
            looks.push(next);
        }
        assert_eq!(looks, [1, 5, 13, 29, 61, 121, 181]);
    }

    #[test]
    fn a_step_that_was_given_up_may_have_been_done() {
        let mut route = Route::new(LEAD);
        for update in [won(), leading(10), Update::CommandStarted] {
            route.told(&update);
        }
        route.begun(&route.next(at(1)).unwrap());
        route.told(&Update::Terminating);
        assert_eq!(route.next(at(1)), withdraw());
    }
}
