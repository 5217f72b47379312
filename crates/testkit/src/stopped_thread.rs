//! Stops one thread of a process while its other threads run, as if that thread hung.

use std::fs;
use std::io;
use std::process::Command;
use std::ptr::null_mut;

use nix::unistd::Pid;

/// A thread that is stopped until this guard is dropped. ptrace requires that the guard is dropped on the thread that
/// created it.
pub struct StoppedThread(Pid);

impl StoppedThread {
    /// Stops the thread with this name. A main thread is named after its program.
    pub fn stop(process: Pid, name: &str) -> io::Result<Self> {
        let threads = fs::read_dir(format!("/proc/{process}/task"))?.flatten();
        let has_name = |thread: &fs::DirEntry| {
            fs::read_to_string(thread.path().join("comm")).is_ok_and(|comm| comm.trim_end() == name)
        };
        let thread = threads.into_iter().find(has_name).ok_or(io::ErrorKind::NotFound)?;
        let thread = thread.file_name().to_string_lossy().parse().map_err(io::Error::other)?;
        ptrace(libc::PTRACE_SEIZE, thread)?;
        ptrace(libc::PTRACE_INTERRUPT, thread)?;
        // SAFETY: the call writes no status, because the status pointer is null.
        match unsafe { libc::waitpid(thread, null_mut(), libc::__WALL) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(Self(Pid::from_raw(thread))),
        }
    }

    /// Checks that this user may stop threads.
    pub fn check_permitted() -> Result<(), String> {
        let mut child = Command::new("sleep").arg("60").spawn().map_err(|failure| failure.to_string())?;
        let stopped = Self::stop(Pid::from_raw(child.id() as i32), "sleep").map(drop);
        let _ = child.kill();
        let _ = child.wait();
        stopped.map_err(|failure| format!("ptrace failed: {failure}"))
    }
}

impl Drop for StoppedThread {
    fn drop(&mut self) {
        let thread = self.0.as_raw();
        if ptrace(libc::PTRACE_DETACH, thread).is_err() {
            // The thread is dead, and must be reaped before its process can be reaped.
            // SAFETY: the call writes no status, because the status pointer is null.
            unsafe { libc::waitpid(thread, null_mut(), libc::__WALL) };
        }
    }
}

fn ptrace(request: libc::c_uint, thread: i32) -> io::Result<()> {
    // SAFETY: these requests take no addresses.
    match unsafe { libc::ptrace(request, thread, null_mut::<libc::c_void>(), null_mut::<libc::c_void>()) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
