//! The record as JSON in a local file: no cluster needed, for several processes of one machine.
//!
//! Compare-and-swap happens under an advisory lock on a second file beside it, `PATH.lock`, which is
//! never deleted. The record is replaced by a rename, file and folder synced, so that a reader sees one
//! version or the other. Changes are noticed by inotify on the folder.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt};
use leaderrun_core::election::WatchEvent;
use leaderrun_core::record::{Record, Stored, Version};
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use uuid::Uuid;

use super::{Lock, LockError, LockErrorKind};
use crate::process::clock;
use crate::process::readable::Readable;

/// More than any record takes; a file that is longer is none.
const LARGEST_RECORD: u64 = 64 * 1024;

/// Between two tries to get the lock on the lock file.
const LOCK_PAUSE: Duration = Duration::from_millis(1);

/// A link that somebody put in a folder of many leads nowhere, and a FIFO holds nobody up.
const WARY: i32 = libc::O_NOFOLLOW | libc::O_NONBLOCK;

/// A record in a file.
pub struct FileLock {
    record_file: Arc<RecordFile>,
}

#[derive(Debug)]
struct RecordFile {
    path: PathBuf,
    folder: PathBuf,
    lock_file: PathBuf,
    /// How long one request may wait for the lock file.
    attempt: Duration,
}

/// What the file contains.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Contents {
    uid: String,
    /// Counts the writes, from 1.
    version: u64,
    record: Record,
}

impl FileLock {
    /// The record in the file at `path`. `attempt` is how long one request may take.
    ///
    /// # Errors
    /// When the folder cannot be found, or the file is something else than a record.
    pub fn new(path: &Path, attempt: Duration) -> anyhow::Result<Self> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = parent.canonicalize().context("its folder cannot be used")?;
        let name = path.file_name().context("it names no file")?;
        let mut lock_name = OsString::from(name);
        lock_name.push(".lock");
        let (path, lock_file) = (folder.join(name), folder.join(lock_name));
        let record_file = RecordFile { path, folder, lock_file, attempt };
        if fs::symlink_metadata(&record_file.path).is_ok_and(|found| !found.is_file()) {
            anyhow::bail!("it is a link, a folder or a device, not a file of its own");
        }
        record_file.read()?;
        Ok(Self { record_file: Arc::new(record_file) })
    }

    /// The file that is locked while the record is written.
    pub fn lock_file(&self) -> &Path {
        &self.record_file.lock_file
    }

    async fn on<T, F>(&self, request: F) -> Result<T, LockError>
    where
        T: Send + 'static,
        F: FnOnce(&RecordFile) -> Result<T, LockError> + Send + 'static,
    {
        let record_file = Arc::clone(&self.record_file);
        let done = spawn_blocking(move || request(&record_file)).await;
        done.unwrap_or_else(|failure| Err(LockError::new(LockErrorKind::Unknown, failure.to_string())))
    }
}

impl Lock for FileLock {
    fn get(&self) -> BoxFuture<'_, Result<Option<Stored>, LockError>> {
        self.on(|record_file| Ok(record_file.read()?.map(stored))).boxed()
    }

    fn create(&self, record: Record) -> BoxFuture<'_, Result<Stored, LockError>> {
        self.on(|record_file| record_file.replace(None, record)).boxed()
    }

    fn update(&self, version: Version, record: Record) -> BoxFuture<'_, Result<Stored, LockError>> {
        self.on(|record_file| record_file.replace(Some(version), record)).boxed()
    }

    fn watch(&self, _from: Option<Version>) -> BoxStream<'_, Result<WatchEvent, LockError>> {
        let watch = match FolderWatch::new(&self.record_file) {
            Ok(watch) => watch,
            Err(failure) => return stream::iter([Err(refused("watch", &self.record_file.folder, &failure))]).boxed(),
        };
        // Looks once at the beginning, for what changed before the watch began.
        stream::unfold((watch, true), async |(watch, first)| {
            if !first && let Err(failure) = watch.changed().await {
                return Some((Err(refused("watch", &self.record_file.folder, &failure)), (watch, false)));
            }
            let event = self.get().await.map(|stored| stored.map_or(WatchEvent::Deleted, WatchEvent::Changed));
            Some((event, (watch, false)))
        })
        .boxed()
    }
}

impl RecordFile {
    fn read(&self) -> Result<Option<Contents>, LockError> {
        let mut text = Vec::new();
        match OpenOptions::new().read(true).custom_flags(WARY).open(&self.path) {
            Ok(file) if !file.metadata().is_ok_and(|found| found.is_file()) => {
                return Err(self.refusal("it is no file"));
            }
            Ok(file) => {
                let read = file.take(LARGEST_RECORD + 1).read_to_end(&mut text);
                read.map_err(|failure| refused("read", &self.path, &failure))?
            }
            Err(failure) if failure.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(failure) => return Err(refused("read", &self.path, &failure)),
        };
        // An empty file is where somebody made one to name it here, with mktemp for example.
        if text.is_empty() {
            return Ok(None);
        }
        if text.len() as u64 > LARGEST_RECORD {
            return Err(self.refusal("it is too long for a record of leaderrun"));
        }
        let contents = serde_json::from_slice(&text);
        contents.map(Some).map_err(|failure| self.refusal(&format!("it is no record of leaderrun: {failure}")))
    }

    fn replace(&self, expected: Option<Version>, record: Record) -> Result<Stored, LockError> {
        let _exclusive = self.lock()?;
        let present = self.read()?;
        if present.as_ref().map(version) != expected {
            return Err(LockError::new(LockErrorKind::Conflict, "the record has changed"));
        }
        let contents = match present {
            Some(present) => Contents { uid: present.uid, version: present.version.saturating_add(1), record },
            None => Contents { uid: Uuid::new_v4().to_string(), version: 1, record },
        };
        // It may have been renamed before what failed.
        let doubtful = |failure| error(LockErrorKind::Unknown, "write", &self.path, &failure);
        self.write(&contents).map_err(doubtful)?;
        Ok(stored(contents))
    }

    fn write(&self, contents: &Contents) -> io::Result<()> {
        let mut temporary = self.lock_file.clone().into_os_string();
        temporary.push(".new");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).custom_flags(WARY).open(&temporary)?;
        file.write_all(&serde_json::to_vec(contents)?)?;
        file.sync_all()?;
        fs::rename(&temporary, &self.path)?;
        File::open(&self.folder)?.sync_all()
    }

    fn lock(&self) -> Result<File, LockError> {
        let give_up = clock::now() + self.attempt;
        loop {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).custom_flags(WARY);
            let file = options.open(&self.lock_file).map_err(|failure| refused("open", &self.lock_file, &failure))?;
            match file.try_lock() {
                // Unless somebody deleted it meanwhile: then others lock another one.
                Ok(()) if self.is_lock_file(&file) => return Ok(file),
                Ok(()) => {}
                Err(TryLockError::WouldBlock) if clock::now() < give_up => std::thread::sleep(LOCK_PAUSE),
                Err(TryLockError::WouldBlock) => return Err(self.refusal("another process keeps its lock file locked")),
                Err(TryLockError::Error(failure)) => return Err(refused("lock", &self.lock_file, &failure)),
            }
        }
    }

    fn is_lock_file(&self, file: &File) -> bool {
        let record_file = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let (Ok(opened), Ok(there)) = (file.metadata(), fs::metadata(&self.lock_file)) else { return false };
        record_file(opened) == record_file(there)
    }

    fn refusal(&self, reason: &str) -> LockError {
        LockError::new(LockErrorKind::Refused, format!("cannot use {}: {reason}", self.path.display()))
    }
}

fn refused(action: &str, path: &Path, failure: &io::Error) -> LockError {
    error(LockErrorKind::Refused, action, path, failure)
}

fn error(kind: LockErrorKind, action: &str, path: &Path, failure: &io::Error) -> LockError {
    LockError::new(kind, format!("cannot {action} {}: {failure}", path.display()))
}

fn version(contents: &Contents) -> Version {
    Version { uid: contents.uid.clone(), resource_version: contents.version.to_string() }
}

fn stored(contents: Contents) -> Stored {
    Stored { version: version(&contents), record: contents.record }
}

/// inotify on a folder: a file that is replaced by a rename has no descriptor to watch.
struct FolderWatch {
    inotify: Readable<Inotify>,
    file_name: OsString,
}

impl FolderWatch {
    fn new(record_file: &RecordFile) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let gone = AddWatchFlags::IN_MOVED_FROM | AddWatchFlags::IN_DELETE;
        let changes = AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_CLOSE_WRITE | gone;
        inotify.add_watch(&record_file.folder, changes | AddWatchFlags::IN_ONLYDIR)?;
        let file_name = record_file.path.file_name().unwrap_or_default().to_owned();
        Ok(Self { inotify: Readable::new(inotify)?, file_name })
    }

    /// Returns after the file has changed, once for all the changes that were waiting.
    async fn changed(&self) -> io::Result<()> {
        // An event without a name says that events were lost, or the folder itself went.
        let concerns = |name: &Option<OsString>| name.as_ref().is_none_or(|name| *name == self.file_name);
        loop {
            match self.inotify.get().read_events() {
                Ok(events) if events.iter().any(|event| concerns(&event.name)) => return Ok(()),
                Ok(_) => {}
                Err(Errno::EAGAIN) => self.inotify.ready().await?,
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record_file() -> (tempfile::TempDir, RecordFile) {
        let folder = tempfile::tempdir().unwrap();
        let lock = FileLock::new(&folder.path().join("job"), Duration::from_millis(50)).unwrap();
        (folder, Arc::into_inner(lock.record_file).unwrap())
    }

    #[test]
    fn a_write_needs_the_version_that_is_there() {
        let (_folder, record_file) = record_file();
        let first = record_file.replace(None, Record::default()).unwrap();
        assert_eq!(record_file.replace(None, Record::default()).unwrap_err().kind, LockErrorKind::Conflict);
        let second = record_file.replace(Some(first.version.clone()), Record::default()).unwrap();
        assert_eq!(second.version.resource_version, "2");
        assert_eq!(
            record_file.replace(Some(first.version), Record::default()).unwrap_err().kind,
            LockErrorKind::Conflict
        );
    }

    #[test]
    fn a_file_made_anew_is_another_one() {
        let (_folder, record_file) = record_file();
        let before = record_file.replace(None, Record::default()).unwrap();
        fs::remove_file(&record_file.path).unwrap();
        record_file.replace(None, Record::default()).unwrap();
        assert_eq!(
            record_file.replace(Some(before.version), Record::default()).unwrap_err().kind,
            LockErrorKind::Conflict
        );
    }

    #[test]
    fn nobody_writes_while_another_process_has_the_lock_file() {
        let (_folder, record_file) = record_file();
        let exclusive = record_file.lock().unwrap();
        assert_eq!(record_file.replace(None, Record::default()).unwrap_err().kind, LockErrorKind::Refused);
        drop(exclusive);
        record_file.replace(None, Record::default()).unwrap();
    }

    #[test]
    fn links_and_fifos_beside_it_are_not_used() {
        let (folder, record_file) = record_file();
        let (victim, mut temporary) = (folder.path().join("victim"), record_file.lock_file.clone().into_os_string());
        temporary.push(".new");
        let temporary = PathBuf::from(temporary);
        fs::write(&victim, "precious").unwrap();
        for beside in [&temporary, &record_file.lock_file] {
            let _ = fs::remove_file(beside);
            std::os::unix::fs::symlink(&victim, beside).unwrap();
            record_file.replace(None, Record::default()).unwrap_err();
            fs::remove_file(beside).unwrap();
        }
        nix::unistd::mkfifo(&temporary, nix::sys::stat::Mode::S_IRWXU).unwrap();
        record_file.replace(None, Record::default()).unwrap_err();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let (folder, record_file) = record_file();
        record_file.replace(None, Record::default()).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&record_file.path, &link).unwrap();
        for not_a_file in [link.as_path(), folder.path()] {
            assert!(FileLock::new(not_a_file, Duration::from_millis(50)).is_err());
        }
    }
}
