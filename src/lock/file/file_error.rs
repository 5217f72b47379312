//! Error messages for files that cannot be used: why, and what the user can do.

use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{getegid, geteuid, getgroups};

use crate::lock::{LockError, LockErrorKind};
use crate::telemetry::log::shell_word;

/// An operation on a file or its directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileOperation {
    Read,
    Write,
    /// Create the file, which requires write permission for its directory.
    Create,
    /// Replace the file with a new one, which also requires write permission for its directory.
    Replace,
    Lock,
    /// Watch the directory for changes.
    Watch,
}

impl FileOperation {
    fn verb(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Create => "create",
            Self::Replace => "replace",
            Self::Lock => "lock",
            Self::Watch => "watch",
        }
    }

    /// Returns whether the directory must grant the permission for this operation, rather than the file.
    fn changes_directory(self) -> bool {
        matches!(self, Self::Create | Self::Replace)
    }

    /// Returns the permission that the mode of the file or of its directory must grant.
    fn permission(self) -> Permission {
        match self {
            Self::Read | Self::Lock | Self::Watch => Permission::Read,
            Self::Write | Self::Create | Self::Replace => Permission::Write,
        }
    }
}

/// Returns the error for a failed system call that is known to have changed nothing.
pub fn failed(operation: FileOperation, path: &Path, failure: &io::Error) -> LockError {
    let errno = failure.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    let kind = match errno {
        Errno::EACCES | Errno::EPERM | Errno::EROFS => LockErrorKind::Forbidden,
        Errno::ENOENT | Errno::ENOTDIR | Errno::EISDIR | Errno::ELOOP | Errno::ENAMETOOLONG => LockErrorKind::Forbidden,
        _ => LockErrorKind::Refused,
    };
    let directory = path.parent().unwrap_or(path);
    let reason = match errno {
        Errno::EACCES | Errno::EPERM => not_permitted(operation, path, directory),
        Errno::ELOOP if fs::metadata(directory).is_err() => {
            format!("the path of its directory {} has too many symbolic links, or a loop of them", directory.display())
        }
        Errno::ELOOP => "it is a symbolic link; try the path that it points to".to_owned(),
        Errno::ENOENT if fs::metadata(directory).is_err() => {
            format!("its directory {} does not exist; try mkdir -p {}", directory.display(), shell_word(&directory.to_string_lossy()))
        }
        Errno::ENOTDIR => match path.ancestors().skip(1).find(|parent| fs::metadata(parent).is_ok()) {
            Some(file) => format!("{} is a file, not a directory; try a path in a directory", file.display()),
            None => errno.desc().to_owned(),
        },
        Errno::ENAMETOOLONG => {
            "its name is too long for its file system, which must also accept the suffixes that leaderrun appends; try a shorter one"
                .to_owned()
        }
        Errno::ENOSPC => "no space is left on its file system; free some, or try a file elsewhere".to_owned(),
        Errno::EDQUOT => {
            "the disk quota on its file system is used up; free some space, or try a file elsewhere".to_owned()
        }
        Errno::ENOSYS | Errno::EOPNOTSUPP => {
            "its file system or a sandbox does not support this operation; try a file elsewhere, or look for a seccomp profile"
                .to_owned()
        }
        Errno::ENOLCK => "its file system does not support locks; try a file on a local disk".to_owned(),
        Errno::EFBIG => {
            "the file size limit is too low; raise it, for example with ulimit -f unlimited".to_owned()
        }
        Errno::EROFS => "its file system is read-only; try a file elsewhere".to_owned(),
        _ => errno.desc().to_owned(),
    };
    LockError::new(kind, format!("cannot {} {}: {reason}", operation.verb(), path.display()))
}

/// Returns the error for a failed system call that may have changed something.
pub fn unknown(operation: FileOperation, path: &Path, failure: &io::Error) -> LockError {
    LockError { kind: LockErrorKind::Unknown, ..failed(operation, path, failure) }
}

/// Returns the error for a file that is not a valid record file.
pub fn unusable(path: &Path, reason: &str) -> LockError {
    LockError::new(
        LockErrorKind::Forbidden,
        format!("cannot use {}: {reason}; move it away if no candidate uses it", path.display()),
    )
}

/// Returns why this user may not access a file, and what to change.
fn not_permitted(operation: FileOperation, path: &Path, directory: &Path) -> String {
    let user = User(geteuid().as_raw());
    let permission = operation.permission();
    let target = if operation.changes_directory() { directory } else { path };
    let Ok(found) = fs::symlink_metadata(target) else {
        return format!("{user} may not search its directory {} or a parent of it", directory.display());
    };
    let class = Class::of_current_user(&found);
    if geteuid().is_root() || class.is_granted(permission, &found) {
        if operation.changes_directory() && !may_replace(path, directory) {
            return "its directory is sticky, so only the owner of a file can replace it".to_owned();
        }
        let (reason, missing_capability) = if geteuid().is_root() {
            ("the kernel refuses it even to root", "a missing capability (CAP_DAC_OVERRIDE), ")
        } else {
            ("the kernel refuses it although the mode allows it", "")
        };
        return format!(
            "{reason}; look for {missing_capability}an access control list, an immutable file, SELinux, AppArmor or a \
             seccomp profile"
        );
    }
    let (owner, mode, verb) = (User(found.uid()), found.mode() & 0o7777, permission.verb());
    let quoted_path = shell_word(&path.to_string_lossy());
    if operation.changes_directory() {
        format!(
            "{} belongs to {owner} and has mode {mode:04o}, so {user} may not {verb} to it; try as root: install -m 644 -o {} /dev/null {quoted_path}",
            directory.display(),
            user.0
        )
    } else {
        format!(
            "it belongs to {owner} and has mode {mode:04o}, so {user} may not {verb} it; try as its owner: chmod {class}+{} {quoted_path}",
            permission.letters(),
        )
    }
}

/// Returns whether this user may replace a file, as far as the sticky bit of its directory is concerned.
fn may_replace(path: &Path, directory: &Path) -> bool {
    let is_sticky = fs::metadata(directory).is_ok_and(|directory| directory.mode() & libc::S_ISVTX != 0);
    let owns = |path: &Path| fs::symlink_metadata(path).is_ok_and(|found| found.uid() == geteuid().as_raw());
    !is_sticky || geteuid().is_root() || owns(path) || owns(directory) || !path.exists()
}

/// A user. Messages show the number of every user except root, because looking up a name may block on a directory
/// service.
struct User(u32);

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("root"),
            uid => write!(f, "user {uid}"),
        }
    }
}

/// A permission in the mode of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Permission {
    Read,
    Write,
}

impl Permission {
    fn verb(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }

    /// Returns the letters for chmod(1). Writing requires both permissions, because a record is read before it is
    /// written.
    fn letters(self) -> &'static str {
        match self {
            Self::Read => "r",
            Self::Write => "rw",
        }
    }

    /// Returns the bit of this permission within the three bits of a class.
    fn bit(self) -> u32 {
        match self {
            Self::Read => 0o4,
            Self::Write => 0o2,
        }
    }
}

/// One of the three classes of a file's mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Owner,
    Group,
    Others,
}

impl Class {
    /// Returns the class that applies to this process for this file.
    pub fn of_current_user(file: &Metadata) -> Self {
        let is_member = |group: u32| {
            getegid().as_raw() == group
                || getgroups().is_ok_and(|groups| groups.iter().any(|known| known.as_raw() == group))
        };
        let user = geteuid();
        // Root counts as the owner, because it can give a new file any owner, group and mode.
        if user.is_root() || file.uid() == user.as_raw() {
            Self::Owner
        } else if is_member(file.gid()) {
            Self::Group
        } else {
            Self::Others
        }
    }

    /// Returns the three bits of the file's mode for this class.
    pub fn permissions(self, file: &Metadata) -> u32 {
        let shift = match self {
            Self::Owner => 6,
            Self::Group => 3,
            Self::Others => 0,
        };
        (file.mode() >> shift) & 0o7
    }

    fn is_granted(self, permission: Permission, file: &Metadata) -> bool {
        self.permissions(file) & permission.bit() != 0
    }
}

/// Writes the class as chmod(1) names it.
impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Owner => "u",
            Self::Group => "g",
            Self::Others => "o",
        })
    }
}
