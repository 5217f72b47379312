//! `leaderrun manifest`: prints the service account, Roles and bindings that a candidate needs in a cluster.

use anyhow::{Result, anyhow, bail};

use super::{CommandOutput, LockTarget, ManifestRequest, REQUEST_TIMEOUT, with_open_timeout};
use crate::events;
use crate::kubernetes::{Cluster, ClusterAccess, ENDPOINT_SLICES, ObjectName, Rule, role, yaml};
use crate::lock::{self, check_name};
use crate::telemetry::log::printable_error;

/// Returns a service account and its permissions as YAML. With `priority`, the output includes a FlowSchema, which
/// makes a busy API server serve the account's requests for the lock before other requests.
pub async fn manifest(request: ManifestRequest) -> Result<CommandOutput> {
    let ManifestRequest { target, slots, owner, service_account, routing_target, priority } = request;
    let LockTarget { lock, cluster } = target;
    if !lock.kind.is_in_cluster() {
        bail!(
            "--lock {lock}: this lock is not in a cluster, so it needs no permissions; name a lock in a cluster, for \
             example --lock default/my-job"
        );
    }
    let namespace = match &lock.namespace {
        Some(namespace) => namespace.clone(),
        None => {
            let access = ClusterAccess::new(cluster);
            let found = with_open_timeout(&access, Cluster::open(&access, REQUEST_TIMEOUT)).await;
            let found = found.map_err(|reason| {
                let reason = printable_error(&reason);
                anyhow!("--lock {lock}: its namespace is not known: {reason}; try --namespace default")
            })?;
            found.default_namespace().to_owned()
        }
    };
    let name = &lock.name;
    let objects_of_slots = lock.in_slots(slots).into_iter().flat_map(|slot| slot.objects(&namespace));
    let mut rules: Vec<Rule> = objects_of_slots.flat_map(|object| lock::rules(&object)).collect();
    let routing_targets = routing_target.iter().flat_map(|target| target.in_slots(slots));
    for target in routing_targets {
        rules.extend(target.rules(&namespace));
        rules.extend(target.check_rules(&namespace));
    }
    rules.extend(owner.iter().flat_map(|owner| owner.rules(&namespace)));
    // The rule for Events comes last, because the lock works without it.
    rules.push(events::rule(&namespace));
    let (namespace_rules, cluster_admin_rules): (Vec<Rule>, Vec<Rule>) =
        rules.into_iter().partition(|rule| *rule.resource != ENDPOINT_SLICES);
    let service_account = yaml(service_account.as_ref().unwrap_or(name));
    let account = Account { namespace: &namespace, name: &service_account };
    let yaml_namespace = yaml(&namespace);
    let mut text = format!(
        "# For pods with serviceAccountName: {service_account}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {service_account}
  namespace: {yaml_namespace}
---
{}",
        account.role_and_binding(name, &namespace_rules)
    );
    if !cluster_admin_rules.is_empty() {
        text += "---
# Only a cluster administrator can apply this: the ClusterRole admin does not let an administrator of the namespace
# grant permissions for EndpointSlices.
";
        text += &account.role_and_binding(&format!("{name}-service"), &cluster_admin_rules);
    }
    if priority {
        text += &flow_schema(&account, name, &lock.objects(&namespace))?;
    }
    Ok(CommandOutput { text, status: 0 })
}

/// A service account.
struct Account<'a> {
    namespace: &'a str,
    /// The name, quoted for YAML if necessary.
    name: &'a str,
}

impl Account<'_> {
    /// Returns the Role `leaderrun-NAME` and its binding to this account.
    fn role_and_binding(&self, name: &str, rules: &[Rule]) -> String {
        let (role, namespace, account) = (role(self.namespace, name, rules), yaml(self.namespace), self.name);
        format!(
            "{role}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: leaderrun-{name}
  namespace: {namespace}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: leaderrun-{name}
subjects:
- kind: ServiceAccount
  name: {account}
  namespace: {namespace}
"
        )
    }
}

/// Returns a FlowSchema that gives the account's requests for these objects priority over other requests.
fn flow_schema(account: &Account<'_>, name: &str, objects: &[ObjectName]) -> Result<String> {
    let (namespace, account) = (yaml(account.namespace), account.name);
    let flow_schema = format!("leaderrun.{}.{name}", namespace.trim_matches('"'));
    if let Err(reason) = check_name(&flow_schema) {
        bail!(
            "--lock {name}: the name of its FlowSchema, {flow_schema:?}, {reason}; for example --lock default/my-job"
        );
    }
    let resource_rules = objects.iter().map(resource_rule).collect::<Vec<_>>().join("\n");
    Ok(format!(
        "---
# With this FlowSchema a busy API server serves renewals before the requests of other service accounts. Only a cluster
# administrator can apply it, and it is not deleted together with the namespace.
apiVersion: flowcontrol.apiserver.k8s.io/v1
kind: FlowSchema
metadata:
  name: {flow_schema}
spec:
  matchingPrecedence: 1000
  priorityLevelConfiguration:
    name: leader-election
  distinguisherMethod:
    type: ByUser
  rules:
  - subjects:
    - kind: ServiceAccount
      serviceAccount:
        name: {account}
        namespace: {namespace}
    resourceRules:
{resource_rules}
"
    ))
}

/// Returns the FlowSchema's rule for requests for an object. A rule cannot name individual objects, so it applies to
/// all objects of this kind in the namespace.
fn resource_rule(ObjectName { resource, namespace, .. }: &ObjectName) -> String {
    let group = if resource.group.is_empty() { "\"\"" } else { resource.group };
    format!(
        "    - apiGroups: [{group}]
      resources: [{}]
      namespaces: [{}]
      verbs: [get, create, update, watch]",
        resource.plural,
        yaml(namespace)
    )
}

#[cfg(test)]
mod tests {
    use crate::kubernetes::role;
    use crate::lock::{self, LockName};

    #[test]
    fn the_readme_contains_the_printed_role() {
        let objects = "my-job".parse::<LockName>().unwrap().objects("default");
        let role = role("default", "my-job", &lock::rules(&objects[0]));
        assert!(include_str!("../../README.md").contains(&role), "README.md should contain this Role:\n{role}");
    }
}
