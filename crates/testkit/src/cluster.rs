//! A running API server, ours or the real one.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::api_server::ApiServer;
use super::client::Client;
use super::envtest::{self, Envtest};
use super::kubeconfig::Kubeconfigs;
use super::users::{self, ADMIN};
use super::wait::eventually;

/// A running API server: ours, or the real one that `KUBEBUILDER_ASSETS` names.
pub struct Cluster {
    server: Server,
    kubeconfigs: Kubeconfigs,
}

enum Server {
    InProcess(ApiServer),
    Envtest(Envtest),
}

impl Cluster {
    /// One for each test process, started at first use.
    pub fn shared() -> &'static Cluster {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(Cluster::start)
    }

    /// One of its own, for tests that restart it or need to be alone with it.
    pub fn start() -> Cluster {
        let server = match envtest::assets() {
            Some(assets) => Server::Envtest(Envtest::start(&assets)),
            None => Server::InProcess(ApiServer::start()),
        };
        let kubeconfigs = Kubeconfigs::new(server.address());
        Cluster { server, kubeconfigs }
    }

    /// One of its own that is always ours, for tests that tell it how to behave.
    pub fn start_in_process() -> Cluster {
        let server = ApiServer::start();
        let kubeconfigs = Kubeconfigs::new(server.address());
        Cluster { server: Server::InProcess(server), kubeconfigs }
    }

    /// The server of [`Cluster::start_in_process`], which can be told how to behave.
    pub fn api_server(&self) -> &ApiServer {
        match &self.server {
            Server::InProcess(server) => server,
            Server::Envtest(_) => {
                panic!("a real kube-apiserver cannot be told how to behave; see Cluster::start_in_process")
            }
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Whether this is the real kube-apiserver.
    pub fn is_real(&self) -> bool {
        matches!(self.server, Server::Envtest(_))
    }

    /// Stops it and starts it again at the same address with its data kept; every connection breaks.
    pub fn restart(&self) {
        match &self.server {
            Server::InProcess(server) => server.restart(),
            Server::Envtest(server) => server.restart(),
        }
    }

    /// A kubeconfig for the administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        self.kubeconfigs.file_for(ADMIN)
    }

    /// A kubeconfig for one of [`users::USERS`].
    pub fn kubeconfig_for(&self, user: &str) -> PathBuf {
        self.kubeconfigs.file_for(users::named(user))
    }

    /// Requests as the administrator.
    pub fn admin(&self) -> Client {
        Client::new(self.address(), ADMIN)
    }

    /// Requests as one of [`users::USERS`].
    pub fn client_for(&self, user: &str) -> Client {
        Client::new(self.address(), users::named(user))
    }

    /// Makes a namespace that no other test knows of.
    pub fn new_namespace(&self) -> String {
        static COUNT: AtomicUsize = AtomicUsize::new(1);
        let name = format!("test-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.admin().create("/api/v1/namespaces", &json!({ "metadata": { "name": name } })).expect("a new namespace");
        name
    }

    /// Lets `user` do what `rules` (those of an RBAC Role) say in `namespace`, and nothing else there.
    ///
    /// Returns once that is in force; no rules at all takes every right away.
    pub fn grant(&self, namespace: &str, user: &str, rules: Value) {
        let rbac = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}");
        let admin = self.admin();
        let role = format!("{rbac}/roles/{user}");
        let before = admin.get(&role).map(|role| role["rules"].clone());
        let metadata = json!({ "name": user, "namespace": namespace });
        admin.replace(&role, &json!({ "metadata": metadata, "rules": rules })).expect("a Role");
        let binding = json!({
            "metadata": metadata,
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": user },
            "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user }],
        });
        admin.replace(&format!("{rbac}/rolebindings/{user}"), &binding).expect("a RoleBinding");

        let granted = accesses(namespace, &rules);
        let mut revoked = accesses(namespace, &before.unwrap_or_default());
        revoked.retain(|access| !granted.contains(access));
        let client = self.client_for(user);
        wait_until_allowed(&client, namespace, &rules);
        for access in revoked {
            eventually(&format!("{user} may no longer {access}"), || !may(&client, &access));
        }
    }
}

/// Waits until the rules of a Role in `namespace` are in force for a client.
pub fn wait_until_allowed(client: &Client, namespace: &str, rules: &Value) {
    for access in accesses(namespace, rules) {
        eventually(&format!("it may {access}"), || may(client, &access));
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

/// The single accesses that the rules of a Role add up to.
fn accesses(namespace: &str, rules: &Value) -> Vec<Value> {
    let rules = rules.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut accesses = Vec::new();
    for rule in rules {
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
                for verb in texts(&rule["verbs"]) {
                    let names = texts(&rule["resourceNames"]);
                    for name in if names.is_empty() { vec![""] } else { names } {
                        accesses.push(json!({
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
    accesses
}

fn texts(array: &Value) -> Vec<&str> {
    let items = array.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(Value::as_str).collect()
}

fn may(client: &Client, access: &Value) -> bool {
    let review = json!({ "spec": { "resourceAttributes": access } });
    let review = client
        .create("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &review)
        .expect("a SelfSubjectAccessReview");
    review["status"]["allowed"] == true
}
