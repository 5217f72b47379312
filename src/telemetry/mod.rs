//! The telemetry of leaderrun: its log, its health checks and its metrics.
//!
//! The rest of the program never waits for it, except briefly before leaderrun exits or re-executes itself.

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
