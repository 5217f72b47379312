//! The options for routing traffic to the leader.

use std::net::IpAddr;

use clap::Args;

use super::{ROUTING, values};
use crate::routing::{Label, PortOption, RoutingTarget, ServiceName};

/// The options for the routing target: a label on the pod, or a Service.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = ROUTING)]
pub struct RoutingTargetArguments {
    /// Put this label on the leader's pod while its command runs, and on no other pod, for a Service that selects it; with --slots, {slot} stands for the slot number
    #[arg(long, env = "LEADERRUN_POD_LABEL", value_name = "KEY=VALUE", value_parser = values::pod_label, conflicts_with = "service")]
    pub pod_label: Option<Label>,

    /// Route this Service, which must have no selector, to the leader; with --slots, {slot} stands for the slot number
    #[arg(long, env = "LEADERRUN_SERVICE", value_name = "NAME", value_parser = values::service)]
    pub service: Option<ServiceName>,
}

impl RoutingTargetArguments {
    /// Returns the target, if one was given.
    pub fn to_target(&self) -> Option<RoutingTarget> {
        let label = self.pod_label.clone().map(RoutingTarget::PodLabel);
        label.or(self.service.clone().map(RoutingTarget::Service))
    }
}

/// The options for routing traffic to the leader.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = ROUTING)]
pub struct RoutingArguments {
    #[command(flatten)]
    pub target: RoutingTargetArguments,

    /// The name of this pod, which gets the label, and whose controller --owner auto looks up [default: the host name]
    #[arg(long, env = "LEADERRUN_POD", value_name = "NAME", value_parser = values::object_name)]
    pub pod: Option<String>,

    /// A port on which the leader's container listens: PORT, PORT/udp or NAME:PORT. NAME is the name of a port of the Service, and is required if the Service has several ports and none has this targetPort. Separate several ports by commas, or repeat the option [default: the targetPort of every port of the Service]
    #[arg(long = "port", env = "LEADERRUN_PORTS", value_name = "PORT", value_delimiter = ',', value_parser = values::port_option)]
    pub ports: Vec<PortOption>,

    /// The leader's address for the Service, or one of each family separated by a comma, as in the field status.podIPs [default: the address from which it reaches the API server]
    #[arg(long = "address", env = "LEADERRUN_ADDRESS", value_name = "IP", value_delimiter = ',', value_parser = values::address)]
    pub addresses: Vec<IpAddr>,
}
