//! The inner process: it owns the command and everything the command forks.
//!
//! One thread, synchronous, without a network. It keeps the stop and kill instants by itself: an
//! elector that hangs, dies or is stopped can only stop *extending* the time.

mod spawn;

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::process;
use std::time::Duration;

use leaderrun_core::exit;
use leaderrun_core::instant::Instant;
use leaderrun_core::messages::{End, Gone, Order, Reason, Remark, Report};
use leaderrun_core::record::RunId;
use leaderrun_core::signal::is_termination_signal;
use leaderrun_core::supervisor::{Action, Policy, StopOptions};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::{Pid, setpgid};

use self::spawn::{Exec, Program, Spawned};
use crate::channel::SupervisorEnd;
use crate::process::clock::{self, Timer};
use crate::process::deadline::{self, Deadline};
use crate::process::kill::Kill;
use crate::process::pidfd::PidFd;
use crate::process::signals::{Inherited, Signals};
use crate::process::terminal::Terminal;
use crate::process::tree::{self, Ended};
use crate::telemetry::log::printable;

/// Between two looks whether a command that waits for the terminal may have it.
const TERMINAL_PAUSE: Duration = Duration::from_millis(500);

/// What the supervisor has to know from the command line.
#[derive(Debug)]
pub struct SupervisorConfig {
    pub command: Vec<OsString>,
    pub stop_options: StopOptions,
    /// Variables that set leaderrun's own options, which the command does not inherit.
    pub own_variables: Vec<String>,
    pub run: RunId,
}

/// Runs the supervisor until the elector is dead or kills it. Never returns.
pub fn run(config: SupervisorConfig, channel: SupervisorEnd, elector: Pid, inherited: Inherited) -> ! {
    // Without a word: stderr is the command's, and might block. The elector says that this process is gone.
    std::panic::set_hook(Box::new(|_| process::abort()));
    let failed = match Supervisor::new(config, channel, elector, inherited) {
        Ok(mut supervisor) => supervisor.supervise(),
        Err(error) => Err(error),
    };
    // The elector sees this process end and says so; with nothing below it there is nothing to lose.
    process::exit(if failed.is_ok() { exit::LOST } else { exit::FAILED }.into())
}

struct Supervisor {
    config: SupervisorConfig,
    program: Program,
    policy: Policy,
    channel: SupervisorEnd,
    elector: PidFd,
    elector_gone: bool,
    signals: Signals,
    inherited: Inherited,
    timer: Timer,
    main: Option<Pid>,
    exec: Option<Spawned>,
    /// What became of an exec that did not take place.
    not_executed: Option<End>,
    terminal: Option<Terminal>,
    /// The command is stopped for want of the terminal; when to look again.
    awaits_terminal: Option<Instant>,
    elector_pid: Pid,
    kill: Option<Kill>,
    /// For `leaderrun check`; none where the kernel gives none.
    deadline: Option<Deadline>,
    /// What the main process left running has got SIGTERM; what is orphaned later gets it too.
    swept: Option<Vec<Pid>>,
}

impl Supervisor {
    fn new(config: SupervisorConfig, channel: SupervisorEnd, elector: Pid, inherited: Inherited) -> io::Result<Self> {
        let elector_fd = PidFd::open(elector)?;
        if nix::unistd::getppid() != elector {
            return Err(io::Error::other("the elector died before it could be watched"));
        }
        setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
        tree::adopt_orphans()?;
        let deadline = Deadline::new(&config.run.to_string());
        if let Err(reason) = &deadline {
            let _ = channel.send(&Report::Remark(Remark::NoCheck { reason: reason.to_string() }));
        }
        Ok(Self {
            program: Program::new(&config.command).map_err(io::Error::other)?,
            policy: Policy::new(config.stop_options.clone()),
            config,
            channel,
            elector: elector_fd,
            elector_gone: false,
            signals: Signals::all()?,
            inherited,
            timer: Timer::new()?,
            main: None,
            exec: None,
            not_executed: None,
            terminal: None,
            awaits_terminal: None,
            elector_pid: elector,
            kill: None,
            deadline: deadline.ok(),
            swept: None,
        })
    }

    fn supervise(&mut self) -> io::Result<()> {
        loop {
            self.handle_orders();
            self.policy.handle_timeout(clock::now());
            if !self.elector_gone && self.elector.is_dead() {
                self.elector_gone = true;
                self.policy.handle_elector_gone(clock::now());
            }
            self.handle_exec();
            self.handle_children();
            // Before anything is done: the command must not count on a lease when it is told to stop.
            if let Some(deadline) = &self.deadline {
                deadline.set(self.policy.held_until());
            }
            while let Some(action) = self.policy.poll_action() {
                self.act(action);
            }
            if self.elector_gone && self.main.is_none() {
                return Ok(());
            }
            self.wait()?;
        }
    }

    fn handle_orders(&mut self) {
        let orders = self.channel.receive();
        for order in &orders {
            if let Order::Start { environment, .. } = order {
                self.set_environment(environment.clone());
            }
        }
        if let Some(tenure) = self.policy.handle_orders(clock::now(), &orders) {
            self.report(&Report::Enforcing(tenure));
        }
    }

    fn set_environment(&mut self, mut added: Vec<(String, String)>) {
        if let Some(deadline) = &self.deadline {
            let number = deadline.as_fd().as_raw_fd();
            added.push((deadline::FD_VARIABLE.to_owned(), number.to_string()));
        }
        self.program.set_environment(&self.config.own_variables, &added);
    }

    fn handle_exec(&mut self) {
        let Some(spawned) = &self.exec else { return };
        match spawned.exec() {
            Exec::Pending => return,
            Exec::Executed => self.report(&Report::Started { pid: spawned.pid.as_raw() }),
            Exec::Failed(errno) => {
                let errno = self.program.failure(errno);
                self.remark(self.not_executed(errno.desc()));
                self.not_executed = Some(End::NotExecuted(errno as i32));
            }
            Exec::TooLate => self.not_executed = Some(End::NotStarted),
        }
        self.exec = None;
    }

    fn handle_children(&mut self) {
        let reaped = tree::reap();
        let now = clock::now();
        for (pid, ended) in reaped.ended {
            if let Some(kill) = &mut self.kill {
                kill.handle_ended(now);
            }
            if self.main == Some(pid) {
                // Whatever it wrote into the exec pipe, it wrote before it died.
                self.handle_exec();
                let end = self.not_executed.take().unwrap_or(match ended {
                    Ended::Exited(status) => End::Exited(status),
                    Ended::Signaled(signal) => End::Signaled(signal),
                });
                self.policy.handle_main_ended(now, end);
            }
        }
        for (pid, signal) in reaped.stopped {
            self.handle_stopped(pid, signal);
        }
        if reaped.none_left {
            self.policy.handle_tree_empty();
        } else if self.swept.is_some() {
            self.sweep();
        }
    }

    /// Ctrl-Z stops the foreground group. A leader cannot be suspended, its lease would run out; and
    /// with the group stopped the terminal would listen to nobody.
    fn handle_stopped(&mut self, pid: Pid, signal: i32) {
        if self.main == Some(pid) && matches!(signal, libc::SIGTTIN | libc::SIGTTOU) {
            return self.handle_awaited_terminal(pid);
        }
        let in_foreground = self.terminal.as_ref().is_some_and(|terminal| terminal.belongs_to(pid));
        if self.main == Some(pid) && signal == libc::SIGTSTP && in_foreground {
            self.remark(Remark::GoesOn);
            spawn::signal_group(pid, libc::SIGCONT);
        }
    }

    /// The command was stopped because it wants a terminal that is not its own. A shell's `fg` of a
    /// job that runs sends no SIGCONT: by now leaderrun may be the foreground job.
    fn handle_awaited_terminal(&mut self, main: Pid) {
        self.take_foreground(main);
        if self.terminal.as_ref().is_some_and(|terminal| terminal.belongs_to(main)) {
            self.awaits_terminal = None;
            spawn::signal_group(main, libc::SIGCONT);
            return;
        }
        if self.awaits_terminal.is_none() {
            self.remark(Remark::AwaitsTerminal);
        }
        self.awaits_terminal = Some(clock::now() + TERMINAL_PAUSE);
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Start => self.start(),
            Action::Signal(signal) => self.signal(signal),
            Action::Stop => {
                let signal = self.config.stop_options.stop_signal;
                self.remark(Remark::Stopping { signal });
                self.signal(signal);
            }
            Action::Sweep => {
                self.swept = Some(Vec::new());
                self.sweep();
            }
            Action::Kill(reason) => self.begin_kill(reason),
            Action::Report(gone) => self.report_gone(gone),
        }
    }

    fn signal(&mut self, signal: i32) {
        let Some(main) = self.main else { return };
        if signal == libc::SIGCONT {
            self.take_foreground(main);
        }
        spawn::signal_group(main, signal);
        if signal == self.config.stop_options.stop_signal || is_termination_signal(signal) {
            // A stopped process takes no signal but SIGKILL until it is continued.
            spawn::signal_group(main, libc::SIGCONT);
        }
    }

    /// leaderrun was continued, as `fg` and `bg` do it: by now it may be the foreground job.
    fn take_foreground(&mut self, main: Pid) {
        if let Some(terminal) = Terminal::of_foreground_job(self.elector_pid) {
            terminal.give_to(main);
            self.terminal = Some(terminal);
        }
    }

    fn start(&mut self) {
        let tenure = self.policy.tenure().filter(|_| self.policy.may_start(clock::now()));
        let Some(tenure) = tenure else { return self.policy.handle_not_started(clock::now()) };
        self.terminal = Terminal::of_foreground_job(self.elector_pid);
        let deadline = self.deadline.as_ref().map(AsFd::as_fd);
        match spawn::spawn(&self.program, tenure, &self.inherited, self.terminal.as_ref(), deadline) {
            Ok(spawned) => {
                self.main = Some(spawned.pid);
                self.exec = Some(spawned);
                self.policy.handle_started();
            }
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(libc::EAGAIN);
                self.remark(self.not_executed(error.to_string()));
                self.policy.handle_started();
                self.policy.handle_main_ended(clock::now(), End::NotExecuted(errno));
                self.policy.handle_tree_empty();
            }
        }
    }

    /// SIGTERM, once, to everything that has become our child since the main process ended.
    fn sweep(&mut self) {
        let Some(swept) = &mut self.swept else { return };
        for child in tree::children().unwrap_or_default() {
            if !swept.contains(&child) {
                swept.push(child);
                let _ = nix::sys::signal::kill(child, Signal::SIGTERM);
                let _ = nix::sys::signal::kill(child, Signal::SIGCONT);
            }
        }
    }

    fn begin_kill(&mut self, reason: Reason) {
        self.remark(Remark::Killing { reason, processes: tree::names() });
        self.swept = None;
        // At one stroke, while the unreaped main process keeps its group's number from being used again.
        if let Some(main) = self.main.filter(|_| self.policy.main_runs()) {
            spawn::signal_group(main, libc::SIGKILL);
        }
        self.kill = Some(Kill::begin(clock::now()));
        self.kill_children();
    }

    fn kill_children(&mut self) {
        let refused = self.kill.as_mut().and_then(|kill| kill.kill_children(clock::now()));
        if let Some(refused) = refused {
            self.remark(Remark::CannotKill(refused));
        }
    }

    fn report_gone(&mut self, gone: Gone) {
        if let Some(terminal) = self.terminal.take() {
            terminal.take_back();
        }
        self.main = None;
        self.awaits_terminal = None;
        self.kill = None;
        self.swept = None;
        self.report(&Report::Gone(gone));
    }

    fn wait(&mut self) -> io::Result<()> {
        let next_round = self.kill.as_ref().map(Kill::next_round);
        self.timer.set(self.policy.next_timeout().into_iter().chain(next_round).chain(self.awaits_terminal).min())?;
        let mut descriptors = vec![
            PollFd::new(self.timer.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
        ];
        if !self.elector_gone {
            descriptors.push(PollFd::new(self.channel.as_fd(), PollFlags::POLLIN));
            descriptors.push(PollFd::new(self.elector.as_fd(), PollFlags::POLLIN));
        }
        if let Some(exec) = &self.exec {
            descriptors.push(PollFd::new(exec.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut descriptors, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        // Only SIGCHLD matters, and every round looks at the children; other signals are for the elector.
        self.signals.receive();
        if let Some(main) = self.main.filter(|_| self.awaits_terminal.is_some_and(|at| clock::now() >= at)) {
            self.handle_awaited_terminal(main);
        }
        if next_round.is_some_and(|at| clock::now() >= at) {
            self.kill_children();
        }
        Ok(())
    }

    fn not_executed(&self, reason: impl Into<String>) -> Remark {
        let command = printable(&self.config.command[0].to_string_lossy());
        Remark::NotExecuted { command, reason: reason.into() }
    }

    fn remark(&self, remark: Remark) {
        self.report(&Report::Remark(remark));
    }

    /// What cannot be said is lost: an elector that does not listen is dealt with by its pidfd, or
    /// finds out from ours.
    fn report(&self, report: &Report) {
        let _ = self.channel.send(report);
    }
}
