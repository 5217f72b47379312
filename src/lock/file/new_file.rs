//! A file that is written next to the record file and then replaces it.

use std::fs::{self, DirEntry, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::SAFE_OPEN_FLAGS;
use super::file_id::FileId;

/// The suffix of the name of a new file. It follows the name of the record file and a random number.
const SUFFIX: &str = ".new";

/// The age above which a new file is considered left behind by a process that was killed.
const LEFT_BEHIND_AGE: Duration = Duration::from_secs(60);

/// A new file with a temporary name.
#[derive(Debug)]
pub struct NewFile {
    path: PathBuf,
    file: File,
    /// Whether the file with the temporary name exists and is no longer needed when this value is dropped.
    deletes_on_drop: bool,
}

impl NewFile {
    /// Writes a new file next to the record file at `path`, and syncs it to the disk. The new file gets the mode of the
    /// file that it will replace, and its owner and group as far as this user may set them.
    ///
    /// # Errors
    /// Fails if the file cannot be created or written.
    pub fn create(path: &Path, bytes: &[u8], replaced: Option<&Metadata>) -> io::Result<Self> {
        let mut new = Self::create_empty(path)?;
        if let Some(replaced) = replaced {
            copy_owner_and_mode(&new.file, replaced)?;
        }
        new.file.write_all(bytes)?;
        new.file.sync_all()?;
        Ok(new)
    }

    fn create_empty(path: &Path) -> io::Result<Self> {
        loop {
            let mut name = path.file_name().unwrap_or_default().to_owned();
            name.push(format!(".{:08x}{SUFFIX}", fastrand::u32(..)));
            let path = path.with_file_name(name);
            match OpenOptions::new().write(true).create_new(true).custom_flags(SAFE_OPEN_FLAGS).open(&path) {
                Ok(file) => return Ok(Self { path, file, deletes_on_drop: true }),
                Err(failure) if failure.kind() == ErrorKind::AlreadyExists => {}
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Gives the new file the name of the record file, if no file has that name yet. Returns false if one does.
    ///
    /// # Errors
    /// Fails if the file system refuses the operation.
    pub fn place(&mut self, path: &Path) -> io::Result<bool> {
        let placed = match renameat_with(CWD, &self.path, CWD, path, RenameFlags::NOREPLACE) {
            Ok(()) => {
                self.deletes_on_drop = false;
                Ok(())
            }
            Err(errno) if is_unsupported(errno) => fs::hard_link(&self.path, path),
            Err(errno) => Err(errno.into()),
        };
        match placed {
            Ok(()) => Ok(true),
            Err(failure) if failure.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// Replaces the record file, if it is still the file `replaced`. Returns false if it is not.
    ///
    /// No system call can rename a file only if it would replace one particular file. So the names of the two files are
    /// swapped: the file that was replaced can then be inspected, and if it is the wrong one, the swap is undone and no
    /// file is lost. On a file system that does not support swapping, a rename replaces whichever file is there, so
    /// only the caller's locks keep another file from being lost.
    ///
    /// # Errors
    /// Fails if the file system refuses the operation.
    pub fn replace(&mut self, path: &Path, replaced: FileId) -> io::Result<bool> {
        let exchange = || renameat_with(CWD, &self.path, CWD, path, RenameFlags::EXCHANGE);
        match exchange() {
            Ok(()) => {
                // The temporary name now belongs to the file that was replaced, so it must not be deleted before that
                // file has been checked.
                self.deletes_on_drop = false;
                if FileId::at(&self.path)? != replaced {
                    exchange()?;
                    self.deletes_on_drop = true;
                    return Ok(false);
                }
                // The replaced file is deleted while it is locked. If the file itself is mounted into a container,
                // leaderrun in that container still sees the old file. The link count of zero tells it that the file
                // was replaced.
                self.deletes_on_drop = fs::remove_file(&self.path).is_err();
                Ok(true)
            }
            Err(Errno::NOENT) => Ok(false),
            Err(errno) if is_unsupported(errno) => {
                fs::rename(&self.path, path)?;
                self.deletes_on_drop = false;
                Ok(true)
            }
            Err(errno) => Err(errno.into()),
        }
    }

    /// Syncs the new name to the disk.
    ///
    /// # Errors
    /// Fails if the disk reports an error.
    pub fn sync_directory(&self) -> io::Result<()> {
        let directory = self.path.parent().unwrap_or(&self.path);
        match File::open(directory) {
            Ok(directory) => directory.sync_all(),
            // The directory may be writable but not readable. Most Linux file systems sync the name with the file.
            Err(_) => self.file.sync_all(),
        }
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if self.deletes_on_drop {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn is_unsupported(errno: Errno) -> bool {
    matches!(errno, Errno::INVAL | Errno::NOSYS | Errno::NOTSUP)
}

fn copy_owner_and_mode(new: &File, replaced: &Metadata) -> io::Result<()> {
    let created = new.metadata()?;
    let (user, group) = (replaced.uid(), replaced.gid());
    if (created.uid(), created.gid()) != (user, group) && fchown(new, Some(user), Some(group)).is_err() {
        let _ = fchown(new, None, Some(group));
    }
    new.set_permissions(Permissions::from_mode(replaced.mode() & 0o777))
}

/// Deletes the new files that were left behind by processes that were killed during a write. Failures are ignored,
/// because later calls try again.
pub fn delete_left_behind(path: &Path) {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return };
    let is_left_behind = |entry: &DirEntry| {
        let has_temporary_name =
            entry.file_name().as_encoded_bytes().strip_prefix(name.as_encoded_bytes()).and_then(|rest| {
                let number = rest.strip_prefix(b".")?.strip_suffix(SUFFIX.as_bytes())?;
                Some(number.len() == 8 && number.iter().all(u8::is_ascii_hexdigit))
            });
        let age = || entry.metadata().ok()?.modified().ok()?.elapsed().ok();
        has_temporary_name == Some(true) && age().is_some_and(|age| age > LEFT_BEHIND_AGE)
    };
    for entry in fs::read_dir(directory).into_iter().flatten().flatten().filter(is_left_behind) {
        let _ = fs::remove_file(entry.path());
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn fixture() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("job");
        (directory, path)
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn only_one_of_two_new_files_is_placed() {
        let (directory, path) = fixture();
        let [mut first, mut second] =
            ["first", "second"].map(|text| NewFile::create(&path, text.as_bytes(), None).unwrap());
        assert!(first.place(&path).unwrap());
        assert!(!second.place(&path).unwrap());
        drop((first, second));
        assert_eq!(
            (fs::read_to_string(&path).unwrap().as_str(), names(directory.path())),
            ("first", vec!["job".into()])
        );
    }

    #[test]
    fn a_file_is_not_replaced_if_another_file_has_taken_its_name() {
        let (directory, path) = fixture();
        fs::write(&path, "expected").unwrap();
        let expected = FileId::at(&path).unwrap();
        let mut new = NewFile::create(&path, b"new", None).unwrap();
        // After the caller has looked at the file and before `replace` is called, the file is moved away and another
        // candidate creates a new one.
        fs::rename(&path, directory.path().join("kept")).unwrap();
        fs::write(&path, "another's").unwrap();
        assert!(!new.replace(&path, expected).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "another's");
        fs::remove_file(&path).unwrap();
        assert!(!new.replace(&path, expected).unwrap(), "a record file that was deleted should not be replaced");
        fs::rename(directory.path().join("kept"), &path).unwrap();
        assert!(new.replace(&path, expected).unwrap());
        drop(new);
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), names(directory.path())), ("new", vec!["job".into()]));
    }

    #[test]
    fn a_new_file_has_the_mode_of_the_file_that_it_replaces() {
        let (_directory, path) = fixture();
        for mode in [0o600, 0o664, 0o666, 0o604] {
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let new = NewFile::create(&path, b"", Some(&fs::metadata(&path).unwrap())).unwrap();
            assert_eq!(new.file.metadata().unwrap().mode() & 0o7777, mode);
        }
    }

    #[test]
    fn only_new_files_that_were_left_behind_are_deleted() {
        let (directory, path) = fixture();
        let old = SystemTime::now() - LEFT_BEHIND_AGE * 2;
        for (name, modified) in [
            ("job", old),
            ("job.lock", old),
            ("job.0123abcd.new", old),
            ("job.0123abce.new", SystemTime::now()),
            ("job.readme.new", old),
            ("other.0123abcd.new", old),
        ] {
            File::create(directory.path().join(name)).unwrap().set_modified(modified).unwrap();
        }
        delete_left_behind(&path);
        let kept = ["job", "job.0123abce.new", "job.lock", "job.readme.new", "other.0123abcd.new"];
        assert_eq!(names(directory.path()), kept);
    }
}
