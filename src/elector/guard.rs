//! The guard: relays signals, passes the tenure on, and is the last resort when the supervisor dies or
//! freezes. It waits for nothing but its descriptors.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::getpid;
use tracing::{error, info, warn};

use super::campaign::{Event, Notice, Race};
use crate::channel::{ElectorEnd, End, Gone, Order, Report};
use crate::election::Outcome;
use crate::election::tenure::Tenure;
use crate::exit;
use crate::process::clock::{Instant, Timer};
use crate::process::kill::Kill;
use crate::process::pidfd::PidFd;
use crate::process::signals::{self, Inherited, Signals, asks_for_an_end};
use crate::process::terminal::Terminal;
use crate::process::tree;
use crate::telemetry::metrics::Loss;
use crate::telemetry::state::{Observer, Update};

/// How long the end is put off for a lease that may just have been won; the election takes a second.
const GIVE_BACK: Duration = Duration::from_millis(1100);

/// How long the end is put off for an election thread that has nothing to give back.
const GOOD_BYE: Duration = Duration::from_millis(50);

/// How long the end waits for the supervisor's death, milliseconds.
const LAST_LOOK: u16 = 1000;

/// The elector's main thread.
pub struct Guard {
    channel: ElectorEnd,
    supervisor: PidFd,
    race: Race,
    signals: Signals,
    inherited: Inherited,
    timer: Timer,
    phase: Phase,
    longest_release: Duration,
    observer: Observer,
    terminal: Option<Terminal>,
    /// The signal that asked leaderrun to end, if one was relayed.
    asked_to_end: Option<i32>,
}

#[derive(Debug)]
enum Phase {
    /// No command was ever started.
    Waiting { claiming: bool },
    /// The supervisor was told to start the command and has not said that it is gone.
    Leading {
        /// What the supervisor enforces, by its own word. It must have the tree gone by then.
        enforced: Tenure,
        lost: bool,
    },
    /// The supervisor failed: the guard kills the tree itself.
    Killing(Kill),
    /// No command is alive; the lease is being given back.
    Ending { status: u8, until: Instant },
}

impl Guard {
    /// A guard over a supervisor that has nothing to do yet.
    ///
    /// # Errors
    /// When the kernel gives no descriptor.
    pub fn new(
        channel: ElectorEnd,
        supervisor: PidFd,
        race: Race,
        inherited: Inherited,
        longest_release: Duration,
        observer: Observer,
    ) -> io::Result<Self> {
        let (signals, timer) = (Signals::all()?, Timer::new()?);
        let phase = Phase::Waiting { claiming: false };
        Ok(Self {
            channel,
            supervisor,
            race,
            signals,
            inherited,
            timer,
            phase,
            longest_release,
            observer,
            terminal: None,
            asked_to_end: None,
        })
    }

    /// Stands guard until everything has come to an end, and returns leaderrun's exit status.
    ///
    /// # Errors
    /// When the election cannot take place, or the kernel refuses what everything depends on.
    pub fn stand(mut self) -> anyhow::Result<u8> {
        let status = self.watch();
        // It has nothing to do and nothing below it.
        let _ = self.supervisor.signal(Signal::SIGKILL);
        let _ = poll(&mut [PollFd::new(self.supervisor.as_fd(), PollFlags::POLLIN)], LAST_LOOK);
        tree::reap();
        status
    }

    fn watch(&mut self) -> anyhow::Result<u8> {
        loop {
            for report in self.channel.receive() {
                self.handle_report(report);
            }
            for event in self.race.events() {
                self.handle_event(event)?;
            }
            if let Some(status) = self.handle_time(Instant::now()) {
                return Ok(status);
            }
            for signal in self.signals.receive() {
                self.handle_signal(signal);
            }
            self.handle_children();
            self.wait()?;
        }
    }

    fn handle_report(&mut self, report: Report) {
        match report {
            Report::Enforcing(tenure) => {
                if let Phase::Leading { enforced, lost: false } = &mut self.phase {
                    *enforced = tenure;
                    self.tell_leading();
                }
            }
            Report::Started { pid } => {
                info!("started the command, process {pid}");
                self.observer.tell(Update::CommandStarted);
            }
            Report::Gone(gone) => {
                if let Phase::Leading { lost, .. } = self.phase {
                    self.tell_gone(&gone, lost);
                    let well = gone.end == End::Exited(0) && !gone.lost;
                    self.end(self.exit_status(&gone), well);
                }
            }
            Report::Log { warning: true, text } => warn!("{text}"),
            Report::Log { warning: false, text } => info!("{text}"),
        }
    }

    fn handle_event(&mut self, event: Event) -> anyhow::Result<()> {
        match event {
            Event::Claiming => {
                if let Phase::Waiting { claiming } = &mut self.phase {
                    *claiming = true;
                }
            }
            Event::NotWon => {
                if let Phase::Waiting { claiming } = &mut self.phase {
                    *claiming = false;
                }
            }
            Event::Lead { tenure, environment } => match self.phase {
                Phase::Waiting { .. } => {
                    self.terminal = Terminal::of_foreground_job(getpid());
                    self.phase = Phase::Leading { enforced: tenure, lost: false };
                    self.tell_leading();
                    self.order(&Order::Start { tenure, environment });
                }
                // Won after all, when the end had begun.
                _ => self.race.notify(Notice::TreeGone { well: false }),
            },
            Event::Extend(tenure) => self.order(&Order::Extend(tenure)),
            Event::StepDown => self.relay(libc::SIGTERM),
            Event::Lose => {
                if let Phase::Leading { enforced, lost } = &mut self.phase {
                    (*enforced, *lost) = (Tenure::over(Instant::now()), true);
                    self.tell_leading();
                    self.observer.tell(Update::Lost(Loss::Taken));
                }
                self.order(&Order::Lose);
            }
            Event::Finished(outcome) => self.handle_finished(outcome),
            Event::Failed(failure) => return Err(failure),
        }
        Ok(())
    }

    fn handle_finished(&mut self, outcome: Outcome) {
        let now = Instant::now();
        match (&mut self.phase, outcome) {
            (Phase::Waiting { .. }, Outcome::NotAcquired) => {
                info!("not acquired in time");
                self.phase = Phase::Ending { status: exit::NOT_ACQUIRED, until: now };
            }
            (Phase::Ending { until, .. }, outcome) => {
                if outcome == Outcome::NotReleased {
                    warn!("the lease could not be given back: it will run out");
                }
                *until = now;
            }
            _ => {}
        }
    }

    fn handle_signal(&mut self, signal: i32) {
        if !signals::is_relayed(signal) || (asks_for_an_end(signal) && self.inherited.ignores(signal)) {
            return;
        }
        match &mut self.phase {
            Phase::Leading { .. } => self.relay(signal),
            Phase::Waiting { claiming } if asks_for_an_end(signal) => {
                let patience = if *claiming { GIVE_BACK } else { GOOD_BYE };
                info!("{}: waiting no longer", signals::name(signal));
                self.race.notify(Notice::Stop);
                let status = exit::SIGNALED + signal as u8;
                self.phase = Phase::Ending { status, until: Instant::now() + patience };
            }
            Phase::Ending { until, .. } if asks_for_an_end(signal) => {
                self.race.notify(Notice::Stop);
                *until = (*until).min(Instant::now() + GIVE_BACK);
            }
            _ => {}
        }
    }

    fn relay(&mut self, signal: i32) {
        if let Phase::Leading { .. } = self.phase {
            self.asked_to_end = self.asked_to_end.or(asks_for_an_end(signal).then_some(signal));
            self.order(&Order::Signal(signal));
        }
    }

    /// Deadlines and the supervisor's death. The exit status when the end has come.
    fn handle_time(&mut self, now: Instant) -> Option<u8> {
        match &self.phase {
            Phase::Leading { .. } | Phase::Waiting { .. } if self.supervisor.is_dead() => {
                // It may have died with its last word unread.
                for report in self.channel.receive() {
                    self.handle_report(report);
                }
                match self.phase {
                    Phase::Leading { .. } => self.take_over("the supervisor died", Loss::SupervisorDied),
                    Phase::Waiting { .. } => {
                        error!("the supervisor died");
                        self.race.notify(Notice::Stop);
                        self.phase = Phase::Ending { status: exit::FAILED, until: now + GIVE_BACK };
                    }
                    _ => {}
                }
                None
            }
            Phase::Leading { enforced, .. } if now >= enforced.last_resort() => {
                self.take_over("the supervisor did not have the command dead in time", Loss::SupervisorLate);
                None
            }
            Phase::Killing(kill) if now >= kill.next_round() => {
                self.kill_children();
                None
            }
            Phase::Ending { status, until } if now >= *until => Some(*status),
            _ => None,
        }
    }

    fn take_over(&mut self, reason: &str, loss: Loss) {
        if matches!(self.phase, Phase::Leading { lost: false, .. }) {
            self.observer.tell(Update::Lost(loss));
        }
        error!("{reason}: killing the command");
        let _ = self.supervisor.signal(Signal::SIGKILL);
        self.phase = Phase::Killing(Kill::begin(Instant::now()));
        self.kill_children();
    }

    fn kill_children(&mut self) {
        let Phase::Killing(kill) = &mut self.phase else { return };
        if let Some(refused) = kill.kill_children(Instant::now()) {
            error!("{refused}");
        }
    }

    fn handle_children(&mut self) {
        let reaped = tree::reap();
        if let Phase::Killing(kill) = &mut self.phase {
            if reaped.none_left {
                if let Some(terminal) = self.terminal.take() {
                    terminal.take_back();
                }
                return self.end(exit::LOST, false);
            }
            if !reaped.ended.is_empty() {
                kill.handle_ended(Instant::now());
            }
        }
    }

    /// Nothing of the command is left: the lease is given back.
    fn end(&mut self, status: u8, well: bool) {
        self.observer.tell(Update::Gone);
        self.race.notify(Notice::TreeGone { well });
        self.phase = Phase::Ending { status, until: Instant::now() + self.longest_release };
    }

    fn wait(&self) -> io::Result<()> {
        self.timer.set(match &self.phase {
            Phase::Waiting { .. } => None,
            Phase::Leading { enforced, .. } => Some(enforced.last_resort()),
            Phase::Killing(kill) => Some(kill.next_round()),
            Phase::Ending { until, .. } => Some(*until),
        })?;
        let mut descriptors = vec![
            PollFd::new(self.timer.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.race.as_fd(), PollFlags::POLLIN),
        ];
        if matches!(self.phase, Phase::Waiting { .. } | Phase::Leading { .. }) {
            descriptors.push(PollFd::new(self.supervisor.as_fd(), PollFlags::POLLIN));
            descriptors.push(PollFd::new(self.channel.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut descriptors, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn tell_leading(&self) {
        if let Phase::Leading { enforced, .. } = self.phase {
            self.observer.tell(Update::Leading { stop: enforced.stop, gone: enforced.last_resort() });
        }
    }

    fn tell_gone(&self, gone: &Gone, known_lost: bool) {
        if gone.lost && !known_lost {
            self.observer.tell(Update::Lost(Loss::NotRenewed));
        }
        match gone.end {
            End::Exited(status) => self.observer.tell(Update::CommandEnded(status.to_string())),
            End::Signaled(signal) => {
                self.observer.tell(Update::CommandEnded((i32::from(exit::SIGNALED) + signal).to_string()))
            }
            End::NotStarted | End::NotExecuted(_) => {}
        }
    }

    /// An order that the supervisor does not take is lost; its time then runs out.
    fn order(&self, order: &Order) {
        let _ = self.channel.send(order);
    }

    fn exit_status(&self, gone: &Gone) -> u8 {
        if gone.lost {
            return exit::LOST;
        }
        match gone.end {
            End::Exited(status) => status as u8,
            End::Signaled(signal) => exit::SIGNALED + signal as u8,
            End::NotExecuted(libc::ENOENT) => exit::NOT_FOUND,
            // For want of processes or memory, which says nothing about the command.
            End::NotExecuted(libc::EAGAIN | libc::ENOMEM) => exit::FAILED,
            End::NotExecuted(_) => exit::NOT_EXECUTABLE,
            End::NotStarted => self.asked_to_end.map_or(exit::LOST, |signal| exit::SIGNALED + signal as u8),
        }
    }
}
