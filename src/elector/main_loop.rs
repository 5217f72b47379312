//! The elector's main loop. It relays signals, passes tenures to the supervisor, and kills the command if the
//! supervisor dies or freezes. It waits only for its descriptors, so a frozen supervisor or network cannot block it. The
//! one exception is limited in time: before the order to start the command, it waits until leaderrun's code is in memory.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::anyhow;
use leaderrun_core::elector::{Elector, ElectorAction, ElectorInputs, ElectorNotice, ExitReason};
use leaderrun_core::instant::Instant;
use leaderrun_core::lateness::probe_interval;
use leaderrun_core::messages::{End, Order, SupervisorNotice};
use leaderrun_core::signal::is_termination_signal;
use leaderrun_core::updates::{MeasuredThread, Update};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid};

use super::election_thread::{ElectionMessage, ElectionThread};
use super::memory_locking::MemoryLocking;
use super::{log_events, log_notices};
use crate::channel::ElectorEnd;
use crate::exit;
use crate::process::clock::{self, Timer};
use crate::process::pidfd::PidFd;
use crate::process::priority::Priority;
use crate::process::readable::is_any_ready_except;
use crate::process::signals::{InheritedSignals, ReceivedSignals, Signals};
use crate::process::standard_streams;
use crate::process::terminal::Terminal;
use crate::process::tree::{self, KillFailure, KillRounds, SharedNested, Tree};
use crate::telemetry::observer::Observer;
use crate::telemetry::systemd::Watchdog;

/// How long the elector, before it exits, waits for the death of the supervisor that it has killed, in milliseconds.
const SUPERVISOR_EXIT_TIMEOUT: u16 = 1000;

/// The PID of a container's init process.
const INIT: Pid = Pid::from_raw(1);

/// How long a container's init process waits for its last log line to be written before its exit ends the container.
const LAST_LINE_TIMEOUT: Duration = Duration::from_millis(20);

/// The message for the case that leaderrun's code could not be read into memory by the stop instant of the tenure.
const UNREADABLE_PROGRAM: &str = "cannot start the command: the file system with leaderrun's program does not respond; check \
                                  that file system";

/// The result of the main loop.
#[derive(Debug)]
pub struct LoopResult {
    pub exit_reason: ExitReason,
    /// Whether leaderrun received a termination signal or a request to step down.
    pub end_was_requested: bool,
    /// Whether the command had the terminal, so that Ctrl-C and Ctrl-\ reached only the command.
    pub command_had_terminal: bool,
}

/// The elector's main loop. It runs in the main thread.
pub struct MainLoop<'a> {
    elector: Elector,
    channel: ElectorEnd,
    supervisor: PidFd,
    supervisor_gone: bool,
    election: &'a ElectionThread,
    signals: Signals,
    inherited: InheritedSignals,
    timer: Timer,
    observer: Observer,
    /// A descriptor that becomes readable when traffic has been routed away from a command that is ending; `None` if no
    /// traffic is routed.
    withdrawn: Option<Arc<EventFd>>,
    watchdog: Option<Watchdog>,
    /// The terminal, with its modes before the start of the command.
    terminal: Option<Terminal>,
    command_had_terminal: bool,
    /// Whether to release stdin and stdout once the command runs.
    releases_streams: bool,
    /// The locking of leaderrun's code in memory, for which the start of the command waits.
    memory_locking: Option<MemoryLocking>,
    tree: Tree,
    /// The processes in nested PID namespaces, which the supervisor lists in shared memory.
    nested: Option<SharedNested>,
    kill: Option<KillRounds>,
    /// When to measure next how late this thread runs.
    next_probe: Instant,
    /// The raised priority of this thread; `None` before the order to start the command, or if it could not be raised.
    priority: Option<Priority>,
    /// Whether the last call to `reap` may have left dead children.
    is_partly_reaped: bool,
}

impl<'a> MainLoop<'a> {
    /// Creates the main loop of an elector whose supervisor has no orders yet.
    ///
    /// # Errors
    /// Fails if the kernel refuses to create a descriptor.
    pub fn new(
        channel: ElectorEnd,
        supervisor: PidFd,
        election: &'a ElectionThread,
        inherited: InheritedSignals,
        elector: Elector,
        observer: Observer,
        tree: Tree,
    ) -> io::Result<Self> {
        Ok(Self {
            elector,
            channel,
            supervisor,
            supervisor_gone: false,
            election,
            signals: Signals::new(&inherited)?,
            inherited,
            timer: Timer::new()?,
            observer,
            withdrawn: None,
            watchdog: None,
            terminal: None,
            command_had_terminal: false,
            releases_streams: false,
            memory_locking: None,
            tree,
            nested: None,
            kill: None,
            next_probe: clock::now(),
            priority: None,
            is_partly_reaped: false,
        })
    }

    /// Makes a kill include the processes in nested PID namespaces that the supervisor lists in this shared memory.
    pub fn with_nested(self, nested: SharedNested) -> Self {
        Self { nested: Some(nested), ..self }
    }

    /// Sets the descriptor that becomes readable when traffic has been routed away from a command that is ending.
    pub fn with_withdrawal(self, withdrawn: Option<Arc<EventFd>>) -> Self {
        Self { withdrawn, ..self }
    }

    /// Makes the loop release stdin and stdout once the command runs.
    pub fn releasing_streams(self) -> Self {
        Self { releases_streams: true, ..self }
    }

    /// Makes the start of the command wait until leaderrun's code is locked in memory.
    pub fn with_memory_locking(self, memory_locking: MemoryLocking) -> Self {
        Self { memory_locking: Some(memory_locking), ..self }
    }

    /// Makes the loop notify systemd's watchdog, if there is one, that the loop is alive.
    pub fn with_watchdog(self, watchdog: Option<Watchdog>) -> Self {
        Self { watchdog, ..self }
    }

    /// Runs until leaderrun is to exit.
    ///
    /// # Errors
    /// Fails if the kernel refuses to poll or to set the timer. The caller then ends this process, whereupon the
    /// supervisor stops the command.
    pub fn run(mut self) -> io::Result<LoopResult> {
        let exit_reason = loop {
            let inputs = self.inputs();
            let mut actions = self.elector.step(clock::now(), inputs).into_iter().peekable();
            // `step` returns a kill as the first action. The failure that is its cause is logged after it, so that
            // logging cannot delay the kill.
            let kill = actions.next_if(|action| matches!(action, ElectorAction::KillAll(_)));
            let kill_result = kill.is_some().then(|| self.begin_kill());
            let exit_reason = actions.find_map(|action| self.act(action));
            if let (Some(ElectorAction::KillAll(failure)), Some(kill_result)) = (kill, kill_result) {
                log_notices::elector_kill(failure, &self.tree.names());
                self.handle_kill_result(kill_result);
            }
            if let Some(exit_reason) = exit_reason {
                break exit_reason;
            }
            self.wait()?;
        };
        // At this point the supervisor has no descendants that could outlive it.
        let _ = self.supervisor.signal(Signal::SIGKILL);
        let _ = poll(&mut [PollFd::new(self.supervisor.as_fd(), PollFlags::POLLIN)], SUPERVISOR_EXIT_TIMEOUT);
        tree::reap(None, false);
        Ok(LoopResult {
            exit_reason,
            end_was_requested: self.elector.end_was_requested(),
            command_had_terminal: self.command_had_terminal,
        })
    }

    /// Collects the inputs of the next step.
    fn inputs(&mut self) -> ElectorInputs {
        // This check comes before the reports are received, so that the last report of a dead supervisor is handled no
        // later than its death.
        let supervisor_died = !self.supervisor_gone && self.supervisor.is_dead();
        self.supervisor_gone |= supervisor_died;
        let ReceivedSignals { numbers, terminal_resized, suspend_key_pressed } = self.signals.receive();
        if suspend_key_pressed {
            log_notices::not_suspended();
        }
        let is_ignored = |signal: i32| is_termination_signal(signal) && self.inherited.ignores(signal);
        let signals = numbers.into_iter().filter(|signal| !is_ignored(*signal)).collect();
        let inputs = ElectorInputs {
            reports: self.channel.receive(),
            election: self.election.reports(),
            supervisor_died,
            withdrawn: self.withdrawn.as_ref().is_some_and(|withdrawn| withdrawn.read().is_ok()),
            signals,
            terminal_resized,
            tree_empty: self.reap(),
        };
        if inputs.tree_empty {
            self.end_kill();
        }
        inputs
    }

    /// Reaps dead children, and returns whether no child is left. During a kill, this ignores dead children that cannot
    /// be reaped, but requires that every other process of the command is gone too.
    fn reap(&mut self) -> bool {
        let reaped = tree::reap(None, self.kill.is_some());
        self.is_partly_reaped = reaped.is_partial;
        if let Some(kill) = self.kill.as_mut().filter(|_| reaped.any_ended) {
            kill.handle_ended(clock::now());
        }
        let may_be_unreapable = !reaped.none_left && !reaped.is_partial;
        let kill = self.kill.as_mut().filter(|_| may_be_unreapable);
        let only_unreapable_left = kill.is_some_and(|kill| kill.only_unreapable_left(&self.tree, clock::now()));
        (reaped.none_left || only_unreapable_left) && (self.kill.is_none() || self.tree.confirm_empty())
    }

    /// Ends the kill, if there is one, and takes the terminal back if the command had it.
    fn end_kill(&mut self) {
        if self.kill.take().is_some()
            && let Some(terminal) = self.terminal.take().filter(|_| self.command_had_terminal)
        {
            terminal.take_back();
            terminal.restore_modes();
        }
    }

    /// Carries out an action. If it is [`ElectorAction::Exit`], returns the reason.
    fn act(&mut self, action: ElectorAction) -> Option<ExitReason> {
        match action {
            ElectorAction::Order(order) => self.order(&order),
            ElectorAction::ReportCommandGone { succeeded } => {
                self.election.send(ElectionMessage::CommandGone { succeeded });
            }
            ElectorAction::StopElection => self.election.send(ElectionMessage::Stop),
            // `run` has already carried this out.
            ElectorAction::KillAll(_) => {}
            ElectorAction::Notify(notice) => self.notify(&notice),
            ElectorAction::Exit(reason) => return Some(reason),
        }
        None
    }

    /// Sends an order. An order that cannot be sent is dropped; if no later order arrives, the tenure of the command
    /// expires. Before the order to start the command, waits until leaderrun's code is locked in memory, stores the
    /// terminal's modes, and raises this thread's priority. The order is dropped if the code cannot be read in time.
    fn order(&mut self, order: &Order) {
        if let Order::Start { tenure, .. } = order {
            let is_locked = |locking: MemoryLocking| locking.wait(tenure.stop);
            if !self.memory_locking.take().is_none_or(is_locked) {
                return log_notices::failed(&anyhow!(UNREADABLE_PROGRAM));
            }
            self.terminal = Terminal::of(getpid());
            self.priority = Priority::acquire();
        }
        let _ = self.channel.send(order);
    }

    /// Kills the supervisor, and runs the first round of the kill of all other processes.
    fn begin_kill(&mut self) -> Result<(), KillFailure> {
        let _ = self.supervisor.signal(Signal::SIGKILL);
        self.nested.iter().for_each(|nested| self.tree.adopt(nested));
        let now = clock::now();
        self.kill.insert(KillRounds::begin(now, self.elector.kill_pace(now))).run_round(&mut self.tree, now)
    }

    /// Logs why a round of the kill has failed, if it has. If this process is the init process of a container, and its
    /// exit makes the kernel kill the remaining processes, it exits.
    fn handle_kill_result(&self, result: Result<(), KillFailure>) {
        let Err(failure) = result else { return };
        if getpid() == INIT && failure.ends_with_init() {
            log_events::exiting_as_init(&self.tree.describe(failure));
            thread::sleep(LAST_LINE_TIMEOUT);
            // SAFETY: `_exit` has no preconditions. It runs no exit handlers, so nothing delays the end of this
            // process.
            unsafe { libc::_exit(exit::LOST.into()) }
        }
        log_events::cannot_kill(&self.tree.describe(failure));
    }

    fn notify(&mut self, notice: &ElectorNotice) {
        log_notices::elector(notice);
        self.observer.notify(match notice {
            ElectorNotice::CommandStarted { .. } => {
                if self.releases_streams {
                    standard_streams::release(0..=1);
                }
                Update::CommandStarted
            }
            ElectorNotice::Supervisor(SupervisorNotice::RunsLate { delay }) => {
                Update::SchedulingDelay { thread: MeasuredThread::Supervisor, delay: *delay }
            }
            ElectorNotice::Supervisor(SupervisorNotice::KillTime { kill_time, .. }) => Update::KillTime(*kill_time),
            ElectorNotice::Supervisor(SupervisorNotice::HasTerminal) => {
                self.command_had_terminal = true;
                return;
            }
            ElectorNotice::Leading(tenure) => {
                // The supervisor has brought the stop forward. The election logs failures with the time until the stop.
                if self.elector.granted().is_some_and(|granted| tenure.stop < granted.stop) {
                    self.election.send(ElectionMessage::StopBroughtForward(tenure.stop));
                }
                Update::Leading { stop: tenure.stop, gone_by: tenure.elector_kill_at() }
            }
            ElectorNotice::Lost(loss) => Update::Lost(*loss),
            ElectorNotice::TerminationSignal(_) => Update::TerminationRequested,
            ElectorNotice::Terminating => Update::Terminating,
            ElectorNotice::CommandEnded(End::Exited(status)) => Update::CommandEnded(status.to_string()),
            ElectorNotice::CommandEnded(End::TimedOut) => Update::CommandEnded(exit::TIMED_OUT.to_string()),
            ElectorNotice::CommandEnded(End::Signaled(signal)) => {
                Update::CommandEnded(exit::of_signal(*signal).to_string())
            }
            ElectorNotice::CommandGone => Update::CommandGone,
            _ => return,
        });
    }

    /// Waits for an event that the next step has to handle.
    fn wait(&mut self) -> io::Result<()> {
        while !self.wait_once()? {}
        Ok(())
    }

    /// Waits for an event, or for the next measurement of how late this thread runs. Returns whether there is anything
    /// for the next step to handle. Also does what is due without a step: this notifies the watchdog, runs the next
    /// round of a kill, whose failure may end this process, and makes the measurement.
    fn wait_once(&mut self) -> io::Result<bool> {
        let next_round = self.kill.as_ref().map(KillRounds::next_round);
        let watchdog = self.watchdog.as_mut().map(|watchdog| {
            watchdog.handle_timeout(clock::now());
            watchdog.next_timeout()
        });
        let next_timeout = [self.elector.next_timeout(), next_round, watchdog].into_iter().flatten().min();
        self.timer.set(next_timeout.into_iter().chain([self.next_probe]).min())?;
        // This is an array, because a Vec would have to wait for memory if memory is short. The timer takes the place
        // of descriptors that do not exist or would always be ready.
        let timer = self.timer.as_fd();
        let channel = if self.channel.is_open() { self.channel.as_fd() } else { timer };
        let supervisor = if self.supervisor_gone { timer } else { self.supervisor.as_fd() };
        let withdrawn = self.withdrawn.as_ref().map_or(timer, |withdrawn| withdrawn.as_fd());
        let descriptors = [timer, self.signals.as_fd(), self.election.as_fd(), supervisor, channel, withdrawn];
        let mut descriptors = descriptors.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        // Dead children that are left to be reaped cause no further SIGCHLD, so poll must not block.
        let timeout = if self.is_partly_reaped { PollTimeout::ZERO } else { PollTimeout::NONE };
        match poll(&mut descriptors, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let is_any_ready = self.is_partly_reaped || is_any_ready_except(timer, &descriptors);
        let now = clock::now();
        let kill = self.kill.as_mut().filter(|kill| now >= kill.next_round());
        let result = kill.map_or(Ok(()), |kill| kill.run_round(&mut self.tree, now));
        self.handle_kill_result(result);
        let has_changed = self.probe();
        Ok(is_any_ready || has_changed || next_timeout.is_some_and(|at| clock::now() >= at))
    }

    /// Measures how late this thread runs, if that is due. Returns whether the delay that the supervisor allows for has
    /// to change. If so, the next step returns an order with the new delay.
    fn probe(&mut self) -> bool {
        let now = clock::now();
        if now < self.next_probe {
            return false;
        }
        let delay = self.elector.note_delay(now, now.since(self.next_probe));
        if let Some(delay) = delay {
            self.observer.notify(Update::SchedulingDelay { thread: MeasuredThread::Elector, delay });
        }
        self.next_probe = now + probe_interval(self.elector.is_leading());
        delay.is_some()
    }
}
