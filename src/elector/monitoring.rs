//! The health checks, metrics and systemd notifications of this candidate, if they are configured.

use leaderrun_core::election::ElectionConfig;

use super::ElectorConfig;
use super::rejoin::COUNTERS_VARIABLE;
use crate::process::clock;
use crate::telemetry::log_events;
use crate::telemetry::monitor::Monitor;
use crate::telemetry::observer::Observer;
use crate::telemetry::state::{CandidateConfig, CandidateState};
use crate::telemetry::systemd::{NotifySocket, ServiceNotifier, Watchdog};

/// The monitoring of a candidate.
pub struct Monitoring {
    monitor: Option<Monitor>,
    watchdog: Option<Watchdog>,
}

impl Monitoring {
    /// Starts the HTTP server and the notifications to systemd, if they are configured.
    ///
    /// # Errors
    /// Fails if leaderrun can never listen on the address for HTTP, or the kernel refuses to create a thread.
    pub fn start(config: &ElectorConfig) -> anyhow::Result<Self> {
        let socket = NotifySocket::from_environment().unwrap_or_else(|failure| {
            log_events::notify_failed(&failure.to_string());
            None
        });
        let watchdog =
            socket.clone().and_then(|socket| Watchdog::from_environment(socket, config.notify_by, clock::now()));
        let notifier = socket.map(|socket| ServiceNotifier::new(socket, config.notify_by));
        let is_monitored = config.http.is_some() || notifier.is_some();
        let monitor =
            is_monitored.then(|| Monitor::start(config.http, notifier, candidate_state(config))).transpose()?;
        Ok(Self { monitor, watchdog })
    }

    /// Returns an observer that passes all updates to the monitoring thread and to the watchdog.
    pub fn observer(&self) -> Observer {
        let monitor = self.monitor.as_ref().map(Monitor::observer).unwrap_or_default();
        monitor.and(self.watchdog.as_ref().map(Watchdog::observer).unwrap_or_default())
    }

    /// Removes and returns the watchdog. The main loop notifies systemd through it.
    pub fn take_watchdog(&mut self) -> Option<Watchdog> {
        self.watchdog.take()
    }

    /// Returns the counters, so that they continue when leaderrun re-executes itself to rejoin.
    pub fn saved_counters(&self) -> Option<String> {
        self.monitor.as_ref().and_then(Monitor::saved_counters)
    }
}

fn candidate_state(config: &ElectorConfig) -> CandidateState {
    let ElectionConfig { identity, timing, .. } = &config.election;
    let candidate = CandidateConfig {
        lock: config.lock.to_string(),
        slots: config.slots.map(|slots| slots.numbers().len()),
        identity: identity.clone(),
        lease_duration: timing.lease_duration(),
        renew_deadline: timing.renew_deadline(),
        retry_period: timing.retry_period(),
        request_timeout: timing.request_timeout(),
        ready_when: config.ready_when,
        unhealthy_after: config.unhealthy_after,
    };
    let saved_counters = std::env::var(COUNTERS_VARIABLE).ok();
    CandidateState::new(clock::now(), candidate, saved_counters.as_deref())
}
