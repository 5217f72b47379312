//! The guard: relays signals, passes the tenure on, and is the last resort when the supervisor dies or
//! freezes. It waits for nothing but its descriptors.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use leaderrun_core::elector::{Action, Failure, News, Policy};
use leaderrun_core::exit::{self, Exit};
use leaderrun_core::messages::{End, Order, Report};
use leaderrun_core::signal::is_termination_signal;
use leaderrun_core::updates::Update;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use nix::sys::signal::Signal;
use nix::unistd::getpid;

use super::election_thread::ElectionThread;
use super::journal;
use crate::channel::ElectorEnd;
use crate::process::clock::{self, Timer};
use crate::process::kill::Kill;
use crate::process::pidfd::PidFd;
use crate::process::signals::{Inherited, Signals};
use crate::process::terminal::Terminal;
use crate::process::tree;
use crate::telemetry::state::Observer;

/// How long the end waits for the supervisor's death, milliseconds.
const LAST_LOOK: u16 = 1000;

/// The elector's main thread.
pub struct Guard {
    policy: Policy,
    channel: ElectorEnd,
    supervisor: PidFd,
    supervisor_gone: bool,
    election: ElectionThread,
    signals: Signals,
    inherited: Inherited,
    timer: Timer,
    observer: Observer,
    /// Becomes readable when traffic was led away for an end; none where none is led.
    withdrawn: Option<Arc<EventFd>>,
    terminal: Option<Terminal>,
    kill: Option<Kill>,
}

impl Guard {
    /// A guard over a supervisor that has nothing to do yet.
    ///
    /// # Errors
    /// When the kernel gives no descriptor.
    pub fn new(
        channel: ElectorEnd,
        supervisor: PidFd,
        election: ElectionThread,
        inherited: Inherited,
        policy: Policy,
        observer: Observer,
        withdrawn: Option<Arc<EventFd>>,
    ) -> io::Result<Self> {
        Ok(Self {
            policy,
            channel,
            supervisor,
            supervisor_gone: false,
            election,
            signals: Signals::all()?,
            inherited,
            timer: Timer::new()?,
            observer,
            withdrawn,
            terminal: None,
            kill: None,
        })
    }

    /// Stands guard until everything has come to an end, and says how leaderrun ends.
    ///
    /// # Errors
    /// When the election cannot take place, or the kernel refuses what everything depends on.
    pub fn stand(mut self) -> anyhow::Result<Exit> {
        // After a failure the supervisor stays, and holds the command to the time that was bought.
        let exit = self.watch()?;
        // It has nothing to do and nothing below it.
        let _ = self.supervisor.signal(Signal::SIGKILL);
        let _ = poll(&mut [PollFd::new(self.supervisor.as_fd(), PollFlags::POLLIN)], LAST_LOOK);
        tree::reap();
        Ok(exit)
    }

    fn watch(&mut self) -> anyhow::Result<Exit> {
        loop {
            self.handle_reports();
            for event in self.election.events() {
                match event {
                    Ok(event) => self.policy.handle_event(clock::now(), event),
                    Err(failure) => {
                        journal::failed(&failure);
                        self.policy.handle_election_failed(clock::now());
                    }
                }
            }
            if !self.supervisor_gone && self.supervisor.is_dead() {
                self.supervisor_gone = true;
                // It may have died with its last word unread.
                self.handle_reports();
                self.policy.handle_supervisor_dead(clock::now());
            }
            self.policy.handle_timeout(clock::now());
            if self.withdrawn.as_ref().is_some_and(|withdrawn| withdrawn.read().is_ok()) {
                self.policy.handle_withdrawn();
            }
            self.handle_signals();
            self.handle_children();
            while let Some(action) = self.policy.poll_action() {
                if let Some(exit) = self.act(action) {
                    return Ok(exit);
                }
            }
            self.wait()?;
        }
    }

    fn handle_reports(&mut self) {
        for report in self.channel.receive() {
            match &report {
                Report::Started { pid } => {
                    journal::started(*pid);
                    self.observer.tell(Update::CommandStarted);
                }
                Report::Remark(remark) => journal::supervisor(remark),
                Report::Enforcing(_) | Report::Gone(_) => {}
            }
            self.policy.handle_report(clock::now(), report);
        }
    }

    fn handle_signals(&mut self) {
        for signal in self.signals.receive() {
            if !is_termination_signal(signal) || !self.inherited.ignores(signal) {
                self.policy.handle_signal(clock::now(), signal);
            }
        }
    }

    fn handle_children(&mut self) {
        let reaped = tree::reap();
        if let Some(kill) = self.kill.as_mut().filter(|_| !reaped.ended.is_empty()) {
            kill.handle_ended(clock::now());
        }
        if reaped.none_left {
            if self.kill.take().is_some()
                && let Some(terminal) = self.terminal.take()
            {
                terminal.take_back();
            }
            self.policy.handle_tree_empty(clock::now());
        }
    }

    /// Carries out an action; leaderrun's end, when it was that.
    fn act(&mut self, action: Action) -> Option<Exit> {
        match action {
            Action::Order(order) => self.order(&order),
            Action::Notify(notice) => self.election.notify(notice),
            Action::LastResort(failure) => self.kill_all(failure),
            Action::Tell(news) => self.tell(news),
            Action::End(exit) => return Some(exit),
        }
        None
    }

    /// An order that the supervisor does not take is lost; its time then runs out.
    fn order(&mut self, order: &Order) {
        if let Order::Start { .. } = order {
            self.terminal = Terminal::of_foreground_job(getpid());
        }
        let _ = self.channel.send(order);
    }

    fn kill_all(&mut self, failure: Failure) {
        journal::last_resort(failure);
        let _ = self.supervisor.signal(Signal::SIGKILL);
        self.kill = Some(Kill::begin(clock::now()));
        self.kill_children();
    }

    fn kill_children(&mut self) {
        if let Some(refused) = self.kill.as_mut().and_then(|kill| kill.kill_children(clock::now())) {
            journal::cannot_kill(&refused);
        }
    }

    fn tell(&self, news: News) {
        journal::guard(&news);
        self.observer.tell(match news {
            News::Leading(tenure) => Update::Leading { stop: tenure.stop, gone: tenure.last_resort() },
            News::Lost(loss) => Update::Lost(loss),
            News::Ending => Update::Ending,
            News::CommandEnded(End::Exited(status)) => Update::CommandEnded(status.to_string()),
            News::CommandEnded(End::Signaled(signal)) => Update::CommandEnded(exit::of_signal(signal).to_string()),
            News::Gone => Update::Gone,
            _ => return,
        });
    }

    fn wait(&mut self) -> io::Result<()> {
        let next_round = self.kill.as_ref().map(Kill::next_round);
        self.timer.set(self.policy.next_timeout().into_iter().chain(next_round).min())?;
        let mut descriptors = vec![
            PollFd::new(self.timer.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.election.as_fd(), PollFlags::POLLIN),
        ];
        if !self.supervisor_gone {
            descriptors.push(PollFd::new(self.supervisor.as_fd(), PollFlags::POLLIN));
            descriptors.push(PollFd::new(self.channel.as_fd(), PollFlags::POLLIN));
        }
        descriptors.extend(self.withdrawn.as_ref().map(|withdrawn| PollFd::new(withdrawn.as_fd(), PollFlags::POLLIN)));
        match poll(&mut descriptors, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        if next_round.is_some_and(|at| clock::now() >= at) {
            self.kill_children();
        }
        Ok(())
    }
}
