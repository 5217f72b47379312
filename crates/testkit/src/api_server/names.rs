//! The rules for names, and for the keys and values of labels. The error messages are modeled on a real server's.

const DNS_LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
/// The pattern of the part of a key after the `/`, and of a label value that is not empty.
const NAME_PART: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

/// Returns the errors in a name that must be a DNS-1123 subdomain, like the names of most objects.
pub fn dns_subdomain_errors(name: &str) -> Vec<String> {
    let mut errors = length_errors(name, 253);
    if !name.split('.').all(is_dns_label) {
        errors.push(format!(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
             and must start and end with an alphanumeric character \
             (e.g. 'example.com', regex used for validation is '{DNS_LABEL}(\\.{DNS_LABEL})*')"
        ));
    }
    errors
}

/// Returns the errors in a name that must be a DNS-1123 label, like that of a namespace.
pub fn dns_label_errors(name: &str) -> Vec<String> {
    let mut errors = length_errors(name, 63);
    if !is_dns_label(name) {
        errors.push(if name.split('.').all(is_dns_label) {
            "must not contain dots".to_owned()
        } else {
            format!(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', \
                 and must start and end with an alphanumeric character \
                 (e.g. 'my-name',  or '123-abc', regex used for validation is '{DNS_LABEL}')"
            )
        });
    }
    errors
}

/// Returns the errors in a name that only has to be a valid path segment, like that of a Role.
pub fn path_segment_errors(name: &str) -> Vec<String> {
    if matches!(name, "." | "..") {
        return vec![format!("may not be '{name}'")];
    }
    let bad = ['/', '%'].into_iter().filter(|bad| name.contains(*bad));
    bad.map(|bad| format!("may not contain '{bad}'")).collect()
}

/// Returns the errors in the key of a label or annotation: a name, optionally with a domain and `/` before it.
pub fn key_errors(key: &str) -> Vec<String> {
    let rule = format!(
        "must consist of alphanumeric characters, '-', '_' or '.', \
         and must start and end with an alphanumeric character \
         (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '{NAME_PART}')"
    );
    let parts: Vec<&str> = key.split('/').collect();
    let (mut errors, name) = match parts.as_slice() {
        [name] => (Vec::new(), *name),
        ["", name] => (vec!["prefix part must be non-empty".to_owned()], *name),
        [prefix, name] => {
            let errors = dns_subdomain_errors(prefix).into_iter();
            (errors.map(|error| format!("prefix part {error}")).collect(), *name)
        }
        _ => {
            return vec![format!(
                "a valid label key {rule} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    }
    errors.extend(length_errors(name, 63).into_iter().map(|error| format!("name part {error}")));
    if !is_name_part(name) {
        errors.push(format!("name part {rule}"));
    }
    errors
}

/// Returns the errors in the value of a label.
pub fn label_value_errors(value: &str) -> Vec<String> {
    let mut errors = length_errors(value, 63);
    if !value.is_empty() && !is_name_part(value) {
        errors.push(format!(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', \
             and must start and end with an alphanumeric character \
             (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '({NAME_PART})?')"
        ));
    }
    errors
}

fn length_errors(text: &str, limit: usize) -> Vec<String> {
    let error = (text.len() > limit).then(|| format!("must be no more than {limit} characters"));
    error.into_iter().collect()
}

fn is_dns_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    text.chars().all(inner) && !text.is_empty() && !text.starts_with('-') && !text.ends_with('-')
}

fn is_name_part(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.chars().all(inner) && edge(text.chars().next()) && edge(text.chars().next_back())
}
