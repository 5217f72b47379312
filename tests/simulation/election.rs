//! The elector's election thread: the production election, driven like the production loop drives it.

use std::collections::VecDeque;

use leaderrun_core::election::{
    CommandGone, Election, ElectionAction, ElectionConfig, ElectionInputs, Leadership, Now, Outcome, Preference, Reply,
    Request, WatchEvent,
};
use leaderrun_core::elector::{ElectionReport, Elector};
use leaderrun_core::instant::Instant;
use leaderrun_core::messages::Report;
use leaderrun_core::pair::{Member, Pair};
use leaderrun_core::record::{RunId, Stored};
use leaderrun_core::tenure::Tenure;
use leaderrun_core::updates::Update;

use crate::both::{Both, Next};
use crate::clock::{MILLISECOND, Time};
use crate::mutation::Mutation;
use crate::plan::{HostPlan, LockKind};
use crate::routing::RoutingThread;
use crate::tell;
use crate::world::{Event, Thread, World};

/// The outer process.
#[derive(Debug)]
pub struct ElectorProcess {
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
    pub command_gone: Option<CommandGone>,
    pub stop: bool,
    pub election_reports: VecDeque<ElectionReport>,
    pub reports: VecDeque<Report>,
    pub signals: VecDeque<i32>,
    pub elector: Elector,
    pub supervisor_gone: bool,
    /// Traffic was routed away from the command.
    pub withdrawn: bool,
    /// None where no traffic is routed to the command.
    pub routing: Option<RoutingThread>,
    /// The guard kills the tree itself: when it does so again.
    pub kill_again_at: Option<Instant>,
    /// The answer that is being handled is a read's.
    handling_read: bool,
    /// What was last shown to the election, and its revision; 0 when there was no lease.
    pub shown: u64,
    pub observed: Option<Stored>,
    pub heeds_watch: bool,
    /// The lock in two objects has answered by itself.
    both_answered: bool,
    /// When the election gives the request under way up, and no longer heeds what becomes of it.
    gives_up_at: Option<Instant>,
    pub heeds_reply: bool,
}

impl ElectorProcess {
    pub fn new(plan: &HostPlan, run: RunId, now: Now, seed: u64, mutation: Mutation) -> Self {
        let both = || Both::new(run.clone(), plan.timing.attempt(), mutation);
        let both = (plan.lock == LockKind::Both && mutation != Mutation::HoldsFirst).then(both);
        let config = ElectionConfig {
            identity: plan.identity.clone(),
            run,
            timing: plan.timing.clone(),
            wait: plan.wait,
            min_hold: plan.min_hold,
            preference: Preference::default(),
        };
        Self {
            alive: true,
            frozen_until: 0,
            network_frozen_until: 0,
            election: Election::new(config, now, seed),
            over: false,
            requests: 0,
            both,
            awaited: None,
            reply: None,
            watches: 0,
            watch: None,
            watch_events: VecDeque::new(),
            command_gone: None,
            stop: false,
            election_reports: VecDeque::new(),
            reports: VecDeque::new(),
            signals: VecDeque::new(),
            elector: Elector::new(&plan.timing, plan.routes),
            supervisor_gone: false,
            withdrawn: false,
            routing: plan.routes.then(|| RoutingThread::new(plan)),
            kill_again_at: None,
            handling_read: false,
            shown: 0,
            observed: None,
            heeds_watch: false,
            both_answered: false,
            gives_up_at: None,
            heeds_reply: false,
        }
    }
}

impl World {
    /// One round of the loop: everything that has arrived for the election, or the time.
    pub fn run_election(&mut self, run: usize) {
        if !self.runs[run].elector.alive || self.runs[run].elector.over {
            return;
        }
        let now = self.clock(run).now(self.now);
        loop {
            let Some(reply) = self.reply_to_election(run, now) else { continue };
            let elector = &mut self.runs[run].elector;
            let watch_events: Vec<WatchEvent> = elector.watch_events.drain(..).collect();
            let (command_gone, stop) = (elector.command_gone.take(), std::mem::take(&mut elector.stop));
            let nothing = reply.is_none() && watch_events.is_empty() && command_gone.is_none() && !stop;
            let is_due = elector.election.next_timeout().is_some_and(|at| now.boot >= at);
            if nothing && !is_due {
                break;
            }
            elector.gives_up_at = elector.gives_up_at.filter(|at| now.boot < *at);
            elector.handling_read = !matches!(reply, Some(Reply::Written(_)));
            if watch_events.iter().any(ends_watch) {
                elector.watch = None;
                self.close_watch(run);
            }
            let shown = watch_events.iter().map(|event| self.watch_event_as_shown(run, event.clone())).collect();
            let replied = reply.is_some();
            let inputs = ElectionInputs { command_gone, stop, reply, watch_events: shown };
            let actions = self.runs[run].elector.election.step(now, inputs);
            let replaces_watch =
                |action: &ElectionAction| matches!(action, ElectionAction::Watch(_) | ElectionAction::Unwatch);
            if !(replied && actions.iter().any(replaces_watch)) {
                watch_events.iter().for_each(|event| self.note_watch_event(run, event));
            }
            for action in actions {
                self.carry_out(run, action, now);
            }
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

    /// The reply that has arrived, if any, as the election gets it; nothing at all when it was only half of one to a
    /// lock in two objects, and the other half has been sent for.
    fn reply_to_election(&mut self, run: usize, now: Now) -> Option<Option<Reply>> {
        let elector = &mut self.runs[run].elector;
        let Some((reply, revision)) = elector.reply.take() else { return Some(None) };
        elector.awaited = None;
        let is_whole = std::mem::take(&mut elector.both_answered);
        let both = elector.both.as_mut().filter(|_| !is_whole);
        let reply = match both.map(|both| both.answered(reply.clone())) {
            Some(Next::Send(place, request)) => {
                self.send_to(run, place, request);
                return None;
            }
            Some(Next::Answer(reply)) => reply,
            None => reply,
        };
        elector.heeds_reply = elector.gives_up_at.take().is_some();
        if self.mutation == Mutation::LateCreateWins {
            self.pass_for_released(run, &reply, now);
        }
        Some(Some(self.reply_as_shown(run, reply, revision)))
    }

    fn is_idle(&self, run: usize) -> bool {
        let elector = &self.runs[run].elector;
        let is_told = elector.command_gone.is_some() || elector.stop;
        !is_told && elector.reply.is_none() && elector.watch_events.is_empty()
    }

    /// Gives the election inputs that only a mutation makes.
    pub fn step_election(&mut self, run: usize, now: Now, inputs: ElectionInputs) {
        for action in self.runs[run].elector.election.step(now, inputs) {
            self.carry_out(run, action, now);
        }
    }

    fn carry_out(&mut self, run: usize, action: ElectionAction, now: Now) {
        match action {
            ElectionAction::Send(request) => {
                let attempt = self.hosts[self.runs[run].host].plan.timing.attempt();
                self.runs[run].elector.gives_up_at = Some(now.boot + attempt);
                self.send(run, request);
            }
            ElectionAction::Watch(from) => {
                let elector = &mut self.runs[run].elector;
                elector.watches += 1;
                elector.watch = Some(elector.watches);
                elector.watch_events.clear();
                elector.heeds_watch = true;
                let number = elector.watches;
                self.soon(10 * MILLISECOND, Event::OpenWatch { run, number, from: from.map(Box::new) });
            }
            ElectionAction::Unwatch => {
                let elector = &mut self.runs[run].elector;
                elector.watch = None;
                elector.watch_events.clear();
                self.close_watch(run);
            }
            ElectionAction::Claiming => self.inform(run, ElectionReport::Claiming),
            ElectionAction::ClaimFailed => self.inform(run, ElectionReport::ClaimFailed),
            ElectionAction::StartLeading(Leadership { tenure, resource_version, .. }) => {
                let tenure = self.believed(run, tenure, now);
                tell!(self, "{} has acquired the lock, token {resource_version}", self.name(run));
                self.led_at = self.now;
                self.runs[run].led_since = Some(self.now);
                self.runs[run].fencing_token =
                    Pair::second_resource_version(&resource_version).parse().unwrap_or_default();
                self.update_routing(run, Update::Acquired { token: resource_version, uids: Vec::new() });
                self.inform(run, ElectionReport::StartLeading { tenure, environment: Vec::new() });
            }
            ElectionAction::Extend(tenure) => {
                let tenure = self.believed(run, tenure, now);
                self.led_at = self.now;
                self.inform(run, ElectionReport::Extend(tenure));
            }
            ElectionAction::StepDown => {
                tell!(self, "{} is asked to step down", self.name(run));
                self.inform(run, ElectionReport::StepDown);
            }
            ElectionAction::Lose { holder } => {
                tell!(self, "{} sees that {holder:?} holds the lock", self.name(run));
                self.inform(run, ElectionReport::Lose);
            }
            ElectionAction::Notify(notice) => tell!(self, "{} notes {notice:?}", self.name(run)),
            ElectionAction::Finish(outcome) => {
                self.runs[run].elector.over = true;
                self.runs[run].elector.awaited = None;
                self.close_watch(run);
                self.inform(run, ElectionReport::Finished(outcome));
            }
        }
    }

    fn inform(&mut self, run: usize, report: ElectionReport) {
        self.runs[run].elector.election_reports.push_back(report);
        self.rouse(run, Thread::Main);
    }

    fn send(&mut self, run: usize, request: Request) {
        match self.runs[run].elector.both.as_mut().map(|both| both.begin(request.clone())) {
            Some(Next::Send(place, request)) => self.send_to(run, place, request),
            Some(Next::Answer(reply)) => {
                let elector = &mut self.runs[run].elector;
                elector.awaited = Some(elector.requests);
                elector.reply = Some((reply, 0));
                elector.both_answered = true;
                self.rouse(run, Thread::Election);
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
            Outcome::Released => "the lock was released",
            Outcome::NotReleased => "the lock could not be released",
            Outcome::Lost => "the lock was lost",
            Outcome::Stopped => "stopped before it led",
            Outcome::NotAcquired => "not acquired in time",
            Outcome::Unreachable => "not reached in time",
        }
    }
}

fn ends_watch(event: &WatchEvent) -> bool {
    matches!(event, WatchEvent::Ended | WatchEvent::Broken | WatchEvent::Forbidden)
}
