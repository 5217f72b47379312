//! The network between the candidates and the stores of the slots: messages are delayed or lost, and watches break.

use leaderrun_core::election::{Reply, Request, WatchEvent};

use super::{Event, World};
use testkit::simulated_time::{MILLISECOND, SECOND, Time};

impl World {
    /// Draws whether a fault happens, with this probability. No fault happens from `healthy_from` on.
    fn draw_fault(&mut self, probability: f64) -> bool {
        self.now < self.healthy_from && self.rng.f64() < probability
    }

    /// Draws the delay of a message.
    pub(super) fn draw_delay(&mut self) -> Time {
        let longest = if self.draw_fault(0.02) { 4 * SECOND } else { 5 * MILLISECOND };
        self.rng.u64(MILLISECOND / 2..longest)
    }

    /// Sends the next request in the candidate's queue if none is in flight. Requests whose replies the election no
    /// longer awaits are dropped.
    pub(super) fn send_next(&mut self, candidate: usize) {
        let state = &mut self.candidates[candidate];
        let awaits_reply = |slot: usize| state.election.election(slot).awaits_reply();
        state.in_flight.take_if(|slot| !awaits_reply(*slot));
        state.queue.retain(|(slot, _)| awaits_reply(*slot));
        if state.in_flight.is_some() {
            return;
        }
        let Some((slot, request)) = state.queue.pop_front() else { return };
        state.requests += 1;
        state.in_flight = Some(slot);
        let number = state.requests;
        if !self.draw_fault(0.05) {
            let at = self.now + self.draw_delay();
            self.schedule(at, candidate, Event::RequestArrives { number, slot, request: Box::new(request) });
        }
    }

    pub(super) fn receive_request(&mut self, candidate: usize, run: u32, number: u32, slot: usize, request: Request) {
        let before = self.stores[slot].revision();
        let reply = self.stores[slot].handle(request, self.mutation);
        self.conflicts += u32::from(reply == Reply::Conflict);
        if self.stores[slot].revision() != before {
            self.send_watch_events(slot);
        }
        if run == self.run_numbers[candidate] && !self.draw_fault(0.05) {
            let at = self.now + self.draw_delay();
            self.schedule(at, candidate, Event::ReplyArrives { number, slot, reply: Box::new(reply) });
        }
    }

    fn send_watch_events(&mut self, slot: usize) {
        for candidate in 0..self.candidates.len() {
            let Some(number) = self.candidates[candidate].watches[slot] else { continue };
            let event = if self.draw_fault(0.05) { WatchEvent::Broken } else { self.stores[slot].last_event() };
            let at = self.now + self.draw_delay();
            self.schedule(at, candidate, Event::WatchEventArrives { number, slot, event: Box::new(event) });
        }
    }
}
