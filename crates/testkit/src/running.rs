//! A running process, usually leaderrun.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::processes::{children, descendants};
use crate::wait::{TIMEOUT, eventually, eventually_some};

/// The interval between two checks while waiting for the end of a process, for its log, or for reading to resume.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// A handle to a started process, usually leaderrun. Dropping it kills the process and all its descendants.
pub struct Running {
    name: String,
    child: Child,
    stdout: Output,
    stderr: Output,
    /// `true` while stdout and stderr are not read.
    reading_paused: Arc<AtomicBool>,
}

impl Running {
    /// Starts `command`, and collects its stdout and stderr if they are pipes.
    pub(crate) fn start(name: String, mut command: Command) -> Self {
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name} cannot be started: {error}"));
        let reading_paused = Arc::<AtomicBool>::default();
        let stdout = Output::collect(child.stdout.take(), &reading_paused);
        let stderr = Output::collect(child.stderr.take(), &reading_paused);
        Running { name, child, stdout, stderr, reading_paused }
    }

    /// Returns the pid of the started process.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Returns the pid of the elector, which is leaderrun's initial process. Call this only if leaderrun was started
    /// directly, not through a wrapper.
    pub fn elector(&self) -> Pid {
        self.pid()
    }

    /// Waits until the elector has a child, the supervisor, and returns its pid.
    pub fn supervisor(&self) -> Pid {
        let elector = self.elector();
        eventually_some(&format!("{} has a supervisor", self.name), || children(elector).first().copied())
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("the process has not been reaped");
    }

    /// Returns whether the process is running, and reaps it if it has ended. Until this returns `false`, no other
    /// process can get its pid, so it is safe to send a signal.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|ended| ended.is_none())
    }

    /// Returns whether the process has ended and none of its descendants holds its pipes open.
    pub fn has_ended(&mut self) -> bool {
        !self.is_running() && self.pipes_are_closed()
    }

    /// Pauses or resumes reading stdout and stderr. While reading is paused, the pipes fill up.
    pub fn set_reading_paused(&self, paused: bool) {
        self.reading_paused.store(paused, Ordering::Relaxed);
    }

    /// Waits until the process has ended and none of its descendants holds its pipes open.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("the child can be waited for") {
                eventually("the pipes are closed", || self.pipes_are_closed());
                return status;
            }
            assert!(start.elapsed() < TIMEOUT, "{} does not end; its log:\n{}", self.name, self.log());
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Waits like [`Running::wait`], and checks the exit status. A death from signal N counts as the status 128 + N, as
    /// in a shell.
    #[track_caller]
    pub fn wait_for_exit(&mut self, status: i32) {
        let ended = self.wait();
        let actual = ended.code().or(ended.signal().map(|signal| 128 + signal));
        assert_eq!(actual, Some(status), "{}'s log:\n{}", self.name, self.log());
    }

    /// Waits like [`Running::wait`], and checks that this signal killed the process.
    #[track_caller]
    pub fn wait_until_killed_by(&mut self, signal: Signal) {
        let ended = self.wait();
        assert_eq!(ended.signal(), Some(signal as i32), "{ended}; {}'s log:\n{}", self.name, self.log());
    }

    /// Sends SIGTERM to the process, and waits like [`Running::wait`].
    pub fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        self.wait();
    }

    /// Returns what was written to stderr so far, by leaderrun (its log) and by the command.
    pub fn log(&self) -> String {
        self.stderr.text()
    }

    /// Returns what was written to stdout so far, by the command or by a subcommand of leaderrun.
    pub fn output(&self) -> String {
        self.stdout.text()
    }

    /// Returns whether stdout has been read to its end.
    pub fn output_has_ended(&self) -> bool {
        self.stdout.reader.is_finished()
    }

    /// Waits until the log contains `text`.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) {
        let start = Instant::now();
        while !self.log().contains(text) {
            assert!(start.elapsed() < TIMEOUT, "{} does not log {text:?}; its log:\n{}", self.name, self.log());
            thread::sleep(POLL_INTERVAL);
        }
    }

    fn pipes_are_closed(&self) -> bool {
        self.stdout.reader.is_finished() && self.stderr.reader.is_finished()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.set_reading_paused(false);
        // List the descendants before killing anything: once their parent is dead, they are reparented and cannot be
        // found.
        let processes = [vec![self.pid()], descendants(self.pid())].concat();
        for process in processes {
            let _ = kill(process, Signal::SIGKILL);
        }
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- log of {}:\n{}", self.name, self.log());
        }
    }
}

/// The output that a thread reads from a pipe.
struct Output {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Output {
    /// Starts a thread that reads the pipe, if there is one, until it is closed.
    fn collect(pipe: Option<impl Read + Send + 'static>, paused: &Arc<AtomicBool>) -> Output {
        let bytes = Arc::<Mutex<Vec<u8>>>::default();
        let (thread_bytes, paused) = (Arc::clone(&bytes), Arc::clone(paused));
        let reader = thread::spawn(move || {
            let (Some(mut pipe), mut buffer) = (pipe, [0; 4096]) else { return };
            while let Ok(length @ 1..) = pipe.read(&mut buffer) {
                thread_bytes.lock().expect("no thread panics while it holds this lock").extend(&buffer[..length]);
                while paused.load(Ordering::Relaxed) {
                    thread::sleep(POLL_INTERVAL);
                }
            }
        });
        Output { bytes, reader }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().expect("no thread panics while it holds this lock")).into_owned()
    }
}
