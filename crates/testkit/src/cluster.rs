//! A running API server: the in-process one or a real one.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::api_server::ApiServer;
use crate::client::Client;
use crate::envtest::{self, Envtest};
use crate::kubeconfig::Kubeconfigs;
use crate::lock::TestLock;
use crate::users::{self, ADMIN};
use crate::wait::eventually;

/// A running API server: the in-process one, or a real one from the directory that `KUBEBUILDER_ASSETS` names.
pub struct Cluster {
    server: Server,
    kubeconfigs: Kubeconfigs,
}

enum Server {
    InProcess(ApiServer),
    Envtest(Envtest),
}

impl Cluster {
    /// Returns the cluster that all tests of this process share. The first call starts it.
    pub fn shared() -> &'static Cluster {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(Cluster::start)
    }

    /// Starts a cluster for a test that restarts the API server or must not see the objects of other tests.
    pub fn start() -> Cluster {
        let server = match envtest::assets() {
            Some(assets) => Server::Envtest(Envtest::start(&assets)),
            None => Server::InProcess(ApiServer::start()),
        };
        let kubeconfigs = Kubeconfigs::new(server.address());
        Cluster { server, kubeconfigs }
    }

    /// Starts a cluster for a test that changes the behavior of the API server. The server is always in-process.
    pub fn start_in_process() -> Cluster {
        let server = ApiServer::start();
        let kubeconfigs = Kubeconfigs::new(server.address());
        Cluster { server: Server::InProcess(server), kubeconfigs }
    }

    /// Returns the in-process API server. Panics if the cluster has a real one.
    pub fn api_server(&self) -> &ApiServer {
        match &self.server {
            Server::InProcess(server) => server,
            Server::Envtest(_) => {
                panic!("this is a real kube-apiserver; use Cluster::start_in_process")
            }
        }
    }

    /// Returns the address on which the API server listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Returns whether this is a real kube-apiserver.
    pub fn is_real(&self) -> bool {
        matches!(self.server, Server::Envtest(_))
    }

    /// Restarts the API server at the same address with the same objects. This breaks all connections.
    pub fn restart(&self) {
        match &self.server {
            Server::InProcess(server) => server.restart(),
            Server::Envtest(server) => server.restart(),
        }
    }

    /// Returns a kubeconfig for the administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        self.kubeconfigs.file_for(ADMIN)
    }

    /// Returns a kubeconfig for one of [`users::USERS`].
    pub fn kubeconfig_for(&self, user: &str) -> PathBuf {
        self.kubeconfigs.file_for(users::named(user))
    }

    /// Returns a client for the administrator.
    pub fn admin(&self) -> Client {
        Client::new(self.address(), ADMIN)
    }

    /// Returns a client for one of [`users::USERS`].
    pub fn client_for(&self, user: &str) -> Client {
        Client::new(self.address(), users::named(user))
    }

    /// Creates a namespace that no other test uses.
    pub fn new_namespace(&self) -> String {
        static COUNT: AtomicUsize = AtomicUsize::new(1);
        let name = format!("test-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.admin()
            .create("/api/v1/namespaces", &json!({ "metadata": { "name": name } }))
            .expect("the namespace can be created");
        name
    }

    /// Waits until a Lease on this server has been renewed at least `count` more times.
    pub fn wait_for_renewals(&self, lock: &TestLock, count: usize) {
        let renew_time =
            || self.admin().get(&lock.lease_path()).expect("the Lease exists")["spec"]["renewTime"].clone();
        for _ in 0..count {
            let before = renew_time();
            eventually("the Lease is renewed", || renew_time() != before);
        }
    }

    /// Replaces the permissions of `user` in `namespace` with `rules`, the rules of a Role. Empty rules allow nothing.
    ///
    /// Returns once the server applies the new rules.
    pub fn set_permissions(&self, namespace: &str, user: &str, rules: Value) {
        let rbac = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}");
        let admin = self.admin();
        let role = format!("{rbac}/roles/{user}");
        let before = admin.get(&role).map(|role| role["rules"].clone());
        let metadata = json!({ "name": user, "namespace": namespace });
        admin.replace(&role, &json!({ "metadata": metadata, "rules": rules })).expect("the Role can be written");
        let binding = json!({
            "metadata": metadata,
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": user },
            "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user }],
        });
        admin.replace(&format!("{rbac}/rolebindings/{user}"), &binding).expect("the RoleBinding can be written");

        let granted = permissions(namespace, &rules);
        let mut revoked = permissions(namespace, &before.unwrap_or_default());
        revoked.retain(|permission| !granted.contains(permission));
        let client = self.client_for(user);
        wait_until_allowed(&client, namespace, &rules);
        for permission in revoked {
            eventually(&format!("{user} no longer has the permission {permission}"), || {
                !is_allowed(&client, &permission)
            });
        }
    }
}

/// Waits until the server allows a client everything that `rules`, the rules of a Role, grant in `namespace`.
pub fn wait_until_allowed(client: &Client, namespace: &str, rules: &Value) {
    for permission in permissions(namespace, rules) {
        eventually(&format!("the client has the permission {permission}"), || is_allowed(client, &permission));
    }
}

impl Server {
    fn address(&self) -> SocketAddr {
        match self {
            Server::InProcess(server) => server.address(),
            Server::Envtest(server) => server.address(),
        }
    }
}

/// Returns every permission that the rules of a Role grant: each combination of verb, resource and name.
fn permissions(namespace: &str, rules: &Value) -> Vec<Value> {
    let rules = rules.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut permissions = Vec::new();
    for rule in rules {
        for group in strings(&rule["apiGroups"]) {
            for resource in strings(&rule["resources"]) {
                let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
                for verb in strings(&rule["verbs"]) {
                    let names = strings(&rule["resourceNames"]);
                    for name in if names.is_empty() { vec![""] } else { names } {
                        permissions.push(json!({
                            "namespace": namespace,
                            "group": group,
                            "resource": resource,
                            "subresource": subresource,
                            "verb": verb,
                            "name": name,
                        }));
                    }
                }
            }
        }
    }
    permissions
}

fn strings(array: &Value) -> Vec<&str> {
    let items = array.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(Value::as_str).collect()
}

fn is_allowed(client: &Client, permission: &Value) -> bool {
    let review = json!({ "spec": { "resourceAttributes": permission } });
    let review = client
        .create("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &review)
        .expect("every user may query their own permissions");
    review["status"]["allowed"] == true
}
