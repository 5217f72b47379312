//! The random plan of faults and candidates. For a given kind of lock and number of slots, it depends only on the seed.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::record::LockKind;
use crate::rules;

/// One of leaderrun's two processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaderrunProcess {
    Elector,
    Supervisor,
}

/// The target of a fault.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// `true` if the target is the leader, unless there is none.
    pub prefers_leader: bool,
    /// The index of the [series](crate::torture_run::CandidateSeries) whose current candidate is the target, unless the
    /// target is the leader.
    pub index: usize,
}

/// An edit of the record by another program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit {
    Delete,
    /// Deletes the object and creates it again, empty.
    Recreate,
    ClearHolder,
    /// Clears all fields, including leaderrun's mark.
    ClearAll,
    /// Writes what client-go writes for a release.
    ReleaseLikeClientGo,
    /// Names a holder that does not exist.
    GiveToNobody,
    /// Names a standby as the holder.
    GiveToStandby,
    /// Adds a label to the object.
    Label,
    /// Shortens the lease duration.
    Shorten,
    /// Lengthens the lease duration.
    Lengthen,
    /// Removes only leaderrun's mark.
    RemoveMark,
    /// Sets renewTime to a time long ago.
    Backdate,
    /// Writes invalid contents into the file, for a while. An API server does not accept invalid contents of a Lease.
    Garbage,
}

/// A fault between one candidate and the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkFault {
    Partition,
    PartitionRequests,
    PartitionResponses,
    /// The existing connections stay open, but carry no more data.
    SilenceConnections,
    BreakConnections,
    RefuseConnections,
    /// The responses to this number of writes are lost.
    LoseResponses(usize),
    /// The proxy responds to all requests with this status.
    Respond(u16),
    /// Requests are delayed by this number of milliseconds.
    DelayRequests(u64),
    /// Responses are delayed by this number of milliseconds.
    DelayResponses(u64),
    /// The next two writes are held until the fault ends.
    HoldRequests,
    /// The responses to the next two writes are held until the fault ends.
    HoldResponses,
}

/// A fault that the torture test injects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Kill(LeaderrunProcess),
    Freeze(LeaderrunProcess, Duration),
    /// Both processes of a candidate, preferably the leader, are killed.
    KillBoth,
    /// Both processes of a candidate, preferably the leader, are frozen, and killed after this time.
    FreezeAndKillBoth(Duration),
    Network(NetworkFault, Duration),
    RestartServer,
    /// Another program holds the lock that leaderrun acquires before it writes the lock file.
    HoldLockFile(Duration),
    Edit(Edit),
    /// leaderrun gets a signal.
    Signal(i32),
    /// A process of the command gets a signal.
    SignalCommand(Signal),
    /// The pipes of leaderrun and its command are not read.
    PauseReading(Duration),
}

impl Fault {
    /// Returns the kind of the fault, for the statistics.
    pub fn name(&self) -> String {
        match self {
            Self::Kill(process) => format!("kill the {process:?}").to_lowercase(),
            Self::Freeze(process, _) => format!("freeze the {process:?}").to_lowercase(),
            Self::KillBoth => "kill both processes".into(),
            Self::FreezeAndKillBoth(_) => "freeze both processes, then kill them".into(),
            Self::Network(network, _) => {
                let name = format!("{network:?}");
                format!("network: {}", name.split('(').next().unwrap_or_default())
            }
            Self::RestartServer => "restart the API server".into(),
            Self::HoldLockFile(_) => "hold the lock file".into(),
            Self::Edit(edit) => format!("edit: {edit:?}"),
            Self::Signal(_) => "signal to leaderrun".into(),
            Self::SignalCommand(signal) => format!("{signal:?} to a process of the command"),
            Self::PauseReading(_) => "stderr and stdout unread".into(),
        }
    }
}

/// One fault, and the pause before it.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub pause: Duration,
    /// The index of the record that the fault edits or locks, which is the number of its slot.
    pub record: usize,
    pub target: Target,
    pub fault: Fault,
}

/// Generates random faults and candidates from a seed.
pub struct Plan {
    kind: LockKind,
    /// The number of candidates that run at the same time.
    series_count: usize,
    /// The number of records of the lock. Each slot has one.
    records: usize,
    seed: u64,
    random: fastrand::Rng,
}

impl Plan {
    pub fn new(kind: LockKind, series_count: usize, records: usize, seed: u64) -> Self {
        Self { kind, series_count, records, seed, random: fastrand::Rng::with_seed(seed ^ kind as u64) }
    }

    /// Returns the next fault.
    pub fn step(&mut self) -> Step {
        let random = &mut self.random;
        let pause = Duration::from_millis(random.u64(20..400));
        let mut target = Target { prefers_leader: random.u8(..3) > 0, index: random.usize(..self.series_count) };
        let record = random.usize(..self.records);
        let process = if random.bool() { LeaderrunProcess::Elector } else { LeaderrunProcess::Supervisor };
        // Some faults end before the renew deadline, some after the lease has expired.
        let duration = Duration::from_millis(random.u64(100..6000));
        let fault = match (random.u8(..100), self.kind) {
            (..8, _) => Fault::Kill(process),
            (8..22, _) => Fault::Freeze(process, duration),
            (22..50, LockKind::Lease) => Fault::Network(draw_network_fault(random), duration),
            (22..35, LockKind::File) => Fault::HoldLockFile(duration),
            (50..53, LockKind::Lease) => Fault::RestartServer,
            (35..53, LockKind::File) | (53..70, _) => Fault::Edit(draw_edit(random, self.kind)),
            (70..77, _) => Fault::Signal(draw_signal(random)),
            (77..80, _) => Fault::KillBoth,
            (80..83, _) => Fault::FreezeAndKillBoth(duration.min(rules::LONGEST_FREEZE_OF_BOTH)),
            (83..93, _) => {
                let signals = [Signal::SIGKILL, Signal::SIGKILL, Signal::SIGSTOP, Signal::SIGTERM, Signal::SIGCONT];
                Fault::SignalCommand(signals[random.usize(..signals.len())])
            }
            _ => Fault::PauseReading(duration),
        };
        target.prefers_leader |= matches!(fault, Fault::KillBoth | Fault::FreezeAndKillBoth(_));
        Step { pause, record, target, fault }
    }

    /// Returns the behavior of the `count`th candidate of a series: arguments for its command, options for leaderrun,
    /// and the pause between its end and the start of the next candidate.
    pub fn candidate(&self, index: usize, count: u32) -> (Vec<String>, Vec<&'static str>, Duration) {
        let mut random = fastrand::Rng::with_seed(self.seed ^ (index as u64 + 1) << 32 ^ u64::from(count));
        let stays_in_process_group = random.u8(..100) < 40;
        let mut arguments: Vec<String> = Vec::new();
        for (argument, percent) in [
            ("ignore", 40),
            ("hidden", 35),
            ("ends", 12),
            ("exec", 20),
            ("orphan-safe", 30),
            ("ignore-all", 20),
            ("reaper", 15),
            ("regroup", 15),
            ("descendants", 25),
            ("child", 40),
            ("flood", 20),
            ("closed", 15),
        ] {
            if random.u8(..100) < percent && !(stays_in_process_group && rules::LEAVE_PROCESS_GROUP.contains(&argument))
            {
                arguments.push(argument.into());
            }
        }
        if random.u8(..100) < 60 {
            arguments.push(format!("life={}", random.u64(100..5000)));
        }
        let mut options: Vec<&'static str> = Vec::new();
        for (option, percent) in [
            (&["--kill-after", "400ms"][..], 50),
            (&["--stop-signal", "HUP"], 20),
            (&["--log-format", "json"], 20),
            (&["-v"], 10),
            (&["--lost-grace", "0s"], 10),
        ] {
            if random.u8(..100) < percent {
                options.extend(option);
            }
        }
        (arguments, options, Duration::from_millis(random.u64(0..1500)))
    }
}

fn draw_network_fault(random: &mut fastrand::Rng) -> NetworkFault {
    match random.u8(..14) {
        0 | 1 => NetworkFault::Partition,
        2 => NetworkFault::PartitionRequests,
        3 | 4 => NetworkFault::PartitionResponses,
        5 => NetworkFault::SilenceConnections,
        6 => NetworkFault::BreakConnections,
        7 => NetworkFault::RefuseConnections,
        8 => NetworkFault::LoseResponses(random.usize(1..4)),
        9 | 10 => NetworkFault::Respond([429, 500, 503, 504][random.usize(..4)]),
        11 if random.bool() => NetworkFault::DelayRequests(random.u64(1..900)),
        11 => NetworkFault::DelayResponses(random.u64(1..900)),
        12 => NetworkFault::HoldRequests,
        _ => NetworkFault::HoldResponses,
    }
}

fn draw_edit(random: &mut fastrand::Rng, kind: LockKind) -> Edit {
    const EDITS: [Edit; 13] = [
        Edit::Delete,
        Edit::Recreate,
        Edit::ClearHolder,
        Edit::ClearAll,
        Edit::ReleaseLikeClientGo,
        Edit::GiveToNobody,
        Edit::GiveToStandby,
        Edit::Shorten,
        Edit::Lengthen,
        Edit::RemoveMark,
        Edit::Backdate,
        Edit::Label,
        Edit::Garbage,
    ];
    match EDITS[random.usize(..EDITS.len())] {
        Edit::Garbage if kind == LockKind::Lease => Edit::Delete,
        Edit::Label if kind == LockKind::File => Edit::Garbage,
        edit => edit,
    }
}

fn draw_signal(random: &mut fastrand::Rng) -> i32 {
    let signals = [
        libc::SIGTERM,
        libc::SIGTERM,
        libc::SIGINT,
        libc::SIGHUP,
        libc::SIGQUIT,
        libc::SIGUSR1,
        libc::SIGWINCH,
        libc::SIGTSTP,
        libc::SIGCONT,
        libc::SIGCHLD,
        libc::SIGALRM,
        libc::SIGRTMIN() + 5,
    ];
    signals[random.usize(..signals.len())]
}
