//! How traffic finds the leader.

use std::net::IpAddr;

use anyhow::{Result, anyhow, bail};

use crate::lock::{LockName, check_name};
use crate::routing::{
    LONGEST_LOCK, Label, PodLabel, Routing, RoutingTarget, Service, ServiceName, ServicePort, check_ports, is_reachable,
};

const ROUTING: &str = "Routing";

/// By what traffic finds the leader.
#[derive(Debug, clap::Args)]
pub struct RoutingTargetArguments {
    /// Put this label on the pod while its command runs, and on no other, for a Service that selects it
    #[arg(long, env = "LEADERRUN_POD_LABEL", value_name = "KEY=VALUE", conflicts_with = "service", help_heading = ROUTING)]
    pod_label: Option<Label>,

    /// Route this Service, which must have no selector, to the leader
    #[arg(long, env = "LEADERRUN_SERVICE", value_name = "NAME", help_heading = ROUTING)]
    service: Option<ServiceName>,
}

impl RoutingTargetArguments {
    pub fn target(self) -> Option<RoutingTarget> {
        self.pod_label.map(RoutingTarget::PodLabel).or(self.service.map(RoutingTarget::Service))
    }
}

/// And where it finds it.
#[derive(Debug, clap::Args)]
pub struct RoutingArguments {
    #[command(flatten)]
    target: RoutingTargetArguments,

    /// The pod that gets the label [default: the host name]
    #[arg(long, env = "LEADERRUN_POD", value_name = "NAME", value_parser = pod, help_heading = ROUTING)]
    pod: Option<String>,

    /// A port of the Service, with its name there where it has several: PORT, NAME:PORT or NAME:PORT/udp; several by commas or repetition
    #[arg(long = "port", env = "LEADERRUN_PORTS", value_name = "PORT", value_delimiter = ',', help_heading = ROUTING)]
    ports: Vec<ServicePort>,

    /// The leader's address for the Service [default: the one from which it reaches the API server]
    #[arg(long, env = "LEADERRUN_ADDRESS", value_name = "IP", value_parser = address, help_heading = ROUTING)]
    address: Option<IpAddr>,
}

impl RoutingArguments {
    /// How traffic is led to a command that runs under this lock, on this host.
    pub fn routing(self, lock: &LockName, host: &str) -> Result<Option<Routing>> {
        let Self { target, pod, ports, address } = self;
        let target = target.target();
        if !matches!(target, Some(RoutingTarget::Service(_))) {
            let useless = [("--port", !ports.is_empty()), ("--address", address.is_some())];
            if let Some((option, _)) = useless.iter().find(|(_, given)| *given) {
                bail!("{option} says where a Service leads, and none is named; --service my-service would do");
            }
        }
        let routing = match target {
            None => return Ok(None),
            Some(RoutingTarget::PodLabel(label)) => {
                if let (None, Err(reason)) = (&pod, check_name(host)) {
                    bail!("--pod-label: no pod has the host name {host:?}: it {reason}; --pod worker-0 would do");
                }
                Routing::PodLabel(PodLabel { label, pod: pod.unwrap_or_else(|| host.to_owned()) })
            }
            Some(RoutingTarget::Service(_)) if ports.is_empty() => {
                bail!("--service needs a --port; --port 8080 would do")
            }
            Some(RoutingTarget::Service(name)) => {
                check_ports(&ports).map_err(|reason| anyhow!("--port: {reason}"))?;
                Routing::Service(Service { name, ports, address })
            }
        };
        check_lock(lock)?;
        Ok(Some(routing))
    }
}

/// Whether there is a cluster to lead traffic in, and the name can be part of a mark.
pub fn check_lock(lock: &LockName) -> Result<()> {
    match lock {
        LockName::Objects { name, .. } if name.len() > LONGEST_LOCK => {
            let length = name.len();
            bail!(
                "--lock {lock}: to lead traffic its name may have {LONGEST_LOCK} characters, not {length}; my-job would do"
            )
        }
        LockName::Objects { .. } => Ok(()),
        LockName::File(_) => bail!("--lock {lock}: a file has no cluster to lead traffic in; default/my-job would do"),
    }
}

fn pod(name: &str) -> Result<String, String> {
    check_name(name).map_err(|reason| format!("it {reason}; worker-0 would do"))?;
    Ok(name.to_owned())
}

fn address(text: &str) -> Result<IpAddr, &'static str> {
    text.parse().ok().filter(is_reachable).ok_or("it is no address that others could reach; 10.1.2.3 would do")
}
