//! A lock whose record is in a local file. It is for processes on one machine, without a cluster.

mod contents;
mod directory_watch;
mod examine;
mod exclusive;
mod file_error;
mod file_id;
#[cfg(test)]
mod fuzz_tests;
mod locking_process;
mod new_file;
mod record_file;

use std::fs::{self, FileType};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt};
use leaderrun_core::election::WatchEvent;
use leaderrun_core::record::{Record, Stored, Version};
use nix::errno::Errno;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use self::contents::Document;
use self::directory_watch::{DirectoryEvent, DirectoryWatch};
use self::file_error::FileOperation;
use self::record_file::RecordFile;
use super::kind::LocalStore;
use super::{Finding, Lock, LockError, LockErrorKind};
use crate::telemetry::log::printable_error;

/// The timeout for opening a lock file, after which its file system is considered unavailable.
pub const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// The flags for opening files in a directory that other users may write to. Symbolic links are not followed, and
/// opening a FIFO does not block.
const SAFE_OPEN_FLAGS: i32 = libc::O_NOFOLLOW | libc::O_NONBLOCK;

/// The locks whose records are in files. The name of such a lock is a path.
pub struct FileStore;

impl LocalStore for FileStore {
    fn check_name(&self, path: &str) -> Result<(), String> {
        match path {
            "" => Err("the path is missing; try file:/run/job.lease".into()),
            _ if path.ends_with('/') => {
                Err("the path ends with /, like that of a directory; try file:/run/job.lease".into())
            }
            _ if path.starts_with("~/") => {
                Err("the shell did not expand ~, because it is not at the beginning of a word; use $HOME instead"
                    .into())
            }
            _ => Ok(()),
        }
    }

    fn open<'a>(&'a self, path: &'a str, request_timeout: Duration) -> BoxFuture<'a, anyhow::Result<Box<dyn Lock>>> {
        async move { Ok(Box::new(open(path, request_timeout).await?) as _) }.boxed()
    }

    /// A candidate locks the record file and its companion while it writes the record. If it is frozen during the
    /// write, it keeps both locked until the kernel kills it, if that is possible: see [`exclusive`].
    fn blocks_while_frozen(&self) -> bool {
        true
    }

    fn examine(&self, path: &str) -> Vec<Finding> {
        examine::examine(Path::new(path))
    }
}

/// Opens a lock file, like [`FileLock::new`]. Also fails if its file system does not respond within [`OPEN_TIMEOUT`].
async fn open(path: &str, request_timeout: Duration) -> anyhow::Result<FileLock> {
    let opened = spawn_blocking({
        let path = path.to_owned();
        move || FileLock::new(Path::new(&path), request_timeout)
    });
    let opened = timeout(OPEN_TIMEOUT, opened)
        .await
        .map_err(|_| anyhow!("timed out opening {path}: its file system does not respond"))?;
    opened?.map_err(|failure| {
        // A `LockError` says what to do where that is known.
        let remedy = if failure.is::<LockError>() { "" } else { "; use a path such as file:/run/job.lease" };
        anyhow!("--lock file:{path}: {}{remedy}", printable_error(&failure))
    })
}

/// Returns a phrase for the type of a file that is neither a regular file nor a symbolic link.
fn kind_of(file_type: FileType) -> &'static str {
    match file_type {
        _ if file_type.is_dir() => "a directory",
        _ if file_type.is_fifo() => "a FIFO",
        _ if file_type.is_socket() => "a socket",
        _ => "a device",
    }
}

/// A lock whose record is in a file.
pub struct FileLock {
    record_file: Arc<RecordFile>,
}

impl FileLock {
    /// Opens the lock in the file at `path`.
    ///
    /// # Errors
    /// Fails if the path does not name a file in an existing directory, or if the file exists but cannot be read or
    /// contains something other than a record.
    pub fn new(path: &Path, request_timeout: Duration) -> anyhow::Result<Self> {
        // Symbolic links in the path of the directory are followed at each access. Otherwise a candidate could remain
        // leader in the old directory after a link was changed.
        let path = std::path::absolute(path).context("the current directory cannot be used")?;
        let (directory, _) = path.parent().zip(path.file_name()).context("the path has no file name")?;
        fs::metadata(directory).map_err(|failure| file_error::failed(FileOperation::Read, &path, &failure))?;
        match fs::symlink_metadata(&path).map(|metadata| metadata.file_type()) {
            Ok(file_type) if file_type.is_symlink() => {
                return Err(file_error::failed(FileOperation::Read, &path, &Errno::ELOOP.into()).into());
            }
            Ok(file_type) if !file_type.is_file() => {
                anyhow::bail!("it is {}, not a regular file", kind_of(file_type))
            }
            _ => {}
        }
        let record_file = RecordFile::new(path, request_timeout);
        record_file.read()?;
        Ok(Self { record_file: Arc::new(record_file) })
    }

    /// Returns the path of the companion, `PATH.lock`, which is also locked while the record is written.
    fn companion(&self) -> &Path {
        self.record_file.companion()
    }

    async fn run<T, F>(&self, request: F) -> Result<T, LockError>
    where
        T: Send + 'static,
        F: FnOnce(&RecordFile) -> Result<T, LockError> + Send + 'static,
    {
        let record_file = Arc::clone(&self.record_file);
        let result = spawn_blocking(move || request(&record_file)).await;
        result.unwrap_or_else(|failure| Err(LockError::new(LockErrorKind::Unknown, failure.to_string())))
    }

    async fn read(&self) -> Result<Option<Stored>, LockError> {
        self.run(|record_file| Ok(record_file.read()?.map(Document::into_stored))).await
    }

    async fn read_as_event(&self) -> Result<WatchEvent, LockError> {
        Ok(self.read().await?.map_or(WatchEvent::Deleted, WatchEvent::Changed))
    }
}

impl Lock for FileLock {
    fn get(&self) -> BoxFuture<'_, Result<Option<Stored>, LockError>> {
        self.read().boxed()
    }

    fn create(&self, record: Record) -> BoxFuture<'_, Result<Stored, LockError>> {
        self.run(|record_file| record_file.write(None, record)).boxed()
    }

    fn update(&self, version: Version, record: Record) -> BoxFuture<'_, Result<Stored, LockError>> {
        self.run(move |record_file| record_file.write(Some(&version), record)).boxed()
    }

    fn waiting_for(&self) -> Option<String> {
        self.record_file.wait_reason()
    }

    fn watch(&self, _from: Option<Version>) -> BoxStream<'_, Result<WatchEvent, LockError>> {
        let path = self.record_file.path();
        let watch = match DirectoryWatch::new(path) {
            Ok(watch) => watch,
            Err(failure) => return stream::iter([Err(failure)]).boxed(),
        };
        // The record is read after the watch was opened, because changes before that are not reported.
        let opening = stream::iter([Ok(WatchEvent::Opened)]).chain(self.read_as_event().into_stream());
        let changes = stream::unfold(watch, async move |watch| {
            let event = match watch.next().await {
                Ok(DirectoryEvent::Changed) => self.read_as_event().await,
                Ok(DirectoryEvent::Ended) => Ok(WatchEvent::Ended),
                Err(failure) => Err(file_error::failed(FileOperation::Watch, path, &failure)),
            };
            Some((event, watch))
        });
        opening.chain(changes).boxed()
    }
}
