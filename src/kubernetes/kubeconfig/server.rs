//! The address of the API server, as people write it.

use hyper::Uri;

/// Returns the address of an API server. Without a scheme it is one without TLS, as for kubectl.
///
/// # Errors
/// The reason why it is none.
pub fn parse(text: &str) -> Result<Uri, String> {
    let text = text.trim();
    let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
    let scheme = scheme.to_ascii_lowercase();
    if scheme != "http" && scheme != "https" {
        return Err(format!("server {text:?} begins with {scheme}://, neither with http:// nor with https://"));
    }
    let end = rest.find(['?', '#']).unwrap_or(rest.len());
    let rest = rest[..end].trim_end_matches('/');
    let authority = &rest[..rest.find('/').unwrap_or(rest.len())];
    if let Some((_, port)) = authority.rsplit_once(':')
        && !port.contains(']')
        && port.parse::<u16>().is_err()
    {
        return Err(format!("server {text:?}: {port:?} is not a port"));
    }
    let uri = format!("{scheme}://{rest}").parse::<Uri>().map_err(|invalid| format!("server {text:?}: {invalid}"))?;
    match uri.host() {
        None | Some("") => Err(format!("server {text:?} names no host")),
        Some(_) => Ok(uri),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_kubectl_reads_it() {
        for (text, address) in [
            ("https://host", "https://host/"),
            (" https://host:6443/ ", "https://host:6443/"),
            ("HTTPS://host", "https://host/"),
            ("https://[::1]:6443", "https://[::1]:6443/"),
            ("https://host/k8s/clusters/c-1/", "https://host/k8s/clusters/c-1"),
            ("https://host/prefix?query#fragment", "https://host/prefix"),
            ("host:8080", "http://host:8080/"),
            ("127.0.0.1", "http://127.0.0.1/"),
        ] {
            assert_eq!(parse(text).map(|uri| uri.to_string()), Ok(address.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_reason() {
        for (text, reason) in [
            ("ftp://host", "neither with http:// nor with https://"),
            ("https://", "https://"),
            ("https://:6443", "names no host"),
            ("https://a b", "invalid uri character"),
            ("https://host:port", "\"port\" is not a port"),
        ] {
            let refusal = parse(text).expect_err(text);
            assert!(refusal.contains(reason), "{text}: {refusal}");
        }
    }
}
