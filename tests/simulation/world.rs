//! The world: machines, runs of leaderrun on them, the API server, and one queue of what happens next.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use fastrand::Rng;
use leaderrun_core::election::{Reply, Request, WatchEvent};
use leaderrun_core::pair::Member;
use leaderrun_core::record::{Record, RunId, Version};
use leaderrun_core::routing::StepResult;

use crate::client_go::ClientGo;
use crate::clock::{Clock, MILLISECOND, SECOND, Time};
use crate::command::Tree;
use crate::election::ElectorProcess;
use crate::invariants::{Excuse, Violation};
use crate::mutation::Mutation;
use crate::network::ServerWatch;
use crate::plan::{HostPlan, Plan, Wishes, host_name};
use crate::store::Store;
use crate::supervisor::SupervisorProcess;

/// After a suspended machine has come back, its processes take this long to be back in order.
pub const RESUMING: Time = 100 * MILLISECOND;

/// What a thread of leaderrun is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thread {
    Election,
    Main,
    Supervisor,
    Routing,
}

#[derive(Debug)]
pub enum Event {
    Wake(usize, Thread),
    Transmit { run: usize, number: u32, place: Member, request: Box<Request> },
    Arrive { run: usize, number: u32, place: Member, request: Box<Request> },
    Answer { run: usize, number: u32, reply: Box<Reply>, revision: u64 },
    OpenWatch { run: usize, number: u32, from: Option<Box<Version>> },
    Watched { run: usize, number: u32, event: Box<WatchEvent> },
    Fork { run: usize },
    CheckInChild { run: usize },
    Exec { run: usize },
    ForkMore { run: usize, process: usize },
    Die { run: usize, process: usize },
    SupervisorDies { run: usize },
    Routed { run: usize, number: u32, result: StepResult },
    DeadBy { run: usize },
    Recheck { run: usize, other: usize },
    Begin { host: usize },
    Fault,
    Restore(Box<Record>),
    ClientGo,
    Healthy,
    LeaderDue,
}

#[derive(Debug)]
struct Due {
    at: Time,
    order: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

#[derive(Debug)]
pub struct Host {
    pub plan: HostPlan,
    pub out_cut_until: Time,
    pub in_cut_until: Time,
    pub suspended_until: Time,
}

/// One run of leaderrun: two processes and a command.
#[derive(Debug)]
pub struct Run {
    pub host: usize,
    pub id: RunId,
    pub elector: ElectorProcess,
    pub supervisor: SupervisorProcess,
    pub tree: Tree,
    pub wakes: [Option<Time>; 4],
    pub led_since: Option<Time>,
    /// When the last process of its command died.
    pub gone_since: Option<Time>,
    /// The guard's word that the command ended well.
    pub ended_well: bool,
    pub fencing_token: u64,
    pub seen: Vec<Seen>,
    /// A third party has made the record say no longer what this run wrote.
    pub displaced: bool,
    /// And somebody who could not know took the lease.
    pub overtaken: bool,
    /// That has happened to it once: its fencing token is no longer the greatest.
    pub outranked: bool,
    /// The revision in which this run last wrote over what it had not written itself.
    pub held_since: u64,
    /// By when, at the latest, the command has to be dead.
    pub dead_by: Option<Time>,
}

/// A run whose mark another run was shown.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub run: usize,
    /// The longest that the record was said to hold by that mark, seconds.
    pub holds_for: u64,
    /// The revision in which it was then shown that the mark had gone.
    pub gone: Option<u64>,
    /// Gone without another run's mark in its place.
    pub missed: bool,
}

/// What a schedule amounted to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub simulated: Time,
    pub events: u64,
    pub commands: u64,
    pub faults: u64,
    pub requests: u64,
    /// Overlaps by why the promise does not cover them.
    pub excused: [u64; Excuse::ALL.len()],
}

pub struct World {
    pub rng: Rng,
    pub now: Time,
    pub plan: Plan,
    pub mutation: Mutation,
    pub hosts: Vec<Host>,
    pub runs: Vec<Run>,
    /// Runs that have a process.
    pub living: Vec<usize>,
    pub store: Store,
    /// The second object, when there are two.
    pub second: Store,
    pub server_down_until: Time,
    pub watches: Vec<ServerWatch>,
    pub client_go: Option<ClientGo>,
    /// Records as they were written, with the uid of the object.
    pub archive: VecDeque<(Record, String)>,
    pub greatest_token: u64,
    /// The last command has ended well, and by its run's `--min-hold` there is none before then.
    pub not_due_before: Time,
    pub led_at: Time,
    pub violation: Option<Violation>,
    pub story: Option<Vec<String>>,
    pub tally: Tally,
    queue: BinaryHeap<Reverse<Due>>,
    order: u64,
}

/// Adds a line to the story, if anybody wants to read it.
#[macro_export]
macro_rules! tell {
    ($world:expr, $($line:tt)*) => {
        if $world.story.is_some() {
            let line = format!($($line)*);
            $world.note(line);
        }
    };
}

impl World {
    pub fn new(seed: u64, wishes: &Wishes, mutation: Mutation, with_story: bool) -> Self {
        let mut rng = Rng::with_seed(seed);
        let plan = Plan::draw(&mut rng, wishes);
        let hosts = plan.hosts.iter().map(|plan| Host {
            plan: plan.clone(),
            out_cut_until: 0,
            in_cut_until: 0,
            suspended_until: 0,
        });
        let mut world = Self {
            hosts: hosts.collect(),
            rng,
            now: 0,
            mutation,
            runs: Vec::new(),
            living: Vec::new(),
            store: Store::new(),
            second: Store::new(),
            server_down_until: 0,
            watches: Vec::new(),
            client_go: None,
            archive: VecDeque::new(),
            greatest_token: 0,
            not_due_before: 0,
            led_at: 0,
            violation: None,
            story: with_story.then(Vec::new),
            tally: Tally::default(),
            queue: BinaryHeap::new(),
            order: 0,
            plan,
        };
        world.describe();
        for host in 0..world.hosts.len() {
            let at = world.rng.u64(0..2 * SECOND);
            world.at(at, Event::Begin { host });
        }
        if world.plan.client_go {
            let longest = world.plan.hosts.iter().map(|host| host.timing.lease_duration()).max().unwrap_or_default();
            world.client_go = Some(ClientGo::draw(&mut world.rng, longest));
            world.at(SECOND, Event::ClientGo);
        }
        if !world.plan.faults.is_empty() {
            world.next_fault();
        }
        let (healthy_from, leader_within) = (world.plan.healthy_from, world.plan.leader_within);
        world.at(healthy_from, Event::Healthy);
        if let Some(within) = leader_within {
            world.at(healthy_from + within, Event::LeaderDue);
        }
        world
    }

    /// Runs the schedule to its end, or to the first violation.
    pub fn play(&mut self) {
        while let Some(Reverse(due)) = self.queue.pop() {
            if due.at > self.plan.ends || self.violation.is_some() {
                break;
            }
            self.now = due.at;
            self.tally.events += 1;
            self.happen(due.event);
        }
        self.tally.simulated = self.now;
    }

    fn happen(&mut self, event: Event) {
        if let Some(resumes) = self.put_off_until(&event) {
            let jitter = self.rng.u64(0..2 * MILLISECOND);
            if let Event::Wake(run, thread) = event {
                self.runs[run].wakes[thread as usize] = None;
                return self.wake(run, thread, resumes + jitter);
            }
            return self.at(resumes + jitter, event);
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
            Event::Transmit { run, number, place, request } => self.transmit(run, number, place, request),
            Event::Arrive { run, number, place, request } => self.arrive(run, number, place, *request),
            Event::Answer { run, number, reply, revision } => self.answered(run, number, *reply, revision),
            Event::OpenWatch { run, number, from } => self.open_watch(run, number, from),
            Event::Watched { run, number, event } => self.watched(run, number, *event),
            Event::Fork { run } => self.fork_command(run),
            Event::CheckInChild { run } => self.check_in_child(run),
            Event::Exec { run } => self.exec(run),
            Event::ForkMore { run, process } => self.fork_more(run, process),
            Event::Die { run, process } => self.process_dies(run, process),
            Event::SupervisorDies { run } => self.supervisor_dies(run),
            Event::Routed { run, number, result } => self.routed(run, number, result),
            Event::DeadBy { run } => self.check_dead_by(run),
            Event::Recheck { run, other } => self.check_overlap(run, other),
            Event::Begin { host } => self.begin(host),
            Event::Fault => self.inflict(),
            Event::Restore(record) => self.meddle("recreates the lease", |_| Some(*record)),
            Event::ClientGo => self.run_client_go(),
            Event::Healthy => tell!(self, "           -- from here on everything is healthy --"),
            Event::LeaderDue => self.check_leader(),
        }
    }

    /// Nothing happens on a suspended machine, nor in a stopped process.
    fn put_off_until(&self, event: &Event) -> Option<Time> {
        let (run, stopped_until) = match *event {
            Event::Wake(run, Thread::Election) | Event::Transmit { run, .. } => {
                let elector = &self.runs[run].elector;
                (run, elector.frozen_until.max(elector.network_frozen_until))
            }
            Event::Wake(run, Thread::Main | Thread::Routing) => (run, self.runs[run].elector.frozen_until),
            Event::Wake(run, Thread::Supervisor) | Event::Fork { run } => (run, self.runs[run].supervisor.frozen_until),
            Event::CheckInChild { run } | Event::Exec { run } | Event::SupervisorDies { run } => (run, 0),
            Event::Die { run, .. } | Event::ForkMore { run, .. } => (run, 0),
            _ => return None,
        };
        let until = self.hosts[self.runs[run].host].suspended_until.max(stopped_until);
        (until > self.now).then_some(until)
    }

    pub fn at(&mut self, at: Time, event: Event) {
        self.order += 1;
        self.queue.push(Reverse(Due { at, order: self.order, event }));
    }

    pub fn soon(&mut self, most: Time, event: Event) {
        let at = self.now + self.rng.u64(1..=most);
        self.at(at, event);
    }

    /// Something has come for a thread: it looks after it as soon as the machine lets it.
    pub fn rouse(&mut self, run: usize, thread: Thread) {
        let at = self.now + self.rng.u64(1..2 * MILLISECOND);
        self.wake(run, thread, at);
    }

    pub fn wake(&mut self, run: usize, thread: Thread, at: Time) {
        let at = at.max(self.now + 1);
        let wake = &mut self.runs[run].wakes[thread as usize];
        if wake.is_none_or(|present| at < present) {
            *wake = Some(at);
            self.at(at, Event::Wake(run, thread));
        }
    }

    pub fn clock(&self, run: usize) -> &Clock {
        &self.hosts[self.runs[run].host].plan.clock
    }

    pub fn chance(&mut self, share: f64) -> bool {
        share > 0.0 && self.rng.f64() < share
    }

    pub fn is_healthy(&self) -> bool {
        self.now >= self.plan.healthy_from
    }

    fn begin(&mut self, host: usize) {
        let run = self.runs.len();
        let now = self.hosts[host].plan.clock.now(self.now);
        let id = RunId::new(run.to_string());
        let elector = ElectorProcess::new(&self.hosts[host].plan, id.clone(), now, self.rng.u64(..), self.mutation);
        let supervisor = SupervisorProcess::new(&self.hosts[host].plan);
        self.runs.push(Run {
            host,
            id,
            elector,
            supervisor,
            tree: Tree::default(),
            wakes: [None; 4],
            led_since: None,
            gone_since: None,
            ended_well: false,
            fencing_token: 0,
            seen: Vec::new(),
            displaced: false,
            overtaken: false,
            outranked: false,
            held_since: 0,
            dead_by: None,
        });
        self.living.push(run);
        tell!(self, "{} begins", self.name(run));
        self.rouse(run, Thread::Election);
    }

    /// Forgets runs that have no process any more.
    pub fn bury(&mut self, run: usize) {
        let Run { elector, supervisor, tree, .. } = &self.runs[run];
        if !elector.alive && !supervisor.alive && !tree.is_left() {
            self.living.retain(|living| *living != run);
        }
    }

    pub fn name(&self, run: usize) -> String {
        format!("{}/{run}", host_name(self.runs[run].host))
    }

    pub fn note(&mut self, line: String) {
        let now = self.now as f64 / SECOND as f64;
        if let Some(story) = &mut self.story {
            story.push(format!("{now:>10.4}  {line}"));
        }
    }

    fn describe(&mut self) {
        for index in 0..self.hosts.len() {
            let HostPlan { clock, identity, timing, wait, min_hold, lock, may_watch, .. } =
                self.hosts[index].plan.clone();
            tell!(
                self,
                "machine {}: clock rate {:.3}, identity {identity}, lease {:?}, deadline {:?}, retry {:?}, grace {:?}, wait {wait:?}, min hold {min_hold:?}, {lock:?}{}",
                host_name(index),
                clock.rate as f64 / 1e6,
                timing.lease_duration(),
                timing.renew_deadline(),
                timing.retry_period(),
                timing.lost_grace(),
                if may_watch { "" } else { ", may not watch" }
            );
        }
        tell!(self, "network {:?}", self.plan.network);
    }
}
