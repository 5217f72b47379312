//! The simulated world: machines, runs of leaderrun on them, the API server, and a queue of events.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use fastrand::Rng;
use leaderrun_core::instant::Instant;
use leaderrun_core::record::{Record, RunId};

use crate::client_go::ClientGo;
use crate::command::Tree;
use crate::election::ElectorProcess;
use crate::events::{Event, ScheduledEvent, Thread};
use crate::invariants::{Excuse, Violation};
use crate::mutation::Mutation;
use crate::network::ServerWatch;
use crate::plan::{Constraints, MachinePlan, Plan, machine_name};
use crate::store::Store;
use crate::supervisor::SupervisorProcess;
use testkit::simulated_time::{Clock, MILLISECOND, SECOND, Time};

/// The time within which the processes of a resumed machine must have handled everything that is due.
pub const RESUME_ALLOWANCE: Time = 100 * MILLISECOND;

/// A machine. Each `…_until` is the end of a fault.
#[derive(Debug)]
pub struct Machine {
    pub plan: MachinePlan,
    pub outbound_cut_until: Time,
    pub inbound_cut_until: Time,
    pub suspended_until: Time,
}

/// One run of leaderrun: its two processes and its command.
#[derive(Debug)]
pub struct Run {
    pub machine: usize,
    pub id: RunId,
    pub elector: ElectorProcess,
    pub supervisor: SupervisorProcess,
    pub tree: Tree,
    /// The time of the next wake-up of each [`Thread`].
    pub wakes: [Option<Time>; 4],
    /// The time at which this run acquired the lock.
    pub led_since: Option<Time>,
    /// The time at which this run sent the write that acquired the lock.
    pub claimed_at: Time,
    /// The time at which the last process of the command died.
    pub gone_since: Option<Time>,
    /// `true` if the elector has reported that the command succeeded.
    pub command_succeeded: bool,
    pub fencing_token: u64,
    /// The marks that this run has observed, in order.
    pub observed_marks: Vec<ObservedMark>,
    /// `true` if, since the last write of this run, another client has removed its mark from the record or shortened
    /// the lease duration. Also `true` if an admission policy shortened the lease duration in that write although
    /// an earlier write was stored with the full duration.
    pub displaced: bool,
    /// `true` if the API server has stored a record of this run with the full lease duration.
    pub has_stored_full_duration: bool,
    /// `true` if this run was displaced, and another run, which could not know that this run holds the lock, has
    /// written the record since.
    pub superseded: bool,
    /// `true` if this run was superseded at least once, so that another command may have a greater fencing token.
    pub token_may_be_exceeded: bool,
    /// The revision of the write with which this run most recently acquired the lock. After a displacement, its next
    /// write counts as a new acquisition.
    pub acquired_at_revision: u64,
    /// The deadline by which every process of the command must be dead.
    pub death_deadline: Option<Time>,
}

/// The observations that one run has made of a mark, which is its own or that of another run.
#[derive(Clone, Copy, Debug)]
pub struct ObservedMark {
    /// The run that the mark names.
    pub run: usize,
    /// The longest lease duration in a record with that mark, in seconds.
    pub longest_duration: u64,
    /// The revision at which the record was first observed without the mark; `None` if it was last observed with it.
    pub gone_at_revision: Option<u64>,
    /// `true` if the first record without this mark had no mark at all; `false` if it had the mark of another run.
    pub gone_without_successor: bool,
}

/// Statistics about one schedule.
#[derive(Clone, Copy, Debug, Default)]
pub struct Statistics {
    /// The simulated time.
    pub simulated: Time,
    pub events: u64,
    pub commands: u64,
    pub faults: u64,
    pub requests: u64,
    /// The number of overlaps that leaderrun's promise does not cover, for each excuse.
    pub excused: [u64; Excuse::ALL.len()],
}

/// The machines, the API server and the events of one schedule.
pub struct World {
    pub rng: Rng,
    pub now: Time,
    pub plan: Plan,
    pub mutation: Mutation,
    pub machines: Vec<Machine>,
    pub runs: Vec<Run>,
    /// The runs that have a live process.
    pub live_runs: Vec<usize>,
    pub store: Store,
    /// The store of the second object of a pair.
    pub second_store: Store,
    pub server_down_until: Time,
    pub admission_shortens_until: Time,
    pub watches: Vec<ServerWatch>,
    pub client_go: Option<ClientGo>,
    /// Earlier records, each with the uid of its object. Faults restore them, as from a backup.
    pub archive: VecDeque<(Record, String)>,
    pub greatest_token: u64,
    /// The time from which the `--min-hold` of the last successful run allows the next command.
    pub not_due_before: Time,
    pub last_leading_at: Time,
    pub violation: Option<Violation>,
    pub trace: Option<Vec<String>>,
    pub statistics: Statistics,
    queue: BinaryHeap<Reverse<ScheduledEvent>>,
    /// The number of events that were scheduled, which is also the `order` of the last one.
    order: u64,
}

/// Adds a line to the trace, if one is recorded.
#[macro_export]
macro_rules! trace {
    ($world:expr, $($line:tt)*) => {
        if $world.trace.is_some() {
            let line = format!($($line)*);
            $world.push_trace(line);
        }
    };
}

impl World {
    /// Creates the initial world for the schedule that `seed` determines. Records a trace if `with_trace` is `true`.
    pub fn new(seed: u64, constraints: &Constraints, mutation: Mutation, with_trace: bool) -> Self {
        let mut rng = Rng::with_seed(seed);
        let plan = Plan::draw(&mut rng, constraints);
        let machines = plan.machines.iter().map(|plan| Machine {
            plan: plan.clone(),
            outbound_cut_until: 0,
            inbound_cut_until: 0,
            suspended_until: 0,
        });
        let mut world = Self {
            machines: machines.collect(),
            rng,
            now: 0,
            mutation,
            runs: Vec::new(),
            live_runs: Vec::new(),
            store: Store::new(),
            second_store: Store::new(),
            server_down_until: 0,
            admission_shortens_until: 0,
            watches: Vec::new(),
            client_go: None,
            archive: VecDeque::new(),
            greatest_token: 0,
            not_due_before: 0,
            last_leading_at: 0,
            violation: None,
            trace: with_trace.then(Vec::new),
            statistics: Statistics::default(),
            queue: BinaryHeap::new(),
            order: 0,
            plan,
        };
        world.trace_plan();
        for machine in 0..world.machines.len() {
            let at = world.rng.u64(0..2 * SECOND);
            world.schedule(at, Event::StartRun { machine });
        }
        if world.plan.has_client_go {
            let longest =
                world.plan.machines.iter().map(|machine| machine.timing.lease_duration()).max().unwrap_or_default();
            world.client_go = Some(ClientGo::draw(&mut world.rng, longest));
            world.schedule(SECOND, Event::WakeClientGoCandidate);
        }
        if !world.plan.faults.is_empty() {
            world.schedule_fault();
        }
        let (healthy_from, leader_within) = (world.plan.healthy_from, world.plan.leader_within);
        world.schedule(healthy_from, Event::FaultsEnd);
        if let Some(within) = leader_within {
            world.schedule(healthy_from + within, Event::CheckLeader);
        }
        world
    }

    /// Runs the schedule until its end or the first violation.
    pub fn run_schedule(&mut self) {
        while let Some(Reverse(due)) = self.queue.pop() {
            if due.at > self.plan.ends_at || self.violation.is_some() {
                break;
            }
            self.now = due.at;
            self.statistics.events += 1;
            self.handle_event(due.event);
        }
        self.statistics.simulated = self.now;
    }

    fn handle_event(&mut self, event: Event) {
        if let Some(resumes_at) = self.blocked_until(&event) {
            let jitter = self.rng.u64(0..2 * MILLISECOND);
            if let Event::Wake(run, thread) = event {
                self.runs[run].wakes[thread as usize] = None;
                return self.wake(run, thread, resumes_at + jitter);
            }
            return self.schedule(resumes_at + jitter, event);
        }
        match event {
            Event::Wake(run, thread) => {
                if self.runs[run].wakes[thread as usize] != Some(self.now) {
                    return;
                }
                self.runs[run].wakes[thread as usize] = None;
                match thread {
                    Thread::Election => self.run_election(run),
                    Thread::Main => self.run_elector(run),
                    Thread::Supervisor => self.run_supervisor(run),
                    Thread::Routing => self.run_routing(run),
                }
            }
            Event::SendRequest { run, number, member, request } => self.send_from_machine(run, number, member, request),
            Event::RequestArrives { run, number, member, request } => {
                self.receive_request(run, number, member, *request)
            }
            Event::ReplyArrives { run, number, reply, revision } => self.deliver_reply(run, number, *reply, revision),
            Event::OpenWatch { run, number, from } => self.open_watch(run, number, from),
            Event::WatchEventArrives { run, number, event } => self.deliver_watch_event(run, number, *event),
            Event::ForkCommand { run } => self.fork_command(run),
            Event::ChildChecksTenure { run } => self.child_checks_tenure(run),
            Event::Exec { run } => self.exec(run),
            Event::ForkDescendant { run, process } => self.fork_descendant(run, process),
            Event::ProcessDies { run, process } => self.process_dies(run, process),
            Event::SupervisorDies { run } => self.supervisor_dies(run),
            Event::RoutingStepEnds { run, number, result } => self.deliver_routing_result(run, number, result),
            Event::CheckCommandIsDead { run } => self.check_command_is_dead(run),
            Event::CheckOverlap { run, other } => self.check_overlap(run, other),
            Event::StartRun { machine } => self.start_run(machine),
            Event::InjectFault => self.inject_fault(),
            Event::RecreateLease(record) => self.outside_edit("recreates the lease", |_| Some(*record)),
            Event::WakeClientGoCandidate => self.wake_client_go_candidate(),
            Event::FaultsEnd => trace!(self, "           -- all faults have ended --"),
            Event::CheckLeader => self.check_leader(),
        }
    }

    /// Returns the time until which an event is blocked, because its machine is suspended or its process or thread is
    /// frozen.
    fn blocked_until(&self, event: &Event) -> Option<Time> {
        let (run, frozen_until) = match *event {
            Event::Wake(run, Thread::Election) | Event::SendRequest { run, .. } => {
                let elector = &self.runs[run].elector;
                (run, elector.frozen_until.max(elector.election_frozen_until))
            }
            Event::Wake(run, Thread::Main | Thread::Routing) => (run, self.runs[run].elector.frozen_until),
            Event::Wake(run, Thread::Supervisor) | Event::ForkCommand { run } => {
                (run, self.runs[run].supervisor.frozen_until)
            }
            Event::ChildChecksTenure { run } | Event::Exec { run } | Event::SupervisorDies { run } => (run, 0),
            Event::ProcessDies { run, .. } | Event::ForkDescendant { run, .. } => (run, 0),
            _ => return None,
        };
        let until = self.machines[self.runs[run].machine].suspended_until.max(frozen_until);
        (until > self.now).then_some(until)
    }

    pub fn schedule(&mut self, at: Time, event: Event) {
        self.order += 1;
        self.queue.push(Reverse(ScheduledEvent { at, order: self.order, event }));
    }

    /// Schedules an event at a random time, at most `max` from now.
    pub fn schedule_within(&mut self, max: Time, event: Event) {
        let at = self.now + self.rng.u64(1..=max);
        self.schedule(at, event);
    }

    /// Wakes a thread within two milliseconds, to handle an input that has arrived.
    pub fn wake_soon(&mut self, run: usize, thread: Thread) {
        let at = self.now + self.rng.u64(1..2 * MILLISECOND);
        self.wake(run, thread, at);
    }

    /// Wakes a thread up to a millisecond after its deadline, plus up to its machine's delay. The delay is not added to
    /// `next_kill`, the time of the next round of SIGKILLs, because the machine's `kill_time` covers all rounds.
    pub fn wake_for_deadline(
        &mut self,
        run: usize,
        thread: Thread,
        deadline: Option<Instant>,
        next_kill: Option<Instant>,
    ) {
        let delay = self.machines[self.runs[run].machine].plan.delay;
        for (at, delay) in [(deadline, delay), (next_kill, Duration::ZERO)] {
            if let Some(at) = at {
                let longest = MILLISECOND + self.clock(run).true_time(delay);
                let at = self.clock(run).time_of(at).max(self.now) + self.rng.u64(0..longest);
                self.wake(run, thread, at);
            }
        }
    }

    pub fn wake(&mut self, run: usize, thread: Thread, at: Time) {
        let at = at.max(self.now + 1);
        let wake = &mut self.runs[run].wakes[thread as usize];
        if wake.is_none_or(|current| at < current) {
            *wake = Some(at);
            self.schedule(at, Event::Wake(run, thread));
        }
    }

    pub fn clock(&self, run: usize) -> &Clock {
        &self.machines[self.runs[run].machine].plan.clock
    }

    /// Returns `true` with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.rng.f64() < probability
    }

    /// Returns whether all faults have ended.
    pub fn faults_are_over(&self) -> bool {
        self.now >= self.plan.healthy_from
    }

    fn start_run(&mut self, machine: usize) {
        let run = self.runs.len();
        let now = self.machines[machine].plan.clock.now(self.now);
        let id = RunId::new(run.to_string());
        let elector =
            ElectorProcess::new(&self.machines[machine].plan, id.clone(), now, self.rng.u64(..), self.mutation);
        let supervisor = SupervisorProcess::new(&self.machines[machine].plan, now.boot, self.mutation);
        self.runs.push(Run {
            machine,
            id,
            elector,
            supervisor,
            tree: Tree::default(),
            wakes: [None; 4],
            led_since: None,
            claimed_at: 0,
            gone_since: None,
            command_succeeded: false,
            fencing_token: 0,
            observed_marks: Vec::new(),
            displaced: false,
            has_stored_full_duration: false,
            superseded: false,
            token_may_be_exceeded: false,
            acquired_at_revision: 0,
            death_deadline: None,
        });
        self.live_runs.push(run);
        trace!(self, "{} starts", self.name(run));
        self.wake_soon(run, Thread::Election);
    }

    /// Removes a run from `live_runs` if none of its processes is left.
    pub fn remove_if_dead(&mut self, run: usize) {
        let Run { elector, supervisor, tree, .. } = &self.runs[run];
        if !elector.alive && !supervisor.alive && !tree.is_any_alive() {
            self.live_runs.retain(|live_run| *live_run != run);
        }
    }

    pub fn name(&self, run: usize) -> String {
        format!("{}/{run}", machine_name(self.runs[run].machine))
    }

    pub fn push_trace(&mut self, line: String) {
        let now = self.now as f64 / SECOND as f64;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{now:>10.4}  {line}"));
        }
    }

    /// Adds the plan to the trace.
    fn trace_plan(&mut self) {
        for index in 0..self.machines.len() {
            let MachinePlan { clock, identity, timing, wait, min_hold, lock, may_watch, delay, kill_time, .. } =
                self.machines[index].plan.clone();
            trace!(
                self,
                "machine {}: clock rate {:.3}, identity {identity}, lease {:?}, deadline {:?}, retry {:?}, grace {:?}, wait {wait:?}, min hold {min_hold:?}, {lock:?}{}, delay {delay:?}, kill time {kill_time:?}",
                machine_name(index),
                clock.rate as f64 / 1e6,
                timing.lease_duration(),
                timing.renew_deadline(),
                timing.retry_period(),
                timing.lost_grace(),
                if may_watch { "" } else { ", may not watch" }
            );
        }
        trace!(self, "network {:?}", self.plan.network);
    }
}
