//! What leaderrun tells the outside.

pub mod log;
