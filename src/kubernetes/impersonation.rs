//! The headers with which a request acts as another user.

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::http;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use super::connection::Impersonation;

/// The characters that client-go encodes in the name of a header: those that a name cannot contain, and the percent
/// sign.
const ENCODED_IN_NAMES: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'*')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// Returns the headers with which a request acts as this user.
///
/// # Errors
/// Fails if a value contains a character that a header cannot contain, or if a key is too long for the name of a
/// header.
pub fn headers(Impersonation { user, uid, groups, extra }: &Impersonation) -> http::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    headers.insert("impersonate-user", HeaderValue::from_str(user)?);
    if let Some(uid) = uid {
        headers.insert("impersonate-uid", HeaderValue::from_str(uid)?);
    }
    for group in groups {
        headers.append("impersonate-group", HeaderValue::from_str(group)?);
    }
    for (key, values) in extra {
        let name = format!("impersonate-extra-{}", percent_encode(key.as_bytes(), ENCODED_IN_NAMES));
        for value in values {
            headers.append(HeaderName::try_from(&name)?, HeaderValue::from_str(value)?);
        }
    }
    Ok(headers)
}
