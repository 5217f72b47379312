//! The environment in the form that execve(2) requires.

use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStringExt;

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
