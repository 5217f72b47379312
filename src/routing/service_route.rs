//! Determines how a Service routes to a leader: the leader's addresses, the EndpointSlices for them, and what the
//! definition of the Service requires. Nothing is written here.

use std::io;
use std::net::{IpAddr, ToSocketAddrs, UdpSocket};
use std::time::Duration;

use serde_json::Value;
use tokio::task::spawn_blocking;

use super::service_definition::{PortOption, ServiceDefinition, SlicePort, unchecked_ports};
use super::service_name::ServiceName;
use crate::kubernetes::{Cluster, Collection, ENDPOINT_SLICES, ENDPOINTS, Error, ErrorKind, SERVICES};
use crate::telemetry::log::printable;

/// The label that assigns a slice to a Service.
pub const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// The Service in `--service`, and the ports and addresses with which the leader serves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub name: ServiceName,
    /// The ports in `--port`. If there are none, all ports of the Service are served.
    pub ports: Vec<PortOption>,
    /// The addresses in `--address`, at most one of each family. If there are none, the leader uses the address from
    /// which it reaches the API server.
    pub addresses: Vec<IpAddr>,
}

/// Access to the objects of a Service and its endpoints in one namespace.
pub struct ServiceObjects {
    services: Collection,
    pub(super) slices: Collection,
    endpoints: Collection,
    namespace: String,
}

impl ServiceObjects {
    /// Provides access to the objects in a namespace. `timeout` is the timeout of each request.
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

/// One of this candidate's addresses, and the name of the slice for its family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEndpoint {
    pub slice: String,
    pub address: IpAddr,
}

/// The contents that the slices must have, and the definition of the Service.
pub struct ServiceRoute {
    pub endpoints: Vec<SliceEndpoint>,
    pub ports: Vec<SlicePort>,
    /// Whether the Service has both IP families, so that it needs two slices. If the Service could not be read, it is
    /// assumed to have the families of the addresses.
    pub is_dual_stack: bool,
    /// The definition of the Service, or the reason why it could not be read.
    definition: Result<ServiceDefinition, Error>,
}

/// A description of a route, for messages.
pub struct RouteReport {
    /// The object that routes to the leader: the Service, or its slices if the Service could not be read.
    pub subject: String,
    /// A suffix for the message about the route that names the ports that are not served, such as `, but not on its
    /// port dns`. It is empty if all ports are served, or if the Service could not be read.
    pub unserved_ports_suffix: String,
    pub warnings: Vec<String>,
}

impl ServiceRoute {
    /// Returns whether the Service could be read, so that this route is known to work.
    pub fn is_checked(&self) -> bool {
        self.definition.is_ok()
    }
}

impl Service {
    /// Returns this candidate's addresses: the configured addresses, or the address from which it reaches the API
    /// server.
    ///
    /// # Errors
    /// Fails if the address cannot be determined, or if other machines cannot reach it.
    pub async fn addresses(&self, cluster: &Cluster) -> Result<Vec<IpAddr>, Error> {
        if !self.addresses.is_empty() {
            return Ok(self.addresses.clone());
        }
        let server = cluster.host_and_port();
        let reason =
            match spawn_blocking(move || local_address(&server)).await.unwrap_or_else(|failure| Err(failure.into())) {
                Ok(local) if is_reachable(&local) => return Ok(vec![local]),
                Ok(local) => format!("other machines cannot reach this candidate at {local}"),
                Err(failure) => format!("found no route to the API server: {failure}"),
            };
        Err(Error::unknown(format!("{reason}; set --address to this candidate's address")))
    }

    /// Determines the contents that the slices must have for the Service to route to these addresses. Without
    /// addresses, only the definition of the Service is checked.
    ///
    /// # Errors
    /// Fails if the Service cannot route to any of these addresses, or if reading it fails for a reason other than a
    /// missing permission. Without that permission, fails if `--port` is not set.
    pub async fn route(&self, objects: &ServiceObjects, addresses: &[IpAddr]) -> Result<ServiceRoute, Error> {
        let ServiceObjects { services, namespace, .. } = objects;
        let refused = |reason: String| Error::new(ErrorKind::Refused, reason);
        let definition = match services.get(self.name.as_str()).await {
            Ok(Some(service)) => ServiceDefinition::new(namespace, self.name.as_str(), &service),
            Ok(None) => {
                let reason = format!("there is no Service {namespace}/{}", self.name);
                return Err(refused(format!(
                    "{reason}; create it without a selector, or set --service to an existing Service"
                )));
            }
            Err(error) if error.kind == ErrorKind::Forbidden => {
                let ports = unchecked_ports(&self.ports).map_err(|reason| refused(format!("{error}; {reason}")))?;
                let is_dual_stack = addresses.len() > 1;
                let endpoints = self.endpoints(addresses, is_dual_stack);
                return Ok(ServiceRoute { endpoints, ports, is_dual_stack, definition: Err(error) });
            }
            Err(error) => return Err(error),
        };
        definition.check().map_err(refused)?;
        let serving: Vec<IpAddr> =
            addresses.iter().copied().filter(|address| definition.has_family(family(*address))).collect();
        if serving.is_empty() && !addresses.is_empty() {
            let families: Vec<&str> = addresses.iter().map(|address| family(*address)).collect();
            return Err(refused(definition.family_mismatch(&families.join(" and "))));
        }
        let ports = definition.slice_ports(&self.ports).map_err(refused)?;
        let is_dual_stack = definition.is_dual_stack();
        Ok(ServiceRoute {
            endpoints: self.endpoints(&serving, is_dual_stack),
            ports,
            is_dual_stack,
            definition: Ok(definition),
        })
    }

    /// Returns these addresses, each with the name of its slice.
    fn endpoints(&self, addresses: &[IpAddr], is_dual_stack: bool) -> Vec<SliceEndpoint> {
        let slice = |address: &IpAddr| {
            if is_dual_stack && address.is_ipv6() { self.name.ipv6_slice() } else { self.name.slice() }
        };
        addresses.iter().map(|address| SliceEndpoint { slice: slice(address), address: *address }).collect()
    }

    /// Describes a route for messages.
    pub fn report(&self, objects: &ServiceObjects, route: &ServiceRoute) -> RouteReport {
        let ServiceRoute { endpoints, ports, definition, .. } = route;
        let definition = match definition {
            Ok(definition) => definition,
            Err(error) => {
                let (service, namespace) = (&self.name, &objects.namespace);
                let slices: Vec<&str> = endpoints.iter().map(|endpoint| endpoint.slice.as_str()).collect();
                let warning = format!(
                    "cannot check whether the Service {namespace}/{service} exists, has no selector and has the ports \
                     that --port names: {error}; to get a Role that allows this check, run leaderrun manifest with \
                     --service {service}"
                );
                let subject = match &slices[..] {
                    [slice] => format!("the EndpointSlice {slice}"),
                    slices => format!("each of the EndpointSlices {}", slices.join(" and ")),
                };
                return RouteReport { subject, unserved_ports_suffix: String::new(), warnings: vec![warning] };
            }
        };
        let unserved = definition.unserved_ports(ports);
        let unserved_ports_suffix = match &unserved[..] {
            [] => String::new(),
            [port] => format!(", but not on its port {port}"),
            ports => format!(", but not on its ports {}", ports.join(", ")),
        };
        let families: Vec<&str> = endpoints.iter().map(|endpoint| family(endpoint.address)).collect();
        let warnings = definition.unserved_family(&families).into_iter().collect();
        RouteReport { subject: format!("the Service {}", self.name), unserved_ports_suffix, warnings }
    }

    /// Returns a warning if the Service also routes to endpoints that are not the leader's. Such endpoints remain when
    /// the selector of a Service is removed. Endpoints that cannot be read are ignored.
    pub async fn leftover_warning(&self, objects: &ServiceObjects) -> Option<String> {
        let ServiceObjects { slices, endpoints, namespace, .. } = objects;
        let (service, own_slices) = (self.name.as_str(), self.name.slices());
        let slices = slices.list_matching(&format!("{SERVICE_LABEL}%3D{service}")).await.unwrap_or_default();
        let name = |slice: &Value| printable(slice["metadata"]["name"].as_str().unwrap_or_default());
        let has_endpoints = |slice: &&Value| slice["endpoints"].as_array().is_some_and(|all| !all.is_empty());
        let other_slices: Vec<String> =
            slices.iter().filter(has_endpoints).map(name).filter(|name| !own_slices.contains(name)).collect();
        let endpoints = endpoints.get(service).await.ok().flatten().unwrap_or_default();
        let has_endpoints_left = endpoints["subsets"].as_array().is_some_and(|subsets| !subsets.is_empty());
        let mut remedies = Vec::new();
        if has_endpoints_left {
            remedies.push(format!("kubectl delete endpoints {service} -n {namespace}"));
        }
        if !other_slices.is_empty() {
            remedies.push(format!("kubectl delete endpointslices {} -n {namespace}", other_slices.join(" ")));
        }
        if remedies.is_empty() {
            return None;
        }
        Some(format!(
            "the Service {namespace}/{service} also routes to endpoints that are not the leader's, for example because it \
             once had a selector; delete them: {}",
            remedies.join(" && ")
        ))
    }
}

/// Returns the address from which this machine reaches a host and port.
fn local_address((host, port): &(String, u16)) -> io::Result<IpAddr> {
    let server = (host.as_str(), *port).to_socket_addrs()?.next().ok_or(io::ErrorKind::AddrNotAvailable)?;
    let any: IpAddr = if server.is_ipv6() { [0; 16].into() } else { [0; 4].into() };
    let socket = UdpSocket::bind((any, 0))?;
    // This sends nothing. The kernel only selects the local address.
    socket.connect(server)?;
    Ok(socket.local_addr()?.ip())
}

/// Returns whether this is a kind of address that other machines can reach. The API server refuses endpoints with most
/// other kinds of addresses.
pub fn is_reachable(address: &IpAddr) -> bool {
    let (is_link_local, is_ipv4_mapped) = match address {
        IpAddr::V4(address) => (address.is_link_local(), false),
        IpAddr::V6(address) => (address.is_unicast_link_local(), address.to_ipv4_mapped().is_some()),
    };
    !is_link_local && !is_ipv4_mapped && !address.is_loopback() && !address.is_unspecified() && !address.is_multicast()
}

/// Returns the IP family of an address, as it is written in Services and slices.
pub fn family(address: IpAddr) -> &'static str {
    if address.is_ipv6() { "IPv6" } else { "IPv4" }
}
