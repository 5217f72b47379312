//! The rows about the routing of traffic to the leader.

use super::cluster::{ask, json_of};
use super::table::{Row, Table};
use crate::kubernetes::{Cluster, PODS, SERVICES};
use crate::routing::{ServicePort, check_service};

/// Adds a row about whether the pod to be labelled exists.
pub async fn examine_pod(table: &mut Table, cluster: &Cluster, namespace: &str, pod: &str) {
    let answer = ask(cluster, &format!("{}/{pod}", PODS.path(namespace)), None).await;
    if answer.is_ok_and(|answer| answer.status() == 404) {
        let finding = format!(
            "there is no pod {pod:?} in namespace {namespace:?}; the host name is another one with hostNetwork, or with a \
             hostname in the pod's spec"
        );
        let remedy = "set LEADERRUN_POD from the field metadata.name by the downward API, or give --pod";
        table.add(Row::failed("pod", finding, remedy));
    }
}

/// Adds rows about whether the Service can be routed to the leader with these ports, if this user may read it.
pub async fn examine_service(table: &mut Table, cluster: &Cluster, namespace: &str, name: &str, ports: &[ServicePort]) {
    let Ok(answer) = ask(cluster, &format!("{}/{name}", SERVICES.path(namespace)), None).await else { return };
    if answer.status() == 404 {
        let finding = format!("there is no Service {name:?} in namespace {namespace:?}");
        return table.add(Row::failed(
            "Service",
            finding,
            "create it without a selector, or name another one in --service",
        ));
    }
    let Ok(service) = json_of(&answer) else { return };
    table.add(match check_service(namespace, name, &service, ports) {
        Ok(()) => Row::ok("Service", format!("{namespace}/{name} follows the leader")),
        Err(sentence) => {
            let (finding, remedy) = sentence.split_once("; ").unwrap_or((&sentence, "see leaderrun --help"));
            Row::failed("Service", finding, remedy)
        }
    });
}
