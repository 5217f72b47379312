//! What a seed decides before a schedule begins: who takes part, on what clocks, and what may go wrong.

use std::time::Duration;

use fastrand::Rng;
use jiff::SignedDuration;
use leaderrun_core::pair::Member;
use leaderrun_core::timing::Timing;

use crate::clock::{Clock, SECOND, TRUE_RATE, Time};

/// What leaderrun may take from the kill instant to the death of the last process: its last resort, and
/// a tree that dies layer by layer.
pub const KILLING: Duration = Duration::from_millis(150);

/// Lease duration, renew deadline, retry period and lost grace, in milliseconds.
const TIMINGS: [(u64, u64, u64, Option<u64>); 7] = [
    (15_000, 10_000, 2_000, None),
    (6_000, 4_000, 1_000, None),
    (4_000, 2_500, 500, Some(0)),
    (4_000, 2_400, 400, Some(500)),
    (10_000, 5_000, 1_000, None),
    (8_000, 7_000, 1_000, Some(0)),
    (3_000, 1_500, 300, Some(500)),
];

/// Something that goes wrong, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    CutOff,
    CutOffOutward,
    CutOffInward,
    ServerRestart,
    WatchesCut,
    WatchesDie,
    HistoryCompacted,
    FreezeElector,
    FreezeSupervisor,
    FreezeNetworkThread,
    CrashElector,
    CrashSupervisor,
    /// Both processes of a run are killed in one instant.
    CrashBoth,
    Suspend,
    WallClockJumps,
    AskToEnd,
    Touch,
    Delete,
    Recreate,
    EditHolder,
    Empty,
    EmptyWithMark,
    /// The record's duration becomes a second, the rest stays.
    Shorten,
    /// An older state is put back, mark and all.
    PutBack,
    /// The record of another lock is copied over this one, mark and all.
    CopyOfAnother,
    /// The run that holds the lease is asked to step down.
    StepDown,
}

impl Fault {
    /// What the promise covers.
    pub const COVERED: [Self; 26] = [
        Self::CutOff,
        Self::CutOffOutward,
        Self::CutOffInward,
        Self::ServerRestart,
        Self::WatchesCut,
        Self::WatchesDie,
        Self::HistoryCompacted,
        Self::FreezeElector,
        Self::FreezeSupervisor,
        Self::FreezeNetworkThread,
        Self::CrashElector,
        Self::CrashSupervisor,
        Self::CrashBoth,
        Self::Suspend,
        Self::WallClockJumps,
        Self::AskToEnd,
        Self::Touch,
        Self::Delete,
        Self::Recreate,
        Self::EditHolder,
        Self::Empty,
        Self::EmptyWithMark,
        Self::Shorten,
        Self::PutBack,
        Self::CopyOfAnother,
        Self::StepDown,
    ];
}

impl Fault {
    /// A third party writes to the lease.
    pub fn is_meddling(self) -> bool {
        use Fault::{
            CopyOfAnother, Delete, EditHolder, Empty, EmptyWithMark, PutBack, Recreate, Shorten, StepDown, Touch,
        };
        let meddling =
            [CopyOfAnother, Delete, EditHolder, Empty, EmptyWithMark, PutBack, Recreate, Shorten, StepDown, Touch];
        meddling.contains(&self)
    }
}

/// How messages fare on their way, each a share of one.
#[derive(Clone, Debug, Default)]
pub struct Network {
    pub request_lost: f64,
    pub reply_lost: f64,
    pub duplicated: f64,
    pub slow: f64,
    pub too_many: f64,
    pub server_error: f64,
    pub watch_event_lost: f64,
    /// Between the two processes of one leaderrun.
    pub order_lost: f64,
    pub report_lost: f64,
    /// The longest that something slow takes.
    pub slowest: Time,
}

/// One machine and what is configured on it.
#[derive(Clone, Debug)]
pub struct HostPlan {
    pub clock: Clock,
    pub identity: String,
    pub timing: Timing,
    pub wait: Option<Duration>,
    pub kill_after: Option<Duration>,
    pub min_hold: Option<Duration>,
    pub lock: LockKind,
    /// Traffic is routed to the command.
    pub routes: bool,
    /// `--on-lost rejoin`.
    pub rejoins: bool,
    pub may_watch: bool,
}

/// Where a candidate's record lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// In one object.
    One(Member),
    /// In two.
    Both,
}

impl LockKind {
    /// Where it is read and written first.
    pub fn first(self) -> Member {
        match self {
            Self::One(place) => place,
            Self::Both => Member::First,
        }
    }

    /// Where it is written last.
    pub fn last(self) -> Member {
        match self {
            Self::One(place) => place,
            Self::Both => Member::Second,
        }
    }
}

/// What a command is like; which one is drawn anew at each start.
#[derive(Clone, Debug)]
pub struct Commands {
    pub longest: Time,
    pub endless: f64,
    pub ignores_term: f64,
    pub descendants: usize,
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub hosts: Vec<HostPlan>,
    pub network: Network,
    pub faults: Vec<Fault>,
    /// Mean time between two faults.
    pub between_faults: Time,
    /// An implementation with looser rules takes part.
    pub client_go: bool,
    pub commands: Commands,
    /// There are two objects.
    pub moving: bool,
    /// No write of the second object is answered, or carried out.
    pub second_unwritable: bool,
    /// The wall clocks are right.
    pub right_walls: bool,
    /// From here on everything is healthy.
    pub healthy_from: Time,
    /// Somebody leads within this time of health; where wall clocks say when, anything may be later.
    pub leader_within: Option<Time>,
    pub ends: Time,
}

/// What a test wants of its schedules; the seed decides the rest.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wishes {
    pub hosts: Option<usize>,
    /// Only these faults happen, and often.
    pub faults: Option<&'static [Fault]>,
    /// Everybody has this timing, an index into the table.
    pub timing: Option<usize>,
    /// Machines' clocks run apart by this share of what is tolerated.
    pub clock_rates: Option<f64>,
    pub calm_network: bool,
    pub one_identity: bool,
    pub no_client_go: bool,
    pub stubborn_commands: bool,
    pub long_commands: bool,
    /// A system is being moved: some have their record in two objects, the others in one of these. Nobody
    /// meddles.
    pub moving: bool,
    /// The second object cannot be written, and the first machine's candidates use the first one only.
    pub second_unwritable: bool,
    /// Everybody has `--min-hold`, and the wall clocks are right.
    pub min_hold: bool,
}

impl Plan {
    pub fn draw(rng: &mut Rng, wishes: &Wishes) -> Self {
        let right_walls = wishes.min_hold || rng.f64() < 0.3;
        let moving = wishes.moving || (wishes.faults.is_none() && rng.f64() < 0.1);
        let hosts = draw_hosts(rng, wishes, right_walls, moving);
        let longest_lease = hosts.iter().map(|host| host.clock.true_time(host.timing.lease_duration())).max();
        let longest_lease = longest_lease.unwrap_or_default();
        let longest_retry = hosts.iter().map(|host| host.clock.true_time(host.timing.retry_period())).max();
        let healthy_from = longest_lease * rng.u64(3..8);
        // A holder's and a displaced holder's time, the polls in between, the restarts, and a retry-after.
        let leader_within = 2 * longest_lease + 6 * longest_retry.unwrap_or_default() + 6 * SECOND;
        let longest_hold = hosts.iter().filter_map(|host| host.min_hold).max().map(|hold| hold.as_nanos() as Time);
        let leader_within = match longest_hold {
            Some(hold) if right_walls => Some(leader_within + hold),
            Some(_) => None,
            None => Some(leader_within),
        };
        let mut faults: Vec<Fault> = match wishes.faults {
            Some(faults) => faults.to_vec(),
            // A few kinds at a time go deeper than all of them at once.
            None => Fault::COVERED.into_iter().filter(|_| rng.f64() < 0.35).collect(),
        };
        faults.retain(|fault| *fault != Fault::WallClockJumps || !right_walls);
        faults.retain(|fault| !moving || !fault.is_meddling());
        Self {
            network: draw_network(rng, wishes, longest_lease),
            faults,
            between_faults: longest_lease / rng.u64(1..6),
            client_go: rng.f64() < 0.25 && !wishes.no_client_go && !moving,
            commands: Commands {
                longest: if wishes.long_commands { longest_lease * 8 } else { longest_lease * rng.u64(1..4) },
                endless: if wishes.long_commands { 0.8 } else { rng.f64() * 0.8 },
                ignores_term: if wishes.stubborn_commands { 1.0 } else { rng.f64() },
                descendants: rng.usize(0..5),
            },
            hosts,
            moving,
            second_unwritable: wishes.second_unwritable,
            right_walls,
            healthy_from,
            leader_within,
            ends: healthy_from + leader_within.unwrap_or_default() + longest_lease,
        }
    }
}

fn draw_hosts(rng: &mut Rng, wishes: &Wishes, right_walls: bool, moving: bool) -> Vec<HostPlan> {
    let count = wishes.hosts.unwrap_or_else(|| rng.usize(2..6));
    let alike = rng.f64() < 0.7;
    let common = wishes.timing.unwrap_or_else(|| rng.usize(..TIMINGS.len()));
    let one_place = if moving && rng.bool() && !wishes.second_unwritable { Member::Second } else { Member::First };
    let min_hold = wishes.min_hold || rng.f64() < 0.3;
    let one_identity = wishes.one_identity || rng.f64() < 0.15;
    let timings: Vec<Timing> = (0..count)
        .map(|_| timing(if alike || wishes.timing.is_some() { common } else { rng.usize(..TIMINGS.len()) }))
        .collect();
    let tolerated = timings.iter().map(tolerated_rate).fold(f64::MAX, f64::min);
    let apart = match wishes.clock_rates {
        Some(share) => 1.0 + (tolerated - 1.0) * share,
        None => 1.0 + (tolerated - 1.0) * [0.0, rng.f64(), 1.0][rng.usize(..3)],
    };
    timings
        .into_iter()
        .enumerate()
        .map(|(index, timing)| HostPlan {
            clock: Clock {
                // At most the true rate, so that what killing takes is not less on any clock.
                rate: (TRUE_RATE as f64 / [1.0, 1.0 + (apart - 1.0) * rng.f64(), apart][rng.usize(..3)]) as u64,
                booted: rng.u64(1..1_000_000) * SECOND,
                wall: SignedDuration::from_secs(if right_walls { 0 } else { rng.i64(-100_000..100_000) }),
            },
            identity: if one_identity { "same".to_owned() } else { host_name(index).to_string() },
            wait: match rng.usize(..8) {
                // Somebody has to have the patience to succeed a holder that died.
                _ if index == 0 => None,
                0 => Some(Duration::ZERO),
                1 => Some(timing.lease_duration() / 2),
                _ => None,
            },
            kill_after: (rng.f64() < 0.2).then(|| Duration::from_millis(rng.u64(100..3000))),
            min_hold: min_hold.then(|| timing.lease_duration().mul_f64(3.0 * rng.f64())),
            lock: match moving && rng.bool() && !(wishes.second_unwritable && index == 0) {
                true => LockKind::Both,
                false => LockKind::One(one_place),
            },
            routes: rng.bool(),
            rejoins: rng.bool(),
            may_watch: rng.f64() < 0.8,
            timing,
        })
        .collect()
}

/// What the machines with these numbers are called.
pub fn host_name(index: usize) -> char {
    (b'A' + index as u8) as char
}

fn timing(index: usize) -> Timing {
    let millis = Duration::from_millis;
    let (lease, renew, retry, grace) = TIMINGS[index];
    Timing::new(millis(lease), millis(renew), millis(retry), grace.map(millis)).expect("the table's timings fit")
}

/// The tolerated ratio of clock rates, less what killing takes.
fn tolerated_rate(timing: &Timing) -> f64 {
    let dead_by = timing.renew_deadline() + timing.lost_grace() + KILLING;
    timing.lease_duration().as_secs_f64() / dead_by.as_secs_f64()
}

fn draw_network(rng: &mut Rng, wishes: &Wishes, longest_lease: Time) -> Network {
    if wishes.calm_network {
        return Network::default();
    }
    let mut sometimes = |most: f64| if rng.bool() { rng.f64() * most } else { 0.0 };
    Network {
        request_lost: sometimes(0.15),
        reply_lost: sometimes(0.25),
        duplicated: sometimes(0.1),
        slow: sometimes(0.3),
        too_many: sometimes(0.1),
        server_error: sometimes(0.15),
        watch_event_lost: sometimes(0.1),
        order_lost: sometimes(0.1),
        report_lost: sometimes(0.1),
        slowest: (longest_lease / 100) * rng.u64(5..120),
    }
}
