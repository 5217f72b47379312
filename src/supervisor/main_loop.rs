//! The supervisor's main loop.

mod signals;

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use leaderrun_core::instant::Instant;
use leaderrun_core::kill_time::TaskCount;
use leaderrun_core::lateness::probe_interval;
use leaderrun_core::messages::{End, Gone, KillReason, Order, Report, SupervisorNotice};
use leaderrun_core::signal::is_termination_signal;
use leaderrun_core::supervisor::{StartResult, Supervisor, SupervisorAction, SupervisorInputs};
use leaderrun_core::tenure::Tenure;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::{Pid, setpgid};

use super::command_terminal::CommandTerminal;
use super::command_tree::CommandTree;
use super::relay::Relay;
use super::spawn::{self, ExecState, Program, Spawned};
use super::{SupervisorConfig, WaitFor};
use crate::channel::SupervisorEnd;
use crate::process::clock::{self, Timer};
use crate::process::dead_mans_switch::DeadMansSwitch;
use crate::process::deadline::{self, Deadline};
use crate::process::memory;
use crate::process::pidfd::PidFd;
use crate::process::priority::Priority;
use crate::process::readable::is_any_ready_except;
use crate::process::signals::{InheritedSignals, Signals};
use crate::process::standard_streams;
use crate::process::system_call::SystemCallError;
use crate::process::terminal::TerminalPolicy;
use crate::process::tree::{self, Ended, KillFailure, SharedNested, Tree};
use crate::telemetry::log::printable;

/// How long after its own start, and after the start of the command, the supervisor first measures the delay of a kill.
/// It does not measure at once, because that would delay the command.
const FIRST_PROBE_DELAY: Duration = Duration::from_millis(50);

/// The supervisor's main loop. It runs in the supervisor's only thread.
pub struct MainLoop<'a> {
    config: SupervisorConfig,
    program: Program,
    supervisor: Supervisor,
    channel: &'a SupervisorEnd,
    elector: PidFd,
    elector_gone: bool,
    signals: Signals,
    relay: Relay,
    inherited: InheritedSignals,
    timer: Timer,
    /// The main process of the command, from its fork until the command is gone.
    main: Option<Pid>,
    /// The forked process, as long as it has not executed the command yet.
    exec: Option<Spawned>,
    /// The result of the last start, for the next step.
    start: Option<StartResult>,
    /// The end of a command that could not be forked, for the next step.
    not_forked: Option<End>,
    /// The end of a command whose exec failed, until its process is reaped.
    not_executed: Option<End>,
    terminal: CommandTerminal,
    elector_pid: Pid,
    tree: CommandTree,
    /// When to measure next by how much a kill would be delayed.
    next_probe: Instant,
    /// The raised priority of this thread; `None` while no command is running, or if the priority could not
    /// be raised.
    priority: Option<Priority>,
    /// Whether this process has tried to lock itself in memory.
    lock_memory_tried: bool,
    /// The deadline that `leaderrun check` reads, unless the kernel has refused to create it.
    deadline: Option<Deadline>,
    /// The switch that kills the command if both of leaderrun's processes die, unless the kernel has refused to create
    /// it.
    switch: Option<DeadMansSwitch>,
}

impl<'a> MainLoop<'a> {
    /// Creates the main loop of a supervisor that has received no orders yet.
    ///
    /// # Errors
    /// Fails if the kernel refuses a system call, if /proc cannot be used, if the elector is already dead, or if an
    /// argument of the command contains a NUL byte.
    pub fn new(
        config: SupervisorConfig,
        channel: &'a SupervisorEnd,
        elector: Pid,
        nested: SharedNested,
        inherited: InheritedSignals,
        switch: io::Result<DeadMansSwitch>,
    ) -> io::Result<Self> {
        let elector_fd = PidFd::open(elector)?;
        if nix::unistd::getppid() != elector {
            return Err(io::Error::other("the elector died before it could be watched"));
        }
        setpgid(Pid::from_raw(0), Pid::from_raw(0)).map_err(SystemCallError::of("setpgid"))?;
        tree::adopt_orphans()?;
        let tree = CommandTree::new(Tree::open(&config.run.to_string())?.storing_nested_in(nested));
        let deadline = Deadline::new(&config.run.to_string());
        if let Err(reason) = &deadline {
            let notice = SupervisorNotice::CheckUnavailable { reason: reason.to_string() };
            let _ = channel.send(&Report::Notice(notice));
        }
        if let Err(reason) = &switch {
            let notice = SupervisorNotice::SwitchUnavailable { reason: reason.to_string() };
            let _ = channel.send(&Report::Notice(notice));
        }
        // With `--kill-after`, the command gets the terminal only when SIGTTIN or SIGTTOU suspends it, so that Ctrl-C
        // reaches leaderrun until then. A command that ignores SIGTTIN is not suspended, so it gets the terminal at the
        // start.
        let only_on_demand = config.stop_options.kill_after.is_some() && !inherited.ignores(libc::SIGTTIN);
        let terminal_policy = TerminalPolicy::new(config.foreground).only_on_demand(only_on_demand);
        Ok(Self {
            program: Program::new(&config.command).map_err(io::Error::other)?,
            supervisor: Supervisor::new(config.stop_options.clone())
                .with_frozen_elector_timeout(config.frozen_elector_timeout)
                .with_wait_for_all(config.wait_for == WaitFor::All)
                .with_max_advance(config.max_advance),
            config,
            channel,
            elector: elector_fd,
            elector_gone: false,
            signals: Signals::new(&inherited)?,
            relay: Relay::default(),
            inherited,
            timer: Timer::new()?,
            main: None,
            exec: None,
            start: None,
            not_forked: None,
            not_executed: None,
            terminal: CommandTerminal::new(elector, terminal_policy),
            elector_pid: elector,
            tree,
            next_probe: clock::now() + FIRST_PROBE_DELAY,
            priority: None,
            lock_memory_tried: false,
            deadline: deadline.ok(),
            switch: switch.ok(),
        })
    }

    /// Runs until the elector is dead and no process of the command is left.
    ///
    /// # Errors
    /// Fails if the kernel refuses to poll or to set the timer.
    pub fn run(&mut self) -> io::Result<()> {
        loop {
            let inputs = self.inputs();
            for action in self.supervisor.step(clock::now(), inputs) {
                self.act(action);
            }
            if self.elector_gone && self.main.is_none() && self.start.is_none() {
                return Ok(());
            }
            // The result of a start is handled at once, in the next step.
            if self.start.is_none() {
                self.wait()?;
            }
        }
    }

    /// Receives orders, checks on the elector and the exec, and reaps children. Returns the inputs of the next step.
    fn inputs(&mut self) -> SupervisorInputs {
        let elector_died = !self.elector_gone && self.elector.is_dead();
        self.elector_gone |= elector_died;
        let orders = self.receive_orders();
        self.check_exec();
        let (main_ended, tree_empty) = self.reap();
        SupervisorInputs { start: self.start.take(), orders, elector_died, main_ended, tree_empty }
    }

    /// Receives orders. An order to start the command sets its environment.
    fn receive_orders(&mut self) -> Vec<Order> {
        let orders = self.channel.receive();
        for order in &orders {
            if let Order::Start { environment, .. } = order {
                self.set_environment(environment.clone());
            }
        }
        orders
    }

    fn set_environment(&mut self, mut added: Vec<(String, String)>) {
        if let Some(deadline) = &self.deadline {
            let number = deadline.as_fd().as_raw_fd();
            added.push((deadline::FD_VARIABLE.to_owned(), number.to_string()));
        }
        self.program.set_environment(&self.config.removed_variables, &added, self.elector_pid);
    }

    /// If the exec has succeeded, reports that. If it has failed, stores how the command ended.
    fn check_exec(&mut self) {
        let Some(spawned) = &self.exec else { return };
        match spawned.exec_state() {
            ExecState::Pending => return,
            ExecState::Executed => self.report(&Report::Started { pid: spawned.pid.as_raw() }),
            ExecState::Failed(failure) => {
                self.notify(self.not_executed_notice(failure.reason));
                self.not_executed = Some(End::NotExecuted(failure.errno as i32));
            }
            ExecState::TooLate => self.not_executed = Some(End::NotStarted),
        }
        self.exec = None;
    }

    /// Reaps dead children, and handles a suspension of the main process. Returns how the main process ended, if it
    /// did, and whether no process of the command is left.
    fn reap(&mut self) -> (Option<End>, bool) {
        if let Some(end) = self.not_forked.take() {
            return (Some(end), true);
        }
        let reaped = self.tree.reap(self.main);
        if reaped.main_ended.is_some() {
            // The process may have sent a message through the exec pipe before it died.
            self.check_exec();
        }
        let main_ended = reaped.main_ended.map(|ended| {
            self.not_executed.take().unwrap_or(match ended {
                Ended::Exited(status) => End::Exited(status),
                Ended::Signaled(signal) => End::Signaled(signal),
            })
        });
        if let (Some(main), Some(signal)) = (self.main, reaped.main_suspended_by) {
            self.handle_suspended(main, signal);
        }
        (main_ended, reaped.none_left)
    }

    fn act(&mut self, action: SupervisorAction) {
        match action {
            SupervisorAction::SetHeldUntil(held_until) => {
                if let Some(deadline) = &self.deadline {
                    deadline.set(held_until);
                }
            }
            SupervisorAction::Start(tenure) => self.start(tenure),
            SupervisorAction::Signal(signal) => {
                if is_termination_signal(signal) || signal == self.config.stop_options.stop_signal {
                    self.tree.scan(self.supervisor.next_timeout());
                }
                if let Some(signal) = self.relay.accept(clock::now(), signal) {
                    self.signal(signal);
                }
            }
            SupervisorAction::Stop => {
                let signal = self.config.stop_options.stop_signal;
                self.tree.scan(self.supervisor.next_timeout());
                if self.signal(signal) {
                    self.notify(SupervisorNotice::Stopping { signal });
                }
            }
            SupervisorAction::ReportLeftovers { awaited } => {
                if let Some(processes) = self.tree.names_of_live_children() {
                    self.notify(SupervisorNotice::LeftRunning { processes, awaited });
                }
            }
            SupervisorAction::SignalLeftovers(signal) => self.tree.signal_children(signal),
            SupervisorAction::TimeOut => {
                let signal = self.config.stop_options.stop_signal;
                self.tree.scan(self.supervisor.next_timeout());
                if self.signal(signal) {
                    self.notify(SupervisorNotice::TimedOut { signal });
                }
            }
            SupervisorAction::TerminateLeftovers => self.tree.begin_terminating(),
            SupervisorAction::Kill(reason) => self.begin_kill(reason),
            SupervisorAction::Report(Report::Gone(gone)) => self.report_gone(gone),
            SupervisorAction::KillElector => drop(self.elector.signal(Signal::SIGKILL)),
            SupervisorAction::Report(report) => self.report(&report),
        }
    }

    fn start(&mut self, tenure: Tenure) {
        if clock::now() >= tenure.stop {
            self.start = Some(StartResult::TooLate);
            return;
        }
        self.start = Some(StartResult::Attempted);
        let start = spawn::Start {
            program: &self.program,
            tenure,
            signals: &self.inherited,
            terminal: self.terminal.choose_for_start(),
            deadline_fd: self.deadline.as_ref().map(AsFd::as_fd),
            switch: self.switch.as_ref(),
        };
        match start.spawn() {
            Ok(spawned) => {
                self.main = Some(spawned.pid);
                // This comes after the fork, because SCHED_RESET_ON_FORK would set the command's nice value to zero.
                self.priority = Priority::acquire();
                self.next_probe = clock::now() + FIRST_PROBE_DELAY;
                self.exec = Some(spawned);
                standard_streams::release(0..=2);
                if self.terminal.is_given() {
                    self.notify(SupervisorNotice::HasTerminal);
                }
            }
            Err(error) => {
                self.notify(self.not_executed_notice(error.to_string()));
                self.not_forked = Some(End::NotExecuted(error.errno() as i32));
            }
        }
    }

    fn begin_kill(&mut self, reason: KillReason) {
        let main = self.main.filter(|_| self.supervisor.is_main_running());
        let result = self.tree.begin_kill(main, self.supervisor.granted());
        self.notify(SupervisorNotice::Killing { reason, processes: self.tree.names() });
        self.report_kill_result(result);
    }

    fn report_kill_result(&self, result: Result<(), KillFailure>) {
        if let Err(failure) = result {
            self.notify(SupervisorNotice::CannotKill(self.tree.describe(failure)));
        }
    }

    fn report_gone(&mut self, gone: Gone) {
        self.terminal.take_back(&gone.end);
        (self.main, self.priority) = (None, None);
        self.tree.reset();
        self.report(&Report::Gone(gone));
    }

    /// Waits for an event that the next step has to handle.
    fn wait(&mut self) -> io::Result<()> {
        while !self.wait_once()? {}
        Ok(())
    }

    /// Waits for an event, or for the next measurement. Also carries out what needs no step: the rounds of a kill, the
    /// measurement, the relaying of signals, and the hand-over of the terminal. Returns whether there is anything for
    /// the next step to handle.
    fn wait_once(&mut self) -> io::Result<bool> {
        let timeouts = [self.supervisor.next_timeout(), self.tree.next_timeout()];
        let timeouts = timeouts.into_iter().chain([self.terminal.next_check(), self.relay.next_timeout()]);
        let next_timeout = timeouts.flatten().min();
        self.timer.set(next_timeout.into_iter().chain([self.next_probe]).min())?;
        // This is an array, because allocating a Vec could block while memory is short. The timer's descriptor stands
        // in for descriptors that do not exist.
        let timer = self.timer.as_fd();
        let channel = if self.channel.is_open() { self.channel.as_fd() } else { timer };
        let elector = if self.elector_gone { timer } else { self.elector.as_fd() };
        let exec = self.exec.as_ref().map_or(timer, AsFd::as_fd);
        let signals = if self.tree.handles_deaths_together() { timer } else { self.signals.as_fd() };
        let mut descriptors = [timer, signals, channel, elector, exec].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        // Dead children that are left to be reaped cause no further SIGCHLD, so poll must not block.
        let timeout = if self.tree.is_partly_reaped() { PollTimeout::ZERO } else { PollTimeout::NONE };
        match poll(&mut descriptors, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let is_any_ready = self.tree.is_partly_reaped() || is_any_ready_except(timer, &descriptors);
        // The kill comes first, so that nothing delays it.
        let result = self.tree.run_due_round();
        self.report_kill_result(result);
        let has_changed = self.probe();
        if !is_any_ready && !has_changed && next_timeout.is_none_or(|at| clock::now() < at) {
            return Ok(false);
        }
        // The elector may have received these signals too, and may relay them.
        for signal in self.signals.receive().numbers {
            self.relay.handle_own_signal(clock::now(), signal);
        }
        self.relay_due();
        if let Some(main) = self.main.filter(|_| self.terminal.next_check().is_some_and(|at| clock::now() >= at)) {
            self.handle_missing_terminal(main);
        }
        Ok(true)
    }

    /// Locks this process in memory on the first call, which comes after the start of the command, because locking
    /// would delay the start. The elector has already locked its own memory, so the pages of the program are not read
    /// from the disk again.
    fn lock_memory(&mut self) {
        if !mem::replace(&mut self.lock_memory_tried, true) {
            // A failure is not reported, because the elector, whose code is the same, logs it.
            let _ = memory::lock();
        }
    }

    /// Estimates the delay of a kill: how late this process is scheduled, plus how long the processes of the command
    /// would take to end. Also locks this process in memory, and prepares the search for escaped processes. Does
    /// nothing if the next measurement is not due. Returns whether the deadlines have changed.
    fn probe(&mut self) -> bool {
        let now = clock::now();
        if now < self.next_probe {
            return false;
        }
        let mut delay = now.since(self.next_probe);
        if self.main.is_some() {
            self.lock_memory();
            self.tree.scan_if_due(self.supervisor.next_timeout());
            if !matches!(self.priority, Some(Priority::RealTime)) {
                delay = delay.max(self.tree.worst_delay());
            }
        }
        let delay = self.supervisor.note_delay(now, delay);
        if let Some(delay) = delay {
            self.notify(SupervisorNotice::RunsLate { delay });
        }
        let kill_time = self.tree.kill_time();
        let kill_time_changed = self.supervisor.set_kill_time(kill_time);
        if kill_time_changed {
            let TaskCount { processes, threads, .. } = self.tree.count();
            let pace = self.tree.kill_pace();
            self.notify(SupervisorNotice::KillTime { kill_time, processes, threads, pace });
        }
        self.tree.prepare_search_if_due(self.supervisor.next_timeout());
        self.next_probe = clock::now() + probe_interval(self.main.is_some());
        delay.is_some() || kill_time_changed
    }

    fn not_executed_notice(&self, reason: impl Into<String>) -> SupervisorNotice {
        let command = printable(&self.config.command[0].to_string_lossy());
        SupervisorNotice::NotExecuted { command, reason: reason.into() }
    }

    fn notify(&self, notice: SupervisorNotice) {
        self.report(&Report::Notice(notice));
    }

    /// Sends a report. A report that cannot be sent is dropped, because safety does not depend on it: each of the two
    /// processes notices the death of the other through a pidfd, and a freeze of the other through a deadline.
    fn report(&self, report: &Report) {
        let _ = self.channel.send(report);
    }
}
