//! A record file, with compare-and-swap by file system operations.
//!
//! A write is prepared first, including all disk writes. Then, under the [`Exclusive`] locks, the record is compared
//! again and replaced. Even if other programs delete or replace files meanwhile, the write replaces the expected record
//! or nothing:
//!
//! - A record file is only created if there is none: the rename does not replace a file.
//! - It is replaced by an exchange of names, which shows the file that was replaced: see [`NewFile::replace`].
//! - If this user may not replace it, or no disk space is left, it is written in place: see [`contents`]. A write to a
//!   file that was deleted meanwhile has no effect.
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
use super::access::{self, Access, Class};
use super::contents::{Contents, Layout};
use super::exclusive::Exclusive;
use super::file_id::FileId;
use super::lock_holder::Awaited;
use super::new_file::{NewFile, delete_left_behind};
use crate::lock::{LockError, LockErrorKind};

/// The largest size of a record file. A larger file is not a record.
const LARGEST_RECORD: u64 = 64 * 1024;

/// A file that contains a record, or will be created with one.
#[derive(Debug)]
pub struct RecordFile {
    path: PathBuf,
    /// `PATH.lock`: see [`Exclusive`].
    companion: PathBuf,
    /// How long one request may wait for other processes.
    attempt: Duration,
    /// The highest version that was read or written.
    highest_version: AtomicU64,
    /// The last write replaced no file: replacing was refused, but writing in place succeeded.
    is_written_in_place: AtomicBool,
    has_written: AtomicBool,
    awaited: Awaited,
}

/// A record file that was opened and read.
#[derive(Debug)]
struct Found {
    metadata: Metadata,
    layout: Layout,
}

impl Found {
    fn version(&self) -> Option<Version> {
        self.layout.contents.as_ref().map(Contents::version)
    }
}

/// The method by which a record is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    /// Create a new file.
    Create,
    /// Replace the file by a new one.
    Replace,
    /// Write to the existing file.
    InPlace,
}

impl Method {
    /// Returns the permission that the method requires.
    fn access(self) -> Access {
        match self {
            Self::Create | Self::Replace => Access::Create,
            Self::InPlace => Access::Write,
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
    /// Carries out the write. `replaced` is the locked record file. Returns false if it is no longer the record file.
    fn carry_out(&mut self, path: &Path, replaced: Option<FileId>) -> io::Result<bool> {
        match (self, replaced) {
            (Self::Create(new), None) => new.place(path),
            (Self::Replace(new), Some(replaced)) => new.replace(path, replaced),
            (Self::InPlace { file, offset, slot }, Some(replaced)) => {
                if FileId::of(file)? != replaced {
                    return Ok(false);
                }
                file.write_all_at(slot, *offset)?;
                Ok(FileId::at(path).is_ok_and(|present| present == replaced))
            }
            _ => Ok(false),
        }
    }

    /// Syncs the write to the disk.
    fn sync(&self) -> io::Result<()> {
        match self {
            Self::Create(new) | Self::Replace(new) => new.sync_folder(),
            Self::InPlace { file, .. } => file.sync_data(),
        }
    }
}

impl RecordFile {
    /// Creates a record file at an absolute path. `attempt` is the timeout of one request.
    pub fn new(path: PathBuf, attempt: Duration) -> Self {
        let mut companion = path.clone().into_os_string();
        companion.push(".lock");
        Self {
            path,
            companion: companion.into(),
            attempt,
            highest_version: AtomicU64::new(0),
            is_written_in_place: AtomicBool::new(false),
            has_written: AtomicBool::new(false),
            awaited: Awaited::default(),
        }
    }

    /// Returns the path of the record file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path of the lock file beside it.
    pub fn companion(&self) -> &Path {
        &self.companion
    }

    /// Returns what a write waits for, if that takes long at present.
    pub fn awaited(&self) -> Option<String> {
        self.awaited.get()
    }

    /// Reads the record.
    ///
    /// # Errors
    /// Fails if the file cannot be read or is not a record.
    pub fn read(&self) -> Result<Option<Contents>, LockError> {
        Ok(self.find()?.and_then(|found| found.layout.contents))
    }

    /// Writes a record that replaces the one with the version `expected`, or creates it if `expected` is `None`.
    ///
    /// # Errors
    /// Fails with [`LockErrorKind::Conflict`] if the present version is another one.
    pub fn write(&self, expected: Option<&Version>, record: Record) -> Result<Stored, LockError> {
        let found = self.find()?;
        if found.as_ref().and_then(Found::version).as_ref() != expected {
            return Err(conflict());
        }
        let next = self.next_contents(found.as_ref(), record)?;
        let (first, otherwise) = match &found {
            None => (Method::Create, None),
            Some(found) if self.prefers_in_place(found) => (Method::InPlace, Some(Method::Replace)),
            Some(_) => (Method::Replace, Some(Method::InPlace)),
        };
        match self.write_by(first, found.as_ref(), &next, expected)? {
            Ok(()) => {}
            Err(refusal) => {
                let refused = |method: Method, failure| access::failed(method.access(), &self.path, failure);
                let Some(otherwise) = otherwise else { return Err(refused(first, &refusal)) };
                if let Err(second) = self.write_by(otherwise, found.as_ref(), &next, expected)? {
                    // If only the file's mode prevents the write, its error is shown, because chmod can change that.
                    let by_mode = otherwise == Method::InPlace && refusal.kind() == ErrorKind::PermissionDenied;
                    return Err(if by_mode { refused(otherwise, &second) } else { refused(first, &refusal) });
                }
                self.is_written_in_place.store(otherwise == Method::InPlace, Ordering::Relaxed);
            }
        }
        self.highest_version.fetch_max(next.version, Ordering::Relaxed);
        if self.has_written.swap(true, Ordering::Relaxed) {
            // This is not done at the first write, because a command waits for that.
            delete_left_behind(&self.path);
        }
        Ok(next.into_stored())
    }

    /// Returns whether a record file should not be replaced.
    fn prefers_in_place(&self, found: &Found) -> bool {
        // A replacement would lose its other names. An empty file with other names may be linked here maliciously.
        let has_other_names = found.metadata.nlink() > 1 && found.layout.contents.is_some();
        // This user could not give the new file to the group.
        let group_would_lose_it = Class::of_this_user(&found.metadata) == Class::Others
            && Class::Group.permissions(&found.metadata) & !Class::Others.permissions(&found.metadata) != 0;
        has_other_names || group_would_lose_it || self.is_written_in_place.load(Ordering::Relaxed)
    }

    fn find(&self) -> Result<Option<Found>, LockError> {
        let Some(file) = open(&self.path)? else { return Ok(None) };
        // The first read may have coincided with two writes in place.
        let layout = self.layout_of(&file).or_else(|_| self.layout_of(&file))?;
        let version = layout.contents.as_ref().map_or(0, |contents| contents.version);
        self.highest_version.fetch_max(version, Ordering::Relaxed);
        let metadata = file.metadata().map_err(|failure| access::failed(Access::Read, &self.path, &failure))?;
        Ok(Some(Found { metadata, layout }))
    }

    fn layout_of(&self, file: &File) -> Result<Layout, LockError> {
        let bytes = read_from_start(file).map_err(|failure| access::failed(Access::Read, &self.path, &failure))?;
        if bytes.len() as u64 > LARGEST_RECORD {
            return Err(access::unusable(&self.path, "it is too long for a record of leaderrun"));
        }
        let not_a_record = |reason| access::unusable(&self.path, &format!("it is not a record of leaderrun: {reason}"));
        Layout::parse(&bytes).map_err(not_a_record)
    }

    /// Returns the contents of the next write. Versions are fencing tokens, so those of a recreated file must be
    /// greater than those of earlier files. They begin at the wall clock in microseconds, which exceeds any number of
    /// writes since an earlier file was created, unless the clock was set back to before that.
    fn next_contents(&self, found: Option<&Found>, record: Record) -> Result<Contents, LockError> {
        match found.and_then(|found| found.layout.contents.as_ref()) {
            Some(Contents { uid, version, .. }) => {
                let version = version.checked_add(1);
                let version = version.ok_or_else(|| access::unusable(&self.path, "its version cannot grow"))?;
                Ok(Contents { uid: uid.clone(), version, record })
            }
            None => {
                let clock = u64::try_from(Timestamp::now().as_microsecond()).unwrap_or_default();
                let above_all_seen = self.highest_version.load(Ordering::Relaxed).saturating_add(1);
                Ok(Contents { uid: Uuid::new_v4().to_string(), version: clock.max(above_all_seen), record })
            }
        }
    }

    /// Writes a record by one method. The inner error is a refusal by the file system, after which another method may
    /// be tried.
    fn write_by(
        &self,
        method: Method,
        found: Option<&Found>,
        next: &Contents,
        expected: Option<&Version>,
    ) -> Result<io::Result<()>, LockError> {
        let unknown = |failure| access::unknown(Access::Write, &self.path, &failure);
        let mut prepared = match self.prepare(method, found, next) {
            Ok(prepared) => prepared,
            Err(failure) if is_refusal(&failure) => return Ok(Err(failure)),
            Err(failure) => return Err(access::failed(method.access(), &self.path, &failure)),
        };
        match self.commit(&mut prepared, expected)? {
            Ok(true) => {}
            Ok(false) => return Err(conflict()),
            Err(failure) if is_refusal(&failure) => return Ok(Err(failure)),
            Err(failure) => return Err(unknown(failure)),
        }
        prepared.sync().map(Ok).map_err(unknown)
    }

    fn prepare(&self, method: Method, found: Option<&Found>, next: &Contents) -> io::Result<PreparedWrite> {
        let new_file = || NewFile::create(&self.path, &next.to_document(), found.map(|found| &found.metadata));
        match method {
            Method::Create => Ok(PreparedWrite::Create(new_file()?)),
            Method::Replace => Ok(PreparedWrite::Replace(new_file()?)),
            Method::InPlace => {
                let file = open_for_writing(&self.path)?;
                let offset = found.and_then(|found| found.layout.free_slot);
                let (offset, slot) = offset.zip(next.to_slot()).ok_or(ErrorKind::FileTooLarge)?;
                // After a power failure the other slot may be the only valid one, so it must be on the disk.
                file.sync_data()?;
                Ok(PreparedWrite::InPlace { file, offset, slot })
            }
        }
    }

    /// Carries out a prepared write under the locks, if the record still has the expected version.
    fn commit(&self, prepared: &mut PreparedWrite, expected: Option<&Version>) -> Result<io::Result<bool>, LockError> {
        let exclusive = Exclusive::acquire(&self.path, &self.companion, self.attempt, &self.awaited)?;
        let mut replaced = None;
        if let Some(file) = exclusive.record_file() {
            if self.layout_of(file)?.contents.as_ref().map(Contents::version).as_ref() != expected {
                return Err(conflict());
            }
            replaced = FileId::of(file).ok();
        }
        let done = prepared.carry_out(&self.path, replaced);
        exclusive.release();
        Ok(done)
    }
}

/// Opens the file at a path for reading, if it exists.
///
/// # Errors
/// Fails if it cannot be read or is not a regular file.
pub fn open(path: &Path) -> Result<Option<File>, LockError> {
    match OpenOptions::new().read(true).custom_flags(SAFE_OPEN_FLAGS).open(path) {
        Ok(file) if file.metadata().is_ok_and(|found| found.is_file()) => Ok(Some(file)),
        Ok(_) => Err(access::unusable(path, "it is not a regular file")),
        Err(failure) if failure.kind() == ErrorKind::NotFound && has_folder(path) => Ok(None),
        Err(failure) => Err(access::failed(Access::Read, path, &failure)),
    }
}

/// Opens the existing file at a path for reading and writing.
///
/// # Errors
/// Fails if it does not exist or cannot be written.
pub fn open_for_writing(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(SAFE_OPEN_FLAGS).open(path)
}

fn has_folder(path: &Path) -> bool {
    path.parent().is_some_and(Path::is_dir)
}

fn read_from_start(mut file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.take(LARGEST_RECORD + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Returns whether a failure certainly changed nothing and may not occur with another [`Method`].
fn is_refusal(failure: &io::Error) -> bool {
    let is_special = matches!(failure.kind(), ErrorKind::FileTooLarge | ErrorKind::InvalidFilename);
    let refuses = [Errno::EACCES, Errno::EPERM, Errno::EROFS, Errno::ENOSPC, Errno::EDQUOT];
    is_special || failure.raw_os_error().is_some_and(|errno| refuses.contains(&Errno::from_raw(errno)))
}

fn conflict() -> LockError {
    LockError::new(LockErrorKind::Conflict, "the record has changed")
}

#[cfg(test)]
mod tests;
