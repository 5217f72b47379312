//! Watches: streams of changes that begin at a revision or with the current state.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame};
use kube::core::Status;
use serde_json::{Value, json};
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, timeout_at};

use super::decode::{UnknownFields, decode};
use super::events;
use super::handler::Body;
use super::request::Query;
use super::resources::Resource;
use super::selector::Selector;
use super::status::{self, FieldError, Result};
use super::store::{Change, Store};

/// The time from the last bookmark to the end of a watch.
const LAST_BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);
/// The duration of a watch whose request has no `timeoutSeconds`.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// The objects that a watch reports.
pub struct Scope {
    pub resource: &'static Resource,
    /// `None` for all namespaces.
    pub namespace: Option<String>,
    pub selector: Selector,
}

/// Starts a watch, and returns a body that ends when the watch times out or fails.
///
/// If the client has requested bookmarks, a bookmark is sent every `bookmark_period`, and one shortly before the end.
pub fn start(store: Arc<Store>, scope: Scope, query: &Query, bookmark_period: Duration) -> Result<Body> {
    let wants_bookmarks = query.is_true("allowWatchBookmarks");
    let from = match query.get("resourceVersion") {
        None => 0,
        Some(version) => version.parse().map_err(|_| {
            let why = format!("strconv.ParseUint: parsing {version:?}: invalid syntax");
            status::internal(format_args!("resourceVersion: Invalid value: {version:?}: {why}"))
        })?,
    };
    let initial_events = query.get("sendInitialEvents").map(|value| value == "true");
    if initial_events.is_some() && query.get("resourceVersionMatch") != Some("NotOlderThan") {
        let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        return Err(status::invalid_list_options(FieldError::forbidden("resourceVersionMatch", why)));
    }
    if initial_events.is_none() && query.get("resourceVersionMatch").is_some() {
        let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
        return Err(status::invalid_list_options(FieldError::forbidden("resourceVersionMatch", why)));
    }
    let timeout = query.get("timeoutSeconds").and_then(|seconds| seconds.parse().ok());
    let timeout = timeout.filter(|seconds| *seconds > 0).map_or(DEFAULT_TIMEOUT, Duration::from_secs);

    let end = Instant::now() + timeout;
    let mut watch = Watch {
        revisions: store.subscribe(),
        scope,
        seen: if from == 0 { store.revision() } else { from },
        store,
        ready: VecDeque::new(),
        wants_bookmarks,
        bookmark_period,
        next_bookmark: next_bookmark(bookmark_period, end).filter(|_| wants_bookmarks),
        end,
        failed: false,
    };
    // By default a watch begins with the current state, unless it names a version to continue from.
    if initial_events.unwrap_or(from == 0) {
        watch.queue_current_state();
    } else if from > 0
        && let Err(expired) = watch.store.check_watchable(watch.scope.resource.plural, from)
    {
        watch.fail(&expired);
    }
    let frames = futures_util::stream::unfold(watch, |mut watch| async {
        let event = watch.next().await?;
        let line = Bytes::from(format!("{event}\n"));
        Some((Ok(Frame::data(line)), watch))
    });
    Ok(Body::new(StreamBody::new(frames)))
}

struct Watch {
    store: Arc<Store>,
    scope: Scope,
    revisions: Receiver<u64>,
    /// The revision up to which all events have been sent or are in `ready`.
    seen: u64,
    /// The events that can be sent now.
    ready: VecDeque<Value>,
    /// `true` if the client has requested bookmarks.
    wants_bookmarks: bool,
    bookmark_period: Duration,
    next_bookmark: Option<Instant>,
    end: Instant,
    /// `true` if the watch ends after the events in `ready`.
    failed: bool,
}

impl Watch {
    /// Returns the next event for the client; `None` at the end.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.failed || Instant::now() >= self.end {
                return None;
            }
            self.revisions.mark_unchanged();
            self.read_changes();
            if self.ready.is_empty() {
                self.wait().await;
            }
        }
    }

    /// Waits for a new revision, the time of a bookmark, or the end. Queues the bookmark when it is due.
    async fn wait(&mut self) {
        let wake_at = self.next_bookmark.unwrap_or(self.end).min(self.end);
        if timeout_at(wake_at, self.revisions.changed()).await.is_ok() {
            return;
        }
        if let Some(time) = self.next_bookmark
            && time <= Instant::now()
        {
            self.ready.push_back(self.bookmark(Value::Null));
            self.next_bookmark = next_bookmark(self.bookmark_period, self.end);
        }
    }

    fn queue_current_state(&mut self) {
        let namespace = self.scope.namespace.as_deref();
        let (objects, revision) = self.store.list(self.scope.resource.plural, namespace);
        for object in objects {
            if self.scope.selector.matches(&object) {
                self.ready.push_back(self.event("ADDED", &object));
            }
        }
        self.seen = revision;
        if self.wants_bookmarks {
            let bookmark = self.bookmark(json!({ "k8s.io/initial-events-end": "true" }));
            self.ready.push_back(bookmark);
        }
    }

    fn read_changes(&mut self) {
        match self.store.changes_after(self.scope.resource.plural, self.seen) {
            Ok((changes, revision)) => {
                let events = changes.iter().filter_map(|change| self.event_of(change));
                self.ready = events.collect();
                // A watch from a future version delivers nothing until the store reaches that version.
                self.seen = self.seen.max(revision);
            }
            Err(expired) => self.fail(&expired),
        }
    }

    /// Ends the watch with an error event. A watch reports such errors in its stream, not in the status of the
    /// response.
    fn fail(&mut self, status: &Status) {
        self.ready.push_back(json!({ "type": "ERROR", "object": status::to_json(status) }));
        self.failed = true;
    }

    /// Returns the event for a change, if the change concerns this watch. An object that begins to match the selector
    /// is reported as added, and an object that no longer matches as deleted.
    fn event_of(&self, change: &Change) -> Option<Value> {
        let Scope { resource, namespace, selector } = &self.scope;
        if change.key.collection != resource.plural
            || namespace.as_ref().is_some_and(|namespace| *namespace != change.key.namespace)
        {
            return None;
        }
        let matched_before = change.before.as_ref().is_some_and(|before| selector.matches(before));
        let matches_now = !change.deleted && selector.matches(&change.object);
        match (matched_before, matches_now, &change.before) {
            (false, true, _) => Some(self.event("ADDED", &change.object)),
            (true, true, _) => Some(self.event("MODIFIED", &change.object)),
            (true, false, _) if change.deleted => Some(self.event("DELETED", &change.object)),
            (true, false, Some(before)) => {
                let mut last_seen = Value::clone(before);
                last_seen["metadata"]["resourceVersion"] = change.revision.to_string().into();
                Some(self.event("DELETED", &last_seen))
            }
            _ => None,
        }
    }

    fn event(&self, kind: &str, object: &Value) -> Value {
        let object = events::from_stored(self.scope.resource, object.clone());
        json!({ "type": kind, "object": object })
    }

    /// Returns a bookmark: an object with these annotations and the revision that the client has reached when the
    /// bookmark arrives.
    fn bookmark(&self, annotations: Value) -> Value {
        let metadata = json!({ "resourceVersion": self.seen.to_string(), "annotations": annotations });
        let object = decode(self.scope.resource, json!({ "metadata": metadata }), UnknownFields::Drop);
        json!({ "type": "BOOKMARK", "object": object.unwrap_or_default() })
    }
}

/// Returns the time of the next bookmark: after `period`, or [`LAST_BOOKMARK_BEFORE_END`] before the end if that is
/// earlier. Returns `None` after the last bookmark.
fn next_bookmark(period: Duration, end: Instant) -> Option<Instant> {
    let now = Instant::now();
    let last = end.checked_sub(LAST_BOOKMARK_BEFORE_END).filter(|last| *last > now)?;
    Some(last.min(now + period))
}
