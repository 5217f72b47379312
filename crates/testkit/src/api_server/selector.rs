//! `fieldSelector` and `labelSelector`, which limit the objects in a list or watch.

use serde_json::Value;

use super::request::Query;
use super::resources::Resource;
use super::status::{self, Result};

/// The conditions that an object must meet to be selected.
#[derive(Clone, Debug, Default)]
pub struct Selector(Vec<Requirement>);

#[derive(Clone, Debug)]
struct Requirement {
    /// The path of the value in the object.
    path: Vec<String>,
    condition: Condition,
}

#[derive(Clone, Debug)]
enum Condition {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
}

impl Selector {
    pub fn parse(resource: &Resource, query: &Query) -> Result<Selector> {
        let mut requirements = Vec::new();
        for term in split(query.get("fieldSelector").unwrap_or_default()) {
            let (field, condition) = parse_equality(term).ok_or_else(|| {
                status::bad_request(format_args!("invalid selector: {term:?}; can't understand {term:?}"))
            })?;
            if !is_supported(resource, field) {
                return Err(status::bad_request(format_args!(
                    "{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
                )));
            }
            let path = field.split('.').map(str::to_owned).collect();
            requirements.push(Requirement { path, condition });
        }
        for term in split(query.get("labelSelector").unwrap_or_default()) {
            let (label, condition) = parse_label_term(term)
                .ok_or_else(|| status::bad_request(format_args!("unable to parse requirement: {term}")))?;
            let path = ["metadata", "labels", label].map(str::to_owned).to_vec();
            requirements.push(Requirement { path, condition });
        }
        Ok(Selector(requirements))
    }

    pub fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|requirement| {
            let value = requirement.path.iter().fold(object, |value, name| &value[name.as_str()]);
            let equals = |wanted: &String| value.as_str().unwrap_or_default() == wanted;
            match &requirement.condition {
                Condition::In(wanted) => wanted.iter().any(equals),
                Condition::NotIn(unwanted) => !unwanted.iter().any(equals),
                Condition::Exists => value.is_string(),
                Condition::Absent => !value.is_string(),
            }
        })
    }
}

fn is_supported(resource: &Resource, field: &str) -> bool {
    match resource.plural {
        _ if field == "metadata.name" => true,
        _ if field == "metadata.namespace" => resource.namespaced,
        "events" => field.starts_with("involvedObject.") || matches!(field, "reason" | "type"),
        "pods" => matches!(field, "spec.nodeName" | "status.phase"),
        "namespaces" => field == "status.phase",
        _ => false,
    }
}

/// Splits a selector at its commas, except those in parentheses, as in `key in (a, b)`.
fn split(selector: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    let terms = selector.split(move |c| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    });
    terms.map(str::trim).filter(|term| !term.is_empty())
}

fn parse_equality(term: &str) -> Option<(&str, Condition)> {
    if let Some((name, value)) = term.split_once("!=") {
        return Some((name.trim(), Condition::NotIn(vec![value.trim().to_owned()])));
    }
    let (name, value) = term.split_once("==").or_else(|| term.split_once('='))?;
    Some((name.trim(), Condition::In(vec![value.trim().to_owned()])))
}

fn parse_label_term(term: &str) -> Option<(&str, Condition)> {
    if let Some(found) = parse_equality(term) {
        return Some(found);
    }
    if let Some((head, values)) = term.strip_suffix(')').and_then(|term| term.split_once('(')) {
        let values = values.split(',').map(|value| value.trim().to_owned()).collect();
        let words: Vec<&str> = head.split_whitespace().collect();
        return match words.as_slice() {
            [label, "in"] => Some((label, Condition::In(values))),
            [label, "notin"] => Some((label, Condition::NotIn(values))),
            _ => None,
        };
    }
    match term.strip_prefix('!') {
        _ if term.contains(char::is_whitespace) => None,
        Some(label) => Some((label, Condition::Absent)),
        None => Some((term, Condition::Exists)),
    }
}
