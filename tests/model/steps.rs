//! The steps that are possible in a state of the model.

use leaderrun_core::record::MarkState;

use crate::disturbance::{Disturbance, Partition, Role};
use crate::run::{ProcessState, Run};
use crate::world::{JUST_BEFORE, World};

/// A step of the model. The actions of a candidate are not steps. The model carries them out immediately, because their
/// order relative to the other candidate's actions makes no difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Time advances to the next timeout.
    Advance,
    /// Time advances to just before the next timeout, so that late messages can arrive before it.
    AdvanceToJustBefore,
    /// A run's request is carried out, and the reply arrives immediately.
    RequestArrives(usize),
    /// A run's request is carried out, and the reply is late.
    RequestArrivesWithLateReply(usize),
    /// The run's abandoned request at `index` is carried out.
    AbandonedRequestArrives {
        run: usize,
        index: usize,
    },
    RefuseRequest(usize),
    DeliverReply(usize),
    /// The reply at `index` to an abandoned write of the run arrives.
    DeliverReplyToAbandonedWrite {
        run: usize,
        index: usize,
    },
    DeliverWatchEvent(usize),
    /// The machine with this index is cut off from the API server.
    Partition(usize, Partition),
    EndPartition(usize),
    Freeze(usize, Role),
    Thaw(usize, Role),
    Crash(usize, Role),
    MainProcessEnds(usize),
    SendSigterm(usize),
    EndWithdrawal(usize),
    /// leaderrun is started again on the machine with this index.
    StartRun(usize),
    OutsideEdit(Disturbance),
}

impl World<'_> {
    /// Returns all steps that are possible in this state.
    pub fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for (index, run) in self.state.runs.iter().enumerate() {
            self.steps_of_run(index, run, &mut steps);
        }
        for machine in 0..2 {
            match self.state.partitions[machine] {
                Some(_) => steps.push(Step::EndPartition(machine)),
                None if self.may_disturb(Disturbance::Partition) => {
                    steps.extend(Partition::ALL.map(|partition| Step::Partition(machine, partition)))
                }
                None => {}
            }
            let runs_leaderrun =
                self.state.runs.iter().any(|run| run.machine == machine && run.elector_process != ProcessState::Dead);
            let may_start = self.state.runs.len() < self.setting.max_runs;
            if !runs_leaderrun
                && may_start
                && self.may_disturb(Disturbance::Restart)
                && !self.state.runs.iter().any(Run::is_displaced)
            {
                steps.push(Step::StartRun(machine));
            }
        }
        let outside_edits =
            [Disturbance::Delete, Disturbance::RemoveHolderAndMark, Disturbance::RemoveHolder, Disturbance::EditHolder];
        steps.extend(outside_edits.into_iter().filter(|kind| self.may_edit(*kind)).map(Step::OutsideEdit));
        let delayed = self.messages_delayed_by_advance();
        let may_advance =
            delayed == 0 || (self.may_disturb(Disturbance::Delay) && delayed <= self.state.disturbances_left);
        if let Some(next) = self.next_timeout().filter(|at| may_advance && *at <= self.setting.end) {
            steps.push(Step::Advance);
            if self.state.now + JUST_BEFORE < next && self.state.runs.iter().any(Run::has_pending_messages) {
                steps.push(Step::AdvanceToJustBefore);
            }
        }
        steps
    }

    /// Adds the steps of the run with this number.
    fn steps_of_run(&self, number: usize, run: &Run, steps: &mut Vec<Step>) {
        if run.request.is_some() {
            steps.push(Step::RequestArrives(number));
            if self.may_disturb(Disturbance::Delay) && !run.request_is_late {
                steps.push(Step::RequestArrivesWithLateReply(number));
            }
            if self.may_disturb(Disturbance::Refused) {
                steps.push(Step::RefuseRequest(number));
            }
        }
        let abandoned = 0..run.abandoned_requests.len();
        steps.extend(abandoned.map(|index| Step::AbandonedRequestArrives { run: number, index }));
        if run.elector_process == ProcessState::Running {
            if run.reply.is_some() {
                steps.push(Step::DeliverReply(number));
            }
            let replies = 0..run.replies_to_abandoned_writes.len();
            steps.extend(replies.map(|index| Step::DeliverReplyToAbandonedWrite { run: number, index }));
            if run.watch.as_ref().is_some_and(|events| !events.is_empty()) {
                steps.push(Step::DeliverWatchEvent(number));
            }
            if run.withdrawal_pending {
                steps.push(Step::EndWithdrawal(number));
            }
            if !run.election_finished && self.may_disturb(Disturbance::TerminationSignal) {
                steps.push(Step::SendSigterm(number));
            }
        }
        for role in Role::ALL {
            let (state, peer_state) = run.process_and_peer(role);
            match state {
                ProcessState::Frozen => steps.push(Step::Thaw(number, role)),
                // leaderrun's promise only covers the failure of one of its two processes.
                ProcessState::Running if peer_state == ProcessState::Running && !run.election_finished => {
                    if self.may_disturb(Disturbance::Freeze) {
                        steps.push(Step::Freeze(number, role));
                    }
                    if self.may_disturb(Disturbance::Crash) {
                        steps.push(Step::Crash(number, role));
                    }
                }
                _ => {}
            }
        }
        if run.tree.main_alive && run.tree.dies_at.is_none() && self.may_disturb(Disturbance::MainProcessEnds) {
            steps.push(Step::MainProcessEnds(number));
        }
    }

    fn messages_delayed_by_advance(&self) -> u8 {
        self.state.runs.iter().map(Run::messages_delayed_by_advance).sum()
    }

    fn may_disturb(&self, kind: Disturbance) -> bool {
        self.state.disturbances_left > 0 && self.setting.disturbances.contains(&kind)
    }

    /// Returns whether an outside edit is possible and covered by leaderrun's promise. If the edit removes the holder's
    /// mark, all other candidates must have observed the holder. If the edit keeps the mark, the record must name a
    /// holder.
    fn may_edit(&self, kind: Disturbance) -> bool {
        if !self.may_disturb(kind) {
            return false;
        }
        let Some(record) = self.state.store.record() else { return false };
        let held_mark = record.mark().filter(|mark| mark.state == MarkState::Held);
        match kind {
            Disturbance::RemoveHolder | Disturbance::EditHolder => {
                held_mark.is_some() && !record.holder_identity.is_empty()
            }
            _ => held_mark.is_none_or(|mark| {
                let mut other_runs = self.state.runs.iter().filter(|run| run.id != mark.run && !run.election_finished);
                other_runs.all(|run| run.known_holder.as_ref() == Some(&mark.run))
            }),
        }
    }

    /// Returns the number of disturbances that a step uses up.
    pub fn cost(&self, step: Step) -> u8 {
        match step {
            Step::Advance | Step::AdvanceToJustBefore => self.messages_delayed_by_advance(),
            Step::RequestArrives(_)
            | Step::AbandonedRequestArrives { .. }
            | Step::DeliverReply(_)
            | Step::DeliverReplyToAbandonedWrite { .. }
            | Step::DeliverWatchEvent(_) => 0,
            Step::EndPartition(_) | Step::Thaw(..) | Step::EndWithdrawal(_) => 0,
            _ => 1,
        }
    }

    /// Returns a line for the trace; `None` if the step only advances time.
    pub fn describe(&self, step: Step) -> Option<String> {
        let name = |run: usize| self.state.runs[run].name();
        Some(match step {
            Step::Advance | Step::AdvanceToJustBefore => return None,
            Step::RequestArrives(run) => format!("{}'s request arrives", name(run)),
            Step::RequestArrivesWithLateReply(run) => format!("{}'s request arrives; the reply is late", name(run)),
            Step::AbandonedRequestArrives { run, .. } => format!("an earlier request of {} arrives", name(run)),
            Step::RefuseRequest(run) => format!("{}'s request is refused", name(run)),
            Step::DeliverReply(run) => format!("{} receives the reply", name(run)),
            Step::DeliverReplyToAbandonedWrite { run, .. } => {
                format!("{} receives the reply to an earlier write", name(run))
            }
            Step::DeliverWatchEvent(run) => format!("{} receives a watch event", name(run)),
            Step::Partition(machine, partition) => format!("machine {} is cut off: {partition:?}", ["A", "B"][machine]),
            Step::EndPartition(machine) => format!("machine {} is connected again", ["A", "B"][machine]),
            Step::Freeze(run, role) => format!("{}'s {role:?} is frozen", name(run)),
            Step::Thaw(run, role) => format!("{}'s {role:?} is thawed", name(run)),
            Step::Crash(run, role) => format!("{}'s {role:?} is killed", name(run)),
            Step::MainProcessEnds(run) => format!("{}'s main process ends", name(run)),
            Step::SendSigterm(run) => format!("{} gets SIGTERM", name(run)),
            Step::EndWithdrawal(run) => format!("traffic is routed away from {}", name(run)),
            Step::StartRun(machine) => format!("leaderrun is started again on machine {}", ["A", "B"][machine]),
            Step::OutsideEdit(kind) => format!("another client: {kind:?}"),
        })
    }
}
