//! The environment as execve(2) takes it.

use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStringExt;

/// This process's variables but for those that `removes` chooses, and with `added` in place of those of
/// the same name. What has a NUL in it is left out: no environment can carry it.
pub fn with(removes: impl Fn(&OsStr) -> bool, added: &[(String, String)]) -> Vec<CString> {
    let kept = |name: &OsStr| !removes(name) && added.iter().all(|(other, _)| name != other.as_str());
    let added = added.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    env::vars_os()
        .filter(|(name, _)| kept(name))
        .chain(added)
        .filter_map(|(name, value)| CString::new([name.into_vec(), value.into_vec()].join(&b'=')).ok())
        .collect()
}
