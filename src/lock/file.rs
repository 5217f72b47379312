//! The record as JSON in a local file: no cluster needed, for several processes of one machine.
//!
//! Compare-and-swap happens under an advisory lock on a second file beside it, `PATH.lock`, which is
//! never deleted. The record is replaced by a rename, file and folder synced, so that a reader sees one
//! version or the other. Changes are noticed by inotify on the folder.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt};
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use uuid::Uuid;

use super::{Lock, LockError, LockErrorKind};
use crate::election::WatchEvent;
use crate::election::record::{Record, Stored, Version};
use crate::process::clock::Instant;
use crate::process::readable::Readable;

/// More than any record takes; a file that is longer is none.
const LARGEST_RECORD: u64 = 64 * 1024;

/// Between two tries to get the lock on the lock file.
const LOCK_PAUSE: Duration = Duration::from_millis(1);

/// A record in a file.
pub struct FileLock {
    place: Arc<Place>,
}

#[derive(Debug)]
struct Place {
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
        let place = Place { path, folder, lock_file, attempt };
        place.read()?;
        Ok(Self { place: Arc::new(place) })
    }

    async fn on<T, F>(&self, request: F) -> Result<T, LockError>
    where
        T: Send + 'static,
        F: FnOnce(&Place) -> Result<T, LockError> + Send + 'static,
    {
        let place = Arc::clone(&self.place);
        let done = spawn_blocking(move || request(&place)).await;
        done.unwrap_or_else(|failure| Err(LockError::new(LockErrorKind::Unknown, failure.to_string())))
    }
}

impl Lock for FileLock {
    fn get(&self) -> BoxFuture<'_, Result<Option<Stored>, LockError>> {
        self.on(|place| Ok(place.read()?.map(stored))).boxed()
    }

    fn create(&self, record: Record) -> BoxFuture<'_, Result<Stored, LockError>> {
        self.on(|place| place.replace(None, record)).boxed()
    }

    fn update(&self, version: Version, record: Record) -> BoxFuture<'_, Result<Stored, LockError>> {
        self.on(|place| place.replace(Some(version), record)).boxed()
    }

    fn watch(&self, _from: Option<Version>) -> BoxStream<'_, Result<WatchEvent, LockError>> {
        let watch = match FolderWatch::new(&self.place) {
            Ok(watch) => watch,
            Err(failure) => return stream::iter([Err(self.place.error("watch", &failure))]).boxed(),
        };
        // Looks once at the beginning, for what changed before the watch began.
        stream::unfold((watch, true), async |(watch, first)| {
            if !first && let Err(failure) = watch.changed().await {
                return Some((Err(self.place.error("watch", &failure)), (watch, false)));
            }
            let event = self.get().await.map(|stored| stored.map_or(WatchEvent::Deleted, WatchEvent::Changed));
            Some((event, (watch, false)))
        })
        .boxed()
    }
}

impl Place {
    fn read(&self) -> Result<Option<Contents>, LockError> {
        let mut text = Vec::new();
        match File::open(&self.path) {
            Ok(file) => {
                file.take(LARGEST_RECORD + 1).read_to_end(&mut text).map_err(|failure| self.error("read", &failure))?
            }
            Err(failure) if failure.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(failure) => return Err(self.error("read", &failure)),
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
        self.write(&contents).map_err(|failure| self.error("write", &failure))?;
        Ok(stored(contents))
    }

    fn write(&self, contents: &Contents) -> io::Result<()> {
        let mut temporary = self.lock_file.clone().into_os_string();
        temporary.push(".new");
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(contents)?)?;
        file.sync_all()?;
        fs::rename(&temporary, &self.path)?;
        File::open(&self.folder)?.sync_all()
    }

    fn lock(&self) -> Result<File, LockError> {
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&self.lock_file);
        let file = open.map_err(|failure| self.error("lock", &failure))?;
        let give_up = Instant::now() + self.attempt;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if Instant::now() < give_up => std::thread::sleep(LOCK_PAUSE),
                Err(TryLockError::WouldBlock) => return Err(self.refusal("another process keeps its lock file locked")),
                Err(TryLockError::Error(failure)) => return Err(self.error("lock", &failure)),
            }
        }
    }

    fn error(&self, verb: &str, failure: &io::Error) -> LockError {
        let kind = match verb {
            "write" => LockErrorKind::Unknown,
            _ => LockErrorKind::Refused,
        };
        LockError::new(kind, format!("cannot {verb} {}: {failure}", self.path.display()))
    }

    fn refusal(&self, reason: &str) -> LockError {
        LockError::new(LockErrorKind::Refused, format!("cannot use {}: {reason}", self.path.display()))
    }
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
    fn new(place: &Place) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let gone = AddWatchFlags::IN_MOVED_FROM | AddWatchFlags::IN_DELETE;
        let changes = AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_CLOSE_WRITE | gone;
        inotify.add_watch(&place.folder, changes | AddWatchFlags::IN_ONLYDIR)?;
        let file_name = place.path.file_name().unwrap_or_default().to_owned();
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
