//! Leader election inside another program, over any storage that has compare-and-swap: `cargo run --example embedded`.
//!
//! Two threads compete for a lock. The leader works for two seconds and releases the lock; then the other thread leads.

use std::mem;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use leaderrun_core::election::{
    CommandGone, Election, ElectionAction, ElectionConfig, ElectionInputs, Now, Preference, Reply, Request, WatchEvent,
};
use leaderrun_core::instant::Instant;
use leaderrun_core::record::{Record, RunId, Stored, Version};
use leaderrun_core::timing::Timing;

/// The program's functions that are called when leadership changes.
struct Callbacks {
    started_leading: fn(&str),
    stopped_leading: fn(&str),
    new_leader: fn(&str, &str),
}

/// The storage that the candidates share: a version that grows with each write, and the record.
struct Storage(Mutex<(u64, Option<Record>)>);

impl Storage {
    fn carry_out(&self, request: Request) -> Reply {
        let mut stored = self.0.lock().expect("no thread panics while it holds this lock");
        let version = |number: u64| Version { uid: "record".into(), resource_version: number.to_string() };
        let current = stored.1.clone().map(|record| Stored { record, version: version(stored.0) });
        let (replaced, record) = match request {
            Request::Get => return Reply::Read(current),
            Request::Create(record) => (None, record),
            Request::Update(version, record) => (Some(version), record),
        };
        if current.map(|current| current.version) != replaced {
            return Reply::Conflict;
        }
        *stored = (stored.0 + 1, Some(record.clone()));
        Reply::Written(Stored { record, version: version(stored.0) })
    }
}

/// Takes part in the election until this candidate has led and has released the lock.
fn run(name: &str, storage: &Storage, callbacks: &Callbacks) {
    let seconds = Duration::from_secs;
    let timing = Timing::new(seconds(6), seconds(4), seconds(1), None).expect("the durations are valid");
    let config = ElectionConfig {
        identity: name.into(),
        run: RunId::new(name),
        timing,
        wait: None,
        min_hold: None,
        ignores_min_hold: false,
        preference: Preference::default(),
    };
    // The candidates have names of different lengths, so their seeds differ.
    let seed = name.len() as u64;
    let mut election = Election::new(config, now(), seed);
    let (mut inputs, mut leader, mut works_until) = (ElectionInputs::default(), String::new(), None);
    loop {
        for action in election.step(now(), mem::take(&mut inputs)) {
            match action {
                ElectionAction::Send(request) => inputs.reply = Some(storage.carry_out(request)),
                // This storage has no watches, so the election polls the record.
                ElectionAction::Watch(_) => inputs.watch_events.push(WatchEvent::Forbidden),
                ElectionAction::StartLeading(leadership) => {
                    (callbacks.started_leading)(name);
                    works_until = Some(leadership.tenure.stop.min(now().boot + seconds(2)));
                }
                ElectionAction::Lose { .. } | ElectionAction::StepDown => works_until = Some(now().boot),
                ElectionAction::Finish(_) => return,
                // The work ends within the first tenure, so `Extend` can be ignored.
                _ => {}
            }
        }
        if works_until.is_some_and(|until| now().boot >= until) {
            (callbacks.stopped_leading)(name);
            (works_until, inputs.command_gone) = (None, Some(CommandGone { succeeded: true }));
        }
        let holder = election.observed().and_then(|(record, _)| record).map(|record| record.holder_identity.clone());
        if let Some(holder) = holder.filter(|holder| !holder.is_empty() && *holder != leader) {
            (callbacks.new_leader)(name, &holder);
            leader = holder;
        }
        if inputs == ElectionInputs::default() {
            let wakes_at = election.next_timeout().into_iter().chain(works_until).min();
            thread::sleep(wakes_at.map_or(seconds(1), |at| at.since(now().boot)));
        }
    }
}

/// Returns the time. This example uses the wall clock, but deadlines need a clock that cannot be set, such as
/// `CLOCK_BOOTTIME` on Linux.
fn now() -> Now {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    Now { boot: Instant::after_boot(since_epoch), wall: Timestamp::now() }
}

fn main() {
    let storage = Storage(Mutex::new((0, None)));
    let callbacks = Callbacks {
        started_leading: |name| println!("{name} leads"),
        stopped_leading: |name| println!("{name} has stopped leading"),
        new_leader: |name, leader| println!("{name} sees that {leader:?} leads"),
    };
    thread::scope(|scope| {
        for name in ["one", "three"] {
            scope.spawn(|| run(name, &storage, &callbacks));
        }
    });
}
