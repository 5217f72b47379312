//! Turns a response into an object or an error. A response that is not from an API server is an error too.

use std::time::Duration;

use hyper::Response;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, DATE, HeaderMap, LOCATION, RETRY_AFTER};
use jiff::fmt::rfc2822;
use kube::core::Status;
use serde_json::Value;

use super::error::{Error, ErrorKind};
use crate::telemetry::log::printable;

/// Returns the object in a response from the API server at this address.
///
/// # Errors
/// Returns the API server's error, or an error for a response that is not from an API server.
pub fn object(response: &Response<impl AsRef<[u8]>>, address: &str) -> Result<Value, Error> {
    let (code, body) = (response.status(), response.body().as_ref());
    let value = serde_json::from_slice::<Value>(body);
    if code.is_success() {
        return value.map_err(|_| not_from_api_server(response, address));
    }
    let is_status = value.as_ref().is_ok_and(|value| value["kind"] == "Status");
    let error = match value.ok().filter(|_| is_status) {
        Some(status) => status_error(&status, code.as_u16()),
        None => not_from_api_server(response, address),
    };
    let retry_after = error.retry_after.or_else(|| retry_after(response.headers()));
    Err(Error { retry_after, ..error })
}

/// Returns the error for a response that is not from an API server. The message does not quote the body, because it may
/// be an HTML page.
fn not_from_api_server(response: &Response<impl AsRef<[u8]>>, address: &str) -> Error {
    let (code, body) = (response.status(), response.body().as_ref());
    let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if let Some(location) = response.headers().get(LOCATION).filter(|_| code.is_redirection()) {
        let location = printable(&String::from_utf8_lossy(location.as_bytes()));
        let reason = "leaderrun does not follow redirects, because another server might have a different lock";
        return Error::unknown(format!(
            "{address} redirects to {location} with HTTP status {code}: {reason}; set the server field in the \
             kubeconfig to the address of the API server itself"
        ));
    }
    let body_type = if body.is_empty() {
        "an empty response"
    } else if response.headers().get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        "a compressed response, although leaderrun did not ask for one"
    } else if content_type.contains("html") || body.trim_ascii_start().starts_with(b"<") {
        "an HTML page"
    } else if serde_json::from_slice::<Value>(body).is_ok() {
        "unexpected JSON"
    } else {
        "text"
    };
    // A 429 probably comes from a busy proxy in front of the API server, which has not passed the request on.
    let kind = if code == 429 { ErrorKind::Refused } else { ErrorKind::Unknown };
    Error::new(
        kind,
        format!("{address} did not respond like a Kubernetes API server: it sent {body_type}, with HTTP status {code}"),
    )
}

/// Returns the error for a `Status`. Fields of the wrong type are ignored.
fn status_error(status: &Value, http_code: u16) -> Error {
    let text = |field: &str| status[field].as_str().unwrap_or_default();
    let code = status["code"].as_u64().and_then(|code| u16::try_from(code).ok()).filter(|code| *code != 0);
    let retry_after = status["details"]["retryAfterSeconds"].as_u64().filter(|seconds| *seconds > 0);
    let status = Status::failure(text("message"), text("reason")).with_code(code.unwrap_or(http_code));
    Error { retry_after: retry_after.map(Duration::from_secs), ..Error::from_status(&status) }
}

/// Returns the pause that the `Retry-After` header requests, as a number of seconds or as a time; `None` if it requests
/// none. A time is compared with the `Date` header of the response, because this machine's clock may differ from the
/// server's.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    let retry_after = text(RETRY_AFTER)?;
    let pause = match retry_after.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let [at, sent] = [retry_after, text(DATE)?].map(|time| rfc2822::parse(time).ok());
            at?.duration_since(&sent?).try_into().ok()?
        }
    };
    Some(pause).filter(|pause| !pause.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: &str = "https://10.96.0.1";

    fn response(code: u16, headers: &[(&str, &str)], body: &str) -> Response<String> {
        let response = headers
            .iter()
            .fold(Response::builder().status(code), |response, (name, value)| response.header(*name, *value));
        response.body(body.to_owned()).expect("the response is valid")
    }

    #[test]
    fn responses_from_other_servers_are_recognized() {
        for (code, headers, body, expected) in [
            (
                200,
                &[("content-type", "text/html; charset=utf-8")][..],
                "<html>",
                "an HTML page, with HTTP status 200 OK",
            ),
            (404, &[], "  <!DOCTYPE html>", "an HTML page, with HTTP status 404 Not Found"),
            (404, &[], "404 page not found", "text, with HTTP status 404"),
            (403, &[], r#"{"error":"denied"}"#, "unexpected JSON"),
            (502, &[], "", "an empty response"),
            (200, &[("content-encoding", "gzip")], "\u{1f}", "a compressed response"),
        ] {
            let error = object(&response(code, headers, body), ADDRESS).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Unknown, "{body}");
            assert!(error.message.contains(expected) && error.message.contains(ADDRESS), "{body}: {error}");
        }
    }

    #[test]
    fn a_redirect_is_reported_with_its_target() {
        for (code, location) in [(301, "https://other.example/"), (307, "/login?x")] {
            let error = object(&response(code, &[("location", location)], "<html>"), ADDRESS).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Unknown);
            let expected = format!("{ADDRESS} redirects to {location} with HTTP status {code}");
            assert!(error.message.contains(&expected), "{error}");
        }
    }

    #[test]
    fn a_status_with_unusual_fields_is_still_read() {
        for (fields, message, pause) in [
            (r#""message":"busy","details":{"retryAfterSeconds":-1}"#, "busy", None),
            (r#""message":"busy","details":{"retryAfterSeconds":86400000000}"#, "busy", Some(86_400_000_000)),
            (r#""message":"busy","details":{"retryAfterSeconds":"3"}"#, "busy", None),
            (r#""message":"busy","details":[],"reason":7,"metadata":[]"#, "busy", None),
            (r#""message":null,"code":"429""#, "HTTP status 429", None),
        ] {
            let body = format!(r#"{{"kind":"Status",{fields}}}"#);
            let error = object(&response(429, &[], &body), ADDRESS).unwrap_err();
            assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Refused, message), "{body}");
            assert_eq!(error.retry_after.map(|pause| pause.as_secs()), pause, "{body}");
        }
    }

    #[test]
    fn the_retry_after_header_is_used_if_the_body_requests_no_pause() {
        let pause = |headers: &[(&str, &str)], body: &str| {
            let error = object(&response(429, headers, body), ADDRESS).unwrap_err();
            (error.kind, error.retry_after.map(|pause| pause.as_secs()))
        };
        let header = &[("retry-after", "7")][..];
        let body_without_pause = r#"{"kind":"Status","code":429,"message":"busy"}"#;
        let body_with_pause = r#"{"kind":"Status","code":429,"message":"busy","details":{"retryAfterSeconds":3}}"#;
        assert_eq!(pause(header, "busy"), (ErrorKind::Refused, Some(7)));
        assert_eq!(pause(header, body_without_pause), (ErrorKind::Refused, Some(7)));
        assert_eq!(pause(header, body_with_pause), (ErrorKind::Refused, Some(3)));
        assert_eq!(pause(&[], body_with_pause), (ErrorKind::Refused, Some(3)));
        let at = |time: &str| pause(&[("retry-after", time), ("date", "Wed, 21 Oct 2026 07:28:00 GMT")], "busy").1;
        assert_eq!(at("Wed, 21 Oct 2026 07:28:30 GMT"), Some(30));
        assert_eq!(["Wed, 21 Oct 2026 07:28:00 GMT", "Wed, 21 Oct 2026 07:27:00 GMT", "soon"].map(at), [None; 3]);
        for other in ["0", "-1", "soon", "Wed, 21 Oct 2026 07:28:00 GMT", "99999999999999999999"] {
            assert_eq!(pause(&[("retry-after", other)], "busy"), (ErrorKind::Refused, None), "{other}");
        }
    }
}
