//! The command: a tree of processes, some of which hide.

use crate::clock::Time;

/// Whose child a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parent {
    Process(usize),
    Supervisor,
    Elector,
    /// Nobody who would kill it.
    Init,
}

#[derive(Clone, Debug)]
pub struct Process {
    pub parent: Parent,
    pub alive: bool,
    /// A forked child that has not executed the command yet runs nothing of it.
    pub executed: bool,
    /// Hidden in a session of its own.
    pub hidden: bool,
    /// How long it takes to end on SIGTERM; for ever without.
    pub ends_on_term: Option<Time>,
    /// SIGTERM was sent to it as something that the main process left running.
    pub terminated: bool,
    /// Its end has been taken note of.
    pub reaped: bool,
    /// It had left the process group when both of leaderrun's processes died.
    pub escaped: bool,
}

/// One command's processes; the first one is its main process.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    pub processes: Vec<Process>,
}

impl Tree {
    pub fn add(&mut self, parent: Parent, hidden: bool, executed: bool, ends_on_term: Option<Time>) -> usize {
        let process = Process {
            parent,
            alive: true,
            executed,
            hidden,
            ends_on_term,
            terminated: false,
            reaped: false,
            escaped: false,
        };
        self.processes.push(process);
        self.processes.len() - 1
    }

    /// Something of the command itself is alive.
    pub fn runs(&self) -> bool {
        self.processes.iter().any(|process| process.alive && process.executed)
    }

    /// All that is alive has left the command's process group, and both of leaderrun's processes are dead: nobody is
    /// left who could kill it.
    pub fn has_escaped(&self) -> bool {
        let mut living = self.processes.iter().filter(|process| process.alive).peekable();
        living.peek().is_some() && living.all(|process| process.escaped)
    }

    /// A process is left, whatever it executes.
    pub fn is_left(&self) -> bool {
        self.processes.iter().any(|process| process.alive)
    }

    pub fn is_alive(&self, process: usize) -> bool {
        self.processes.get(process).is_some_and(|process| process.alive)
    }

    pub fn living_children(&self, parent: Parent) -> impl Iterator<Item = usize> + '_ {
        let of_parent = move |process: &Process| process.alive && process.parent == parent;
        self.processes.iter().enumerate().filter(move |(_, process)| of_parent(process)).map(|(index, _)| index)
    }

    /// A process dies, and its children become the next subreaper's.
    pub fn die(&mut self, dying: usize, heir: Parent) {
        self.processes[dying].alive = false;
        self.bequeath(Parent::Process(dying), heir);
    }

    pub fn bequeath(&mut self, parent: Parent, heir: Parent) {
        for process in self.processes.iter_mut().filter(|process| process.parent == parent) {
            process.parent = heir;
        }
    }
}
