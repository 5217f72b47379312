//! Name lookups that continue when their requests are dropped.
//!
//! A lookup may take many seconds, because it waits five seconds by default for each name server. It runs on its own
//! thread, and all requests for the name share its result. A request waits only briefly for a lookup if earlier
//! addresses are known.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::timeout;

use crate::process::runtime_thread;

/// How long a request waits for a lookup if earlier addresses are known.
const REFRESH_TIMEOUT: Duration = Duration::from_millis(500);

/// How long addresses are used without looking them up again.
const FRESH_FOR: Duration = Duration::from_secs(5);

type LookupResult = Result<Vec<IpAddr>, String>;

/// Looks up the addresses of names. Clones share the known addresses.
#[derive(Clone, Debug)]
pub struct Resolver {
    /// The function that looks up a name. It may block for many seconds.
    look_up: fn(&str) -> io::Result<Vec<IpAddr>>,
    names: Arc<Mutex<HashMap<String, KnownName>>>,
}

impl Default for Resolver {
    fn default() -> Self {
        Self { look_up, names: Arc::default() }
    }
}

fn look_up(name: &str) -> io::Result<Vec<IpAddr>> {
    Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect())
}

/// The addresses of a name that were found last, and the lookup that is pending.
#[derive(Debug, Default)]
struct KnownName {
    addresses: Vec<IpAddr>,
    found_at: Option<Instant>,
    /// The pending lookup, if there is one. The channel contains its result, once there is one.
    pending: Option<watch::Receiver<Option<LookupResult>>>,
}

impl Resolver {
    /// Creates a resolver that looks up names with this function.
    #[cfg(test)]
    pub fn with(look_up: fn(&str) -> io::Result<Vec<IpAddr>>) -> Self {
        Self { look_up, ..Self::default() }
    }

    /// Returns the addresses of a host. `name` may itself be an address.
    ///
    /// # Errors
    /// Fails if no earlier addresses are known, and the lookup fails or cannot be started.
    pub async fn addresses(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        if let Ok(address) = name.trim_matches(['[', ']']).parse() {
            return Ok(vec![address]);
        }
        let (known, mut pending) = {
            let mut names = self.names.lock().expect("no thread panics while it holds this lock");
            let entry = names.entry(name.to_owned()).or_default();
            if entry.found_at.is_some_and(|found_at| found_at.elapsed() < FRESH_FOR) {
                return Ok(entry.addresses.clone());
            }
            let pending = match entry.pending.clone().map_or_else(|| self.start_lookup(name), Ok) {
                Ok(pending) => pending,
                // No thread could be started, perhaps because the command has used up the process limit.
                Err(_) if !entry.addresses.is_empty() => return Ok(entry.addresses.clone()),
                Err(failure) => return Err(failure),
            };
            entry.pending = Some(pending.clone());
            (entry.addresses.clone(), pending)
        };
        let ended = async {
            let lookup = pending.wait_for(Option::is_some).await;
            lookup.ok().and_then(|lookup| lookup.clone()).unwrap_or_else(|| Err("the lookup was aborted".to_owned()))
        };
        let lookup = if known.is_empty() {
            ended.await
        } else {
            timeout(REFRESH_TIMEOUT, ended).await.unwrap_or_else(|_| Ok(known.clone()))
        };
        match lookup {
            Ok(addresses) => Ok(addresses),
            Err(_) if !known.is_empty() => Ok(known),
            Err(reason) => Err(io::Error::other(format!("cannot look up {name}: {reason}"))),
        }
    }

    /// Starts a lookup on a new thread.
    fn start_lookup(&self, name: &str) -> io::Result<watch::Receiver<Option<LookupResult>>> {
        let (sender, pending) = watch::channel(None);
        let (look_up, names, name) = (self.look_up, Arc::clone(&self.names), name.to_owned());
        runtime_thread::start("lookup", move || {
            let lookup = look_up(&name).map_err(|failure| failure.to_string());
            if let Some(entry) = names.lock().expect("no thread panics while it holds this lock").get_mut(&name) {
                entry.pending = None;
                if let Ok(addresses) = &lookup {
                    (entry.addresses, entry.found_at) = (addresses.clone(), Some(Instant::now()));
                }
            }
            sender.send_replace(Some(lookup));
        })?;
        Ok(pending)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    fn resolve(resolver: &Resolver, name: &str) -> io::Result<Vec<IpAddr>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(resolver.addresses(name))
    }

    fn make_addresses_outdated(resolver: &Resolver) {
        for known in resolver.names.lock().unwrap().values_mut() {
            known.found_at = None;
        }
    }

    const ADDRESS: [u8; 4] = [10, 0, 0, 1];

    #[test]
    fn an_address_needs_no_lookup() {
        let resolver = Resolver { look_up: |_| panic!("an address should not be looked up"), ..Resolver::default() };
        assert_eq!(resolve(&resolver, "10.0.0.1").unwrap(), [IpAddr::from(ADDRESS)]);
        assert_eq!(resolve(&resolver, "[::1]").unwrap().len(), 1);
    }

    #[test]
    fn earlier_addresses_are_used_if_a_lookup_is_slow_or_fails() {
        static LOOKUPS: AtomicUsize = AtomicUsize::new(0);
        let resolver = Resolver {
            look_up: |_| match LOOKUPS.fetch_add(1, Ordering::Relaxed) {
                0 => Ok(vec![ADDRESS.into()]),
                1 => Err(io::Error::other("no such name")),
                _ => loop {
                    thread::park();
                },
            },
            ..Resolver::default()
        };
        for _ in 0..3 {
            assert_eq!(resolve(&resolver, "api.example.com").unwrap(), [IpAddr::from(ADDRESS)]);
            make_addresses_outdated(&resolver);
        }
        assert_eq!(LOOKUPS.load(Ordering::Relaxed), 3);
        resolve(&resolver, "api.example.com").unwrap();
        assert_eq!(LOOKUPS.load(Ordering::Relaxed), 3, "there should be only one lookup at a time");
    }

    #[test]
    fn a_lookup_continues_after_its_request_was_dropped() {
        static LOOKUPS: AtomicUsize = AtomicUsize::new(0);
        let resolver = Resolver {
            look_up: |_| {
                LOOKUPS.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(300));
                Ok(vec![ADDRESS.into()])
            },
            ..Resolver::default()
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let timed_out = runtime.block_on(async {
            timeout(Duration::from_millis(20), resolver.addresses("api.example.com")).await.is_err()
        });
        assert!(timed_out);
        assert_eq!(resolve(&resolver, "api.example.com").unwrap(), [IpAddr::from(ADDRESS)]);
        assert_eq!(LOOKUPS.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn the_error_for_an_unknown_name_contains_the_name() {
        let resolver = Resolver { look_up: |_| Err(io::Error::other("no such name")), ..Resolver::default() };
        let failure = resolve(&resolver, "api.example.com").unwrap_err();
        assert_eq!(failure.to_string(), "cannot look up api.example.com: no such name");
    }
}
