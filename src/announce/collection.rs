//! The objects of one kind in one namespace, as JSON.

use std::fmt;
use std::time::Duration;

use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request};
use kube::Client;
use serde_json::Value;
use tokio::time::timeout;

use crate::lock::kubernetes::Cluster;
use crate::lock::{Rule, collection_path};
use crate::telemetry::log::printable;

/// A resource of the API, by the names that paths and Roles have for it.
#[derive(Clone, Copy, Debug)]
pub struct Resource {
    pub group: &'static str,
    pub plural: &'static str,
}

impl Resource {
    /// The right to do this with one object of it, or with all.
    pub fn rule(&self, namespace: &str, name: Option<String>, verbs: &'static [&'static str]) -> Rule {
        Rule { group: self.group, plural: self.plural, namespace: namespace.to_owned(), name, verbs }
    }
}

/// Why a request did not do what it should.
#[derive(Debug)]
pub enum Refusal {
    /// The object is not what it was when it was read.
    Conflict,
    /// There is no such object.
    Missing,
    /// Not allowed.
    Forbidden(String),
    /// Anything else, for people.
    Other(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict => f.write_str("it is changed by others all the time"),
            Self::Missing => f.write_str("it is gone"),
            Self::Forbidden(reason) | Self::Other(reason) => f.write_str(reason),
        }
    }
}

/// Objects of one kind in one namespace. Every request is given up after some time.
#[derive(Clone)]
pub struct Collection {
    client: Client,
    path: String,
    patience: Duration,
}

impl Collection {
    pub fn new(cluster: &Cluster, Resource { group, plural }: Resource, namespace: &str, patience: Duration) -> Self {
        Self { client: cluster.requests(), path: collection_path(group, namespace, plural), patience }
    }

    /// The object of that name, if there is one.
    pub async fn get(&self, name: &str) -> Result<Option<Value>, Refusal> {
        match self.ask(Method::GET, &format!("/{name}"), None).await {
            Ok(object) => Ok(Some(object)),
            Err(Refusal::Missing) => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// The objects that bear a label of this key, which needs no escape, as they are now.
    pub async fn labelled(&self, key: &str) -> Result<Vec<Value>, Refusal> {
        let list = self.ask(Method::GET, &format!("?labelSelector={key}"), None).await?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    pub async fn create(&self, object: &Value) -> Result<(), Refusal> {
        self.ask(Method::POST, "", Some(("application/json", object))).await.map(drop)
    }

    /// Replaces the object that has the version which stands in this one.
    pub async fn replace(&self, name: &str, object: &Value) -> Result<(), Refusal> {
        self.ask(Method::PUT, &format!("/{name}"), Some(("application/json", object))).await.map(drop)
    }

    /// Merges this into an object, where `null` removes. What it is then.
    pub async fn merge(&self, name: &str, patch: &Value) -> Result<Value, Refusal> {
        self.ask(Method::PATCH, &format!("/{name}"), Some(("application/merge-patch+json", patch))).await
    }

    async fn ask(&self, method: Method, rest: &str, body: Option<(&str, &Value)>) -> Result<Value, Refusal> {
        let path = format!("{}{rest}", self.path);
        let mut request = Request::builder().method(method.clone()).uri(&path);
        if let Some((content_type, _)) = body {
            request = request.header(CONTENT_TYPE, content_type);
        }
        let body = body.map(|(_, object)| object.to_string().into_bytes()).unwrap_or_default();
        let request = request.body(body).map_err(|failure| Refusal::Other(failure.to_string()))?;
        let what = || format!("cannot {method} {path}");
        match timeout(self.patience, self.client.request::<Value>(request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(kube::Error::Api(status))) => Err(match status.code {
                404 => Refusal::Missing,
                409 => Refusal::Conflict,
                403 => Refusal::Forbidden(printable(&status.message)),
                _ => Refusal::Other(format!("{}: {}", what(), printable(&status.message))),
            }),
            Ok(Err(failure)) => Err(Refusal::Other(format!("{}: {}", what(), printable(&failure.to_string())))),
            Err(_) => Err(Refusal::Other(format!("{}: no answer", what()))),
        }
    }
}
