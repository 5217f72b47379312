//! The README says what the program does.

use leaderrun::kubernetes::role;
use leaderrun::lock::{self, Kind};

const README: &str = include_str!("../README.md");

#[test]
fn the_role_is_the_one_that_leaderrun_prints() {
    let objects = Kind::Lease.objects("default", "my-job");
    let role = role("default", "my-job", &lock::rules(&objects[0]));
    assert!(README.contains(&role), "README.md: the Role must be\n{role}");
}
