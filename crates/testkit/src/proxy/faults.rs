//! The present faults.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::matching::{Match, ReceivedRequest};
use super::wire::Traffic;

/// All present faults. By default there is none.
#[derive(Default)]
pub struct Faults {
    /// Which bytes of new connections are lost.
    pub traffic: Traffic,
    pub request_delay: Duration,
    pub reply_delay: Duration,
    rules: Vec<(Match, Fault)>,
}

/// A fault of single requests.
#[derive(Clone)]
pub enum Fault {
    /// The request reaches the server and its reply is lost.
    LoseReply,
    /// The proxy answers in place of the server.
    Answer { status: u16, retry_after: Option<u32> },
    /// The request waits before it is sent to the server.
    HoldRequest(Gate),
    /// The reply waits before it is sent to the client.
    HoldReply(Gate),
}

impl Faults {
    pub fn add(&mut self, matching: Match, fault: Fault) {
        self.rules.push((matching, fault));
    }

    /// Returns the fault for a request: that of the first rule that matches.
    pub fn fault_for(&mut self, request: &ReceivedRequest) -> Option<Fault> {
        let rule = self.rules.iter_mut().find_map(|(matching, fault)| matching.take(request).then_some(fault));
        rule.cloned()
    }

    /// Releases everything that is held.
    pub fn open_gates(&self) {
        for (_, fault) in &self.rules {
            if let Fault::HoldRequest(gate) | Fault::HoldReply(gate) = fault {
                gate.open();
            }
        }
    }
}

/// A gate that requests or replies wait at until it is opened.
#[derive(Clone)]
pub struct Gate(Arc<watch::Sender<GateState>>);

#[derive(Default)]
struct GateState {
    open: bool,
    arrived: usize,
}

impl Gate {
    pub fn new() -> Gate {
        Gate(Arc::new(watch::Sender::default()))
    }

    pub fn open(&self) {
        self.0.send_modify(|state| state.open = true);
    }

    /// Waits until the gate is open. Counts the one that waits.
    pub async fn pass(&self) {
        self.0.send_modify(|state| state.arrived += 1);
        self.until(|state| state.open).await;
    }

    /// Waits until this many wait at the gate, or have waited.
    pub async fn arrivals(&self, count: usize) {
        self.until(|state| state.arrived >= count).await;
    }

    async fn until(&self, condition: impl Fn(&GateState) -> bool) {
        let _ = self.0.subscribe().wait_for(condition).await;
    }
}
