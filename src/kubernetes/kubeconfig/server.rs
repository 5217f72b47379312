//! Parses the address of the API server, from a kubeconfig or from a pod's environment variables.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use hyper::Uri;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

use super::super::connection::BasicCredentials;

/// The characters that Go encodes in the path of an address.
const ENCODED_IN_PATHS: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b',')
    .remove(b'-')
    .remove(b'.')
    .remove(b'/')
    .remove(b':')
    .remove(b';')
    .remove(b'=')
    .remove(b'@')
    .remove(b'_')
    .remove(b'~');

/// The address of an API server, and separately the user name and password that it contained.
pub struct ServerAddress {
    pub server: Uri,
    /// The user name and password, which take precedence over a token, as in kubectl.
    pub credentials: Option<BasicCredentials>,
}

/// Parses the address of an API server. As in kubectl, the default scheme is `http`.
///
/// # Errors
/// Fails if the address is invalid. The error is the reason, without the user name and the password.
pub fn parse(text: &str) -> Result<ServerAddress, String> {
    let text = text.trim();
    let (explicit_scheme, rest) = text.split_once("://").map_or((None, text), |(scheme, rest)| (Some(scheme), rest));
    let scheme = explicit_scheme.unwrap_or("http").to_ascii_lowercase();
    let end = rest.find(['?', '#']).unwrap_or(rest.len());
    let rest = rest[..end].trim_end_matches('/');
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (credentials, authority) = match authority.rsplit_once('@') {
        Some((credentials, authority)) => (Some(basic_credentials(credentials)), authority),
        None => (None, authority),
    };
    if explicit_scheme.is_none() && !path.is_empty() {
        return Err(format!("server \"{authority}{path}\" does not begin with http:// or https://"));
    }
    // An empty port means the default port of the scheme.
    let authority = bracketed(authority.strip_suffix(':').unwrap_or(authority));
    // The user name and the password are omitted, because messages must not show them.
    let url = format!("{scheme}://{authority}{}", clean_path(path));
    if scheme != "http" && scheme != "https" {
        return Err(format!("server {url:?} begins with {scheme}:// instead of http:// or https://"));
    }
    let is_port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok();
    if let Some((_, port)) = authority.rsplit_once(':')
        && !port.contains(']')
        && !is_port(port)
    {
        return Err(format!("server {url:?}: {port:?} is not a port number"));
    }
    let is_escape = |rest: &[u8]| rest.len() > 2 && rest[1..3].iter().all(u8::is_ascii_hexdigit);
    if !path.match_indices('%').all(|(at, _)| is_escape(&path.as_bytes()[at..])) {
        return Err(format!("server \"{scheme}://{authority}{path}\": a % is not followed by two hexadecimal digits"));
    }
    if authority.is_empty() {
        return Err(format!("server {url:?} has no host"));
    }
    let server = url.parse::<Uri>().map_err(|invalid| format!("server {url:?}: {invalid}"))?;
    match server.host() {
        None | Some("") => Err(format!("server {url:?} has no host")),
        Some(_) => Ok(ServerAddress { server, credentials }),
    }
}

/// Adds brackets to an IPv6 address with a port if they are missing, as Go does.
fn bracketed(authority: &str) -> Cow<'_, str> {
    match authority.rsplit_once(':') {
        Some((host, port)) if host.parse::<Ipv6Addr>().is_ok() => format!("[{host}]:{port}").into(),
        _ => authority.into(),
    }
}

/// Removes empty segments and `.` from a path, resolves `..`, and encodes the path as Go does.
fn clean_path(path: &str) -> String {
    let decoded: Vec<u8> = percent_decode_str(path).collect();
    let mut segments = Vec::new();
    for segment in decoded.split(|byte| *byte == b'/') {
        match segment {
            b"" | b"." => {}
            b".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    segments.into_iter().map(|segment| format!("/{}", percent_encode(segment, ENCODED_IN_PATHS))).collect()
}

fn basic_credentials(text: &str) -> BasicCredentials {
    let (username, password) = text.split_once(':').unwrap_or((text, ""));
    let decoded = |text| percent_decode_str(text).decode_utf8_lossy().into_owned();
    BasicCredentials { username: decoded(username), password: decoded(password) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_addresses_are_parsed_as_in_kubectl() {
        for (text, address) in [
            ("https://host", "https://host/"),
            (" https://host:6443/ ", "https://host:6443/"),
            ("HTTPS://host", "https://host/"),
            ("https://[::1]:6443", "https://[::1]:6443/"),
            ("https://host/k8s/clusters/c-1/", "https://host/k8s/clusters/c-1"),
            ("https://host/prefix?query#fragment", "https://host/prefix"),
            ("https://host:/prefix", "https://host/prefix"),
            ("https://[::1]:", "https://[::1]/"),
            ("https://::1:6443/prefix", "https://[::1]:6443/prefix"),
            ("https://host/my prefix/ü", "https://host/my%20prefix/%C3%BC"),
            ("https://host/a%2fb", "https://host/a/b"),
            ("https://host//a//b/", "https://host/a/b"),
            ("https://host/../a/./b/%2e%2e/c", "https://host/a/c"),
            ("https://host/a'(b)[c]", "https://host/a%27%28b%29%5Bc%5D"),
            ("https://host/%41%3f%25%ff$&+,:;=@_~", "https://host/A%3F%25%FF$&+,:;=@_~"),
            ("host:8080", "http://host:8080/"),
            ("127.0.0.1", "http://127.0.0.1/"),
        ] {
            assert_eq!(parse(text).map(|parsed| parsed.server.to_string()), Ok(address.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_user_name_and_a_password_in_the_address_become_credentials() {
        let parsed = parse("https://me:p%40ss@host:6443/path");
        let ServerAddress { server, credentials } = parsed.unwrap_or_else(|refusal| panic!("{refusal}"));
        assert_eq!(server, "https://host:6443/path");
        let credentials = credentials.map(|basic| (basic.username, basic.password));
        assert_eq!(credentials, Some(("me".to_owned(), "p@ss".to_owned())));
        let refusal = parse("https://me:secret@host:port").map(drop).expect_err("the port is not a number");
        assert!(!refusal.contains("secret"), "{refusal}");
    }

    #[test]
    fn invalid_addresses_are_refused_with_the_reason() {
        for (text, reason) in [
            ("ftp://host", "begins with ftp:// instead of http:// or https://"),
            ("https://", "has no host"),
            ("https:///host", "has no host"),
            ("https://host/a%2", "a % is not followed by two hexadecimal digits"),
            ("https://host/a%+f", "a % is not followed by two hexadecimal digits"),
            ("https:/host", "server \"https:/host\" does not begin with http:// or https://"),
            ("host/prefix", "does not begin with http:// or https://"),
            ("https://fd00::1", "invalid authority"),
            ("https://:6443", "has no host"),
            ("https://a b", "invalid uri character"),
            ("https://host:port", "\"port\" is not a port number"),
            ("https://host:+80", "\"+80\" is not a port number"),
        ] {
            let refusal = parse(text).map(drop).expect_err(text);
            assert!(refusal.contains(reason), "{text}: {refusal}");
        }
    }
}
