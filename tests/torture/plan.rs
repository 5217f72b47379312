//! What happens, to whom and how soon: decided by the seed alone.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::place::Kind;

/// How many candidates there are.
pub const SLOTS: usize = 4;

/// One of leaderrun's own two processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Own {
    Elector,
    Supervisor,
}

/// Whom a fault is for.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Whoever leads when it comes, if somebody does.
    pub leader: bool,
    /// Who else.
    pub slot: usize,
}

/// What somebody does to the record with `kubectl edit`, or with an editor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meddling {
    Delete,
    /// Deleted and made anew, empty.
    Replace,
    Empty,
    /// Everything of it, leaderrun's mark too.
    Wipe,
    /// As other implementations release, and not by the holder.
    ReleaseForeign,
    GiveAway,
    GiveToOther,
    Label,
    Shorten,
    Lengthen,
    /// leaderrun's mark alone is removed.
    Unmark,
    Backdate,
    /// The file contains something else for a while; a Lease cannot.
    Garbage,
}

/// What is wrong with the way of one candidate to the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    Partition,
    PartitionRequests,
    PartitionReplies,
    SilenceExisting,
    BreakExisting,
    Refuse,
    LoseReplies(usize),
    Answer(u16),
    DelayRequests(u64),
    DelayReplies(u64),
    HoldRequests,
    HoldReplies,
}

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Kill(Own),
    Freeze(Own, Duration),
    Network(Network, Duration),
    RestartServer,
    /// Somebody keeps the file's lock file locked.
    KeepLock(Duration),
    Meddle(Meddling),
    /// leaderrun is sent a signal.
    Signal(i32),
    /// A process of the command is sent a signal.
    SignalCommand(Signal),
    /// Nobody reads what leaderrun and its command write.
    Clog(Duration),
}

impl Fault {
    /// Its kind, for the tally.
    pub fn name(&self) -> String {
        match self {
            Self::Kill(own) => format!("kill the {own:?}").to_lowercase(),
            Self::Freeze(own, _) => format!("freeze the {own:?}").to_lowercase(),
            Self::Network(network, _) => {
                let name = format!("{network:?}");
                format!("network: {}", name.split('(').next().unwrap_or_default())
            }
            Self::RestartServer => "restart the API server".into(),
            Self::KeepLock(_) => "keep the lock file locked".into(),
            Self::Meddle(deed) => format!("meddle: {deed:?}"),
            Self::Signal(_) => "signal to leaderrun".into(),
            Self::SignalCommand(signal) => format!("{signal:?} to a process of the command"),
            Self::Clog(_) => "stderr and stdout unread".into(),
        }
    }
}

/// One fault and when it comes.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub pause: Duration,
    pub target: Target,
    pub fault: Fault,
}

/// All that is random.
pub struct Plan {
    kind: Kind,
    seed: u64,
    random: fastrand::Rng,
}

impl Plan {
    pub fn new(kind: Kind, seed: u64) -> Self {
        Self { kind, seed, random: fastrand::Rng::with_seed(seed ^ kind as u64) }
    }

    /// The next fault.
    pub fn step(&mut self) -> Step {
        let random = &mut self.random;
        let pause = Duration::from_millis(random.u64(20..400));
        let target = Target { leader: random.u8(..3) > 0, slot: random.usize(..SLOTS) };
        let own = if random.bool() { Own::Elector } else { Own::Supervisor };
        // Some end before the renew deadline, some after the lease.
        let lasts = Duration::from_millis(random.u64(100..6000));
        let fault = match (random.u8(..100), self.kind) {
            (..8, _) => Fault::Kill(own),
            (8..22, _) => Fault::Freeze(own, lasts),
            (22..50, Kind::Lease) => Fault::Network(network(random), lasts),
            (22..35, Kind::File) => Fault::KeepLock(lasts),
            (50..53, Kind::Lease) => Fault::RestartServer,
            (35..53, Kind::File) | (53..70, _) => Fault::Meddle(meddling(random, self.kind)),
            (70..83, _) => Fault::Signal(signal(random)),
            (83..93, _) => {
                let signals = [Signal::SIGKILL, Signal::SIGKILL, Signal::SIGSTOP, Signal::SIGTERM, Signal::SIGCONT];
                Fault::SignalCommand(signals[random.usize(..signals.len())])
            }
            _ => Fault::Clog(lasts),
        };
        Step { pause, target, fault }
    }

    /// How the `count`th candidate of a slot behaves: words for its command, options for leaderrun, and
    /// how long after the one before it comes.
    pub fn candidate(&self, slot: usize, count: u32) -> (Vec<String>, Vec<&'static str>, Duration) {
        let mut random = fastrand::Rng::with_seed(self.seed ^ (slot as u64 + 1) << 32 ^ u64::from(count));
        let mut words: Vec<String> = Vec::new();
        for (word, percent) in [
            ("ignore", 40),
            ("hidden", 35),
            ("ends", 12),
            ("exec", 20),
            ("orphan-safe", 30),
            ("deaf", 20),
            ("reaper", 15),
            ("regroup", 15),
            ("breed", 25),
            ("flood", 20),
            ("closed", 15),
        ] {
            if random.u8(..100) < percent {
                words.push(word.into());
            }
        }
        if random.u8(..100) < 60 {
            words.push(format!("life={}", random.u64(100..5000)));
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
        (words, options, Duration::from_millis(random.u64(0..1500)))
    }
}

fn network(random: &mut fastrand::Rng) -> Network {
    match random.u8(..14) {
        0 | 1 => Network::Partition,
        2 => Network::PartitionRequests,
        3 | 4 => Network::PartitionReplies,
        5 => Network::SilenceExisting,
        6 => Network::BreakExisting,
        7 => Network::Refuse,
        8 => Network::LoseReplies(random.usize(1..4)),
        9 | 10 => Network::Answer([429, 500, 503, 504][random.usize(..4)]),
        11 => match random.bool() {
            true => Network::DelayRequests(random.u64(1..900)),
            false => Network::DelayReplies(random.u64(1..900)),
        },
        12 => Network::HoldRequests,
        _ => Network::HoldReplies,
    }
}

fn meddling(random: &mut fastrand::Rng, kind: Kind) -> Meddling {
    const DEEDS: [Meddling; 13] = [
        Meddling::Delete,
        Meddling::Replace,
        Meddling::Empty,
        Meddling::Wipe,
        Meddling::ReleaseForeign,
        Meddling::GiveAway,
        Meddling::GiveToOther,
        Meddling::Shorten,
        Meddling::Lengthen,
        Meddling::Unmark,
        Meddling::Backdate,
        Meddling::Label,
        Meddling::Garbage,
    ];
    match DEEDS[random.usize(..DEEDS.len())] {
        Meddling::Garbage if kind == Kind::Lease => Meddling::Delete,
        Meddling::Label if kind == Kind::File => Meddling::Garbage,
        deed => deed,
    }
}

fn signal(random: &mut fastrand::Rng) -> i32 {
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
