//! The limit of open files.

use std::error::Error;
use std::fmt;

use nix::sys::resource::{Resource, getrlimit};

/// The number of files that leaderrun may have open at once, with a reserve. With a lower limit, libraries panic.
const MIN_OPEN_FILES: u64 = 40;

/// The error of a limit of open files that is too low.
#[derive(Debug)]
pub struct TooFewOpenFiles {
    limit: u64,
}

/// Checks that this process may open enough files.
///
/// # Errors
/// Fails if it may not.
pub fn check_limit() -> Result<(), TooFewOpenFiles> {
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((limit, _)) if limit < MIN_OPEN_FILES => Err(TooFewOpenFiles { limit }),
        _ => Ok(()),
    }
}

impl fmt::Display for TooFewOpenFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the limit of open files is {}, and leaderrun needs {MIN_OPEN_FILES}; raise it, for example with ulimit -n 1024",
            self.limit
        )
    }
}

impl Error for TooFewOpenFiles {}
