//! The record in the spec of a `coordination.k8s.io/v1` Lease.

use k8s_openapi::api::coordination::v1::LeaseSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use leaderrun_core::record::Record;
use serde::Deserialize;
use serde_json::Value;

use super::object::RecordFormat;
use super::record_time;
use crate::kubernetes::LEASES;

/// The format of a record in a Lease, the kind of object that Kubernetes provides for leader election.
pub static LEASE: RecordFormat =
    RecordFormat { resource: &LEASES, is_in_metadata: false, is_lock: |_| true, read, write };

/// Parses the spec of a Lease. Its times may have any format that [`record_time`] accepts.
fn spec(lease: &Value) -> Result<LeaseSpec, serde_json::Error> {
    let mut spec = lease["spec"].clone();
    if spec.is_null() {
        return Ok(LeaseSpec::default());
    }
    for name in ["acquireTime", "renewTime"] {
        if let Some(time) = spec[name].as_str().and_then(|text| record_time::parse(text).ok()) {
            spec[name] = time.to_string().into();
        }
    }
    LeaseSpec::deserialize(spec)
}

fn read(lease: &Value) -> Result<Record, String> {
    let spec = spec(lease).map_err(|invalid| invalid.to_string())?;
    Ok(Record {
        holder_identity: spec.holder_identity.unwrap_or_default(),
        lease_duration_seconds: spec.lease_duration_seconds.and_then(|seconds| seconds.try_into().ok()),
        acquire_time: spec.acquire_time.map(|MicroTime(time)| time),
        renew_time: spec.renew_time.map(|MicroTime(time)| time),
        lease_transitions: spec.lease_transitions.and_then(|transitions| transitions.try_into().ok()).unwrap_or(0),
        ..Record::default()
    })
}

fn write(lease: &mut Value, record: &Record) {
    // The other fields are kept. An existing spec can be parsed, because only an object that was read is replaced.
    let spec = LeaseSpec {
        holder_identity: Some(record.holder_identity.clone()),
        lease_duration_seconds: record.lease_duration_seconds.and_then(|seconds| seconds.try_into().ok()),
        acquire_time: record.acquire_time.map(MicroTime),
        renew_time: record.renew_time.map(MicroTime),
        lease_transitions: record.lease_transitions.try_into().ok(),
        ..spec(lease).unwrap_or_default()
    };
    lease["spec"] = serde_json::to_value(spec).expect("strings, numbers and times can be serialized");
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_time_after_the_maximum_is_read_as_the_maximum() {
        let late = "9999-12-31T23:59:59.000000Z";
        let lease = json!({ "spec": { "holderIdentity": "a", "renewTime": late, "acquireTime": late } });
        let record = read(&lease).unwrap();
        assert_eq!((record.renew_time, record.acquire_time), (Some(Timestamp::MAX), Some(Timestamp::MAX)));
    }
}
