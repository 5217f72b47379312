//! Parses the body of a request as an object of the requested resource.

use std::fmt::Display;

use kube::core::Status;
use serde_json::{Value, json};

use super::metadata::text;
use super::resources::Resource;
use super::status::{self, Result};

/// The treatment of fields that the resource does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownFields {
    /// Unknown fields are dropped silently.
    Drop,
    /// Unknown fields are an error.
    Refuse,
}

/// Parses `body` as an object of `resource`. In a Lease or a Service, also sets and removes fields like a real server.
pub fn decode(resource: &Resource, mut body: Value, unknown_fields: UnknownFields) -> Result<Value> {
    let Some(fields) = body.as_object_mut() else {
        let why = format!("the object provided is unrecognized (must be of type {})", resource.kind);
        return Err(status::bad_request(why));
    };
    fields.entry("apiVersion").or_insert_with(|| resource.api_version().into());
    fields.entry("kind").or_insert_with(|| resource.kind.into());
    let (api_version, kind) = (text(&body["apiVersion"]), text(&body["kind"]));
    if (api_version, kind) != (&resource.api_version(), resource.kind) {
        let why = format!("no kind {kind:?} is registered for version {api_version:?}");
        return Err(unreadable(resource, kind, why));
    }
    for path in micro_times(resource) {
        if let Some(time) = body.pointer(path).and_then(Value::as_str) {
            check_micro_time(time).map_err(|why| unreadable(resource, resource.kind, why))?;
        }
    }
    let sent = (unknown_fields == UnknownFields::Refuse).then(|| body.clone());
    let mut object = (resource.decode)(body).map_err(|why| unreadable(resource, resource.kind, why))?;
    if let Some(sent) = sent {
        let errors = unknown_field_errors("", &sent, &object);
        if !errors.is_empty() {
            let why = format!("strict decoding error: {}", errors.join(", "));
            return Err(unreadable(resource, resource.kind, why));
        }
    }
    match resource.plural {
        "leases" => normalize_lease(&mut object),
        "services" => set_service_defaults(&mut object),
        _ => {}
    }
    Ok(object)
}

/// Returns an error for each field of `sent` that has a value but is missing from `parsed`. `prefix` is the path of
/// both values with a final dot, or empty at the root.
fn unknown_field_errors(prefix: &str, sent: &Value, parsed: &Value) -> Vec<String> {
    match (sent, parsed) {
        (Value::Object(sent), Value::Object(parsed)) => {
            let fields = sent.iter().filter(|(_, value)| !value.is_null());
            let errors = fields.map(|(name, value)| match parsed.get(name) {
                Some(parsed) => unknown_field_errors(&format!("{prefix}{name}."), value, parsed),
                None => vec![format!("unknown field \"{prefix}{name}\"")],
            });
            errors.flatten().collect()
        }
        (Value::Array(sent), Value::Array(parsed)) => {
            let items = sent.iter().zip(parsed).enumerate();
            let prefix = prefix.trim_end_matches('.');
            items
                .flat_map(|(index, (sent, parsed))| unknown_field_errors(&format!("{prefix}[{index}]."), sent, parsed))
                .collect()
        }
        _ => Vec::new(),
    }
}

fn normalize_lease(lease: &mut Value) {
    if !lease["spec"].is_object() {
        lease["spec"] = json!({});
    }
    // A real server drops these fields of coordinated leader election, which is off by default.
    if let Some(spec) = lease["spec"].as_object_mut() {
        spec.remove("strategy");
        spec.remove("preferredHolder");
    }
}

/// Fills in the defaults of a Service in a dual-stack cluster, but allocates no addresses, because nothing would route
/// traffic to them.
fn set_service_defaults(service: &mut Value) {
    if !service["spec"].is_object() {
        service["spec"] = json!({});
    }
    let spec = &mut service["spec"];
    let is_external = spec["type"] == "ExternalName";
    let has_selector = spec["selector"].as_object().is_some_and(|selector| !selector.is_empty());
    let is_dual_by_default = spec["clusterIP"] == "None" && !has_selector;
    let mut set_default = |field: &str, value: Value| {
        if spec[field].is_null() {
            spec[field] = value;
        }
    };
    set_default("type", "ClusterIP".into());
    if !is_external {
        set_default("ipFamilies", json!(["IPv4"]));
        set_default("ipFamilyPolicy", if is_dual_by_default { "RequireDualStack" } else { "SingleStack" }.into());
        let is_dual_stack = spec["ipFamilyPolicy"] != "SingleStack";
        if let Some(families) =
            spec["ipFamilies"].as_array_mut().filter(|families| is_dual_stack && families.len() == 1)
        {
            families.push(if families[0] == "IPv4" { "IPv6" } else { "IPv4" }.into());
        }
    }
    for port in spec["ports"].as_array_mut().into_iter().flatten() {
        if port["protocol"].is_null() {
            port["protocol"] = "TCP".into();
        }
        if port["targetPort"].is_null() {
            port["targetPort"] = port["port"].clone();
        }
    }
}

/// Returns JSON pointers to the fields of a resource that have the type MicroTime.
fn micro_times(resource: &Resource) -> &'static [&'static str] {
    match resource.plural {
        "leases" => &["/spec/acquireTime", "/spec/renewTime"],
        "events" => &["/eventTime", "/series/lastObservedTime"],
        _ => &[],
    }
}

/// Checks that a time is valid and has exactly six fractional digits. Like a real server's error, the error quotes Go's
/// reference time, 2006-01-02T15:04:05.
fn check_micro_time(time: &str) -> std::result::Result<(), String> {
    const DIGITS: usize = 6;
    let fraction = time.find('.').map(|point| &time[point + 1..]);
    let digits = fraction.map_or(0, |fraction| fraction.bytes().take_while(u8::is_ascii_digit).count());
    let (rest, wanted) = match fraction {
        _ if time.parse::<jiff::Timestamp>().is_err() => (time, "2006"),
        Some(fraction) if digits > DIGITS => (&fraction[DIGITS..], "Z07:00"),
        Some(_) if digits == DIGITS => return Ok(()),
        Some(fraction) => (&time[time.len() - fraction.len() - 1..], ".000000"),
        None => (&time[time.len().min("2006-01-02T15:04:05".len())..], ".000000"),
    };
    Err(format!("parsing time {time:?} as \"2006-01-02T15:04:05.000000Z07:00\": cannot parse {rest:?} as {wanted:?}"))
}

fn unreadable(resource: &Resource, kind: &str, why: impl Display) -> Box<Status> {
    let (version, expected) = (resource.version, resource.kind);
    status::bad_request(format_args!("{kind} in version {version:?} cannot be handled as a {expected}: {why}"))
}
