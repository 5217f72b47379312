//! The rows about the command and the address for HTTP.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

use super::table::{Row, Table, finding_and_remedy};
use crate::elector::command_hint::command_hint;
use crate::telemetry::http::HttpAddress;
use crate::telemetry::log::printable;

/// Adds a row about whether the command is found and may be executed.
pub fn examine_command(table: &mut Table, name: &OsStr) {
    let shown = printable(&name.to_string_lossy());
    let give_path = "give the full path of an existing program: under cron and systemd, PATH has few directories";
    table.add(match find(name) {
        Ok(path) => Row::ok("command", printable(&path.display().to_string())),
        Err(Errno::EACCES) => {
            Row::failed("command", format!("{shown} may not be executed"), format!("chmod +x {shown}"))
        }
        Err(errno) => {
            let remedy = command_hint(&name.to_string_lossy()).unwrap_or_else(|| give_path.to_owned());
            Row::failed("command", format!("{shown} cannot be found: {}", errno.desc()), remedy)
        }
    });
}

/// Finds a program as execvp(3) does.
fn find(name: &OsStr) -> Result<PathBuf, Errno> {
    let paths: Vec<PathBuf> = match Path::new(name).components().count() {
        1 if !name.as_encoded_bytes().contains(&b'/') => {
            env::split_paths(&env::var_os("PATH").unwrap_or_default()).map(|directory| directory.join(name)).collect()
        }
        _ => vec![PathBuf::from(name)],
    };
    let mut failure = Errno::ENOENT;
    for path in paths {
        if !path.is_file() {
            continue;
        }
        match access(&path, AccessFlags::X_OK) {
            Ok(()) => return Ok(path),
            Err(errno) => failure = errno,
        }
    }
    Err(failure)
}

/// Adds a row about whether leaderrun can now listen on the address of `--http`.
pub fn examine_http(table: &mut Table, address: HttpAddress) {
    table.add(match address.listen() {
        Ok(_) => Row::ok("http", format!("leaderrun can listen on {address}")),
        Err(error) => {
            let sentence = error.to_string();
            let (finding, remedy) = finding_and_remedy(&sentence, "choose another address");
            Row::failed("http", finding, remedy)
        }
    });
}
