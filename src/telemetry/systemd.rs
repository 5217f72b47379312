//! Notifications to systemd with the protocol of sd_notify(3), if `NOTIFY_SOCKET` is set.
//!
//! leaderrun is the main process of its unit, and reports that it is ready (as `--ready-when` defines it), what it is
//! doing, that its main loop is alive, and that it is stopping. The command inherits `NOTIFY_SOCKET`. With
//! `NotifyAccess=main`, the default of `Type=notify`, systemd ignores messages from the command. With
//! `NotifyAccess=all`, systemd accepts messages from both. With `--notify command`, the command reports while it runs;
//! during that time, leaderrun only reports that it is stopping.
//!
//! The crate `sd-notify` is not used, because it blocks while systemd's queue is full, for example while systemd
//! re-executes itself. leaderrun must never wait for systemd.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use leaderrun_core::instant::Instant;
use leaderrun_core::updates::Update;

use super::log::{on_one_line, printable_root_cause};
use super::log_events;
use super::observer::Observer;
use super::state::{CandidateState, ELECTION_DELAY_LIMIT, ReadyWhen};

/// The process that reports to systemd while the command runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum NotifyBy {
    Leaderrun,
    /// The command itself. The unit needs `NotifyAccess=all`.
    Command,
}

/// The socket on which systemd receives notifications.
#[derive(Clone, Debug)]
pub struct NotifySocket {
    socket: Arc<UnixDatagram>,
    address: SocketAddr,
}

impl NotifySocket {
    /// Returns the socket that `NOTIFY_SOCKET` names; `None` if the variable is unset or empty.
    ///
    /// # Errors
    /// Fails if the variable is set to an unusable value, or if no socket can be created.
    pub fn from_environment() -> io::Result<Option<Self>> {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(None) };
        let address = match name.as_encoded_bytes() {
            b"" => return Ok(None),
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(&name)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Some(Self { socket: Arc::new(socket), address }))
    }

    /// Sends variable assignments, one on each line. The path of the socket is resolved each time, because systemd may
    /// have created the socket again.
    fn send(&self, message: &str) -> io::Result<()> {
        self.socket.send_to_addr(message.as_bytes(), &self.address).map(drop)
    }
}

/// Reports a candidate's state to systemd.
#[derive(Debug)]
pub struct ServiceNotifier {
    socket: NotifySocket,
    notify_by: NotifyBy,
    /// The last report that was sent; initially the default.
    sent: ServiceReport,
    /// Whether a failure was logged. Later failures are not logged.
    has_logged_failure: bool,
}

/// The part of a candidate's state that is reported to systemd.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ServiceReport {
    is_ready: bool,
    is_stopping: bool,
    status: String,
}

impl ServiceReport {
    /// Returns the message about the changes since the previous report; `None` if there are none.
    fn message_after(&self, before: &Self) -> Option<String> {
        let ready = (self.is_ready && !before.is_ready).then(|| "READY=1\n".to_owned());
        let stopping = (self.is_stopping && !before.is_stopping).then(|| "STOPPING=1\n".to_owned());
        let status = (self.status != before.status).then(|| format!("STATUS={}\n", on_one_line(&self.status)));
        let message: String = [ready, stopping, status].into_iter().flatten().collect();
        (!message.is_empty()).then_some(message)
    }
}

impl ServiceNotifier {
    /// Creates a notifier that has not sent anything yet.
    pub fn new(socket: NotifySocket, notify_by: NotifyBy) -> Self {
        Self { socket, notify_by, sent: ServiceReport::default(), has_logged_failure: false }
    }

    /// Sends the changes since the last message that was sent. If sending fails, for example because systemd's queue is
    /// full, the next call sends these changes too.
    pub fn report(&mut self, state: &CandidateState, now: Instant) {
        let report = self.next_report(state, now);
        let Some(message) = report.message_after(&self.sent) else { return };
        match self.socket.send(&message) {
            Ok(()) => self.sent = report,
            Err(failure) if failure.kind() == io::ErrorKind::WouldBlock => {}
            Err(failure) if self.has_logged_failure => drop(failure),
            Err(failure) => {
                self.has_logged_failure = true;
                log_events::notify_failed(&printable_root_cause(&failure));
            }
        }
    }

    fn next_report(&self, state: &CandidateState, now: Instant) -> ServiceReport {
        let is_stopping = self.sent.is_stopping || state.is_ending();
        if self.notify_by == NotifyBy::Command {
            if state.is_command_running() {
                return ServiceReport { is_stopping, ..self.sent.clone() };
            }
            // leaderrun would be ready only while the command runs, and then the command reports its own readiness.
            if state.config().ready_when == ReadyWhen::Leading {
                return ServiceReport { is_stopping, status: state.summary(now), ..self.sent.clone() };
            }
        }
        let is_ready = self.sent.is_ready || state.readiness(now).is_ok();
        ServiceReport { is_ready, is_stopping, status: state.summary(now) }
    }
}

/// Notifies systemd that the elector's main loop is alive and the election is not stuck.
#[derive(Debug)]
pub struct Watchdog {
    socket: NotifySocket,
    /// The time between two notifications: half of systemd's timeout.
    interval: Duration,
    next: Instant,
    notify_by: NotifyBy,
    view: Arc<WatchdogView>,
}

/// The state of other threads that the watchdog needs. It is atomic, so that the watchdog never waits for a mutex.
#[derive(Debug, Default)]
struct WatchdogView {
    /// The instant by which the election must act, in nanoseconds since boot; zero while it only waits for input.
    election_due: AtomicU64,
    is_command_running: AtomicBool,
}

impl Watchdog {
    /// Returns the watchdog that `WATCHDOG_USEC` requests, unless `WATCHDOG_PID` names another process.
    pub fn from_environment(socket: NotifySocket, notify_by: NotifyBy, now: Instant) -> Option<Self> {
        let variable = |name: &str| std::env::var(name).ok();
        let is_ours = variable("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        let timeout = Duration::from_micros(variable("WATCHDOG_USEC")?.parse().ok()?);
        let interval = timeout / 2;
        (is_ours && !interval.is_zero()).then(|| Self { socket, interval, next: now, notify_by, view: Arc::default() })
    }

    /// Returns an observer that updates the watchdog's view of the election and the command.
    pub fn observer(&self) -> Observer {
        let view = Arc::clone(&self.view);
        Observer::new(move |update| match update {
            Update::NextTimeout(due) => {
                view.election_due.store(due.map_or(0, Instant::as_nanos), Ordering::Relaxed);
            }
            Update::CommandStarted => view.is_command_running.store(true, Ordering::Relaxed),
            Update::CommandGone => view.is_command_running.store(false, Ordering::Relaxed),
            _ => {}
        })
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) must be called next.
    pub fn next_timeout(&self) -> Instant {
        self.next
    }

    /// Notifies systemd if a notification is due, unless the election is stuck or the command sends the notifications.
    /// It never blocks, and may be called early.
    pub fn handle_timeout(&mut self, now: Instant) {
        if now < self.next {
            return;
        }
        let due = Duration::from_nanos(self.view.election_due.load(Ordering::Relaxed));
        let is_stuck = !due.is_zero() && now >= Instant::after_boot(due) + ELECTION_DELAY_LIMIT;
        let command_notifies =
            self.notify_by == NotifyBy::Command && self.view.is_command_running.load(Ordering::Relaxed);
        let has_failed = !is_stuck && !command_notifies && self.socket.send("WATCHDOG=1\n").is_err();
        // After a failure, for example because systemd's queue is full, retry well before systemd's timeout.
        self.next = now + if has_failed { self.interval / 10 } else { self.interval };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_are_sent_to_systemd() {
        let waiting = ServiceReport { is_ready: true, is_stopping: false, status: "standby".into() };
        let first = waiting.message_after(&ServiceReport::default());
        assert_eq!(first.as_deref(), Some("READY=1\nSTATUS=standby\n"));
        assert_eq!(waiting.message_after(&waiting), None);
        let stopping = ServiceReport { is_stopping: true, ..waiting.clone() };
        assert_eq!(stopping.message_after(&waiting).as_deref(), Some("STOPPING=1\n"));
    }
}
