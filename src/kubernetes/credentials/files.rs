//! Files that say how the API server is reached. One on a dead file system may never be read to its end.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use super::Activity;

/// More than any of these files has.
const MAX_SIZE: u64 = 16 * 1024 * 1024;

static BEING_READ: Mutex<Option<(PathBuf, Instant)>> = Mutex::new(None);

/// Reads a file, and lets [`being_read`] tell meanwhile which one it is.
///
/// # Errors
/// When it cannot be read.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let note = |reading| *BEING_READ.lock().expect("nothing panics while it is held") = reading;
    note(Some((path.to_owned(), Instant::now())));
    let contents = read_to_end(path);
    note(None);
    contents
}

fn read_to_end(path: &Path) -> io::Result<Vec<u8>> {
    let mut contents = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(fs::File::open(path)?, MAX_SIZE), &mut contents)?;
    Ok(contents)
}

/// Returns the file that is being read at present.
pub(super) fn being_read() -> Option<Activity> {
    let (path, since) = BEING_READ.lock().expect("nothing panics while it is held").clone()?;
    Some(Activity { description: format!("the contents of {}", path.display()), since })
}

/// What tells whether a file has changed; none where there is no such file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp(Option<[i64; 6]>);

/// Returns the stamps of these files as they are now.
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
    fn a_file_that_changes_has_another_stamp() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("token"), folder.path().join("other"));
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
