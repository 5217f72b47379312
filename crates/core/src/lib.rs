//! Leader election, and the supervision of the command that only the leader runs, as state machines without I/O.
//!
//! This crate is the pure half of [leaderrun](https://crates.io/crates/leaderrun), which runs a command only while it
//! is the leader. It is `no_std`, so it cannot do I/O: it has no clock, no file, no socket and no thread. The
//! program around it passes in the time and what has arrived, and carries out the actions that are returned:
//!
//! | machine | decides | driven by |
//! |---|---|---|
//! | [`election::Election`] | which candidate leads, and until when | the client of one lock |
//! | [`slots::SlotElection`] | which of several locks a candidate holds, and until when | the client of these locks |
//! | [`elector::Elector`] | which orders the supervisor gets, and when it is killed with the command | leaderrun's outer process |
//! | [`supervisor::Supervisor`] | when the command is started, stopped and killed | leaderrun's inner process |
//! | [`routing::Route`] | when traffic is routed to the command, and when away from it | the client that updates pods and Services |
//!
//! Each has a method `step(now, inputs)` that returns actions, in order, and a method `next_timeout`. The machine
//! decides in which order simultaneous inputs are processed, so production, simulations and model checkers process
//! them in the same order.
//!
//! The decisions that the safety of a command depends on:
//!
//! | decision | where |
//! |---|---|
//! | the instant just before a renewal is sent (T0) | `Election::write` in `election/decide.rs`; leaderrun reads the clock in `now`, in its `elector/election_loop.rs` |
//! | when an expired record may be taken over | `ObservedRecord::takeable_at` in `election/observed_record.rs` |
//! | how the claims of many candidates are spread | `ClaimHistory` in `election/contention.rs` |
//! | how long a command that succeeded is not run again (`--min-hold`) | `not_before` and `earliest_acquisition` in `election/min_hold.rs` |
//! | the stop and kill instants of a renewal | [`tenure::Tenure::of_renewal`] |
//! | by how much these instants are brought forward | `DeadlineAdvance` in `supervisor/deadline_advance.rs`, from [`lateness`] and [`kill_time`] |
//! | when the command is stopped and killed | `Supervisor::handle_timeout` in `supervisor.rs`, and `supervisor/ending.rs` |
//!
//! To elect a leader in your own program you only need [`election`]: its documentation states the whole calling
//! contract, and `examples/embedded.rs` in leaderrun's repository is a complete program.
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
