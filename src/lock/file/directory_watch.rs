//! Watches a record file with inotify. The watch is on its directory, because a watch on the file itself would end when
//! the file is replaced.

use std::ffi::OsString;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent};
use rustix::fs::statfs;

use super::file_error::{self, FileOperation};
use crate::lock::{LockError, LockErrorKind};
use crate::process::readable::Readable;

/// The file systems that may be on a network, by their magic numbers in statfs(2). On such a file system, inotify does
/// not report the changes that other machines make.
const NETWORK_FILE_SYSTEMS: [u64; 7] = [
    0x6969,      // NFS
    0xff53_4d42, // CIFS
    0xfe53_4d42, // SMB2
    0x0102_1997, // 9P
    0x00c3_6400, // Ceph
    0x5346_414f, // AFS
    0x6573_5546, // FUSE
];

/// A watch on a directory for changes to one file.
#[derive(Debug)]
pub struct DirectoryWatch {
    inotify: Readable<Inotify>,
    file_name: OsString,
}

/// An event of a [`DirectoryWatch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectoryEvent {
    /// The file has changed or may have changed. One event stands for all pending changes.
    Changed,
    /// The directory was deleted, moved or unmounted, so this watch reports nothing more.
    Ended,
}

impl DirectoryWatch {
    /// Watches the directory of the file at `path`.
    ///
    /// # Errors
    /// Fails if the directory cannot be watched, or its file system does not report all changes.
    pub fn new(path: &Path) -> Result<Self, LockError> {
        let directory = path.parent().unwrap_or(path);
        let failed = |failure: io::Error| file_error::failed(FileOperation::Watch, directory, &failure);
        // The type has 32 bits, but some platforms sign-extend it.
        let file_system = statfs(directory).map_err(|errno| failed(errno.into()))?.f_type as u64 & 0xffff_ffff;
        if NETWORK_FILE_SYSTEMS.contains(&file_system) {
            let message = format!(
                "cannot watch {}: it may be on a network, where changes by other machines are not reported",
                directory.display()
            );
            return Err(LockError::new(LockErrorKind::Unknown, message));
        }
        let inotify =
            Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).map_err(|errno| failed(errno.into()))?;
        // A file that is linked into the directory causes only IN_CREATE.
        let changes = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE;
        let directory_events = AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF;
        let added = inotify.add_watch(directory, changes | directory_events | AddWatchFlags::IN_ONLYDIR);
        added.map_err(|errno| failed(errno.into()))?;
        let inotify = Readable::new(inotify).map_err(failed)?;
        Ok(Self { inotify, file_name: path.file_name().unwrap_or_default().to_owned() })
    }

    /// Waits for the next event.
    ///
    /// # Errors
    /// Fails if the kernel's events cannot be read.
    pub async fn next(&self) -> io::Result<DirectoryEvent> {
        loop {
            match self.inotify.get().read_events() {
                Ok(events) if events.iter().any(ends_watch) => return Ok(DirectoryEvent::Ended),
                Ok(events) if events.iter().any(|event| self.concerns(event)) => return Ok(DirectoryEvent::Changed),
                Ok(_) => {}
                Err(Errno::EAGAIN) => self.inotify.ready().await?,
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Returns whether an event is about the file. An event without a name means that events were lost, so the file may
    /// have changed.
    fn concerns(&self, event: &InotifyEvent) -> bool {
        event.name.as_ref().is_none_or(|name| *name == self.file_name)
    }
}

fn ends_watch(event: &InotifyEvent) -> bool {
    let ending_events = AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF
        | AddWatchFlags::IN_IGNORED
        | AddWatchFlags::IN_UNMOUNT;
    event.mask.intersects(ending_events)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_file_that_is_linked_into_the_directory_is_reported() {
        let directory = tempfile::tempdir().unwrap();
        let (path, other) = (directory.path().join("lock"), directory.path().join("other"));
        let watch = DirectoryWatch::new(&path).unwrap();
        fs::write(&other, "").unwrap();
        fs::hard_link(&other, &path).unwrap();
        let event = timeout(Duration::from_secs(60), watch.next()).await.expect("the link causes an event");
        assert_eq!(event.unwrap(), DirectoryEvent::Changed);
    }
}
