//! What both processes need of Unix.

pub mod clock;
pub mod deadline;
pub mod environment;
pub mod fork;
pub mod helper;
pub mod inherited_fd;
pub mod kill;
pub mod memory;
pub mod pidfd;
pub mod readable;
pub mod runtime_thread;
pub mod signals;
pub mod switch;
pub mod terminal;
pub mod title;
pub mod tree;
