//! The clients: how the API server is reached.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use http_body_util::BodyExt;
use hyper::body::Bytes;
use hyper::{Request, Response};
use kube::client::{Body, ClientBuilder};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tower::util::MapResponseLayer;

use super::error::Error;
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
        let mut config = find_config(&options).await?;
        if let Some(user) = options.impersonate {
            config.auth_info.impersonate = Some(user);
        }
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

async fn find_config(options: &ClusterOptions) -> Result<Config> {
    let ClusterOptions { kubeconfig, context, .. } = options;
    let select = KubeConfigOptions { context: context.clone(), ..KubeConfigOptions::default() };
    if kubeconfig.is_none() && context.is_none() {
        return Config::infer().await.context(
            "no way to the API server: neither a kubeconfig (--kubeconfig, KUBECONFIG, ~/.kube/config) nor a pod's service account is usable",
        );
    }
    let from = match kubeconfig {
        Some(path) => Kubeconfig::read_from(path).with_context(|| {
            format!("--kubeconfig {}: cannot be used; the path of a readable kubeconfig would do", path.display())
        })?,
        None => Kubeconfig::read().context("--context needs a kubeconfig, and none can be read")?,
    };
    if let Some(context) = context
        && !from.contexts.iter().any(|known| known.name == *context)
    {
        match &from.contexts[..] {
            [] => bail!("--context {context:?}: the kubeconfig has no contexts; a kubeconfig with one would do"),
            [first, ..] => {
                bail!("--context {context:?}: the kubeconfig has no such context; {:?} would do", first.name)
            }
        }
    }
    Config::from_custom_kubeconfig(from, &select).await.context("the kubeconfig cannot be used")
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
