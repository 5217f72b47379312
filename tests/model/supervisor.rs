//! The inner process: the production policy over a command of two processes.

use leaderrun_core::messages::{End, Gone, Order, Report};
use leaderrun_core::supervisor::Action;

use crate::run::{Process, Run, Tree};
use crate::setting::Rule;
use crate::world::World;

impl World<'_> {
    /// One round of the loop.
    pub fn run_supervisor(&mut self, run: usize) {
        if self.state.runs[run].supervisor != Process::Well {
            return;
        }
        let now = self.boot(run);
        self.handle_orders(run);
        let Run { policy, elector, elector_seen_dead, .. } = &mut self.state.runs[run];
        policy.handle_timeout(now);
        if *elector == Process::Dead && !*elector_seen_dead {
            *elector_seen_dead = true;
            policy.handle_elector_gone(now);
        }
        self.handle_children(run);
        while let Some(action) = self.state.runs[run].policy.poll_action() {
            self.carry_out_policy(run, action);
        }
        if self.state.runs[run].elector_seen_dead && !self.state.runs[run].has_main {
            self.state.runs[run].supervisor = Process::Dead;
        }
        self.run_guard(run);
    }

    fn handle_orders(&mut self, run: usize) {
        let now = self.boot(run);
        let Run { policy, orders, .. } = &mut self.state.runs[run];
        let orders: Vec<Order> = orders.drain(..).collect();
        if let Some(tenure) = policy.handle_orders(now, &orders) {
            self.report(run, Report::Enforcing(tenure));
        }
    }

    fn handle_children(&mut self, run: usize) {
        let now = self.boot(run);
        let Run { policy, tree, main_reaped, has_main, .. } = &mut self.state.runs[run];
        if *has_main && !tree.main && !*main_reaped {
            *main_reaped = true;
            policy.handle_main_ended(now, End::Exited(0));
        }
        if !tree.is_left() {
            policy.handle_tree_empty();
        }
    }

    fn carry_out_policy(&mut self, run: usize, action: Action) {
        let now = self.boot(run);
        match action {
            Action::Start => {
                let state = &mut self.state.runs[run];
                if !state.policy.may_start(now) {
                    return state.policy.handle_not_started(now);
                }
                state.tree = Tree { main: true, forked: true, dies_at: None };
                state.has_main = true;
                state.policy.handle_started();
                self.check_start(run);
            }
            Action::Sweep if self.is_broken(Rule::ReleaseAtTheEnd) => {
                self.report(run, Report::Gone(Gone { end: End::Exited(0), lost: false }));
            }
            // Nothing of the command heeds these.
            Action::Signal(_) | Action::Stop | Action::Sweep => {}
            Action::Kill(reason) => {
                self.tell(|world| format!("{}'s supervisor kills: {reason:?}", world.state.runs[run].name()));
                self.kill(run);
            }
            Action::Report(gone) => {
                self.state.runs[run].has_main = false;
                self.report(run, Report::Gone(gone));
            }
        }
    }

    fn report(&mut self, run: usize, report: Report) {
        if self.state.runs[run].elector != Process::Dead {
            self.state.runs[run].reports.push_back(report);
        }
    }
}
