//! The environment in the form that execve(2) requires, and the directories in PATH.

use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// The directories that are searched if PATH is not set: those that execvp(3) searches.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// Returns the directories that are searched, in this order, for a program whose name contains no slash.
pub fn program_directories() -> Vec<PathBuf> {
    env::split_paths(&env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into())).collect()
}

/// Returns the variables of this process without those that `removes` selects. The variables in `added` are added, or
/// replace those with the same name. Variables that contain a NUL are omitted, because execve(2) cannot pass them.
pub fn modified(removes: impl Fn(&OsStr) -> bool, added: &[(String, String)]) -> Vec<CString> {
    let is_kept = |name: &OsStr| !removes(name) && added.iter().all(|(other, _)| name != other.as_str());
    let added = added.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    env::vars_os()
        .filter(|(name, _)| is_kept(name))
        .chain(added)
        .filter_map(|(name, value)| CString::new([name.into_vec(), value.into_vec()].join(&b'=')).ok())
        .collect()
}
