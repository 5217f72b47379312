//! When traffic is led to this candidate's command, and when it is led away again.
//!
//! A state machine without clock or network: it is told what happens and how its steps went, and says
//! what to do next.

use std::time::Duration;

use crate::process::clock::Instant;
use crate::telemetry::state::Update;

/// How often a leader looks whether it still leads to it, and only to it.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// What is done about it next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Lead it here, and away from everybody else. Nothing of that is sent once the time is over.
    Show { token: String, until: Instant },
    /// Lead it away from here. A token says that a write of this leadership may still be on its way.
    Withdraw { token: Option<String> },
}

/// How a step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    Well,
    /// It is tried again after so long.
    Badly {
        pause: Duration,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Shown { at: Instant },
    Withdrawn,
    Unknown,
}

/// The way of the traffic, as far as it concerns this candidate, which leads once at most.
#[derive(Debug)]
pub struct Route {
    /// So long before the stop of the command the traffic is led away: a request takes its time.
    lead: Duration,
    /// The fencing token of the present leadership.
    token: Option<String>,
    stop: Option<Instant>,
    started: bool,
    /// The command was told to stop, or is about to be.
    ending: bool,
    known: Known,
    /// A step that went badly is not repeated before this.
    again_at: Option<Instant>,
}

impl Route {
    /// The way that a predecessor may have left. `lead` is how long leading it away may take.
    pub fn new(lead: Duration) -> Self {
        Self { lead, token: None, stop: None, started: false, ending: false, known: Known::Unknown, again_at: None }
    }

    /// Something happened to the leadership.
    pub fn told(&mut self, update: &Update) {
        match update {
            Update::Won { token, .. } => self.token = Some(token.clone()),
            Update::Leading { stop, .. } => self.stop = Some(*stop),
            Update::CommandStarted => self.started = true,
            Update::Ending | Update::Lost(_) | Update::Gone | Update::Over => self.ending = true,
            _ => return,
        }
        if !matches!(update, Update::Leading { .. }) {
            self.again_at = None;
        }
    }

    /// What to do at this instant, if anything; the same as before while that is under way.
    pub fn next(&self, now: Instant) -> Option<Step> {
        if self.again_at.is_some_and(|at| now < at) {
            return None;
        }
        match (self.shown_until().filter(|until| now < *until), &self.token, self.known) {
            (Some(_), Some(_), Known::Shown { at }) if now < at + LOOK_AGAIN => None,
            (Some(until), Some(token), _) => Some(Step::Show { token: token.clone(), until }),
            (_, _, Known::Withdrawn) => None,
            (_, token, _) => Some(Step::Withdraw { token: token.clone() }),
        }
    }

    /// When to ask again, if nothing happens until then.
    pub fn next_timeout(&self, now: Instant) -> Option<Instant> {
        let look_again = match self.known {
            Known::Shown { at } => Some(at + LOOK_AGAIN),
            Known::Withdrawn | Known::Unknown => None,
        };
        self.again_at.into_iter().chain(look_again).chain(self.shown_until()).filter(|at| *at > now).min()
    }

    /// A step is begun: from here on it may have been done.
    pub fn begun(&mut self, step: &Step) {
        if matches!(step, Step::Show { .. }) {
            self.known = Known::Unknown;
        }
    }

    /// A step has ended.
    pub fn ended(&mut self, now: Instant, step: &Step, done: Done) {
        match (done, step) {
            (Done::Well, Step::Show { .. }) => self.known = Known::Shown { at: now },
            (Done::Well, Step::Withdraw { .. }) => self.known = Known::Withdrawn,
            (Done::Badly { .. }, _) => {}
        }
        self.again_at = match done {
            Done::Well => None,
            Done::Badly { pause } => Some(now + pause),
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
    use crate::telemetry::metrics::Loss;

    const LEAD: Duration = Duration::from_secs(2);

    fn at(seconds: u64) -> Instant {
        Instant::after_boot(Duration::from_secs(seconds))
    }

    fn leading(stop: u64) -> Update {
        Update::Leading { stop: at(stop), gone: at(stop + 3) }
    }

    fn show(until: u64) -> Option<Step> {
        Some(Step::Show { token: "7".into(), until: at(until) })
    }

    fn withdraw() -> Option<Step> {
        Some(Step::Withdraw { token: Some("7".into()) })
    }

    /// A leader to which the traffic is led since the first second; its command is stopped in the tenth.
    fn shown() -> Route {
        let mut route = Route::new(LEAD);
        for update in [Update::Won { token: "7".into(), uids: Vec::new() }, leading(10), Update::CommandStarted] {
            route.told(&update);
        }
        let step = route.next(at(1)).unwrap();
        route.begun(&step);
        route.ended(at(1), &step, Done::Well);
        assert_eq!(route.next(at(1)), None);
        route
    }

    #[test]
    fn what_a_predecessor_left_is_withdrawn_once() {
        let mut route = Route::new(LEAD);
        let step = Step::Withdraw { token: None };
        assert_eq!(route.next(at(0)), Some(step.clone()));
        route.ended(at(0), &step, Done::Badly { pause: Duration::from_secs(5) });
        assert_eq!((route.next(at(4)), route.next_timeout(at(4))), (None, Some(at(5))));
        assert_eq!(route.next(at(5)), Some(step.clone()));
        route.ended(at(5), &step, Done::Well);
        assert_eq!((route.next(at(1000)), route.next_timeout(at(1000))), (None, None));
    }

    #[test]
    fn traffic_is_led_to_a_command_that_has_started() {
        let mut route = Route::new(LEAD);
        for update in [Update::Won { token: "7".into(), uids: Vec::new() }, leading(10)] {
            route.told(&update);
            assert!(!matches!(route.next(at(1)), Some(Step::Show { .. })));
        }
        route.told(&Update::CommandStarted);
        assert_eq!(route.next(at(1)), show(8));
    }

    #[test]
    fn it_is_led_away_before_the_stop_unless_a_renewal_comes() {
        let mut route = shown();
        assert_eq!((route.next(at(7)), route.next_timeout(at(7))), (None, Some(at(8))));
        assert_eq!(route.next(at(8)), withdraw());
        route.told(&leading(12));
        assert_eq!((route.next(at(8)), route.next_timeout(at(8))), (None, Some(at(10))));
    }

    #[test]
    fn it_is_led_away_whenever_the_command_ends() {
        for end in [Update::Ending, Update::Lost(Loss::Taken), Update::Gone] {
            let mut route = shown();
            route.told(&end);
            assert_eq!(route.next(at(2)), withdraw());
            route.told(&leading(12));
            assert_eq!(route.next(at(2)), withdraw(), "renewals keep the lock, not the command");
            assert!(route.may_be_shown());
            route.ended(at(2), &withdraw().unwrap(), Done::Well);
            assert!(!route.may_be_shown());
        }
    }

    #[test]
    fn a_leader_looks_again_now_and_then() {
        let mut route = shown();
        route.told(&leading(1000));
        assert_eq!(route.next_timeout(at(2)), Some(at(61)));
        assert_eq!((route.next(at(60)), route.next(at(61))), (None, show(998)));
    }

    #[test]
    fn a_step_that_was_given_up_may_have_been_done() {
        let mut route = Route::new(LEAD);
        route.ended(at(0), &Step::Withdraw { token: None }, Done::Well);
        for update in [Update::Won { token: "7".into(), uids: Vec::new() }, leading(10), Update::CommandStarted] {
            route.told(&update);
        }
        route.begun(&route.next(at(1)).unwrap());
        route.told(&Update::Ending);
        assert_eq!(route.next(at(1)), withdraw());
    }
}
