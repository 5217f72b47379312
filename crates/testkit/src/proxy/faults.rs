//! What is wrong with the network right now.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::matching::{Match, ReceivedRequest};
use super::wire::Traffic;

/// All that is wrong; by default nothing is.
#[derive(Default)]
pub struct Faults {
    /// What becomes of the bytes of new connections.
    pub traffic: Traffic,
    pub request_delay: Duration,
    pub reply_delay: Duration,
    rules: Vec<(Match, Fault)>,
}

/// What is done to single requests.
#[derive(Clone)]
pub enum Fault {
    /// It reaches the server, and its reply does not come back.
    LoseReply,
    /// The proxy answers in place of the server.
    Answer { status: u16, retry_after: Option<u32> },
    /// It waits before it goes to the server.
    HoldRequest(Gate),
    /// Its reply waits before it goes to the client.
    HoldReply(Gate),
}

impl Faults {
    pub fn add(&mut self, matching: Match, fault: Fault) {
        self.rules.push((matching, fault));
    }

    /// The fault that hits this request: that of the first rule for it.
    pub fn hit(&mut self, request: &ReceivedRequest) -> Option<Fault> {
        let rule = self.rules.iter_mut().find_map(|(matching, fault)| matching.take(request).then_some(fault));
        rule.cloned()
    }

    /// Lets everything go that is held.
    pub fn open_gates(&self) {
        for (_, fault) in &self.rules {
            if let Fault::HoldRequest(gate) | Fault::HoldReply(gate) = fault {
                gate.open();
            }
        }
    }
}

/// Where requests or replies wait until they are let through.
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

    /// Waits, as a request, until the gate is open.
    pub async fn pass(&self) {
        self.0.send_modify(|state| state.arrived += 1);
        self.until(|state| state.open).await;
    }

    /// Waits until so many are at the gate, or have been.
    pub async fn arrivals(&self, count: usize) {
        self.until(|state| state.arrived >= count).await;
    }

    async fn until(&self, condition: impl Fn(&GateState) -> bool) {
        let _ = self.0.subscribe().wait_for(condition).await;
    }
}
