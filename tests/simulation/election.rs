//! The elector's election thread: the production state machine, driven as in the production loop.

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

use crate::events::{Event, Thread};
use crate::mutation::Mutation;
use crate::pair_client::{NextStep, PairClient};
use crate::plan::{LockKind, MachinePlan};
use crate::routing::RoutingThread;
use crate::trace;
use crate::world::World;
use testkit::simulated_time::{MILLISECOND, Time};

/// The elector process.
#[derive(Debug)]
pub struct ElectorProcess {
    pub alive: bool,
    pub frozen_until: Time,
    pub election_frozen_until: Time,
    pub election: Election,
    pub election_finished: bool,
    /// The number of requests that were sent, which is also the number of the last one.
    pub requests: u32,
    /// The client of a lock in two objects.
    pub pair: Option<PairClient>,
    /// The number of the request in flight.
    pub request_in_flight: Option<u32>,
    /// `true` if the last request was a write and the lock is in one object.
    last_request_is_write: bool,
    /// The reply to the request in flight, and the revision of the store that the reply reflects.
    pub reply: Option<(Reply, u64)>,
    /// The numbers of the last two writes that were replaced by another request before their replies arrived.
    pub abandoned_writes: VecDeque<u32>,
    /// The stored records from replies to `abandoned_writes` that arrived late.
    pub replies_to_abandoned_writes: VecDeque<Stored>,
    /// The number of watches that were opened, which is also the number of the last one.
    pub watches: u32,
    /// The number of the open watch.
    pub watch: Option<u32>,
    pub watch_events: VecDeque<WatchEvent>,
    pub command_gone: Option<CommandGone>,
    /// `true` if the election was asked to stop, and has not handled this yet.
    pub stop_requested: bool,
    pub election_reports: VecDeque<ElectionReport>,
    pub supervisor_reports: VecDeque<Report>,
    pub signals: VecDeque<i32>,
    pub elector: Elector,
    /// `true` once the elector has noticed that the supervisor is dead.
    pub supervisor_gone: bool,
    /// `true` if traffic was routed away from the command, and the elector has not handled this yet.
    pub withdrawn: bool,
    /// `None` if no traffic is routed to the command.
    pub routing: Option<RoutingThread>,
    /// The time of the next round of a kill, if the elector kills the tree in place of the supervisor.
    pub next_kill_at: Option<Instant>,
    /// `true` if the election's last inputs contained the reply to a write. Otherwise, a tenure that began with these
    /// inputs was confirmed by a read or a watch event.
    handles_write_reply: bool,
    /// The revision that the election last observed; 0 if there was no lease.
    pub observed_revision: u64,
    pub observed: Option<Stored>,
    /// `false` if, since the watch was opened, a read has returned a change that the watch had not delivered. The
    /// election then closes the watch, so its later events do not count as observed.
    pub watch_is_current: bool,
    /// `true` if the reply came from the pair client itself, without a request.
    pair_replied: bool,
    /// The time at which the election drops the request in flight. The election ignores a later reply.
    gives_up_at: Option<Instant>,
    /// `true` if the last reply arrived before the election dropped its request.
    pub reply_was_in_time: bool,
}

impl ElectorProcess {
    pub fn new(plan: &MachinePlan, run: RunId, now: Now, seed: u64, mutation: Mutation) -> Self {
        let pair = || PairClient::new(run.clone(), plan.timing.request_timeout(), mutation);
        let pair = (plan.lock == LockKind::Pair && mutation != Mutation::WriteFirstObjectOnly).then(pair);
        let config = ElectionConfig {
            identity: plan.identity.clone(),
            run,
            timing: plan.timing.clone(),
            wait: plan.wait,
            min_hold: plan.min_hold,
            ignores_min_hold: false,
            preference: Preference::default(),
        };
        Self {
            alive: true,
            frozen_until: 0,
            election_frozen_until: 0,
            election: Election::new(config, now, seed),
            election_finished: false,
            requests: 0,
            pair,
            request_in_flight: None,
            last_request_is_write: false,
            abandoned_writes: VecDeque::new(),
            replies_to_abandoned_writes: VecDeque::new(),
            reply: None,
            watches: 0,
            watch: None,
            watch_events: VecDeque::new(),
            command_gone: None,
            stop_requested: false,
            election_reports: VecDeque::new(),
            supervisor_reports: VecDeque::new(),
            signals: VecDeque::new(),
            elector: Elector::new(&plan.timing, plan.routes),
            supervisor_gone: false,
            withdrawn: false,
            routing: plan.routes.then(|| RoutingThread::new(plan)),
            next_kill_at: None,
            handles_write_reply: false,
            observed_revision: 0,
            observed: None,
            watch_is_current: false,
            pair_replied: false,
            gives_up_at: None,
            reply_was_in_time: false,
        }
    }
}

impl World {
    /// Runs the election thread's loop until everything that has arrived is handled.
    pub fn run_election(&mut self, run: usize) {
        if !self.runs[run].elector.alive || self.runs[run].elector.election_finished {
            return;
        }
        let now = self.clock(run).now(self.now);
        loop {
            let Some(reply) = self.reply_to_election(run, now) else { continue };
            let elector = &mut self.runs[run].elector;
            let watch_events: Vec<WatchEvent> = elector.watch_events.drain(..).collect();
            let (command_gone, stop) = (elector.command_gone.take(), std::mem::take(&mut elector.stop_requested));
            let late_write = elector.replies_to_abandoned_writes.pop_front();
            let is_reply = reply.is_some() || late_write.is_some();
            let no_input = !is_reply && watch_events.is_empty() && command_gone.is_none() && !stop;
            let is_due = elector.election.next_timeout().is_some_and(|at| now.boot >= at);
            if no_input && !is_due {
                break;
            }
            elector.gives_up_at = elector.gives_up_at.filter(|at| now.boot < *at);
            elector.handles_write_reply = late_write.is_some() || matches!(reply, Some(Reply::Written(_)));
            if watch_events.iter().any(ends_watch) {
                elector.watch = None;
                self.close_watch(run);
            }
            let mutated_events =
                watch_events.iter().map(|event| self.mutated_watch_event(run, event.clone())).collect();
            let replied = reply.is_some();
            let late_write = late_write.map(|stored| self.observe_late_write(run, stored));
            let inputs = ElectionInputs { command_gone, stop, reply, late_write, watch_events: mutated_events };
            let actions = self.runs[run].elector.election.step(now, inputs);
            let replaces_watch =
                |action: &ElectionAction| matches!(action, ElectionAction::Watch(_) | ElectionAction::Unwatch);
            // After a reply that made it close or replace the watch, the election ignores the watch events.
            if !(replied && actions.iter().any(replaces_watch)) {
                // An election that acquires the lock closes its watch, so it ignores the events after its own write.
                let processed_count =
                    acquiring_event(&watch_events, &actions).map_or(watch_events.len(), |index| index + 1);
                watch_events[..processed_count].iter().for_each(|event| self.observe_watch_event(run, event));
            }
            for action in actions {
                self.carry_out(run, action, now);
            }
            if self.runs[run].elector.election_finished {
                return;
            }
            if self.runs[run].elector.election.next_timeout().is_some_and(|at| now.boot >= at) && self.is_idle(run) {
                // A timer that has already expired fires when the thread is woken again.
                return self.wake_soon(run, Thread::Election);
            }
        }
        if let Some(at) = self.runs[run].elector.election.next_timeout() {
            let at = self.clock(run).time_of(at) + self.rng.u64(0..MILLISECOND);
            self.wake(run, Thread::Election, at);
        }
    }

    /// Returns the reply that has arrived for the election, if any. The outer `None` means that a request to a pair
    /// needs the reply to another request first.
    fn reply_to_election(&mut self, run: usize, now: Now) -> Option<Option<Reply>> {
        let elector = &mut self.runs[run].elector;
        let Some((reply, revision)) = elector.reply.take() else { return Some(None) };
        elector.request_in_flight = None;
        let is_from_pair_client = std::mem::take(&mut elector.pair_replied);
        let pair = elector.pair.as_mut().filter(|_| !is_from_pair_client);
        let reply = match pair.map(|pair| pair.handle_reply(reply.clone())) {
            Some(NextStep::Send(member, request)) => {
                self.send_to(run, member, request);
                return None;
            }
            Some(NextStep::Reply(reply)) => reply,
            None => reply,
        };
        elector.reply_was_in_time = elector.gives_up_at.take().is_some();
        if self.mutation == Mutation::LateCreateAcquires {
            self.inject_release(run, &reply, now);
        }
        Some(Some(self.observe_reply(run, reply, revision)))
    }

    fn is_idle(&self, run: usize) -> bool {
        let elector = &self.runs[run].elector;
        let has_input =
            elector.command_gone.is_some() || elector.stop_requested || !elector.replies_to_abandoned_writes.is_empty();
        !has_input && elector.reply.is_none() && elector.watch_events.is_empty()
    }

    /// Steps the election with inputs that a mutation injects.
    pub fn step_election(&mut self, run: usize, now: Now, inputs: ElectionInputs) {
        for action in self.runs[run].elector.election.step(now, inputs) {
            self.carry_out(run, action, now);
        }
    }

    fn carry_out(&mut self, run: usize, action: ElectionAction, now: Now) {
        match action {
            ElectionAction::Send(request) => {
                let timeout = self.machines[self.runs[run].machine].plan.timing.request_timeout();
                let elector = &mut self.runs[run].elector;
                elector.gives_up_at = Some(now.boot + timeout);
                if let Some(number) = elector.request_in_flight.filter(|_| elector.last_request_is_write) {
                    elector.abandoned_writes.push_back(number);
                    if elector.abandoned_writes.len() > 2 {
                        elector.abandoned_writes.pop_front();
                    }
                }
                elector.last_request_is_write = elector.pair.is_none() && request != Request::Get;
                self.send(run, request);
            }
            ElectionAction::Watch(from) => {
                let elector = &mut self.runs[run].elector;
                elector.watches += 1;
                elector.watch = Some(elector.watches);
                elector.watch_events.clear();
                elector.watch_is_current = true;
                let number = elector.watches;
                self.schedule_within(10 * MILLISECOND, Event::OpenWatch { run, number, from: from.map(Box::new) });
            }
            ElectionAction::Unwatch => {
                let elector = &mut self.runs[run].elector;
                elector.watch = None;
                elector.watch_events.clear();
                self.close_watch(run);
            }
            ElectionAction::Claiming => self.report_to_elector(run, ElectionReport::Claiming),
            ElectionAction::ClaimFailed => self.report_to_elector(run, ElectionReport::ClaimFailed),
            ElectionAction::StartLeading(Leadership { tenure, resource_version, .. }) => {
                let tenure = self.mutated_tenure(run, tenure, now);
                trace!(self, "{} has acquired the lock, token {resource_version}", self.name(run));
                self.last_leading_at = self.now;
                self.runs[run].led_since = Some(self.now);
                self.runs[run].claimed_at = self.clock(run).time_of(tenure.renewal_sent_at);
                self.runs[run].fencing_token =
                    Pair::second_resource_version(&resource_version).parse().unwrap_or_default();
                self.update_routing(run, Update::Acquired { token: resource_version, uids: Vec::new() });
                self.report_to_elector(run, ElectionReport::Acquired { tenure, environment: Vec::new() });
            }
            ElectionAction::Extend(tenure) => {
                let tenure = self.mutated_tenure(run, tenure, now);
                self.last_leading_at = self.now;
                self.report_to_elector(run, ElectionReport::Renewed(tenure));
            }
            ElectionAction::StepDown => {
                trace!(self, "{} is asked to step down", self.name(run));
                self.report_to_elector(run, ElectionReport::StepDownRequested);
            }
            ElectionAction::Lose { holder } => {
                trace!(self, "{} sees that {holder:?} holds the lock", self.name(run));
                self.report_to_elector(run, ElectionReport::Taken);
            }
            ElectionAction::Notify(notice) => trace!(self, "{} logs {notice:?}", self.name(run)),
            ElectionAction::Finish(outcome) => {
                self.runs[run].elector.election_finished = true;
                self.runs[run].elector.request_in_flight = None;
                self.close_watch(run);
                self.report_to_elector(run, ElectionReport::Finished(outcome));
            }
        }
    }

    fn report_to_elector(&mut self, run: usize, report: ElectionReport) {
        self.runs[run].elector.election_reports.push_back(report);
        self.wake_soon(run, Thread::Main);
    }

    fn send(&mut self, run: usize, request: Request) {
        match self.runs[run].elector.pair.as_mut().map(|pair| pair.begin(request.clone())) {
            Some(NextStep::Send(member, request)) => self.send_to(run, member, request),
            Some(NextStep::Reply(reply)) => {
                let elector = &mut self.runs[run].elector;
                elector.request_in_flight = Some(elector.requests);
                elector.reply = Some((reply, 0));
                elector.pair_replied = true;
                self.wake_soon(run, Thread::Election);
            }
            None => {
                self.send_to(run, self.machines[self.runs[run].machine].plan.lock.first(), request);
            }
        }
    }

    fn send_to(&mut self, run: usize, member: Member, request: Request) {
        let elector = &mut self.runs[run].elector;
        elector.requests += 1;
        elector.request_in_flight = Some(elector.requests);
        elector.reply = None;
        let number = elector.requests;
        // The tenure that a write confirms counts from the election's step that requested the write. This request is
        // sent up to a millisecond after the current step, or later still if the process is frozen in between.
        self.schedule_within(MILLISECOND, Event::SendRequest { run, number, member, request: Box::new(request) });
    }

    /// Returns the tenure as changed by the mutation.
    fn mutated_tenure(&self, run: usize, tenure: Tenure, now: Now) -> Tenure {
        let timing = &self.machines[self.runs[run].machine].plan.timing;
        let by_read = !self.runs[run].elector.handles_write_reply;
        match self.mutation {
            Mutation::TenureFromReply if !by_read => Tenure::of_renewal(now.boot, timing),
            Mutation::TenureFromRead if by_read => Tenure::of_renewal(now.boot, timing),
            Mutation::GraceBeyondLease => {
                Tenure { kill: tenure.kill + (timing.lease_duration() - timing.renew_deadline()) * 2, ..tenure }
            }
            _ => tenure,
        }
    }

    /// Returns the request as changed by the mutation.
    pub fn mutated_request(&self, request: Request) -> Request {
        match (request, self.store.record()) {
            (Request::Update(version, mut record), Some(current))
                if self.mutation == Mutation::EqualRenewals && current.run.is_some() =>
            {
                let run_and_state = |mark: &leaderrun_core::record::RunMark| (mark.run.clone(), mark.state);
                if current.run.as_ref().map(run_and_state) == record.run.as_ref().map(run_and_state) {
                    record = current.clone();
                }
                Request::Update(version, record)
            }
            (request, _) => request,
        }
    }

    /// Returns the description of an outcome for the trace.
    pub fn describe_outcome(outcome: Outcome) -> &'static str {
        match outcome {
            Outcome::Released => "the lock was released",
            Outcome::NotReleased => "the lock could not be released",
            Outcome::Lost => "the lock was lost",
            Outcome::Stopped => "the candidate was stopped before it led",
            Outcome::NotAcquired => "the lock was not acquired in time",
            Outcome::Unreachable => "the lock was not reached in time",
        }
    }
}

/// Returns the index of the watch event that shows the write by which the election acquired the lock, if there is one.
fn acquiring_event(events: &[WatchEvent], actions: &[ElectionAction]) -> Option<usize> {
    let acquired_version = actions.iter().find_map(|action| match action {
        ElectionAction::StartLeading(Leadership { resource_version, .. }) => Some(resource_version),
        _ => None,
    })?;
    events.iter().position(
        |event| matches!(event, WatchEvent::Changed(stored) if stored.version.resource_version == *acquired_version),
    )
}

fn ends_watch(event: &WatchEvent) -> bool {
    matches!(event, WatchEvent::Ended | WatchEvent::Broken | WatchEvent::Forbidden)
}
