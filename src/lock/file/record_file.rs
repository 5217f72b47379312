//! A record file: compare-and-swap with what a file system offers.
//!
//! A write prepares everything first, including the time that the disk takes. Then, with the [`Exclusive`] locks, it
//! looks once more whether the record is the one to be replaced, and replaces it. Whatever somebody deletes or replaces
//! meanwhile, the write is carried out on exactly what it was meant for, or not at all:
//!
//! - A record file is made only where there is none: the name is taken without replacing.
//! - It is replaced by an exchange of names, which tells what it replaced: see [`NewFile::replace`].
//! - Where this user may not replace it, or no disk space is left, it is written in place: see [`contents`]. A file that
//!   was deleted meanwhile is then written to in vain.
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
use super::new_file::{NewFile, delete_left_behind};
use crate::lock::{LockError, LockErrorKind};

/// More than any record takes; a longer file is none.
const LARGEST_RECORD: u64 = 64 * 1024;

/// A file with a record, or the place for one.
#[derive(Debug)]
pub struct RecordFile {
    path: PathBuf,
    /// `PATH.lock`: see [`Exclusive`].
    companion: PathBuf,
    /// How long one request may wait for other processes.
    attempt: Duration,
    /// The highest version that was read or written.
    highest_version: AtomicU64,
    /// Replacing the file was refused and writing to it was not.
    is_written_in_place: AtomicBool,
    has_written: AtomicBool,
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

/// A way to write a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    /// A new file, where there is none.
    Create,
    /// A new file in place of another.
    Replace,
    /// To the file itself.
    InPlace,
}

impl Method {
    /// What this user has to be allowed to do.
    fn access(self) -> Access {
        match self {
            Self::Create | Self::Replace => Access::Create,
            Self::InPlace => Access::Write,
        }
    }
}

/// A write that is prepared as far as it can be without the locks.
#[derive(Debug)]
enum PreparedWrite {
    Create(NewFile),
    Replace(NewFile),
    InPlace { file: File, offset: u64, slot: Vec<u8> },
}

impl PreparedWrite {
    /// Carries the write out. `replaced` is the record file that is locked. False if it is no longer the record file.
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

    /// Waits until what was carried out is on the disk.
    fn sync(&self) -> io::Result<()> {
        match self {
            Self::Create(new) | Self::Replace(new) => new.sync_folder(),
            Self::InPlace { file, .. } => file.sync_data(),
        }
    }
}

impl RecordFile {
    /// The record file at an absolute path. `attempt` is how long one request may take.
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
        }
    }

    /// Returns the path of the record file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path of the file that is locked beside it.
    pub fn companion(&self) -> &Path {
        &self.companion
    }

    /// Reads the record.
    ///
    /// # Errors
    /// When the file cannot be read, or is no record.
    pub fn read(&self) -> Result<Option<Contents>, LockError> {
        Ok(self.find()?.and_then(|found| found.layout.contents))
    }

    /// Writes a record in place of the one that has the version `expected`, or where there is none.
    ///
    /// # Errors
    /// [`LockErrorKind::Conflict`] when something else is there.
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
                    // The mode of a file can be helped, where that is all that is in the way.
                    let by_mode = otherwise == Method::InPlace && refusal.kind() == ErrorKind::PermissionDenied;
                    return Err(if by_mode { refused(otherwise, &second) } else { refused(first, &refusal) });
                }
                self.is_written_in_place.store(otherwise == Method::InPlace, Ordering::Relaxed);
            }
        }
        self.highest_version.fetch_max(next.version, Ordering::Relaxed);
        if self.has_written.swap(true, Ordering::Relaxed) {
            // Not at the first write: a command waits for that.
            delete_left_behind(&self.path);
        }
        Ok(next.into_stored())
    }

    /// Whether a record file had better not be replaced.
    fn prefers_in_place(&self, found: &Found) -> bool {
        // Replaced, it would lose its other names. An empty one may be any file that somebody has linked here.
        let has_other_names = found.metadata.nlink() > 1 && found.layout.contents.is_some();
        // The new file could not be given to that group.
        let group_would_lose_it = Class::of_this_user(&found.metadata) == Class::Others
            && Class::Group.permissions(&found.metadata) & !Class::Others.permissions(&found.metadata) != 0;
        has_other_names || group_would_lose_it || self.is_written_in_place.load(Ordering::Relaxed)
    }

    fn find(&self) -> Result<Option<Found>, LockError> {
        let Some(file) = open(&self.path)? else { return Ok(None) };
        // Two writes in place may have met the first look.
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
        let not_a_record = |reason| access::unusable(&self.path, &format!("it is no record of leaderrun: {reason}"));
        Layout::parse(&bytes).map_err(not_a_record)
    }

    /// Versions are fencing tokens, and a record file may be deleted and made anew. A new one begins where the wall
    /// clock is, in microseconds: above what an earlier file had reached, since nobody writes a million times a second,
    /// unless the clock was set back to before that one was made.
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

    /// Writes a record by one method. The inner result is a refusal of the file system for which another method may
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
                // What is in the other slot may be all that a power failure leaves.
                file.sync_data()?;
                Ok(PreparedWrite::InPlace { file, offset, slot })
            }
        }
    }

    /// The part of a write during which nobody else may write.
    fn commit(&self, prepared: &mut PreparedWrite, expected: Option<&Version>) -> Result<io::Result<bool>, LockError> {
        let exclusive = Exclusive::acquire(&self.path, &self.companion, self.attempt)?;
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

/// Opens the file at a path for reading, if there is one.
///
/// # Errors
/// When it cannot be read, or is no regular file.
pub fn open(path: &Path) -> Result<Option<File>, LockError> {
    match OpenOptions::new().read(true).custom_flags(SAFE_OPEN_FLAGS).open(path) {
        Ok(file) if file.metadata().is_ok_and(|found| found.is_file()) => Ok(Some(file)),
        Ok(_) => Err(access::unusable(path, "it is no file")),
        Err(failure) if failure.kind() == ErrorKind::NotFound && has_folder(path) => Ok(None),
        Err(failure) => Err(access::failed(Access::Read, path, &failure)),
    }
}

/// Opens the file at a path for writing, too. It is never made by that.
///
/// # Errors
/// When it is not there, or may not be written.
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

/// Whether a failure certainly changed nothing, and may not meet another [`Method`].
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
