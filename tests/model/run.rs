//! One run of leaderrun: its election and its elector, driven like the production loops drive them.

use std::collections::VecDeque;
use std::time::Duration;

use leaderrun_core::election::{
    Election, ElectionAction, ElectionConfig, ElectionInputs, Leadership, Now, Preference, Reply, Request, WatchEvent,
};
use leaderrun_core::elector::{
    ElectionReport, Elector, ElectorAction, ElectorInputs, ElectorNotice, SupervisorFailure,
};
use leaderrun_core::instant::Instant;
use leaderrun_core::messages::{End, Gone, Order, Report};
use leaderrun_core::record::{RunId, RunState, Stored};
use leaderrun_core::supervisor::{StopOptions, Supervisor};
use leaderrun_core::tenure::Tenure;

use crate::clock::Time;
use crate::disturbance::{Cut, Part};
use crate::setting::{DYING, Rule};
use crate::world::{Broken, World};

const TERM: i32 = 15;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Process {
    Well,
    Frozen,
    Dead,
}

/// The command: a main process and one that it forked, which both ignore every signal but SIGKILL.
#[derive(Clone, Debug, Default, Hash)]
pub struct Tree {
    pub main: bool,
    pub forked: bool,
    /// SIGKILL was sent to all of it.
    pub dies_at: Option<Time>,
}

impl Tree {
    pub fn is_left(&self) -> bool {
        self.main || self.forked
    }
}

#[derive(Clone, Hash)]
pub struct Run {
    pub host: usize,
    pub id: RunId,
    pub elector_process: Process,
    pub supervisor_process: Process,
    pub election: Election,
    pub supervisor: Supervisor,
    pub elector: Elector,
    pub supervisor_seen_dead: bool,
    pub tree: Tree,
    /// The election is over.
    pub over: bool,
    pub request: Option<Request>,
    pub request_is_late: bool,
    pub reply: Option<Reply>,
    pub reply_is_late: bool,
    /// Requests whose answers nobody waits for any more, that may still be carried out.
    pub given_up: Vec<Request>,
    pub watch: Option<VecDeque<WatchEvent>>,
    watch_is_late: bool,
    pub watch_is_dead: bool,
    pub orders: VecDeque<Order>,
    pub reports: VecDeque<Report>,
    pub elector_seen_dead: bool,
    pub main_reaped: bool,
    pub has_main: bool,
    pub token: u64,
    /// The holder in the record as this run was last shown it.
    pub knows: Option<RunId>,
    /// A third party has removed this run's mark.
    pub displaced: bool,
    pub lost_at: Option<Instant>,
    /// Traffic is to be routed away from the command.
    pub withdraws: bool,
}

impl Run {
    pub fn name(&self) -> String {
        format!("{}/{}", ["A", "B"][self.host], self.id)
    }

    /// Whether somebody who is new could not know that this run may hold the lease.
    pub fn is_displaced(&self) -> bool {
        self.displaced && (self.tree.is_left() || !self.over)
    }

    /// A process, and the other one.
    pub fn parts(&self, part: Part) -> (Process, Process) {
        match part {
            Part::Elector => (self.elector_process, self.supervisor_process),
            Part::Supervisor => (self.supervisor_process, self.elector_process),
        }
    }

    pub fn part(&mut self, part: Part) -> &mut Process {
        match part {
            Part::Elector => &mut self.elector_process,
            Part::Supervisor => &mut self.supervisor_process,
        }
    }

    /// How many things are under way that could be here by now.
    pub fn on_the_way(&self) -> u8 {
        // What has reached a process that is stopped waits there.
        let heeds = self.elector_process == Process::Well;
        let event = self.watch.as_ref().is_some_and(|events| !events.is_empty()) && !self.watch_is_late;
        u8::from(self.request.is_some() && !self.request_is_late)
            + u8::from(heeds && self.reply.is_some() && !self.reply_is_late)
            + u8::from(heeds && event)
    }

    /// Whether something may still come for this run, or from it.
    pub fn awaits_something(&self) -> bool {
        let event = self.watch.as_ref().is_some_and(|events| !events.is_empty());
        self.request.is_some() || self.reply.is_some() || event || !self.given_up.is_empty()
    }

    pub fn everything_is_late(&mut self) {
        self.request_is_late = self.request.is_some();
        if self.elector_process == Process::Well {
            self.reply_is_late = self.reply.is_some();
            self.watch_is_late = self.watch.as_ref().is_some_and(|events| !events.is_empty());
        }
    }
}

impl World<'_> {
    pub fn begin(&mut self, host: usize) {
        let timing = self.setting.timing.clone();
        let number = self.state.runs.len();
        let id = RunId::new(number.to_string());
        let identity = if self.setting.one_identity { "same" } else { ["A", "B"][host] };
        let config = ElectionConfig {
            identity: identity.to_owned(),
            run: id.clone(),
            timing,
            wait: None,
            min_hold: None,
            preference: Preference::default(),
        };
        let now = self.setting.clocks[host].now(self.state.now);
        let now = Now { wall: self.setting.clocks[host].now(0).wall, ..now };
        let stop_options =
            StopOptions { stop_signal: TERM, lost_grace: self.setting.timing.lost_grace(), kill_after: None };
        self.state.runs.push(Run {
            host,
            id,
            elector_process: Process::Well,
            supervisor_process: Process::Well,
            election: Election::new(config, now, number as u64),
            supervisor: Supervisor::new(stop_options),
            elector: Elector::new(&self.setting.timing, self.setting.routes),
            supervisor_seen_dead: false,
            tree: Tree::default(),
            over: false,
            request: None,
            request_is_late: false,
            reply: None,
            reply_is_late: false,
            given_up: Vec::new(),
            watch: None,
            watch_is_late: false,
            watch_is_dead: false,
            orders: VecDeque::new(),
            reports: VecDeque::new(),
            elector_seen_dead: false,
            main_reaped: false,
            has_main: false,
            token: 0,
            knows: None,
            displaced: false,
            lost_at: None,
            withdraws: false,
        });
        self.step_election(number, ElectionInputs::default(), false);
    }

    fn now(&self, run: usize) -> Now {
        // Wall clocks stand still: nothing depends on them, and more states are alike.
        let clock = &self.setting.clocks[self.state.runs[run].host];
        Now { boot: clock.boot(self.state.now), wall: clock.now(0).wall }
    }

    pub fn boot(&self, run: usize) -> Instant {
        self.now(run).boot
    }

    /// In how long, of true time, a duration of this run's clock is over.
    pub fn in_true_time(&self, run: usize, duration: Duration) -> Time {
        self.state.now + self.setting.clocks[self.state.runs[run].host].true_time(duration)
    }

    pub fn next_instant_of(&self, run: usize) -> Option<Time> {
        let Run { host, elector_process, supervisor_process, election, supervisor, elector, tree, .. } =
            &self.state.runs[run];
        let (mut instants, mut at) = (Vec::new(), tree.dies_at);
        if *elector_process == Process::Well {
            instants.extend(election.next_timeout());
            instants.extend(elector.next_timeout());
        }
        if *supervisor_process == Process::Well {
            instants.extend(supervisor.next_timeout());
        }
        at = instants.into_iter().map(|instant| self.setting.clocks[*host].time_of(instant)).chain(at).min();
        at
    }

    /// Everything that this run does because of the time.
    pub fn look_at_the_time(&mut self, run: usize) {
        if self.state.runs[run].tree.dies_at.is_some_and(|at| self.state.now >= at) {
            self.state.runs[run].tree = Tree::default();
            self.tell(|world| format!("{}'s command is dead", world.state.runs[run].name()));
        }
        self.run_supervisor(run);
        self.run_elector(run);
        self.run_election(run);
    }

    fn run_election(&mut self, run: usize) {
        let now = self.now(run);
        while self.state.runs[run].elector_process == Process::Well
            && self.state.runs[run].election.next_timeout().is_some_and(|at| now.boot >= at)
        {
            self.step_election(run, ElectionInputs::default(), false);
        }
    }

    /// The answer reaches the election.
    pub fn answered(&mut self, run: usize) {
        let Some(reply) = self.state.runs[run].reply.take() else { return };
        self.state.runs[run].reply_is_late = false;
        let by_read = matches!(reply, Reply::Read(_));
        if let Reply::Read(stored) = &reply {
            self.note_knowledge(run, stored.as_ref());
        } else if let Reply::Written(stored) = &reply {
            self.note_knowledge(run, Some(stored));
        }
        let reply = match reply {
            Reply::Read(stored) => Reply::Read(stored.map(|stored| self.shown_to(run, stored))),
            Reply::Written(stored) => Reply::Written(self.shown_to(run, stored)),
            reply => reply,
        };
        self.step_election(run, ElectionInputs::reply(reply), !by_read);
    }

    pub fn watched(&mut self, run: usize) {
        let Some(event) = self.state.runs[run].watch.as_mut().and_then(VecDeque::pop_front) else { return };
        let is_empty = self.state.runs[run].watch.as_ref().is_none_or(VecDeque::is_empty);
        self.state.runs[run].watch_is_late &= !is_empty;
        let event = match event {
            WatchEvent::Changed(stored) => {
                self.note_knowledge(run, Some(&stored));
                WatchEvent::Changed(self.shown_to(run, stored))
            }
            WatchEvent::Deleted => {
                self.note_knowledge(run, None);
                WatchEvent::Deleted
            }
            event => {
                self.state.runs[run].watch = None;
                event
            }
        };
        self.step_election(run, ElectionInputs::watch_event(event), false);
    }

    fn note_knowledge(&mut self, run: usize, stored: Option<&Stored>) {
        let mark = stored.and_then(|stored| stored.record.mark());
        self.state.runs[run].knows = mark.filter(|mark| mark.state == RunState::Held).map(|mark| mark.run.clone());
    }

    /// A record as this run gets to see it when a rule is broken.
    fn shown_to(&self, run: usize, mut stored: Stored) -> Stored {
        let id = &self.state.runs[run].id;
        if let Some(mark) = &mut stored.record.run {
            if self.is_broken(Rule::MineByRun) {
                mark.run = id.clone();
            } else if self.is_broken(Rule::WaitForDisplaced) && mark.run != *id {
                stored.record.run = None;
            }
        }
        stored
    }

    /// Gives the election what has arrived, and carries out what it wants; `by_write` when that is the answer to a
    /// write.
    fn step_election(&mut self, run: usize, inputs: ElectionInputs, by_write: bool) {
        let now = self.now(run);
        for action in self.state.runs[run].election.step(now, inputs) {
            match action {
                ElectionAction::Send(request) => self.send(run, request),
                ElectionAction::Watch(from) => {
                    let cut = self.state.cuts[self.state.runs[run].host];
                    let events = match self.setting.may_watch {
                        true => self.events_since(from.as_ref()).into(),
                        false => VecDeque::from([WatchEvent::Forbidden]),
                    };
                    let run = &mut self.state.runs[run];
                    (run.watch_is_late, run.watch_is_dead) = (false, cut.is_some());
                    run.watch = Some(if cut.is_some() { VecDeque::new() } else { events });
                }
                ElectionAction::Unwatch => self.state.runs[run].watch = None,
                ElectionAction::StartLeading(Leadership { tenure, resource_version, .. }) => {
                    let tenure = self.believed(run, tenure, by_write);
                    self.state.runs[run].token = resource_version.parse().unwrap_or_default();
                    self.tell(|world| {
                        format!("{} has acquired the lock, token {resource_version}", world.state.runs[run].name())
                    });
                    self.inform(run, ElectionReport::StartLeading { tenure, environment: Vec::new() });
                }
                ElectionAction::Extend(tenure) => {
                    let tenure = self.believed(run, tenure, by_write);
                    self.inform(run, ElectionReport::Extend(tenure));
                }
                ElectionAction::Lose { holder } => {
                    self.tell(|world| format!("{} sees {holder:?} hold it", world.state.runs[run].name()));
                    self.lose(run);
                }
                ElectionAction::Finish(outcome) => {
                    self.tell(|world| format!("{} is finished: {outcome:?}", world.state.runs[run].name()));
                    self.state.runs[run].over = true;
                    self.state.runs[run].watch = None;
                    self.inform(run, ElectionReport::Finished(outcome));
                }
                ElectionAction::Claiming => self.inform(run, ElectionReport::Claiming),
                ElectionAction::ClaimFailed => self.inform(run, ElectionReport::ClaimFailed),
                ElectionAction::StepDown => self.inform(run, ElectionReport::StepDown),
                ElectionAction::Notify(_) => {}
            }
        }
    }

    fn send(&mut self, run: usize, request: Request) {
        self.check_release(run, &request);
        self.tell(|world| {
            let state = match &request {
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
            format!("{} sends {state}", world.state.runs[run].name())
        });
        let is_cut = Cut::outward(self.state.cuts[self.state.runs[run].host]);
        let run = &mut self.state.runs[run];
        run.reply = None;
        run.reply_is_late = false;
        // Only writes matter when nobody hears the answer.
        run.given_up.extend(run.request.take().filter(|request| *request != Request::Get));
        run.request_is_late = false;
        run.request = Some(request).filter(|_| !is_cut);
    }

    /// A tenure as the broken rule has it.
    fn believed(&self, run: usize, tenure: Tenure, by_write: bool) -> Tenure {
        let timing = &self.setting.timing;
        match self.setting.broken {
            Rule::SentBefore if by_write => Tenure::of_renewal(self.boot(run), timing),
            Rule::GraceInsideLease => {
                Tenure { kill: tenure.kill + (timing.lease_duration() - timing.renew_deadline()), ..tenure }
            }
            _ => tenure,
        }
    }

    fn lose(&mut self, run: usize) {
        self.state.runs[run].lost_at = Some(self.boot(run));
        if !self.is_broken(Rule::NoGraceWhenLost) {
            self.inform(run, ElectionReport::Lose);
        }
    }

    /// The election reports something to the elector.
    fn inform(&mut self, run: usize, report: ElectionReport) {
        self.step_elector(run, ElectorInputs { election: vec![report], ..ElectorInputs::default() });
    }

    /// One round of the elector's main loop.
    pub fn run_elector(&mut self, run: usize) {
        if self.state.runs[run].elector_process != Process::Well {
            return;
        }
        let is_released_early = self.is_broken(Rule::ReleaseAfterTheKill);
        let Run { reports, supervisor_process, supervisor_seen_dead, tree, .. } = &mut self.state.runs[run];
        let supervisor_died = *supervisor_process == Process::Dead && !*supervisor_seen_dead;
        *supervisor_seen_dead |= supervisor_died;
        let mut reports: Vec<Report> = reports.drain(..).collect();
        if supervisor_died && is_released_early {
            reports.push(Report::Gone(Gone { end: End::Exited(0), lost: false }));
        }
        let tree_empty = *supervisor_process == Process::Dead && !tree.is_left();
        self.step_elector(run, ElectorInputs { reports, supervisor_died, tree_empty, ..ElectorInputs::default() });
    }

    fn step_elector(&mut self, run: usize, inputs: ElectorInputs) {
        let now = self.boot(run);
        for action in self.state.runs[run].elector.step(now, inputs) {
            match action {
                ElectorAction::Order(order) => self.order(run, order),
                ElectorAction::CommandGone { succeeded } => {
                    self.step_election(run, ElectionInputs::command_gone(succeeded), false);
                }
                ElectorAction::StopElection => self.step_election(run, ElectionInputs::stop(), false),
                ElectorAction::KillAll(SupervisorFailure::Late) if self.is_broken(Rule::LastResort) => {}
                ElectorAction::KillAll(_) => self.kill_all(run),
                ElectorAction::Notify(ElectorNotice::Terminating) => self.state.runs[run].withdraws = true,
                ElectorAction::Notify(_) => {}
                ElectorAction::Exit(_) => return self.exit(run),
            }
        }
    }

    /// Traffic was routed away from the command.
    pub fn withdrawn(&mut self, run: usize) {
        self.state.runs[run].withdraws = false;
        self.step_elector(run, ElectorInputs { withdrawn: true, ..ElectorInputs::default() });
    }

    fn order(&mut self, run: usize, order: Order) {
        if self.state.runs[run].supervisor_process != Process::Dead {
            self.state.runs[run].orders.push_back(order);
            self.run_supervisor(run);
        }
    }

    fn kill_all(&mut self, run: usize) {
        self.tell(|world| format!("{}'s elector takes over", world.state.runs[run].name()));
        self.state.runs[run].supervisor_process = Process::Dead;
        self.kill(run);
        self.run_elector(run);
    }

    /// SIGKILL to the whole tree.
    pub fn kill(&mut self, run: usize) {
        let at = self.in_true_time(run, DYING);
        let tree = &mut self.state.runs[run].tree;
        if tree.is_left() {
            tree.dies_at = Some(tree.dies_at.map_or(at, |present| present.min(at)));
        }
    }

    pub fn ask_to_end(&mut self, run: usize) {
        self.step_elector(run, ElectorInputs { signals: vec![TERM], ..ElectorInputs::default() });
    }

    /// leaderrun ends, and its supervisor with it.
    fn exit(&mut self, run: usize) {
        if self.state.runs[run].tree.is_left() {
            self.breaks(Broken::ReleasedAlive);
        }
        self.state.runs[run].supervisor_process = Process::Dead;
        self.crash(run, Part::Elector);
    }

    pub fn thaw(&mut self, run: usize, part: Part) {
        *self.state.runs[run].part(part) = Process::Well;
        match part {
            Part::Supervisor => self.run_supervisor(run),
            Part::Elector => {
                self.run_elector(run);
                if !self.state.runs[run].reply_is_late {
                    self.answered(run);
                }
                self.run_election(run);
            }
        }
    }

    pub fn crash(&mut self, run: usize, part: Part) {
        *self.state.runs[run].part(part) = Process::Dead;
        match part {
            Part::Supervisor => self.run_elector(run),
            Part::Elector => {
                let state = &mut self.state.runs[run];
                state.over = true;
                (state.reply, state.watch) = (None, None);
                state.given_up.extend(state.request.take().filter(|request| *request != Request::Get));
                self.run_supervisor(run);
            }
        }
    }
}
