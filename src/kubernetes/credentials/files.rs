//! Reads the files of the configuration, and keeps track of which one is being read, because a read from a dead file
//! system may never end.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use super::PendingWait;

/// The maximum size of a file in bytes. No useful file is that large.
const MAX_SIZE: u64 = 16 * 1024 * 1024;

/// The file that is being read, and when the read began.
static BEING_READ: Mutex<Option<(PathBuf, Instant)>> = Mutex::new(None);

/// Reads a file. During the read, [`pending_read`] returns the file.
///
/// # Errors
/// Fails if the file cannot be read or is larger than 16 MiB.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let set_being_read = |reading| *BEING_READ.lock().expect("no thread panics while it holds this lock") = reading;
    set_being_read(Some((path.to_owned(), Instant::now())));
    let contents = read_to_end(path);
    set_being_read(None);
    contents
}

fn read_to_end(path: &Path) -> io::Result<Vec<u8>> {
    let mut contents = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(fs::File::open(path)?, MAX_SIZE + 1), &mut contents)?;
    if contents.len() as u64 > MAX_SIZE {
        return Err(io::Error::other("it is larger than 16 MiB"));
    }
    Ok(contents)
}

/// Returns the wait for the contents of the file that is being read; `None` if no file is being read.
pub(super) fn pending_read() -> Option<PendingWait> {
    let (path, since) = BEING_READ.lock().expect("no thread panics while it holds this lock").clone()?;
    Some(PendingWait { awaited: format!("the contents of {}", path.display()), since })
}

/// The attributes of a file that show whether it has changed; `None` if they cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp(Option<[i64; 6]>);

/// Returns the current stamps of these files.
pub fn stamps(paths: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |file: Metadata| {
        [file.dev() as i64, file.ino() as i64, file.size() as i64, file.mtime(), file.ctime(), file.ctime_nsec()]
    };
    paths.iter().map(|path| Stamp(fs::metadata(path).ok().map(stamp))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_has_a_different_stamp() {
        let directory = tempfile::tempdir().unwrap();
        let (path, other) = (directory.path().join("token"), directory.path().join("other"));
        let stamp = || stamps(std::slice::from_ref(&path));
        let missing = stamp();
        fs::write(&path, "one").unwrap();
        let first = stamp();
        assert_ne!(first, missing);
        assert_eq!(first, stamp());
        fs::write(&other, "two").unwrap();
        fs::rename(&other, &path).unwrap();
        assert_ne!(first, stamp());
    }
}
