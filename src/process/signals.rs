//! Signals: what leaderrun was started with, what it takes, and how people name them.

use std::io;
use std::iter;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};

/// Hands the mask from one image of this process to the next one. Not for users.
pub const MASK_VARIABLE: &str = "LEADERRUN_SIGNAL_MASK";

/// Signals that a process only ever raises against itself: blocking them would hide a crash.
const FAULTS: [Signal; 7] =
    [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGFPE, Signal::SIGILL, Signal::SIGABRT, Signal::SIGTRAP, Signal::SIGSYS];

/// The signal state that leaderrun was started with, for the command to start with.
#[derive(Clone, Debug)]
pub struct Inherited {
    mask: SigSet,
    ignored: SigSet,
}

impl Inherited {
    /// Notes the state, then blocks every signal that [`Signals`] can take. To be called before
    /// anything changes signals and before there are threads.
    ///
    /// # Errors
    /// When the kernel refuses; it has no reason to.
    pub fn take() -> io::Result<Self> {
        let mut ignored = SigSet::empty();
        for signal in Signal::iterator().filter(|signal| !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP)) {
            if is_ignored(signal)? {
                ignored.add(signal);
            }
        }
        // Rust's runtime ignores SIGPIPE before main; what it was before is not to be known.
        ignored.remove(Signal::SIGPIPE);
        let mut mask = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&takeable()), Some(&mut mask))?;
        let mask = std::env::var(MASK_VARIABLE).ok().map_or(mask, |handed_down| mask_from(&handed_down));
        // A parent that ignores SIGCHLD has its children reaped by the kernel: no exit status for us.
        set_disposition(Signal::SIGCHLD, SigHandler::SigDfl)?;
        Ok(Self { mask, ignored })
    }

    /// Gives a forked child the state back. Only calls that a forked child may make.
    ///
    /// # Errors
    /// When the kernel refuses; it has no reason to.
    pub fn restore(&self) -> nix::Result<()> {
        self.restore_dispositions()?;
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.mask), None)
    }

    /// Prepares for another image of this program, in which [`take`](Self::take) finds the same state. Signals stay
    /// blocked until then: none is lost, and none ends this process. The variable that hands the mask down.
    ///
    /// # Errors
    /// When the kernel refuses; it has no reason to.
    pub fn hand_down(&self) -> nix::Result<(String, String)> {
        self.restore_dispositions()?;
        Ok((MASK_VARIABLE.to_owned(), mask_as_text(&self.mask)))
    }

    fn restore_dispositions(&self) -> nix::Result<()> {
        set_disposition(Signal::SIGPIPE, SigHandler::SigDfl)?;
        if self.ignored.contains(Signal::SIGCHLD) {
            set_disposition(Signal::SIGCHLD, SigHandler::SigIgn)?;
        }
        Ok(())
    }

    /// Whether leaderrun was told to ignore a signal, as `nohup` does with SIGHUP and a shell with the
    /// SIGINT of its background jobs.
    pub fn ignores(&self, signal: i32) -> bool {
        Signal::try_from(signal).is_ok_and(|signal| self.ignored.contains(signal))
    }
}

/// The numbers of its signals, the real-time ones among them.
fn mask_as_text(mask: &SigSet) -> String {
    // SAFETY: it only reads the set.
    let has = |signal: &i32| unsafe { libc::sigismember(mask.as_ref(), *signal) } == 1;
    (1..=libc::SIGRTMAX()).filter(has).map(|signal| signal.to_string()).collect::<Vec<_>>().join(",")
}

fn mask_from(text: &str) -> SigSet {
    let mut mask = *SigSet::empty().as_ref();
    for signal in text.split(',').filter_map(|signal| signal.parse().ok()) {
        // SAFETY: the set is a valid one, and a number that is no signal's is refused.
        unsafe { libc::sigaddset(&mut mask, signal) };
    }
    // SAFETY: it was made of an empty set by adding signals.
    unsafe { SigSet::from_sigset_t_unchecked(mask) }
}

fn is_ignored(signal: Signal) -> io::Result<bool> {
    // SAFETY: an all-zero sigaction is a valid place for the kernel to write one to.
    let mut present: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: nothing is installed; the kernel writes what is.
    match unsafe { libc::sigaction(signal as i32, std::ptr::null(), &mut present) } {
        0 => Ok(present.sa_sigaction == libc::SIG_IGN),
        _ => Err(io::Error::last_os_error()),
    }
}

fn set_disposition(signal: Signal, handler: SigHandler) -> nix::Result<()> {
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: no handler function is installed.
    unsafe { sigaction(signal, &action) }.map(drop)
}

fn takeable() -> SigSet {
    let mut takeable = SigSet::all();
    for fault in FAULTS {
        takeable.remove(fault);
    }
    takeable
}

/// The blocked signals, as a descriptor.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// Every signal that [`Inherited::take`] has blocked.
    ///
    /// # Errors
    /// When the kernel gives no descriptor.
    pub fn all() -> io::Result<Self> {
        Ok(Self(SignalFd::with_flags(&takeable(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?))
    }

    /// The signals that have arrived, by number. Without Ctrl-Z: it is for leaderrun's process group, which a leader
    /// does not follow, and passed on it would leave the command stopped while leaderrun goes on.
    pub fn receive(&self) -> Vec<i32> {
        let arrived = iter::from_fn(|| self.0.read_signal().ok().flatten());
        let is_ctrl_z = |info: &siginfo| info.ssi_signo as i32 == libc::SIGTSTP && info.ssi_code == libc::SI_KERNEL;
        arrived.filter(|info| !is_ctrl_z(info)).map(|info| info.ssi_signo as i32).collect()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Ends this process by a signal, without a core file: if anything was wrong, it was not leaderrun. Returns where that
/// is impossible, as for process 1 of a container.
pub fn end_by(signal: i32) {
    let mut only = *SigSet::empty().as_ref();
    // SAFETY: the set is a valid one, a disposition is set without a handler, and a process may signal itself.
    unsafe {
        let _ = nix::sys::prctl::set_dumpable(false);
        libc::sigaddset(&mut only, signal);
        libc::signal(signal, libc::SIG_DFL);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &only, std::ptr::null_mut());
        libc::raise(signal);
    }
}

/// A signal's number from its name, with or without `SIG` and in any case, or from its number.
///
/// # Errors
/// A sentence when it is neither, or when it cannot end a command cleanly.
pub fn parse(text: &str) -> Result<i32, String> {
    let number = match text.parse() {
        Ok(number) if (1..=libc::SIGRTMAX()).contains(&number) => number,
        Ok(_) => return Err(format!("signals are numbered 1 to {}; TERM would do", libc::SIGRTMAX())),
        Err(_) => {
            let name = text.to_ascii_uppercase();
            let name = name.strip_prefix("SIG").unwrap_or(&name);
            let signal = format!("SIG{name}").parse::<Signal>();
            signal.map_err(|_| "there is no such signal; TERM would do".to_owned())? as i32
        }
    };
    match number {
        libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU => {
            Err("it stops the command instead of ending it; TERM would do".into())
        }
        libc::SIGCHLD | libc::SIGCONT | libc::SIGURG | libc::SIGWINCH => Err("it ends nothing; TERM would do".into()),
        number => Ok(number),
    }
}

/// A signal's usual name, or its number where it has none.
pub fn name(signal: i32) -> String {
    Signal::try_from(signal).map_or_else(|_| format!("signal {signal}"), |signal| signal.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_is_handed_down_whole() {
        for text in ["", "1,15", "12,34,64"] {
            assert_eq!(mask_as_text(&mask_from(text)), text);
        }
    }

    #[test]
    fn signals_have_names_and_numbers() {
        for text in ["TERM", "term", "SIGTERM", "sigterm", "15"] {
            assert_eq!(parse(text), Ok(15), "{text}");
        }
        assert_eq!(parse("64"), Ok(64));
        assert_eq!(name(15), "SIGTERM");
        assert_eq!(name(40), "signal 40");
    }

    #[test]
    fn what_is_no_signal_is_refused_with_one_that_would_do() {
        for text in ["", "0", "65", "-1", "TERMINATE", "STOP", "19"] {
            assert!(parse(text).unwrap_err().ends_with("TERM would do"), "{text}");
        }
    }
}
