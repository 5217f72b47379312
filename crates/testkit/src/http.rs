//! A client for the HTTP server of a running leaderrun (`--http`).

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::{Running, TIMEOUT, eventually, eventually_some};

/// A response from leaderrun's HTTP server.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub body: String,
}

/// Waits until leaderrun has logged the address that it listens on, and returns it. If `--http` has port 0, the kernel
/// chooses the port.
#[track_caller]
pub fn address(running: &Running) -> SocketAddr {
    const ANNOUNCEMENT: &str = "serving HTTP on http://";
    running.wait_for_log(ANNOUNCEMENT);
    let log = running.log();
    // leaderrun may log another address after a rejoin, so the last one counts.
    let last = log.rsplit(ANNOUNCEMENT).next().and_then(|rest| rest.split_whitespace().next());
    last.and_then(|last| last.parse().ok()).expect("an address follows the announcement")
}

/// Sends one request on a new connection. `head` is the request line and the headers, with the empty line at the end.
///
/// # Errors
/// Fails if the connection fails, if connecting or waiting for more data takes longer than `timeout`, or if the head of
/// the response is incomplete or invalid. The body is whatever arrives before the connection is closed.
pub fn request(address: SocketAddr, head: &str, timeout: Duration) -> io::Result<Response> {
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.write_all(head.as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Response { status, body: body.to_owned() })
}

/// Sends a GET request for a path, and returns the response.
pub fn get(running: &Running, path: &str) -> Response {
    let head = format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
    request(address(running), &head, TIMEOUT).expect("leaderrun responds")
}

/// Returns the status of the response for a path.
pub fn status(running: &Running, path: &str) -> u16 {
    get(running, path).status
}

/// Waits until the response for a path has this status.
#[track_caller]
pub fn wait_for_status(running: &Running, path: &str, expected: u16) {
    eventually(&format!("{path} returns {expected}"), || status(running, path) == expected);
}

/// Returns the JSON document at `/leader`.
pub fn leader_report(running: &Running) -> Value {
    serde_json::from_str(&get(running, "/leader").body).expect("the document is JSON")
}

/// Waits until the document at `/leader` satisfies `condition`, and returns it. `what` describes the condition in the
/// failure message.
#[track_caller]
pub fn wait_for_leader_report(running: &Running, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
    eventually_some(what, || Some(leader_report(running)).filter(&condition))
}

/// The samples of `/metrics`, by name and labels, without the first label, which names the lock.
#[derive(Debug)]
pub struct Samples(BTreeMap<String, f64>);

/// Returns the samples of `/metrics`.
pub fn samples(running: &Running) -> Samples {
    let body = get(running, "/metrics").body;
    let lines = body.lines().filter(|line| !line.starts_with('#'));
    Samples(lines.map(sample).collect())
}

fn sample(line: &str) -> (String, f64) {
    let (series, value) = line.rsplit_once(' ').expect("each sample has a value");
    let (name, labels) = series.split_once('{').expect("each sample has labels");
    let without_lock = labels.trim_end_matches('}').split_once(',').map_or("", |(_, rest)| rest);
    (format!("{name}{{{without_lock}}}"), value.parse().expect("the value is a number"))
}

impl Samples {
    /// Returns the value of a series, for example `leaderrun_losses_total{reason="taken"}`.
    #[track_caller]
    pub fn value(&self, series: &str) -> f64 {
        let full = if series.contains('{') { series.to_owned() } else { format!("{series}{{}}") };
        *self.0.get(&full).unwrap_or_else(|| panic!("{full} is missing in {self:#?}"))
    }
}

/// Waits until the samples satisfy `condition`, and returns them. `what` describes the condition in the failure
/// message.
#[track_caller]
pub fn wait_for_samples(running: &Running, what: &str, condition: impl Fn(&Samples) -> bool) -> Samples {
    eventually_some(what, || Some(samples(running)).filter(&condition))
}
