//! Opens TCP connections to hosts that may have several addresses.

use std::future::Future;
use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use nix::net::if_::if_nametoindex;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::resolver::Resolver;

/// How long an address is tried before the next address is tried too. RFC 8305 recommends this delay.
const ADDRESS_DELAY: Duration = Duration::from_millis(250);

/// Connects to the first address of a host that accepts a connection. `host` is a name or an address. The first `skip`
/// addresses are tried last, because earlier connections to them did not work.
///
/// # Errors
/// Fails if the host cannot be looked up, has an unknown zone, or has no address that accepts a connection.
pub async fn connect(resolver: &Resolver, host: &str, port: u16, skip: usize) -> io::Result<TcpStream> {
    let mut addresses = match zoned_address(host, port)? {
        Some(address) => vec![address],
        None => {
            let addresses = resolver.addresses(host).await?.into_iter();
            addresses.map(|address| SocketAddr::new(address, port)).collect()
        }
    };
    let count = addresses.len().max(1);
    addresses.rotate_left(skip % count);
    let stream = first_success(addresses.into_iter().map(TcpStream::connect)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Returns the result of the first attempt that succeeds, or else the first failure. The next attempt begins when an
/// attempt has failed or after [`ADDRESS_DELAY`]. Slow attempts continue.
async fn first_success<T>(
    mut attempts: impl ExactSizeIterator<Item = impl Future<Output = io::Result<T>>>,
) -> io::Result<T> {
    let (mut pending, mut first_failure) = (FuturesUnordered::new(), None);
    loop {
        pending.extend(attempts.next());
        let ended = if attempts.len() == 0 {
            pending.next().await
        } else {
            timeout(ADDRESS_DELAY, pending.next()).await.ok().flatten()
        };
        match ended {
            Some(Ok(success)) => return Ok(success),
            Some(Err(failure)) => {
                first_failure.get_or_insert(failure);
            }
            None => {}
        }
        if pending.is_empty() && attempts.len() == 0 {
            return Err(first_failure.unwrap_or_else(|| io::Error::other("the host has no addresses")));
        }
    }
}

/// Returns the address of an IPv6 host with a zone, such as `[fe80::1%25eth0]`; `None` for any other host. The resolver
/// does not support zones.
fn zoned_address(host: &str, port: u16) -> io::Result<Option<SocketAddr>> {
    let host = host.trim_matches(['[', ']']);
    let Some((address, zone)) = split_zone(host) else { return Ok(None) };
    let index = zone.parse().or_else(|_| if_nametoindex(zone)).map_err(|_| {
        io::Error::other(format!("the zone of {address} is unknown: this machine has no network interface {zone:?}"))
    })?;
    Ok(Some(SocketAddrV6::new(address, port, 0, index).into()))
}

/// Splits an IPv6 address with a zone into the address and the zone. The percent sign may be encoded as `%25`, as in a
/// URL.
pub fn split_zone(host: &str) -> Option<(Ipv6Addr, &str)> {
    let (address, zone) = host.split_once("%25").or_else(|| host.split_once('%'))?;
    Some((address.parse().ok()?, zone))
}

/// Returns a host and port without the zone of the address, which is only meaningful on this machine.
pub fn without_zone(authority: &str) -> String {
    match (authority.find('%'), authority.rfind(']')) {
        (Some(zone), Some(end)) if zone < end => format!("{}{}", &authority[..zone], &authority[end..]),
        _ => authority.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::net::TcpListener;
    use std::pin::Pin;

    use super::*;

    type Attempt = Pin<Box<dyn Future<Output = io::Result<u8>>>>;

    fn first(attempts: Vec<Attempt>) -> io::Result<u8> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(first_success(attempts.into_iter()))
    }

    fn dead() -> Attempt {
        Box::pin(pending())
    }

    fn ended(result: Result<u8, &'static str>) -> Attempt {
        Box::pin(async move { result.map_err(io::Error::other) })
    }

    #[test]
    fn a_dead_address_delays_the_others_only_briefly() {
        assert_eq!(first(vec![dead(), ended(Ok(2))]).unwrap(), 2);
        assert_eq!(first(vec![dead(), ended(Err("refused")), dead(), ended(Ok(4))]).unwrap(), 4);
        assert_eq!(first(vec![ended(Ok(1)), ended(Ok(2))]).unwrap(), 1);
    }

    #[test]
    fn skipped_addresses_are_tried_last() {
        let first = TcpListener::bind("127.0.0.2:0").unwrap();
        let port = first.local_addr().unwrap().port();
        let _second = TcpListener::bind(("127.0.0.3", port)).unwrap();
        let resolver = Resolver::with(|_| Ok(vec![[127, 0, 0, 2].into(), [127, 0, 0, 3].into()]));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for (skip, expected) in [(0, 2), (1, 3), (2, 2)] {
            let stream = runtime.block_on(connect(&resolver, "api.example.com", port, skip)).unwrap();
            assert_eq!(stream.peer_addr().unwrap().to_string(), format!("127.0.0.{expected}:{port}"));
        }
        drop(first);
        let stream = runtime.block_on(connect(&resolver, "api.example.com", port, 0)).unwrap();
        assert_eq!(stream.peer_addr().unwrap().to_string(), format!("127.0.0.3:{port}"));
    }

    #[test]
    fn the_first_failure_is_reported() {
        let failure = first(vec![ended(Err("refused")), ended(Err("unreachable"))]).unwrap_err();
        assert_eq!(failure.to_string(), "refused");
        assert_eq!(first(Vec::new()).unwrap_err().to_string(), "the host has no addresses");
    }

    #[test]
    fn an_address_may_have_a_zone() {
        let zoned = |host| zoned_address(host, 6443);
        assert_eq!(zoned("[fe80::1%2512]").unwrap(), Some("[fe80::1%12]:6443".parse().unwrap()));
        assert!(matches!(zoned("[::1%25lo]").unwrap(), Some(SocketAddr::V6(address)) if address.scope_id() > 0));
        assert!(zoned("[fe80::1%25none]").unwrap_err().to_string().contains("no network interface \"none\""));
        for host in ["[fe80::1]", "10.0.0.1", "api.example.com", "a%25b"] {
            assert_eq!(zoned(host).unwrap(), None, "{host}");
        }
        assert_eq!(without_zone("[fe80::1%25eth0]:6443"), "[fe80::1]:6443");
        assert_eq!(without_zone("api.example.com:6443"), "api.example.com:6443");
    }
}
