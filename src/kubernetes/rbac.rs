//! The permissions that candidates need, and Roles that grant them.

use std::fmt;

use super::resource::Resource;

/// An RBAC verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
}

impl Verb {
    /// Returns the verb as it is written in a Role.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A permission: some verbs for one object, or for all objects of a kind in a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub resource: &'static Resource,
    pub namespace: String,
    /// The name of the object; `None` for all objects of the kind.
    pub name: Option<String>,
    pub verbs: &'static [Verb],
}

impl Rule {
    /// Returns the path of the object, if the rule is about a single object.
    pub fn object_path(&self) -> Option<String> {
        let Self { resource, namespace, name, .. } = self;
        Some(format!("{}/{}", resource.path(namespace), name.as_ref()?))
    }
}

impl Resource {
    /// Returns the permission for these verbs on one object of this kind, or on all objects in a namespace.
    pub fn rule(&'static self, namespace: &str, name: Option<String>, verbs: &'static [Verb]) -> Rule {
        Rule { resource: self, namespace: namespace.to_owned(), name, verbs }
    }
}

/// Rules that differ only in the names of their objects.
struct MergedRule<'a> {
    first: &'a Rule,
    names: Vec<&'a str>,
}

impl<'a> MergedRule<'a> {
    fn new(first: &'a Rule) -> Self {
        Self { first, names: first.name.as_deref().into_iter().collect() }
    }

    /// Merges another rule into this one if they differ only in the names of their objects. Returns whether it was
    /// merged.
    fn try_merge(&mut self, other: &'a Rule) -> bool {
        let Rule { resource, namespace, name, verbs } = self.first;
        let can_merge = (*resource, namespace, *verbs) == (other.resource, &other.namespace, other.verbs)
            && name.is_some() == other.name.is_some();
        if can_merge {
            let names = &mut self.names;
            names.extend(other.name.as_deref().filter(|name| !names.contains(name)));
        }
        can_merge
    }
}

/// Writes the rule as YAML for a Role.
impl fmt::Display for MergedRule<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rule { resource: Resource { group, plural, .. }, verbs, .. } = self.first;
        let group = if group.is_empty() { "\"\"" } else { group };
        write!(f, "- apiGroups: [{group}]\n  resources: [{plural}]\n")?;
        if !self.names.is_empty() {
            let names: Vec<String> = self.names.iter().map(|name| yaml(name)).collect();
            writeln!(f, "  resourceNames: [{}]", names.join(", "))?;
        }
        let verbs: Vec<&str> = verbs.iter().map(|verb| verb.name()).collect();
        write!(f, "  verbs: [{}]", verbs.join(", "))
    }
}

/// Returns the YAML of a Role with these rules. The Role is named after the lock, which is called `name`.
pub fn role(namespace: &str, name: &str, rules: &[Rule]) -> String {
    let namespace = yaml(namespace);
    let mut merged: Vec<MergedRule<'_>> = Vec::new();
    for rule in rules {
        if !merged.iter_mut().any(|merged| merged.try_merge(rule)) {
            merged.push(MergedRule::new(rule));
        }
    }
    let rules: Vec<String> = merged.iter().map(ToString::to_string).collect();
    let rules = rules.join("\n");
    format!(
        "apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: leaderrun-{name}
  namespace: {namespace}
rules:
{rules}"
    )
}

/// Returns a name as YAML, quoted if YAML might not read it as text.
pub fn yaml(name: &str) -> String {
    let has_other_type = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&name);
    if name.starts_with(|first: char| first.is_ascii_alphabetic()) && !has_other_type {
        name.to_owned()
    } else {
        format!("{name:?}")
    }
}
