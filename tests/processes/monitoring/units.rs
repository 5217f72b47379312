//! Tests of the example units with a real systemd, which boots in a container.
//!
//! The tests are skipped without a Docker engine, or if the image that `tests/systemd/build-image` creates is missing.

use std::fs;
use std::process::{Command, Output};

use testkit::{eventually, harness, scratch};

const IMAGE: &str = "leaderrun-systemd";

fn check_docker_image() -> Result<(), String> {
    match Command::new("docker").args(["image", "inspect", IMAGE]).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(format!("docker: {error}")),
    }
}

/// A container with systemd and leaderrun. Dropping this value removes the container.
struct Machine(String);

impl Machine {
    fn boot() -> Self {
        let name = format!("leaderrun-units-{}-{}", std::process::id(), fastrand::u64(..));
        // systemd must be allowed to mount file systems.
        let options =
            ["--cap-add=SYS_ADMIN", "--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined"];
        let mounts = ["--tmpfs=/run:exec", "--tmpfs=/run/lock", "--tmpfs=/tmp"];
        let mut docker = Command::new("docker");
        docker.args(["run", "--detach", "--name", &name]).args(options).args(mounts);
        if fs::metadata("/sys/fs/cgroup/systemd").is_ok() {
            docker.arg("--volume=/sys/fs/cgroup/systemd:/sys/fs/cgroup/systemd");
        } else {
            // With cgroup v2, systemd needs its own cgroup namespace.
            docker.args(["--cgroupns=private", "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw"]);
        }
        assert_success(&docker.arg(IMAGE).output().expect("docker can be run"));
        let machine = Self(name);
        machine.copy(harness::leaderrun(), "/usr/local/bin/leaderrun");
        eventually("systemd has booted", || {
            ["running", "degraded"].contains(&machine.output_of(&["systemctl", "is-system-running"]).as_str())
        });
        machine
    }

    fn copy(&self, from: &str, to: &str) {
        let copied = Command::new("docker").args(["cp", from, &format!("{}:{to}", self.0)]).output();
        assert_success(&copied.expect("docker can be run"));
    }

    fn run(&self, command: &[&str]) -> Output {
        Command::new("docker").args(["exec", &self.0]).args(command).output().expect("docker can be run")
    }

    fn output_of(&self, command: &[&str]) -> String {
        String::from_utf8_lossy(&self.run(command).stdout).trim().to_owned()
    }

    #[track_caller]
    fn systemctl(&self, arguments: &[&str]) {
        assert_success(&self.run(&[&["systemctl"], arguments].concat()));
    }

    fn property(&self, unit: &str, property: &str) -> String {
        self.output_of(&["systemctl", "show", "--value", "--property", property, unit])
    }

    #[track_caller]
    fn wait_for_property(&self, unit: &str, property: &str, expected: &str) {
        eventually(&format!("{property} of {unit} is {expected:?}"), || self.property(unit, property) == expected);
    }

    /// Installs an example as the unit `unit`, with a lock file instead of a Lease, and with `sleep` as the command.
    /// Each of the `changes` is a string to replace in the example, and its replacement.
    fn install(&self, example: &str, unit: &str, changes: &[(&str, &str)]) {
        let path = format!("{}/examples/{example}", env!("CARGO_MANIFEST_DIR"));
        let mut text = fs::read_to_string(path).expect("the example can be read");
        let program = example.split('.').next().expect("split returns at least one part");
        for (from, to) in [
            (
                format!("--lock default/{program} --kubeconfig /etc/leaderrun/kubeconfig"),
                format!("--lock file:/run/{program}.lease"),
            ),
            (format!("/usr/local/bin/{program}"), "/bin/sleep 1000".to_owned()),
        ] {
            assert!(text.contains(&from), "{example} should contain {from:?}");
            text = text.replace(&from, &to);
        }
        for (from, to) in changes {
            assert!(text.contains(from), "{example} should contain {from:?}");
            text = text.replace(from, to);
        }
        let file = scratch::directory("unit").join(unit);
        fs::write(&file, text).expect("the unit can be written");
        self.copy(&file.to_string_lossy(), &format!("/etc/systemd/system/{unit}"));
        self.systemctl(&["daemon-reload"]);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.output_of(&["journalctl", "--no-pager", "--lines=200"]));
        }
        let _ = Command::new("docker").args(["rm", "--force", &self.0]).output();
    }
}

#[track_caller]
fn assert_success(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The status text of the unit that leads.
const LEADING: &str = "leading file:/run/failover.lease";

#[testkit::test(requires = check_docker_image())]
fn a_unit_that_is_stopped_hands_over_to_another() {
    let machine = Machine::boot();
    for (unit, identity) in [("a.service", "--identity a"), ("b.service", "--identity b")] {
        machine.install("failover.service", unit, &[("--on-lost rejoin", identity)]);
        machine.systemctl(&["start", unit]);
    }
    machine.wait_for_property("a.service", "StatusText", LEADING);
    machine.wait_for_property("b.service", "StatusText", "standby: file:/run/failover.lease is held by a");
    assert_eq!(machine.property("b.service", "ActiveState"), "active", "a standby should be ready");
    machine.systemctl(&["stop", "a.service"]);
    assert_eq!(machine.property("a.service", "ActiveState"), "inactive");
    assert_eq!(machine.property("a.service", "Result"), "success", "a unit that was stopped should not have failed");
    machine.wait_for_property("b.service", "StatusText", LEADING);
    let commands = machine.output_of(&["sh", "-c", "grep -lx sleep /proc/[0-9]*/comm"]);
    assert!(commands.lines().count() <= 1, "{commands}");
    machine.systemctl(&["stop", "b.service"]);
    assert_eq!(machine.property("b.service", "Result"), "success");
}

#[testkit::test(requires = check_docker_image())]
fn a_unit_that_hangs_is_restarted() {
    let machine = Machine::boot();
    machine.install("failover.service", "a.service", &[("WatchdogSec=30", "WatchdogSec=2\nTimeoutAbortSec=1")]);
    machine.systemctl(&["start", "a.service"]);
    machine.wait_for_property("a.service", "StatusText", LEADING);
    let before = machine.property("a.service", "MainPID");
    assert_eq!(machine.property("a.service", "NRestarts"), "0");
    machine.systemctl(&["kill", "--kill-who=main", "--signal=STOP", "a.service"]);
    eventually("the unit has been restarted", || machine.property("a.service", "NRestarts") != "0");
    machine.wait_for_property("a.service", "StatusText", LEADING);
    assert_ne!(machine.property("a.service", "MainPID"), before);
}

#[testkit::test(requires = check_docker_image())]
fn a_scheduled_unit_that_does_not_acquire_the_lock_has_not_failed() {
    let machine = Machine::boot();
    machine.install("nightly.service", "a.service", &[("Type=oneshot", "Type=exec")]);
    machine.install("nightly.service", "b.service", &[]);
    machine.systemctl(&["start", "a.service"]);
    eventually("a is running its command", || {
        machine.output_of(&["journalctl", "--unit=a.service"]).contains("started the command")
    });
    // `systemctl start` fails if the unit fails.
    machine.systemctl(&["start", "b.service"]);
    assert!(
        machine.output_of(&["journalctl", "--unit=b.service"]).contains("could not acquire file:/run/nightly.lease")
    );
    assert_eq!(machine.property("b.service", "Result"), "success");
    machine.systemctl(&["stop", "a.service"]);
    assert_eq!(machine.property("a.service", "Result"), "success");
}
