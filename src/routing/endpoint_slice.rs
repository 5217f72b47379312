//! Writes the EndpointSlices of a Service without a selector. The only endpoint is the leader.

use std::net::IpAddr;
use std::sync::Mutex;

use futures_util::future::{join, try_join_all};
use leaderrun_core::instant::Instant;
use serde_json::{Value, json};

use super::mark::RouteMark;
use super::service_definition::SlicePort;
use super::service_route::{RouteReport, SERVICE_LABEL, Service, ServiceObjects, SliceEndpoint, family};
use super::{MAX_TRIES, StepReport, too_many_conflicts};
use crate::kubernetes::{Collection, Error, ErrorKind};
use crate::process::clock;
use crate::telemetry::log::printable;

/// The parameters of a step that routes a Service to this candidate.
pub struct RouteRequest {
    pub mark: RouteMark,
    /// No address is written after this instant.
    pub until: Instant,
    /// Whether to write the slices even if this candidate is already the only endpoint.
    pub rewrite: bool,
}

impl Service {
    /// Makes this candidate the only endpoint of the Service. The endpoints are stored in `endpoints` before they are
    /// written, so that a withdrawal also covers those whose write is pending.
    ///
    /// # Errors
    /// Fails if the Service cannot route to this candidate, in which case the endpoints of earlier leaders are removed,
    /// or if a slice cannot be read, cannot be written in time, or is stored with other contents.
    pub async fn route_here(
        &self,
        objects: &ServiceObjects,
        addresses: &[IpAddr],
        request: &RouteRequest,
        endpoints: &Mutex<Vec<SliceEndpoint>>,
    ) -> Result<StepReport, Error> {
        let mark = &request.mark;
        // The first slice is read at the same time as the Service, so that traffic follows the leader sooner.
        let (route, first) = join(self.route(objects, addresses), objects.slices.get(&self.name.slice())).await;
        let route = match route {
            Ok(route) => route,
            Err(error) => return self.remove_predecessor(objects, mark).await.and(Err(error)),
        };
        endpoints.lock().expect("no thread panics while it holds this lock").clone_from(&route.endpoints);
        let (mut is_written, mut first) = (false, Some(first));
        for endpoint in &route.endpoints {
            let found = match first.take_if(|_| endpoint.slice == self.name.slice()) {
                Some(found) => found,
                None => objects.slices.get(&endpoint.slice).await,
            };
            is_written |= self.write_endpoint(objects, endpoint, &route.ports, found, request).await?;
        }
        if route.is_dual_stack {
            // This candidate may have no address for one of the slices, which must not keep that of an earlier leader.
            for slice in self.name.slices() {
                if !route.endpoints.iter().any(|endpoint| endpoint.slice == slice) {
                    self.remove_predecessor_from(objects, &slice, mark).await?;
                }
            }
        }
        let warning = if is_written { None } else { self.leftover_warning(objects).await };
        let RouteReport { subject, unserved_ports_suffix, warnings } = self.report(objects, &route);
        let sentence = Some(format!("{subject} routes to this candidate{unserved_ports_suffix}"));
        Ok(StepReport { written: is_written, sentence, warnings }.with_warnings(warning))
    }

    /// Writes an address into its slice, unless the slice is already right. `found` is the slice as it was read.
    /// Returns whether anything was written.
    async fn write_endpoint(
        &self,
        objects: &ServiceObjects,
        SliceEndpoint { slice: name, address }: &SliceEndpoint,
        ports: &[SlicePort],
        mut found: Result<Option<Value>, Error>,
        RouteRequest { mark, until, rewrite }: &RouteRequest,
    ) -> Result<bool, Error> {
        for _ in 0..MAX_TRIES {
            let slice = found?.unwrap_or_else(|| new_slice(name, *address));
            let routes_here = |slice: &Value| routes_to(slice, *address) && slice["ports"] == slice_ports(ports);
            if !*rewrite && mark_on(&slice, mark).as_ref() == Some(mark) && routes_here(&slice) {
                return Ok(false);
            }
            if slice["addressType"] != family(*address) {
                self.remove_predecessor(objects, mark).await?;
                let family = printable(&slice["addressType"].to_string());
                let reason = format!("the EndpointSlice {name} is for {family} addresses, but {address} is not one");
                return Err(Error::unknown(format!(
                    "{reason}; set --address to an address of that family, or delete the slice"
                )));
            }
            if clock::now() >= *until {
                return Err(Error::unknown("no time was left to route the Service to this candidate"));
            }
            let ports = slice_ports(ports);
            match self.write(&objects.slices, slice, only_endpoint(*address), Some(ports), mark).await {
                Err(error) if is_outdated(&error) => found = objects.slices.get(name).await,
                Err(error) => return Err(error),
                Ok(stored) if routes_here(&stored) => return Ok(true),
                Ok(_) => {
                    let reason =
                        format!("the API server stored the EndpointSlice {name} with other endpoints or ports");
                    return Err(Error::unknown(format!("{reason}; look for an admission webhook that changes slices")));
                }
            }
        }
        Err(too_many_conflicts())
    }

    /// Removes the endpoints of earlier leaders. This is done if this candidate cannot become an endpoint.
    pub async fn remove_predecessor(&self, objects: &ServiceObjects, mark: &RouteMark) -> Result<(), Error> {
        let [slice, second] = self.name.slices();
        self.remove_predecessor_from(objects, &slice, mark).await?;
        self.remove_predecessor_from(objects, &second, mark).await
    }

    async fn remove_predecessor_from(
        &self,
        objects: &ServiceObjects,
        slice: &str,
        mark: &RouteMark,
    ) -> Result<(), Error> {
        match objects.slices.get(slice).await {
            Ok(Some(found)) if found["endpoints"].as_array().is_some_and(|endpoints| !endpoints.is_empty()) => {
                self.withdraw_from(objects, slice, None, mark).await.map(drop)
            }
            // Candidates have the same permissions, so a predecessor cannot have written an IPv6 slice that this
            // candidate may not read.
            Err(error) if error.kind == ErrorKind::Forbidden && slice == self.name.ipv6_slice() => Ok(()),
            found => found.map(drop),
        }
    }

    /// Empties the slices of `endpoints`, except those that a later leader has marked, and creates those that do not
    /// exist, so that pending writes of this candidate fail. If `endpoints` is empty, because this candidate never was
    /// an endpoint, only the first slice is emptied, if it exists. Returns whether a slice routed to this candidate.
    pub async fn withdraw(
        &self,
        objects: &ServiceObjects,
        endpoints: &[SliceEndpoint],
        mark: &RouteMark,
    ) -> Result<bool, Error> {
        if endpoints.is_empty() {
            return self.withdraw_from(objects, &self.name.slice(), None, mark).await;
        }
        let each = endpoints.iter().map(|SliceEndpoint { slice, address }| {
            let address = Some(*address);
            async move { self.withdraw_from(objects, slice, address, mark).await }
        });
        Ok(try_join_all(each).await?.contains(&true))
    }

    /// Empties the slice with this name, unless a later leader has marked it. If it does not exist, it is created if
    /// there is an `address`. Returns whether the slice routed to `address`.
    async fn withdraw_from(
        &self,
        objects: &ServiceObjects,
        name: &str,
        address: Option<IpAddr>,
        mark: &RouteMark,
    ) -> Result<bool, Error> {
        for _ in 0..MAX_TRIES {
            let found = objects.slices.get(name).await?;
            let Some(slice) = found.or_else(|| address.map(|address| new_slice(name, address))) else {
                return Ok(false);
            };
            if mark_on(&slice, mark).is_some_and(|other| other.is_later_than(mark)) {
                return Ok(false);
            }
            let was_endpoint = address.is_some_and(|address| routes_to(&slice, address));
            match self.write(&objects.slices, slice, json!([]), None, mark).await {
                Err(error) if is_outdated(&error) => {}
                result => return result.map(|_| was_endpoint),
            }
        }
        Err(too_many_conflicts())
    }

    /// Gives the slice these endpoints and ports and this mark, and creates it, or replaces the stored slice if its
    /// version has not changed. Returns the stored slice. Without `ports`, the slice keeps its ports.
    async fn write(
        &self,
        slices: &Collection,
        mut slice: Value,
        endpoints: Value,
        ports: Option<Value>,
        mark: &RouteMark,
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

fn routes_to(slice: &Value, address: IpAddr) -> bool {
    slice["endpoints"] == only_endpoint(address)
}

fn slice_ports(ports: &[SlicePort]) -> Value {
    ports.iter().map(SlicePort::to_json).collect()
}

/// Returns whether a write failed because the slice was changed or deleted after it was read.
fn is_outdated(error: &Error) -> bool {
    matches!(error.kind, ErrorKind::Conflict | ErrorKind::NotFound)
}

fn only_endpoint(address: IpAddr) -> Value {
    json!([{ "addresses": [address.to_string()], "conditions": { "ready": true } }])
}

/// Returns the mark that a leader of the same lock as `mark` has left on the slice, if there is one.
fn mark_on(slice: &Value, mark: &RouteMark) -> Option<RouteMark> {
    mark.find_in(&slice["metadata"]["annotations"])
}
