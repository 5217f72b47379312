//! Checks the limits of this process that must be high enough for leaderrun to work.

use std::error::Error;
use std::fmt;

use nix::sys::resource::{Resource, getrlimit};

/// The lowest acceptable limit on open files: as many as leaderrun opens, plus some headroom. With a lower limit,
/// libraries that leaderrun uses would panic.
const MIN_OPEN_FILES: u64 = 40;

/// The lowest acceptable limit on the stack, in kilobytes: what parsing the command line needs, plus some headroom.
/// With a lower limit, leaderrun would crash.
const MIN_STACK: u64 = 512;

/// The error for a limit that is too low.
#[derive(Debug)]
pub struct LimitTooLow {
    /// The name of the limit, such as `limit on open files`.
    name: &'static str,
    limit: u64,
    needed: u64,
    /// The commands and settings that raise the limit.
    remedy: &'static str,
}

/// Checks that this process may open enough files.
///
/// # Errors
/// Fails if the limit is too low.
pub fn check_open_files() -> Result<(), LimitTooLow> {
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((limit, _)) if limit < MIN_OPEN_FILES => Err(LimitTooLow {
            name: "limit on open files",
            limit,
            needed: MIN_OPEN_FILES,
            remedy: "ulimit -n 1024, or LimitNOFILE=1024 in a unit",
        }),
        _ => Ok(()),
    }
}

/// Checks that this process may use enough stack.
///
/// # Errors
/// Fails if the limit is too low.
pub fn check_stack() -> Result<(), LimitTooLow> {
    match getrlimit(Resource::RLIMIT_STACK) {
        Ok((limit, _)) if limit / 1024 < MIN_STACK => Err(LimitTooLow {
            name: "stack limit in kilobytes",
            limit: limit / 1024,
            needed: MIN_STACK,
            remedy: "ulimit -s 8192, or LimitSTACK=8M in a unit",
        }),
        _ => Ok(()),
    }
}

impl fmt::Display for LimitTooLow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, limit, needed, remedy } = self;
        write!(f, "the {name} is {limit}, but leaderrun needs {needed}; raise it, for example with {remedy}")
    }
}

impl Error for LimitTooLow {}
