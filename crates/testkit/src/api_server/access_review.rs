//! SelfSubjectAccessReview: tells a client whether it is allowed to perform an action.

use serde_json::{Value, json};

use super::authentication::Identity;
use super::decode::{UnknownFields, decode};
use super::metadata::text;
use super::rbac;
use super::request::{Access, Target};
use super::resources::ACCESS_REVIEW;
use super::status::{self, FieldError, Result};
use super::store::Store;

/// Returns the review in `body` with its status filled in.
pub fn review(store: &Store, user: &Identity, body: Value) -> Result<Value> {
    let mut review = decode(&ACCESS_REVIEW, body, UnknownFields::Drop)?;
    let field = |attributes: &Value, name: &str| text(&attributes[name]).to_owned();
    let resource = &review["spec"]["resourceAttributes"];
    let path = &review["spec"]["nonResourceAttributes"];
    if resource.is_object() == path.is_object() {
        let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        let error = FieldError::invalid("spec.resourceAttributes", resource.clone(), detail);
        return Err(status::invalid(&ACCESS_REVIEW, "", &[error]));
    }
    let target = if resource.is_object() {
        Target::Resource(Access {
            verb: field(resource, "verb"),
            group: field(resource, "group"),
            version: field(resource, "version"),
            namespace: field(resource, "namespace"),
            resource: field(resource, "resource"),
            subresource: field(resource, "subresource"),
            name: field(resource, "name"),
        })
    } else {
        Target::Path { verb: field(path, "verb"), path: field(path, "path") }
    };
    review["status"] = match rbac::reason_to_allow(store, user, &target) {
        Some(reason) if reason.is_empty() => json!({ "allowed": true }),
        Some(reason) => json!({ "allowed": true, "reason": reason }),
        None => json!({ "allowed": false }),
    };
    Ok(review)
}
