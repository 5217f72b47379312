//! The record in the spec of a `coordination.k8s.io/v1` Lease.

use k8s_openapi::api::coordination::v1::LeaseSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::DynamicObject;
use leaderrun_core::record::Record;
use serde_json::Value;

use super::resource::Resource;

/// A Lease: what leader election is meant to use.
pub static LEASE: Resource =
    Resource { group: "coordination.k8s.io", kind: "Lease", plural: "leases", created_by_put: true, read, write };

fn spec(object: &DynamicObject) -> Result<LeaseSpec, serde_json::Error> {
    match object.data.get("spec") {
        None | Some(Value::Null) => Ok(LeaseSpec::default()),
        Some(spec) => serde_json::from_value(spec.clone()),
    }
}

fn read(object: &DynamicObject) -> Result<Record, String> {
    let spec = spec(object).map_err(|failure| failure.to_string())?;
    Ok(Record {
        holder_identity: spec.holder_identity.unwrap_or_default(),
        lease_duration_seconds: spec.lease_duration_seconds.and_then(|seconds| seconds.try_into().ok()),
        acquire_time: spec.acquire_time.map(|MicroTime(time)| time),
        renew_time: spec.renew_time.map(|MicroTime(time)| time),
        lease_transitions: spec.lease_transitions.and_then(|transitions| transitions.try_into().ok()).unwrap_or(0),
        ..Record::default()
    })
}

fn write(object: &mut DynamicObject, record: &Record) {
    let spec = LeaseSpec {
        holder_identity: Some(record.holder_identity.clone()),
        lease_duration_seconds: record.lease_duration_seconds.and_then(|seconds| seconds.try_into().ok()),
        acquire_time: record.acquire_time.map(MicroTime),
        renew_time: record.renew_time.map(MicroTime),
        lease_transitions: record.lease_transitions.try_into().ok(),
        ..spec(object).unwrap_or_default()
    };
    object.data["spec"] = serde_json::to_value(spec).unwrap_or_default();
}
