//! The rows in the doctor's table for the command and for `--http`.

use std::ffi::OsStr;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

use super::table::{Row, Table, finding_and_remedy};
use crate::elector::command_hint::command_hint;
use crate::process::environment::program_directories;
use crate::telemetry::http::HttpAddress;
use crate::telemetry::log::{printable, shell_word};

/// Adds a row about whether the command is found and may be executed.
pub fn examine_command(table: &mut Table, name: &OsStr) {
    let shown = printable(&name.to_string_lossy());
    let give_path = "give the full path of an existing program: under cron and systemd, PATH has few directories";
    table.add(match find(name) {
        Ok(path) => Row::ok("command", printable(&path.display().to_string())),
        Err((Errno::EACCES, file)) => {
            let file = file.to_string_lossy();
            let finding = format!("{} is not executable by this user", printable(&file));
            Row::failed("command", finding, format!("chmod +x {}", shell_word(&file)))
        }
        Err((errno, _)) => {
            let remedy = command_hint(&name.to_string_lossy()).unwrap_or_else(|| give_path.to_owned());
            Row::failed("command", format!("{shown} cannot be found: {}", errno.desc()), remedy)
        }
    });
}

/// Finds a program in the directories in which leaderrun would search for it.
///
/// # Errors
/// If no file with this name can be executed, returns why the first one cannot, and its path. If there is no such file,
/// returns ENOENT and the name.
fn find(name: &OsStr) -> Result<PathBuf, (Errno, PathBuf)> {
    let paths: Vec<PathBuf> = if name.as_encoded_bytes().contains(&b'/') {
        vec![PathBuf::from(name)]
    } else {
        program_directories().into_iter().map(|directory| directory.join(name)).collect()
    };
    let mut failure = None;
    for path in paths.into_iter().filter(|path| path.is_file()) {
        match access(&path, AccessFlags::X_OK) {
            Ok(()) => return Ok(path),
            Err(errno) => failure = failure.or(Some((errno, path))),
        }
    }
    Err(failure.unwrap_or_else(|| (Errno::ENOENT, PathBuf::from(name))))
}

/// Adds a row about whether leaderrun can currently listen on the address given with `--http`.
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
