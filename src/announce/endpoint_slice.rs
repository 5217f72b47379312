//! The endpoints of a Service without a selector: the leader's address, or none.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::str::FromStr;

use serde_json::{Value, json};

use super::collection::{Collection, Refusal, Resource, is_stamp_of, stamp};
use crate::lock::{Rule, check_label};
use crate::process::clock::Instant;

/// Says for which leadership the endpoints were last changed: see [`stamp`].
const CHANGED_ANNOTATION: &str = "leaderrun/endpoints-changed";

/// Tries against other candidates that write it meanwhile.
const TRIES: usize = 8;

pub const ENDPOINT_SLICES: Resource = Resource { group: "discovery.k8s.io", plural: "endpointslices" };

/// A Service, and where the leader answers for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub name: ServiceName,
    pub ports: Vec<ServicePort>,
    /// This candidate's address; without, the one by which it reaches the API server.
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
    /// The one slice that all candidates write, so that there are never two leaders in it.
    fn slice(&self) -> String {
        format!("{}-leader", self.0)
    }

    /// What a candidate needs for it.
    pub fn rules(&self, namespace: &str) -> Vec<Rule> {
        vec![
            ENDPOINT_SLICES.rule(namespace, Some(self.slice()), &["get", "update"]),
            ENDPOINT_SLICES.rule(namespace, None, &["create"]),
        ]
    }
}

/// A port of a Service, as `--port` takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// As the Service calls it; empty where it has only one.
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
    /// This candidate's address, found out where it is not given, by the API server's host and port.
    pub fn address(&self, (host, port): &(String, u16)) -> Result<IpAddr, Refusal> {
        if let Some(address) = self.address {
            return Ok(address);
        }
        let no_address = |reason| Refusal::Other(format!("{reason}; --address says where this candidate answers"));
        let route = || -> io::Result<SocketAddr> {
            let server = (host.as_str(), *port).to_socket_addrs()?.next().ok_or(io::ErrorKind::AddrNotAvailable)?;
            let any: IpAddr = if server.is_ipv6() { [0; 16].into() } else { [0; 4].into() };
            let socket = UdpSocket::bind((any, 0))?;
            // Sends nothing, and finds out which address would.
            socket.connect(server)?;
            socket.local_addr()
        };
        match route() {
            Ok(local) if !local.ip().is_loopback() => Ok(local.ip()),
            Ok(_) => Err(no_address("the API server is on this machine".to_owned())),
            Err(failure) => Err(no_address(format!("no way to the API server: {failure}"))),
        }
    }

    /// Makes this candidate the only endpoint, and sends nothing more once the time is over. Whether that
    /// changed anything.
    pub async fn show(
        &self,
        slices: &Collection,
        address: IpAddr,
        token: &str,
        until: Instant,
    ) -> Result<bool, Refusal> {
        let wanted = self.endpoint(address);
        for _ in 0..TRIES {
            let present = slices.get(&self.name.slice()).await?;
            let is_right = |slice: &Value| {
                is_stamp_of(token, mark(slice)) && slice["endpoints"] == wanted && slice["ports"] == self.ports()
            };
            if present.as_ref().is_some_and(is_right) {
                return Ok(false);
            }
            if Instant::now() >= until {
                return Err(Refusal::Other("no time was left to lead the Service here".into()));
            }
            match self.write(slices, present, address, wanted.clone(), token).await {
                Err(Refusal::Conflict) => {}
                ended => return ended.map(|()| true),
            }
        }
        Err(Refusal::Conflict)
    }

    /// Takes this candidate out. With a token, so that whatever that leadership has sent comes too late.
    /// Whether it was in.
    pub async fn withdraw(&self, slices: &Collection, address: IpAddr, token: Option<&str>) -> Result<bool, Refusal> {
        for _ in 0..TRIES {
            let present = slices.get(&self.name.slice()).await?;
            let is_here = present
                .as_ref()
                .is_some_and(|slice| slice["endpoints"] == self.endpoint(address) && slice["ports"] == self.ports());
            // A later leader's is left alone, and so is what never led here.
            let is_mine = |token| match &present {
                Some(slice) => !is_later(mark(slice), token),
                None => true,
            };
            if !token.map_or(is_here, is_mine) {
                return Ok(false);
            }
            match self.write(slices, present, address, json!([]), token.unwrap_or("0")).await {
                Err(Refusal::Conflict) => {}
                ended => return ended.map(|()| is_here),
            }
        }
        Err(Refusal::Conflict)
    }

    async fn write(
        &self,
        slices: &Collection,
        present: Option<Value>,
        address: IpAddr,
        endpoints: Value,
        token: &str,
    ) -> Result<(), Refusal> {
        let name = self.name.slice();
        let is_new = present.is_none();
        let mut slice = present.unwrap_or_else(|| {
            json!({
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": { "name": name },
                "addressType": if address.is_ipv6() { "IPv6" } else { "IPv4" },
            })
        });
        slice["metadata"]["labels"]["kubernetes.io/service-name"] = self.name.0.as_str().into();
        slice["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] = "leaderrun".into();
        slice["metadata"]["annotations"][CHANGED_ANNOTATION] = stamp(token).into();
        slice["endpoints"] = endpoints;
        slice["ports"] = self.ports();
        match is_new {
            true => slices.create(&slice).await,
            false => slices.replace(&name, &slice).await,
        }
    }

    fn endpoint(&self, address: IpAddr) -> Value {
        json!([{ "addresses": [address.to_string()], "conditions": { "ready": true } }])
    }

    fn ports(&self) -> Value {
        let port = |ServicePort { name, number, protocol }: &ServicePort| json!({ "name": name, "port": number, "protocol": protocol });
        self.ports.iter().map(port).collect()
    }
}

fn mark(slice: &Value) -> &Value {
    &slice["metadata"]["annotations"][CHANGED_ANNOTATION]
}

/// Whether that was written for a later leadership than the one with this fencing token: decimal integers
/// of any length.
fn is_later(mark: &Value, token: &str) -> bool {
    let of = mark.as_str().and_then(|mark| mark.split(' ').next()).unwrap_or_default();
    (of.len(), of) > (token.len(), token)
}
