//! The relay of signals to the command, which sends each request to end only once.
//!
//! A program that ends a whole unit or a whole tree, as systemd does with `KillMode=control-group`, signals each
//! process: the elector, the supervisor and the command. The command then has the signal before it is relayed.
//! A copy that is sent to the supervisor itself indicates that case. It does not prove it, because a user may signal
//! leaderrun's two processes only. So a signal is relayed after all if the command seems to have missed it, and a
//! repeated request is relayed as well.

use std::time::Duration;

use leaderrun_core::elector::WITHDRAWAL_TIMEOUT;
use leaderrun_core::instant::Instant;
use leaderrun_core::signal::is_termination_signal;

/// How long a request to end is held back for the supervisor's own copy of it. Copies are sent in one go.
const OWN_COPY_TIMEOUT: Duration = Duration::from_millis(50);

/// How long before a request the supervisor's own copy of it may have arrived: the elector defers requests.
const OWN_COPY_AGE: Duration = WITHDRAWAL_TIMEOUT.saturating_add(Duration::from_millis(500));

/// How long a command may take to die by a signal that it was sent.
const DEATH_TIMEOUT: Duration = Duration::from_millis(200);

/// The requests to end that are under way.
#[derive(Debug, Default)]
pub struct Relay {
    /// The signals that were sent to the supervisor itself, and when they arrived.
    own: Vec<(i32, Instant)>,
    pending: Vec<PendingSignal>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PendingSignal {
    signal: i32,
    due: Instant,
    /// The command seems to have got this signal already.
    seems_delivered: bool,
}

/// A signal for the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayedSignal {
    Send(i32),
    /// Send this signal only if the command has missed it: had the command got it, it would be dead.
    SendIfMissed(i32),
}

impl Relay {
    /// Records a signal that is to be relayed, and returns it unless it is held back.
    pub fn request(&mut self, now: Instant, signal: i32) -> Option<i32> {
        if !is_termination_signal(signal) {
            return Some(signal);
        }
        let own = self.own.iter().position(|(own, at)| *own == signal && now.since(*at) < OWN_COPY_AGE);
        let seems_delivered = own.map(|index| self.own.swap_remove(index)).is_some();
        let due = now + if seems_delivered { DEATH_TIMEOUT } else { OWN_COPY_TIMEOUT };
        self.pending.push(PendingSignal { signal, due, seems_delivered });
        None
    }

    /// Records a signal that was sent to the supervisor itself.
    pub fn handle_own(&mut self, now: Instant, signal: i32) {
        let is_waiting = |pending: &&mut PendingSignal| pending.signal == signal && !pending.seems_delivered;
        if let Some(pending) = self.pending.iter_mut().find(is_waiting) {
            *pending = PendingSignal { signal, due: now + DEATH_TIMEOUT, seems_delivered: true };
        } else {
            self.own.retain(|(own, at)| *own != signal && now.since(*at) < OWN_COPY_AGE);
            self.own.push((signal, now));
        }
    }

    /// Returns when the next signal is due.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.pending.iter().map(|pending| pending.due).min()
    }

    /// Returns the signals that are no longer held back.
    pub fn due(&mut self, now: Instant) -> Vec<RelayedSignal> {
        let due = self.pending.extract_if(.., |pending| now >= pending.due);
        let relayed = |PendingSignal { signal, seems_delivered, .. }: PendingSignal| {
            if seems_delivered { RelayedSignal::SendIfMissed(signal) } else { RelayedSignal::Send(signal) }
        };
        due.map(relayed).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERM: i32 = libc::SIGTERM;

    fn start() -> Instant {
        Instant::after_boot(Duration::from_secs(100))
    }

    #[test]
    fn a_signal_for_the_elector_alone_is_relayed() {
        let (mut relay, now) = (Relay::default(), start());
        assert_eq!(relay.request(now, libc::SIGUSR1), Some(libc::SIGUSR1));
        assert_eq!(relay.request(now, TERM), None);
        assert_eq!(relay.due(now), []);
        let due = relay.next_timeout().unwrap();
        assert_eq!(relay.due(due), [RelayedSignal::Send(TERM)]);
        assert_eq!((relay.due(due), relay.next_timeout()), (vec![], None));
    }

    #[test]
    fn a_signal_for_all_is_relayed_only_if_the_command_missed_it_whichever_copy_comes_first() {
        let now = start();
        let later = now + Duration::from_millis(40);
        for own_first in [true, false] {
            let mut relay = Relay::default();
            if own_first {
                relay.handle_own(now, TERM);
                assert_eq!(relay.request(later, TERM), None);
            } else {
                assert_eq!(relay.request(now, TERM), None);
                relay.handle_own(later, TERM);
            }
            assert_eq!(relay.due(later + OWN_COPY_TIMEOUT), []);
            assert_eq!(relay.due(later + DEATH_TIMEOUT), [RelayedSignal::SendIfMissed(TERM)]);
        }
    }

    #[test]
    fn each_own_copy_matches_one_request() {
        let (mut relay, now) = (Relay::default(), start());
        relay.handle_own(now, TERM);
        relay.request(now, TERM);
        let repeated = now + Duration::from_millis(600);
        relay.due(repeated);
        relay.request(repeated, TERM);
        assert_eq!(relay.due(repeated + OWN_COPY_TIMEOUT), [RelayedSignal::Send(TERM)]);
        relay.handle_own(now, libc::SIGINT);
        relay.request(now + OWN_COPY_AGE, libc::SIGINT);
        assert_eq!(relay.due(now + OWN_COPY_AGE + OWN_COPY_TIMEOUT), [RelayedSignal::Send(libc::SIGINT)]);
    }
}
