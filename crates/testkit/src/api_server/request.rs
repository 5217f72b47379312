//! Parses the method, path and query of a request into a verb, a resource and the name of an object.

use hyper::Method;

/// The query parameters of a request.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(query: &str) -> Query {
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        Query(
            pairs
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (percent_decode(name), percent_decode(value))
                })
                .collect(),
        )
    }

    /// Returns the value of the first parameter with this name, if it is not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        let value = self.0.iter().find(|(key, _)| key == name)?.1.as_str();
        (!value.is_empty()).then_some(value)
    }

    pub fn is_true(&self, name: &str) -> bool {
        matches!(self.get(name), Some("true" | "1"))
    }
}

/// The target of a request, in RBAC terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Resource(Access),
    /// A path that is not a resource: discovery, health, version.
    Path {
        verb: String,
        path: String,
    },
}

/// A verb on a resource. Fields that do not apply to a request are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    pub verb: String,
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub resource: String,
    pub subresource: String,
    pub name: String,
}

impl Target {
    pub fn parse(method: &Method, path: &str, query: &Query) -> Target {
        let parts: Vec<String> = path.split('/').filter(|part| !part.is_empty()).map(percent_decode).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
            ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
            _ => {
                return Target::Path { verb: method.as_str().to_lowercase(), path: path.to_owned() };
            }
        };
        let (namespace, rest) = match rest {
            // A namespace and its subresources count as objects in that namespace.
            ["namespaces", namespace] => (*namespace, rest),
            ["namespaces", namespace, "status" | "finalize"] => (*namespace, rest),
            ["namespaces", namespace, rest @ ..] => (*namespace, rest),
            _ => ("", rest),
        };
        let part = |index: usize| rest.get(index).copied().unwrap_or_default().to_owned();
        let mut access = Access {
            group: group.to_owned(),
            version: version.to_owned(),
            namespace: namespace.to_owned(),
            resource: part(0),
            name: part(1),
            subresource: part(2),
            ..Access::default()
        };
        access.verb = access.verb_for(method, query).to_owned();
        if matches!(access.verb.as_str(), "list" | "watch") {
            // For RBAC, a list or watch of a single name is access to the object with that name.
            access.name = query.get("fieldSelector").and_then(required_name).unwrap_or_default();
        }
        Target::Resource(access)
    }

    /// Returns the same target with another verb.
    pub fn with_verb(&self, change: impl FnOnce(&str) -> String) -> Target {
        let mut target = self.clone();
        match &mut target {
            Target::Resource(Access { verb, .. }) | Target::Path { verb, .. } => *verb = change(verb),
        }
        target
    }
}

impl Access {
    /// Returns the resource as Roles name it: `pods`, or `pods/status` for a subresource.
    pub fn full_resource(&self) -> String {
        match self.subresource.as_str() {
            "" => self.resource.clone(),
            subresource => format!("{}/{subresource}", self.resource),
        }
    }

    fn verb_for(&self, method: &Method, query: &Query) -> &'static str {
        match (method.as_str(), self.name.is_empty()) {
            ("GET" | "HEAD", true) if query.is_true("watch") => "watch",
            ("GET" | "HEAD", true) => "list",
            ("GET" | "HEAD", false) => "get",
            ("POST", _) => "create",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            ("DELETE", true) => "deletecollection",
            ("DELETE", false) => "delete",
            _ => "",
        }
    }
}

/// Returns the name that a field selector requires.
fn required_name(selector: &str) -> Option<String> {
    selector.split(',').find_map(|term| {
        let (field, name) = term.split_once('=')?;
        (field == "metadata.name").then(|| name.trim_start_matches('=').to_owned())
    })
}

fn percent_decode(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [bytes.next(), bytes.next()].map(Option::unwrap_or_default);
                let digits = std::str::from_utf8(&digits).unwrap_or_default();
                u8::from_str_radix(digits, 16).unwrap_or(b'%')
            }
            byte => byte,
        });
    }
    String::from_utf8_lossy(&decoded).into_owned()
}
