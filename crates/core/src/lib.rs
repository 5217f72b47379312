//! Leader election, and the supervision of the command that only the leader runs, as state machines without I/O.
//!
//! This crate contains the decisions of [leaderrun](https://crates.io/crates/leaderrun), which runs a command only
//! while it is the leader. The crate is `no_std`, so it cannot do I/O: it has no clock, files, sockets or
//! threads. Your program passes the time and all inputs to a state machine, and carries out the actions that the state
//! machine returns. The state machines decide:
//!
//! - [`election::Election`]: which candidate leads, and until when.
//! - [`slots::SlotElection`]: which of several locks a candidate holds, and until when. It contains one election for
//!   each lock. leaderrun's election thread drives it, even if there is only one lock.
//! - [`elector::Elector`]: which orders are sent to the supervisor, and when the supervisor and the command are killed.
//!   leaderrun's outer process drives it.
//! - [`supervisor::Supervisor`]: when the command is started, stopped and killed. leaderrun's inner process drives it.
//! - [`routing::Route`]: when traffic is routed to the command, and when it is routed away. leaderrun's routing worker
//!   drives it.
//!
//! Each state machine has a method `step(now, inputs)`, which returns actions in order, and a method `next_timeout`.
//! The state machine itself decides in which order simultaneous inputs are processed, so the order is the same in
//! production, in simulations and in model checkers.
//!
//! The most important decisions are made here:
//!
//! - Which instant a renewal counts from (T0, just before it is sent): `Election::write` in `election/decide.rs`. The
//!   instant comes from the function `now` in leaderrun's `elector/election_loop.rs`, which reads the clock.
//! - When an expired record may be taken over: `ObservedRecord::acquirable_at` in `election/observed_record.rs`.
//! - How the claims of many candidates are spread: `ClaimHistory` in `election/contention.rs`.
//! - When a command that succeeded may run again (`--min-hold`): `not_before` and `earliest_acquisition` in
//!   `election/min_hold.rs`.
//! - The stop and kill instants of a renewal: [`tenure::Tenure::of_renewal`].
//! - How far these instants are brought forward: `DeadlineAdvance` in `supervisor/deadline_advance.rs`, with the
//!   estimates of [`lateness`] and [`kill_time`].
//! - When the command is stopped and killed: `Supervisor::step` and `handle_timeout` in `supervisor.rs`, and
//!   `supervisor/ending.rs`.
//!
//! To elect a leader in your own program you only need [`election`]. Its documentation explains how to call it, and
//! `examples/embedded.rs` in leaderrun's repository is a complete program.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod election;
pub mod elector;
pub mod instant;
pub mod kill_time;
pub mod lateness;
pub mod messages;
pub mod pair;
pub mod record;
pub mod routing;
pub mod signal;
pub mod slots;
pub mod supervisor;
pub mod tenure;
pub mod timing;
pub mod updates;
