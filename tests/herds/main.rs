//! Many candidates wait for one lease: what its release costs the API server, and how long it takes.

#[path = "../processes/candidate.rs"]
#[allow(dead_code)]
mod candidate;
mod real;
mod simulated;
#[path = "../support/mod.rs"]
mod support;
#[path = "../processes/witness.rs"]
#[allow(dead_code)]
mod witness;
