//! The outer process: it campaigns for the lease, relays signals, and is the last resort.
//!
//! The main thread is the guard; the election runs on a thread of its own, with the network. The guard
//! never waits for it: it may sit in a credential plugin.

mod campaign;
mod guard;
pub mod rejoin;

use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use tracing::{error, info};
use tracing_subscriber::filter::LevelFilter;

use self::campaign::Race;
use self::guard::Guard;
use self::rejoin::NotRejoined;
use crate::channel::ElectorEnd;
use crate::election::Campaign;
use crate::exit;
use crate::lock::LockName;
use crate::lock::kubernetes::ClusterOptions;
use crate::process::clock::Instant;
use crate::process::pidfd::PidFd;
use crate::process::signals::Inherited;
use crate::process::tree;
use crate::telemetry::log::{self, Format, printable_cause};

/// What the elector has to know from the command line.
#[derive(Debug)]
pub struct Candidacy {
    pub lock: LockName,
    pub cluster: ClusterOptions,
    pub campaign: Campaign,
    pub on_lost: OnLost,
    pub log_format: Format,
    pub log_level: LevelFilter,
}

/// What to do when the leadership was lost and the command is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnLost {
    #[default]
    Exit,
    /// Campaign again.
    Rejoin,
}

impl FromStr for OnLost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "exit" => Ok(Self::Exit),
            "rejoin" => Ok(Self::Rejoin),
            _ => Err("after a loss leaderrun can exit or rejoin; exit would do".into()),
        }
    }
}

/// Runs the elector to the end of the command, and returns leaderrun's exit status.
///
/// # Errors
/// When the kernel refuses what everything depends on. The supervisor ends with this process.
pub fn run(candidacy: Candidacy, channel: ElectorEnd, supervisor: PidFd, inherited: Inherited) -> anyhow::Result<u8> {
    tree::adopt_orphans()?;
    let log = log::start(candidacy.log_format, candidacy.log_level)?;
    log::abort_on_panic();
    let (on_lost, since) = (candidacy.on_lost, Instant::now());
    let status = match guarded(candidacy, channel, supervisor, inherited.clone()) {
        Ok(exit::LOST) if on_lost == OnLost::Rejoin => {
            info!("waiting for the lock again");
            log.finish();
            return match rejoin::rejoin(&inherited, since) {
                Ok(never) => match never {},
                Err(NotRejoined::Signaled(signal)) => Ok(exit::SIGNALED + signal as u8),
                Err(NotRejoined::Failed(failure)) => Err(failure).context("cannot wait for the lock again"),
            };
        }
        Ok(status) => status,
        Err(failure) => {
            error!("{}", printable_cause(&failure));
            exit::FAILED
        }
    };
    log.finish();
    Ok(status)
}

fn guarded(candidacy: Candidacy, channel: ElectorEnd, supervisor: PidFd, inherited: Inherited) -> anyhow::Result<u8> {
    tree::check().map_err(anyhow::Error::msg)?;
    // What a release may take, and a little for a thread that has not noticed yet.
    let longest_release = candidacy.campaign.timing.renew_deadline() / 2 + Duration::from_millis(500);
    let race = Race::start(candidacy.lock, candidacy.cluster, candidacy.campaign)?;
    Guard::new(channel, supervisor, race, inherited, longest_release)?.stand()
}
