//! What RBAC has to allow, and how that is written down.

use std::fmt;

/// Some verbs for one object, or for all objects of a kind in a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub group: &'static str,
    pub plural: &'static str,
    pub namespace: String,
    /// All of them without a name.
    pub name: Option<String>,
    pub verbs: &'static [&'static str],
}

impl Rule {
    /// Where the API server has the one object that it is about, if it is about one.
    pub fn object_path(&self) -> Option<String> {
        let Self { group, plural, namespace, name, .. } = self;
        Some(format!("{}/{}", collection_path(group, namespace, plural), name.as_ref()?))
    }
}

/// Where the API server has the objects of a kind in a namespace, at version `v1`.
pub fn collection_path(group: &str, namespace: &str, plural: &str) -> String {
    let root = if group.is_empty() { "/api/v1".to_owned() } else { format!("/apis/{group}/v1") };
    format!("{root}/namespaces/{namespace}/{plural}")
}

/// The rule as a Role has it, in YAML.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, plural, name, verbs, .. } = self;
        let group = if group.is_empty() { "\"\"" } else { group };
        write!(f, "- apiGroups: [{group}]\n  resources: [{plural}]\n")?;
        if let Some(name) = name {
            writeln!(f, "  resourceNames: [{}]", yaml(name))?;
        }
        write!(f, "  verbs: [{}]", verbs.join(", "))
    }
}

/// A Role for the lock of that name, as YAML.
pub fn role(namespace: &str, name: &str, rules: &[Rule]) -> String {
    let namespace = yaml(namespace);
    let rules: Vec<String> = rules.iter().map(ToString::to_string).collect();
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

/// A name as YAML has it: quoted where it would be read as a number or a truth value.
pub fn yaml(name: &str) -> String {
    let is_word = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&name);
    match name.starts_with(|first: char| first.is_ascii_alphabetic()) && !is_word {
        true => name.to_owned(),
        false => format!("{name:?}"),
    }
}
