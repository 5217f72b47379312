//! One run of leaderrun, whose election is driven the same way leaderrun's election thread drives it.

use std::collections::VecDeque;
use std::time::Duration;

use leaderrun_core::election::{
    Election, ElectionAction, ElectionConfig, ElectionInputs, Leadership, Now, Preference, Reply, Request, WatchEvent,
};
use leaderrun_core::elector::{ElectionReport, Elector};
use leaderrun_core::instant::Instant;
use leaderrun_core::messages::{Order, Report};
use leaderrun_core::record::{MarkState, RunId, Stored};
use leaderrun_core::supervisor::{StopOptions, Supervisor};
use leaderrun_core::tenure::Tenure;

use crate::disturbance::{Partition, Role};
use crate::setting::Rule;
use crate::world::World;
use testkit::simulated_time::Time;

/// The signal number of SIGTERM.
pub const TERM: i32 = 15;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProcessState {
    Running,
    Frozen,
    Dead,
}

/// The command: a main process and its child, which both ignore every signal except SIGKILL.
#[derive(Clone, Debug, Default, Hash)]
pub struct Tree {
    /// `true` while the main process is alive.
    pub main_alive: bool,
    /// `true` while the child of the main process is alive.
    pub child_alive: bool,
    /// The time at which both processes die, if they were sent SIGKILL.
    pub dies_at: Option<Time>,
}

impl Tree {
    pub fn is_any_alive(&self) -> bool {
        self.main_alive || self.child_alive
    }
}

#[derive(Clone, Hash)]
pub struct Run {
    pub machine: usize,
    pub id: RunId,
    pub elector_process: ProcessState,
    pub supervisor_process: ProcessState,
    pub election: Election,
    pub supervisor: Supervisor,
    pub elector: Elector,
    /// `true` once the elector has noticed that the supervisor is dead.
    pub supervisor_seen_dead: bool,
    pub tree: Tree,
    /// `true` once the election is over.
    pub election_finished: bool,
    /// The request in flight.
    pub request: Option<Request>,
    /// `true` if time has advanced since the request was sent.
    pub request_is_late: bool,
    /// The reply in flight.
    pub reply: Option<Reply>,
    /// `true` if time has advanced since the reply was sent.
    pub reply_is_late: bool,
    /// Writes that can still be carried out, although their replies are no longer awaited.
    pub abandoned_requests: Vec<Request>,
    /// The stored records of writes whose replies are still in flight, but no longer awaited.
    pub replies_to_abandoned_writes: Vec<Stored>,
    /// The events in flight of the open watch; `None` if no watch is open.
    pub watch: Option<VecDeque<WatchEvent>>,
    /// `true` if time has advanced since an event in flight was sent.
    watch_is_late: bool,
    /// `true` if a partition has broken the watch, so no more events are sent.
    pub watch_is_dead: bool,
    pub orders: VecDeque<Order>,
    pub reports: VecDeque<Report>,
    /// `true` once the supervisor has noticed that the elector is dead.
    pub elector_seen_dead: bool,
    /// `true` once the supervisor has reaped the main process.
    pub main_reaped: bool,
    /// `true` from the start of the command until its end is reported.
    pub has_command: bool,
    /// The fencing token.
    pub token: u64,
    /// The holder in the record that this run last observed.
    pub known_holder: Option<RunId>,
    /// `true` if an outside edit has removed this run's mark since its last write.
    pub mark_removed: bool,
    /// The time at which the election learned that another run holds the lock.
    pub lost_at: Option<Instant>,
    /// `true` while traffic is being withdrawn from the command.
    pub withdrawal_pending: bool,
}

impl Run {
    pub fn name(&self) -> String {
        format!("{}/{}", ["A", "B"][self.machine], self.id)
    }

    /// Returns whether this run may still hold the lock although its mark was removed from the record, so that a new
    /// candidate cannot tell.
    pub fn is_displaced(&self) -> bool {
        self.mark_removed && (self.tree.is_any_alive() || !self.election_finished)
    }

    /// Returns the state of the process with this role, and of the other process.
    pub fn process_and_peer(&self, role: Role) -> (ProcessState, ProcessState) {
        match role {
            Role::Elector => (self.elector_process, self.supervisor_process),
            Role::Supervisor => (self.supervisor_process, self.elector_process),
        }
    }

    pub fn process_mut(&mut self, role: Role) -> &mut ProcessState {
        match role {
            Role::Elector => &mut self.elector_process,
            Role::Supervisor => &mut self.supervisor_process,
        }
    }

    /// Returns the number of messages that become late if time advances.
    pub fn messages_delayed_by_advance(&self) -> u8 {
        // Messages to a frozen process wait in its queue.
        let is_running = self.elector_process == ProcessState::Running;
        let has_event = self.watch.as_ref().is_some_and(|events| !events.is_empty()) && !self.watch_is_late;
        u8::from(self.request.is_some() && !self.request_is_late)
            + u8::from(is_running && self.reply.is_some() && !self.reply_is_late)
            + u8::from(is_running && has_event)
    }

    /// Returns whether a message from or to this run is in flight.
    pub fn has_pending_messages(&self) -> bool {
        let has_event = self.watch.as_ref().is_some_and(|events| !events.is_empty());
        self.request.is_some()
            || self.reply.is_some()
            || has_event
            || !self.abandoned_requests.is_empty()
            || !self.replies_to_abandoned_writes.is_empty()
    }

    /// Marks all messages as late, except those in the queue of a frozen process.
    pub fn mark_messages_as_late(&mut self) {
        self.request_is_late = self.request.is_some();
        if self.elector_process == ProcessState::Running {
            self.reply_is_late = self.reply.is_some();
            self.watch_is_late = self.watch.as_ref().is_some_and(|events| !events.is_empty());
        }
    }
}

impl World<'_> {
    pub fn start_run(&mut self, machine: usize) {
        let timing = self.setting.timing.clone();
        let number = self.state.runs.len();
        let id = RunId::new(number.to_string());
        let identity = if self.setting.same_identity { "same" } else { ["A", "B"][machine] };
        let config = ElectionConfig {
            identity: identity.to_owned(),
            run: id.clone(),
            timing,
            wait: None,
            min_hold: None,
            ignores_min_hold: false,
            preference: Preference::default(),
        };
        let now = self.setting.clocks[machine].now(self.state.now);
        let now = Now { wall: self.setting.clocks[machine].now(0).wall, ..now };
        let stop_options = StopOptions {
            stop_signal: TERM,
            lost_grace: self.setting.timing.lost_grace(),
            kill_after: None,
            max_run: None,
        };
        self.state.runs.push(Run {
            machine,
            id,
            elector_process: ProcessState::Running,
            supervisor_process: ProcessState::Running,
            election: Election::new(config, now, number as u64),
            supervisor: Supervisor::new(stop_options),
            elector: Elector::new(&self.setting.timing, self.setting.routes),
            supervisor_seen_dead: false,
            tree: Tree::default(),
            election_finished: false,
            request: None,
            request_is_late: false,
            reply: None,
            reply_is_late: false,
            abandoned_requests: Vec::new(),
            replies_to_abandoned_writes: Vec::new(),
            watch: None,
            watch_is_late: false,
            watch_is_dead: false,
            orders: VecDeque::new(),
            reports: VecDeque::new(),
            elector_seen_dead: false,
            main_reaped: false,
            has_command: false,
            token: 0,
            known_holder: None,
            mark_removed: false,
            lost_at: None,
            withdrawal_pending: false,
        });
        self.step_election(number, ElectionInputs::default(), None);
    }

    fn now(&self, run: usize) -> Now {
        // Nothing depends on wall clocks, so they do not advance, which makes more states equal.
        let clock = &self.setting.clocks[self.state.runs[run].machine];
        Now { boot: clock.boot_time(self.state.now), wall: clock.now(0).wall }
    }

    /// Returns what the boot clock of the run's machine reads now.
    pub fn boot_time(&self, run: usize) -> Instant {
        self.now(run).boot
    }

    /// Returns the true time at which a duration that begins now is over on the clock of the run's machine.
    pub fn true_time_after(&self, run: usize, duration: Duration) -> Time {
        self.state.now + self.setting.clocks[self.state.runs[run].machine].true_time(duration)
    }

    pub fn next_timeout_of(&self, run: usize) -> Option<Time> {
        let Run { machine, elector_process, supervisor_process, election, supervisor, elector, tree, .. } =
            &self.state.runs[run];
        let mut instants = Vec::new();
        if *elector_process == ProcessState::Running {
            instants.extend(election.next_timeout());
            instants.extend(elector.next_timeout());
        }
        if *supervisor_process == ProcessState::Running {
            instants.extend(supervisor.next_timeout());
        }
        let clock = &self.setting.clocks[*machine];
        instants.into_iter().map(|instant| clock.time_of(instant)).chain(tree.dies_at).min()
    }

    /// Handles everything that is due in this run at the current time.
    pub fn handle_timeouts(&mut self, run: usize) {
        if self.state.runs[run].tree.dies_at.is_some_and(|at| self.state.now >= at) {
            self.state.runs[run].tree = Tree::default();
            self.trace(|world| format!("{}'s command is dead", world.state.runs[run].name()));
        }
        self.run_supervisor(run);
        self.run_elector(run);
        self.run_election(run);
    }

    pub fn run_election(&mut self, run: usize) {
        let now = self.now(run);
        while self.state.runs[run].elector_process == ProcessState::Running
            && self.state.runs[run].election.next_timeout().is_some_and(|at| now.boot >= at)
        {
            self.step_election(run, ElectionInputs::default(), None);
        }
    }

    /// Delivers the reply to the election.
    pub fn deliver_reply(&mut self, run: usize) {
        let Some(reply) = self.state.runs[run].reply.take() else { return };
        self.state.runs[run].reply_is_late = false;
        let is_read = matches!(reply, Reply::Read(_));
        if let Reply::Read(stored) = &reply {
            self.set_known_holder(run, stored.as_ref());
        } else if let Reply::Written(stored) = &reply {
            self.set_known_holder(run, Some(stored));
        }
        let reply = match reply {
            Reply::Read(stored) => Reply::Read(stored.map(|stored| self.record_without_rule(run, stored))),
            Reply::Written(stored) => Reply::Written(self.record_without_rule(run, stored)),
            reply => reply,
        };
        self.step_election(run, ElectionInputs::reply(reply), (!is_read).then_some(Rule::TenureFromSending));
    }

    /// Delivers the reply at `index` in `replies_to_abandoned_writes`.
    pub fn deliver_reply_to_abandoned_write(&mut self, run: usize, index: usize) {
        let stored = self.state.runs[run].replies_to_abandoned_writes.remove(index);
        let late_write = Some(self.record_without_rule(run, stored));
        let inputs = ElectionInputs { late_write, ..ElectionInputs::default() };
        self.step_election(run, inputs, Some(Rule::LateTenureFromSending));
    }

    pub fn deliver_watch_event(&mut self, run: usize) {
        let Some(event) = self.state.runs[run].watch.as_mut().and_then(VecDeque::pop_front) else { return };
        let is_empty = self.state.runs[run].watch.as_ref().is_none_or(VecDeque::is_empty);
        self.state.runs[run].watch_is_late &= !is_empty;
        let event = match event {
            WatchEvent::Changed(stored) => {
                self.set_known_holder(run, Some(&stored));
                WatchEvent::Changed(self.record_without_rule(run, stored))
            }
            WatchEvent::Deleted => {
                self.set_known_holder(run, None);
                WatchEvent::Deleted
            }
            event => {
                self.state.runs[run].watch = None;
                event
            }
        };
        self.step_election(run, ElectionInputs::watch_event(event), None);
    }

    fn set_known_holder(&mut self, run: usize, stored: Option<&Stored>) {
        let mark = stored.and_then(|stored| stored.record.mark());
        self.state.runs[run].known_holder =
            mark.filter(|mark| mark.state == MarkState::Held).map(|mark| mark.run.clone());
    }

    /// Returns the record as this run observes it. If the setting disables a rule that depends on the record's mark,
    /// the mark is changed or removed, so that the rule has no effect.
    fn record_without_rule(&self, run: usize, mut stored: Stored) -> Stored {
        let id = &self.state.runs[run].id;
        if let Some(mark) = &mut stored.record.run {
            if self.is_disabled(Rule::RecognizeByRunId) {
                mark.run = id.clone();
            } else if self.is_disabled(Rule::WaitForDisplacedHolder) && mark.run != *id {
                stored.record.run = None;
            }
        }
        stored
    }

    /// Steps the election, and carries out its actions. `tenure_rule` is the rule, if any, that makes a tenure in these
    /// actions count from when the request was sent. If the setting disables that rule, the tenure counts from now
    /// instead.
    pub fn step_election(&mut self, run: usize, inputs: ElectionInputs, tenure_rule: Option<Rule>) {
        let now = self.now(run);
        for action in self.state.runs[run].election.step(now, inputs) {
            match action {
                ElectionAction::Send(request) => self.send(run, request),
                ElectionAction::Watch(from) => {
                    let partition = self.state.partitions[self.state.runs[run].machine];
                    let events = if self.setting.may_watch {
                        self.events_since(from.as_ref()).into()
                    } else {
                        VecDeque::from([WatchEvent::Forbidden])
                    };
                    let run = &mut self.state.runs[run];
                    (run.watch_is_late, run.watch_is_dead) = (false, partition.is_some());
                    run.watch = Some(if partition.is_some() { VecDeque::new() } else { events });
                }
                ElectionAction::Unwatch => self.state.runs[run].watch = None,
                ElectionAction::StartLeading(Leadership { tenure, resource_version, .. }) => {
                    let tenure = self.tenure_without_rule(run, tenure, tenure_rule);
                    self.state.runs[run].token = resource_version.parse().unwrap_or_default();
                    self.trace(|world| {
                        format!("{} has acquired the lock, token {resource_version}", world.state.runs[run].name())
                    });
                    self.report_to_elector(run, ElectionReport::Acquired { tenure, environment: Vec::new() });
                }
                ElectionAction::Extend(tenure) => {
                    let tenure = self.tenure_without_rule(run, tenure, tenure_rule);
                    self.report_to_elector(run, ElectionReport::Renewed(tenure));
                }
                ElectionAction::Lose { holder } => {
                    self.trace(|world| format!("{} sees that {holder:?} holds the lock", world.state.runs[run].name()));
                    self.lose(run);
                }
                ElectionAction::Finish(outcome) => {
                    self.trace(|world| {
                        format!("{}'s election has finished: {outcome:?}", world.state.runs[run].name())
                    });
                    self.state.runs[run].election_finished = true;
                    self.state.runs[run].watch = None;
                    self.state.runs[run].replies_to_abandoned_writes.clear();
                    self.report_to_elector(run, ElectionReport::Finished(outcome));
                }
                ElectionAction::Claiming => self.report_to_elector(run, ElectionReport::Claiming),
                ElectionAction::ClaimFailed => self.report_to_elector(run, ElectionReport::ClaimFailed),
                ElectionAction::StepDown => self.report_to_elector(run, ElectionReport::StepDownRequested),
                ElectionAction::Notify(_) => {}
            }
        }
    }

    fn send(&mut self, run: usize, request: Request) {
        self.check_release(run, &request);
        self.trace(|world| {
            let description = match &request {
                Request::Get => "a read".to_owned(),
                Request::Create(_) => "a create".to_owned(),
                Request::Update(version, record) => {
                    format!(
                        "an update of version {} ({:?})",
                        version.resource_version,
                        record.run.as_ref().map(|mark| mark.state)
                    )
                }
            };
            format!("{} sends {description}", world.state.runs[run].name())
        });
        let is_cut = Partition::drops_outbound(self.state.partitions[self.state.runs[run].machine]);
        let run = &mut self.state.runs[run];
        run.reply_is_late = false;
        if let Some(Reply::Written(stored)) = run.reply.take() {
            run.replies_to_abandoned_writes.push(stored);
        }
        // An abandoned read has no effect, so only writes are kept.
        run.abandoned_requests.extend(run.request.take().filter(|request| *request != Request::Get));
        run.request_is_late = false;
        run.request = Some(request).filter(|_| !is_cut);
    }

    /// Returns the tenure that this run gets, which differs from `tenure` if the setting disables a rule about tenures.
    /// If that rule is `tenure_rule`, the tenure counts from now.
    fn tenure_without_rule(&self, run: usize, tenure: Tenure, tenure_rule: Option<Rule>) -> Tenure {
        let timing = &self.setting.timing;
        match self.setting.disabled_rule {
            rule @ Some(_) if rule == tenure_rule => Tenure::of_renewal(self.boot_time(run), timing),
            Some(Rule::GraceEndsBeforeLease) => {
                Tenure { kill: tenure.kill + (timing.lease_duration() - timing.renew_deadline()), ..tenure }
            }
            _ => tenure,
        }
    }

    fn lose(&mut self, run: usize) {
        self.state.runs[run].lost_at = Some(self.boot_time(run));
        // Without the rule, the elector does not learn of the takeover, so the command keeps its grace period.
        if !self.is_disabled(Rule::NoGraceAfterTakeover) {
            self.report_to_elector(run, ElectionReport::Taken);
        }
    }
}
