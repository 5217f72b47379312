//! Pagination of list responses with the `limit` and `continue` query parameters.

use std::sync::Arc;

use serde_json::Value;

use super::metadata::text;
use super::request::Query;
use super::status::{self, Result};

/// The page of a list that a request asks for. Unlike a real API server, which serves all pages from the snapshot that
/// it took for the first one, this server builds each page from the current state.
pub struct Page {
    /// The key of the last object of the previous page; `None` for the first page.
    after: Option<(String, String)>,
    /// The maximum number of objects in the page.
    size: usize,
}

impl Page {
    /// Parses the page that a request asks for. Without a limit, the page extends to the end of the list.
    pub fn parse(query: &Query) -> Result<Page> {
        let size = query.get("limit").unwrap_or("0").parse();
        let size = size.map_err(|_| status::bad_request("limit is not a number"))?;
        let key = |token: &str| token.split_once('/').map(|(namespace, name)| (namespace.into(), name.into()));
        let after = query.get("continue").map(|token| {
            key(token).ok_or_else(|| status::bad_request(format_args!("continue key is not valid: {token:?}")))
        });
        Ok(Page { after: after.transpose()?, size: if size == 0 { usize::MAX } else { size } })
    }

    /// Returns the objects in this page, and the token that requests the next page if there is one. The objects must
    /// be sorted by their keys.
    pub fn select<'a>(&self, objects: &'a [&'a Arc<Value>]) -> (&'a [&'a Arc<Value>], Option<String>) {
        let start = match &self.after {
            Some(after) => objects.partition_point(|object| key(object) <= *after),
            None => 0,
        };
        let rest = &objects[start..];
        if rest.len() <= self.size {
            return (rest, None);
        }
        let (page, _) = rest.split_at(self.size);
        let next = page.last().map(|last| key(last)).map(|(namespace, name)| format!("{namespace}/{name}"));
        (page, next)
    }
}

/// Returns the key by which lists are sorted: the namespace and the name.
fn key(object: &Value) -> (String, String) {
    let metadata = |field: &str| text(&object["metadata"][field]).to_owned();
    (metadata("namespace"), metadata("name"))
}
