//! Opens the lock with a given name.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use leaderrun_core::record::RunId;

use super::kind::Store;
use super::object::RoleScope;
use super::owner::{Owner, OwnerConfig};
use super::{Lock, LockName, ObjectLock, SlotCount, TwoObjectLock};
use crate::kubernetes::{Cluster, ClusterAccess};
use crate::process::runtime_thread;

/// A lock with its options from the command line.
#[derive(Debug)]
pub struct LockConfig {
    pub name: LockName,
    pub slots: Option<SlotCount>,
    /// The owner of the lock's objects.
    pub owner: Option<OwnerConfig>,
}

/// Opens the lock with this name without sending a request to an API server. Returns the lock and its full name, which
/// includes the namespace. `run` is the run ID by which a two-object lock recognizes its own writes.
///
/// # Errors
/// Fails if there is no usable cluster configuration, or if the lock file cannot be used.
pub async fn open(
    name: LockName,
    access: &ClusterAccess,
    request_timeout: Duration,
    run: &RunId,
) -> Result<(Box<dyn Lock>, LockName)> {
    let config = LockConfig { name, slots: None, owner: None };
    let (locks, name) = open_slots(config, access, request_timeout, run).await?;
    let lock = locks.into_iter().next().expect("without slots there is one lock");
    Ok((lock, name))
}

/// Opens the locks of all slots, or the lock itself if it has no slots; see [`open`]. Requests to these locks must be
/// sent one at a time, as if the locks were one [`Lock`]: in a cluster they share a connection.
pub async fn open_slots(
    config: LockConfig,
    access: &ClusterAccess,
    request_timeout: Duration,
    run: &RunId,
) -> Result<(Vec<Box<dyn Lock>>, LockName)> {
    let LockConfig { name, slots, owner } = config;
    match name.kind.store {
        Store::Objects(first, second) => {
            let cluster = Cluster::open(access, request_timeout).await?;
            let namespace = name.namespace.clone().unwrap_or_else(|| cluster.default_namespace().to_owned());
            let object_names: Vec<String> = name.in_slots(slots).into_iter().map(|slot| slot.name).collect();
            let role_scope = Arc::new(RoleScope { lock: name.name.clone(), object_names: object_names.clone() });
            let full_name = LockName { namespace: Some(namespace.clone()), ..name };
            // A request for the lock may first look up the owner. Each request of the lookup has only half of the
            // request timeout, so that a lookup without a response leaves time for the request for the lock.
            let new_owner =
                |config| Owner::new(config, &cluster, &namespace, &full_name.to_string(), request_timeout / 2);
            let owner = owner.map(new_owner).map(Arc::new);
            let open = |object_name: &String| -> Box<dyn Lock> {
                let object_lock = |format| {
                    let role_scope = Arc::clone(&role_scope);
                    Box::new(ObjectLock::new(&cluster, format, &namespace, object_name, role_scope, owner.clone()))
                };
                match second {
                    None => object_lock(first),
                    Some(second) => {
                        let (first, second) = (object_lock(first), object_lock(second));
                        Box::new(TwoObjectLock::new(first, second, run.clone(), request_timeout))
                    }
                }
            };
            Ok((object_names.iter().map(open).collect(), full_name))
        }
        Store::Local(store) => {
            // File system calls would block the election, so they are made on another thread.
            runtime_thread::start_blocking_thread()?;
            let mut locks = Vec::new();
            for slot in name.in_slots(slots) {
                locks.push(store.open(&slot.name, request_timeout).await?);
            }
            Ok((locks, name))
        }
    }
}
