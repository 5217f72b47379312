//! `leaderrun manifest`: what a cluster has to know before a candidate may run in it.

use anyhow::{Result, bail};

use super::{CommandOutput, ManifestRequest};
use crate::events;
use crate::kubernetes::{ObjectName, Rule, role, yaml};
use crate::lock::{self, LockName, check_name};

/// A service account, what it may do, and that the API server hears it when it is busy, as YAML.
pub fn manifest(request: &ManifestRequest) -> Result<CommandOutput> {
    let ManifestRequest { lock: lock_name, slots, service_account, target } = request;
    let (kind, namespace, name) = match lock_name {
        LockName::Objects { kind, namespace: Some(namespace), name } => (kind, namespace, name),
        LockName::Objects { namespace: None, .. } => {
            bail!("--lock {lock_name}: the manifest has to say in which namespace; {} would do", in_default(lock_name))
        }
        LockName::File(_) => bail!("--lock {lock_name}: a file needs no rights in a cluster; default/my-job would do"),
    };
    let flow_schema = format!("leaderrun.{namespace}.{name}");
    if let Err(reason) = check_name(&flow_schema) {
        bail!("--lock {lock_name}: the name of its FlowSchema, {flow_schema:?}, {reason}; default/my-job would do");
    }
    let objects = kind.objects(namespace, name);
    let objects_of_slots = lock_name.in_slots(*slots).into_iter().flat_map(|slot| slot.objects(namespace));
    let mut rules: Vec<Rule> = objects_of_slots.flat_map(|object| lock::rules(&object)).collect();
    let targets = target.iter().flat_map(|target| target.in_slots(*slots));
    for target in targets {
        rules.extend(target.rules(namespace));
        rules.extend(target.checking_rules(namespace));
    }
    // Last: the lock can do without.
    rules.push(events::rule(namespace));
    let role = role(namespace, name, &rules);
    let requests: Vec<String> = objects.iter().map(requests).collect();
    let requests = requests.join("\n");
    let service_account = yaml(service_account.as_ref().unwrap_or(name));
    let namespace = yaml(namespace);
    let text = format!(
        "# For pods with serviceAccountName: {service_account}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {service_account}
  namespace: {namespace}
---
{role}
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
  name: {service_account}
  namespace: {namespace}
---
# The lock can do without, and it takes the rights of a cluster administrator: a busy API server then serves renewals
# before the requests of other service accounts.
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
        name: {service_account}
        namespace: {namespace}
    resourceRules:
{requests}
"
    );
    Ok(CommandOutput { text, status: 0 })
}

/// Which requests the FlowSchema is for; it cannot tell objects of one kind apart.
fn requests(ObjectName { resource, namespace, .. }: &ObjectName) -> String {
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

fn in_default(lock: &LockName) -> LockName {
    let mut lock = lock.clone();
    if let LockName::Objects { namespace, .. } = &mut lock {
        *namespace = Some("default".to_owned());
    }
    lock
}

#[cfg(test)]
mod tests {
    use crate::kubernetes::role;
    use crate::lock::{self, Kind};

    #[test]
    fn the_role_in_the_readme_is_the_one_that_is_printed() {
        let objects = Kind::Lease.objects("default", "my-job");
        let role = role("default", "my-job", &lock::rules(&objects[0]));
        assert!(include_str!("../../README.md").contains(&role), "README.md: the Role must be\n{role}");
    }
}
