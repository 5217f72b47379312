//! Leader election, and the supervision of what only the leader may run, as state machines without I/O.
//!
//! This crate is the pure half of [leaderrun](https://crates.io/crates/leaderrun), which runs a command only while it
//! is the leader. Nothing in it can do I/O: it is `no_std`, so it has no clock, no file, no socket and no thread. The
//! program around it hands in the time and what has arrived, and carries out what comes back:
//!
//! | machine | decides | driven by |
//! |---|---|---|
//! | [`election::Election`] | which candidate leads, and until when | whatever talks to the lock |
//! | [`slots::SlotElection`] | the same for several locks, of which a candidate holds one | whatever talks to the locks |
//! | [`elector::Elector`] | what is passed on to the supervisor, and when to take its place | leaderrun's outer process |
//! | [`supervisor::Supervisor`] | when the command is started, stopped and killed | leaderrun's inner process |
//! | [`routing::Route`] | when traffic is routed to the command, and when away from it | whatever changes Services |
//!
//! Each has a method `step(now, inputs)` that returns actions, in order, and a method `next_timeout`. In which order
//! things that came together count is decided in the machine, so production, simulations and model checkers cannot
//! differ in it.
//!
//! To elect a leader in a program of your own, [`election`] is all you need: its documentation states the whole
//! calling contract, and `examples/embedded.rs` in leaderrun's repository is a complete program.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod election;
pub mod elector;
pub mod instant;
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
