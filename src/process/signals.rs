//! The signals that leaderrun receives, the signal state that it was started with, and the names of signals.

use std::fs;
use std::io::{self, IsTerminal};
use std::iter;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};
use nix::unistd::Pid;

use super::system_call::SystemCallError;

/// The internal environment variable that passes on the signal mask when leaderrun re-executes itself.
pub const MASK_VARIABLE: &str = "LEADERRUN_SIGNAL_MASK";

/// The signals that report a fault of this process. They are not blocked, so that Rust's handler can report a stack
/// overflow, and so that such a signal from another process ends leaderrun instead of being relayed.
const FAULTS: [Signal; 7] =
    [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGFPE, Signal::SIGILL, Signal::SIGABRT, Signal::SIGTRAP, Signal::SIGSYS];

/// Returns the signals that the C library reserves: 32 and 33, and in musl also 34. The C library refuses to block them
/// and to change their dispositions, so leaderrun ignores them by direct system calls. Otherwise they would end
/// leaderrun if another process sent them.
fn reserved() -> Range<i32> {
    32..libc::SIGRTMIN()
}

/// The signals that the terminal sends for Ctrl-C and Ctrl-\.
const KEY_SIGNALS: [i32; 2] = [libc::SIGINT, libc::SIGQUIT];

/// The result of blocking all signals that [`Signals`] receives.
///
/// They are blocked before anything else is done, because a container may be stopped while leaderrun starts, and
/// process 1 of a container loses a signal that it has neither blocked nor handled.
#[derive(Debug)]
pub struct BlockedSignals {
    /// The previous signal mask, or the reason why the kernel refused to change it.
    before: nix::Result<SigSet>,
}

impl BlockedSignals {
    /// Blocks the signals. This must be called before there are other threads.
    pub fn begin() -> Self {
        let mut before = SigSet::empty();
        let blocked = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&blocked_signals()), Some(&mut before));
        Self { before: blocked.map(|()| before) }
    }

    /// Restores the previous mask, so that the signals end this process as usual.
    pub fn end(self) {
        if let Ok(before) = self.before {
            let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None);
        }
    }
}

/// The signal state that leaderrun was started with. The command is started with the same state.
#[derive(Clone, Debug)]
pub struct InheritedSignals {
    mask: SigSet,
    ignored: SigSet,
    /// The dispositions of the reserved signals.
    reserved: Vec<KernelAction>,
    /// Whether one of the standard streams is a terminal.
    on_terminal: bool,
}

/// The disposition of a signal in the format of rt_sigaction(2), without the C library.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct KernelAction {
    handler: usize,
    flags: libc::c_ulong,
    restorer: usize,
    mask: u64,
}

impl KernelAction {
    const IGNORE: Self = Self { handler: libc::SIG_IGN, flags: 0, restorer: 0, mask: 0 };

    /// Sets the disposition of a signal, and returns the previous one.
    fn install(&self, signal: i32) -> nix::Result<Self> {
        let mut before = Self::default();
        let (new, old) = (std::ptr::from_ref(self), std::ptr::from_mut(&mut before));
        // SAFETY: both pointers are valid, and the layout is the kernel's. No handler is installed: `self` is `IGNORE`,
        // or was inherited through an exec, which removes handlers.
        Errno::result(unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, new, old, size_of::<u64>()) })?;
        Ok(before)
    }
}

impl InheritedSignals {
    /// Reads the state, then changes it as leaderrun needs it: the reserved signals are ignored, and SIGCHLD is not.
    /// The blocked signals stay blocked. This must be called before anything else changes the state and before there
    /// are other threads.
    ///
    /// # Errors
    /// Returns the error of a system call. None is expected to fail.
    pub fn take(blocked: BlockedSignals) -> io::Result<Self> {
        let mut ignored = SigSet::empty();
        for signal in Signal::iterator().filter(|signal| !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP)) {
            if is_ignored(signal)? {
                ignored.add(signal);
            }
        }
        // Rust's runtime ignores SIGPIPE before main, so its previous disposition is unknown.
        ignored.remove(Signal::SIGPIPE);
        let mask = blocked.before?;
        let mask = std::env::var(MASK_VARIABLE).ok().map_or(mask, |passed_on| mask_from(&passed_on));
        let reserved = reserved().map(|signal| KernelAction::IGNORE.install(signal)).collect::<nix::Result<_>>()?;
        let on_terminal = io::stdin().is_terminal() || io::stdout().is_terminal() || io::stderr().is_terminal();
        // If SIGCHLD were ignored, the kernel would reap children itself, and their exit statuses would be lost.
        set_disposition(Signal::SIGCHLD, SigHandler::SigDfl)?;
        Ok(Self { mask, ignored, reserved, on_terminal })
    }

    /// Restores the state in a forked child. It makes only async-signal-safe calls.
    ///
    /// # Errors
    /// Returns the error of a system call. None is expected to fail.
    pub fn restore(&self) -> nix::Result<()> {
        self.restore_dispositions()?;
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.mask), None)
    }

    /// Prepares for re-executing leaderrun, so that [`take`](Self::take) finds the same state in the new program.
    /// Signals stay blocked across the exec, so that none is lost and none ends this process. Returns the name and the
    /// value of the variable that passes the mask on.
    ///
    /// # Errors
    /// Returns the error of a system call. None is expected to fail.
    pub fn prepare_exec(&self) -> nix::Result<(String, String)> {
        self.restore_dispositions()?;
        Ok((MASK_VARIABLE.to_owned(), mask_as_text(&self.mask)))
    }

    fn restore_dispositions(&self) -> nix::Result<()> {
        set_disposition(Signal::SIGPIPE, SigHandler::SigDfl)?;
        if self.ignored.contains(Signal::SIGCHLD) {
            set_disposition(Signal::SIGCHLD, SigHandler::SigIgn)?;
        }
        reserved().zip(&self.reserved).try_for_each(|(signal, before)| before.install(signal).map(drop))
    }

    /// Returns whether leaderrun was started with this signal ignored, such as SIGHUP by `nohup`.
    ///
    /// Returns false for SIGINT and SIGQUIT. A shell starts background jobs with these signals ignored, to protect them
    /// from the keys of the terminal. Therefore leaderrun ignores these two signals only if a key caused them:
    /// [`Signals::receive`] discards those.
    pub fn ignores(&self, signal: i32) -> bool {
        !KEY_SIGNALS.contains(&signal) && is_in(&self.ignored, signal)
    }
}

/// Returns the numbers of the signals in a mask, including real-time signals.
fn mask_as_text(mask: &SigSet) -> String {
    // SAFETY: the call only reads the set.
    let is_blocked = |signal: &i32| unsafe { libc::sigismember(mask.as_ref(), *signal) } == 1;
    (1..=libc::SIGRTMAX()).filter(is_blocked).map(|signal| signal.to_string()).collect::<Vec<_>>().join(",")
}

fn mask_from(text: &str) -> SigSet {
    let mut mask = *SigSet::empty().as_ref();
    for signal in text.split(',').filter_map(|signal| signal.parse().ok()) {
        // SAFETY: the set is valid, and a number that is not a signal is refused.
        unsafe { libc::sigaddset(&mut mask, signal) };
    }
    // SAFETY: the set was created empty, and only signals were added.
    unsafe { SigSet::from_sigset_t_unchecked(mask) }
}

fn is_in(signals: &SigSet, number: i32) -> bool {
    Signal::try_from(number).is_ok_and(|signal| signals.contains(signal))
}

fn is_ignored(signal: Signal) -> io::Result<bool> {
    // SAFETY: all zeros are a valid sigaction.
    let mut current: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: the call installs no handler, and writes the current action to a valid address.
    match unsafe { libc::sigaction(signal as i32, std::ptr::null(), &mut current) } {
        0 => Ok(current.sa_sigaction == libc::SIG_IGN),
        _ => Err(io::Error::last_os_error()),
    }
}

fn set_disposition(signal: Signal, handler: SigHandler) -> nix::Result<()> {
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: no handler function is installed.
    unsafe { sigaction(signal, &action) }.map(drop)
}

fn blocked_signals() -> SigSet {
    let mut blocked = SigSet::all();
    for fault in FAULTS {
        blocked.remove(fault);
    }
    blocked
}

/// A descriptor that receives the blocked signals.
#[derive(Debug)]
pub struct Signals {
    descriptor: SignalFd,
    on_terminal: bool,
    ignored: SigSet,
}

/// The signals that have arrived.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ReceivedSignals {
    /// The numbers of the signals; the caller decides which of them to relay. SIGTSTP from Ctrl-Z is left out, because
    /// relaying it would suspend the command while leaderrun continues: see `suspend_key_pressed`. A SIGWINCH that
    /// reports a new size of the terminal is left out too: see `terminal_resized`.
    pub numbers: Vec<i32>,
    /// Whether the size of the terminal has changed.
    pub terminal_resized: bool,
    /// Whether the key that suspends a job was pressed: Ctrl-Z, unless stty has changed it.
    pub suspend_key_pressed: bool,
}

impl Signals {
    /// Creates a descriptor for all signals that [`BlockedSignals`] blocks.
    ///
    /// # Errors
    /// Fails if the kernel refuses to create a descriptor.
    pub fn new(inherited: &InheritedSignals) -> io::Result<Self> {
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let descriptor = SignalFd::with_flags(&blocked_signals(), flags).map_err(SystemCallError::of("signalfd4"))?;
        Ok(Self { descriptor, on_terminal: inherited.on_terminal, ignored: inherited.ignored })
    }

    /// Returns the signals that have arrived since the last call.
    pub fn receive(&self) -> ReceivedSignals {
        let mut received = ReceivedSignals::default();
        for info in iter::from_fn(|| self.descriptor.read_signal().ok().flatten()) {
            match info.ssi_signo as i32 {
                libc::SIGTSTP if info.ssi_code == libc::SI_KERNEL => received.suspend_key_pressed = true,
                key if KEY_SIGNALS.contains(&key) && info.ssi_code == libc::SI_KERNEL && is_in(&self.ignored, key) => {}
                libc::SIGWINCH if self.is_resize(&info) => received.terminal_resized = true,
                signal => received.numbers.push(signal),
            }
        }
        received
    }

    /// Returns whether a SIGWINCH means that the size of the terminal has changed. Programs that relay it from another
    /// terminal, like sudo, send it as an ordinary signal. A SIGWINCH from outside of the container (pid 0) is the stop
    /// signal of some images.
    fn is_resize(&self, info: &siginfo) -> bool {
        info.ssi_code == libc::SI_KERNEL || (self.on_terminal && info.ssi_pid != 0)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Kills this process with a signal or, with `to_group`, its whole process group. No core file is written, because
/// leaderrun has not crashed. The function returns if the signal cannot kill this process, for example if it is
/// process 1 of a container.
pub fn kill_self(signal: i32, to_group: bool) {
    let mut unblocked = *SigSet::empty().as_ref();
    // SAFETY: the set is valid, no handler is installed, and a process may signal itself.
    unsafe {
        let _ = nix::sys::prctl::set_dumpable(false);
        libc::sigaddset(&mut unblocked, signal);
        libc::signal(signal, libc::SIG_DFL);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &unblocked, std::ptr::null_mut());
        if to_group {
            libc::kill(0, signal);
        }
        libc::raise(signal);
    }
}

/// Parses a signal: its name in upper or lower case, with or without `SIG`, or its number. Real-time signals can also
/// be counted from the first or the last one, as in `RTMIN+3`.
///
/// # Errors
/// Returns the reason if the text is not a signal, or if the signal cannot end a command cleanly.
pub fn parse(text: &str) -> Result<i32, String> {
    let number = match text.parse() {
        Ok(number) if (1..=libc::SIGRTMAX()).contains(&number) => number,
        Ok(_) => return Err(format!("signals are numbered 1 to {}; try TERM", libc::SIGRTMAX())),
        Err(_) => {
            let name = text.to_ascii_uppercase();
            let name = name.strip_prefix("SIG").unwrap_or(&name);
            let signal = || format!("SIG{name}").parse::<Signal>().ok().map(|signal| signal as i32);
            parse_real_time(name).or_else(signal).ok_or("there is no such signal; try TERM")?
        }
    };
    match number {
        libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU => {
            Err("it suspends the command instead of ending it; try TERM".into())
        }
        libc::SIGKILL => {
            Err("it leaves the command no time to stop, and is sent after --lost-grace anyway; try TERM".into())
        }
        libc::SIGCHLD | libc::SIGCONT | libc::SIGURG => Err("it does not end a process; try TERM".into()),
        number if reserved().contains(&number) => Err("it is reserved by the C library; try TERM".into()),
        number => Ok(number),
    }
}

fn parse_real_time(name: &str) -> Option<i32> {
    let (first, last) = (libc::SIGRTMIN(), libc::SIGRTMAX());
    let distance = |rest: &str, sign| match rest.strip_prefix(sign) {
        None => rest.is_empty().then_some(0),
        Some(digits) => digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit())),
    };
    let number = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => first.checked_add(distance(rest, '+')?)?,
        (_, Some(rest)) => last - distance(rest, '-')?,
        _ => return None,
    };
    (first..=last).contains(&number).then_some(number)
}

/// The signals that a process blocks, ignores or catches.
#[derive(Clone, Copy, Debug)]
pub struct SignalHandling {
    blocked: u64,
    ignored: u64,
    caught: u64,
}

impl SignalHandling {
    /// Returns the signal handling of another process; `None` if /proc does not contain it.
    pub fn of(process: Pid) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let set = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            u64::from_str_radix(line.trim(), 16).ok()
        };
        Some(Self { blocked: set("SigBlk:")?, ignored: set("SigIgn:")?, caught: set("SigCgt:")? })
    }

    /// Returns whether this signal kills the process. The default action of the signal must be to end a process.
    pub fn is_killed_by(self, signal: i32) -> bool {
        (self.blocked | self.ignored | self.caught) & (1 << (signal - 1)) == 0
    }
}

/// Returns a signal's usual name, or its number if it has none.
pub fn name(signal: i32) -> String {
    Signal::try_from(signal).map_or_else(|_| format!("signal {signal}"), |signal| signal.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_mask_is_passed_on_without_loss() {
        for text in ["", "1,15", "12,35,64"] {
            assert_eq!(mask_as_text(&mask_from(text)), text);
        }
    }

    #[test]
    fn signals_are_parsed_by_name_and_by_number() {
        for text in ["TERM", "term", "SIGTERM", "sigterm", "15"] {
            assert_eq!(parse(text), Ok(15), "{text}");
        }
        assert_eq!(parse("64"), Ok(64));
        let (first, last) = (libc::SIGRTMIN(), libc::SIGRTMAX());
        for (text, number) in [("SIGRTMIN+3", first + 3), ("rtmin", first), ("RTMAX-1", last - 1), ("WINCH", 28)] {
            assert_eq!(parse(text), Ok(number), "{text}");
        }
        assert_eq!(name(15), "SIGTERM");
        assert_eq!(name(40), "signal 40");
    }

    #[test]
    fn invalid_signals_are_refused_with_a_suggestion() {
        for text in [
            "",
            "0",
            "65",
            "-1",
            "TERMINATE",
            "STOP",
            "19",
            "KILL",
            "32",
            "RTMIN-1",
            "RTMIN+99",
            "RTMAX+1",
            "RTMIN+",
            "RTMIN++3",
        ] {
            assert!(parse(text).unwrap_err().ends_with("; try TERM"), "{text}");
        }
    }
}
