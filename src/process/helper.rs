//! Programs that leaderrun runs for itself, such as credential plugins.
//!
//! A helper has its own stdout and is not in the command's process group. It shares stdin and stderr with the command
//! only if its access to the terminal is [`TerminalAccess::Shared`]. It is killed when it takes too long, when the
//! thread that runs it ends, and when leaderrun ends (see [`kill_helpers`](super::tree::kill_helpers)).

use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::unistd::{Pid, getpid, getppid, setsid};

use super::pidfd::PidFd;

/// The maximum size of a helper's stdout, and of its stderr, in bytes. It is large, because stderr may include a long
/// trace.
const MAX_OUTPUT: usize = 16 * 1024 * 1024;

/// The time after which a running helper's messages are passed on, because they may say what it is waiting for.
const PASS_ON_AFTER: Duration = Duration::from_secs(2);

/// A helper's access to the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TerminalAccess {
    /// The helper has no terminal: it has its own session and an empty input, and its messages are captured.
    Detached,
    /// The helper may interact with the user at the terminal, whose foreground job is leaderrun.
    Shared,
}

/// The output of a helper that has ended.
#[derive(Debug)]
pub struct HelperOutput {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    /// The last line on stderr that is not blank; empty if stderr is not captured.
    pub last_message: String,
}

/// The reason why [`run`] returns no output.
#[derive(Debug)]
pub enum HelperError {
    NotStarted(io::Error),
    /// The helper did not end in time, and was killed.
    TimedOut {
        last_message: String,
    },
    /// The output of the helper was too long, so it was killed.
    TooMuchOutput,
    /// leaderrun could not wait for the helper or read its output.
    WaitFailed(io::Error),
}

/// Runs a program until it ends, for at most `limit`. If stderr is captured and the program runs for longer than
/// [`PASS_ON_AFTER`], calls `pass_on` with each line on stderr that is not blank and was read before the program ended.
///
/// The program is killed if the calling thread ends.
///
/// # Errors
/// Fails if the program cannot be started or waited for, does not end in time, or writes too much.
pub fn run(
    mut command: Command,
    terminal: TerminalAccess,
    limit: Duration,
    pass_on: &dyn Fn(&str),
) -> Result<HelperOutput, HelperError> {
    command.stdout(Stdio::piped());
    if terminal == TerminalAccess::Detached {
        command.stdin(Stdio::null()).stderr(Stdio::piped());
    }
    let leaderrun = getpid();
    // SAFETY: only system calls are made between fork and exec.
    unsafe {
        command.pre_exec(move || {
            // leaderrun's threads block almost every signal. A helper with the same mask could not be terminated, and
            // neither could the programs that it runs under timeout(1).
            SigSet::empty().thread_set_mask()?;
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            // If leaderrun died before the previous call, its death no longer kills this process.
            if getppid() != leaderrun {
                return Err(Errno::ECHILD.into());
            }
            if terminal == TerminalAccess::Detached {
                setsid()?;
            }
            Ok(())
        });
    }
    let mut helper = Helper { child: command.spawn().map_err(HelperError::NotStarted)?, terminal, has_ended: false };
    helper.wait(limit, pass_on)
}

struct Helper {
    child: Child,
    terminal: TerminalAccess,
    has_ended: bool,
}

impl Helper {
    fn wait(&mut self, limit: Duration, pass_on: &dyn Fn(&str)) -> Result<HelperOutput, HelperError> {
        let started_at = Instant::now();
        let process = PidFd::open(self.pid()).map_err(HelperError::WaitFailed)?;
        let (stdout, stderr) =
            (self.child.stdout.take().map(OwnedFd::from), self.child.stderr.take().map(OwnedFd::from));
        let mut stdout = Captured::new(stdout).map_err(HelperError::WaitFailed)?;
        let mut stderr = Captured::new(stderr).map_err(HelperError::WaitFailed)?;
        let mut passed_on = 0;
        loop {
            let has_ended = process.is_dead();
            stdout.read();
            stderr.read();
            if stdout.is_too_long() || stderr.is_too_long() {
                return Err(HelperError::TooMuchOutput);
            }
            // This does not wait until the pipes are closed, because processes that the helper left running may hold
            // them open.
            if has_ended {
                let status = self.child.wait().map_err(HelperError::WaitFailed)?;
                self.has_ended = true;
                return Ok(HelperOutput { status, stdout: stdout.bytes, last_message: last_line(&stderr.bytes) });
            }
            let elapsed = started_at.elapsed();
            if elapsed >= PASS_ON_AFTER
                && let Some(end) = stderr.bytes[passed_on..].iter().rposition(|byte| *byte == b'\n')
            {
                let lines = String::from_utf8_lossy(&stderr.bytes[passed_on..passed_on + end]).into_owned();
                lines.lines().filter(|line| !line.trim().is_empty()).for_each(pass_on);
                passed_on += end + 1;
            }
            if elapsed >= limit {
                return Err(HelperError::TimedOut { last_message: last_line(&stderr.bytes) });
            }
            let next_timeout = if elapsed < PASS_ON_AFTER { PASS_ON_AFTER.min(limit) } else { limit };
            let pipes = [&stdout.pipe, &stderr.pipe].into_iter().flatten().map(AsFd::as_fd);
            let mut descriptors: Vec<PollFd<'_>> =
                pipes.chain([process.as_fd()]).map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN)).collect();
            // poll(2) takes whole milliseconds, so the timeout is rounded up.
            let timeout = next_timeout - elapsed + Duration::from_millis(1);
            let _ = poll(&mut descriptors, PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX));
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        if !self.has_ended {
            let _ = match self.terminal {
                TerminalAccess::Detached => killpg(self.pid(), Signal::SIGKILL),
                TerminalAccess::Shared => kill(self.pid(), Signal::SIGKILL),
            };
            let _ = self.child.wait();
        }
    }
}

/// The bytes that were read from a pipe. There is no pipe if the stream was not captured or has ended.
struct Captured {
    pipe: Option<OwnedFd>,
    bytes: Vec<u8>,
}

impl Captured {
    fn new(pipe: Option<OwnedFd>) -> io::Result<Self> {
        if let Some(pipe) = &pipe {
            fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        Ok(Self { pipe, bytes: Vec::new() })
    }

    fn is_too_long(&self) -> bool {
        self.bytes.len() > MAX_OUTPUT
    }

    /// Reads all bytes that have arrived.
    fn read(&mut self) {
        let Some(pipe) = self.pipe.take() else { return };
        let mut pipe = std::fs::File::from(pipe);
        let mut buffer = [0; 4096];
        while !self.is_too_long() {
            match pipe.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => self.bytes.extend_from_slice(&buffer[..length]),
                Err(failure) if failure.kind() == ErrorKind::Interrupted => {}
                Err(failure) if failure.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return,
            }
        }
        self.pipe = Some(pipe.into());
    }
}

fn last_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn run_shell(script: &str, limit: Duration) -> Result<HelperOutput, HelperError> {
        run(shell(script), TerminalAccess::Detached, limit, &|_| {})
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn the_output_status_and_last_message_of_a_helper_are_returned() {
        let output = run_shell("echo out; echo first >&2; echo last >&2; echo >&2; exit 3", LONG).unwrap();
        assert_eq!((output.stdout.as_slice(), output.last_message.as_str()), (b"out\n".as_slice(), "last"));
        assert_eq!(output.status.code(), Some(3));
    }

    #[test]
    fn a_helper_has_an_empty_input_and_its_own_session() {
        let output = run_shell("cat; ps -o sid= -p $$ 2>/dev/null || cut -d' ' -f6 /proc/$$/stat; echo $$", LONG);
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        let numbers: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(numbers.len(), 2, "{text}");
        assert_eq!(numbers[0], numbers[1], "the helper leads its session");
    }

    #[test]
    fn a_helper_blocks_no_signals() {
        SigSet::all().thread_block().unwrap();
        // No shell is started, because a shell may change its signal mask.
        let mut command = Command::new("cat");
        command.arg("/proc/self/status");
        let output = run(command, TerminalAccess::Detached, LONG, &|_| {}).unwrap();
        let status = String::from_utf8(output.stdout).unwrap();
        let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap().trim();
        assert_eq!(u64::from_str_radix(blocked, 16), Ok(0));
    }

    #[test]
    fn processes_that_a_helper_leaves_running_are_not_waited_for() {
        let started_at = Instant::now();
        let output = run_shell("sleep 20 & echo out", LONG).unwrap();
        assert_eq!(output.stdout, b"out\n");
        assert!(started_at.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_helper_that_hangs_is_killed_with_its_children() {
        let directory = tempfile::tempdir().unwrap();
        let pid = directory.path().join("pid");
        let script = format!("echo waiting >&2; sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; wait", pid.display());
        let limit = Duration::from_millis(500);
        match run_shell(&script, limit).unwrap_err() {
            HelperError::TimedOut { last_message } => assert_eq!(last_message, "waiting"),
            other => panic!("{other:?}"),
        }
        let sleep: i32 = std::fs::read_to_string(pid).unwrap().trim().parse().unwrap();
        let is_alive =
            || std::fs::read_to_string(format!("/proc/{sleep}/stat")).is_ok_and(|stat| !stat.contains(") Z"));
        while is_alive() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_messages_of_a_slow_helper_are_passed_on_while_it_runs() {
        let lines = RefCell::new(Vec::new());
        let directory = tempfile::tempdir().unwrap();
        let seen = directory.path().join("seen");
        let script = format!("echo open https://example.com >&2; until [ -e {} ]; do sleep 0.1; done", seen.display());
        let pass_on = |line: &str| {
            lines.borrow_mut().push(line.to_owned());
            std::fs::write(&seen, "").unwrap();
        };
        // The script ends only after its line was passed on.
        run(shell(&script), TerminalAccess::Detached, LONG, &pass_on).unwrap();
        assert_eq!(*lines.borrow(), ["open https://example.com"]);
    }

    #[test]
    fn a_helper_may_write_megabytes_but_not_without_limit() {
        assert!(matches!(run_shell("yes", LONG), Err(HelperError::TooMuchOutput)));
        let long = "head -c 3000000 /dev/zero";
        let output = run_shell(&format!("{long} >&2; echo >&2; echo last >&2; {long}"), LONG).unwrap();
        assert_eq!((output.stdout.len(), output.last_message.as_str()), (3_000_000, "last"));
    }
}
