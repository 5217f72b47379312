//! The paths of the HTTP server and their responses.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use leaderrun_core::instant::Instant;

use crate::telemetry::log::on_one_line;
use crate::telemetry::state::CandidateState;
use crate::telemetry::{exposition, metrics};

const PATHS: &str = "/healthz, /readyz, /leader and /metrics";

const PLAIN_TEXT: &str = "text/plain; charset=utf-8";

/// Returns the response to a request.
pub fn respond<B>(request: &Request<B>, state: &CandidateState, now: Instant) -> Response<Full<Bytes>> {
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are supported");
        refusal.headers_mut().insert(ALLOW, const { hyper::header::HeaderValue::from_static("GET, HEAD") });
        return refusal;
    }
    match request.uri().path() {
        "/healthz" => probe_response(state.health(now)),
        "/readyz" => probe_response(state.readiness(now)),
        "/leader" => response(StatusCode::OK, "application/json", state.leader(now)),
        "/metrics" => response(StatusCode::OK, exposition::CONTENT_TYPE, metrics::exposition(state, now)),
        "/" => text(StatusCode::OK, PATHS),
        _ => text(StatusCode::NOT_FOUND, &format!("not found; the available paths are {PATHS}")),
    }
}

fn probe_response(result: Result<(), String>) -> Response<Full<Bytes>> {
    match result {
        Ok(()) => text(StatusCode::OK, "ok"),
        Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, &reason),
    }
}

fn text(status: StatusCode, line: &str) -> Response<Full<Bytes>> {
    response(status, PLAIN_TEXT, on_one_line(line) + "\n")
}

/// Builds a response. This does not use hyper's builder, which returns a `Result`: all we could do with its error is
/// panic.
fn response(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    *response.headers_mut() =
        HeaderMap::from_iter([(CONTENT_TYPE, hyper::header::HeaderValue::from_static(content_type))]);
    response
}
