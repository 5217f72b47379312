//! The thread that takes part in the election, and its communication with the elector's main thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use leaderrun_core::election::ElectionConfig;
use leaderrun_core::elector::ElectionReport;
use leaderrun_core::instant::Instant;
use leaderrun_core::updates::Update;
use nix::sys::eventfd::EventFd;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::election_loop;
use super::log_notices;
use crate::exit;
use crate::kubernetes::ClusterAccess;
use crate::lock::LockConfig;
use crate::process::priority::Priority;
use crate::process::{clock, event_fd, runtime_thread};
use crate::telemetry::observer::Observer;

/// A message from the main thread to the election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElectionMessage {
    /// Unless a renewal succeeds, the supervisor stops the command at this instant, which is earlier than the last
    /// tenure requires.
    StopBroughtForward(Instant),
    /// No process of the command is left, or the command was never started.
    CommandGone { succeeded: bool },
    /// End the candidacy. A leader continues until its command is gone.
    Stop,
}

/// A running election.
#[derive(Debug)]
pub struct ElectionThread {
    reports: mpsc::Receiver<ElectionReport>,
    /// A descriptor that [`MainThreadChannel::send`] makes readable, to wake the main thread.
    wakeup: Arc<EventFd>,
    messages: UnboundedSender<ElectionMessage>,
}

impl ElectionThread {
    /// Starts the election on a new thread.
    ///
    /// # Errors
    /// Fails if the kernel refuses to create a descriptor or a thread.
    pub fn start(
        lock: LockConfig,
        access: ClusterAccess,
        config: ElectionConfig,
        observer: Observer,
    ) -> io::Result<Self> {
        let wakeup = Arc::new(event_fd::new()?);
        let (sender, reports) = mpsc::channel();
        let (messages, inbox) = unbounded_channel();
        let main_thread = MainThreadChannel { reports: sender, wakeup: Arc::clone(&wakeup) };
        runtime_thread::start("election", move || {
            // Renewals must be sent in time even if the command's threads keep the CPUs busy.
            let _priority = Priority::acquire_short_time_slice();
            let result = match runtime_thread::runtime() {
                Ok(runtime) => {
                    let election = election_loop::run(lock, access, config, &main_thread, inbox, &observer);
                    let result = runtime.block_on(election);
                    // Dropping the runtime would wait for blocking calls, such as a name lookup, which may never
                    // return.
                    runtime.shutdown_background();
                    result
                }
                Err(failure) => Err(failure.into()),
            };
            observer.notify(Update::NextTimeout(None));
            main_thread.send(match result {
                Ok(outcome) => ElectionReport::Finished(outcome),
                Err(failure) => {
                    log_notices::failed(&failure);
                    ElectionReport::Failed { is_transient: exit::is_transient(&failure) }
                }
            });
        })?;
        Ok(Self { reports, wakeup, messages })
    }

    /// Returns everything that the election has reported since the last call.
    pub fn reports(&self) -> Vec<ElectionReport> {
        let _ = self.wakeup.read();
        self.reports.try_iter().collect()
    }

    /// Ends a candidacy whose command will never be started, and releases the lock if it was acquired. Waits for at most
    /// `timeout`.
    pub fn abandon(&self, timeout: Duration) {
        self.send(ElectionMessage::Stop);
        let until = clock::now() + timeout;
        while let Ok(report) = self.reports.recv_timeout(until.since(clock::now())) {
            match report {
                ElectionReport::Acquired { .. } => self.send(ElectionMessage::CommandGone { succeeded: false }),
                ElectionReport::Finished(_) | ElectionReport::Failed { .. } => return,
                _ => {}
            }
        }
    }

    /// Sends a message to the election. It has no effect if the election is over.
    pub fn send(&self, message: ElectionMessage) {
        let _ = self.messages.send(message);
    }
}

impl AsFd for ElectionThread {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wakeup.as_fd()
    }
}

/// The channel from the election to the elector's main thread.
pub struct MainThreadChannel {
    reports: mpsc::Sender<ElectionReport>,
    wakeup: Arc<EventFd>,
}

impl MainThreadChannel {
    /// Sends a report and wakes the main thread.
    pub fn send(&self, report: ElectionReport) {
        self.send_without_waking(report);
        let _ = self.wakeup.write(1);
    }

    /// Sends a report without waking the main thread, which finds the report when it wakes for another reason.
    pub fn send_without_waking(&self, report: ElectionReport) {
        let _ = self.reports.send(report);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::OnceCell;

    use leaderrun_core::election::{Outcome, Preference};
    use leaderrun_core::record::RunId;
    use leaderrun_core::timing::Timing;
    use testkit::eventually;

    use super::*;
    use crate::kubernetes::ClusterOptions;

    /// Starts a candidate for a lock in the memory of this process.
    fn candidate(lock: &str, identity: &str) -> ElectionThread {
        observed_candidate(lock, identity, Observer::default())
    }

    fn observed_candidate(lock: &str, identity: &str, observer: Observer) -> ElectionThread {
        let seconds = Duration::from_secs;
        let config = ElectionConfig {
            identity: identity.to_owned(),
            run: RunId::new(identity),
            timing: Timing::new(seconds(60), seconds(30), seconds(2), None).unwrap(),
            wait: None,
            min_hold: None,
            ignores_min_hold: false,
            preference: Preference::default(),
        };
        let access = ClusterAccess::new(ClusterOptions::default());
        let lock = LockConfig { name: lock.parse().unwrap(), slots: None, owner: None };
        ElectionThread::start(lock, access, config, observer).unwrap()
    }

    /// Receives the candidate's new reports, and returns the fencing token if one of them is about the acquisition.
    fn fencing_token(candidate: &ElectionThread) -> Option<String> {
        candidate.reports().into_iter().find_map(|report| {
            let ElectionReport::Acquired { environment, .. } = report else { return None };
            environment.into_iter().find_map(|(name, value)| (name == "LEADERRUN_FENCING_TOKEN").then_some(value))
        })
    }

    fn wait_for_acquisition(candidate: &ElectionThread) -> String {
        let token = OnceCell::new();
        eventually("the candidate leads", || {
            if let Some(found) = fencing_token(candidate) {
                token.get_or_init(|| found);
            }
            token.get().is_some()
        });
        token.into_inner().unwrap()
    }

    #[test]
    fn a_leader_hands_the_lock_over_to_a_standby() {
        let leader = candidate("memory:handed-over", "leader");
        assert_eq!(wait_for_acquisition(&leader), "1");
        let standby = candidate("memory:handed-over", "standby");
        leader.send(ElectionMessage::Stop);
        leader.send(ElectionMessage::CommandGone { succeeded: true });
        eventually("the leader releases the lock", || {
            leader.reports().contains(&ElectionReport::Finished(Outcome::Released))
        });
        // Each write increases the token. The release was the second write.
        assert_eq!(wait_for_acquisition(&standby), "3");
    }

    #[test]
    fn an_abandoned_candidate_releases_the_lock() {
        let (sender, acquired) = mpsc::channel();
        let observer = Observer::new(move |update| {
            if let Update::Acquired { .. } = update {
                sender.send(()).unwrap();
            }
        });
        let abandoned = observed_candidate("memory:abandoned", "abandoned", observer);
        acquired.recv().unwrap();
        abandoned.abandon(Duration::from_secs(60));
        // Each write increases the token. The release was the second write.
        assert_eq!(wait_for_acquisition(&candidate("memory:abandoned", "next")), "3");
    }
}
