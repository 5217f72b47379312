//! Checks whether this machine meets the requirements of a lock file.

use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

use super::FileLock;
use crate::lock::Finding;
use crate::telemetry::log::printable_error;

/// The request timeout. It does not matter, because nothing is written.
const UNUSED_TIMEOUT: Duration = Duration::ZERO;

/// Checks whether a candidate can use the lock file at `path`.
pub fn examine(path: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    match FileLock::new(path, UNUSED_TIMEOUT) {
        Ok(lock) => {
            findings.push(met("record", format!("{} can be read, or does not exist yet", path.display())));
            findings.extend(examine_companion(lock.companion()));
        }
        Err(reason) => findings.push(Finding {
            subject: "record",
            text: format!("{}: {}", path.display(), printable_error(&reason)),
            remedy: Some(
                "choose a file in an existing directory on this machine, for example --lock file:/run/job.lease",
            ),
        }),
    }
    findings.push(examine_directory(path));
    findings
}

fn examine_directory(path: &Path) -> Finding {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let can_write_file = access(path, AccessFlags::R_OK | AccessFlags::W_OK).is_ok();
    let (path, shown) = (path.display(), directory.display());
    match access(directory, AccessFlags::W_OK | AccessFlags::X_OK) {
        Ok(()) => met("directory", format!("{shown} can be written to")),
        Err(_) if can_write_file => met("directory", format!("{shown} cannot be written to, but its file {path} can")),
        Err(errno) => Finding {
            subject: "directory",
            text: format!("{shown} cannot be written to: {}", errno.desc()),
            remedy: Some("let this user write there, or choose another directory"),
        },
    }
}

/// Examines the companion, which is locked while the record is written. It may be missing, because candidates create
/// it.
fn examine_companion(path: &Path) -> Option<Finding> {
    let errno = access(path, AccessFlags::R_OK).err().filter(|errno| *errno != Errno::ENOENT)?;
    Some(Finding {
        subject: "PATH.lock",
        text: format!("{} cannot be opened: {}", path.display(), errno.desc()),
        remedy: Some("let this user read it, or choose another file"),
    })
}

/// Returns the finding that a requirement is met.
fn met(subject: &'static str, text: String) -> Finding {
    Finding { subject, text, remedy: None }
}
