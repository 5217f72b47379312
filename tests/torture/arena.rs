//! The arena: candidates come and go, faults strike, and at the end somebody must lead and nothing be left.

use std::collections::VecDeque;
use std::fs::File;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::entrant::{Entrant, LEASE};
use crate::judge::{Judge, Verdict};
use crate::observer::Observer;
use crate::place::{self, Kind, Place, Sight};
use crate::plan::{Fault, Meddling, Network, Own, Plan, SLOTS, Step};
use crate::tally::Tally;
use crate::{processes, rules};
use testkit::{Cluster, Match, Proxy, TestLock, Witnesses, boot_time, proxy::Held, scratch};

/// How often things that are due are looked after.
const BEAT: Duration = Duration::from_millis(10);

/// How long after the end of all faults somebody must lead: the longest lease that was written, and the
/// pauses of candidates that were told to be patient.
const HEALING: Duration = Duration::from_secs(25);

/// How long after leaderrun itself is dead everything below it may take to be gone.
const LEFT_BEHIND: Duration = Duration::from_secs(15);

/// There must be so many commands in a time that allows for each one to be lost the slow way, more than once:
/// a record that a third party gave away or lengthened is waited for by all.
const SLOWEST_HAND_OVER: Duration = Duration::from_secs(30);

/// Between two verdicts while it lasts.
const SESSIONS: Duration = Duration::from_secs(60);

struct Slot {
    proxy: Option<Proxy>,
    entrant: Option<Entrant>,
    starts: u32,
    start_at: Instant,
}

/// How a fault ends.
enum Undo {
    Heal(usize),
    Thaw(String, Own),
    Unclog(String),
    Release(#[allow(dead_code)] Held),
    Unlock(#[allow(dead_code)] File),
    RemoveGarbage,
}

pub struct Arena {
    kind: Kind,
    lock: TestLock,
    place: Place,
    cluster: Option<Cluster>,
    slots: Vec<Slot>,
    witnesses: Witnesses,
    plan: Plan,
    judge: Judge,
    observer: Observer,
    tally: Tally,
    undo: Vec<(Instant, Undo)>,
    /// No candidate may start before; see [`rules`].
    closed_until: Instant,
    deletions: Vec<u64>,
    story: VecDeque<String>,
    began: Instant,
}

impl Arena {
    pub fn open(kind: Kind, seed: u64) -> Self {
        println!("torture of {kind:?}: LEADERRUN_TORTURE_SEED={seed}");
        let (cluster, lock, place) = match kind {
            Kind::Lease => {
                let cluster = Cluster::start();
                let name = format!("{}/job", cluster.new_namespace());
                let lock = TestLock { name, kubeconfig: Some(cluster.kubeconfig()) };
                let place = Place::lease(cluster.admin(), lock.lease_path());
                (Some(cluster), lock, place)
            }
            Kind::File => {
                let path: PathBuf = scratch::folder("torture").join("job.lease");
                let lock = TestLock { name: format!("file:{}", path.display()), kubeconfig: None };
                (None, lock, Place::File(path))
            }
        };
        let witnesses = Witnesses::new();
        let now = Instant::now();
        let slot = |_| Slot { proxy: cluster.as_ref().map(Proxy::start), entrant: None, starts: 0, start_at: now };
        Self {
            kind,
            lock,
            slots: (0..SLOTS).map(slot).collect(),
            judge: Judge::start(witnesses.folder().to_owned()),
            observer: Observer::start(place.clone()),
            place,
            cluster,
            witnesses,
            plan: Plan::new(kind, seed),
            tally: Tally::default(),
            undo: Vec::new(),
            closed_until: now,
            deletions: Vec::new(),
            story: VecDeque::new(),
            began: now,
        }
    }

    /// Faults for so long; then peace, a leader, another leader, and nothing left.
    pub fn torture(mut self, length: Duration) {
        let mut session = Instant::now();
        while self.began.elapsed() < length {
            let step = self.plan.step();
            self.tend_for(step.pause);
            self.inject(step);
            if session.elapsed() > SESSIONS {
                session = Instant::now();
                self.judge_now();
            }
        }
        let undo = std::mem::take(&mut self.undo);
        undo.into_iter().for_each(|(_, undo)| self.undo(undo));
        self.slots.iter().filter_map(|slot| slot.proxy.as_ref()).for_each(Proxy::heal);
        let first = self.wait_for_leader(None);
        if let Some(leader) = self.entrant(&first) {
            leader.relay(libc::SIGTERM);
        }
        self.end_command(&first);
        self.wait_for_leader(Some(&first));
        self.clear();
        let verdict = self.judge_now();
        let least = (length.as_secs_f64() / SLOWEST_HAND_OVER.as_secs_f64()) as usize;
        self.demand(verdict.hand_overs >= least, &format!("only {} hand-overs", verdict.hand_overs));
        println!("torture of {:?} for {:?}:\n{}", self.kind, self.began.elapsed(), self.tally);
    }

    /// Lets time pass: what is due is undone, what is over is replaced.
    fn tend_for(&mut self, duration: Duration) {
        let end = Instant::now() + duration;
        loop {
            self.tend();
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::sleep(left.min(BEAT));
        }
    }

    fn tend(&mut self) {
        let now = Instant::now();
        while let Some(due) = self.undo.iter().position(|(at, _)| *at <= now) {
            let (_, undo) = self.undo.swap_remove(due);
            self.undo(undo);
        }
        for index in 0..SLOTS {
            let slot = &mut self.slots[index];
            match &mut slot.entrant {
                Some(entrant) => {
                    let (over, since) = entrant.has_ended();
                    let told = format!("{} is over:\n{}", entrant.identity, entrant.running.log());
                    if over {
                        let (_, _, pause) = self.plan.candidate(index, slot.starts);
                        (slot.entrant, slot.start_at) = (None, now + pause);
                        self.tell(told);
                    } else {
                        self.demand(since < LEFT_BEHIND, &format!("something is left behind; {told}"));
                    }
                }
                None if now >= slot.start_at && now >= self.closed_until => self.start(index),
                None => {}
            }
        }
    }

    fn start(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        slot.starts += 1;
        let (words, options, _) = self.plan.candidate(index, slot.starts);
        let identity = format!("{}-{}", ["a", "b", "c", "d"][index], slot.starts);
        let lock = match &slot.proxy {
            Some(proxy) => self.lock.through(proxy.kubeconfig()),
            None => self.lock.clone(),
        };
        let entrant = Entrant::start(identity, &lock, &self.witnesses, &words, &options);
        self.tally.starts += 1;
        let told = format!("{} comes: {}", entrant.identity, entrant.words);
        self.slots[index].entrant = Some(entrant);
        self.tell(told);
    }

    fn inject(&mut self, step: Step) {
        let sight = self.place.read();
        let holder = sight.as_ref().map(|sight| sight.holder.clone()).unwrap_or_default();
        let leads = |slot: &Slot| slot.entrant.as_ref().is_some_and(|entrant| entrant.identity == holder);
        let leader = self.slots.iter().position(leads).filter(|_| step.target.leader);
        let index = leader.unwrap_or(step.target.slot);
        if self.strike(index, step.fault, sight.as_ref()).is_some() {
            self.tally.count(&step.fault.name());
            let target = self.slots[index].entrant.as_ref().map(|entrant| &entrant.identity);
            self.tell(format!("{:?} for {target:?}, while {holder:?} holds", step.fault));
        } else {
            self.tally.left_out += 1;
        }
    }

    /// Does it, if the rules allow it and there is somebody whom it could hit.
    fn strike(&mut self, index: usize, fault: Fault, sight: Option<&Sight>) -> Option<()> {
        let now = Instant::now();
        match fault {
            Fault::RestartServer => self.cluster.as_ref()?.restart(),
            Fault::Network(network, lasts) => self.disturb(index, network, now + lasts)?,
            Fault::KeepLock(lasts) => {
                let Place::File(path) = &self.place else { return None };
                self.undo.push((now + lasts, Undo::Unlock(place::lock_beside(path)?)));
            }
            Fault::Meddle(deed) => return self.meddle(deed, sight?),
            Fault::Kill(own) => self.strike_own(index, own, Signal::SIGKILL)?,
            Fault::Freeze(own, lasts) => {
                self.strike_own(index, own, Signal::SIGSTOP)?;
                let identity = self.slots[index].entrant.as_ref()?.identity.clone();
                self.undo.push((now + lasts, Undo::Thaw(identity, own)));
            }
            Fault::Signal(signal) => {
                let relayed = self.slots[index].entrant.as_mut()?.relay(signal);
                return relayed.then_some(());
            }
            Fault::SignalCommand(signal) => {
                let holder = &self.slots[index].entrant.as_ref()?.identity;
                let processes = processes::in_folder(self.witnesses.folder());
                let hit = processes.iter().find(|process| process.holder.as_ref() == Some(holder))?;
                kill(Pid::from_raw(hit.pid), signal).ok()?;
            }
            Fault::Clog(lasts) => {
                let entrant = self.slots[index].entrant.as_ref()?;
                entrant.running.pause_reading(true);
                let identity = entrant.identity.clone();
                self.undo.push((now + lasts, Undo::Unclog(identity)));
            }
        }
        Some(())
    }

    fn strike_own(&mut self, index: usize, own: Own, signal: Signal) -> Option<()> {
        let entrant = self.slots[index].entrant.as_mut().filter(|entrant| rules::may_strike(entrant, own))?;
        entrant.struck = Some(own);
        entrant.send(own, signal).then_some(())
    }

    fn disturb(&mut self, index: usize, network: Network, until: Instant) -> Option<()> {
        let proxy = self.slots[index].proxy.as_ref()?;
        match network {
            Network::Partition => proxy.partition(),
            Network::PartitionRequests => proxy.partition_requests(),
            Network::PartitionReplies => proxy.partition_replies(),
            Network::SilenceExisting => proxy.silence_existing(),
            Network::BreakExisting => proxy.break_existing(),
            Network::Refuse => proxy.refuse(),
            Network::LoseReplies(count) => proxy.lose_replies(Match::put().next(count)),
            Network::Answer(status) => proxy.answer(Match::any(), status, (status == 429).then_some(1)),
            Network::DelayRequests(by) => proxy.delay(Duration::from_millis(by)),
            Network::DelayReplies(by) => proxy.delay_replies(Duration::from_millis(by)),
            Network::HoldRequests => self.undo.push((until, Undo::Release(proxy.hold_requests(Match::put().next(2))))),
            Network::HoldReplies => self.undo.push((until, Undo::Release(proxy.hold_replies(Match::put().next(2))))),
        }
        self.undo.push((until, Undo::Heal(index)));
        Some(())
    }

    fn meddle(&mut self, deed: Meddling, sight: &Sight) -> Option<()> {
        let takes_knowledge = rules::takes_knowledge(deed);
        let entrants = self.slots.iter_mut().filter_map(|slot| slot.entrant.as_mut());
        if takes_knowledge && (sight.holder.is_empty() || !rules::all_know(entrants, &sight.holder)) {
            return None;
        }
        let waits = self.slots.iter().filter_map(|slot| slot.entrant.as_ref());
        let other = waits.map(|entrant| &entrant.identity).find(|identity| **identity != sight.holder)?;
        if !self.place.meddle(deed, sight, other) {
            return None;
        }
        let now = Instant::now();
        if takes_knowledge {
            self.closed_until = rules::closed_until(now, LEASE);
        }
        // A file's counter is lost with it, an API server's is not.
        if self.kind == Kind::File && matches!(deed, Meddling::Delete | Meddling::Replace | Meddling::Garbage) {
            self.deletions.push(boot_time());
        }
        if deed == Meddling::Garbage {
            self.undo.push((now + LEASE / 2, Undo::RemoveGarbage));
        }
        Some(())
    }

    fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Heal(index) => self.slots[index].proxy.iter().for_each(Proxy::heal),
            Undo::Thaw(identity, own) => {
                if let Some(entrant) = self.entrant(&identity) {
                    entrant.send(own, Signal::SIGCONT);
                }
            }
            Undo::Unclog(identity) => {
                if let Some(entrant) = self.entrant(&identity) {
                    entrant.running.pause_reading(false);
                }
            }
            Undo::RemoveGarbage => {
                let Place::File(path) = &self.place else { return };
                // Candidates that know a holder take this for a deletion.
                let _ = std::fs::remove_file(path);
                self.closed_until = rules::closed_until(Instant::now(), LEASE);
                self.deletions.push(boot_time());
            }
            Undo::Release(_) | Undo::Unlock(_) => {}
        }
    }

    fn entrant(&mut self, identity: &str) -> Option<&mut Entrant> {
        self.slots.iter_mut().filter_map(|slot| slot.entrant.as_mut()).find(|entrant| entrant.identity == identity)
    }

    /// Waits until a command lives, of somebody else than `except`.
    fn wait_for_leader(&mut self, except: Option<&str>) -> String {
        let start = Instant::now();
        loop {
            self.tend_for(BEAT * 5);
            let living = processes::in_folder(self.witnesses.folder());
            let leader =
                living.into_iter().filter_map(|process| process.holder).find(|holder| Some(&**holder) != except);
            if let Some(leader) = leader {
                return leader;
            }
            self.demand(
                start.elapsed() < HEALING,
                &format!("nobody but {except:?} leads {HEALING:?} after the last fault"),
            );
        }
    }

    /// Kills a command from outside, as an impatient operator would.
    fn end_command(&mut self, holder: &str) {
        self.kill_all(|process| process.holder.as_deref() == Some(holder));
    }

    /// Ends all candidates, and makes sure that nothing is left.
    fn clear(&mut self) {
        // From here on nobody comes.
        self.closed_until = Instant::now() + Duration::from_secs(3600);
        for slot in &mut self.slots {
            if let Some(entrant) = &mut slot.entrant {
                entrant.relay(libc::SIGTERM);
            }
        }
        self.kill_all(|process| process.holder.is_some());
        let start = Instant::now();
        while self.slots.iter().any(|slot| slot.entrant.is_some()) {
            self.demand(start.elapsed() < LEFT_BEHIND, "leaderrun does not end");
            self.tend_for(BEAT);
            self.kill_all(|process| process.holder.is_some());
        }
        let left = processes::in_folder(self.witnesses.folder());
        self.demand(left.is_empty(), &format!("left behind: {left:?}"));
    }

    fn kill_all(&self, doomed: impl Fn(&processes::Process) -> bool) {
        for process in processes::in_folder(self.witnesses.folder()).iter().filter(|process| doomed(process)) {
            let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
        }
    }

    fn judge_now(&mut self) -> Verdict {
        let verdict = self.judge.verdict(&self.witnesses, &self.observer.renewals(), &self.deletions);
        self.tally.commands = verdict.commands;
        self.tally.witnesses = verdict.witnesses;
        self.tally.hand_overs = verdict.hand_overs;
        self.tally.worst_margin = verdict.worst_margin;
        self.tally.overlaps = verdict.overlaps.len();
        self.demand(verdict.overlaps.is_empty(), &format!("overlaps: {:#?}", verdict.overlaps));
        // Nobody happened to come in time, perhaps; it is as bad.
        let dead_in_time = verdict.worst_margin.is_none_or(|margin| margin > 0);
        self.demand(dead_in_time, &format!("a tree outlived its lease: {}", verdict.worst));
        verdict
    }

    fn tell(&mut self, what: String) {
        const REMEMBERED: usize = 120;
        if self.story.len() == REMEMBERED {
            self.story.pop_front();
        }
        self.story.push_back(format!("[{:.3} s, boot {}] {what}", self.began.elapsed().as_secs_f64(), boot_time()));
    }

    #[track_caller]
    fn demand(&self, fulfilled: bool, otherwise: &str) {
        if !fulfilled {
            let story: Vec<&str> = self.story.iter().map(String::as_str).collect();
            panic!("{otherwise}\n--- the story so far:\n{}\n--- in numbers:\n{}", story.join("\n"), self.tally);
        }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // Where it failed: leaderrun first, it would only start more.
        while !processes::in_folder(self.witnesses.folder()).is_empty() {
            self.kill_all(|_| true);
            thread::sleep(BEAT);
        }
    }
}
