//! What leaderrun reports of itself: its log, its health and its metrics.
//!
//! Nothing in the rest of the program ever waits for any of it.

mod counters;
mod exposition;
mod freshness;
mod histogram;
pub mod http;
pub mod log;
pub mod log_event;
pub mod log_events;
pub mod metrics;
pub mod monitor;
pub mod observer;
pub mod state;
pub mod systemd;
