//! What leaderrun tells the outside.

pub mod exposition;
pub mod http;
pub mod log;
pub mod log_event;
pub mod metrics;
pub mod state;
