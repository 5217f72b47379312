//! Parses the values of options, and explains why a value is refused.

use std::env;
use std::error::Error;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use std::time::Duration;

use crate::cli::suggest;
use crate::lock::{KINDS, LockName, OwnerName, SlotCount, check_label, check_name};
use crate::process::signals;
use crate::routing::{Label, PortOption, ServiceName, is_reachable};
use crate::telemetry::http::HttpAddress;

/// The maximum length of an identity, in bytes. The name of a pod with a UUID is always shorter.
const MAX_IDENTITY_LENGTH: usize = 1024;

/// The reason why a value is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidValue {
    pub reason: String,
    /// A valid value that the user may have meant.
    pub suggestion: Option<String>,
}

impl InvalidValue {
    fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), suggestion: None }
    }

    /// Suggests the first of the values that `parse` accepts, if there is one.
    fn suggest<T, E>(
        mut self,
        parse: impl Fn(&str) -> Result<T, E>,
        values: impl IntoIterator<Item = Option<String>>,
    ) -> Self {
        self.suggestion = values.into_iter().flatten().find(|value| parse(value).is_ok());
        self
    }
}

impl fmt::Display for InvalidValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl Error for InvalidValue {}

/// Parses a value. An error contains the reason, and the first of the `suggestions` that is valid, if there is one.
fn parse_or_suggest<T: FromStr<Err: fmt::Display>>(
    text: &str,
    suggestions: impl IntoIterator<Item = Option<String>>,
) -> Result<T, InvalidValue> {
    text.parse().map_err(|error: T::Err| InvalidValue::new(reason(&error)).suggest(T::from_str, suggestions))
}

/// Returns the reason in an error's text, without the suggestion that may follow it.
fn reason(error: &impl fmt::Display) -> String {
    let mut text = error.to_string();
    text.truncate(text.find("; ").unwrap_or(text.len()));
    text
}

/// Parses a lock. If the text is a path or resembles a valid name, the error suggests a lock.
pub fn lock(text: &str) -> Result<LockName, InvalidValue> {
    let (kind, rest) = text.split_once(':').unwrap_or(("", text));
    let is_path = text.starts_with(['/', '.']) && kind.is_empty();
    let without_name = KINDS.iter().find(|known| known.word == kind && rest.is_empty());
    let without_name = without_name.map(|known| {
        if known.is_in_cluster() { format!("{kind}:default/my-job") } else { format!("{kind}:/tmp/my-job.lease") }
    });
    let as_file = is_path.then(|| format!("file:{text}"));
    let in_directory = (kind == "file" && rest.ends_with('/')).then(|| format!("{text}my-job.lease"));
    let in_home = rest.strip_prefix("~/").filter(|_| kind == "file");
    let in_home = in_home.and_then(|rest| Some(format!("file:{}/{rest}", env::var("HOME").ok()?)));
    let nearest_valid = |text: &str| {
        let (namespace, name) = text.split_once('/').map_or((None, text), |(space, name)| (Some(space), name));
        let namespace = namespace.map(|namespace| suggest::nearest_label(namespace).map(|label| format!("{label}/")));
        Some(format!("{}{}", namespace.unwrap_or(Some(String::new()))?, suggest::nearest_name(name)?))
    };
    let with_kind = suggest::nearest(kind, KINDS.iter().map(|kind| kind.word)).filter(|_| !kind.is_empty());
    let with_kind = with_kind.and_then(|kind| Some(format!("{kind}:{}", nearest_valid(rest)?)));
    let without_kind = if kind.is_empty() { nearest_valid(text) } else { None };
    match as_file {
        Some(file) if file.parse::<LockName>().is_ok() => {
            Err(InvalidValue { reason: "a lock file is given as file:PATH".into(), suggestion: Some(file) })
        }
        _ => parse_or_suggest(text, [without_name, in_directory, in_home, with_kind, without_kind]),
    }
}

/// Parses the number of slots of a lock.
pub fn slots(text: &str) -> Result<SlotCount, InvalidValue> {
    parse_or_suggest(text, [Some("3".to_owned())])
}

/// Parses a namespace.
pub fn namespace(text: &str) -> Result<String, InvalidValue> {
    let checked = |text: &str| check_label(text).map(|()| text.to_owned());
    let invalid = |reason| InvalidValue::new(format!("the namespace {reason}"));
    checked(text).map_err(|reason| invalid(reason).suggest(checked, [suggest::nearest_label(text)]))
}

/// Parses the name of an object.
pub fn object_name(text: &str) -> Result<String, InvalidValue> {
    let checked = |text: &str| check_name(text).map(|()| text.to_owned());
    let invalid = |reason| InvalidValue::new(format!("the name {reason}"));
    checked(text).map_err(|reason| invalid(reason).suggest(checked, [suggest::nearest_name(text)]))
}

/// Parses a duration.
pub fn duration(text: &str) -> Result<Duration, InvalidValue> {
    let positive = text.trim().trim_start_matches('-').replace(' ', "");
    let spellings =
        [positive.clone(), format!("{positive}s"), positive.to_lowercase(), positive.replace(',', ".")].map(Some);
    read_duration(text).map_err(|reason| InvalidValue::new(reason).suggest(read_duration, spellings))
}

/// Parses a duration of at least a second.
pub fn period(text: &str) -> Result<Duration, InvalidValue> {
    match duration(text) {
        Ok(period) if period < Duration::from_secs(1) => {
            Err(InvalidValue { reason: "the value must be at least 1s".into(), suggestion: Some("1s".into()) })
        }
        parsed => parsed,
    }
}

/// Parses how long a command may run.
pub fn max_run(text: &str) -> Result<Duration, InvalidValue> {
    match duration(text) {
        Ok(Duration::ZERO) => Err(InvalidValue::new("the command would be stopped immediately")),
        parsed => parsed,
    }
}

fn read_duration(text: &str) -> Result<Duration, &'static str> {
    let text = text.trim();
    let mut units = text.split(|character: char| !character.is_alphabetic());
    match humantime::parse_duration(text) {
        // humantime would read M as months.
        _ if units.any(|unit| unit == "M") => Err("M could be minutes or months"),
        Ok(duration) => Ok(duration),
        Err(_) if text.starts_with('-') => Err("a duration cannot be negative"),
        Err(_) if text.starts_with(|first: char| first.is_ascii_digit()) && text.parse::<f64>().is_ok() => {
            Err("the unit is missing")
        }
        Err(_) => Err("not a valid duration"),
    }
}

/// Parses the value of `LEADERRUN_VERBOSE`, which is the number of times that `-v` would be given.
pub fn verbosity(text: &str) -> Result<u8, InvalidValue> {
    text.parse().map_err(|_| InvalidValue { reason: "not a number from 0 to 255".into(), suggestion: Some("1".into()) })
}

/// Parses the value of a variable that sets an option without a value. An empty value means false, like a variable that
/// is not set.
pub fn switch(text: &str) -> Result<bool, InvalidValue> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "on" | "1" => Ok(true),
        "" | "false" | "f" | "no" | "n" | "off" | "0" => Ok(false),
        _ => Err(InvalidValue::new("the value must be true or false")),
    }
}

/// Parses an exit status.
pub fn exit_status(text: &str) -> Result<u8, InvalidValue> {
    text.parse().map_err(|_| InvalidValue::new("an exit status is a number from 0 to 255"))
}

/// Parses the identity of a candidate.
pub fn identity(text: &str) -> Result<String, InvalidValue> {
    let without_control_characters = text.chars().filter(|character| !character.is_control()).collect();
    let suggestions = [Some(without_control_characters)];
    check_identity(text).map_err(|reason| InvalidValue::new(reason).suggest(check_identity, suggestions))?;
    Ok(text.to_owned())
}

fn check_identity(text: &str) -> Result<(), String> {
    match text.len() {
        0 => Err("an identity cannot be empty".to_owned()),
        length if length > MAX_IDENTITY_LENGTH => {
            Err(format!("an identity can have at most {MAX_IDENTITY_LENGTH} bytes, and this one has {length}"))
        }
        _ if text.chars().any(char::is_control) => Err("an identity cannot contain control characters".to_owned()),
        _ => Ok(()),
    }
}

/// Parses a signal that can end a command.
pub fn signal(text: &str) -> Result<i32, InvalidValue> {
    let name = text.to_ascii_uppercase();
    let nearest = suggest::nearest(name.trim_start_matches("SIG"), ["TERM", "INT", "HUP", "QUIT", "USR1", "USR2"]);
    signals::parse(text)
        .map_err(|error| InvalidValue::new(reason(&error)).suggest(signals::parse, [nearest.map(str::to_owned)]))
}

/// Parses the address of the HTTP server.
pub fn http_address(text: &str) -> Result<HttpAddress, InvalidValue> {
    let port = text.rsplit(':').next().unwrap_or_default();
    let with_loopback = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    let unbracketed = text.trim_matches(['[', ']']);
    let with_brackets = unbracketed.parse::<Ipv6Addr>().ok().map(|address| format!("[{address}]:8080"));
    parse_or_suggest(text, [with_loopback, with_brackets, Some(format!(":{port}")), Some(format!("{text}:8080"))])
}

/// Parses a label of a pod.
pub fn pod_label(text: &str) -> Result<Label, InvalidValue> {
    let (key, value) = text.split_once(['=', ':']).unwrap_or((text, "true"));
    parse_or_suggest(text, [Some(format!("{key}={value}"))])
}

/// Parses the owner of a lock's objects.
pub fn owner(text: &str) -> Result<OwnerName, InvalidValue> {
    let deployment =
        suggest::nearest_name(text).filter(|_| !text.contains('/')).map(|name| format!("deployment/{name}"));
    let with_name =
        text.split_once('/').and_then(|(kind, name)| Some(format!("{kind}/{}", suggest::nearest_name(name)?)));
    parse_or_suggest(text, [Some(text.to_lowercase()), with_name, deployment])
}

/// Parses the name of a Service.
pub fn service(text: &str) -> Result<ServiceName, InvalidValue> {
    parse_or_suggest(text, [suggest::nearest_label(text)])
}

/// Parses a value of `--port`.
pub fn port_option(text: &str) -> Result<PortOption, InvalidValue> {
    let swapped = text.split_once(':').map(|(number, name)| format!("{name}:{number}"));
    parse_or_suggest(text, [swapped, Some(text.to_lowercase())])
}

/// Parses the address at which others reach the leader.
pub fn address(text: &str) -> Result<IpAddr, InvalidValue> {
    match text.parse::<IpAddr>() {
        Err(_) => Err(InvalidValue::new("not an IP address")),
        Ok(address) if !is_reachable(&address) => Err(InvalidValue::new("other machines cannot reach this address")),
        Ok(address) => Ok(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suggestion<T: fmt::Debug>(parsed: Result<T, InvalidValue>) -> Option<String> {
        parsed.unwrap_err().suggestion
    }

    #[test]
    fn a_similar_valid_lock_is_suggested_for_an_invalid_lock_if_there_is_one() {
        for (text, meant) in [
            ("/tmp/foo.lock", Some("file:/tmp/foo.lock")),
            ("./foo", Some("file:./foo")),
            ("file:/tmp/", Some("file:/tmp/my-job.lease")),
            ("default/My_Job", Some("default/my-job")),
            ("Default/job", Some("default/job")),
            ("leases:default/job", Some("lease:default/job")),
            ("configmaps:default/job", Some("configmap:default/job")),
            ("endpoint+lease:a/B", Some("endpoints+lease:a/b")),
            ("", None),
            ("https://10.0.0.1", None),
            ("file:", Some("file:/tmp/my-job.lease")),
            ("configmap:", Some("configmap:default/my-job")),
        ] {
            assert_eq!(suggestion(lock(text)).as_deref(), meant, "{text}");
        }
    }

    #[test]
    fn the_full_path_is_suggested_for_a_lock_in_the_home_directory() {
        let home = env::var("HOME").expect("HOME is set");
        assert_eq!(suggestion(lock("file:~/job")), Some(format!("file:{home}/job")));
    }

    #[test]
    fn durations_are_parsed_or_refused_with_a_suggestion_if_there_is_one() {
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1.5h"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        for (text, meant) in [
            ("1M", Some("1m")),
            ("1M30s", Some("1m30s")),
            ("15", Some("15s")),
            ("15S", Some("15s")),
            ("-1s", Some("1s")),
            ("1,5s", Some("1.5s")),
            ("soon", None),
            ("inf", None),
            ("", None),
            ("99999999999999999999s", None),
        ] {
            assert_eq!(suggestion(duration(text)).as_deref(), meant, "{text}");
        }
    }

    #[test]
    fn similar_valid_values_are_suggested_for_other_options_if_there_are_any() {
        assert_eq!(suggestion(http_address("8080")).as_deref(), Some(":8080"));
        assert_eq!(suggestion(http_address("localhost:80")).as_deref(), Some("127.0.0.1:80"));
        assert_eq!(suggestion(http_address("10.0.0.1")).as_deref(), Some("10.0.0.1:8080"));
        assert_eq!(suggestion(http_address(":http")), None);
        assert_eq!(suggestion(http_address("[::1")).as_deref(), Some("[::1]:8080"));
        assert_eq!(suggestion(signal("TREM")).as_deref(), Some("TERM"));
        assert_eq!(suggestion(port_option("8080:http")).as_deref(), Some("http:8080"));
        assert_eq!(suggestion(identity("a\nb")).as_deref(), Some("ab"));
        assert_eq!(suggestion(namespace("Prod_1")).as_deref(), Some("prod-1"));
    }
}
