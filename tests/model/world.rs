//! The state of the model, the steps from one state to the next, and the invariants.

use leaderrun_core::election::{Reply, Request, WatchEvent};
use leaderrun_core::record::{Record, RunState};

use crate::clock::{MILLISECOND, Time};
use crate::disturbance::{Cut, Disturbance, Role};
use crate::run::{ProcessState, Run};
use crate::setting::{KILL_TIME, Rule, Setting};
use crate::store::Store;

/// How long before a timeout "just before" is.
const JUST_BEFORE: Time = MILLISECOND;

/// The kind of a violated invariant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViolationKind {
    /// Two commands were alive at once.
    Overlap,
    /// A command started with a fencing token that was not greater than all earlier ones.
    Token,
    /// The lock was released while a process of the command was alive.
    ReleasedAlive,
    /// A process of a command was alive after the deadline by which all must be dead.
    Outlived,
}

/// A step of the model. A candidate carries out its own actions at once, because their order relative to the other
/// candidate's actions makes no difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Time advances to the next timeout.
    Advance,
    /// Time advances to just before the next timeout, when late messages may be delivered.
    AdvanceToJustBefore,
    /// A run's request is carried out and answered at once.
    Arrive(usize),
    /// A run's request is carried out, and the reply is late.
    ArriveWithLateReply(usize),
    /// A request that its run has dropped is carried out.
    DroppedRequestArrives(usize, usize),
    Refuse(usize),
    Answer(usize),
    Watched(usize),
    Cut(usize, Cut),
    Heal(usize),
    Freeze(usize, Role),
    Thaw(usize, Role),
    Crash(usize, Role),
    CommandEnds(usize),
    Terminate(usize),
    Withdrawn(usize),
    StartRun(usize),
    OutsideEdit(Disturbance),
}

#[derive(Clone, Hash)]
pub struct State {
    pub now: Time,
    pub store: Store,
    pub runs: Vec<Run>,
    /// The partition of each of the two machines, if any.
    pub cuts: [Option<Cut>; 2],
    pub disturbances_left: u8,
    pub greatest_token: u64,
    pub commands: usize,
}

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
            cuts: [None; 2],
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

    /// Returns all steps that are possible in this state.
    pub fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for (index, run) in self.state.runs.iter().enumerate() {
            self.steps_of_run(index, run, &mut steps);
        }
        for host in 0..2 {
            match self.state.cuts[host] {
                Some(_) => steps.push(Step::Heal(host)),
                None if self.may_disturb(Disturbance::Cut) => steps.extend(Cut::ALL.map(|cut| Step::Cut(host, cut))),
                None => {}
            }
            let is_free =
                !self.state.runs.iter().any(|run| run.host == host && run.elector_process != ProcessState::Dead);
            let room = self.state.runs.len() < self.setting.runs;
            if is_free
                && room
                && self.may_disturb(Disturbance::Restart)
                && !self.state.runs.iter().any(Run::is_displaced)
            {
                steps.push(Step::StartRun(host));
            }
        }
        let outside_edits =
            [Disturbance::Delete, Disturbance::Empty, Disturbance::EmptyKeepingMark, Disturbance::EditHolder];
        steps.extend(outside_edits.into_iter().filter(|kind| self.may_edit(*kind)).map(Step::OutsideEdit));
        let late = self.state.runs.iter().map(Run::deliverable_messages).sum::<u8>();
        let affordable = late == 0 || (self.may_disturb(Disturbance::Delay) && late <= self.state.disturbances_left);
        if let Some(next) = self.next_timeout().filter(|at| affordable && *at <= self.setting.end) {
            steps.push(Step::Advance);
            if self.state.now + JUST_BEFORE < next && self.state.runs.iter().any(Run::has_pending_messages) {
                steps.push(Step::AdvanceToJustBefore);
            }
        }
        steps
    }

    fn steps_of_run(&self, index: usize, run: &Run, steps: &mut Vec<Step>) {
        if run.request.is_some() {
            steps.push(Step::Arrive(index));
            if self.may_disturb(Disturbance::Delay) && !run.request_is_late {
                steps.push(Step::ArriveWithLateReply(index));
            }
            if self.may_disturb(Disturbance::Refused) {
                steps.push(Step::Refuse(index));
            }
        }
        steps.extend((0..run.dropped_requests.len()).map(|number| Step::DroppedRequestArrives(index, number)));
        if run.elector_process == ProcessState::Running {
            if run.reply.is_some() {
                steps.push(Step::Answer(index));
            }
            if run.watch.as_ref().is_some_and(|events| !events.is_empty()) {
                steps.push(Step::Watched(index));
            }
            if run.withdrawal_pending {
                steps.push(Step::Withdrawn(index));
            }
            if !run.over && self.may_disturb(Disturbance::TerminationSignal) {
                steps.push(Step::Terminate(index));
            }
        }
        for role in Role::ALL {
            let (this, other) = run.process_and_peer(role);
            match this {
                ProcessState::Frozen => steps.push(Step::Thaw(index, role)),
                // The promise covers the failure of one of the two processes.
                ProcessState::Running if other == ProcessState::Running && !run.over => {
                    if self.may_disturb(Disturbance::Freeze) {
                        steps.push(Step::Freeze(index, role));
                    }
                    if self.may_disturb(Disturbance::Crash) {
                        steps.push(Step::Crash(index, role));
                    }
                }
                _ => {}
            }
        }
        if run.tree.main && run.tree.dies_at.is_none() && self.may_disturb(Disturbance::CommandEnds) {
            steps.push(Step::CommandEnds(index));
        }
    }

    fn may_disturb(&self, kind: Disturbance) -> bool {
        self.state.disturbances_left > 0 && self.setting.disturbances.contains(&kind)
    }

    /// Returns whether an outside edit is possible that the promise covers: all candidates must have observed the
    /// holder whose mark it removes.
    fn may_edit(&self, kind: Disturbance) -> bool {
        if !self.may_disturb(kind) {
            return false;
        }
        let Some(record) = self.state.store.record() else { return false };
        let marked = record.mark().filter(|mark| mark.state == RunState::Held);
        match kind {
            Disturbance::EmptyKeepingMark | Disturbance::EditHolder => {
                marked.is_some() && !record.holder_identity.is_empty()
            }
            _ => marked.is_none_or(|mark| {
                let mut others = self.state.runs.iter().filter(|run| run.id != mark.run && !run.over);
                others.all(|run| run.known_holder.as_ref() == Some(&mark.run))
            }),
        }
    }

    fn next_timeout(&self) -> Option<Time> {
        (0..self.state.runs.len())
            .filter_map(|run| self.next_timeout_of(run))
            .min()
            .map(|at| at.max(self.state.now + 1))
    }

    /// Takes a step, and returns the invariant that it violates, if any.
    pub fn apply(&mut self, step: Step) -> Option<ViolationKind> {
        if !matches!(step, Step::Advance | Step::AdvanceToJustBefore) {
            self.trace(|world| world.describe(step));
        }
        self.state.disturbances_left -= self.cost(step);
        match step {
            Step::Advance => self.advance(Time::default()),
            Step::AdvanceToJustBefore => self.advance(JUST_BEFORE),
            Step::Arrive(run) => self.arrive(run, true),
            Step::ArriveWithLateReply(run) => self.arrive(run, false),
            Step::DroppedRequestArrives(run, number) => {
                let request = self.state.runs[run].dropped_requests.remove(number);
                self.carry_out(run, request);
            }
            Step::Refuse(run) => {
                self.state.runs[run].request = None;
                self.reply(run, Reply::Refused { retry_after: None }, true);
            }
            Step::Answer(run) => self.deliver_reply(run),
            Step::Watched(run) => self.deliver_watch_event(run),
            Step::Cut(host, cut) => self.state.cuts[host] = Some(cut),
            Step::Heal(host) => self.state.cuts[host] = None,
            Step::Freeze(run, role) => *self.state.runs[run].process_mut(role) = ProcessState::Frozen,
            Step::Thaw(run, role) => self.thaw(run, role),
            Step::Crash(run, role) => self.crash(run, role),
            Step::CommandEnds(run) => {
                self.state.runs[run].tree.main = false;
                self.run_supervisor(run);
            }
            Step::Terminate(run) => self.send_sigterm(run),
            Step::Withdrawn(run) => self.withdrawn(run),
            Step::StartRun(host) => self.start_run(host),
            Step::OutsideEdit(kind) => self.outside_edit(kind),
        }
        self.violation
    }

    fn cost(&self, step: Step) -> u8 {
        match step {
            Step::Advance | Step::AdvanceToJustBefore => self.state.runs.iter().map(Run::deliverable_messages).sum(),
            Step::Arrive(_) | Step::DroppedRequestArrives(..) | Step::Answer(_) | Step::Watched(_) => 0,
            Step::Heal(_) | Step::Thaw(..) | Step::Withdrawn(_) => 0,
            _ => 1,
        }
    }

    fn describe(&self, step: Step) -> String {
        let name = |run: usize| self.state.runs[run].name();
        match step {
            Step::Advance | Step::AdvanceToJustBefore => String::new(),
            Step::Arrive(run) => format!("{}'s request arrives", name(run)),
            Step::ArriveWithLateReply(run) => format!("{}'s request arrives; the reply is late", name(run)),
            Step::DroppedRequestArrives(run, _) => format!("a request that {} has dropped arrives", name(run)),
            Step::Refuse(run) => format!("{}'s request is refused", name(run)),
            Step::Answer(run) => format!("{} receives the reply", name(run)),
            Step::Watched(run) => format!("{} receives a watch event", name(run)),
            Step::Cut(host, cut) => format!("machine {} is cut off: {cut:?}", ["A", "B"][host]),
            Step::Heal(host) => format!("machine {} is connected again", ["A", "B"][host]),
            Step::Freeze(run, role) => format!("{}'s {role:?} is frozen", name(run)),
            Step::Thaw(run, role) => format!("{}'s {role:?} is thawed", name(run)),
            Step::Crash(run, role) => format!("{}'s {role:?} is killed", name(run)),
            Step::CommandEnds(run) => format!("{}'s main process ends", name(run)),
            Step::Terminate(run) => format!("{} gets SIGTERM", name(run)),
            Step::Withdrawn(run) => format!("traffic is routed away from {}", name(run)),
            Step::StartRun(host) => format!("leaderrun is started again on machine {}", ["A", "B"][host]),
            Step::OutsideEdit(kind) => format!("another client: {kind:?}"),
        }
    }

    /// Advances the time to the next timeout, or to this long before it. Messages that are under way become late.
    fn advance(&mut self, before: Time) {
        for run in &mut self.state.runs {
            run.mark_pending_as_late();
        }
        let Some(next) = self.next_timeout() else { return };
        self.state.now = next - before;
        for run in 0..self.state.runs.len() {
            self.handle_timeouts(run);
        }
        for run in 0..self.state.runs.len() {
            self.check_outlived(run);
        }
    }

    fn arrive(&mut self, run: usize, at_once: bool) {
        let Some(request) = self.state.runs[run].request.take() else { return };
        self.state.runs[run].request_is_late = false;
        let reply = self.carry_out(run, request);
        self.reply(run, reply, at_once);
    }

    fn reply(&mut self, run: usize, reply: Reply, at_once: bool) {
        let Run { host, elector_process, .. } = self.state.runs[run];
        if Cut::inward(self.state.cuts[host]) {
            return self.trace(|_| "the reply is lost".to_owned());
        }
        self.state.runs[run].reply = Some(reply);
        self.state.runs[run].reply_is_late = !at_once;
        if at_once && elector_process == ProcessState::Running {
            self.deliver_reply(run);
        }
    }

    /// Lets the API server carry out a request.
    fn carry_out(&mut self, run: usize, request: Request) -> Reply {
        let before = self.state.store.revision();
        let reply = self.state.store.answer(request, self.setting.disabled);
        if self.state.store.revision() != before {
            self.trace(|world| format!("written: {}", world.shown()));
            self.state.runs[run].displaced = false;
            self.publish();
        }
        reply
    }

    fn outside_edit(&mut self, kind: Disturbance) {
        let Some(mut record) = self.state.store.record().cloned() else { return };
        let holder = record.mark().filter(|mark| mark.state == RunState::Held).map(|mark| mark.run.clone());
        match kind {
            Disturbance::Delete => self.state.store.put(None),
            Disturbance::EditHolder => drop(self.state.store.write(Record { holder_identity: "C".into(), ..record })),
            _ => {
                record.holder_identity.clear();
                record.run = record.run.filter(|_| kind == Disturbance::EmptyKeepingMark);
                self.state.store.write(record);
            }
        }
        if matches!(kind, Disturbance::Delete | Disturbance::Empty) {
            for run in self.state.runs.iter_mut().filter(|run| Some(&run.id) == holder.as_ref()) {
                run.displaced = true;
            }
        }
        self.publish();
    }

    fn publish(&mut self) {
        let event = self.state.store.last_event();
        for run in &mut self.state.runs {
            let is_cut = Cut::inward(self.state.cuts[run.host]);
            run.watch_is_dead |= is_cut;
            if let Some(events) = run.watch.as_mut().filter(|_| !run.watch_is_dead) {
                events.push_back(event.clone());
            }
        }
    }

    pub fn events_since(&self, from: Option<&leaderrun_core::record::Version>) -> Vec<WatchEvent> {
        self.state.store.events_since(from)
    }

    pub fn shown(&self) -> String {
        let Some(record) = self.state.store.record() else { return "there is no lease".to_owned() };
        let mark = record.mark().map(|mark| format!("run {} {:?}", mark.run, mark.state));
        let mark = mark.unwrap_or_else(|| "no valid mark".to_owned());
        format!("version {}, holder {:?}, {mark}", self.state.store.revision(), record.holder_identity)
    }

    pub fn violate(&mut self, violation: ViolationKind) {
        self.violation = self.violation.or(Some(violation));
    }

    /// Checks the invariants for a command that has just started.
    pub fn check_start(&mut self, run: usize) {
        self.state.commands += 1;
        self.trace(|world| format!("{} STARTS ITS COMMAND", world.state.runs[run].name()));
        if self.state.runs.iter().filter(|run| run.tree.is_left()).count() > 1 {
            self.violate(ViolationKind::Overlap);
        }
        if self.state.runs[run].token <= self.state.greatest_token {
            self.violate(ViolationKind::Token);
        }
        self.state.greatest_token = self.state.greatest_token.max(self.state.runs[run].token);
    }

    /// Checks that a write does not release the lock of a living command.
    pub fn check_release(&mut self, run: usize, request: &Request) {
        let (Request::Create(record) | Request::Update(_, record)) = request else { return };
        let releases = record.run.as_ref().is_none_or(|mark| mark.state == RunState::Released);
        if (releases || record.holder_identity.is_empty()) && self.state.runs[run].tree.is_left() {
            self.violate(ViolationKind::ReleasedAlive);
        }
    }

    fn check_outlived(&mut self, run: usize) {
        let now = self.boot(run);
        let Run { tree, supervisor, lost_at, .. } = &self.state.runs[run];
        let dead_by = supervisor.tenure().map(|tenure| tenure.kill).into_iter().chain(*lost_at).min();
        if tree.is_left() && dead_by.is_some_and(|at| now > at + KILL_TIME) {
            self.violate(ViolationKind::Outlived);
        }
    }

    pub fn is_disabled(&self, rule: Rule) -> bool {
        self.setting.disabled == Some(rule)
    }
}
