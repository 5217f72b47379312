//! The state of the model, the changes that a step makes to it, and the invariants.

use leaderrun_core::election::{Reply, Request, WatchEvent};
use leaderrun_core::record::{MarkState, Record, Stored};

use crate::disturbance::{Disturbance, Partition};
use crate::run::{ProcessState, Run};
use crate::setting::{KILL_TIME, Rule, Setting};
use crate::steps::Step;
use crate::store::Store;
use testkit::simulated_time::{MILLISECOND, Time};

/// How long before the next timeout [`Step::AdvanceToJustBefore`] stops.
pub const JUST_BEFORE: Time = MILLISECOND;

/// The kind of a violated invariant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViolationKind {
    /// Two commands were alive at the same time.
    Overlap,
    /// A command started with a fencing token that was not greater than all earlier ones.
    TokenNotGreater,
    /// The lock was released, or leaderrun exited, while a process of the command was alive.
    ReleasedWhileAlive,
    /// A process of a command was alive after the deadline by which all must be dead.
    Outlived,
}

/// The state of the model. Equal states are explored only once.
#[derive(Clone, Hash)]
pub struct State {
    pub now: Time,
    pub store: Store,
    pub runs: Vec<Run>,
    /// The partition of each of the two machines, if any.
    pub partitions: [Option<Partition>; 2],
    pub disturbances_left: u8,
    pub greatest_token: u64,
    /// The number of commands that were started.
    pub commands: usize,
}

/// A state, with the setting and the trace of the steps that led to it.
#[derive(Clone)]
pub struct World<'a> {
    pub setting: &'a Setting,
    pub state: State,
    violation: Option<ViolationKind>,
    trace: Option<Vec<String>>,
}

impl<'a> World<'a> {
    /// Creates a world in which two candidates start.
    pub fn new(setting: &'a Setting) -> Self {
        let state = State {
            now: 0,
            store: Store::default(),
            runs: Vec::new(),
            partitions: [None; 2],
            disturbances_left: setting.max_disturbances,
            greatest_token: 0,
            commands: 0,
        };
        let mut world = Self { setting, state, violation: None, trace: None };
        world.start_run(0);
        world.start_run(1);
        world
    }

    /// Creates a world that records a trace.
    pub fn with_trace(setting: &'a Setting) -> Self {
        Self { trace: Some(Vec::new()), ..Self::new(setting) }
    }

    /// Returns the recorded trace.
    pub fn into_trace(self) -> Vec<String> {
        self.trace.unwrap_or_default()
    }

    pub fn trace(&mut self, line: impl FnOnce(&Self) -> String) {
        if self.trace.is_some() {
            let line = format!("{:>8.3} s  {}", self.state.now as f64 / 1e9, line(self));
            self.trace.iter_mut().for_each(|trace| trace.push(line.clone()));
        }
    }

    pub fn commands(&self) -> usize {
        self.state.commands
    }

    pub fn next_timeout(&self) -> Option<Time> {
        (0..self.state.runs.len())
            .filter_map(|run| self.next_timeout_of(run))
            .min()
            .map(|at| at.max(self.state.now + 1))
    }

    /// Takes a step, and returns the invariant that it violates, if any.
    pub fn apply(&mut self, step: Step) -> Option<ViolationKind> {
        if self.trace.is_some()
            && let Some(line) = self.describe(step)
        {
            self.trace(|_| line);
        }
        self.state.disturbances_left -= self.cost(step);
        match step {
            Step::Advance => self.advance(0),
            Step::AdvanceToJustBefore => self.advance(JUST_BEFORE),
            Step::RequestArrives(run) => self.receive_request(run, true),
            Step::RequestArrivesWithLateReply(run) => self.receive_request(run, false),
            Step::AbandonedRequestArrives { run, index } => {
                let request = self.state.runs[run].abandoned_requests.remove(index);
                if let Reply::Written(stored) = self.carry_out(run, request) {
                    self.reply_to_abandoned_write(run, stored);
                }
            }
            Step::RefuseRequest(run) => {
                self.state.runs[run].request = None;
                self.reply(run, Reply::Refused { retry_after: None }, true);
            }
            Step::DeliverReply(run) => self.deliver_reply(run),
            Step::DeliverReplyToAbandonedWrite { run, index } => self.deliver_reply_to_abandoned_write(run, index),
            Step::DeliverWatchEvent(run) => self.deliver_watch_event(run),
            Step::Partition(machine, partition) => self.state.partitions[machine] = Some(partition),
            Step::EndPartition(machine) => self.state.partitions[machine] = None,
            Step::Freeze(run, role) => *self.state.runs[run].process_mut(role) = ProcessState::Frozen,
            Step::Thaw(run, role) => self.thaw(run, role),
            Step::Crash(run, role) => self.crash(run, role),
            Step::MainProcessEnds(run) => {
                self.state.runs[run].tree.main_alive = false;
                self.run_supervisor(run);
            }
            Step::SendSigterm(run) => self.send_sigterm(run),
            Step::EndWithdrawal(run) => self.end_withdrawal(run),
            Step::StartRun(machine) => self.start_run(machine),
            Step::OutsideEdit(kind) => self.outside_edit(kind),
        }
        self.violation
    }

    /// Advances the time until the next timeout is `remaining` away, and handles what is due. Messages in flight become
    /// late.
    fn advance(&mut self, remaining: Time) {
        for run in &mut self.state.runs {
            run.mark_messages_as_late();
        }
        let Some(next) = self.next_timeout() else { return };
        self.state.now = next - remaining;
        for run in 0..self.state.runs.len() {
            self.handle_timeouts(run);
        }
        for run in 0..self.state.runs.len() {
            self.check_outlived(run);
        }
    }

    /// Carries out a run's request, and replies. If `reply_is_immediate` is `true`, a running elector receives the
    /// reply in the same step, unless a partition drops it.
    fn receive_request(&mut self, run: usize, reply_is_immediate: bool) {
        let Some(request) = self.state.runs[run].request.take() else { return };
        self.state.runs[run].request_is_late = false;
        let reply = self.carry_out(run, request);
        self.reply(run, reply, reply_is_immediate);
    }

    fn reply(&mut self, run: usize, reply: Reply, reply_is_immediate: bool) {
        let Run { machine, elector_process, .. } = self.state.runs[run];
        if Partition::drops_inbound(self.state.partitions[machine]) {
            return self.trace(|_| "the reply is lost".to_owned());
        }
        self.state.runs[run].reply = Some(reply);
        self.state.runs[run].reply_is_late = !reply_is_immediate;
        if reply_is_immediate && elector_process == ProcessState::Running {
            self.deliver_reply(run);
        }
    }

    /// Replies to a write whose reply the run no longer awaits.
    fn reply_to_abandoned_write(&mut self, run: usize, stored: Stored) {
        let Run { machine, election_finished, .. } = self.state.runs[run];
        if !election_finished && !Partition::drops_inbound(self.state.partitions[machine]) {
            self.state.runs[run].replies_to_abandoned_writes.push(stored);
        }
    }

    /// Carries out a run's request in the store. Returns the reply of the API server.
    fn carry_out(&mut self, run: usize, request: Request) -> Reply {
        let before = self.state.store.revision();
        let reply = self.state.store.handle(request, self.setting.disabled_rule);
        if self.state.store.revision() != before {
            self.trace(|world| format!("written: {}", world.describe_record()));
            self.state.runs[run].mark_removed = false;
            self.publish();
        }
        reply
    }

    fn outside_edit(&mut self, kind: Disturbance) {
        let Some(mut record) = self.state.store.record().cloned() else { return };
        let holder = record.mark().filter(|mark| mark.state == MarkState::Held).map(|mark| mark.run.clone());
        match kind {
            Disturbance::Delete => self.state.store.put(None),
            Disturbance::EditHolder => drop(self.state.store.write(Record { holder_identity: "C".into(), ..record })),
            _ => {
                record.holder_identity.clear();
                record.run = record.run.filter(|_| kind == Disturbance::RemoveHolder);
                self.state.store.write(record);
            }
        }
        if matches!(kind, Disturbance::Delete | Disturbance::RemoveHolderAndMark) {
            for run in self.state.runs.iter_mut().filter(|run| Some(&run.id) == holder.as_ref()) {
                run.mark_removed = true;
            }
        }
        self.publish();
    }

    /// Sends the last change of the object to every watch. A watch that a partition cuts off gets no more events, even
    /// after the partition ends.
    fn publish(&mut self) {
        let event = self.state.store.last_event();
        for run in &mut self.state.runs {
            let is_cut = Partition::drops_inbound(self.state.partitions[run.machine]);
            run.watch_is_dead |= is_cut;
            if let Some(events) = run.watch.as_mut().filter(|_| !run.watch_is_dead) {
                events.push_back(event.clone());
            }
        }
    }

    pub fn events_since(&self, from: Option<&leaderrun_core::record::Version>) -> Vec<WatchEvent> {
        self.state.store.events_since(from)
    }

    pub fn describe_record(&self) -> String {
        let Some(record) = self.state.store.record() else { return "there is no lease".to_owned() };
        let mark = record.mark().map(|mark| format!("run {} {:?}", mark.run, mark.state));
        let mark = mark.unwrap_or_else(|| "no valid mark".to_owned());
        format!("version {}, holder {:?}, {mark}", self.state.store.revision(), record.holder_identity)
    }

    /// Records a violation, unless there was an earlier one.
    pub fn record_violation(&mut self, violation: ViolationKind) {
        self.violation = self.violation.or(Some(violation));
    }

    /// Checks the invariants for a command that has just started.
    pub fn check_start(&mut self, run: usize) {
        self.state.commands += 1;
        self.trace(|world| format!("{} STARTS ITS COMMAND", world.state.runs[run].name()));
        if self.state.runs.iter().filter(|run| run.tree.is_any_alive()).count() > 1 {
            self.record_violation(ViolationKind::Overlap);
        }
        if self.state.runs[run].token <= self.state.greatest_token {
            self.record_violation(ViolationKind::TokenNotGreater);
        }
        self.state.greatest_token = self.state.greatest_token.max(self.state.runs[run].token);
    }

    /// Checks that a write does not release the lock while the command is alive.
    pub fn check_release(&mut self, run: usize, request: &Request) {
        let (Request::Create(record) | Request::Update(_, record)) = request else { return };
        let releases = record.run.as_ref().is_none_or(|mark| mark.state == MarkState::Released);
        if (releases || record.holder_identity.is_empty()) && self.state.runs[run].tree.is_any_alive() {
            self.record_violation(ViolationKind::ReleasedWhileAlive);
        }
    }

    /// Checks that no process of the command is alive [`KILL_TIME`] after the kill instant, or after this run has
    /// learned that another run holds the lock, if that is earlier.
    fn check_outlived(&mut self, run: usize) {
        let now = self.boot_time(run);
        let Run { tree, supervisor, lost_at, .. } = &self.state.runs[run];
        let kill_at = supervisor.tenure().map(|tenure| tenure.kill).into_iter().chain(*lost_at).min();
        if tree.is_any_alive() && kill_at.is_some_and(|at| now > at + KILL_TIME) {
            self.record_violation(ViolationKind::Outlived);
        }
    }

    pub fn is_disabled(&self, rule: Rule) -> bool {
        self.setting.disabled_rule == Some(rule)
    }
}
