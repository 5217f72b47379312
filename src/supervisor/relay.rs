//! Relays termination signals to the command without delivering the same signal twice.
//!
//! When systemd stops a unit (`KillMode=control-group`), or a program kills a whole process tree, every process gets
//! the signal: the elector, the supervisor and the command. The command has then received the signal before leaderrun
//! relays it. The supervisor recognizes this case because it receives the signal itself. That conclusion can be wrong,
//! because a user can also signal only leaderrun's two processes. Therefore the signal is still relayed if the command
//! seems to have missed it, and each signal that the supervisor receives is matched with only one signal from the
//! elector.

use std::time::Duration;

use leaderrun_core::elector::WITHDRAWAL_TIMEOUT;
use leaderrun_core::instant::Instant;
use leaderrun_core::signal::is_termination_signal;

/// How long a termination signal from the elector is held back, in case the supervisor receives the same signal itself.
/// A program that signals a whole unit signals all its processes within this time.
const OWN_SIGNAL_TIMEOUT: Duration = Duration::from_millis(50);

/// How long the supervisor remembers a signal that it received itself. The elector may relay the signal this much
/// later, because it defers the signal while traffic is routed away.
const OWN_SIGNAL_AGE: Duration = WITHDRAWAL_TIMEOUT.saturating_add(Duration::from_millis(500));

/// How long a command that received the signal may take to die from it.
const DEATH_TIMEOUT: Duration = Duration::from_millis(200);

/// The termination signals that have not been relayed yet, and those that the supervisor received itself.
#[derive(Debug, Default)]
pub struct Relay {
    /// The signals that the supervisor received itself, and when they arrived.
    own_signals: Vec<(i32, Instant)>,
    pending: Vec<PendingSignal>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PendingSignal {
    signal: i32,
    due: Instant,
    /// Whether the command seems to have received this signal already.
    seems_delivered: bool,
}

/// A signal for the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayedSignal {
    Send(i32),
    /// Send this signal only if the command has missed it. A command that is still alive and would die from the signal
    /// has missed it.
    SendIfMissed(i32),
}

impl Relay {
    /// Accepts a signal from the elector. Returns the signal if it can be relayed at once; otherwise holds it back and
    /// returns `None`.
    pub fn accept(&mut self, now: Instant, signal: i32) -> Option<i32> {
        if !is_termination_signal(signal) {
            return Some(signal);
        }
        let is_match = |(own, at): &(i32, Instant)| *own == signal && now.since(*at) < OWN_SIGNAL_AGE;
        let own = self.own_signals.iter().position(is_match);
        let seems_delivered = own.map(|index| self.own_signals.swap_remove(index)).is_some();
        let due = now + if seems_delivered { DEATH_TIMEOUT } else { OWN_SIGNAL_TIMEOUT };
        self.pending.push(PendingSignal { signal, due, seems_delivered });
        None
    }

    /// Handles a signal that the supervisor received itself: matches it with a held-back signal from the elector, or
    /// remembers it in case the elector relays the same signal later.
    pub fn handle_own_signal(&mut self, now: Instant, signal: i32) {
        let is_waiting = |pending: &&mut PendingSignal| pending.signal == signal && !pending.seems_delivered;
        if let Some(pending) = self.pending.iter_mut().find(is_waiting) {
            *pending = PendingSignal { signal, due: now + DEATH_TIMEOUT, seems_delivered: true };
        } else {
            self.own_signals.retain(|(own, at)| *own != signal && now.since(*at) < OWN_SIGNAL_AGE);
            self.own_signals.push((signal, now));
        }
    }

    /// Returns when the next held-back signal is due.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.pending.iter().map(|pending| pending.due).min()
    }

    /// Removes and returns the signals that are now due.
    pub fn take_due(&mut self, now: Instant) -> Vec<RelayedSignal> {
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
    fn a_signal_that_only_the_elector_received_is_relayed() {
        let (mut relay, now) = (Relay::default(), start());
        assert_eq!(relay.accept(now, libc::SIGUSR1), Some(libc::SIGUSR1));
        assert_eq!(relay.accept(now, TERM), None);
        assert_eq!(relay.take_due(now), []);
        let due = relay.next_timeout().unwrap();
        assert_eq!(relay.take_due(due), [RelayedSignal::Send(TERM)]);
        assert_eq!((relay.take_due(due), relay.next_timeout()), (vec![], None));
    }

    #[test]
    fn a_signal_that_the_supervisor_received_too_is_relayed_only_if_the_command_missed_it() {
        let now = start();
        let later = now + Duration::from_millis(40);
        for own_first in [true, false] {
            let mut relay = Relay::default();
            if own_first {
                relay.handle_own_signal(now, TERM);
                assert_eq!(relay.accept(later, TERM), None);
            } else {
                assert_eq!(relay.accept(now, TERM), None);
                relay.handle_own_signal(later, TERM);
            }
            assert_eq!(relay.take_due(later + OWN_SIGNAL_TIMEOUT), []);
            assert_eq!(relay.take_due(later + DEATH_TIMEOUT), [RelayedSignal::SendIfMissed(TERM)]);
        }
    }

    #[test]
    fn a_signal_that_the_supervisor_received_is_matched_only_once_and_only_for_a_while() {
        let (mut relay, now) = (Relay::default(), start());
        relay.handle_own_signal(now, TERM);
        relay.accept(now, TERM);
        let repeated = now + Duration::from_millis(600);
        relay.take_due(repeated);
        relay.accept(repeated, TERM);
        assert_eq!(relay.take_due(repeated + OWN_SIGNAL_TIMEOUT), [RelayedSignal::Send(TERM)]);
        relay.handle_own_signal(now, libc::SIGINT);
        relay.accept(now + OWN_SIGNAL_AGE, libc::SIGINT);
        assert_eq!(relay.take_due(now + OWN_SIGNAL_AGE + OWN_SIGNAL_TIMEOUT), [RelayedSignal::Send(libc::SIGINT)]);
    }
}
