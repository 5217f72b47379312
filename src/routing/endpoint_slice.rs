//! The endpoints of a Service without a selector: the leader's address, or none.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::str::FromStr;
use std::time::Duration;

use futures_util::future::join;
use leaderrun_core::instant::Instant;
use serde_json::{Value, json};

use super::mark::Mark;
use super::service_definition::{ServiceDefinition, ServicePort, SlicePort, unchecked_ports};
use super::{MAX_TRIES, SLOT_PLACEHOLDER, StepReport, changed_all_the_time, fill_in};
use crate::kubernetes::{Cluster, Collection, ENDPOINT_SLICES, ENDPOINTS, Error, ErrorKind, Rule, SERVICES, Verb};
use crate::lock::{SlotCount, check_label};
use crate::process::clock;
use crate::telemetry::log::printable;

/// The label that assigns a slice to a Service.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// A Service, and the leader's endpoints for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub name: ServiceName,
    /// The ports that are served. If there are none, all ports of the Service are served.
    pub ports: Vec<ServicePort>,
    /// This candidate's address. The default is the address from which it reaches the API server.
    pub address: Option<IpAddr>,
}

/// The name of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceName(String);

impl FromStr for ServiceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        check_label(&fill_in(text, SlotCount::HIGHEST))
            .map_err(|reason| format!("the name {reason}; for example my-service"))?;
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ServiceName {
    /// Returns whether the name contains the placeholder for the number of the slot.
    pub fn has_slot(&self) -> bool {
        self.0.contains(SLOT_PLACEHOLDER)
    }

    /// Returns the name of the Service for the slot of that number.
    pub fn in_slot(&self, slot: usize) -> Self {
        Self(fill_in(&self.0, slot))
    }

    /// Returns the name of the EndpointSlice. All candidates write the same one, so it never has two leaders.
    fn slice(&self) -> String {
        format!("{}-leader", self.0)
    }

    /// Returns the permissions that a candidate needs to route the Service to itself.
    pub fn rules(&self, namespace: &str) -> Vec<Rule> {
        vec![
            ENDPOINT_SLICES.rule(namespace, Some(self.slice()), &[Verb::Get, Verb::Update]),
            ENDPOINT_SLICES.rule(namespace, None, &[Verb::Create]),
        ]
    }

    /// Returns the permissions by which a candidate checks that the Service leads to it, and nowhere else.
    pub fn checking_rules(&self, namespace: &str) -> Vec<Rule> {
        vec![
            SERVICES.rule(namespace, Some(self.0.clone()), &[Verb::Get]),
            ENDPOINTS.rule(namespace, Some(self.0.clone()), &[Verb::Get]),
        ]
    }
}

/// The objects of a namespace that a Service and its endpoints consist of.
pub struct ServiceObjects {
    services: Collection,
    slices: Collection,
    endpoints: Collection,
    namespace: String,
}

impl ServiceObjects {
    /// Creates the collections of a namespace. `timeout` is that of each request.
    pub fn new(cluster: &Cluster, namespace: &str, timeout: Duration) -> Self {
        let collection = |resource| Collection::new(cluster, resource, namespace).with_timeout(timeout);
        Self {
            services: collection(&SERVICES),
            slices: collection(&ENDPOINT_SLICES),
            endpoints: collection(&ENDPOINTS),
            namespace: namespace.to_owned(),
        }
    }
}

/// The contents of the slice, and what is known about the Service.
struct Route {
    ports: Vec<SlicePort>,
    /// The definition of the Service, or the reason why it could not be read.
    definition: Result<ServiceDefinition, Error>,
}

impl Service {
    /// Returns this candidate's address: the configured one, or the one from which it reaches the API server at this
    /// host and port.
    ///
    /// # Errors
    /// Fails if there is no route to the API server, or the address is one that others cannot reach.
    pub fn address(&self, (host, port): &(String, u16)) -> Result<IpAddr, Error> {
        if let Some(address) = self.address {
            return Ok(address);
        }
        let route = || -> io::Result<SocketAddr> {
            let server = (host.as_str(), *port).to_socket_addrs()?.next().ok_or(io::ErrorKind::AddrNotAvailable)?;
            let any: IpAddr = if server.is_ipv6() { [0; 16].into() } else { [0; 4].into() };
            let socket = UdpSocket::bind((any, 0))?;
            // This sends nothing. The kernel only selects the local address.
            socket.connect(server)?;
            socket.local_addr()
        };
        let found = match route() {
            Ok(local) if is_reachable(&local.ip()) => return Ok(local.ip()),
            Ok(local) => format!("nobody else reaches this candidate at {}", local.ip()),
            Err(failure) => format!("found no route to the API server: {failure}"),
        };
        Err(Error::unknown(format!("{found}; --address says where it answers")))
    }

    /// Makes this candidate the only endpoint. Nothing is sent after `until`. Nothing is written if it is the only
    /// endpoint already, unless `rewrite` is set.
    ///
    /// # Errors
    /// Fails if the slice cannot be written, or the Service would not lead here nevertheless.
    pub async fn route_here(
        &self,
        objects: &ServiceObjects,
        address: IpAddr,
        mark: &Mark,
        until: Instant,
        rewrite: bool,
    ) -> Result<StepReport, Error> {
        let name = self.name.slice();
        let (route, mut present) = join(self.route(objects, address), objects.slices.get(&name)).await;
        let route = match route {
            Ok(route) => route,
            Err(error) => return self.remove_predecessor(objects, mark).await.and(Err(error)),
        };
        for _ in 0..MAX_TRIES {
            let slice = present?.unwrap_or_else(|| self.new_slice(address));
            let leads_here = |slice: &Value| leads_to(slice, address) && slice["ports"] == slice_ports(&route.ports);
            if !rewrite && mark_of(&slice, mark).as_ref() == Some(mark) && leads_here(&slice) {
                let left_over = self.left_over(objects).await;
                return Ok(self.report(objects, route, address, false).with_warnings(left_over));
            }
            if slice["addressType"] != family(address) {
                self.remove_predecessor(objects, mark).await?;
                let family = printable(&slice["addressType"].to_string());
                let reason = format!("the EndpointSlice {name} is for {family} addresses, and {address} is none");
                return Err(Error::unknown(format!("{reason}; --address says another one")));
            }
            if clock::now() >= until {
                return Err(Error::unknown("no time was left to lead the Service here"));
            }
            let ports = slice_ports(&route.ports);
            match self.write(&objects.slices, slice, endpoint(address), Some(ports), mark).await {
                Err(error) if is_outdated(&error) => present = objects.slices.get(&name).await,
                Err(error) => return Err(error),
                Ok(stored) if leads_here(&stored) => return Ok(self.report(objects, route, address, true)),
                Ok(_) => {
                    let reason = format!("the API server stored the EndpointSlice {name} with other endpoints");
                    return Err(Error::unknown(format!("{reason}; look for an admission webhook that changes it")));
                }
            }
        }
        Err(changed_all_the_time())
    }

    /// Determines the contents of the slice with which the Service leads to this address.
    async fn route(&self, objects: &ServiceObjects, address: IpAddr) -> Result<Route, Error> {
        let ServiceObjects { services, namespace, .. } = objects;
        let refused = |reason: String| Error::new(ErrorKind::Refused, reason);
        let definition = match services.get(&self.name.0).await {
            Ok(Some(service)) => ServiceDefinition::new(namespace, &self.name.0, &service),
            Ok(None) => {
                let reason = format!("there is no Service {namespace}/{}", self.name);
                return Err(refused(format!("{reason}; create it without a selector, or name another by --service")));
            }
            Err(error) if error.kind == ErrorKind::Forbidden => {
                let ports = unchecked_ports(&self.ports).map_err(|reason| refused(format!("{error}; {reason}")))?;
                return Ok(Route { ports, definition: Err(error) });
            }
            Err(error) => return Err(error),
        };
        definition.check().and_then(|()| definition.check_family(family(address))).map_err(refused)?;
        let ports = definition.slice_ports(&self.ports).map_err(refused)?;
        Ok(Route { ports, definition: Ok(definition) })
    }

    /// Reports what is known to lead here now.
    fn report(&self, objects: &ServiceObjects, route: Route, address: IpAddr, written: bool) -> StepReport {
        let Route { ports, definition } = route;
        let definition = match definition {
            Ok(definition) => definition,
            Err(error) => {
                let (slice, service, namespace) = (self.name.slice(), &self.name, &objects.namespace);
                let sentence = format!("the EndpointSlice {slice} leads here");
                let warning = format!(
                    "it was not checked whether the Service {namespace}/{service} exists, has no selector and has these \
                     ports: {error}; leaderrun manifest with --service {service} prints the right"
                );
                return StepReport { written, sentence: Some(sentence), warnings: vec![warning] };
            }
        };
        let unserved = definition.unserved_ports(&ports);
        let but =
            if unserved.is_empty() { String::new() } else { format!(", but for its ports {}", unserved.join(", ")) };
        let sentence = format!("the Service {} leads here{but}", self.name);
        let warnings = definition.unserved_family(family(address)).into_iter().collect();
        StepReport { written, sentence: Some(sentence), warnings }
    }

    /// Returns a sentence if the Service also leads elsewhere: the endpoints that its controller created for a selector
    /// remain when the selector is removed. Returns `None` without the permission to read them.
    async fn left_over(&self, objects: &ServiceObjects) -> Option<String> {
        let ServiceObjects { slices, endpoints, namespace, .. } = objects;
        let (service, ours) = (&self.name.0, self.name.slice());
        let slices = slices.labelled(&format!("{SERVICE_LABEL}%3D{service}")).await.unwrap_or_default();
        let name = |slice: &Value| printable(slice["metadata"]["name"].as_str().unwrap_or_default());
        let has_endpoints = |slice: &&Value| slice["endpoints"].as_array().is_some_and(|all| !all.is_empty());
        let others: Vec<String> = slices.iter().filter(has_endpoints).map(name).filter(|name| *name != ours).collect();
        let endpoints = endpoints.get(service).await.ok().flatten().unwrap_or_default();
        let is_left = endpoints["subsets"].as_array().is_some_and(|subsets| !subsets.is_empty());
        let mut remedies = Vec::new();
        if is_left {
            remedies.push(format!("kubectl delete endpoints {service} -n {namespace}"));
        }
        if !others.is_empty() {
            remedies.push(format!("kubectl delete endpointslices {} -n {namespace}", others.join(" ")));
        }
        if remedies.is_empty() {
            return None;
        }
        Some(format!(
            "the Service {namespace}/{service} also leads to endpoints that are not the leader's, such as those left from \
             a selector that it once had; delete them: {}",
            remedies.join(" && ")
        ))
    }

    /// Removes the endpoint of a predecessor, which is dead, if this candidate cannot be an endpoint.
    pub async fn remove_predecessor(&self, objects: &ServiceObjects, mark: &Mark) -> Result<(), Error> {
        match objects.slices.get(&self.name.slice()).await? {
            Some(slice) if slice["endpoints"].as_array().is_some_and(|endpoints| !endpoints.is_empty()) => {
                self.withdraw(objects, None, mark).await.map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Removes this candidate's endpoint after the leadership of this mark, so that pending writes of that leadership
    /// have no effect. Endpoints of a later leadership are kept. Without an `address` the candidate was never an
    /// endpoint. Returns whether it was one.
    pub async fn withdraw(
        &self,
        objects: &ServiceObjects,
        address: Option<IpAddr>,
        mark: &Mark,
    ) -> Result<bool, Error> {
        for _ in 0..MAX_TRIES {
            let present = objects.slices.get(&self.name.slice()).await?;
            let Some(slice) = present.or_else(|| address.map(|address| self.new_slice(address))) else {
                return Ok(false);
            };
            if mark_of(&slice, mark).is_some_and(|other| other.is_later_than(mark)) {
                return Ok(false);
            }
            let was_in = address.is_some_and(|address| leads_to(&slice, address));
            match self.write(&objects.slices, slice, json!([]), None, mark).await {
                Err(error) if is_outdated(&error) => {}
                result => return result.map(|_| was_in),
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

    /// Creates the slice, or replaces it if it has the same version, and returns it as it is stored. Without `ports` it
    /// keeps its ports.
    async fn write(
        &self,
        slices: &Collection,
        mut slice: Value,
        endpoints: Value,
        ports: Option<Value>,
        mark: &Mark,
    ) -> Result<Value, Error> {
        let is_new = slice["metadata"]["resourceVersion"].is_null();
        slice["metadata"]["labels"][SERVICE_LABEL] = self.name.0.as_str().into();
        slice["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] = "leaderrun".into();
        slice["metadata"]["annotations"][mark.key()] = mark.stamp().into();
        slice["endpoints"] = endpoints;
        if let Some(ports) = ports {
            slice["ports"] = ports;
        }
        let name = self.name.slice();
        if is_new { slices.create(&name, &slice).await } else { slices.replace(&name, &slice).await }
    }
}

fn leads_to(slice: &Value, address: IpAddr) -> bool {
    slice["endpoints"] == endpoint(address)
}

fn slice_ports(ports: &[SlicePort]) -> Value {
    ports.iter().map(SlicePort::to_json).collect()
}

/// Returns whether the API server accepts the address for an endpoint: whether others can reach it, as far as the
/// address itself shows.
pub fn is_reachable(address: &IpAddr) -> bool {
    let is_near = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local() || address.to_ipv4_mapped().is_some(),
    };
    !is_near && !address.is_loopback() && !address.is_unspecified() && !address.is_multicast()
}

/// Returns whether the slice has changed or was deleted since it was read.
fn is_outdated(error: &Error) -> bool {
    matches!(error.kind, ErrorKind::Conflict | ErrorKind::NotFound)
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv6() { "IPv6" } else { "IPv4" }
}

fn endpoint(address: IpAddr) -> Value {
    json!([{ "addresses": [address.to_string()], "conditions": { "ready": true } }])
}

/// Returns the mark of the same lock on a slice.
fn mark_of(slice: &Value, mark: &Mark) -> Option<Mark> {
    mark.of_same_lock(&slice["metadata"]["annotations"])
}
