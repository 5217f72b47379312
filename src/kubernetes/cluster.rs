//! The clients: how the API server is reached.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use http_body_util::BodyExt;
use hyper::body::Bytes;
use hyper::{Request, Response};
use kube::client::{Body, ClientBuilder};
use kube::config::{ExecAuthCluster, ExecConfig, ExecInteractiveMode};
use kube::{Client, Config};
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tower::util::MapResponseLayer;

use super::connection::{
    BasicCredentials, ClientCertificate, ConnectionConfig, ExecPlugin, Impersonation, InteractiveMode, Source,
    TokenSource,
};
use super::error::Error;
use super::kubeconfig;
use super::proxy::ProxyProtocol;
use super::response_limit;

/// What the command line says about the cluster.
#[derive(Clone, Debug, Default)]
pub struct ClusterOptions {
    pub kubeconfig: Option<PathBuf>,
    pub context: Option<String>,
    /// The user to act as.
    pub impersonate: Option<String>,
}

/// A cluster, with one client for the record's requests and another for the watch: a request that was
/// given up closes its connection, and the next one must not find another that is as dead.
#[derive(Clone)]
pub struct Cluster {
    config: Config,
    requests: Client,
    watches: Arc<Mutex<Option<PendingClient>>>,
    connect_timeout: Duration,
}

/// A client that is being made, or was.
type PendingClient = Shared<BoxFuture<'static, Result<Client, String>>>;

impl Cluster {
    /// Finds out how to reach the API server; connects when the first request is sent. `attempt` is
    /// how long one request may take.
    ///
    /// # Errors
    /// When the kubeconfig cannot be used, or there is none and this is no pod either.
    pub async fn from_options(options: ClusterOptions, attempt: Duration) -> Result<Self> {
        let connection = spawn_blocking(move || kubeconfig::load(&options)).await??;
        let mut config = kube_config(&connection).with_context(|| connection.origin.to_string())?;
        // The election decides when to try again.
        config.default_retry = false;
        // The election closes a connection that it gives up, so this limit is only for what it does not wait for.
        let connect_timeout = attempt * 2;
        config.connect_timeout = Some(connect_timeout);
        let requests = client(&config, Limit::Whole).await?;
        Ok(Self { config, requests, watches: Arc::default(), connect_timeout })
    }

    /// The namespace where a lock names none.
    pub fn default_namespace(&self) -> &str {
        &self.config.default_namespace
    }

    /// Where the API server is.
    pub fn address(&self) -> String {
        self.config.cluster_url.to_string()
    }

    /// The API server's host and port.
    pub fn host_and_port(&self) -> (String, u16) {
        let url = &self.config.cluster_url;
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
        (host.to_owned(), url.port_u16().unwrap_or(443))
    }

    /// The client for single requests.
    pub fn requests(&self) -> Client {
        self.requests.clone()
    }

    /// Sends a request and returns the answer to it, whatever it says.
    pub async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Bytes>, Error> {
        let failed = |failure: kube::Error| Error::of_client(&failure);
        let (head, body) = self.requests.send(request.map(Body::from)).await.map_err(failed)?.into_parts();
        let body = body.collect().await.map_err(failed)?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }

    /// Returns whether a namespace is known not to exist: whoever may not read it does not know.
    pub async fn lacks_namespace(&self, name: &str) -> bool {
        let Ok(request) = Request::get(format!("/api/v1/namespaces/{name}")).body(Vec::new()) else { return false };
        let answer = timeout(self.connect_timeout, self.send(request)).await;
        answer.is_ok_and(|answer| answer.is_ok_and(|answer| answer.status() == 404))
    }

    /// Made when first needed, and only once, however often it is asked for meanwhile: a credential plugin runs once
    /// more for it, and may hang.
    pub async fn watches(&self) -> Result<Client, Error> {
        let pending = self.pending().get_or_insert_with(|| pending_client(self.config.clone())).clone();
        // The plugin goes on meanwhile, and the next watch waits for the same one.
        let reason = match timeout(self.connect_timeout, pending).await {
            Ok(Ok(client)) => return Ok(client),
            Ok(Err(reason)) => {
                *self.pending() = None;
                reason
            }
            Err(_) => "the kubeconfig's credential plugin does not answer".to_owned(),
        };
        Err(Error::unknown(reason))
    }

    fn pending(&self) -> MutexGuard<'_, Option<PendingClient>> {
        self.watches.lock().expect("nothing panics while it is held")
    }
}

fn pending_client(config: Config) -> PendingClient {
    async move { client(&config, Limit::Lines).await.map_err(|failure| format!("{failure:#}")) }.boxed().shared()
}

/// Returns the configuration in kube's terms.
fn kube_config(from: &ConnectionConfig) -> Result<Config> {
    let ConnectionConfig { server, tls, proxy, user, namespace, .. } = from;
    let read = |source: &Source| source.read().with_context(|| format!("cannot read {source}"));
    let mut config = Config::new(server.clone());
    if let Some(authority) = &tls.authority {
        let pem = read(authority)?;
        let certificates = CertificateDer::pem_slice_iter(&pem).map(|certificate| Ok(certificate?.to_vec()));
        config.root_cert = Some(certificates.collect::<Result<_>>().context("the certificate authority")?);
    }
    config.accept_invalid_certs = tls.insecure;
    config.tls_server_name.clone_from(&tls.server_name);
    config.default_namespace.clone_from(namespace);
    if let Some(proxy) = proxy {
        let scheme = match proxy.protocol {
            ProxyProtocol::Http => "http",
            ProxyProtocol::Https => "https",
            ProxyProtocol::Socks5 => "socks5",
        };
        let host = if proxy.host.contains(':') { format!("[{}]", proxy.host) } else { proxy.host.clone() };
        let encoded = |text: &str| percent_encode(text.as_bytes(), NON_ALPHANUMERIC).to_string();
        let credentials = proxy.credentials.as_ref();
        let credentials = credentials.map(|(user, password)| format!("{}:{}@", encoded(user), encoded(password)));
        let url = format!("{scheme}://{}{host}:{}", credentials.unwrap_or_default(), proxy.port);
        config.proxy_url = Some(url.parse().with_context(|| format!("cannot use the proxy {proxy}"))?);
    }
    if let Some(ClientCertificate { certificate, key }) = &user.certificate {
        config.auth_info.client_certificate_data = Some(BASE64_STANDARD.encode(read(certificate)?));
        config.auth_info.client_key_data = Some(BASE64_STANDARD.encode(read(key)?).into());
    }
    if let Some(TokenSource { file, fixed }) = &user.token {
        config.auth_info.token_file = file.as_ref().map(|file| file.display().to_string());
        config.auth_info.token = fixed.clone().filter(|_| file.is_none()).map(Into::into);
    }
    if let Some(BasicCredentials { username, password }) = &user.basic {
        config.auth_info.username = Some(username.clone());
        config.auth_info.password = Some(password.clone().into());
    }
    if let Some(impersonation) = &user.impersonation {
        config.auth_info.impersonate = Some(impersonation.user.clone());
        config.auth_info.impersonate_groups = Some(impersonation.groups.clone());
        for (name, values) in headers_beside_kube(impersonation) {
            config.headers.push((name.parse()?, values.parse()?));
        }
    }
    config.auth_info.exec = user.exec.as_ref().map(|plugin| exec_config(plugin, from));
    Ok(config)
}

/// Returns the headers of an impersonation that kube does not send.
fn headers_beside_kube(Impersonation { uid, extra, .. }: &Impersonation) -> Vec<(String, String)> {
    let uid = uid.iter().map(|uid| ("impersonate-uid".to_owned(), uid.clone()));
    let extra = extra.iter().flat_map(|(key, values)| {
        let name = format!("impersonate-extra-{}", percent_encode(key.as_bytes(), NON_ALPHANUMERIC));
        values.iter().map(move |value| (name.clone(), value.clone()))
    });
    uid.chain(extra).collect()
}

fn exec_config(plugin: &ExecPlugin, connection: &ConnectionConfig) -> ExecConfig {
    let variable = |(name, value): &(String, String)| {
        HashMap::from([("name".to_owned(), name.clone()), ("value".to_owned(), value.clone())])
    };
    ExecConfig {
        api_version: Some(plugin.api_version.clone()),
        command: Some(plugin.command.display().to_string()),
        args: Some(plugin.args.clone()),
        env: Some(plugin.env.iter().map(variable).collect()),
        drop_env: None,
        install_hint: plugin.install_hint.clone(),
        interactive_mode: Some(match plugin.interactive_mode {
            InteractiveMode::Never => ExecInteractiveMode::Never,
            InteractiveMode::IfAvailable => ExecInteractiveMode::IfAvailable,
            InteractiveMode::Always => ExecInteractiveMode::Always,
        }),
        provide_cluster_info: plugin.provide_cluster_info,
        cluster: plugin.provide_cluster_info.then(|| ExecAuthCluster {
            server: Some(connection.server.to_string()),
            insecure_skip_tls_verify: Some(connection.tls.insecure),
            certificate_authority_data: connection.tls.authority.as_ref().and_then(|authority| authority.read().ok()),
            proxy_url: None,
            tls_server_name: connection.tls.server_name.clone(),
            config: plugin.cluster_config.clone(),
        }),
        other: BTreeMap::new(),
    }
}

/// What of an answer is limited; see [`response_limit`].
#[derive(Clone, Copy)]
enum Limit {
    Whole,
    Lines,
}

async fn client(config: &Config, limit: Limit) -> Result<Client> {
    match config.auth_info.exec {
        None => build(config, limit),
        // A credential plugin takes its time, and may ask somebody.
        Some(_) => {
            let config = config.clone();
            spawn_blocking(move || build(&config, limit)).await?
        }
    }
}

fn build(config: &Config, limit: Limit) -> Result<Client> {
    let client = ClientBuilder::try_from(config.clone()).context("cannot prepare a connection to the API server")?;
    Ok(match limit {
        Limit::Whole => client.with_layer(&MapResponseLayer::new(response_limit::whole)).build(),
        Limit::Lines => client.with_layer(&MapResponseLayer::new(response_limit::lines)).build(),
    })
}
