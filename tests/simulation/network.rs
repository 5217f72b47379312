//! The network between the candidates and the store: messages are delayed, lost, duplicated or refused.

use std::time::Duration;

use leaderrun_core::election::{Reply, Request, WatchEvent};
use leaderrun_core::pair::Member;
use leaderrun_core::record::{MarkState, Record, Stored, Version};

use crate::events::{Event, Thread};
use crate::plan::LockKind;
use crate::trace;
use crate::world::World;
use testkit::simulated_time::{MILLISECOND, SECOND, Time};

/// The server's side of a watch.
#[derive(Debug)]
pub struct ServerWatch {
    run: usize,
    /// The number of the watch.
    number: u32,
    /// The time at which the most recently sent event arrives. Events that are sent afterwards must not arrive earlier.
    last_delivery: Time,
    /// `true` if the connection is dead: no events arrive, and the watch does not end.
    is_dead: bool,
}

impl World {
    /// Sends a request from the run's machine.
    pub fn send_from_machine(&mut self, run: usize, number: u32, member: Member, request: Box<Request>) {
        let elector = &self.runs[run].elector;
        if !elector.alive || elector.request_in_flight != Some(number) {
            return;
        }
        self.statistics.requests += 1;
        let machine = self.runs[run].machine;
        if self.machines[machine].outbound_cut_until > self.now || self.draw_loss(self.plan.network.request_lost) {
            trace!(self, "{} sends {}, which is lost", self.name(run), RequestSummary(&request));
            return;
        }
        trace!(self, "{} sends {}", self.name(run), RequestSummary(&request));
        if !self.faults_are_over() && self.chance(self.plan.network.duplicated) {
            let at = self.draw_arrival();
            self.schedule(at, Event::RequestArrives { run, number, member, request: request.clone() });
        }
        let at = self.draw_arrival();
        self.schedule(at, Event::RequestArrives { run, number, member, request });
    }

    /// Delivers a request to the API server.
    pub fn receive_request(&mut self, run: usize, number: u32, member: Member, request: Request) {
        if self.server_down_until > self.now {
            return self.reply(run, number, Reply::Unknown { retry_after: None });
        }
        if !self.faults_are_over() && self.chance(self.plan.network.too_many) {
            let retry_after = self.rng.bool().then(|| Duration::from_secs(self.rng.u64(1..4)));
            return self.reply(run, number, Reply::Refused { retry_after });
        }
        let is_failing = !self.faults_are_over() && self.chance(self.plan.network.server_error);
        if is_failing && self.rng.bool() {
            return self.reply(run, number, Reply::Unknown { retry_after: None });
        }
        if self.plan.second_unwritable && member == Member::Second && request != Request::Get {
            return;
        }
        let is_write = request != Request::Get;
        let is_release = is_release(&request);
        let reply = match member {
            Member::First => self.apply_to_first_object(run, request),
            Member::Second => self.apply_to_second_object(run, request),
        };
        if is_release
            && matches!(reply, Reply::Written(_))
            && member == self.plan.machines[self.runs[run].machine].lock.last()
        {
            self.record_due_time(run);
        }
        // A proxy that sends a write twice passes on the reply to the second request, which is a conflict.
        let reply = if is_failing && is_write && self.rng.bool() {
            Reply::Conflict
        } else if is_failing {
            Reply::Unknown { retry_after: None }
        } else {
            reply
        };
        self.reply(run, number, reply);
    }

    fn apply_to_second_object(&mut self, run: usize, request: Request) -> Reply {
        let is_release = is_release(&request);
        let before = self.second_store.revision();
        let reply = self.second_store.handle(request, self.mutation);
        if self.second_store.revision() != before {
            let object = describe_object(self.second_store.object());
            trace!(self, "           {}'s write to the second object is applied: {object}", self.name(run));
            self.check_release(run, is_release);
        }
        reply
    }

    fn apply_to_first_object(&mut self, run: usize, request: Request) -> Reply {
        let is_release = is_release(&request);
        let before = self.store.revision();
        let held_before = self.store.record().and_then(Record::mark).is_some_and(|mark| mark.run == self.runs[run].id);
        let is_shortened = self.admission_shortens_until > self.now;
        let request = self.mutated_request(request);
        let request = if is_shortened { shortened(request) } else { request };
        let reply = self.store.handle(request, self.mutation);
        if self.store.revision() != before {
            trace!(self, "           {}'s write is applied: {}", self.name(run), self.describe_object());
            // A write by a displaced run counts as a new acquisition even if the record still names that run. Another
            // client may have restored that record, or the lease duration in it may have been shortened.
            if !held_before || self.runs[run].displaced {
                self.runs[run].acquired_at_revision = self.store.revision();
            }
            self.runs[run].displaced = is_shortened && self.runs[run].has_stored_full_duration;
            self.runs[run].has_stored_full_duration |= !is_shortened;
            self.runs[run].superseded = false;
            // This write supersedes every other live run that is displaced, unless the writer could know that that
            // run's command may be alive (`overlap_excuse` checks both). A superseded run may still start its command,
            // although its token is no longer the greatest.
            for index in 0..self.live_runs.len() {
                let other = self.live_runs[index];
                if other != run && self.overlap_excuse(run, other).is_some() {
                    (self.runs[other].superseded, self.runs[other].token_may_be_exceeded) = (true, true);
                }
            }
            self.archive_current();
            self.check_release(run, is_release);
            self.publish();
        }
        reply
    }

    fn reply(&mut self, run: usize, number: u32, reply: Reply) {
        let machine = self.runs[run].machine;
        if self.machines[machine].inbound_cut_until > self.now || self.draw_loss(self.plan.network.reply_lost) {
            trace!(self, "           the reply to {} is lost", self.name(run));
            return;
        }
        let at = self.draw_arrival();
        let revision = self.store.revision();
        self.schedule(at, Event::ReplyArrives { run, number, reply: Box::new(reply), revision });
    }

    /// Delivers a reply if the election is waiting for it, or if it is a late reply to a write that the election has
    /// given up on.
    pub fn deliver_reply(&mut self, run: usize, number: u32, reply: Reply, revision: u64) {
        let elector = &mut self.runs[run].elector;
        if elector.alive && elector.request_in_flight == Some(number) && elector.reply.is_none() {
            elector.reply = Some((reply, revision));
            self.wake_soon(run, Thread::Election);
        } else if let Reply::Written(stored) = reply
            && elector.alive
            && let Some(index) = elector.abandoned_writes.iter().position(|abandoned| *abandoned == number)
        {
            elector.abandoned_writes.remove(index);
            elector.replies_to_abandoned_writes.push_back(stored);
            trace!(self, "           the reply to {}'s write arrives late", self.name(run));
            self.wake_soon(run, Thread::Election);
        }
    }

    pub fn open_watch(&mut self, run: usize, number: u32, from: Option<Box<Version>>) {
        if !self.runs[run].elector.alive {
            return;
        }
        let machine = &self.machines[self.runs[run].machine];
        // Only watches of the first object are simulated. Candidates that use the second object have to poll.
        if !machine.plan.may_watch || machine.plan.lock != LockKind::One(Member::First) {
            return self.reply_to_watch(run, number, WatchEvent::Forbidden);
        }
        let cut = machine.outbound_cut_until.max(machine.inbound_cut_until);
        if cut > self.now || self.server_down_until > self.now {
            // A connection that cannot be established times out.
            let at = self.now + 2 * SECOND;
            return self.schedule(at, Event::WatchEventArrives { run, number, event: Box::new(WatchEvent::Broken) });
        }
        match self.store.events_since(from.as_deref()) {
            None => self.reply_to_watch(run, number, WatchEvent::Broken),
            Some(events) => {
                self.watches.retain(|watch| watch.run != run);
                self.watches.push(ServerWatch { run, number, last_delivery: self.now, is_dead: false });
                let index = self.watches.len() - 1;
                for event in events {
                    self.send_to_watch(index, event);
                }
            }
        }
    }

    /// Delivers a watch event, unless the election has closed or replaced the watch.
    pub fn deliver_watch_event(&mut self, run: usize, number: u32, event: WatchEvent) {
        let elector = &mut self.runs[run].elector;
        if elector.alive && elector.watch == Some(number) {
            elector.watch_events.push_back(event);
            self.wake_soon(run, Thread::Election);
        }
    }

    pub fn close_watch(&mut self, run: usize) {
        self.watches.retain(|watch| watch.run != run);
    }

    /// Sends the last change of the object to all watches.
    pub fn publish(&mut self) {
        for index in 0..self.watches.len() {
            let event = self.store.last_event();
            self.send_to_watch(index, event);
        }
    }

    /// Ends all watches with `event`. If it is `None`, the watches die silently.
    pub fn end_watches(&mut self, event: Option<WatchEvent>) {
        for index in 0..self.watches.len() {
            match &event {
                Some(event) => self.send_to_watch(index, event.clone()),
                None => self.watches[index].is_dead = true,
            }
        }
        if event.is_some() {
            self.watches.clear();
        }
    }

    fn send_to_watch(&mut self, index: usize, event: WatchEvent) {
        let is_lost = self.draw_loss(self.plan.network.watch_event_lost);
        let ServerWatch { run, number, is_dead, .. } = self.watches[index];
        if is_lost || is_dead {
            // A watch is a stream: after a lost event, no later event arrives.
            self.watches[index].is_dead = true;
            return;
        }
        let cut_until = self.machines[self.runs[run].machine].inbound_cut_until;
        if cut_until > self.now && self.rng.bool() {
            self.watches[index].is_dead = true;
            return;
        }
        let at = self.draw_arrival().max(self.watches[index].last_delivery + 1).max(cut_until);
        self.watches[index].last_delivery = at;
        self.schedule(at, Event::WatchEventArrives { run, number, event: Box::new(event) });
    }

    fn reply_to_watch(&mut self, run: usize, number: u32, event: WatchEvent) {
        let at = self.draw_arrival();
        self.schedule(at, Event::WatchEventArrives { run, number, event: Box::new(event) });
    }

    /// Decides at random, with this probability, whether a message is lost. No message is lost after the faults have
    /// ended.
    pub fn draw_loss(&mut self, probability: f64) -> bool {
        !self.faults_are_over() && self.chance(probability)
    }

    /// Returns a random arrival time for a message that is sent now. No slow message arrives after the faults have
    /// ended.
    fn draw_arrival(&mut self) -> Time {
        let typical = self.now + self.rng.u64(MILLISECOND / 5..15 * MILLISECOND);
        if self.faults_are_over() || !self.chance(self.plan.network.slow) {
            return typical;
        }
        let slow = typical + self.rng.u64(..self.plan.network.longest_delay);
        slow.min(self.plan.healthy_from.max(typical))
    }

    pub fn describe_object(&self) -> String {
        describe_object(self.store.object())
    }
}

/// Returns the request with the lease duration that an admission policy sets: one second.
fn shortened(request: Request) -> Request {
    let shortened = |record| Record { lease_duration_seconds: Some(1), ..record };
    match request {
        Request::Get => Request::Get,
        Request::Create(record) => Request::Create(shortened(record)),
        Request::Update(version, record) => Request::Update(version, shortened(record)),
    }
}

/// Returns whether a request releases the lock.
fn is_release(request: &Request) -> bool {
    let Request::Update(_, record) = request else { return false };
    record.holder_identity.is_empty() || record.run.as_ref().is_some_and(|mark| mark.state == MarkState::Released)
}

fn describe_object(object: Option<&Stored>) -> String {
    match object {
        None => "there is no lease".to_owned(),
        Some(stored) => {
            let mark = match stored.record.mark() {
                Some(mark) => format!("run {} {:?}", mark.run, mark.state),
                None => "no valid mark".to_owned(),
            };
            let holder = &stored.record.holder_identity;
            let seconds = stored.record.lease_duration_seconds.unwrap_or_default();
            format!("version {}, holder {holder:?}, {mark}, {seconds} s", stored.version.resource_version)
        }
    }
}

/// A request, displayed for the trace.
struct RequestSummary<'a>(&'a Request);

impl std::fmt::Display for RequestSummary<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Request::Get => f.write_str("a read"),
            Request::Create(_) => f.write_str("a create"),
            Request::Update(version, record) => {
                let state = record.run.as_ref().map(|mark| mark.state);
                write!(f, "an update of version {} ({state:?})", version.resource_version)
            }
        }
    }
}
