//! The rows about the credentials, the lookup of the API server's name, and the wall clock.

use std::net::IpAddr;
use std::time::Duration;

use hyper::header::{DATE, HeaderMap};
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use leaderrun_core::timing::Timing;
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::format_milliseconds;
use super::table::{Row, Table};
use crate::kubernetes::Cluster;
use crate::process::clock;
use crate::subcommands::REQUEST_TIMEOUT;

/// If the two clocks differ by more than this, the row about the wall clock suggests a remedy. Smaller differences may
/// not be real, because a `Date` header has whole seconds and the response takes time.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5);

/// Returns a row about how long it took to get the credentials. A credential plugin can be slow.
pub fn credentials_row(took: Duration, timing: &Timing) -> Row {
    let limit = timing.request_timeout();
    let finding = format!(
        "were ready after {}; a request times out after {}",
        format_milliseconds(took),
        format_milliseconds(limit)
    );
    let remedy = "use a credential plugin that caches its token, or a service account's token instead";
    if took >= limit { Row::note("credentials", finding, remedy) } else { Row::ok("credentials", finding) }
}

/// Adds a row about how long it takes to look up the API server's name, unless the server is given by IP address.
pub async fn examine_host_lookup(table: &mut Table, cluster: &Cluster, timing: &Timing) {
    let (host, port) = cluster.host_and_port();
    if host.parse::<IpAddr>().is_ok() {
        return;
    }
    let began = clock::now();
    let found = timeout(REQUEST_TIMEOUT, lookup_host((host.as_str(), port))).await;
    let took = format_milliseconds(clock::now().since(began));
    let remedy = "check the name servers in /etc/resolv.conf, or give the API server's IP address";
    let limit = timing.request_timeout();
    table.add(match found {
        Ok(Ok(_)) if clock::now().since(began) < limit / 2 => Row::ok("name", format!("looking up {host} took {took}")),
        Ok(Ok(_)) => {
            let finding =
                format!("looking up {host} took {took}; a request times out after {}", format_milliseconds(limit));
            Row::note("name", finding, remedy)
        }
        Ok(Err(failure)) => Row::note("name", format!("cannot look up {host}: {failure}"), remedy),
        Err(_) => Row::note("name", format!("looking up {host} timed out after {took}"), remedy),
    });
}

/// Returns a row about the difference between this machine's clock and the API server's.
pub fn wall_clock_row(headers: &HeaderMap) -> Row {
    let date = headers.get(DATE).and_then(|date| date.to_str().ok());
    let Some(date) = date.and_then(|date| rfc2822::parse(date).ok()) else {
        return Row::ok("wall clock", "the API server does not send its time");
    };
    let difference = Timestamp::now().duration_since(date.timestamp());
    let seconds = format_milliseconds(Duration::from_secs(difference.unsigned_abs().as_secs()));
    let direction = if difference.is_negative() { "behind" } else { "ahead of" };
    let finding = format!("{seconds} {direction} the API server's");
    if difference.unsigned_abs() > CLOCK_TOLERANCE {
        Row::note("wall clock", finding, "synchronize the clock with NTP: --min-hold and --every depend on it")
    } else {
        Row::ok("wall clock", finding)
    }
}
