//! The configuration from a pod's service account.

use std::net::IpAddr;
use std::path::Path;
use std::{env, fs};

use super::super::connection::{
    ConfigError, ConfigOrigin, ConnectionConfig, Source, TlsOptions, TokenSource, UserOptions,
};
use super::super::proxy::Proxy;
use super::server;

/// The environment variables in which the kubelet passes the address of the API server.
const HOST: &str = "KUBERNETES_SERVICE_HOST";
const PORT: &str = "KUBERNETES_SERVICE_PORT";

/// The directory into which the kubelet mounts the service account's token, CA certificate and namespace.
const DIRECTORY: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Returns the configuration with which this pod reaches its API server.
///
/// # Errors
/// Fails if leaderrun is not running in a pod, if the pod has no service account token, or if a required environment
/// variable is missing or invalid.
pub fn load() -> Result<ConnectionConfig, ConfigError> {
    let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
    let directory = Path::new(DIRECTORY);
    let token = directory.join("token");
    let address = [HOST, PORT].map(variable);
    let missing = [HOST, PORT].into_iter().zip(&address).filter(|(_, value)| value.is_none()).map(|(name, _)| name);
    let missing: Vec<&str> = missing.collect();
    let [Some(host), Some(port)] = address else {
        let reason = if missing.len() < 2 || token.exists() {
            format!(
                "this is a pod, but its environment lacks {}; pass on the container's variables, which cron, su and sudo \
                 may remove",
                missing.join(" and ")
            )
        } else {
            "there is no kubeconfig (--kubeconfig, KUBECONFIG, ~/.kube/config), and this is not a pod; \
             try --kubeconfig PATH"
                .to_owned()
        };
        return Err(ConfigError::new("cannot find the API server", reason));
    };
    if let Err(failure) = fs::metadata(&token) {
        let subject = format!("the pod's service account: {}", token.display());
        return Err(ConfigError::new(
            subject,
            format_args!("{failure}; set automountServiceAccountToken: true, or pass --kubeconfig PATH"),
        ));
    }
    let address = match host.parse() {
        Ok(IpAddr::V6(address)) => format!("https://[{address}]:{port}"),
        _ => format!("https://{host}:{port}"),
    };
    let server =
        server::parse(&address).map_err(|reason| ConfigError::new(format_args!("{HOST} and {PORT}"), reason))?.server;
    let origin = ConfigOrigin::ServiceAccount;
    let proxy = Proxy::from_environment(&server).map_err(|reason| ConfigError::new(&origin, reason))?;
    let authority = directory.join("ca.crt");
    Ok(ConnectionConfig {
        proxy,
        server,
        tls: TlsOptions { authority: authority.exists().then_some(Source::File(authority)), ..TlsOptions::default() },
        user: UserOptions { token: Some(TokenSource { file: Some(token), fixed: None }), ..UserOptions::default() },
        namespace: variable("POD_NAMESPACE").or_else(|| namespace(directory)).unwrap_or_else(|| "default".to_owned()),
        origin,
    })
}

fn namespace(directory: &Path) -> Option<String> {
    let namespace = fs::read_to_string(directory.join("namespace")).ok()?;
    Some(namespace.trim().to_owned()).filter(|namespace| !namespace.is_empty())
}
