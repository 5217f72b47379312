//! Executes a program in a forked child, as execvp(3) does, and returns the reason if that fails.
//!
//! The C library's function is not used, because it passes a program for another machine to the shell, and does not
//! report that the interpreter of a script is missing.

use std::ffi::{CStr, CString, OsStr};
use std::fs::{self, Metadata};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{AccessFlags, access, execve};

use super::file_format::FileFormat;
use crate::process::environment::program_directories;
use crate::telemetry::log::shell_word;

/// The length of the longest encoded failure, in bytes. A pipe accepts a message of this length atomically.
pub const MAX_MESSAGE: usize = 1024;

/// The interpreter of a script without a `#!` line.
const SHELL: &CStr = c"/bin/sh";

/// The reason why a program could not be executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecFailure {
    pub errno: Errno,
    pub reason: String,
}

impl From<Errno> for ExecFailure {
    fn from(errno: Errno) -> Self {
        Self { errno, reason: errno.desc().to_owned() }
    }
}

impl ExecFailure {
    /// Returns the failure for a file that exists but cannot be executed.
    fn not_executable(reason: impl Into<String>) -> Self {
        Self { errno: Errno::ENOEXEC, reason: reason.into() }
    }

    /// Encodes this failure for the exec pipe. A message longer than [`MAX_MESSAGE`] is truncated.
    pub fn encode(&self) -> Vec<u8> {
        let mut message = (self.errno as i32).to_ne_bytes().to_vec();
        message.extend(self.reason.bytes().take(MAX_MESSAGE - message.len()));
        message
    }

    /// Decodes a failure from the exec pipe. Returns `None` for a message that is too short to be a failure.
    pub fn decode(message: &[u8]) -> Option<Self> {
        let (errno, reason) = message.split_first_chunk()?;
        let errno = Errno::from_raw(i32::from_ne_bytes(*errno));
        Some(Self { errno, reason: String::from_utf8_lossy(reason).into_owned() })
    }
}

/// Executes the program that the first argument names. Returns only if that fails, with the reason.
pub fn execute(arguments: &[CString], environment: &[CString]) -> ExecFailure {
    let Some(name) = arguments.first() else { return Errno::ENOENT.into() };
    if name.to_bytes().contains(&b'/') {
        return execute_file(name, arguments, environment);
    }
    // As in a shell, a program in a directory without search permission counts as not found. A program without execute
    // permission counts as found, but a program in a later directory takes precedence.
    let (mut permission_failure, mut unsearchable_directories) = (None, Vec::new());
    for directory in program_directories() {
        let file = directory.join(OsStr::from_bytes(name.to_bytes()));
        let exists = file.is_file();
        let Ok(file) = CString::new(file.into_os_string().into_vec()) else { continue };
        let failure = execute_file(&file, arguments, environment);
        match failure.errno {
            Errno::EACCES if exists => permission_failure = permission_failure.or(Some(failure)),
            Errno::EACCES if unsearchable_directory(Path::new(OsStr::from_bytes(file.to_bytes()))).is_some() => {
                unsearchable_directories.push(directory)
            }
            Errno::EACCES | Errno::ENOENT | Errno::ENOTDIR | Errno::ESTALE | Errno::ENODEV | Errno::ETIMEDOUT => {}
            _ => return failure,
        }
    }
    permission_failure.unwrap_or_else(|| not_found(&unsearchable_directories))
}

/// Returns the failure for a program that was found in no directory of PATH. This user lacks permission to search the
/// directories in `unsearchable_directories`.
fn not_found(unsearchable_directories: &[PathBuf]) -> ExecFailure {
    let mut failure = ExecFailure::from(Errno::ENOENT);
    if !unsearchable_directories.is_empty() {
        let names: Vec<_> = unsearchable_directories.iter().map(|directory| directory.to_string_lossy()).collect();
        failure.reason += &format!(", and this user may not search {}", names.join(", "));
    }
    failure
}

/// Executes a file. If it is text without a `#!` line, executes it with the shell.
fn execute_file(file: &CStr, arguments: &[CString], environment: &[CString]) -> ExecFailure {
    let Err(errno) = execve(file, arguments, environment);
    let path = Path::new(OsStr::from_bytes(file.to_bytes()));
    match errno {
        Errno::ENOENT | Errno::ENOEXEC => {}
        Errno::EACCES => return ExecFailure { errno, reason: not_permitted(path) },
        Errno::ETXTBSY => return ExecFailure { errno, reason: "a process has it open for writing".to_owned() },
        Errno::E2BIG => {
            let reason = "its arguments and environment are longer than the kernel allows; pass the data in a file";
            return ExecFailure { errno, reason: reason.to_owned() };
        }
        _ => return errno.into(),
    }
    match (errno, FileFormat::of(path)) {
        (Errno::ENOENT, Some(format)) => match format.interpreter() {
            Some(interpreter) => ExecFailure::not_executable(missing_interpreter(interpreter)),
            None => errno.into(),
        },
        (Errno::ENOEXEC, Some(FileFormat::Text)) => {
            let shell_arguments: Vec<_> =
                [SHELL, file].into_iter().chain(arguments[1..].iter().map(CString::as_c_str)).collect();
            let Err(errno) = execve(SHELL, &shell_arguments, environment);
            ExecFailure::not_executable(format!("it has no #! line, and /bin/sh cannot be executed: {errno}"))
        }
        (Errno::ENOEXEC, Some(FileFormat::Program(program))) => match program.other_machine() {
            Some(machine) => ExecFailure::not_executable(format!("it is a program for another machine: {machine}")),
            None => ExecFailure::not_executable("it is a damaged program"),
        },
        (Errno::ENOEXEC, Some(_)) => ExecFailure::not_executable("it is neither a program nor a script"),
        _ => errno.into(),
    }
}

/// Returns the reason why executing a file is not permitted.
fn not_permitted(path: &Path) -> String {
    let is_executable = |metadata: &Metadata| metadata.mode() & 0o111 != 0;
    let interpreter = || FileFormat::of(path)?.interpreter().map(str::to_owned);
    match (fs::metadata(path), interpreter()) {
        (Ok(metadata), _) if metadata.is_dir() => "it is a directory".to_owned(),
        (Ok(metadata), _) if metadata.is_file() && !is_executable(&metadata) => {
            format!("it is not executable; try chmod +x {}", shell_word(&path.to_string_lossy()))
        }
        _ if statvfs(path).is_ok_and(|status| status.flags().contains(FsFlags::ST_NOEXEC)) => {
            "its file system is mounted with noexec".to_owned()
        }
        (Ok(_), Some(interpreter)) if fs::metadata(&interpreter).is_ok_and(|metadata| !is_executable(&metadata)) => {
            format!("its interpreter {interpreter} is not executable")
        }
        (Ok(metadata), _) if metadata.is_file() && access(path, AccessFlags::X_OK).is_err() => {
            format!("its mode {:04o} does not let this user execute it", metadata.mode() & 0o7777)
        }
        (Err(_), _) => unsearchable_directory(path).map_or_else(
            || Errno::EACCES.desc().to_owned(),
            |directory| format!("this user may not search the directory {}", directory.display()),
        ),
        _ => Errno::EACCES.desc().to_owned(),
    }
}

/// Returns the outermost directory in this path that this user lacks permission to search.
fn unsearchable_directory(path: &Path) -> Option<&Path> {
    let mut directories: Vec<&Path> =
        path.ancestors().skip(1).filter(|directory| *directory != Path::new("")).collect();
    directories.reverse();
    directories.into_iter().find(|directory| access(*directory, AccessFlags::X_OK) == Err(Errno::EACCES))
}

/// Returns the reason why the kernel did not find the interpreter that a file names.
fn missing_interpreter(interpreter: &str) -> String {
    let path = Path::new(interpreter);
    if let Some(name) = interpreter.strip_suffix('\r') {
        return format!("its first line ends with a carriage return after the interpreter {name}; try dos2unix");
    }
    match FileFormat::of(path).as_ref().and_then(FileFormat::interpreter) {
        Some(next) => format!("the interpreter {next} of its interpreter {interpreter} is missing"),
        None => format!("its interpreter {interpreter} is missing"),
    }
}
