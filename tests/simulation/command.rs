//! The simulated command: a tree of processes, some of which leave the command's process group.

use testkit::simulated_time::Time;

/// The parent of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parent {
    Process(usize),
    Supervisor,
    Elector,
    /// The init process, which does not kill orphans.
    Init,
}

#[derive(Clone, Debug)]
pub struct Process {
    pub parent: Parent,
    pub alive: bool,
    /// `true` if the process runs the command, `false` for a forked child before its exec.
    pub has_execed: bool,
    /// `true` if the process is not in the command's process group.
    pub has_left_group: bool,
    /// The time from SIGTERM to the end of the process; `None` if the process ignores SIGTERM.
    pub sigterm_delay: Option<Time>,
    /// `true` if the process outlived the main process and was therefore sent SIGTERM.
    pub sigterm_sent_as_leftover: bool,
    /// `true` if the process was sent SIGKILL.
    pub sigkill_sent: bool,
    /// `true` if the process has been reaped.
    pub reaped: bool,
    /// `true` if the process had left the process group when both of leaderrun's processes were killed, or if such a
    /// process has forked it since.
    pub escaped: bool,
}

/// The processes of one command; the first one is its main process.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    pub processes: Vec<Process>,
}

impl Tree {
    pub fn add(
        &mut self,
        parent: Parent,
        has_left_group: bool,
        has_execed: bool,
        sigterm_delay: Option<Time>,
    ) -> usize {
        let process = Process {
            parent,
            alive: true,
            has_execed,
            has_left_group,
            sigterm_delay,
            sigterm_sent_as_leftover: false,
            sigkill_sent: false,
            reaped: false,
            escaped: false,
        };
        self.processes.push(process);
        self.processes.len() - 1
    }

    /// Returns whether a process that has executed the command is alive.
    pub fn runs_command(&self) -> bool {
        self.processes.iter().any(|process| process.alive && process.has_execed)
    }

    /// Returns whether any process is alive and all live ones have escaped. Nothing kills them, because they had left
    /// the process group when both of leaderrun's processes were killed.
    pub fn has_escaped(&self) -> bool {
        let mut live = self.processes.iter().filter(|process| process.alive).peekable();
        live.peek().is_some() && live.all(|process| process.escaped)
    }

    /// Returns whether any process is alive, even if it has not executed the command yet.
    pub fn is_any_alive(&self) -> bool {
        self.processes.iter().any(|process| process.alive)
    }

    pub fn is_alive(&self, process: usize) -> bool {
        self.processes.get(process).is_some_and(|process| process.alive)
    }

    pub fn live_children(&self, parent: Parent) -> impl Iterator<Item = usize> + '_ {
        let of_parent = move |process: &Process| process.alive && process.parent == parent;
        self.processes.iter().enumerate().filter(move |(_, process)| of_parent(process)).map(|(index, _)| index)
    }

    /// Marks a process as dead, and moves its children to `new_parent`.
    pub fn die(&mut self, dying: usize, new_parent: Parent) {
        self.processes[dying].alive = false;
        self.reparent(Parent::Process(dying), new_parent);
    }

    pub fn reparent(&mut self, parent: Parent, new_parent: Parent) {
        for process in self.processes.iter_mut().filter(|process| process.parent == parent) {
            process.parent = new_parent;
        }
    }
}
