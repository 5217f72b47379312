//! The processes of the command: how they start, fork and die.

use leaderrun_core::messages::Report;

use crate::command::Parent;
use crate::elector::RESTART_PAUSE;
use crate::events::{Event, Thread};
use crate::trace;
use crate::world::{Run, World};
use testkit::simulated_time::{MILLISECOND, SECOND, Time};

impl World {
    /// Simulates the exec of the forked child. From then on the command counts as alive.
    pub fn exec(&mut self, run: usize) {
        if !self.runs[run].tree.is_alive(0) {
            return;
        }
        self.runs[run].tree.processes[0].has_execed = true;
        self.statistics.commands += 1;
        trace!(self, "{} STARTS ITS COMMAND", self.name(run));
        if self.runs[run].supervisor.alive {
            self.report(run, Report::Started { pid: 1 });
        }
        self.check_start(run);
        if !self.chance(self.plan.commands.endless) {
            let at = self.now + self.rng.u64(MILLISECOND..self.plan.commands.max_duration);
            self.schedule(at, Event::ProcessDies { run, process: 0 });
        }
        for _ in 0..self.rng.usize(..=self.plan.commands.max_forks) {
            let at = self.now + self.rng.u64(0..SECOND);
            let process = self.rng.usize(0..4);
            self.schedule(at, Event::ForkDescendant { run, process });
        }
        // A burst of forks at a random time, possibly while the processes are being killed.
        if self.plan.commands.max_forks > 2 {
            let at = self.now + self.rng.u64(0..self.plan.commands.max_duration);
            for step in 0..4 {
                self.schedule(at + step * MILLISECOND, Event::ForkDescendant { run, process: step as usize });
            }
        }
    }

    /// Forks a child of one of the command's processes: of `process` if it is alive, or else of the main process. Does
    /// nothing if both are dead, or if the main process has not executed the command yet.
    pub fn fork_descendant(&mut self, run: usize, process: usize) {
        let process = if self.runs[run].tree.is_alive(process) { process } else { 0 };
        if !self.runs[run].tree.is_alive(process) || !self.runs[run].tree.processes[process].has_execed {
            return;
        }
        let parent = self.runs[run].tree.processes[process].clone();
        let (has_left_group, sigterm_delay) = (self.rng.bool() || parent.has_left_group, self.draw_sigterm_delay());
        let child = self.runs[run].tree.add(Parent::Process(process), has_left_group, true, sigterm_delay);
        self.runs[run].tree.processes[child].escaped = parent.escaped;
        if self.rng.bool() {
            let at = self.now + self.rng.u64(0..2 * self.plan.commands.max_duration);
            self.schedule(at, Event::ProcessDies { run, process: child });
        }
    }

    pub fn process_dies(&mut self, run: usize, process: usize) {
        let Run { supervisor, elector, tree, .. } = &mut self.runs[run];
        if !tree.is_alive(process) {
            return;
        }
        let (new_parent, reaper) = match (supervisor.alive, elector.alive) {
            (true, _) => (Parent::Supervisor, Some(Thread::Supervisor)),
            (false, true) => (Parent::Elector, Some(Thread::Main)),
            (false, false) => (Parent::Init, None),
        };
        tree.die(process, new_parent);
        if !tree.is_any_alive() {
            self.runs[run].gone_since = Some(self.now);
            trace!(self, "{}'s command is dead", self.name(run));
        }
        if let Some(reaper) = reaper {
            self.wake_soon(run, reaper);
        }
        self.remove_if_dead(run);
    }

    /// Kills both of leaderrun's processes at the same instant. The dead-man's switch then makes the kernel kill the
    /// command's process group.
    pub fn both_die(&mut self, run: usize) {
        self.supervisor_dies(run);
        self.elector_dies(run, RESTART_PAUSE);
        for process in 0..self.runs[run].tree.processes.len() {
            if self.runs[run].tree.processes[process].has_left_group {
                self.runs[run].tree.processes[process].escaped = true;
            } else {
                self.process_dies(run, process);
            }
        }
    }

    /// Draws the time from SIGTERM to the end of a process; `None` if the process ignores SIGTERM.
    pub fn draw_sigterm_delay(&mut self) -> Option<Time> {
        if self.chance(self.plan.commands.ignores_term) {
            return None;
        }
        let longest = [20 * MILLISECOND, 4 * SECOND][self.rng.usize(..2)];
        Some(self.rng.u64(MILLISECOND..longest))
    }
}
