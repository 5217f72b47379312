//! Requests for the objects of one kind in one namespace or in all namespaces, as JSON.

use std::fmt;
use std::time::Duration;

use futures_util::stream::{Stream, StreamExt};
use hyper::header::{ACCEPT, CONTENT_TYPE};
use hyper::{Method, Request, StatusCode};
use kube::core::WatchEvent;
use serde_json::Value;
use tokio::time::timeout;

use super::cluster::Cluster;
use super::error::{Error, ErrorKind};
use super::rbac::Verb;
use super::resource::Resource;

/// How long the API server keeps a watch open, in seconds. kube has the same default.
const WATCH_SECONDS: u32 = 290;

/// The maximum number of objects in one page of a list. The page size is reduced if a response is too large.
const MAX_PAGE_SIZE: u32 = 500;

/// The page size is divided by this number when a response is too large.
const PAGE_REDUCTION: u32 = 4;

const JSON: &str = "application/json";
/// The format of a list that contains only the metadata of each object. A server that does not support this format
/// sends whole objects.
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
const MERGE_PATCH: &str = "application/merge-patch+json";

/// The query parameter that names leaderrun in the `managedFields` of an object.
const FIELD_MANAGER: &str = "?fieldManager=leaderrun";

/// The objects of one kind in one namespace, or in all namespaces if `namespace` is empty.
#[derive(Clone)]
pub struct Collection {
    cluster: Cluster,
    resource: &'static Resource,
    namespace: String,
    timeout: Option<Duration>,
    /// The format that is requested for lists.
    list_format: &'static str,
}

/// An event from the watch on an object.
#[derive(Clone, Debug)]
pub enum ObjectEvent {
    /// The object was created or changed, and this is its current state.
    Changed(Value),
    Deleted,
    /// The object has not changed. The next watch can start from this version.
    Bookmark {
        resource_version: String,
    },
}

impl Collection {
    /// Returns a handle to the objects of one kind in a namespace, or in all namespaces if `namespace` is empty.
    /// Requests have no timeout until one is [set](Self::with_timeout). A request ends when its future is dropped.
    pub fn new(cluster: &Cluster, resource: &'static Resource, namespace: &str) -> Self {
        Self { cluster: cluster.clone(), resource, namespace: namespace.to_owned(), timeout: None, list_format: JSON }
    }

    /// Returns the cause if requests have been held up for more than a second before they could be sent.
    pub fn waiting_for(&self) -> Option<String> {
        self.cluster.waiting_for()
    }

    /// Sets the timeout of each request. It does not apply to watches, not even while they are being opened.
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self }
    }

    /// Requests only the metadata of objects in lists.
    pub fn with_metadata_lists(self) -> Self {
        Self { list_format: METADATA_LIST, ..self }
    }

    /// Returns the object with this name, if it exists.
    pub async fn get(&self, name: &str) -> Result<Option<Value>, Error> {
        match self.send(Verb::Get, name, Method::GET, &format!("/{name}"), None).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns all objects that `is_wanted` accepts. They are requested in pages, which become smaller if a response is
    /// too large.
    pub async fn list(&self, is_wanted: fn(&Value) -> bool) -> Result<Vec<Value>, Error> {
        let (mut objects, mut start, mut page_size) = (Vec::new(), String::new(), MAX_PAGE_SIZE);
        loop {
            let page = format!("?limit={page_size}{start}");
            let mut list = match self.send(Verb::List, "", Method::GET, &page, None).await {
                Err(error) if error.kind == ErrorKind::TooLarge && page_size > 1 => {
                    page_size = (page_size / PAGE_REDUCTION).max(1);
                    continue;
                }
                list => list?,
            };
            if let Value::Array(items) = list["items"].take() {
                objects.extend(items.into_iter().filter(|object| is_object(object) && is_wanted(object)));
            }
            match list["metadata"]["continue"].as_str() {
                Some(next) if !next.is_empty() => start = format!("&continue={next}"),
                _ => return Ok(objects),
            }
        }
    }

    /// Returns the objects that match a label selector, with a single request. The selector must be URL-encoded.
    pub async fn list_matching(&self, selector: &str) -> Result<Vec<Value>, Error> {
        let list = self.send(Verb::List, "", Method::GET, &format!("?labelSelector={selector}"), None).await?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        Ok(items.into_iter().filter(is_object).collect())
    }

    /// Creates the object with this name, and returns the stored object.
    pub async fn create(&self, name: &str, object: &Value) -> Result<Value, Error> {
        self.send(Verb::Create, name, Method::POST, "", Some((JSON, object))).await
    }

    /// Creates the object with a PUT to its path, and returns the stored object. The kind must support this: see
    /// [`Resource::created_by_put`].
    pub async fn create_by_put(&self, name: &str, object: &Value) -> Result<Value, Error> {
        self.send(Verb::Create, name, Method::PUT, &format!("/{name}"), Some((JSON, object))).await
    }

    /// Replaces the object if its resourceVersion is the one in `object`, and returns the stored object.
    pub async fn replace(&self, name: &str, object: &Value) -> Result<Value, Error> {
        self.send(Verb::Update, name, Method::PUT, &format!("/{name}"), Some((JSON, object))).await
    }

    /// Merges a patch into the object, and returns the stored object. A `null` in the patch removes a field.
    pub async fn merge(&self, name: &str, patch: &Value) -> Result<Value, Error> {
        self.send(Verb::Patch, name, Method::PATCH, &format!("/{name}"), Some((MERGE_PATCH, patch))).await
    }

    /// Watches the object with this name for changes since the resourceVersion `from`. If `from` is empty, the watch
    /// begins with the current state of the object.
    pub async fn watch(
        &self,
        name: &str,
        from: &str,
    ) -> Result<impl Stream<Item = Result<ObjectEvent, Error>> + use<>, Error> {
        let path = self.resource.path(&self.namespace);
        let selector = format!("fieldSelector=metadata.name%3D{name}");
        let options = format!("resourceVersion={from}&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECONDS}");
        let request = Request::get(format!("{path}?watch=true&{selector}&{options}")).body(Vec::new());
        let request = request.map_err(|invalid| Error::unknown(invalid.to_string()))?;
        let operation = self.operation(Verb::Watch, name);
        let (client, address) = (self.cluster.watches(), self.cluster.address());
        let events = client
            .request_events::<Value>(request)
            .await
            .map_err(|failure| operation.explain(Error::from_client(&failure, &address)))?;
        Ok(events.map(move |event| match event {
            Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) if is_object(&object) => {
                Ok(ObjectEvent::Changed(object))
            }
            Ok(WatchEvent::Added(_) | WatchEvent::Modified(_)) => {
                Err(Error::unknown(format!("cannot {operation}: an event does not contain an API object")))
            }
            Ok(WatchEvent::Deleted(_)) => Ok(ObjectEvent::Deleted),
            Ok(WatchEvent::Bookmark(bookmark)) => {
                Ok(ObjectEvent::Bookmark { resource_version: bookmark.metadata.resource_version })
            }
            // The usual reason is that the requested version is too old.
            Ok(WatchEvent::Error(status)) => {
                let error = Error::from_status(&status).context("the API server ended the watch");
                let is_too_old = status.code == StatusCode::GONE.as_u16();
                Err(Error { kind: if is_too_old { ErrorKind::Expired } else { ErrorKind::Unknown }, ..error })
            }
            Err(failure) => Err(operation.explain(Error::from_client(&failure, &address))),
        }))
    }

    async fn send(
        &self,
        verb: Verb,
        name: &str,
        method: Method,
        path_suffix: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<Value, Error> {
        let mut path = format!("{}{path_suffix}", self.resource.path(&self.namespace));
        if body.is_some() {
            path += FIELD_MANAGER;
        }
        let mut request = Request::builder().method(method).uri(&path);
        if let Some((content_type, _)) = body {
            request = request.header(CONTENT_TYPE, content_type);
        }
        if verb == Verb::List {
            request = request.header(ACCEPT, self.list_format);
        }
        let body = body.map(|(_, object)| object.to_string().into_bytes()).unwrap_or_default();
        let request = request.body(body).map_err(|invalid| Error::unknown(invalid.to_string()))?;
        let operation = self.operation(verb, name);
        let response = self.cluster.send(request);
        let response = match self.timeout {
            None => response.await,
            Some(limit) => match timeout(limit, response).await {
                Ok(response) => response,
                Err(_) => return Err(Error::unknown(format!("cannot {operation}: no response"))),
            },
        };
        let response = response
            .and_then(|response| self.cluster.read_response(&response))
            .map_err(|error| operation.explain(error))?;
        if verb == Verb::List || is_object(&response) {
            Ok(response)
        } else {
            Err(Error::unknown(format!("cannot {operation}: the response is not an API object")))
        }
    }

    fn operation(&self, verb: Verb, name: &str) -> Operation {
        Operation { verb, resource: self.resource, namespace: self.namespace.clone(), name: name.to_owned() }
    }
}

/// Returns whether the value has the structure of an API object. If so, its metadata can be read and written without
/// checks.
fn is_object(value: &Value) -> bool {
    let metadata = &value["metadata"];
    let is_map = |field: &str| metadata[field].is_null() || metadata[field].is_object();
    metadata.is_object() && is_map("labels") && is_map("annotations")
}

/// The verb and the object of a request, for messages.
struct Operation {
    verb: Verb,
    resource: &'static Resource,
    namespace: String,
    /// The name of the object; empty if the request is about all objects of the kind.
    name: String,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verb, resource, namespace, name } = self;
        match name.as_str() {
            "" if namespace.is_empty() => write!(f, "{verb} {resource} in all namespaces"),
            "" => write!(f, "{verb} {resource} in namespace {namespace:?}"),
            name => write!(f, "{verb} the {} {namespace}/{name}", resource.kind),
        }
    }
}

impl Operation {
    /// Prefixes the message of an error with this operation, which has failed. If RBAC refused the operation, the
    /// message names the missing permission instead.
    fn explain(&self, error: Error) -> Error {
        if !error.refused_by_rbac {
            return error.context(format_args!("cannot {self}"));
        }
        // A PUT requires the permission to `update`, and also to `create` if the object does not exist. The response
        // names the permission that is missing.
        let is_missing = |verb: &Verb| error.message.contains(&format!(" cannot {verb} "));
        let verb = [Verb::Create, Verb::Update].into_iter().find(is_missing).unwrap_or(self.verb);
        let Self { resource, namespace, name, .. } = self;
        let name = if name.is_empty() { String::new() } else { format!(" {name:?}") };
        let place = if namespace.is_empty() { "all namespaces".into() } else { format!("namespace {namespace:?}") };
        Error { message: format!("not allowed to {verb} {resource}{name} in {place}"), ..error }
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;
    use serde_json::json;

    use super::*;
    use crate::kubernetes::resource::LEASES;

    #[test]
    fn a_value_is_an_object_if_its_metadata_can_be_written() {
        for object in
            [json!({ "metadata": {} }), json!({ "metadata": { "labels": { "a": "b" }, "annotations": null } })]
        {
            assert!(is_object(&object), "{object}");
        }
        for other in [
            json!(null),
            json!([]),
            json!("x"),
            json!({}),
            json!({ "metadata": [] }),
            json!({ "metadata": { "annotations": "x" } }),
            json!({ "metadata": { "labels": [] } }),
        ] {
            assert!(!is_object(&other), "{other}");
        }
    }

    #[test]
    fn only_an_rbac_refusal_is_reported_as_a_missing_permission() {
        let create =
            Operation { verb: Verb::Create, resource: &LEASES, namespace: "default".into(), name: "job".into() };
        let refusal = |message: &str| {
            let status = Status { code: 403, message: message.into(), ..Status::default() };
            let Error { message, refused_by_rbac, .. } = create.explain(Error::from_status(&status));
            (message, refused_by_rbac)
        };
        let rbac = refusal("leases is forbidden: User \"u\" cannot update resource \"leases\" in API group \"\"");
        assert_eq!(
            rbac,
            ("not allowed to update leases.coordination.k8s.io \"job\" in namespace \"default\"".into(), true)
        );
        let quota = refusal("leases \"job\" is forbidden: exceeded quota: leases=1");
        let expected = "cannot create the Lease default/job: leases \"job\" is forbidden: exceeded quota: leases=1";
        assert_eq!(quota, (expected.into(), false));
    }
}
