//! The elector's network thread: the production election, driven like the production loop drives it.

use std::collections::VecDeque;

use leaderrun_core::election::{
    Action, Election, ElectionConfig, Leadership, Now, Outcome, Reply, Request, WatchEvent,
};
use leaderrun_core::elector::{self, Notice, Policy};
use leaderrun_core::instant::Instant;
use leaderrun_core::messages::Report;
use leaderrun_core::pair::{Member, Pair};
use leaderrun_core::record::{RunId, Stored};
use leaderrun_core::tenure::Tenure;

use crate::both::{Both, Next};
use crate::clock::{MILLISECOND, Time};
use crate::mutation::Mutation;
use crate::plan::{HostPlan, LockKind};
use crate::tell;
use crate::world::{Event, Thread, World};

/// The outer process.
#[derive(Debug)]
pub struct Elector {
    pub alive: bool,
    pub frozen_until: Time,
    pub network_frozen_until: Time,
    pub election: Election,
    pub over: bool,
    pub requests: u32,
    /// A record in two objects.
    pub both: Option<Both>,
    /// The request under way.
    pub awaited: Option<u32>,
    /// Its answer, and the revision that it tells of.
    pub reply: Option<(Reply, u64)>,
    pub watches: u32,
    pub watch: Option<u32>,
    pub watch_events: VecDeque<WatchEvent>,
    pub notices: VecDeque<Notice>,
    pub events: VecDeque<elector::Event>,
    pub reports: VecDeque<Report>,
    pub signals: VecDeque<i32>,
    pub policy: Policy,
    pub supervisor_gone: bool,
    /// The guard kills the tree itself: when it does so again.
    pub kill_again_at: Option<Instant>,
    /// The answer that is being handled is a read's.
    handling_read: bool,
    /// What was last shown to the election, and its revision; 0 when there was no lease.
    pub shown: u64,
    pub observed: Option<Stored>,
    pub heeds_watch: bool,
    /// When the election gives the request under way up, and no longer heeds what becomes of it.
    gives_up_at: Option<Instant>,
    pub heeds_reply: bool,
}

impl Elector {
    pub fn new(plan: &HostPlan, run: RunId, now: Now, seed: u64, mutation: Mutation) -> Self {
        let config = ElectionConfig {
            identity: plan.identity.clone(),
            run,
            timing: plan.timing.clone(),
            wait: plan.wait,
            min_hold: plan.min_hold,
        };
        Self {
            alive: true,
            frozen_until: 0,
            network_frozen_until: 0,
            election: Election::new(config, now, seed),
            over: false,
            requests: 0,
            both: (plan.lock == LockKind::Both && mutation != Mutation::HoldsFirst).then(Both::default),
            awaited: None,
            reply: None,
            watches: 0,
            watch: None,
            watch_events: VecDeque::new(),
            notices: VecDeque::new(),
            events: VecDeque::new(),
            reports: VecDeque::new(),
            signals: VecDeque::new(),
            policy: Policy::new(&plan.timing, false),
            supervisor_gone: false,
            kill_again_at: None,
            handling_read: false,
            shown: 0,
            observed: None,
            heeds_watch: false,
            gives_up_at: None,
            heeds_reply: false,
        }
    }
}

impl World {
    /// Everything that has come for the election, notices first, then the reply, then the watch, then
    /// the time.
    pub fn run_election(&mut self, run: usize) {
        if !self.runs[run].elector.alive || self.runs[run].elector.over {
            return;
        }
        let now = self.clock(run).now(self.now);
        let id = self.runs[run].id.clone();
        self.carry_out_all(run, now);
        loop {
            let elector = &mut self.runs[run].elector;
            if let Some(notice) = elector.notices.pop_front() {
                match notice {
                    Notice::TreeGone { well } => elector.election.handle_tree_gone(now, well),
                    Notice::Stop => elector.election.handle_stop(now),
                }
            } else if let Some((reply, revision)) = elector.reply.take() {
                elector.awaited = None;
                let reply = match elector.both.as_mut().map(|both| both.answered(reply.clone(), &id)) {
                    Some(Next::Send(place, request)) => {
                        self.send_to(run, place, request);
                        continue;
                    }
                    Some(Next::Answer(reply)) => reply,
                    None => reply,
                };
                elector.heeds_reply = elector.gives_up_at.take().is_some();
                if self.mutation == Mutation::LateCreateWins {
                    self.pass_for_given_back(run, &reply, now);
                }
                let reply = self.as_read(run, reply, revision);
                let elector = &mut self.runs[run].elector;
                elector.handling_read = matches!(reply, Reply::Read(_));
                elector.election.handle_reply(now, reply);
            } else if let Some(event) = elector.watch_events.pop_front() {
                if matches!(event, WatchEvent::Ended | WatchEvent::Broken | WatchEvent::Forbidden) {
                    elector.watch = None;
                    self.close_watch(run);
                }
                let event = self.as_watched(run, event);
                let elector = &mut self.runs[run].elector;
                elector.handling_read = true;
                elector.election.handle_watch(now, event);
            } else if elector.election.next_timeout().is_some_and(|at| now.boot >= at) {
                elector.gives_up_at = elector.gives_up_at.filter(|at| now.boot < *at);
                elector.election.handle_timeout(now);
            } else {
                break;
            }
            self.carry_out_all(run, now);
            self.runs[run].elector.handling_read = false;
            if self.runs[run].elector.over {
                return;
            }
            if self.runs[run].elector.election.next_timeout().is_some_and(|at| now.boot >= at) && self.is_idle(run) {
                // A timer that has expired fires in the next round.
                return self.rouse(run, Thread::Election);
            }
        }
        if let Some(at) = self.runs[run].elector.election.next_timeout() {
            let at = self.clock(run).time_of(at) + self.rng.u64(0..MILLISECOND);
            self.wake(run, Thread::Election, at);
        }
    }

    fn is_idle(&self, run: usize) -> bool {
        let elector = &self.runs[run].elector;
        elector.notices.is_empty() && elector.reply.is_none() && elector.watch_events.is_empty()
    }

    fn carry_out_all(&mut self, run: usize, now: Now) {
        while let Some(action) = self.runs[run].elector.election.poll_action() {
            self.carry_out(run, action, now);
        }
    }

    fn carry_out(&mut self, run: usize, action: Action, now: Now) {
        match action {
            Action::Send(request) => {
                let attempt = self.hosts[self.runs[run].host].plan.timing.attempt();
                self.runs[run].elector.gives_up_at = Some(now.boot + attempt);
                self.send(run, request);
            }
            Action::Watch(from) => {
                let elector = &mut self.runs[run].elector;
                elector.watches += 1;
                elector.watch = Some(elector.watches);
                elector.watch_events.clear();
                elector.heeds_watch = true;
                let number = elector.watches;
                self.soon(10 * MILLISECOND, Event::OpenWatch { run, number, from: from.map(Box::new) });
            }
            Action::Unwatch => {
                let elector = &mut self.runs[run].elector;
                elector.watch = None;
                elector.watch_events.clear();
                self.close_watch(run);
            }
            Action::Claiming => self.inform(run, elector::Event::Claiming),
            Action::NotWon => self.inform(run, elector::Event::NotWon),
            Action::Lead(Leadership { tenure, resource_version, .. }) => {
                let tenure = self.believed(run, tenure, now);
                tell!(self, "{} has won the lease, token {resource_version}", self.name(run));
                self.led_at = self.now;
                self.runs[run].led_since = Some(self.now);
                self.runs[run].fencing_token =
                    Pair::second_resource_version(&resource_version).parse().unwrap_or_default();
                self.inform(run, elector::Event::Lead { tenure, environment: Vec::new() });
            }
            Action::Extend(tenure) => {
                let tenure = self.believed(run, tenure, now);
                self.led_at = self.now;
                self.inform(run, elector::Event::Extend(tenure));
            }
            Action::StepDown => {
                tell!(self, "{} is asked to step down", self.name(run));
                self.inform(run, elector::Event::StepDown);
            }
            Action::Lose { holder } => {
                tell!(self, "{} sees that {holder:?} holds the lease", self.name(run));
                self.inform(run, elector::Event::Lose);
            }
            Action::Tell(news) => tell!(self, "{} says {news:?}", self.name(run)),
            Action::Finish(outcome) => {
                self.runs[run].elector.over = true;
                self.runs[run].elector.awaited = None;
                self.close_watch(run);
                self.inform(run, elector::Event::Finished(outcome));
            }
        }
    }

    fn inform(&mut self, run: usize, event: elector::Event) {
        self.runs[run].elector.events.push_back(event);
        self.rouse(run, Thread::Guard);
    }

    fn send(&mut self, run: usize, request: Request) {
        let id = self.runs[run].id.clone();
        match self.runs[run].elector.both.as_mut().map(|both| both.begin(request.clone(), &id)) {
            Some(Next::Send(place, request)) => self.send_to(run, place, request),
            Some(Next::Answer(reply)) => {
                let now = self.clock(run).now(self.now);
                self.runs[run].elector.election.handle_reply(now, reply);
            }
            None => {
                self.send_to(run, self.hosts[self.runs[run].host].plan.lock.first(), request);
            }
        }
    }

    fn send_to(&mut self, run: usize, place: Member, request: Request) {
        let elector = &mut self.runs[run].elector;
        elector.requests += 1;
        elector.awaited = Some(elector.requests);
        elector.reply = None;
        let number = elector.requests;
        // T0 was just before: a process that is stopped in between sends it later.
        self.soon(MILLISECOND, Event::Transmit { run, number, place, request: Box::new(request) });
    }

    /// A tenure as a mutation has it.
    fn believed(&self, run: usize, tenure: Tenure, now: Now) -> Tenure {
        let timing = &self.hosts[self.runs[run].host].plan.timing;
        let by_read = self.runs[run].elector.handling_read;
        match self.mutation {
            Mutation::SentAfterReply if !by_read => Tenure::of_renewal(now.boot, timing),
            Mutation::SettledByReadCountsFromRead if by_read => Tenure::of_renewal(now.boot, timing),
            Mutation::GraceBeyondLease => {
                Tenure { kill: tenure.kill + (timing.lease_duration() - timing.renew_deadline()) * 2, ..tenure }
            }
            _ => tenure,
        }
    }

    /// A request as a mutation has it.
    pub fn as_sent(&self, request: Request) -> Request {
        match (request, self.store.record()) {
            (Request::Update(version, mut record), Some(present))
                if self.mutation == Mutation::EqualRenewals && present.run.is_some() =>
            {
                let run = |mark: &leaderrun_core::record::RunMark| (mark.run.clone(), mark.state);
                if present.run.as_ref().map(run) == record.run.as_ref().map(run) {
                    record = present.clone();
                }
                Request::Update(version, record)
            }
            (request, _) => request,
        }
    }

    /// What the election is told when it ended, for the story.
    pub fn outcome(outcome: Outcome) -> &'static str {
        match outcome {
            Outcome::Released => "the lease was given back",
            Outcome::NotReleased => "the lease could not be given back",
            Outcome::Lost => "the lease was lost",
            Outcome::Stopped => "stopped before it led",
            Outcome::NotAcquired => "not acquired in time",
        }
    }
}
