//! The faults that a proxy injects.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::matching::{Match, ReceivedRequest};
use super::wire::Losses;

/// All active faults. By default there are none.
#[derive(Default)]
pub struct Faults {
    /// The directions in which new connections drop all bytes.
    pub losses: Losses,
    pub request_delay: Duration,
    pub response_delay: Duration,
    rules: Vec<(Match, Fault)>,
}

/// A fault that applies to individual requests.
#[derive(Clone)]
pub enum Fault {
    /// The request reaches the server, but the response is dropped.
    DropResponse,
    /// The proxy responds in place of the server. `retry_after` is in seconds.
    Respond { status: u16, retry_after: Option<u32> },
    /// The request waits before it is sent to the server.
    HoldRequest(Gate),
    /// The response waits before it is sent to the client.
    HoldResponse(Gate),
}

impl Faults {
    pub fn add(&mut self, matching: Match, fault: Fault) {
        self.rules.push((matching, fault));
    }

    /// Returns the fault of the first rule that matches a request, and counts the match towards the rule's limit.
    pub fn fault_for(&mut self, request: &ReceivedRequest) -> Option<Fault> {
        let rule = self.rules.iter_mut().find_map(|(matching, fault)| matching.count_match(request).then_some(fault));
        rule.cloned()
    }

    /// Releases all requests and responses that are held.
    pub fn open_gates(&self) {
        for (_, fault) in &self.rules {
            if let Fault::HoldRequest(gate) | Fault::HoldResponse(gate) = fault {
                gate.open();
            }
        }
    }
}

/// A gate at which requests or responses wait until it is opened.
#[derive(Clone)]
pub struct Gate(Arc<watch::Sender<GateState>>);

#[derive(Default)]
struct GateState {
    /// `true` if requests and responses pass without waiting.
    is_open: bool,
    /// The number of requests or responses that have reached the gate.
    arrived: usize,
}

impl Gate {
    pub fn new() -> Gate {
        Gate(Arc::new(watch::Sender::default()))
    }

    pub fn open(&self) {
        self.0.send_modify(|state| state.is_open = true);
    }

    /// Counts an arrival, and waits until the gate is open.
    pub async fn pass(&self) {
        self.0.send_modify(|state| state.arrived += 1);
        self.wait_until(|state| state.is_open).await;
    }

    /// Waits until there have been this many arrivals.
    pub async fn wait_for_arrivals(&self, count: usize) {
        self.wait_until(|state| state.arrived >= count).await;
    }

    async fn wait_until(&self, condition: impl Fn(&GateState) -> bool) {
        let _ = self.0.subscribe().wait_for(condition).await;
    }
}
