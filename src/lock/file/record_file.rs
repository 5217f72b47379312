//! A record file, with compare-and-swap implemented by file system operations.
//!
//! A write is first prepared, for example by writing and syncing a new file. Then, while the [`Exclusive`] locks are
//! held, the version of the current record is compared again and the record is replaced. Even if other programs delete
//! or replace files at the same time, the write replaces the expected record or nothing:
//!
//! - A record file is only created if none exists: the rename fails if there is a file with that name.
//! - A record file is replaced by exchanging the names of two files, which reveals the file that was replaced. If the
//!   file system does not support this, only the locks keep another file from being lost: see [`NewFile::replace`].
//! - If replacing the file is refused (for example because no disk space is left), or if it would break the file's hard
//!   links or take access away from its group, the file is written in place: see [`contents`]. A write to a file that
//!   was deleted in the meantime has no effect.
//!
//! [`contents`]: super::contents

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use leaderrun_core::record::{Record, Stored, Version};
use nix::errno::Errno;
use uuid::Uuid;

use super::SAFE_OPEN_FLAGS;
use super::contents::{Document, ParsedFile};
use super::exclusive::Exclusive;
use super::file_error::{self, Class, FileOperation};
use super::file_id::FileId;
use super::locking_process::WaitReason;
use super::new_file::{NewFile, delete_left_behind};
use crate::lock::{LockError, LockErrorKind};

/// The maximum size of a record file in bytes. A larger file is not a record.
const MAX_SIZE: u64 = 64 * 1024;

/// The file that contains a record. It may not exist yet.
#[derive(Debug)]
pub struct RecordFile {
    path: PathBuf,
    /// `PATH.lock`: see [`Exclusive`].
    companion: PathBuf,
    /// The timeout of one request, which limits how long a write waits for other processes.
    request_timeout: Duration,
    /// The highest version that was read or written.
    highest_version: AtomicU64,
    /// Whether the next write is first tried in place, because replacing the file was refused.
    is_written_in_place: AtomicBool,
    /// Whether this candidate has written a record.
    has_written: AtomicBool,
    wait_reason: WaitReason,
}

/// A record file that was opened and read.
#[derive(Debug)]
struct Found {
    metadata: Metadata,
    parsed: ParsedFile,
}

impl Found {
    fn version(&self) -> Option<Version> {
        self.parsed.current.as_ref().map(Document::version)
    }
}

/// The method by which a record is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    /// Create a new file.
    Create,
    /// Replace the file with a new one.
    Replace,
    /// Write to the existing file.
    InPlace,
}

impl Method {
    /// Returns the operation on the file or its directory that the method requires.
    fn operation(self) -> FileOperation {
        match self {
            Self::Create => FileOperation::Create,
            Self::Replace => FileOperation::Replace,
            Self::InPlace => FileOperation::Write,
        }
    }
}

/// A write that is prepared as far as possible without the locks.
#[derive(Debug)]
enum PreparedWrite {
    Create(NewFile),
    Replace(NewFile),
    InPlace { file: File, offset: u64, slot: Vec<u8> },
}

impl PreparedWrite {
    /// Carries out the write. `replaced` is the locked record file, if there was one. Returns false if that file is no
    /// longer at the path, or if there was none but now there is.
    fn carry_out(&mut self, path: &Path, replaced: Option<FileId>) -> io::Result<bool> {
        match (self, replaced) {
            (Self::Create(new), None) => new.place(path),
            (Self::Replace(new), Some(replaced)) => new.replace(path, replaced),
            (Self::InPlace { file, offset, slot }, Some(replaced)) => {
                if FileId::of(file)? != replaced {
                    return Ok(false);
                }
                file.write_all_at(slot, *offset)?;
                Ok(FileId::at(path).is_ok_and(|current| current == replaced))
            }
            _ => Ok(false),
        }
    }

    /// Syncs the write to the disk.
    fn sync(&self) -> io::Result<()> {
        match self {
            Self::Create(new) | Self::Replace(new) => new.sync_directory(),
            Self::InPlace { file, .. } => file.sync_data(),
        }
    }
}

impl RecordFile {
    /// Creates a `RecordFile` for an absolute path, without accessing the file.
    pub fn new(path: PathBuf, request_timeout: Duration) -> Self {
        let mut companion = path.clone().into_os_string();
        companion.push(".lock");
        Self {
            path,
            companion: companion.into(),
            request_timeout,
            highest_version: AtomicU64::new(0),
            is_written_in_place: AtomicBool::new(false),
            has_written: AtomicBool::new(false),
            wait_reason: WaitReason::default(),
        }
    }

    /// Returns the path of the record file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path of the companion, `PATH.lock`.
    pub fn companion(&self) -> &Path {
        &self.companion
    }

    /// Returns what a write is waiting for, if it has been waiting for an unusually long time.
    pub fn wait_reason(&self) -> Option<String> {
        self.wait_reason.get()
    }

    /// Reads the record.
    ///
    /// # Errors
    /// Fails if the file cannot be read or is not a record.
    pub fn read(&self) -> Result<Option<Document>, LockError> {
        Ok(self.find()?.and_then(|found| found.parsed.current))
    }

    /// Replaces the record if it has the version `expected`, or creates a record if `expected` is `None`.
    ///
    /// # Errors
    /// Fails with [`LockErrorKind::Conflict`] if the current version differs from `expected`, with
    /// [`LockErrorKind::Unknown`] if the record may have been written, and with another kind if it was not.
    pub fn write(&self, expected: Option<&Version>, record: Record) -> Result<Stored, LockError> {
        let found = self.find()?;
        if found.as_ref().and_then(Found::version).as_ref() != expected {
            return Err(conflict());
        }
        let next = self.next_document(found.as_ref(), record)?;
        let (first, fallback) = match &found {
            None => (Method::Create, None),
            Some(found) if self.prefers_in_place(found) => (Method::InPlace, Some(Method::Replace)),
            Some(_) => (Method::Replace, Some(Method::InPlace)),
        };
        match self.write_by(first, found.as_ref(), &next, expected)? {
            Ok(()) => {}
            Err(refusal) => {
                let refused = |method: Method, failure| file_error::failed(method.operation(), &self.path, failure);
                let Some(fallback) = fallback else { return Err(refused(first, &refusal)) };
                if let Err(second_refusal) = self.write_by(fallback, found.as_ref(), &next, expected)? {
                    // If this user may not create files in the directory, the error is about the record file, because
                    // permission to write that file is enough.
                    let needs_only_file = fallback == Method::InPlace && refusal.kind() == ErrorKind::PermissionDenied;
                    return Err(if needs_only_file {
                        refused(fallback, &second_refusal)
                    } else {
                        refused(first, &refusal)
                    });
                }
                self.is_written_in_place.store(fallback == Method::InPlace, Ordering::Relaxed);
            }
        }
        self.highest_version.fetch_max(next.version, Ordering::Relaxed);
        if self.has_written.swap(true, Ordering::Relaxed) {
            // This is not done on the first write, because the start of the command waits for that write.
            delete_left_behind(&self.path);
        }
        Ok(next.into_stored())
    }

    /// Returns whether a record file should be written in place rather than replaced.
    fn prefers_in_place(&self, found: &Found) -> bool {
        // A replacement would separate the file from its other names (hard links). An empty file is replaced even if it
        // has other names, because another user may have created the link with bad intent.
        let has_other_names = found.metadata.nlink() > 1 && found.parsed.current.is_some();
        // This user cannot give a new file to the group that may use the current file.
        let group_would_lose_access = Class::of_current_user(&found.metadata) == Class::Others
            && Class::Group.permissions(&found.metadata) & !Class::Others.permissions(&found.metadata) != 0;
        has_other_names || group_would_lose_access || self.is_written_in_place.load(Ordering::Relaxed)
    }

    /// Opens and reads the file, if it exists.
    fn find(&self) -> Result<Option<Found>, LockError> {
        let Some(file) = open(&self.path)? else { return Ok(None) };
        self.check_not_deleted(&file)?;
        // A read that coincides with two writes in place may find no valid record, so it is repeated once.
        let parsed = self.parse(&file).or_else(|_| self.parse(&file))?;
        let version = parsed.current.as_ref().map_or(0, |document| document.version);
        self.highest_version.fetch_max(version, Ordering::Relaxed);
        let metadata =
            file.metadata().map_err(|failure| file_error::failed(FileOperation::Read, &self.path, &failure))?;
        Ok(Some(Found { metadata, parsed }))
    }

    /// Checks that this is not a mounted file that was replaced or deleted outside of this container. The record in
    /// such a file is outdated, and other candidates do not see what is written to it.
    fn check_not_deleted(&self, file: &File) -> Result<(), LockError> {
        if !FileId::is_deleted_but_mounted(file, &self.path) {
            return Ok(());
        }
        Err(LockError::new(
            LockErrorKind::Forbidden,
            format!(
                "cannot use {}: the file itself is mounted there, and was replaced or deleted outside of this container; mount its directory instead",
                self.path.display()
            ),
        ))
    }

    /// Reads and parses an open file.
    fn parse(&self, file: &File) -> Result<ParsedFile, LockError> {
        let bytes =
            read_from_start(file).map_err(|failure| file_error::failed(FileOperation::Read, &self.path, &failure))?;
        if bytes.len() as u64 > MAX_SIZE {
            return Err(file_error::unusable(&self.path, "it is too large to be a leaderrun record"));
        }
        let not_a_record =
            |reason| file_error::unusable(&self.path, &format!("it is not a leaderrun record: {reason}"));
        ParsedFile::parse(&bytes).map_err(not_a_record)
    }

    /// Returns the document of the next write. Versions are fencing tokens, so the versions of a recreated file must be
    /// greater than those of the deleted file. Therefore the first version of a file is the wall clock in microseconds,
    /// or one more than the highest version that this candidate has seen, whichever is greater. The clock advances
    /// faster than versions do, so it is ahead of the deleted file's versions unless it was set back to before that
    /// file was created.
    fn next_document(&self, found: Option<&Found>, record: Record) -> Result<Document, LockError> {
        match found.and_then(|found| found.parsed.current.as_ref()) {
            Some(Document { uid, version, .. }) => {
                let version = version.checked_add(1);
                let version = version
                    .ok_or_else(|| file_error::unusable(&self.path, "its version is the largest possible number"))?;
                Ok(Document { uid: uid.clone(), version, record })
            }
            None => {
                let clock = u64::try_from(Timestamp::now().as_microsecond()).unwrap_or_default();
                let above_all_seen = self.highest_version.load(Ordering::Relaxed).saturating_add(1);
                Ok(Document { uid: Uuid::new_v4().to_string(), version: clock.max(above_all_seen), record })
            }
        }
    }

    /// Writes a record by one method. The inner error is a refusal by the file system, after which another method may
    /// succeed.
    fn write_by(
        &self,
        method: Method,
        found: Option<&Found>,
        next: &Document,
        expected: Option<&Version>,
    ) -> Result<io::Result<()>, LockError> {
        let unknown = |failure| file_error::unknown(FileOperation::Write, &self.path, &failure);
        let mut prepared = match self.prepare(method, found, next) {
            Ok(prepared) => prepared,
            Err(failure) if is_refusal(&failure) => return Ok(Err(failure)),
            Err(failure) => return Err(file_error::failed(method.operation(), &self.path, &failure)),
        };
        match self.commit(&mut prepared, expected)? {
            Ok(true) => {}
            Ok(false) => return Err(conflict()),
            Err(failure) if is_refusal(&failure) => return Ok(Err(failure)),
            Err(failure) => return Err(unknown(failure)),
        }
        prepared.sync().map(Ok).map_err(unknown)
    }

    /// Prepares a write by one method.
    fn prepare(&self, method: Method, found: Option<&Found>, next: &Document) -> io::Result<PreparedWrite> {
        let new_file = || NewFile::create(&self.path, &next.to_bytes(), found.map(|found| &found.metadata));
        match method {
            Method::Create => Ok(PreparedWrite::Create(new_file()?)),
            Method::Replace => Ok(PreparedWrite::Replace(new_file()?)),
            Method::InPlace => {
                let file = open_for_writing(&self.path)?;
                let offset = found.and_then(|found| found.parsed.free_slot);
                let (offset, slot) = offset.zip(next.to_slot()).ok_or(ErrorKind::FileTooLarge)?;
                // After a power failure during the write, only the other slot is valid, so it must be on the disk
                // before the write begins.
                file.sync_data()?;
                Ok(PreparedWrite::InPlace { file, offset, slot })
            }
        }
    }

    /// Carries out a prepared write under the locks, if the record still has the expected version. The inner result is
    /// that of [`PreparedWrite::carry_out`].
    fn commit(&self, prepared: &mut PreparedWrite, expected: Option<&Version>) -> Result<io::Result<bool>, LockError> {
        let exclusive = Exclusive::acquire(&self.path, &self.companion, self.request_timeout, &self.wait_reason)?;
        let mut replaced = None;
        if let Some(file) = exclusive.record_file() {
            self.check_not_deleted(file)?;
            if self.parse(file)?.current.as_ref().map(Document::version).as_ref() != expected {
                return Err(conflict());
            }
            replaced = FileId::of(file).ok();
        }
        let written = prepared.carry_out(&self.path, replaced);
        exclusive.release();
        Ok(written)
    }
}

/// Opens the file at a path for reading, if it exists.
///
/// # Errors
/// Fails if the directory does not exist, or if the file cannot be read or is not a regular file.
pub fn open(path: &Path) -> Result<Option<File>, LockError> {
    match OpenOptions::new().read(true).custom_flags(SAFE_OPEN_FLAGS).open(path) {
        Ok(file) if file.metadata().is_ok_and(|found| found.is_file()) => Ok(Some(file)),
        Ok(_) => Err(file_error::unusable(path, "it is not a regular file")),
        Err(failure) if failure.kind() == ErrorKind::NotFound && has_directory(path) => Ok(None),
        Err(failure) => Err(file_error::failed(FileOperation::Read, path, &failure)),
    }
}

/// Opens the existing file at a path for reading and writing.
///
/// # Errors
/// Fails if it does not exist or cannot be written.
pub fn open_for_writing(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(SAFE_OPEN_FLAGS).open(path)
}

fn has_directory(path: &Path) -> bool {
    path.parent().is_some_and(Path::is_dir)
}

fn read_from_start(mut file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.take(MAX_SIZE + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Returns whether a failed write is known to have left the record unchanged, so that another [`Method`] may be tried.
fn is_refusal(failure: &io::Error) -> bool {
    let is_too_large_or_long = matches!(failure.kind(), ErrorKind::FileTooLarge | ErrorKind::InvalidFilename);
    let refusing_errnos = [
        Errno::EACCES,
        Errno::EPERM,
        Errno::EROFS,
        Errno::ENOSPC,
        Errno::EDQUOT,
        // The file itself is mounted at its path, so it cannot be replaced there.
        Errno::EBUSY,
        // Some network and user-space file systems cannot change the mode of a new file.
        Errno::ENOSYS,
        Errno::EOPNOTSUPP,
    ];
    is_too_large_or_long
        || failure.raw_os_error().is_some_and(|errno| refusing_errnos.contains(&Errno::from_raw(errno)))
}

fn conflict() -> LockError {
    LockError::new(LockErrorKind::Conflict, "the record has changed")
}

#[cfg(test)]
mod tests;
