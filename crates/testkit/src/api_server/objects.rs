//! Creates, reads, updates, patches and deletes objects, and refuses requests for the same reasons as a real server.

use std::sync::Arc;

use serde_json::Value;

use super::decode::{UnknownFields, decode};
use super::resources::{self, Resource};
use super::status::{self, Result};
use super::store::{Key, Store, Write};
use super::{events, managed_fields, metadata, patch, validation};

/// The objects of one resource in one namespace, for one request.
pub struct Objects<'a> {
    pub store: &'a Store,
    pub resource: &'static Resource,
    /// Empty for objects that do not belong to a namespace.
    pub namespace: &'a str,
    /// The field manager that is recorded for changed fields.
    pub manager: &'a str,
    pub unknown_fields: UnknownFields,
    /// `true` if the request is only checked, and nothing is written.
    pub dry_run: bool,
}

/// The changes to an object, as a JSON merge patch or a JSON patch.
pub enum Patch {
    Merge(Value),
    Json(Vec<Value>),
}

impl Objects<'_> {
    pub fn get(&self, name: &str) -> Result<Value> {
        match self.store.get(&self.key(name)) {
            Some(object) => Ok(self.as_served(&object)),
            None => Err(status::not_found(self.resource, name)),
        }
    }

    pub fn create(&self, body: Value) -> Result<Value> {
        let mut object = decode(self.resource, body, self.unknown_fields)?;
        metadata::set_namespace(&mut object, self.namespace)?;
        metadata::generate_name(&mut object);
        self.check_namespace_accepts_objects()?;
        let name = metadata::name(&object);
        let version = metadata::text(&object["metadata"]["resourceVersion"]);
        if !matches!(version, "" | "0") {
            return Err(status::internal("resourceVersion should not be set on objects to be created"));
        }
        let object = self.new_object(&name, object)?;
        self.write(&name, |before| match before {
            Some(_) => Err(status::already_exists(self.resource, &name)),
            None => Ok(Write::Put(object)),
        })
    }

    /// Replaces an object. A missing object is created if the resource allows creation by update and `may_create` is
    /// `Ok`.
    ///
    /// Returns the object, and `true` if it was created.
    pub fn update(&self, name: &str, body: Value, may_create: Result<()>) -> Result<(Value, bool)> {
        let mut object = decode(self.resource, body, self.unknown_fields)?;
        metadata::set_namespace(&mut object, self.namespace)?;
        metadata::check_name(&object, name)?;
        // The check comes before the write, because both lock the store. As on a real server, the namespace may be
        // deleted between them.
        let namespace_check = self.check_namespace_accepts_objects();
        let mut created = false;
        let stored = self.write(name, |before| {
            if before.is_none() && !self.resource.create_on_update {
                return Err(status::not_found(self.resource, name));
            }
            let uid = metadata::text(&object["metadata"]["uid"]);
            metadata::check_uid(self.resource, name, self.namespace, uid, before)?;
            if let Some(before) = before {
                return self.replacement(name, before, object);
            }
            namespace_check?;
            let object = self.new_object(name, object)?;
            may_create?;
            created = true;
            Ok(Write::Put(object))
        })?;
        Ok((stored, created))
    }

    pub fn patch(&self, name: &str, patch: &Patch) -> Result<Value> {
        self.write(name, |before| {
            let Some(before) = before else {
                return Err(status::not_found(self.resource, name));
            };
            let mut object = self.as_served(before);
            match patch {
                Patch::Merge(patch) => patch::merge(&mut object, patch),
                Patch::Json(operations) => {
                    object = patch::apply(object, operations).ok_or_else(status::unprocessable)?;
                }
            }
            let mut object = decode(self.resource, object, self.unknown_fields)?;
            metadata::set_namespace(&mut object, self.namespace)?;
            metadata::check_name(&object, name)?;
            self.replacement(name, before, object)
        })
    }

    /// Deletes an object, if it meets the preconditions in `options` (`DeleteOptions`).
    ///
    /// Returns the object's last state, and whether it is gone. An object with finalizers stays until they are removed.
    pub fn delete(&self, name: &str, options: &Value) -> Result<(Value, bool)> {
        let is_namespace = self.resource.plural == "namespaces";
        if is_namespace && matches!(name, "default" | "kube-system" | "kube-public") {
            let why = "this namespace may not be deleted";
            return Err(status::forbidden("", "namespaces", name, why));
        }
        let mut gone = true;
        let object = self.write(name, |before| {
            let Some(before) = before else {
                return Err(status::not_found(self.resource, name));
            };
            metadata::check_preconditions(self.resource, name, &options["preconditions"], before)?;
            if !metadata::has_finalizers(before) {
                return Ok(Write::Delete(before.clone()));
            }
            gone = false;
            if metadata::is_being_deleted(before) {
                return Ok(Write::Keep);
            }
            let mut object = before.clone();
            metadata::mark_deleted(&mut object);
            Ok(Write::Put(object))
        })?;
        if gone && is_namespace && !self.dry_run {
            self.store.delete_all_in_namespace(name);
        }
        Ok((object, gone))
    }

    /// Returns a stored object as clients of this resource see it. Only Events differ from their stored form, because
    /// two API groups serve them.
    pub fn as_served(&self, object: &Value) -> Value {
        events::from_stored(self.resource, object.clone())
    }

    fn key(&self, name: &str) -> Key {
        Key { collection: self.resource.plural, namespace: self.namespace.to_owned(), name: name.to_owned() }
    }

    fn write(&self, name: &str, decide: impl FnOnce(Option<&Value>) -> Result<Write>) -> Result<Value> {
        let mut dry_run_result = None;
        let stored: Arc<Value> = self.store.update(&self.key(name), |before| {
            let write = decide(before)?;
            if !self.dry_run {
                return Ok(write);
            }
            dry_run_result = match write {
                Write::Put(object) | Write::Delete(object) => Some(object),
                Write::Keep => before.cloned(),
            };
            Ok(Write::Keep)
        })?;
        Ok(self.as_served(dry_run_result.as_ref().unwrap_or(&stored)))
    }

    /// Completes and checks a new object, and returns its stored form.
    fn new_object(&self, name: &str, mut object: Value) -> Result<Value> {
        metadata::initialize(self.resource, &mut object);
        managed_fields::update(self.resource, None, &mut object, self.manager);
        let object = events::to_stored(self.resource, object);
        self.check_valid(name, None, &object)?;
        Ok(object)
    }

    /// Checks the version and the fields of `object`, which replaces `before`, and returns the resulting write: none if
    /// nothing changed, and a deletion if an object that is being deleted has lost its last finalizer.
    fn replacement(&self, name: &str, before: &Value, mut object: Value) -> Result<Write> {
        match metadata::text(&object["metadata"]["resourceVersion"]) {
            "" | "0" if self.resource.unconditional_update => {}
            "" | "0" => return Err(status::version_required(self.resource, name)),
            version if before["metadata"]["resourceVersion"] == version => {}
            version if version.parse::<u64>().is_err() => {
                return Err(status::not_a_version(version));
            }
            _ => return Err(status::conflict(self.resource, name, MODIFIED)),
        }
        let served_before = self.as_served(before);
        metadata::carry_over(&served_before, &mut object);
        managed_fields::update(self.resource, Some(&served_before), &mut object, self.manager);
        let object = events::to_stored(self.resource, object);
        self.check_valid(name, Some(before), &object)?;
        if object == *before {
            return Ok(Write::Keep);
        }
        if metadata::is_being_deleted(&object) && !metadata::has_finalizers(&object) {
            return Ok(Write::Delete(object));
        }
        Ok(Write::Put(object))
    }

    fn check_valid(&self, name: &str, before: Option<&Value>, object: &Value) -> Result<()> {
        let errors = validation::errors(self.resource, before, object);
        if !errors.is_empty() {
            return Err(status::invalid(self.resource, name, &errors));
        }
        Ok(())
    }

    /// Refuses new objects in a namespace that does not exist or is being deleted.
    fn check_namespace_accepts_objects(&self) -> Result<()> {
        if !self.resource.namespaced {
            return Ok(());
        }
        let namespaces = resources::find("", "v1", "namespaces").expect("namespaces are a resource");
        let key = Key { collection: namespaces.plural, namespace: String::new(), name: self.namespace.to_owned() };
        match self.store.get(&key) {
            None => Err(status::not_found(namespaces, self.namespace)),
            Some(namespace) if metadata::is_being_deleted(&namespace) => Err(status::forbidden(
                self.resource.group,
                self.resource.plural,
                "",
                format_args!(
                    "unable to create new content in namespace {} because it is being terminated",
                    self.namespace
                ),
            )),
            Some(_) => Ok(()),
        }
    }
}

const MODIFIED: &str = "the object has been modified; please apply your changes to the latest version and try again";
