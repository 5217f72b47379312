//! Handles requests: authenticates and authorizes them, and then calls `objects`, `watch`, `discovery` or
//! `access_review`.

use std::convert::Infallible;
use std::sync::Arc;

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request};
use kube::core::Status;
use serde_json::{Value, json};

use super::authentication::{self, Identity};
use super::behavior::Behavior;
use super::decode::UnknownFields;
use super::metadata::text;
use super::objects::{Objects, Patch};
use super::page::Page;
use super::request::{Access, Query, Target};
use super::resources::{self, ACCESS_REVIEW, Resource};
use super::selector::Selector;
use super::status::{self, Result};
use super::store::Store;
use super::{access_review, discovery, rbac, watch};

/// The body of a response: its complete content, or the stream of a watch.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

pub type Response = hyper::Response<Body>;

/// Handles a request, and returns the response.
pub async fn handle(store: Arc<Store>, behavior: Arc<Behavior>, request: Request<Incoming>) -> Response {
    let (head, body) = request.into_parts();
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return failure(&status::bad_request(error)),
    };
    let query = Query::parse(head.uri.query().unwrap_or_default());
    let request = CompleteRequest {
        target: Target::parse(&head.method, head.uri.path(), &query),
        store,
        behavior,
        method: head.method,
        query,
        headers: head.headers,
        body,
    };
    request.respond().unwrap_or_else(|status| failure(&status))
}

/// A request that has been received completely.
struct CompleteRequest {
    store: Arc<Store>,
    behavior: Arc<Behavior>,
    method: Method,
    query: Query,
    headers: HeaderMap,
    body: Bytes,
    target: Target,
}

impl CompleteRequest {
    fn respond(&self) -> Result<Response> {
        let user = authentication::identify(&self.store, &self.headers, &self.target)?;
        if !rbac::is_administrator(&user) && self.behavior.take_refusal() {
            return Err(rbac::forbidden(&user, &self.target));
        }
        rbac::authorize(&self.store, &user, &self.target)?;
        let access = match &self.target {
            Target::Path { path, .. } => {
                return Ok(discovery::respond(path).unwrap_or_else(not_found));
            }
            Target::Resource(access) => access,
        };
        let resource = (access.group.as_str(), access.resource.as_str());
        if resource == (ACCESS_REVIEW.group, ACCESS_REVIEW.plural) && self.method == Method::POST {
            let review = access_review::review(&self.store, &user, self.json()?)?;
            return Ok(json_response(201, &review));
        }
        if access.full_resource() == "serviceaccounts/token" && self.method == Method::POST {
            return self.create_token(access);
        }
        match resources::find(&access.group, &access.version, &access.resource) {
            Some(resource) if access.subresource.is_empty() => self.serve(&user, resource, access),
            _ if resources::has_group_version(&access.group, &access.version) => Err(status::no_such_resource()),
            _ => Ok(not_found()),
        }
    }

    /// Handles a TokenRequest. The requested lifetime is ignored: kubectl sends the request as protobuf, which this
    /// server does not decode.
    fn create_token(&self, Access { namespace, name, .. }: &Access) -> Result<Response> {
        let resource = resources::find("", "v1", "serviceaccounts").expect("service accounts are a resource");
        let (store, manager) = (&self.store, self.manager());
        let unknown_fields = UnknownFields::Drop;
        Objects { store, resource, namespace, manager: &manager, unknown_fields, dry_run: false }.get(name)?;
        let token = authentication::service_account_token(namespace, name);
        let token_request = json!({
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "status": { "token": token, "expirationTimestamp": "9999-12-31T23:59:59Z" },
        });
        Ok(json_response(201, &token_request))
    }

    fn serve(&self, user: &Identity, resource: &'static Resource, access: &Access) -> Result<Response> {
        let manager = self.manager();
        let objects = Objects {
            store: &self.store,
            resource,
            namespace: if resource.namespaced { &access.namespace } else { "" },
            manager: &manager,
            unknown_fields: match self.query.get("fieldValidation") {
                Some("Strict") => UnknownFields::Refuse,
                _ => UnknownFields::Drop,
            },
            dry_run: self.query.get("dryRun") == Some("All"),
        };
        let in_all_namespaces = resource.namespaced && access.namespace.is_empty();
        let name = access.name.as_str();
        match access.verb.as_str() {
            "list" => self.list(&objects),
            "watch" => self.watch(&objects),
            "get" if !in_all_namespaces => {
                self.check_version(self.store.revision())?;
                Ok(json_response(200, &objects.get(name)?))
            }
            "create" if !in_all_namespaces && name.is_empty() => {
                let mut object = self.json()?;
                self.behavior.admit(&mut object);
                Ok(json_response(201, &objects.create(object)?))
            }
            "update" if !in_all_namespaces && !name.is_empty() => {
                // RBAC reads the store, so this check comes before the update, which locks the store.
                let creation = self.target.with_verb(|_| "create".to_owned());
                let may_create = rbac::authorize(&self.store, user, &creation);
                let mut object = self.json()?;
                self.behavior.admit(&mut object);
                self.check_owners(&objects, user, name, &object)?;
                let (object, created) = objects.update(name, object, may_create)?;
                Ok(json_response(if created { 201 } else { 200 }, &object))
            }
            "patch" if !in_all_namespaces && !name.is_empty() => {
                Ok(json_response(200, &objects.patch(name, &self.patch()?)?))
            }
            "delete" if !in_all_namespaces => self.delete(&objects, name),
            "deletecollection" if !in_all_namespaces => self.delete_all(&objects),
            _ => Err(status::method_not_allowed()),
        }
    }

    /// Refuses a change of owners by a user who is not allowed to delete the object, as the admission plugin
    /// OwnerReferencesPermissionEnforcement does.
    fn check_owners(&self, objects: &Objects, user: &Identity, name: &str, updated: &Value) -> Result<()> {
        let owners = |object: &Value| object["metadata"]["ownerReferences"].clone();
        let Ok(before) = objects.get(name) else { return Ok(()) };
        if !self.behavior.protects_owners() || owners(&before) == owners(updated) {
            return Ok(());
        }
        let deletion = self.target.with_verb(|_| "delete".to_owned());
        rbac::authorize(&self.store, user, &deletion).map_err(|_| {
            let Resource { group, plural, .. } = objects.resource;
            // The real server's message, in which the reason is empty and the error is nil.
            status::forbidden(group, plural, name, "cannot set an ownerRef on a resource you can't delete: , <nil>")
        })
    }

    fn list(&self, objects: &Objects) -> Result<Response> {
        let resource = objects.resource;
        let selector = Selector::parse(resource, &self.query)?;
        let (stored, revision) = self.store.list(resource.plural, selected_namespace(objects).as_deref());
        self.check_version(revision)?;
        let selected: Vec<_> = stored.iter().filter(|object| selector.matches(object)).collect();
        let page = Page::parse(&self.query)?;
        let (page, next) = page.select(&selected);
        let items = page.iter().map(|object| objects.as_served(object));
        let mut list =
            if self.prefers_metadata_list() { metadata_list(revision, items) } else { list(resource, revision, items) };
        if let Some(next) = next {
            list["metadata"]["continue"] = next.into();
        }
        Ok(json_response(200, &list))
    }

    /// Returns whether the first format that the client accepts is a list with only the metadata of the objects.
    fn prefers_metadata_list(&self) -> bool {
        let header = self.headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let first = header.split(',').next().unwrap_or_default();
        let has_parameter = |parameter: &str| first.split(';').any(|part| part.trim() == parameter);
        has_parameter("application/json")
            && has_parameter("as=PartialObjectMetadataList")
            && has_parameter("g=meta.k8s.io")
            && has_parameter("v=v1")
    }

    fn watch(&self, objects: &Objects) -> Result<Response> {
        let scope = watch::Scope {
            resource: objects.resource,
            namespace: selected_namespace(objects),
            selector: Selector::parse(objects.resource, &self.query)?,
        };
        let body = watch::start(Arc::clone(&self.store), scope, &self.query, self.behavior.bookmark_period())?;
        Ok(response(200, "application/json", body))
    }

    fn delete(&self, objects: &Objects, name: &str) -> Result<Response> {
        let options = if self.body.is_empty() { Value::Null } else { self.json()? };
        let (object, gone) = objects.delete(name, &options)?;
        // As on a real server, the response to the deletion of a pod or namespace is the object even if it is gone.
        if !gone || matches!(objects.resource.plural, "pods" | "namespaces") {
            return Ok(json_response(200, &object));
        }
        Ok(json_response(200, &status::to_json(&status::deleted(objects.resource, &object))))
    }

    fn delete_all(&self, objects: &Objects) -> Result<Response> {
        let selector = Selector::parse(objects.resource, &self.query)?;
        let (stored, revision) = self.store.list(objects.resource.plural, selected_namespace(objects).as_deref());
        let mut items = Vec::new();
        for object in stored.iter().filter(|object| selector.matches(object)) {
            items.push(objects.delete(text(&object["metadata"]["name"]), &Value::Null)?.0);
        }
        Ok(json_response(200, &list(objects.resource, revision, items)))
    }

    /// Refuses a read at a version that the store has not reached.
    fn check_version(&self, current: u64) -> Result<()> {
        let wanted = self.query.get("resourceVersion").and_then(|version| version.parse().ok());
        match wanted.filter(|wanted| *wanted > current) {
            Some(wanted) => Err(status::too_large_version(wanted, current)),
            None => Ok(()),
        }
    }

    fn patch(&self) -> Result<Patch> {
        match self.content_type() {
            // The two kinds merge lists differently, but no test changes a list with a strategic merge patch.
            "application/merge-patch+json" | "application/strategic-merge-patch+json" => Ok(Patch::Merge(self.json()?)),
            "application/json-patch+json" => match self.json()? {
                Value::Array(operations) => Ok(Patch::Json(operations)),
                _ => Err(status::bad_request("error decoding patch: not a list of operations")),
            },
            _ => Err(status::unsupported_media_type()),
        }
    }

    fn json(&self) -> Result<Value> {
        if !matches!(self.content_type(), "" | "application/json" | "*/*") && self.method != Method::PATCH {
            return Err(status::unsupported_media_type());
        }
        serde_json::from_slice(&self.body)
            .map_err(|error| status::bad_request(format_args!("the object provided is unrecognized: {error}")))
    }

    fn content_type(&self) -> &str {
        let header = self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let header = header.unwrap_or_default();
        header.split(';').next().unwrap_or_default().trim()
    }

    /// Returns the field manager that the client names, or else the name of the client program.
    fn manager(&self) -> String {
        let agent = self.headers.get(USER_AGENT).and_then(|value| value.to_str().ok());
        let agent = agent.and_then(|agent| agent.split('/').next());
        self.query.get("fieldManager").or(agent).unwrap_or("unknown").to_owned()
    }
}

fn list(resource: &Resource, revision: u64, items: impl IntoIterator<Item = Value>) -> Value {
    let items = items.into_iter().map(|mut item| {
        if let Some(item) = item.as_object_mut() {
            // The items omit their kind and API version, which follow from those of the list.
            item.remove("kind");
            item.remove("apiVersion");
        }
        item
    });
    json!({
        "kind": format!("{}List", resource.kind),
        "apiVersion": resource.api_version(),
        "metadata": { "resourceVersion": revision.to_string() },
        "items": items.collect::<Vec<_>>(),
    })
}

/// Returns a list with only the metadata of the objects.
fn metadata_list(revision: u64, items: impl Iterator<Item = Value>) -> Value {
    let api_version = "meta.k8s.io/v1";
    let items = items.map(
        |item| json!({ "kind": "PartialObjectMetadata", "apiVersion": api_version, "metadata": item["metadata"] }),
    );
    json!({
        "kind": "PartialObjectMetadataList",
        "apiVersion": api_version,
        "metadata": { "resourceVersion": revision.to_string() },
        "items": items.collect::<Vec<_>>(),
    })
}

/// Returns the namespace that a list or watch is limited to; `None` for all namespaces.
fn selected_namespace(objects: &Objects) -> Option<String> {
    (!objects.namespace.is_empty()).then(|| objects.namespace.to_owned())
}

/// Returns a response with an object.
pub fn json_response(code: u16, object: &Value) -> Response {
    let body = Full::new(Bytes::from(format!("{object}\n")));
    response(code, "application/json", Body::new(body))
}

/// Returns a plain-text response, like those of a real server for paths outside the API.
pub fn text_response(code: u16, text: &'static str) -> Response {
    let body = Full::new(Bytes::from_static(text.as_bytes()));
    response(code, "text/plain; charset=utf-8", Body::new(body))
}

fn not_found() -> Response {
    text_response(404, "404 page not found\n")
}

fn failure(status: &Status) -> Response {
    let mut response = json_response(status.code, &status::to_json(status));
    let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    if seconds > 0 {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

fn response(code: u16, content_type: &str, body: Body) -> Response {
    hyper::Response::builder()
        .status(code)
        .header(CONTENT_TYPE, content_type)
        .header(CACHE_CONTROL, "no-cache, private")
        .body(body)
        .expect("the response is well-formed")
}
