//! Interfaces to the operating system for both of leaderrun's processes.

pub mod clock;
pub mod cpu_limit;
pub mod dead_mans_switch;
pub mod deadline;
pub mod environment;
pub mod event_fd;
pub mod fork;
pub mod helper;
pub mod inherited_fd;
pub mod limits;
pub mod memory;
pub mod pidfd;
pub mod priority;
pub mod readable;
pub mod required_system_calls;
pub mod runtime_thread;
pub mod signal_permission;
pub mod signals;
pub mod standard_streams;
pub mod system_call;
pub mod terminal;
pub mod title;
pub mod tree;
