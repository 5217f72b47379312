//! Resolves a context of a kubeconfig to a [`ConnectionConfig`].

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::Value;

use super::super::connection::{
    BasicCredentials, ClientCertificate, ConfigError, ConfigOrigin, ConnectionConfig, ExecPlugin, Given, Impersonation,
    InteractiveMode, PluginVersion, Source, TlsOptions, TokenSource, UserOptions,
};
use super::super::proxy::{Proxy, ProxyOrigin};
use super::file::{AuthProvider, Base64, Cluster, Exec, NamedExtension, User};
use super::merge::{Entry, MergedKubeconfig};
use super::server::{self, ServerAddress};

/// The remedy for a missing or unknown `interactiveMode`.
const INTERACTIVE_MODES: &str = "use Never, IfAvailable or Always";

/// The name of the cluster extension that is passed to credential plugins.
const EXEC_EXTENSION: &str = "client.authentication.k8s.io/exec";

impl MergedKubeconfig {
    /// Returns the configuration of the context with this name, or of the current context.
    ///
    /// # Errors
    /// Fails if there is no such context, or if a part of it cannot be used.
    pub fn connection(&self, context: Option<&Given<String>>) -> Result<ConnectionConfig, ConfigError> {
        let files: Vec<String> = self.paths().iter().map(|path| path.display().to_string()).collect();
        let files = format!("kubeconfig {}", files.join(":"));
        let name = context.map(|context| context.value.as_str());
        let name = name.or_else(|| self.current_context()).unwrap_or_default();
        let Some(Entry { value: chosen, .. }) = self.context(name) else {
            return Err(match context {
                Some(context) => {
                    let subject = context.spelled_with(format_args!("{name:?}"));
                    ConfigError::new(subject, self.no_such_context(Some(context)))
                }
                None if name.is_empty() => ConfigError::new(files, self.no_current_context()),
                None => ConfigError::new(format_args!("{files}: current-context {name:?}"), self.no_such_context(None)),
            });
        };
        let origin = ConfigOrigin::Kubeconfig { files: self.paths(), context: name.to_owned() };
        let refused = |reason: String| ConfigError::new(&origin, reason);

        let cluster_name = chosen.cluster.as_deref().unwrap_or_default();
        let cluster = self.cluster(cluster_name);
        let cluster = cluster.ok_or_else(|| refused(format!("it has no cluster {cluster_name:?}")))?;
        let server = trimmed(&cluster.value.server);
        let server = server.ok_or_else(|| refused(format!("cluster {cluster_name:?} has no server")))?;
        let has_scheme = server.contains("://");
        let server = server::parse(&server).map_err(|reason| refused(format!("cluster {cluster_name:?}: {reason}")))?;
        let ServerAddress { server, credentials } = server;
        let proxy = match trimmed(&cluster.value.proxy_url) {
            Some(url) => {
                let proxy = Proxy::parse(&url, ProxyOrigin::Kubeconfig);
                Some(proxy.map_err(|reason| refused(format!("the proxy-url cannot be used: {reason}")))?)
            }
            None => Proxy::from_environment(&server).map_err(refused)?,
        };

        let user_name = chosen.user.as_deref().unwrap_or_default();
        let mut user = match self.user(user_name) {
            // Without a scheme the connection has no TLS, which may be a mistake. Like kubectl, leaderrun sends no
            // secrets in this case.
            _ if !has_scheme => UserOptions::default(),
            None if user_name.is_empty() => UserOptions::default(),
            None => return Err(refused(format!("it has no user {user_name:?}"))),
            Some(user) => {
                user_options(&user, cluster.value).map_err(|reason| refused(format!("user {user_name:?}: {reason}")))?
            }
        };
        if let Some(basic) = credentials.filter(|_| has_scheme) {
            (user.token, user.basic) = (None, Some(basic));
        }
        let tls = tls_options(&cluster);
        let namespace = trimmed(&chosen.namespace).unwrap_or_else(|| "default".to_owned());
        let config = ConnectionConfig { server, tls, proxy, user, namespace, origin };
        if config.has_tls() && config.tls.insecure && config.tls.authority.is_some() {
            let reason = "it has both a certificate authority and insecure-skip-tls-verify; remove one of them";
            return Err(ConfigError::new(&config.origin, format_args!("cluster {cluster_name:?}: {reason}")));
        }
        Ok(config)
    }

    /// Returns the error text, including a remedy, for a kubeconfig without a current context.
    fn no_current_context(&self) -> String {
        match self.context_names().next() {
            Some(known) => format!("it has no current-context; try --context {known:?}"),
            None => "it has no contexts; use another kubeconfig".to_owned(),
        }
    }

    /// Returns the error text, including a remedy, for a context that does not exist. `context` is the option or
    /// variable that names the context; `None` for the current context.
    fn no_such_context(&self, context: Option<&Given<String>>) -> String {
        let with = |known: &str| match context {
            Some(context) => context.spelled_with(format_args!("{known:?}")),
            None => format!("--context {known:?}"),
        };
        match self.context_names().next() {
            Some(known) => format!("the kubeconfig has no such context; try {}", with(known)),
            None => "the kubeconfig has no contexts; use another kubeconfig".to_owned(),
        }
    }
}

/// Returns the value of a field without surrounding whitespace, if it is set.
fn trimmed(field: &Option<String>) -> Option<String> {
    field.as_deref().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
}

/// Resolves a path that a kubeconfig in `directory` contains. As in Go, `..` removes the part before it, even if that
/// part does not exist or is a symbolic link.
fn resolved(directory: &Path, path: &str) -> PathBuf {
    if Path::new(path).is_absolute() {
        return PathBuf::from(path);
    }
    let mut resolved = PathBuf::new();
    for part in directory.join(path).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(resolved.pop()),
            other => resolved.push(other),
        }
    }
    resolved
}

/// Returns where a value is stored. Data in the kubeconfig takes precedence over a file.
fn source(file: &Option<String>, data: &Option<Base64>, directory: &Path) -> Option<Source> {
    let data = data.as_ref().filter(|Base64(data)| !data.is_empty());
    let file = || trimmed(file).map(|file| Source::File(resolved(directory, &file)));
    data.map(|Base64(data)| Source::Data(data.clone())).or_else(file)
}

fn tls_options(Entry { value: cluster, directory }: &Entry<'_, Cluster>) -> TlsOptions {
    TlsOptions {
        authority: source(&cluster.certificate_authority, &cluster.certificate_authority_data, directory),
        server_name: trimmed(&cluster.tls_server_name),
        insecure: cluster.insecure_skip_tls_verify.unwrap_or_default(),
    }
}

fn user_options(Entry { value: user, directory }: &Entry<'_, User>, cluster: &Cluster) -> Result<UserOptions, String> {
    let certificate = source(&user.client_certificate, &user.client_certificate_data, directory);
    let key = source(&user.client_key, &user.client_key_data, directory);
    let certificate = match (certificate, key) {
        (Some(certificate), Some(key)) => Some(ClientCertificate { certificate, key }),
        (Some(_), None) => return Err("it has a client certificate without client-key or client-key-data".to_owned()),
        (None, _) => None,
    };
    let (file, fixed) = (trimmed(&user.token_file).map(|file| resolved(directory, &file)), trimmed(&user.token));
    let token = (file.is_some() || fixed.is_some()).then_some(TokenSource { file, fixed });
    let (username, password) = (trimmed(&user.username), user.password.clone().unwrap_or_default());
    let basic = (username.is_some() || !password.is_empty())
        .then(|| BasicCredentials { username: username.unwrap_or_default(), password });
    if token.is_some() && basic.is_some() {
        return Err("it has both a token and a user name with a password; remove one of them".to_owned());
    }
    let token =
        token.map_or_else(|| user.auth_provider.as_ref().map(oidc_token).transpose(), |token| Ok(Some(token)))?;
    if user.exec.is_some() && user.auth_provider.is_some() {
        return Err("it has both an exec plugin and an auth-provider; remove one of them".to_owned());
    }
    let exec = user.exec.as_ref().map(|exec| exec_plugin(exec, directory, cluster)).transpose()?;
    Ok(UserOptions { certificate, token, basic, exec, impersonation: impersonation(user)? })
}

/// Returns the token that kubectl stored for an OpenID Connect provider. leaderrun does not refresh it.
fn oidc_token(AuthProvider { name, config }: &AuthProvider) -> Result<TokenSource, String> {
    let id_token = config.as_ref().and_then(|config| trimmed(&config.get("id-token").cloned()));
    match (trimmed(name).as_deref(), id_token) {
        (Some("oidc"), Some(token)) => {
            check_id_token(&token).map_err(|reason| format!("the id-token of its auth-provider \"oidc\" {reason}"))?;
            Ok(TokenSource { file: None, fixed: Some(token) })
        }
        (name, _) => {
            let name = name.unwrap_or_default();
            Err(format!("leaderrun cannot use its auth-provider {name:?}; use an exec plugin instead"))
        }
    }
}

/// Checks that an OpenID Connect token has an expiry time and has not expired. The error is a predicate whose subject
/// is the token, such as `expired at …`.
fn check_id_token(token: &str) -> Result<(), String> {
    let claims = token.split('.').nth(1).and_then(|claims| BASE64_URL_SAFE_NO_PAD.decode(claims).ok());
    let claims = claims.and_then(|claims| serde_json::from_slice::<Value>(&claims).ok());
    let expires = claims.and_then(|claims| Timestamp::from_second(claims["exp"].as_i64()?).ok());
    match expires {
        None => Err("is not a JSON Web Token with an expiry time".to_owned()),
        Some(expires) if expires <= Timestamp::now() => {
            Err(format!("expired at {expires}, and leaderrun does not refresh it; use an exec plugin instead"))
        }
        Some(_) => Ok(()),
    }
}

fn impersonation(user: &User) -> Result<Option<Impersonation>, String> {
    let (uid, groups) = (trimmed(&user.as_uid), user.as_groups.clone().unwrap_or_default());
    let extra = user.as_user_extra.iter().flatten();
    let extra: BTreeMap<_, _> = extra.map(|(key, values)| (key.clone(), values.clone().unwrap_or_default())).collect();
    match trimmed(&user.impersonate) {
        Some(user) => Ok(Some(Impersonation { user, uid, groups, extra })),
        None if uid.is_none() && groups.is_empty() && extra.is_empty() => Ok(None),
        None => Err("it has as-uid, as-groups or as-user-extra, but its field \"as\" names no user".to_owned()),
    }
}

fn exec_plugin(exec: &Exec, directory: &Path, cluster: &Cluster) -> Result<ExecPlugin, String> {
    let command = trimmed(&exec.command).ok_or("its exec plugin has no command")?;
    // A name without a slash is looked up in PATH.
    let command = if command.contains('/') { resolved(directory, &command) } else { PathBuf::from(command) };
    let api_version = trimmed(&exec.api_version).ok_or("its exec plugin has no apiVersion")?;
    let version = PluginVersion::parse(&api_version).ok_or_else(|| {
        let known = PluginVersion::V1.api_version();
        format!("its exec plugin has an unknown apiVersion {api_version:?}; use {known:?}")
    })?;
    let interactive_mode = match trimmed(&exec.interactive_mode).as_deref() {
        Some("Never") => InteractiveMode::Never,
        Some("Always") => InteractiveMode::Always,
        Some("IfAvailable") => InteractiveMode::IfAvailable,
        None if version == PluginVersion::V1 => {
            return Err(format!("its exec plugin has no interactiveMode, which v1 requires; {INTERACTIVE_MODES}"));
        }
        None => InteractiveMode::IfAvailable,
        Some(other) => {
            return Err(format!("its exec plugin has an unknown interactiveMode {other:?}; {INTERACTIVE_MODES}"));
        }
    };
    let mut env = Vec::new();
    for variable in exec.env.iter().flatten() {
        let name = trimmed(&variable.name).ok_or("its exec plugin has a variable without a name")?;
        env.push((name, variable.value.clone().unwrap_or_default()));
    }
    let is_for_plugins = |extension: &&NamedExtension| extension.name.as_deref() == Some(EXEC_EXTENSION);
    let extension = cluster.extensions.iter().flatten().find(is_for_plugins);
    Ok(ExecPlugin {
        command,
        args: exec.args.clone().unwrap_or_default(),
        env,
        version,
        interactive_mode,
        install_hint: trimmed(&exec.install_hint),
        provide_cluster_info: exec.provide_cluster_info.unwrap_or_default(),
        cluster_config: extension.and_then(|extension| extension.extension.clone()),
    })
}
