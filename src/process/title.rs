//! The names of the processes for `ps`, `pkill` and `killall`.

use std::fs;
use std::io;
use std::ptr;

use nix::sys::prctl;

use super::system_call::SystemCallError;

/// The elector's name, which is also the program's. It is set explicitly, because the kernel names the process `exe`
/// when leaderrun executes /proc/self/exe.
pub const ELECTOR: &std::ffi::CStr = c"leaderrun";

/// The supervisor's name. It differs from the elector's, so that the supervisor survives a program that kills leaderrun
/// by name, and can end the command.
pub const SUPERVISOR: &std::ffi::CStr = c"lr-supervisor";

/// Sets the name of this process. Its command line is not changed.
///
/// # Errors
/// Returns the error of the system call, which is not expected to fail.
pub fn set_name(name: &std::ffi::CStr) -> Result<(), SystemCallError> {
    prctl::set_name(name).map_err(SystemCallError::of("prctl"))
}

/// Replaces this process's command line with `name`, so that `pkill -f leaderrun` and similar commands do not find the
/// process. After that, this process must not read its arguments. Nothing is changed if /proc does not say where the
/// command line is in memory.
pub fn replace_command_line(name: &std::ffi::CStr) {
    let Ok((start, length)) = command_line() else { return };
    let name = name.to_bytes();
    // SAFETY: according to the kernel, this is the memory of the arguments, which is on this process's stack and can be
    // written to. Nothing refers to it: there is only one thread, and it has copied what it has parsed.
    unsafe {
        ptr::write_bytes(start, 0, length);
        ptr::copy_nonoverlapping(name.as_ptr(), start, name.len().min(length.saturating_sub(1)));
    }
}

/// Returns the address from which the kernel reads this process's command line, and its length.
fn command_line() -> io::Result<(*mut u8, usize)> {
    /// In proc_pid_stat(5), `arg_start` is field 48, and the first field after the name is field 3.
    const ARG_START: usize = 48 - 3;
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_ascii_whitespace();
    let mut addresses = fields.skip(ARG_START).map(|field| field.parse().unwrap_or(0));
    match (addresses.next().unwrap_or(0), addresses.next().unwrap_or(0)) {
        (start @ 1.., end) if end > start => Ok((ptr::with_exposed_provenance_mut(start), end - start)),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}
