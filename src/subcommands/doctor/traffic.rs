//! The checks of `leaderrun doctor` for the routing of traffic to the leader.

use super::cluster::{IfDenied, ask, examine_rules};
use super::table::{Row, SEE_HELP, Table, finding_and_remedy};
use crate::kubernetes::{Cluster, PODS};
use crate::routing::{PodLabel, RouteReport, Routing, Service, ServiceObjects};
use crate::subcommands::REQUEST_TIMEOUT;

/// Adds a row if the pod to be labeled does not exist.
async fn examine_pod(table: &mut Table, cluster: &Cluster, namespace: &str, pod: &str) {
    let response = ask(cluster, &format!("{}/{pod}", PODS.path(namespace)), None).await;
    if response.is_ok_and(|response| response.status() == 404) {
        let finding = format!(
            "there is no pod {pod:?} in namespace {namespace:?}; with hostNetwork, or with a hostname in the pod's spec, the \
             host name is not the pod's name"
        );
        let remedy = "set LEADERRUN_POD to the field metadata.name through the downward API, or use --pod";
        table.add(Row::failed("pod", finding, remedy));
    }
}

/// Adds rows about whether traffic can be routed to the leader.
pub async fn examine_routing(
    table: &mut Table,
    cluster: &Cluster,
    namespace: &str,
    routing: &Routing,
    manifest_command: &str,
) {
    let (routing_rules, check_rules) = match routing {
        Routing::PodLabel(PodLabel { pod, .. }) => {
            examine_pod(table, cluster, namespace, pod).await;
            (PodLabel::rules(namespace), Vec::new())
        }
        Routing::Service(service) => {
            let is_dual_stack = examine_service(table, cluster, namespace, service).await;
            (service.name.rules(namespace, is_dual_stack), service.name.check_rules(namespace))
        }
    };
    let if_denied = |_| IfDenied::Failure("; traffic is not routed to the leader");
    examine_rules(table, cluster, &routing_rules, if_denied, manifest_command).await;
    let if_denied = |_| IfDenied::Note("; leaderrun cannot check whether traffic is routed to the leader only");
    examine_rules(table, cluster, &check_rules, if_denied, manifest_command).await;
}

/// Adds rows about whether the Service can route to this candidate and to no other endpoint. Returns whether the
/// Service needs two EndpointSlices, or true if that is not known.
async fn examine_service(table: &mut Table, cluster: &Cluster, namespace: &str, service: &Service) -> bool {
    let addresses = service.addresses(cluster).await.unwrap_or_else(|error| {
        // This is not a failure, because the doctor can run on a different machine from the candidate.
        table.add(note_row("address", &error.to_string()));
        Vec::new()
    });
    let objects = ServiceObjects::new(cluster, namespace, REQUEST_TIMEOUT);
    let route = match service.route(&objects, &addresses).await {
        Ok(route) => route,
        Err(error) => {
            let sentence = error.to_string();
            let (finding, remedy) = finding_and_remedy(&sentence, SEE_HELP);
            table.add(Row::failed("Service", finding, remedy));
            return true;
        }
    };
    if !route.is_checked() {
        // Another row reports that the permission to read the Service is missing.
        return route.is_dual_stack;
    }
    let RouteReport { subject, unserved_ports_suffix, warnings } = service.report(&objects, &route);
    table.add(Row::ok("Service", format!("{subject} can route to the leader{unserved_ports_suffix}")));
    for warning in warnings.into_iter().chain(service.leftover_warning(&objects).await) {
        table.add(note_row("Service", &warning));
    }
    route.is_dual_stack
}

fn note_row(subject: &'static str, sentence: &str) -> Row {
    let (finding, remedy) = finding_and_remedy(sentence, SEE_HELP);
    Row::note(subject, finding, remedy)
}
