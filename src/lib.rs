//! leaderrun runs a command only while it is the leader.
//!
//! > Among leaderrun candidates, at no instant are two commands of one lock alive, as long as clocks
//! > *run* within the tolerated rate of each other; clocks may *read* anything.
//!
//! Two nested processes keep that promise. The [`elector`] campaigns for the lease, the
//! [`supervisor`] owns the command; whichever of them dies or freezes, the other one still ends the
//! command in time. Who may run and until when is decided by [`leaderrun_core::election`], a state machine
//! without clock, socket or task; when the command must be stopped and killed by [`leaderrun_core::supervisor`],
//! and when the supervisor must be by [`leaderrun_core::elector`], two others.
//!
//! What else it does with a lock is in [`subcommands`].
//!
//! Traffic follows the leader by [`routing`]; [`events`] tells the cluster who leads.
//!
//! Imports run one way: `cli`, `elector`, `supervisor` and `subcommands`, then `routing` and `events`, then `lock`,
//! then `kubernetes` and `channel`, then `process` and `telemetry`, and all of them import `leaderrun_core`.

pub mod channel;
pub mod cli;
pub mod elector;
pub mod events;
pub mod exit;
pub mod kubernetes;
pub mod lock;
pub mod process;
pub mod routing;
pub mod subcommands;
pub mod supervisor;
pub mod telemetry;
