//! The definition of a Service, and the EndpointSlice that a leader writes for it.
//!
//! For a Service without a selector, kube-proxy and the DNS server use the EndpointSlices that other programs, such as
//! leaderrun, write. A port of a slice belongs to the port of the Service with the same name, and has the number of the
//! container's port.

use std::fmt;
use std::str::FromStr;

use serde_json::{Value, json};

use crate::lock::check_label;
use crate::telemetry::log::printable;

/// One value of `--port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortOption {
    /// The name of a port of the Service, or of its target port.
    name: Option<String>,
    /// The port on which the container listens.
    number: u16,
    protocol: Option<&'static str>,
}

impl FromStr for PortOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, rest) = match text.split_once(':') {
            Some((name, rest)) => (Some(name), rest),
            None => (None, text),
        };
        if let Some(name) = name {
            check_label(name).map_err(|reason| format!("its name {reason}; for example http:8080"))?;
        }
        let (number, protocol) = match rest.split_once('/') {
            Some((number, protocol)) => (number, Some(protocol)),
            None => (rest, None),
        };
        let number = number.parse().ok().filter(|number| *number > 0);
        let number = number.ok_or("ports are numbered 1 to 65535; for example 8080 or http:8080")?;
        let known_protocol =
            |text: &str| ["TCP", "UDP", "SCTP"].into_iter().find(|protocol| protocol.eq_ignore_ascii_case(text));
        let protocol = match protocol.map(known_protocol) {
            Some(None) => return Err("the protocol is tcp, udp or sctp; for example 8080/tcp".into()),
            protocol => protocol.flatten(),
        };
        Ok(Self { name: name.map(str::to_owned), number, protocol })
    }
}

/// Writes the `--port` option for this port alone.
impl fmt::Display for PortOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, number, protocol } = self;
        let name = name.as_ref().map(|name| format!("{name}:")).unwrap_or_default();
        let protocol = protocol.map(|protocol| format!("/{}", protocol.to_lowercase())).unwrap_or_default();
        write!(f, "--port {name}{number}{protocol}")
    }
}

/// A port of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    name: String,
    number: u16,
    protocol: String,
}

impl SlicePort {
    /// Returns the port as JSON for a slice.
    pub fn to_json(&self) -> Value {
        let Self { name, number, protocol } = self;
        json!({ "name": name, "port": number, "protocol": protocol })
    }
}

/// Returns the ports of a slice from `--port` alone, for a Service that could not be read or defines no ports.
///
/// # Errors
/// Fails if there is no `--port`, or if two have the same name. The error says what to set.
pub fn unchecked_ports(wanted: &[PortOption]) -> Result<Vec<SlicePort>, String> {
    if wanted.is_empty() {
        return Err("set --port to the ports of the Service; for example --port http:8080".into());
    }
    let ports = wanted.iter().map(|PortOption { name, number, protocol }| SlicePort {
        name: name.clone().unwrap_or_default(),
        number: *number,
        protocol: protocol.unwrap_or("TCP").to_owned(),
    });
    unambiguous(ports.collect())
}

/// Checks that no two ports have the same name, and returns them.
fn unambiguous(ports: Vec<SlicePort>) -> Result<Vec<SlicePort>, String> {
    let has_duplicate_name =
        |(index, port): (usize, &SlicePort)| ports[..index].iter().any(|other| other.name == port.name);
    if ports.iter().enumerate().any(has_duplicate_name) {
        return Err("each --port needs a different name; for example --port http:8080,https:8443".into());
    }
    Ok(ports)
}

/// The parts of a Service that routing depends on.
#[derive(Clone, Debug)]
pub struct ServiceDefinition {
    /// The namespace and the name of the Service.
    full_name: String,
    name: String,
    namespace: String,
    /// Whether the Service selects pods, so that Kubernetes writes its slices.
    has_selector: bool,
    /// Whether the Service is an alias for a DNS name, which has no endpoints.
    is_external_name: bool,
    /// Whether the Service has no cluster IP.
    is_headless: bool,
    families: Vec<String>,
    ports: Vec<ServicePort>,
}

/// A port that a Service defines.
#[derive(Clone, Debug)]
struct ServicePort {
    /// The name. It is empty if the Service has a single, unnamed port.
    name: String,
    protocol: String,
    target: Target,
}

/// The target port in a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Number(u16),
    /// The name of a container's port.
    Name(String),
}

impl ServiceDefinition {
    /// Parses a Service. A missing field has the default of the API server.
    pub fn new(namespace: &str, name: &str, service: &Value) -> Self {
        let spec = &service["spec"];
        let families = spec["ipFamilies"].as_array().into_iter().flatten().filter_map(Value::as_str);
        Self {
            full_name: format!("{namespace}/{name}"),
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            has_selector: spec["selector"].as_object().is_some_and(|selector| !selector.is_empty()),
            is_external_name: spec["type"] == "ExternalName",
            is_headless: spec["clusterIP"] == "None",
            families: families.map(printable).collect(),
            ports: spec["ports"].as_array().into_iter().flatten().filter_map(ServicePort::new).collect(),
        }
    }

    /// Checks that the Service uses EndpointSlices that leaderrun writes.
    ///
    /// # Errors
    /// Returns why it does not, and what to do.
    pub fn check(&self) -> Result<(), String> {
        let Self { full_name, name, namespace, .. } = self;
        if self.is_external_name {
            return Err(format!("the Service {full_name} is an ExternalName, which has no endpoints; use a ClusterIP"));
        }
        if self.has_selector {
            return Err(format!(
                "the Service {full_name} has a selector, so traffic goes to all pods that it selects; remove the selector: \
                 kubectl patch service {name} -n {namespace} --type=json -p '[{{\"op\":\"remove\",\"path\":\"/spec/selector\"}}]'"
            ));
        }
        Ok(())
    }

    /// Returns whether the Service can use an address of this family. It can if its families are not known.
    pub fn has_family(&self, family: &str) -> bool {
        self.families.is_empty() || self.families.iter().any(|own_family| own_family == family)
    }

    /// Returns whether the Service has IPv4 and IPv6 addresses.
    pub fn is_dual_stack(&self) -> bool {
        self.families.len() > 1
    }

    /// Returns a message saying that the Service cannot use addresses of these families, and what to do.
    pub fn family_mismatch(&self, families: &str) -> String {
        let (service, own_families) = (&self.full_name, self.families.join(" and "));
        format!(
            "the Service {service} has {own_families} only, but this candidate's address is {families}; set --address to an {own_families} address"
        )
    }

    /// Returns a warning if this candidate has no address in one of the Service's IP families. `served` lists the
    /// families of its addresses. If it is empty, because `leaderrun doctor` does not know them, there is no warning.
    /// There is no warning for a headless Service either: it is dual-stack by default, but has no cluster IP that could
    /// lack an endpoint.
    pub fn unserved_family(&self, served: &[&str]) -> Option<String> {
        if self.is_headless || served.is_empty() {
            return None;
        }
        let unserved = self.families.iter().find(|family| !served.contains(&family.as_str()))?;
        let (service, served) = (&self.full_name, served.join(" and "));
        Some(format!(
            "the Service {service} routes {served} only: this candidate has no {unserved} address; set --address to an IPv4 \
             and an IPv6 address, separated by a comma"
        ))
    }

    /// Returns the ports of the slice: those in `--port`, or all ports of the Service.
    ///
    /// # Errors
    /// Fails if a `--port` matches no port of the Service, if two have the same name, or if, without `--port`, a target
    /// port is a name. The error contains the remedy.
    pub fn slice_ports(&self, wanted: &[PortOption]) -> Result<Vec<SlicePort>, String> {
        if self.ports.is_empty() && !wanted.is_empty() {
            // A headless Service does not need to define ports, because they are not mapped.
            return unchecked_ports(wanted);
        }
        if wanted.is_empty() {
            return self.ports.iter().map(|port| self.slice_port(port)).collect();
        }
        let mut ports = Vec::new();
        for wanted in wanted {
            for defined in self.matching(wanted)? {
                let (name, protocol) = (defined.name.clone(), defined.protocol.clone());
                ports.push(SlicePort { name, number: wanted.number, protocol });
            }
        }
        unambiguous(ports)
    }

    /// Returns the names of the Service's ports that are not among the ports of the slice.
    pub fn unserved_ports(&self, served: &[SlicePort]) -> Vec<&str> {
        let is_served = |port: &&ServicePort| served.iter().any(|served| served.name == port.name);
        self.ports.iter().filter(|port| !is_served(port)).map(|port| port.name.as_str()).collect()
    }

    /// Returns the slice's port for a port of the Service. Fails if its target port is a name.
    fn slice_port(&self, port: &ServicePort) -> Result<SlicePort, String> {
        let ServicePort { name, protocol, target } = port;
        match target {
            Target::Number(number) => Ok(SlicePort { name: name.clone(), number: *number, protocol: protocol.clone() }),
            Target::Name(target) => Err(format!(
                "{} of the Service {} has the targetPort {target:?}, whose number only the container defines; set the number, \
                 for example {}",
                port.phrase(),
                self.full_name,
                port.option(8080)
            )),
        }
    }

    /// Returns the ports of the Service that a `--port` selects: by their name, by their target port, or because the
    /// Service has only one port. Fails with a suggestion if it selects none, or none with its protocol.
    fn matching(&self, wanted: &PortOption) -> Result<Vec<&ServicePort>, String> {
        let PortOption { name, number, protocol } = wanted;
        let has_protocol = |port: &&ServicePort| protocol.is_none_or(|protocol| protocol == port.protocol);
        let by_name_or_target_number = |port: &&ServicePort| match name {
            Some(name) => port.name == *name,
            None => port.target == Target::Number(*number),
        };
        let by_target_name =
            |port: &&ServicePort| name.as_ref().is_some_and(|name| port.target == Target::Name(name.clone()));
        let mut found: Vec<&ServicePort> = self.ports.iter().filter(by_name_or_target_number).collect();
        if found.is_empty() {
            found = self.ports.iter().filter(by_target_name).collect();
        }
        if let ([only], None, true) = (&self.ports[..], name, found.is_empty()) {
            found.push(only);
        }
        let fitting: Vec<&ServicePort> = found.iter().copied().filter(has_protocol).collect();
        match (fitting.is_empty(), found.first()) {
            (false, _) => Ok(fitting),
            (true, Some(other)) => {
                let (service, protocol) = (&self.full_name, &other.protocol);
                Err(format!(
                    "{wanted}: {} of the Service {service} is for {protocol}; try {}",
                    other.phrase(),
                    other.option(*number)
                ))
            }
            (true, None) => Err(self.unmatched(wanted)),
        }
    }

    /// Returns the message about a `--port` that selects no port of the Service.
    fn unmatched(&self, wanted: &PortOption) -> String {
        let service = &self.full_name;
        let is_targeted = |port: &&ServicePort| port.target == Target::Number(wanted.number);
        let nearest = self.ports.iter().find(is_targeted).or(self.ports.first());
        let remedy = nearest.map(|port| format!("; try {}", port.option(wanted.number))).unwrap_or_default();
        let missing = match &wanted.name {
            Some(name) => format!("no port named {name:?}"),
            None => format!("no port with the targetPort {}", wanted.number),
        };
        let defined = self.ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let ports = if self.ports.len() == 1 { "its only port is" } else { "its ports are" };
        format!("{wanted}: the Service {service} has {missing}; {ports} {defined}{remedy}")
    }
}

impl ServicePort {
    fn new(port: &Value) -> Option<Self> {
        let number = |value: &Value| value.as_u64().and_then(|number| u16::try_from(number).ok());
        let target = match &port["targetPort"] {
            Value::String(name) => match name.parse() {
                Ok(number) => Target::Number(number),
                Err(_) => Target::Name(printable(name)),
            },
            target => Target::Number(number(target).filter(|number| *number > 0).or(number(&port["port"]))?),
        };
        Some(Self {
            name: port["name"].as_str().map(printable).unwrap_or_default(),
            protocol: port["protocol"].as_str().map_or_else(|| "TCP".to_owned(), printable),
            target,
        })
    }

    /// Returns the `--port` option that connects this port to port `number` of the container.
    fn option(&self, number: u16) -> String {
        let name = if self.name.is_empty() { String::new() } else { format!("{}:", self.name) };
        let protocol =
            if self.protocol == "TCP" { String::new() } else { format!("/{}", self.protocol.to_lowercase()) };
        format!("--port {name}{number}{protocol}")
    }

    /// Returns a phrase for the port, for use in a sentence.
    fn phrase(&self) -> String {
        if self.name.is_empty() { "the port".to_owned() } else { format!("the port {:?}", self.name) }
    }
}

/// Writes the name and the target.
impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.name.is_empty() { "unnamed" } else { &self.name };
        match &self.target {
            Target::Number(target) => write!(f, "{name} (targetPort {target})"),
            Target::Name(target) => write!(f, "{name} (targetPort {target:?})"),
        }
    }
}

#[cfg(test)]
mod tests;
