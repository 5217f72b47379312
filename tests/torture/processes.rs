//! Finds the processes of one torture run in /proc.

use std::fs;
use std::path::Path;

use testkit::{nanos_since_boot, witness};

/// A process of a torture run: a process of leaderrun or of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    /// The start time in ticks since boot. Together with the pid it identifies a process.
    pub started: u64,
    /// The holder whose command this process belongs to; `None` for a process of leaderrun, or if it could not be read.
    pub holder: Option<String>,
    /// The slot that the command runs in; `None` if the lock has no slots, if the slot could not be read, or for a
    /// process of leaderrun.
    pub slot: Option<usize>,
    /// A time at which the process was alive, in nanoseconds since boot.
    pub seen_at: u64,
}

impl Process {
    /// Returns whether the process is still alive and its pid has not been reused.
    pub fn is_alive(&self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.alive && stat.started == self.started)
    }
}

/// Returns all live processes of the torture run whose witnesses write to this directory. Each of them has the
/// directory on its command line.
pub fn of_torture_run(directory: &Path) -> Vec<Process> {
    let directory = directory.as_os_str().as_encoded_bytes();
    let pids = fs::read_dir("/proc")
        .expect("/proc can be read")
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: i32| {
        let seen_at = nanos_since_boot();
        let started = stat(pid).filter(|stat| stat.alive)?.started;
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let arguments: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        if !arguments.contains(&directory) {
            return None;
        }
        let is_witness = arguments.get(1) == Some(&witness::FLAG.as_bytes());
        let (holder, slot) = if is_witness { holder_and_slot(pid, &arguments) } else { (None, None) };
        let process = Process { pid, started, holder, slot, seen_at };
        process.is_alive().then_some(process)
    })
    .collect()
}

/// Returns the parent of a process.
pub fn parent(pid: i32) -> Option<i32> {
    stat(pid).map(|stat| stat.parent)
}

/// Returns the holder and the slot of the command that a witness belongs to. They are read from its argument
/// `run=TOKEN.HOLDER@SLOT`, or from its argument `as=HOLDER` and its environment.
fn holder_and_slot(pid: i32, arguments: &[&[u8]]) -> (Option<String>, Option<usize>) {
    let text = || arguments.iter().filter_map(|argument| std::str::from_utf8(argument).ok());
    if let Some((_, run)) = text().find_map(|argument| argument.strip_prefix("run=")?.split_once('.')) {
        let (holder, slot) = witness::holder_and_slot(run);
        return (Some(holder.to_owned()), slot);
    }
    // During an exec, the command line may be incomplete.
    let Some(holder) = text().find_map(|argument| argument.strip_prefix("as=")) else { return (None, None) };
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let mut variables = environment.split(|byte| *byte == 0).filter_map(|variable| std::str::from_utf8(variable).ok());
    let slot = variables.find_map(|variable| variable.strip_prefix("LEADERRUN_SLOT=")?.parse().ok());
    (Some(holder.to_owned()), slot)
}

struct Stat {
    alive: bool,
    parent: i32,
    started: u64,
}

fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program, in parentheses, may contain any character.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    // proc_pid_stat(5) counts fields from 1, and the state after the name is its field 3.
    let field = |number: usize| fields.get(number - 3);
    let alive = !matches!(*field(3)?, "Z" | "X");
    Some(Stat { alive, parent: field(4)?.parse().ok()?, started: field(22)?.parse().ok()? })
}
