//! The identity of a file, independent of its name.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The identity of a file, which is unique among all existing files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// Returns the identity of the file that has this name now.
    ///
    /// # Errors
    /// Fails if there is no such file, or it cannot be looked up.
    pub fn at(path: &Path) -> io::Result<Self> {
        fs::symlink_metadata(path).map(|found| Self::from(&found))
    }

    /// Returns whether this open file was deleted, but is still at this path. This happens if the file, rather than its
    /// directory, is bind-mounted at this path, for example by `docker run --volume /srv/job.lease:/job.lease`, and is
    /// later deleted or replaced in its original directory.
    pub fn is_deleted_but_mounted(file: &File, path: &Path) -> bool {
        let is_at_path = || Self::of(file).ok() == Self::at(path).ok();
        file.metadata().is_ok_and(|found| found.nlink() == 0) && is_at_path()
    }

    /// Returns the identity of an open file.
    ///
    /// # Errors
    /// Fails if the metadata of the file cannot be read.
    pub fn of(file: &File) -> io::Result<Self> {
        file.metadata().map(|found| Self::from(&found))
    }
}

impl From<&Metadata> for FileId {
    fn from(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}
