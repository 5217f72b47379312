//! The options for the lock and for its election.

use std::time::Duration;

use clap::{ArgAction, Args};

use super::{LOCK, values};
use crate::elector::OnLost;
use crate::exit::NOT_ACQUIRED;
use crate::lock::{LockName, OwnerName, SlotCount};

/// The options that name the lock.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = LOCK)]
pub struct LockArguments {
    /// The lock: a Lease as [NAMESPACE/]NAME, a local file as file:PATH, or another kind as KIND:[NAMESPACE/]NAME
    #[arg(long, env = "LEADERRUN_LOCK", value_name = "LOCK", value_parser = values::lock)]
    pub lock: LockName,

    /// The namespace of the lock if --lock does not contain one [default: that of the kubeconfig's context or of the pod]
    #[arg(short, long, env = "LEADERRUN_NAMESPACE", value_name = "NAMESPACE", value_parser = values::namespace)]
    pub namespace: Option<String>,
}

/// The option for the number of slots of the lock.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = LOCK)]
pub struct SlotArguments {
    /// Let this many candidates (2 to 64) lead at once, each in its own slot. Slot K, counted from 0, is the lock NAME-K; the command gets K in LEADERRUN_SLOT [default: one leader, and no slots]
    #[arg(long, env = "LEADERRUN_SLOTS", value_name = "COUNT", value_parser = values::slots)]
    pub slots: Option<SlotCount>,
}

/// The option for the owner of the lock's objects.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = LOCK)]
pub struct OwnerArguments {
    /// Have Kubernetes delete the lock's objects together with their owner: KIND/NAME, for example deployment/my-job, or auto for the controller of this pod, such as its Deployment [default: the objects stay]
    #[arg(long, env = "LEADERRUN_OWNER", value_name = "OWNER", value_parser = values::owner)]
    pub owner: Option<OwnerName>,
}

/// The options for when a candidate acquires the lock, and for what it does after a loss.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = LOCK)]
pub struct ElectionArguments {
    /// The name under which this candidate holds the lock [default: the pod or host name, then _ and a UUID]
    #[arg(long, env = "LEADERRUN_IDENTITY", value_name = "NAME", value_parser = values::identity)]
    pub identity: Option<String>,

    /// Give up with status 75 when the lock is not acquired within this time, or with 69 when it cannot be used; 0s gives up as soon as a renewal shows that the holder is alive [default: wait without a limit]
    #[arg(long, allow_hyphen_values = true, env = "LEADERRUN_WAIT", value_name = "DURATION", value_parser = values::duration)]
    pub wait: Option<Duration>,

    /// The exit status if the lock was not acquired within --wait because another candidate holds it or the command is not due, as in flock(1)
    #[arg(short = 'E', long, env = "LEADERRUN_CONFLICT_EXIT_CODE", value_name = "STATUS", default_value_t = NOT_ACQUIRED, value_parser = values::exit_status)]
    pub conflict_exit_code: u8,

    /// Let no candidate run the command again until this long after the lock was acquired, if the command has ended with status 0
    #[arg(long, env = "LEADERRUN_MIN_HOLD", value_name = "DURATION", value_parser = values::duration)]
    pub min_hold: Option<Duration>,

    /// Run the command even if it is not due yet, for a manual run: ignore the --min-hold of the last holder
    #[arg(long, env = "LEADERRUN_IGNORE_MIN_HOLD", action = ArgAction::SetTrue, value_parser = values::switch, conflicts_with = "every")]
    pub ignore_min_hold: bool,

    /// Leave a free lock to other candidates for this long, so that those with a shorter delay lead first
    #[arg(long, env = "LEADERRUN_CLAIM_DELAY", value_name = "DURATION", default_value = "0s", value_parser = values::duration)]
    pub claim_delay: Duration,

    /// Ask a leader with a longer --claim-delay to step down once this candidate has been its standby for this long, at least 1s; each leader is asked once [default: never]
    #[arg(long, env = "LEADERRUN_PREEMPT", value_name = "DURATION", value_parser = values::period)]
    pub preempt: Option<Duration>,

    /// Run the command repeatedly, once per interval on one of the candidates. The interval begins when the lock is acquired. After status 0 leaderrun waits for the next run; after any other status it exits with that status
    #[arg(long, env = "LEADERRUN_EVERY", value_name = "DURATION", value_parser = values::period, conflicts_with_all = ["min_hold", "wait"])]
    pub every: Option<Duration>,

    /// What to do after leadership was lost and the command is dead: exit, or rejoin to wait for the lock again
    #[arg(long, env = "LEADERRUN_ON_LOST", value_name = "ACTION", default_value = "exit", hide_possible_values = true)]
    pub on_lost: OnLost,
}
