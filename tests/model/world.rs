//! The state of everything, the steps that can be taken from it, and what must never be.

use leaderrun_core::election::{Reply, Request, WatchEvent};
use leaderrun_core::record::{Record, RunState};

use crate::clock::{MILLISECOND, Time};
use crate::disturbance::{Cut, Kind, Part};
use crate::run::{Process, Run};
use crate::setting::{KILLING, Rule, Setting};
use crate::store::Store;

/// How long before an instant something late comes that comes just before it.
const JUST_BEFORE: Time = MILLISECOND;

/// A promise that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Two commands were alive.
    Overlap,
    /// A command started with a fencing token that was not greater than all before.
    Token,
    /// The lease was given back while a process of the command lived.
    ReleasedAlive,
    /// A command outlived the instant at which its last process has to be dead.
    Outlived,
}

/// What can happen next. Whatever one candidate does by itself it does at once: the order of that and
/// of what the other one does makes no difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing more happens until the next instant that somebody waits for.
    Pass,
    /// Nothing more happens until just before it: what is late comes then.
    PassAlmost,
    /// A run's request is carried out, and answered at once.
    Arrive(usize),
    /// It is carried out, and the answer takes its time.
    ArriveWithoutAnswer(usize),
    /// A request that its run has given up is carried out.
    GivenUpArrives(usize, usize),
    Refuse(usize),
    Answer(usize),
    Watched(usize),
    Cut(usize, Cut),
    Heal(usize),
    Freeze(usize, Part),
    Thaw(usize, Part),
    Crash(usize, Part),
    CommandEnds(usize),
    AskToEnd(usize),
    Withdrawn(usize),
    Begin(usize),
    Meddle(Kind),
}

#[derive(Clone, Hash)]
pub struct State {
    pub now: Time,
    pub store: Store,
    pub runs: Vec<Run>,
    /// What does not get through to and from the two machines.
    pub cuts: [Option<Cut>; 2],
    pub disturbances_left: u8,
    pub greatest_token: u64,
    pub commands: usize,
}

#[derive(Clone)]
pub struct World<'a> {
    pub setting: &'a Setting,
    pub state: State,
    broken: Option<Broken>,
    story: Option<Vec<String>>,
}

impl<'a> World<'a> {
    /// Two candidates that begin.
    pub fn new(setting: &'a Setting) -> Self {
        let state = State {
            now: 0,
            store: Store::default(),
            runs: Vec::new(),
            cuts: [None; 2],
            disturbances_left: setting.disturbances,
            greatest_token: 0,
            commands: 0,
        };
        let mut world = Self { setting, state, broken: None, story: None };
        world.begin(0);
        world.begin(1);
        world
    }

    /// The same, and what happens is noted down.
    pub fn telling(setting: &'a Setting) -> Self {
        Self { story: Some(Vec::new()), ..Self::new(setting) }
    }

    pub fn told(self) -> Vec<String> {
        self.story.unwrap_or_default()
    }

    pub fn tell(&mut self, line: impl FnOnce(&Self) -> String) {
        if self.story.is_some() {
            let line = format!("{:>8.3} s  {}", self.state.now as f64 / 1e9, line(self));
            self.story.iter_mut().for_each(|story| story.push(line.clone()));
        }
    }

    pub fn commands(&self) -> usize {
        self.state.commands
    }

    /// All that can happen next.
    pub fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for (index, run) in self.state.runs.iter().enumerate() {
            self.steps_of_run(index, run, &mut steps);
        }
        for host in 0..2 {
            match self.state.cuts[host] {
                Some(_) => steps.push(Step::Heal(host)),
                None if self.may(Kind::Cut) => steps.extend(Cut::ALL.map(|cut| Step::Cut(host, cut))),
                None => {}
            }
            let is_free = !self.state.runs.iter().any(|run| run.host == host && run.elector_process != Process::Dead);
            let room = self.state.runs.len() < self.setting.runs;
            if is_free && room && self.may(Kind::Again) && !self.state.runs.iter().any(Run::is_displaced) {
                steps.push(Step::Begin(host));
            }
        }
        let meddling = [Kind::Delete, Kind::Empty, Kind::EmptyKeepingMark, Kind::EditHolder];
        steps.extend(meddling.into_iter().filter(|kind| self.may_meddle(*kind)).map(Step::Meddle));
        let late = self.state.runs.iter().map(Run::on_the_way).sum::<u8>();
        let affordable = late == 0 || (self.may(Kind::Late) && late <= self.state.disturbances_left);
        if let Some(next) = self.next_instant().filter(|at| affordable && *at <= self.setting.ends) {
            steps.push(Step::Pass);
            if self.state.now + JUST_BEFORE < next && self.state.runs.iter().any(Run::awaits_something) {
                steps.push(Step::PassAlmost);
            }
        }
        steps
    }

    fn steps_of_run(&self, index: usize, run: &Run, steps: &mut Vec<Step>) {
        if run.request.is_some() {
            steps.push(Step::Arrive(index));
            if self.may(Kind::Late) && !run.request_is_late {
                steps.push(Step::ArriveWithoutAnswer(index));
            }
            if self.may(Kind::Refused) {
                steps.push(Step::Refuse(index));
            }
        }
        steps.extend((0..run.given_up.len()).map(|number| Step::GivenUpArrives(index, number)));
        if run.elector_process == Process::Well {
            if run.reply.is_some() {
                steps.push(Step::Answer(index));
            }
            if run.watch.as_ref().is_some_and(|events| !events.is_empty()) {
                steps.push(Step::Watched(index));
            }
            if run.withdraws {
                steps.push(Step::Withdrawn(index));
            }
            if !run.over && self.may(Kind::AskedToEnd) {
                steps.push(Step::AskToEnd(index));
            }
        }
        for part in Part::BOTH {
            let (this, other) = run.parts(part);
            match this {
                Process::Frozen => steps.push(Step::Thaw(index, part)),
                // The promise holds through the failure of one of the two processes.
                Process::Well if other == Process::Well && !run.over => {
                    if self.may(Kind::Freeze) {
                        steps.push(Step::Freeze(index, part));
                    }
                    if self.may(Kind::Crash) {
                        steps.push(Step::Crash(index, part));
                    }
                }
                _ => {}
            }
        }
        if run.tree.main && run.tree.dies_at.is_none() && self.may(Kind::CommandEnds) {
            steps.push(Step::CommandEnds(index));
        }
    }

    fn may(&self, kind: Kind) -> bool {
        self.state.disturbances_left > 0 && self.setting.kinds.contains(&kind)
    }

    /// Whether somebody else writes to the lease, as far as the promise covers it: whoever takes part
    /// knows the holder that this makes unrecognisable.
    fn may_meddle(&self, kind: Kind) -> bool {
        if !self.may(kind) {
            return false;
        }
        let Some(record) = self.state.store.record() else { return false };
        let marked = record.mark().filter(|mark| mark.state == RunState::Held);
        match kind {
            Kind::EmptyKeepingMark | Kind::EditHolder => marked.is_some() && !record.holder_identity.is_empty(),
            _ => marked.is_none_or(|mark| {
                let mut others = self.state.runs.iter().filter(|run| run.id != mark.run && !run.over);
                others.all(|run| run.knows.as_ref() == Some(&mark.run))
            }),
        }
    }

    fn next_instant(&self) -> Option<Time> {
        (0..self.state.runs.len())
            .filter_map(|run| self.next_instant_of(run))
            .min()
            .map(|at| at.max(self.state.now + 1))
    }

    /// Takes a step; the promise that it breaks, if it does.
    pub fn take(&mut self, step: Step) -> Option<Broken> {
        if !matches!(step, Step::Pass | Step::PassAlmost) {
            self.tell(|world| world.describe(step));
        }
        self.state.disturbances_left -= self.costs(step);
        match step {
            Step::Pass => self.pass(Time::default()),
            Step::PassAlmost => self.pass(JUST_BEFORE),
            Step::Arrive(run) => self.arrive(run, true),
            Step::ArriveWithoutAnswer(run) => self.arrive(run, false),
            Step::GivenUpArrives(run, number) => {
                let request = self.state.runs[run].given_up.remove(number);
                self.carry_out(run, request);
            }
            Step::Refuse(run) => {
                self.state.runs[run].request = None;
                self.reply(run, Reply::Refused { retry_after: None }, true);
            }
            Step::Answer(run) => self.answered(run),
            Step::Watched(run) => self.watched(run),
            Step::Cut(host, cut) => self.state.cuts[host] = Some(cut),
            Step::Heal(host) => self.state.cuts[host] = None,
            Step::Freeze(run, part) => *self.state.runs[run].part(part) = Process::Frozen,
            Step::Thaw(run, part) => self.thaw(run, part),
            Step::Crash(run, part) => self.crash(run, part),
            Step::CommandEnds(run) => {
                self.state.runs[run].tree.main = false;
                self.run_supervisor(run);
            }
            Step::AskToEnd(run) => self.ask_to_end(run),
            Step::Withdrawn(run) => self.withdrawn(run),
            Step::Begin(host) => self.begin(host),
            Step::Meddle(kind) => self.meddle(kind),
        }
        self.broken
    }

    fn costs(&self, step: Step) -> u8 {
        match step {
            Step::Pass | Step::PassAlmost => self.state.runs.iter().map(Run::on_the_way).sum(),
            Step::Arrive(_) | Step::GivenUpArrives(..) | Step::Answer(_) | Step::Watched(_) => 0,
            Step::Heal(_) | Step::Thaw(..) | Step::Withdrawn(_) => 0,
            _ => 1,
        }
    }

    fn describe(&self, step: Step) -> String {
        let name = |run: usize| self.state.runs[run].name();
        match step {
            Step::Pass | Step::PassAlmost => String::new(),
            Step::Arrive(run) => format!("{}'s request arrives", name(run)),
            Step::ArriveWithoutAnswer(run) => format!("{}'s request arrives; the answer takes its time", name(run)),
            Step::GivenUpArrives(run, _) => format!("a request that {} has given up arrives", name(run)),
            Step::Refuse(run) => format!("{}'s request is refused", name(run)),
            Step::Answer(run) => format!("{} hears the answer", name(run)),
            Step::Watched(run) => format!("{}'s watch says something", name(run)),
            Step::Cut(host, cut) => format!("machine {} is cut off: {cut:?}", ["A", "B"][host]),
            Step::Heal(host) => format!("machine {} is connected again", ["A", "B"][host]),
            Step::Freeze(run, part) => format!("{}'s {part:?} is stopped", name(run)),
            Step::Thaw(run, part) => format!("{}'s {part:?} goes on", name(run)),
            Step::Crash(run, part) => format!("{}'s {part:?} is killed", name(run)),
            Step::CommandEnds(run) => format!("{}'s main process ends", name(run)),
            Step::AskToEnd(run) => format!("{} is asked to end", name(run)),
            Step::Withdrawn(run) => format!("traffic is routed away from {}", name(run)),
            Step::Begin(host) => format!("leaderrun is started again on machine {}", ["A", "B"][host]),
            Step::Meddle(kind) => format!("somebody else: {kind:?}"),
        }
    }

    /// What is still under way is late; the time of the next instant has come for everybody.
    fn pass(&mut self, before: Time) {
        for run in &mut self.state.runs {
            run.everything_is_late();
        }
        let Some(next) = self.next_instant() else { return };
        self.state.now = next - before;
        for run in 0..self.state.runs.len() {
            self.look_at_the_time(run);
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
            return self.tell(|_| "the answer is lost".to_owned());
        }
        self.state.runs[run].reply = Some(reply);
        self.state.runs[run].reply_is_late = !at_once;
        if at_once && elector_process == Process::Well {
            self.answered(run);
        }
    }

    /// The API server carries a request out.
    fn carry_out(&mut self, run: usize, request: Request) -> Reply {
        let before = self.state.store.revision();
        let reply = self.state.store.answer(request, self.setting.broken);
        if self.state.store.revision() != before {
            self.tell(|world| format!("written: {}", world.shown()));
            self.state.runs[run].displaced = false;
            self.publish();
        }
        reply
    }

    fn meddle(&mut self, kind: Kind) {
        let Some(mut record) = self.state.store.record().cloned() else { return };
        let holder = record.mark().filter(|mark| mark.state == RunState::Held).map(|mark| mark.run.clone());
        match kind {
            Kind::Delete => self.state.store.put(None),
            Kind::EditHolder => drop(self.state.store.write(Record { holder_identity: "C".into(), ..record })),
            _ => {
                record.holder_identity.clear();
                record.run = record.run.filter(|_| kind == Kind::EmptyKeepingMark);
                self.state.store.write(record);
            }
        }
        if matches!(kind, Kind::Delete | Kind::Empty) {
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

    pub fn breaks(&mut self, broken: Broken) {
        self.broken = self.broken.or(Some(broken));
    }

    /// A command has just come to life.
    pub fn check_start(&mut self, run: usize) {
        self.state.commands += 1;
        self.tell(|world| format!("{} STARTS ITS COMMAND", world.state.runs[run].name()));
        if self.state.runs.iter().filter(|run| run.tree.is_left()).count() > 1 {
            self.breaks(Broken::Overlap);
        }
        if self.state.runs[run].token <= self.state.greatest_token {
            self.breaks(Broken::Token);
        }
        self.state.greatest_token = self.state.greatest_token.max(self.state.runs[run].token);
    }

    /// A run is about to write.
    pub fn check_release(&mut self, run: usize, request: &Request) {
        let (Request::Create(record) | Request::Update(_, record)) = request else { return };
        let gives_back = record.run.as_ref().is_none_or(|mark| mark.state == RunState::Released);
        if (gives_back || record.holder_identity.is_empty()) && self.state.runs[run].tree.is_left() {
            self.breaks(Broken::ReleasedAlive);
        }
    }

    fn check_outlived(&mut self, run: usize) {
        let now = self.boot(run);
        let Run { tree, supervisor, lost_at, .. } = &self.state.runs[run];
        let dead_by = supervisor.tenure().map(|tenure| tenure.kill).into_iter().chain(*lost_at).min();
        if tree.is_left() && dead_by.is_some_and(|at| now > at + KILLING) {
            self.breaks(Broken::Outlived);
        }
    }

    pub fn is_broken(&self, rule: Rule) -> bool {
        self.setting.broken == rule
    }
}
