//! The pure half of leaderrun: who leads, and when what the leader runs must be stopped and killed.
//!
//! Nothing in this crate can do I/O: it is `no_std`, so it has no clock, no file, no socket and no thread.
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
pub mod supervisor;
pub mod tenure;
pub mod timing;
pub mod updates;
