//! The name of a Service, and the names of its EndpointSlices, which route traffic to the leader.

use std::fmt;
use std::str::FromStr;

use super::{SLOT_PLACEHOLDER, fill_in};
use crate::kubernetes::{ENDPOINT_SLICES, ENDPOINTS, Rule, SERVICES, Verb};
use crate::lock::{SlotCount, check_label};

/// The name of a Service. If the lock has slots, the name may contain a placeholder for the slot number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceName(String);

impl FromStr for ServiceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // The name is longest with the largest slot number in place of the placeholder.
        let longest_name = fill_in(text, SlotCount::MAX_NUMBER);
        check_label(&longest_name).map_err(|reason| format!("the name {reason}; for example my-service"))?;
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ServiceName {
    /// Returns the name of the Service.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether the name contains the placeholder for the slot number.
    pub fn has_slot_placeholder(&self) -> bool {
        self.0.contains(SLOT_PLACEHOLDER)
    }

    /// Returns the name of the Service for the slot with this number.
    pub fn in_slot(&self, slot: usize) -> Self {
        Self(fill_in(&self.0, slot))
    }

    /// Returns the name of the EndpointSlice for all addresses except the IPv6 addresses of a dual-stack Service. All
    /// candidates write the same slice, so it never contains two leaders.
    pub fn slice(&self) -> String {
        format!("{}-leader", self.0)
    }

    /// Returns the name of the slice for IPv6 addresses of a dual-stack Service.
    pub fn ipv6_slice(&self) -> String {
        format!("{}-leader-ipv6", self.0)
    }

    /// Returns the names of both slices.
    pub fn slices(&self) -> [String; 2] {
        [self.slice(), self.ipv6_slice()]
    }

    /// Returns the permissions that a candidate needs to route the Service to itself. Only a dual-stack Service has a
    /// second slice.
    pub fn rules(&self, namespace: &str, is_dual_stack: bool) -> Vec<Rule> {
        let slices = self.slices().into_iter().take(if is_dual_stack { 2 } else { 1 });
        let mut rules: Vec<Rule> =
            slices.map(|slice| ENDPOINT_SLICES.rule(namespace, Some(slice), &[Verb::Get, Verb::Update])).collect();
        rules.push(ENDPOINT_SLICES.rule(namespace, None, &[Verb::Create]));
        rules
    }

    /// Returns the permissions that a candidate needs to check that the Service routes to it and to no other endpoint.
    pub fn check_rules(&self, namespace: &str) -> Vec<Rule> {
        vec![
            SERVICES.rule(namespace, Some(self.0.clone()), &[Verb::Get]),
            ENDPOINTS.rule(namespace, Some(self.0.clone()), &[Verb::Get]),
        ]
    }
}
