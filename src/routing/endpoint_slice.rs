//! The endpoints of a Service without a selector: the leader's address, or none.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::str::FromStr;

use leaderrun_core::instant::Instant;
use serde_json::{Value, json};

use super::mark::Mark;
use super::{MAX_TRIES, changed_all_the_time};
use crate::kubernetes::{Collection, ENDPOINT_SLICES, Error, ErrorKind, Rule, Verb};
use crate::lock::check_label;
use crate::process::clock;
use crate::telemetry::log::printable;

/// A Service, and where the leader answers for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub name: ServiceName,
    pub ports: Vec<ServicePort>,
    /// This candidate's address. Without one it is the address from which it reaches the API server.
    pub address: Option<IpAddr>,
}

/// The name of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceName(String);

impl FromStr for ServiceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        check_label(text).map_err(|reason| format!("the name {reason}; my-service would do"))?;
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ServiceName {
    /// Returns the name of the EndpointSlice. All candidates write the same one, so it never has two leaders.
    fn slice(&self) -> String {
        format!("{}-leader", self.0)
    }

    /// Returns the rights that a candidate needs to route the Service to itself.
    pub fn rules(&self, namespace: &str) -> Vec<Rule> {
        vec![
            ENDPOINT_SLICES.rule(namespace, Some(self.slice()), &[Verb::Get, Verb::Update]),
            ENDPOINT_SLICES.rule(namespace, None, &[Verb::Create]),
        ]
    }
}

/// Checks whether these can be ports of one Service.
///
/// # Errors
/// A sentence with a value that is valid.
pub fn check_ports(ports: &[ServicePort]) -> Result<(), &'static str> {
    let is_twice = |(index, port): (usize, &ServicePort)| ports[..index].iter().any(|other| other.name == port.name);
    if ports.iter().enumerate().any(is_twice) {
        Err("each of several ports has a name of its own; http:80,https:443 would do")
    } else {
        Ok(())
    }
}

/// A port of a Service, as `--port` takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// The name that the Service has for it; empty where it has only one port.
    name: String,
    number: u16,
    protocol: &'static str,
}

impl FromStr for ServicePort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, rest) = text.split_once(':').unwrap_or(("", text));
        if text.contains(':') {
            check_label(name).map_err(|reason| format!("its name {reason}; http:8080 would do"))?;
        }
        let (number, protocol) = rest.split_once('/').unwrap_or((rest, "tcp"));
        let number = number.parse().ok().filter(|number| *number > 0);
        let protocol = ["TCP", "UDP", "SCTP"].into_iter().find(|known| known.eq_ignore_ascii_case(protocol));
        match (number, protocol) {
            (Some(number), Some(protocol)) => Ok(Self { name: name.to_owned(), number, protocol }),
            (None, _) => Err("ports are numbered 1 to 65535; 8080 or http:8080 would do".into()),
            (_, None) => Err("the protocol is tcp, udp or sctp; 8080/tcp would do".into()),
        }
    }
}

impl Service {
    /// Returns this candidate's address: the one that was given, or the one from which it reaches the API server at
    /// that host and port.
    ///
    /// # Errors
    /// When there is no route to the API server, or it begins at an address that others cannot reach.
    pub fn address(&self, (host, port): &(String, u16)) -> Result<IpAddr, Error> {
        if let Some(address) = self.address {
            return Ok(address);
        }
        let route = || -> io::Result<SocketAddr> {
            let server = (host.as_str(), *port).to_socket_addrs()?.next().ok_or(io::ErrorKind::AddrNotAvailable)?;
            let any: IpAddr = if server.is_ipv6() { [0; 16].into() } else { [0; 4].into() };
            let socket = UdpSocket::bind((any, 0))?;
            // This sends nothing; the kernel only chooses the address from which it would.
            socket.connect(server)?;
            socket.local_addr()
        };
        let found = match route() {
            Ok(local) if is_reachable(&local.ip()) => return Ok(local.ip()),
            Ok(local) => format!("nobody else reaches this candidate at {}", local.ip()),
            Err(failure) => format!("no way to the API server: {failure}"),
        };
        Err(Error::unknown(format!("{found}; --address says where it answers")))
    }

    /// Makes this candidate the only endpoint, and sends nothing more once the time is over. Nothing is written where
    /// it is the only one already, unless `rewrite`. Returns whether something was written.
    pub async fn lead_here(
        &self,
        slices: &Collection,
        address: IpAddr,
        mark: &Mark,
        until: Instant,
        rewrite: bool,
    ) -> Result<bool, Error> {
        for _ in 0..MAX_TRIES {
            let present = slices.get(&self.name.slice()).await?;
            let slice = present.unwrap_or_else(|| self.new_slice(address));
            if !rewrite && mark_of(&slice, mark).as_ref() == Some(mark) && self.leads_to(&slice, address) {
                return Ok(false);
            }
            if slice["addressType"] != family(address) {
                self.remove_predecessor(slices, mark).await?;
                let (slice, family) = (self.name.slice(), printable(&slice["addressType"].to_string()));
                let reason = format!("the EndpointSlice {slice} is for {family} addresses, and {address} is none");
                return Err(Error::unknown(format!("{reason}; --address says another one")));
            }
            if clock::now() >= until {
                return Err(Error::unknown("no time was left to lead the Service here"));
            }
            match self.write(slices, slice, endpoint(address), mark).await {
                Err(error) if is_outdated(&error) => {}
                result => return result.map(|()| true),
            }
        }
        Err(changed_all_the_time())
    }

    /// Takes out a predecessor, which is dead, where this candidate cannot be put in.
    pub async fn remove_predecessor(&self, slices: &Collection, mark: &Mark) -> Result<(), Error> {
        match slices.get(&self.name.slice()).await? {
            Some(slice) if slice["endpoints"].as_array().is_some_and(|endpoints| !endpoints.is_empty()) => {
                self.lead_away(slices, None, mark).await.map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Takes this candidate out after the leadership of this mark, so that whatever that leadership has sent arrives
    /// too late. Endpoints of a later leadership are left alone. Without an `address` the candidate was never put in.
    /// Returns whether it was in.
    pub async fn lead_away(&self, slices: &Collection, address: Option<IpAddr>, mark: &Mark) -> Result<bool, Error> {
        for _ in 0..MAX_TRIES {
            let present = slices.get(&self.name.slice()).await?;
            let Some(slice) = present.or_else(|| address.map(|address| self.new_slice(address))) else {
                return Ok(false);
            };
            if mark_of(&slice, mark).is_some_and(|other| other.is_later_than(mark)) {
                return Ok(false);
            }
            let was_in = address.is_some_and(|address| self.leads_to(&slice, address));
            match self.write(slices, slice, json!([]), mark).await {
                Err(error) if is_outdated(&error) => {}
                result => return result.map(|()| was_in),
            }
        }
        Err(changed_all_the_time())
    }

    fn new_slice(&self, address: IpAddr) -> Value {
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": { "name": self.name.slice() },
            "addressType": family(address),
        })
    }

    /// Creates the slice, or replaces the one of the same version.
    async fn write(&self, slices: &Collection, mut slice: Value, endpoints: Value, mark: &Mark) -> Result<(), Error> {
        let is_new = slice["metadata"]["resourceVersion"].is_null();
        slice["metadata"]["labels"]["kubernetes.io/service-name"] = self.name.0.as_str().into();
        slice["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] = "leaderrun".into();
        slice["metadata"]["annotations"][mark.key()] = mark.stamp().into();
        slice["endpoints"] = endpoints;
        slice["ports"] = self.ports();
        let name = self.name.slice();
        let written = if is_new { slices.create(&name, &slice).await } else { slices.replace(&name, &slice).await };
        written.map(drop)
    }

    fn leads_to(&self, slice: &Value, address: IpAddr) -> bool {
        slice["endpoints"] == endpoint(address) && slice["ports"] == self.ports()
    }

    fn ports(&self) -> Value {
        let port = |ServicePort { name, number, protocol }: &ServicePort| json!({ "name": name, "port": number, "protocol": protocol });
        self.ports.iter().map(port).collect()
    }
}

/// Returns whether the API server takes the address for an endpoint: whether others may reach a candidate there, as far
/// as the address itself tells.
pub fn is_reachable(address: &IpAddr) -> bool {
    let is_near = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local() || address.to_ipv4_mapped().is_some(),
    };
    !is_near && !address.is_loopback() && !address.is_unspecified() && !address.is_multicast()
}

/// Returns whether the slice has changed, or is gone, since it was read.
fn is_outdated(error: &Error) -> bool {
    matches!(error.kind, ErrorKind::Conflict | ErrorKind::NotFound)
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv6() { "IPv6" } else { "IPv4" }
}

fn endpoint(address: IpAddr) -> Value {
    json!([{ "addresses": [address.to_string()], "conditions": { "ready": true } }])
}

/// Returns the mark that a slice has from the same lock.
fn mark_of(slice: &Value, mark: &Mark) -> Option<Mark> {
    mark.of_same_lock(&slice["metadata"]["annotations"])
}
