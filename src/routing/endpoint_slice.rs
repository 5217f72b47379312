//! The endpoints of a Service without a selector: the leader's address, or none.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::Mutex;
use std::time::Duration;

use futures_util::future::{join, try_join_all};
use leaderrun_core::instant::Instant;
use serde_json::{Value, json};

use super::mark::Mark;
use super::service_definition::{ServiceDefinition, ServicePort, SlicePort, unchecked_ports};
use super::service_name::ServiceName;
use super::{MAX_TRIES, StepReport, changed_all_the_time};
use crate::kubernetes::{Cluster, Collection, ENDPOINT_SLICES, ENDPOINTS, Error, ErrorKind, SERVICES};
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
    /// This candidate's addresses, at most one of each family. The default is the address from which it reaches the API
    /// server.
    pub addresses: Vec<IpAddr>,
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

/// One of this candidate's addresses, and the slice for its family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    slice: String,
    address: IpAddr,
}

/// The contents of the slices, and what is known about the Service.
struct Route {
    places: Vec<Place>,
    ports: Vec<SlicePort>,
    /// The definition of the Service, or the reason why it could not be read.
    definition: Result<ServiceDefinition, Error>,
}

impl Service {
    /// Returns this candidate's addresses: the configured ones, or the one from which it reaches the API server at this
    /// host and port.
    ///
    /// # Errors
    /// Fails if there is no route to the API server, or the address is one that others cannot reach.
    pub fn addresses(&self, (host, port): &(String, u16)) -> Result<Vec<IpAddr>, Error> {
        if !self.addresses.is_empty() {
            return Ok(self.addresses.clone());
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
            Ok(local) if is_reachable(&local.ip()) => return Ok(vec![local.ip()]),
            Ok(local) => format!("nobody else reaches this candidate at {}", local.ip()),
            Err(failure) => format!("found no route to the API server: {failure}"),
        };
        Err(Error::unknown(format!("{found}; --address says where it answers")))
    }

    /// Makes this candidate the only endpoint. Nothing is sent after `until`. Nothing is written if it is the only
    /// endpoint already, unless `rewrite` is set. `places` gets the slices before they are written.
    ///
    /// # Errors
    /// Fails if the slice cannot be written, or the Service would not lead here nevertheless.
    pub async fn route_here(
        &self,
        objects: &ServiceObjects,
        addresses: &[IpAddr],
        mark: &Mark,
        (until, rewrite): (Instant, bool),
        places: &Mutex<Vec<Place>>,
    ) -> Result<StepReport, Error> {
        let (route, first) = join(self.route(objects, addresses), objects.slices.get(&self.name.slice())).await;
        let route = match route {
            Ok(route) => route,
            Err(error) => return self.remove_predecessor(objects, mark).await.and(Err(error)),
        };
        places.lock().expect("nothing panics while it is held").clone_from(&route.places);
        let (mut is_written, mut first) = (false, Some(first));
        for place in &route.places {
            let present = match first.take_if(|_| place.slice == self.name.slice()) {
                Some(present) => present,
                None => objects.slices.get(&place.slice).await,
            };
            is_written |= self.put_in(objects, place, &route.ports, present, mark, (until, rewrite)).await?;
        }
        if route.definition.as_ref().is_ok_and(ServiceDefinition::is_dual) {
            for slice in self.name.slices() {
                if !route.places.iter().any(|place| place.slice == slice) {
                    self.remove_predecessor_from(objects, &slice, mark).await?;
                }
            }
        }
        let left_over = if is_written { None } else { self.left_over(objects).await };
        Ok(self.report(objects, route, is_written).with_warnings(left_over))
    }

    /// Writes an address into its slice, which was read as `present`. Returns whether anything was written.
    async fn put_in(
        &self,
        objects: &ServiceObjects,
        Place { slice: name, address }: &Place,
        ports: &[SlicePort],
        mut present: Result<Option<Value>, Error>,
        mark: &Mark,
        (until, rewrite): (Instant, bool),
    ) -> Result<bool, Error> {
        for _ in 0..MAX_TRIES {
            let slice = present?.unwrap_or_else(|| new_slice(name, *address));
            let leads_here = |slice: &Value| leads_to(slice, *address) && slice["ports"] == slice_ports(ports);
            if !rewrite && mark_of(&slice, mark).as_ref() == Some(mark) && leads_here(&slice) {
                return Ok(false);
            }
            if slice["addressType"] != family(*address) {
                self.remove_predecessor(objects, mark).await?;
                let family = printable(&slice["addressType"].to_string());
                let reason = format!("the EndpointSlice {name} is for {family} addresses, and {address} is none");
                return Err(Error::unknown(format!("{reason}; --address says another one, or delete the slice")));
            }
            if clock::now() >= until {
                return Err(Error::unknown("no time was left to lead the Service here"));
            }
            let ports = slice_ports(ports);
            match self.write(&objects.slices, slice, endpoint(*address), Some(ports), mark).await {
                Err(error) if is_outdated(&error) => present = objects.slices.get(name).await,
                Err(error) => return Err(error),
                Ok(stored) if leads_here(&stored) => return Ok(true),
                Ok(_) => {
                    let reason = format!("the API server stored the EndpointSlice {name} with other endpoints");
                    return Err(Error::unknown(format!("{reason}; look for an admission webhook that changes it")));
                }
            }
        }
        Err(changed_all_the_time())
    }

    /// Determines the contents of the slices with which the Service leads to these addresses.
    async fn route(&self, objects: &ServiceObjects, addresses: &[IpAddr]) -> Result<Route, Error> {
        let ServiceObjects { services, namespace, .. } = objects;
        let refused = |reason: String| Error::new(ErrorKind::Refused, reason);
        let definition = match services.get(self.name.as_str()).await {
            Ok(Some(service)) => ServiceDefinition::new(namespace, self.name.as_str(), &service),
            Ok(None) => {
                let reason = format!("there is no Service {namespace}/{}", self.name);
                return Err(refused(format!("{reason}; create it without a selector, or name another by --service")));
            }
            Err(error) if error.kind == ErrorKind::Forbidden => {
                let ports = unchecked_ports(&self.ports).map_err(|reason| refused(format!("{error}; {reason}")))?;
                let places = self.places(addresses, addresses.len() > 1);
                return Ok(Route { places, ports, definition: Err(error) });
            }
            Err(error) => return Err(error),
        };
        definition.check().map_err(refused)?;
        let serving: Vec<IpAddr> =
            addresses.iter().copied().filter(|address| definition.has_family(family(*address))).collect();
        if serving.is_empty() {
            let families: Vec<&str> = addresses.iter().map(|address| family(*address)).collect();
            return Err(refused(definition.no_family(&families.join(" and "))));
        }
        let ports = definition.slice_ports(&self.ports).map_err(refused)?;
        Ok(Route { places: self.places(&serving, definition.is_dual()), ports, definition: Ok(definition) })
    }

    /// Returns the slice for each of these addresses.
    fn places(&self, addresses: &[IpAddr], is_dual: bool) -> Vec<Place> {
        let slice = |address: &IpAddr| {
            if is_dual && address.is_ipv6() { self.name.second_slice() } else { self.name.slice() }
        };
        addresses.iter().map(|address| Place { slice: slice(address), address: *address }).collect()
    }

    /// Reports what is known to lead here now.
    fn report(&self, objects: &ServiceObjects, route: Route, written: bool) -> StepReport {
        let Route { places, ports, definition } = route;
        let definition = match definition {
            Ok(definition) => definition,
            Err(error) => {
                let (service, namespace) = (&self.name, &objects.namespace);
                let slices: Vec<&str> = places.iter().map(|place| place.slice.as_str()).collect();
                let slices = slices.join(" and ");
                let sentence = format!("the EndpointSlice {slices} leads here");
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
        let families: Vec<&str> = places.iter().map(|place| family(place.address)).collect();
        let warnings = definition.unserved_family(&families).into_iter().collect();
        StepReport { written, sentence: Some(sentence), warnings }
    }

    /// Returns a sentence if the Service also leads elsewhere: the endpoints that its controller created for a selector
    /// remain when the selector is removed. Returns `None` without the permission to read them.
    async fn left_over(&self, objects: &ServiceObjects) -> Option<String> {
        let ServiceObjects { slices, endpoints, namespace, .. } = objects;
        let (service, ours) = (self.name.as_str(), self.name.slices());
        let slices = slices.labelled(&format!("{SERVICE_LABEL}%3D{service}")).await.unwrap_or_default();
        let name = |slice: &Value| printable(slice["metadata"]["name"].as_str().unwrap_or_default());
        let has_endpoints = |slice: &&Value| slice["endpoints"].as_array().is_some_and(|all| !all.is_empty());
        let others: Vec<String> =
            slices.iter().filter(has_endpoints).map(name).filter(|name| !ours.contains(name)).collect();
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
        let [slice, second] = self.name.slices();
        self.remove_predecessor_from(objects, &slice, mark).await?;
        self.remove_predecessor_from(objects, &second, mark).await
    }

    async fn remove_predecessor_from(&self, objects: &ServiceObjects, slice: &str, mark: &Mark) -> Result<(), Error> {
        match objects.slices.get(slice).await {
            Ok(Some(present)) if present["endpoints"].as_array().is_some_and(|endpoints| !endpoints.is_empty()) => {
                self.withdraw_from(objects, slice, None, mark).await.map(drop)
            }
            // A candidate without the permission to read the second slice has not written it.
            Err(error) if error.kind == ErrorKind::Forbidden && slice == self.name.second_slice() => Ok(()),
            present => present.map(drop),
        }
    }

    /// Removes this candidate's endpoints after the leadership of this mark, so that pending writes of that leadership
    /// have no effect. Endpoints of a later leadership are kept. Without `places` the candidate was never an endpoint.
    /// Returns whether it was one.
    pub async fn withdraw(&self, objects: &ServiceObjects, places: &[Place], mark: &Mark) -> Result<bool, Error> {
        if places.is_empty() {
            return self.withdraw_from(objects, &self.name.slice(), None, mark).await;
        }
        let each = places.iter().map(|Place { slice, address }| {
            let address = Some(*address);
            async move { self.withdraw_from(objects, slice, address, mark).await }
        });
        Ok(try_join_all(each).await?.contains(&true))
    }

    async fn withdraw_from(
        &self,
        objects: &ServiceObjects,
        name: &str,
        address: Option<IpAddr>,
        mark: &Mark,
    ) -> Result<bool, Error> {
        for _ in 0..MAX_TRIES {
            let present = objects.slices.get(name).await?;
            let Some(slice) = present.or_else(|| address.map(|address| new_slice(name, address))) else {
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
        slice["metadata"]["labels"][SERVICE_LABEL] = self.name.as_str().into();
        slice["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] = "leaderrun".into();
        slice["metadata"]["annotations"][mark.key()] = mark.stamp().into();
        slice["endpoints"] = endpoints;
        if let Some(ports) = ports {
            slice["ports"] = ports;
        }
        let name = slice["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if is_new { slices.create(&name, &slice).await } else { slices.replace(&name, &slice).await }
    }
}

fn new_slice(name: &str, address: IpAddr) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": { "name": name },
        "addressType": family(address),
    })
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
