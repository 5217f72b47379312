//! The plan of a schedule, drawn from its seed: the candidates, their clocks and configuration, and the possible
//! faults.

use std::time::Duration;

use fastrand::Rng;
use jiff::SignedDuration;
use leaderrun_core::pair::Member;
use leaderrun_core::timing::Timing;

use crate::faults::Fault;
use testkit::simulated_time::{Clock, SECOND, TRUE_RATE, Time};

/// The longest time from the kill instant to the death of the last process, on a machine without delays. It is long
/// enough for an elector that kills in place of a failed supervisor, and for one round of the kill for each generation
/// of the process tree.
pub const KILL_TIME: Duration = Duration::from_millis(150);

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

/// The probabilities of faults that affect individual messages.
#[derive(Clone, Debug, Default)]
pub struct Network {
    pub request_lost: f64,
    pub reply_lost: f64,
    /// The probability that a request arrives twice.
    pub duplicated: f64,
    /// The probability that a message takes up to `longest_delay` longer.
    pub slow: f64,
    /// The probability that the server refuses a request because there are too many requests.
    pub too_many: f64,
    /// The probability that the reply is an error or a conflict although the server may have carried out the request.
    pub server_error: f64,
    pub watch_event_lost: f64,
    /// The probability that an order from the elector to the supervisor is lost.
    pub order_lost: f64,
    /// The probability that a report from the supervisor to the elector is lost.
    pub report_lost: f64,
    /// The longest additional delay of a slow message.
    pub longest_delay: Time,
}

/// One machine and the configuration of leaderrun on it.
#[derive(Clone, Debug)]
pub struct MachinePlan {
    pub clock: Clock,
    pub identity: String,
    pub timing: Timing,
    pub wait: Option<Duration>,
    pub kill_after: Option<Duration>,
    pub max_run: Option<Duration>,
    pub min_hold: Option<Duration>,
    pub lock: LockKind,
    /// `true` if traffic is routed to the command.
    pub routes: bool,
    /// `true` if leaderrun rejoins after a loss (`--on-lost rejoin`).
    pub rejoins: bool,
    /// `true` if the candidate may watch the lock; otherwise it polls.
    pub may_watch: bool,
    /// The longest delay from the expiry of a timer until the supervisor or the elector runs.
    pub delay: Duration,
    /// The time that a kill of the whole command takes.
    pub kill_time: Duration,
}

impl MachinePlan {
    /// Returns how far the stop and the kill must be brought forward.
    pub fn advance(&self) -> Duration {
        self.delay + self.kill_time
    }

    /// Draws the delay and the kill time of this machine. They have their own seed, so the seeds of earlier failures
    /// still give the same schedules on machines without delays.
    fn with_delays(self) -> Self {
        let mut rng = Rng::with_seed(self.clock.initial_boot_time);
        let advance = if rng.f64() < 0.3 { self.timing.max_advance().mul_f64(rng.f64()) } else { Duration::ZERO };
        let delay = advance.mul_f64(rng.f64());
        Self { delay, kill_time: advance - delay, ..self }
    }
}

/// The kind of a candidate's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// The record is in one object.
    One(Member),
    /// The record is in both objects of a pair.
    Pair,
}

impl LockKind {
    /// Returns the object that is read and written first.
    pub fn first(self) -> Member {
        match self {
            Self::One(member) => member,
            Self::Pair => Member::First,
        }
    }

    /// Returns the object that is written last.
    pub fn last(self) -> Member {
        match self {
            Self::One(member) => member,
            Self::Pair => Member::Second,
        }
    }
}

/// The distribution from which the behavior of each command is drawn.
#[derive(Clone, Debug)]
pub struct Commands {
    /// The longest time after which a command ends, if it ends by itself.
    pub max_duration: Time,
    /// The probability that a command does not end by itself.
    pub endless: f64,
    /// The probability that a process ignores SIGTERM.
    pub ignores_term: f64,
    /// The maximum number of forks in the first second of a command. If it is greater than two, four more forks follow
    /// at a random time.
    pub max_forks: usize,
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub machines: Vec<MachinePlan>,
    pub network: Network,
    pub faults: Vec<Fault>,
    /// The mean time between two faults.
    pub mean_fault_interval: Time,
    /// `true` if a client-go candidate competes for the lock.
    pub has_client_go: bool,
    pub commands: Commands,
    /// `true` if some candidates use a pair of objects.
    pub migrating: bool,
    /// `true` if writes to the second object are neither carried out nor replied to.
    pub second_unwritable: bool,
    /// `true` if the wall clocks are correct and do not jump.
    pub accurate_wall_clocks: bool,
    /// The time at which all faults end.
    pub healthy_from: Time,
    /// The time after the end of all faults within which a candidate must lead; `None` if wrong wall clocks may delay
    /// the acquisition.
    pub leader_within: Option<Time>,
    /// The time at which the schedule ends.
    pub ends_at: Time,
}

/// The constraints of a test on its schedules. The seed determines everything that is `None` or `false`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Constraints {
    /// The number of machines.
    pub machines: Option<usize>,
    /// The only faults that are injected.
    pub faults: Option<&'static [Fault]>,
    /// The timing of all candidates, as an index into [`TIMINGS`].
    pub timing: Option<usize>,
    /// The greatest difference between clock rates, as a multiple of the tolerated difference.
    pub clock_rates: Option<f64>,
    /// `true` if no message is lost, duplicated, slow or refused.
    pub reliable_network: bool,
    /// `true` if all candidates have the same identity.
    pub same_identity: bool,
    /// `true` if there is no client-go candidate.
    pub no_client_go: bool,
    /// `true` if all processes of commands ignore SIGTERM.
    pub ignore_sigterm: bool,
    /// `true` if commands run for a long time, and most of them do not end by themselves.
    pub long_commands: bool,
    /// `true` if some candidates use a pair of objects, and the others one object of the pair. There are no outside
    /// edits, and no admission policy shortens lease durations.
    pub migrating: bool,
    /// `true` if the second object cannot be written. The candidate on the first machine then uses only the first
    /// object.
    pub second_unwritable: bool,
    /// `true` if all candidates have `--min-hold`. The wall clocks are then correct.
    pub all_have_min_hold: bool,
}

impl Plan {
    pub fn draw(rng: &mut Rng, constraints: &Constraints) -> Self {
        let accurate_wall_clocks = constraints.all_have_min_hold || rng.f64() < 0.3;
        let migrating = constraints.migrating || (constraints.faults.is_none() && rng.f64() < 0.1);
        let machines = draw_machines(rng, constraints, accurate_wall_clocks, migrating);
        let longest_lease =
            machines.iter().map(|machine| machine.clock.true_time(machine.timing.lease_duration())).max();
        let longest_lease = longest_lease.unwrap_or_default();
        let longest_retry = machines.iter().map(|machine| machine.clock.true_time(machine.timing.retry_period())).max();
        let healthy_from = longest_lease * rng.u64(3..8);
        // This time covers the lease durations of the holder and of a displaced holder, the polls in between, the
        // restarts, and a Retry-After.
        let leader_within = 2 * longest_lease + 6 * longest_retry.unwrap_or_default() + 6 * SECOND;
        let longest_hold =
            machines.iter().filter_map(|machine| machine.min_hold).max().map(|hold| hold.as_nanos() as Time);
        let leader_within = match longest_hold {
            Some(hold) if accurate_wall_clocks => Some(leader_within + hold),
            Some(_) => None,
            None => Some(leader_within),
        };
        let mut faults: Vec<Fault> = match constraints.faults {
            Some(faults) => faults.to_vec(),
            // Schedules with a few kinds of fault reach deeper states than schedules with all of them.
            None => Fault::ALL.into_iter().filter(|_| rng.f64() < 0.35).collect(),
        };
        faults.retain(|fault| *fault != Fault::WallClockJumps || !accurate_wall_clocks);
        faults.retain(|fault| !migrating || !matches!(fault, Fault::Edit(_) | Fault::AdmissionShortens));
        Self {
            network: draw_network(rng, constraints, longest_lease),
            faults,
            mean_fault_interval: longest_lease / rng.u64(1..6),
            has_client_go: rng.f64() < 0.25 && !constraints.no_client_go && !migrating,
            commands: Commands {
                max_duration: if constraints.long_commands { longest_lease * 8 } else { longest_lease * rng.u64(1..4) },
                endless: if constraints.long_commands { 0.8 } else { rng.f64() * 0.8 },
                ignores_term: if constraints.ignore_sigterm { 1.0 } else { rng.f64() },
                max_forks: rng.usize(0..5),
            },
            machines,
            migrating,
            second_unwritable: constraints.second_unwritable,
            accurate_wall_clocks,
            healthy_from,
            leader_within,
            ends_at: healthy_from + leader_within.unwrap_or_default() + longest_lease,
        }
    }
}

fn draw_machines(
    rng: &mut Rng,
    constraints: &Constraints,
    accurate_wall_clocks: bool,
    migrating: bool,
) -> Vec<MachinePlan> {
    let count = constraints.machines.unwrap_or_else(|| rng.usize(2..6));
    let same_timing = rng.f64() < 0.7;
    let common_timing = constraints.timing.unwrap_or_else(|| rng.usize(..TIMINGS.len()));
    let single_object =
        if migrating && rng.bool() && !constraints.second_unwritable { Member::Second } else { Member::First };
    let min_hold = constraints.all_have_min_hold || rng.f64() < 0.3;
    let same_identity = constraints.same_identity || rng.f64() < 0.15;
    let timings: Vec<Timing> = (0..count)
        .map(|_| {
            timing(if same_timing || constraints.timing.is_some() { common_timing } else { rng.usize(..TIMINGS.len()) })
        })
        .collect();
    let tolerated = timings.iter().map(tolerated_rate_ratio).fold(f64::MAX, f64::min);
    let rate_ratio = match constraints.clock_rates {
        Some(multiple) => 1.0 + (tolerated - 1.0) * multiple,
        None => 1.0 + (tolerated - 1.0) * [0.0, rng.f64(), 1.0][rng.usize(..3)],
    };
    timings
        .into_iter()
        .enumerate()
        .map(|(index, timing)| MachinePlan {
            // This value is not random, so the seeds of earlier failures still give the same schedules.
            max_run: (index % 2 == 1).then(|| timing.lease_duration() * 2),
            clock: Clock {
                // No clock is faster than true time, so no clock shortens `KILL_TIME`.
                rate: (TRUE_RATE as f64 / [1.0, 1.0 + (rate_ratio - 1.0) * rng.f64(), rate_ratio][rng.usize(..3)])
                    as u64,
                initial_boot_time: rng.u64(1..1_000_000) * SECOND,
                wall_offset: SignedDuration::from_secs(if accurate_wall_clocks {
                    0
                } else {
                    rng.i64(-100_000..100_000)
                }),
            },
            identity: if same_identity { "same".to_owned() } else { machine_name(index).to_string() },
            wait: match rng.usize(..8) {
                // One candidate must wait long enough to take over from a holder that died.
                _ if index == 0 => None,
                0 => Some(Duration::ZERO),
                1 => Some(timing.lease_duration() / 2),
                _ => None,
            },
            kill_after: (rng.f64() < 0.2).then(|| Duration::from_millis(rng.u64(100..3000))),
            min_hold: min_hold.then(|| timing.lease_duration().mul_f64(3.0 * rng.f64())),
            lock: if migrating && rng.bool() && !(constraints.second_unwritable && index == 0) {
                LockKind::Pair
            } else {
                LockKind::One(single_object)
            },
            routes: rng.bool(),
            rejoins: rng.bool(),
            may_watch: rng.f64() < 0.8,
            delay: Duration::ZERO,
            kill_time: Duration::ZERO,
            timing,
        })
        .map(MachinePlan::with_delays)
        .collect()
}

/// Returns the name of a machine.
pub fn machine_name(index: usize) -> char {
    (b'A' + index as u8) as char
}

fn timing(index: usize) -> Timing {
    let millis = Duration::from_millis;
    let (lease, renew, retry, grace) = TIMINGS[index];
    Timing::new(millis(lease), millis(renew), millis(retry), grace.map(millis))
        .expect("the timings in the table are valid")
}

/// Returns the tolerated ratio of clock rates if a kill takes [`KILL_TIME`].
fn tolerated_rate_ratio(timing: &Timing) -> f64 {
    let dead_by = timing.renew_deadline() + timing.lost_grace() + KILL_TIME;
    timing.lease_duration().as_secs_f64() / dead_by.as_secs_f64()
}

fn draw_network(rng: &mut Rng, constraints: &Constraints, longest_lease: Time) -> Network {
    if constraints.reliable_network {
        return Network::default();
    }
    let mut draw_probability = |max: f64| if rng.bool() { rng.f64() * max } else { 0.0 };
    Network {
        request_lost: draw_probability(0.15),
        reply_lost: draw_probability(0.25),
        duplicated: draw_probability(0.1),
        slow: draw_probability(0.3),
        too_many: draw_probability(0.1),
        server_error: draw_probability(0.15),
        watch_event_lost: draw_probability(0.1),
        order_lost: draw_probability(0.1),
        report_lost: draw_probability(0.1),
        longest_delay: (longest_lease / 100) * rng.u64(5..120),
    }
}
