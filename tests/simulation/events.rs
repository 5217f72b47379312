//! The events of the simulation, ordered by time.

use std::cmp::Ordering;

use leaderrun_core::election::{Reply, Request, WatchEvent};
use leaderrun_core::pair::Member;
use leaderrun_core::record::{Record, Version};
use leaderrun_core::routing::StepResult;

use testkit::simulated_time::Time;

/// A thread of leaderrun. `Main` is the elector's main thread, and `Supervisor` is the only thread of the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thread {
    Election,
    Main,
    Supervisor,
    Routing,
}

/// An event of the simulation. `number` identifies a request, a watch or a routing step. The results of a request,
/// watch or step that was replaced are ignored, except late replies to writes. The simulation can contain a candidate
/// that behaves as client-go does; `WakeClientGoCandidate` makes it take its next step.
#[derive(Debug)]
pub enum Event {
    Wake(usize, Thread),
    SendRequest { run: usize, number: u32, member: Member, request: Box<Request> },
    RequestArrives { run: usize, number: u32, member: Member, request: Box<Request> },
    ReplyArrives { run: usize, number: u32, reply: Box<Reply>, revision: u64 },
    OpenWatch { run: usize, number: u32, from: Option<Box<Version>> },
    WatchEventArrives { run: usize, number: u32, event: Box<WatchEvent> },
    ForkCommand { run: usize },
    ChildChecksTenure { run: usize },
    Exec { run: usize },
    ForkDescendant { run: usize, process: usize },
    ProcessDies { run: usize, process: usize },
    SupervisorDies { run: usize },
    RoutingStepEnds { run: usize, number: u32, result: StepResult },
    CheckCommandIsDead { run: usize },
    CheckOverlap { run: usize, other: usize },
    StartRun { machine: usize },
    InjectFault,
    RecreateLease(Box<Record>),
    WakeClientGoCandidate,
    FaultsEnd,
    CheckLeader,
}

/// An event with its time. Simultaneous events are handled in the order in which they were scheduled.
#[derive(Debug)]
pub struct ScheduledEvent {
    pub at: Time,
    /// The position of this event in the order of scheduling.
    pub order: u64,
    pub event: Event,
}

impl PartialEq for ScheduledEvent {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for ScheduledEvent {}

impl PartialOrd for ScheduledEvent {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ScheduledEvent {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}
