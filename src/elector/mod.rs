//! The outer process: it campaigns for the lease, relays signals, and is the last resort.
//!
//! The main thread is the guard; the election runs on a thread of its own, with the network. The guard
//! never waits for it: it may sit in a credential plugin.

mod campaign;
mod guard;

use std::time::Duration;

use tracing::error;
use tracing_subscriber::filter::LevelFilter;

use self::campaign::Race;
use self::guard::Guard;
use crate::channel::ElectorEnd;
use crate::election::Campaign;
use crate::exit;
use crate::lock::LockName;
use crate::lock::kubernetes::ClusterOptions;
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
    pub log_format: Format,
    pub log_level: LevelFilter,
}

/// Runs the elector to the end of the command, and returns leaderrun's exit status.
///
/// # Errors
/// When the kernel refuses what everything depends on. The supervisor ends with this process.
pub fn run(candidacy: Candidacy, channel: ElectorEnd, supervisor: PidFd, inherited: Inherited) -> anyhow::Result<u8> {
    tree::adopt_orphans()?;
    let log = log::start(candidacy.log_format, candidacy.log_level)?;
    log::abort_on_panic();
    let status = match guarded(candidacy, channel, supervisor, inherited) {
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
