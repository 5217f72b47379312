//! The clock of all deadlines, `CLOCK_BOOTTIME`. It keeps running during suspend, and cannot be set.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use leaderrun_core::instant::Instant;
use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::{ClockId as Clock, clock_gettime};

use super::system_call::SystemCallError;

/// Returns the current instant. It does not fail and is async-signal-safe, so the child of a fork may call it.
pub fn now() -> Instant {
    let time = clock_gettime(Clock::CLOCK_BOOTTIME).expect("CLOCK_BOOTTIME exists since Linux 2.6.39");
    Instant::after_boot(Duration::from(time))
}

/// Returns the CPU time that this thread has used.
pub fn cpu_time() -> Duration {
    let time =
        clock_gettime(Clock::CLOCK_THREAD_CPUTIME_ID).expect("CLOCK_THREAD_CPUTIME_ID exists since Linux 2.6.12");
    Duration::from(time)
}

/// Returns how many nanoseconds the boot clock of this process is ahead of the machine's. This is zero outside of a
/// time namespace.
///
/// # Errors
/// Fails if the offset cannot be read from /proc, or if this process has prepared another time namespace for its
/// children.
pub fn time_namespace_offset_nanos() -> io::Result<i64> {
    const NAMESPACE: &str = "/proc/self/ns/time";
    let own_namespace = match fs::read_link(NAMESPACE) {
        Ok(own_namespace) => own_namespace,
        Err(failure) => {
            let is_proc_mounted = Path::new("/proc/self").exists();
            // If /proc is mounted, a missing file means that the kernel has no time namespaces.
            if is_proc_mounted && failure.kind() == io::ErrorKind::NotFound {
                return Ok(0);
            }
            let remedy = if is_proc_mounted { "" } else { "; mount /proc" };
            let reason = Errno::from_raw(failure.raw_os_error().unwrap_or(libc::EIO)).desc();
            return Err(io::Error::other(format!("cannot read {NAMESPACE}: {reason}{remedy}")));
        }
    };
    // timens_offsets contains the offsets of the namespace that children will be in.
    if fs::read_link("/proc/self/ns/time_for_children")? != own_namespace {
        return Err(io::Error::other("this process has prepared another time namespace for its children"));
    }
    parse_offset(&fs::read_to_string("/proc/self/timens_offsets")?)
        .ok_or_else(|| io::Error::other("cannot parse /proc/self/timens_offsets"))
}

fn parse_offset(offsets: &str) -> Option<i64> {
    let line = offsets.lines().find_map(|line| line.strip_prefix("boottime"))?;
    let mut words = line.split_ascii_whitespace().map(str::parse::<i64>);
    let (seconds, nanoseconds) = (words.next()?.ok()?, words.next()?.ok()?);
    seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
}

/// A descriptor that becomes readable at an [`Instant`].
#[derive(Debug)]
pub struct Timer(TimerFd);

impl Timer {
    /// Creates a timer that is not set.
    ///
    /// # Errors
    /// Fails if the kernel refuses to create a descriptor.
    pub fn new() -> io::Result<Self> {
        let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK);
        Ok(Self(timer.map_err(SystemCallError::of("timerfd_create"))?))
    }

    /// Sets the timer to an instant, or stops it. The timer expires at once if the instant has passed. Setting the
    /// timer clears an earlier expiry, so it never needs to be read.
    ///
    /// # Errors
    /// Returns the error of the system call, which is not expected to fail.
    pub fn set(&self, instant: Option<Instant>) -> nix::Result<()> {
        match instant {
            // A time of zero would stop the timer.
            Some(instant) => {
                let at = instant.since_boot().clamp(Duration::from_nanos(1), FAR_FUTURE);
                self.0.set(Expiration::OneShot(TimeSpec::from(at)), TimerSetTimeFlags::TFD_TIMER_ABSTIME)
            }
            None => self.0.unset(),
        }
    }
}

/// A time since boot (136 years) that no uptime reaches, and that the kernel still accepts.
const FAR_FUTURE: Duration = Duration::from_secs(u32::MAX as u64);

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    fn fires(timer: &Timer, timeout: PollTimeout) -> bool {
        poll(&mut [PollFd::new(timer.as_fd(), PollFlags::POLLIN)], timeout).unwrap() == 1
    }

    #[test]
    fn a_timer_set_to_the_past_fires_at_once_and_setting_it_again_clears_the_expiry() {
        let timer = Timer::new().unwrap();
        timer.set(Some(Instant::after_boot(Duration::ZERO))).unwrap();
        assert!(fires(&timer, PollTimeout::NONE));
        timer.set(Some(now() + Duration::from_secs(3600))).unwrap();
        assert!(!fires(&timer, PollTimeout::ZERO));
    }

    #[test]
    fn the_offset_of_a_time_namespace_is_parsed() {
        assert_eq!(
            parse_offset("monotonic           0         0\nboottime           -1000         5\n"),
            Some(-999_999_999_995)
        );
        assert_eq!(parse_offset(""), None);
        assert_eq!(time_namespace_offset_nanos().unwrap(), 0);
    }

    #[test]
    fn instants_saturate_instead_of_overflowing() {
        let now = now();
        assert!(now + Duration::MAX > now);
        assert_eq!((now - Duration::MAX).since(now), Duration::ZERO);
        Timer::new().unwrap().set(Some(now + Duration::MAX)).unwrap();
    }
}
