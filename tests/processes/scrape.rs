//! What leaderrun answers over HTTP.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use testkit::candidate::{PATIENCE, Running, eventually};

/// An answer.
#[derive(Debug)]
pub struct Page {
    pub status: u16,
    pub body: String,
}

/// Where it answers, by its log; it was started with a port of 0.
#[track_caller]
pub fn address(running: &Running) -> SocketAddr {
    const SAYS: &str = "answering at http://";
    running.says(SAYS);
    let log = running.log();
    // After a rejoin there is another one.
    let last = log.rsplit(SAYS).next().and_then(|rest| rest.split_whitespace().next()).expect("an address");
    last.parse().expect("an address")
}

/// One request on a connection of its own, answered within `patience`.
pub fn request(address: SocketAddr, head: &str, patience: Duration) -> io::Result<Page> {
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(head.as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Page { status, body: body.to_owned() })
}

pub fn get(running: &Running, path: &str) -> Page {
    let head = format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
    request(address(running), &head, PATIENCE).expect("an answer")
}

pub fn status(running: &Running, path: &str) -> u16 {
    get(running, path).status
}

/// Waits until a path has this status.
#[track_caller]
pub fn becomes(running: &Running, path: &str, expected: u16) {
    eventually(&format!("{path} answers {expected}"), || status(running, path) == expected);
}

/// Waits until `/leader` looks like this.
#[track_caller]
pub fn leader_becomes(running: &Running, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
    eventually(what, || condition(&leader(running)));
    leader(running)
}

pub fn leader(running: &Running) -> Value {
    serde_json::from_str(&get(running, "/leader").body).expect("JSON")
}

/// The samples of `/metrics`, by name and labels but for the lock's name.
#[derive(Debug)]
pub struct Samples(BTreeMap<String, f64>);

pub fn samples(running: &Running) -> Samples {
    let body = get(running, "/metrics").body;
    let lines = body.lines().filter(|line| !line.starts_with('#'));
    Samples(lines.map(sample).collect())
}

fn sample(line: &str) -> (String, f64) {
    let (series, value) = line.rsplit_once(' ').expect("a value");
    let (name, labels) = series.split_once('{').expect("labels");
    let own = labels.trim_end_matches('}').split_once(',').map_or("", |(_, own)| own);
    (format!("{name}{{{own}}}"), value.parse().expect("a number"))
}

impl Samples {
    /// The value of a series, as in `leaderrun_losses_total{reason="taken"}`.
    #[track_caller]
    pub fn of(&self, series: &str) -> f64 {
        let full = if series.contains('{') { series.to_owned() } else { format!("{series}{{}}") };
        *self.0.get(&full).unwrap_or_else(|| panic!("no {full} in {self:#?}"))
    }
}

/// Waits until the samples look like this.
#[track_caller]
pub fn samples_become(running: &Running, what: &str, condition: impl Fn(&Samples) -> bool) -> Samples {
    eventually(what, || condition(&samples(running)));
    samples(running)
}
