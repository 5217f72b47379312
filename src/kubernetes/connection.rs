//! The configuration of a connection to the API server: its address, how its certificate is verified, and the user.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::{fmt, io};

use hyper::Uri;
use hyper::http::uri::Scheme;
use serde_json::Value;

use super::credentials::files;
use super::proxy::Proxy;

/// The command-line options that select the cluster and the user.
#[derive(Clone, Debug, Default)]
pub struct ClusterOptions {
    pub kubeconfig: Option<Given<PathBuf>>,
    pub context: Option<Given<String>>,
    /// The user to act as.
    pub impersonate: Option<String>,
}

#[cfg(test)]
impl ClusterOptions {
    /// Returns the options for a kubeconfig that `--kubeconfig` names.
    pub fn of_kubeconfig(path: PathBuf) -> Self {
        let kubeconfig = Given { value: path, name: "--kubeconfig".to_owned() };
        Self { kubeconfig: Some(kubeconfig), ..Self::default() }
    }
}

/// A value with the option or the variable by which it was given, for messages.
#[derive(Clone, Debug)]
pub struct Given<T> {
    pub value: T,
    /// The name of the option, with its dashes, or of the variable.
    pub name: String,
}

impl<T> Given<T> {
    /// Returns how the option or the variable is written with this value: `--context x` or `NAME=x`.
    pub fn spelled_with(&self, value: impl fmt::Display) -> String {
        let separator = if self.name.starts_with('-') { ' ' } else { '=' };
        format!("{}{separator}{value}", self.name)
    }
}

/// The configuration of a connection, from a kubeconfig or a pod's service account.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectionConfig {
    /// The address of the API server: a scheme and a host, optionally a port, and optionally a path that is put in
    /// front of the paths of all requests.
    pub server: Uri,
    pub tls: TlsOptions,
    /// The proxy through which the server is reached.
    pub proxy: Option<Proxy>,
    pub user: UserOptions,
    /// The namespace for locks whose name does not include one.
    pub namespace: String,
    pub origin: ConfigOrigin,
}

impl ConnectionConfig {
    /// Returns whether connections to the server are encrypted.
    pub fn has_tls(&self) -> bool {
        self.server.scheme() == Some(&Scheme::HTTPS)
    }

    /// Returns whether both configurations name the same server. One of them may leave out the default port.
    pub fn has_same_server(&self, other: &Self) -> bool {
        let parts = |config: &Self| {
            let server = &config.server;
            let host = server.host().unwrap_or_default().to_ascii_lowercase();
            (config.has_tls(), host, config.port(), server.path().to_owned())
        };
        parts(self) == parts(other)
    }

    /// Checks that this configuration may replace the current one.
    ///
    /// # Errors
    /// Fails if the kubeconfig, the service account's `ca.crt` or the user's credentials are missing although the
    /// current configuration has them. Another program may be in the middle of writing the files.
    pub fn check_complete(&self, current: &Self) -> Result<(), ConfigError> {
        let is_service_account = |config: &Self| config.origin == ConfigOrigin::ServiceAccount;
        let reason = if is_service_account(self) && !is_service_account(current) {
            "the kubeconfig has become empty"
        } else if is_service_account(self) && self.tls.authority.is_none() && current.tls.authority.is_some() {
            "its ca.crt is missing"
        } else if !self.user.has_credentials() && current.user.has_credentials() {
            "its user no longer has credentials"
        } else {
            return Ok(());
        };
        Err(ConfigError::new(&current.origin, reason))
    }

    /// Returns the port of the API server.
    pub fn port(&self) -> u16 {
        self.server.port_u16().unwrap_or(if self.has_tls() { 443 } else { 80 })
    }

    /// Returns the address of the API server, for messages.
    pub fn address(&self) -> String {
        let address = self.server.to_string();
        if self.server.path() == "/" { address.trim_end_matches('/').to_owned() } else { address }
    }
}

/// The options for verifying the server's certificate.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// The trusted certificate authorities, as PEM; `None` for those of the system.
    pub authority: Option<Source>,
    /// The name in the server's certificate, if it differs from the host of the address.
    pub server_name: Option<String>,
    /// Whether the server's certificate is accepted without verification.
    pub insecure: bool,
}

/// The user that requests are sent as.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct UserOptions {
    /// The client certificate and its key, as PEM.
    pub certificate: Option<ClientCertificate>,
    pub token: Option<TokenSource>,
    pub basic: Option<BasicCredentials>,
    pub exec: Option<ExecPlugin>,
    pub impersonation: Option<Impersonation>,
}

impl UserOptions {
    fn has_credentials(&self) -> bool {
        self.certificate.is_some() || self.token.is_some() || self.basic.is_some() || self.exec.is_some()
    }
}

/// Describes the credentials, without secrets, in words that can follow "the API server rejects".
impl fmt::Display for UserOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { certificate, token, basic, exec, .. } = self;
        match (token, basic, certificate, exec) {
            (Some(token), ..) => token.fmt(f),
            (None, Some(basic), ..) => write!(f, "the password of user {:?}", basic.username),
            (None, None, Some(pair), _) => write!(f, "the client certificate in {}", pair.certificate),
            (None, None, None, Some(exec)) => write!(f, "the credentials from the plugin {}", exec.command.display()),
            (None, None, None, None) => f.write_str("a request without credentials"),
        }
    }
}

/// The places that a client certificate and its key are read from.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    pub certificate: Source,
    pub key: Source,
}

/// The place that a part of a configuration is read from.
#[derive(Clone, PartialEq, Eq)]
pub enum Source {
    /// A file, whose contents may change.
    File(PathBuf),
    /// The decoded value of a `…-data` field of the kubeconfig.
    Data(Vec<u8>),
}

impl Source {
    /// Returns the current contents.
    ///
    /// # Errors
    /// Fails if the file cannot be read.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        match self {
            Self::File(path) => files::read(path),
            Self::Data(data) => Ok(data.clone()),
        }
    }
}

/// Describes where the part is stored, for messages, without its contents.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Data(_) => f.write_str("the kubeconfig"),
        }
    }
}

/// The places that a bearer token is read from. The fixed token is used if there is no file, and while the file cannot
/// be read or is empty.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenSource {
    pub file: Option<PathBuf>,
    pub fixed: Option<String>,
}

/// Describes where the token is stored, for messages, without the token.
impl fmt::Display for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "the token in {}", file.display()),
            None => f.write_str("the token in the kubeconfig"),
        }
    }
}

/// A user name and a password.
#[derive(Clone, PartialEq, Eq)]
pub struct BasicCredentials {
    pub username: String,
    pub password: String,
}

/// A program that prints credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct ExecPlugin {
    /// The path of the program, or a name that is looked up in `PATH`.
    pub command: PathBuf,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub version: PluginVersion,
    pub interactive_mode: InteractiveMode,
    /// The hint for users that is shown if the plugin fails. It usually says how to install the program.
    pub install_hint: Option<String>,
    /// Whether `KUBERNETES_EXEC_INFO` includes a description of the cluster.
    pub provide_cluster_info: bool,
    /// The cluster's extension `client.authentication.k8s.io/exec`, which `KUBERNETES_EXEC_INFO` includes in its
    /// description of the cluster.
    pub cluster_config: Option<Value>,
}

/// The version of the protocol that a plugin speaks. Kubernetes 1.24 removed v1alpha1.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum PluginVersion {
    V1,
    V1Beta1,
}

impl PluginVersion {
    const ALL: [Self; 2] = [Self::V1, Self::V1Beta1];

    /// Parses the group and version, as in `apiVersion`; `None` if leaderrun does not support it.
    pub fn parse(api_version: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.api_version() == api_version)
    }

    /// Returns the group and version, as in `apiVersion`.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "client.authentication.k8s.io/v1",
            Self::V1Beta1 => "client.authentication.k8s.io/v1beta1",
        }
    }
}

/// The `interactiveMode` of a plugin: whether it may use the terminal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum InteractiveMode {
    Never,
    IfAvailable,
    Always,
}

/// The user to act as.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Impersonation {
    pub user: String,
    pub uid: Option<String>,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

/// The files, or the service account, that a configuration was read from.
#[derive(Clone, PartialEq, Eq)]
pub enum ConfigOrigin {
    Kubeconfig {
        /// The kubeconfig files that were merged.
        files: Vec<PathBuf>,
        context: String,
    },
    ServiceAccount,
}

impl ConfigOrigin {
    /// Returns the kubeconfig files that were read.
    pub fn files(&self) -> &[PathBuf] {
        match self {
            Self::Kubeconfig { files, .. } => files,
            Self::ServiceAccount => &[],
        }
    }
}

impl fmt::Display for ConfigOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kubeconfig { files, context } => {
                let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
                write!(f, "kubeconfig {}, context {context:?}", files.join(":"))
            }
            Self::ServiceAccount => f.write_str("the pod's service account"),
        }
    }
}

/// The reason why a configuration cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The part that cannot be used: an option, a file, or an entry of a file.
    pub subject: String,
    pub reason: String,
}

impl ConfigError {
    pub fn new(subject: impl fmt::Display, reason: impl fmt::Display) -> Self {
        Self { subject: subject.to_string(), reason: reason.to_string() }
    }

    /// Returns the error with `whole` in front, for example the file that contains the subject.
    pub fn within(self, whole: impl fmt::Display) -> Self {
        Self::new(whole, self)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.reason)
    }
}

impl std::error::Error for ConfigError {}
