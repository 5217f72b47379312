//! Tests of the notifications that leaderrun sends to systemd, and of the syntax of the example units. In these tests,
//! a socket receives the notifications in place of systemd.

use std::fs;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use testkit::{Candidate, StoppedThread, TIMEOUT, TestLock, Witnesses, eventually, harness, scratch};

/// A socket that receives the notifications in place of systemd.
struct ServiceManager {
    socket: UnixDatagram,
    /// The value of `NOTIFY_SOCKET` that names the socket.
    name: String,
}

impl ServiceManager {
    fn new() -> Self {
        let path = scratch::directory("systemd").join("notify");
        let socket = UnixDatagram::bind(&path).expect("the socket can be created");
        Self::with_socket(socket, path.display().to_string())
    }

    /// Creates a socket with a name in the abstract namespace.
    fn with_abstract_name() -> Self {
        let name = format!("leaderrun-test-{}-{}", std::process::id(), fastrand::u64(..));
        let address = SocketAddr::from_abstract_name(&name).expect("the name is valid");
        Self::with_socket(UnixDatagram::bind_addr(&address).expect("the socket can be created"), format!("@{name}"))
    }

    fn with_socket(socket: UnixDatagram, name: String) -> Self {
        socket.set_read_timeout(Some(TIMEOUT)).expect("the timeout can be set");
        Self { socket, name }
    }

    /// Makes a candidate send its notifications to this socket.
    fn with_notify_socket(&self, candidate: Candidate) -> Candidate {
        candidate.env("NOTIFY_SOCKET", &self.name)
    }

    /// Receives one message.
    fn receive(&self) -> io::Result<String> {
        let mut message = [0; 4096];
        let length = self.socket.recv(&mut message)?;
        Ok(String::from_utf8_lossy(&message[..length]).into_owned())
    }

    /// Receives messages until one of them contains this line. Returns the lines of all these messages.
    #[track_caller]
    fn wait_for(&self, line: &str) -> Vec<String> {
        let mut lines = Vec::new();
        while !lines.iter().any(|received| received == line) {
            let message =
                self.receive().unwrap_or_else(|error| panic!("{line} did not arrive: {error}; only {lines:?} arrived"));
            lines.extend(message.lines().map(str::to_owned));
        }
        lines
    }

    /// Receives the messages that are in the socket's queue now, and returns their lines.
    fn remaining_lines(&self) -> Vec<String> {
        self.socket.set_nonblocking(true).expect("the blocking mode can be changed");
        let messages: Vec<String> = std::iter::from_fn(|| self.receive().ok()).collect();
        self.socket.set_nonblocking(false).expect("the blocking mode can be changed");
        messages.iter().flat_map(|message| message.lines().map(str::to_owned)).collect()
    }
}

#[testkit::test]
fn a_standby_is_ready_and_reports_the_leader() {
    for systemd in [ServiceManager::new(), ServiceManager::with_abstract_name()] {
        let (lock, witnesses) = (TestLock::lease(), Witnesses::new());
        let mut a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
        witnesses.wait_for("a", 1);
        let mut b = systemd.with_notify_socket(Candidate::new("b", &lock)).run_witness(&witnesses, &["linger"]);
        let lines = systemd.wait_for(&format!("STATUS=standby: {} is held by a", lock.name));
        assert_eq!(lines.iter().filter(|line| *line == "READY=1").count(), 1, "{lines:?}");
        a.stop();
        let lines = systemd.wait_for(&format!("STATUS=leading {}", lock.name));
        assert!(!lines.iter().any(|line| line.starts_with("READY") || line.starts_with("STOPPING")), "{lines:?}");
        b.signal(Signal::SIGTERM);
        systemd.wait_for("STOPPING=1");
        b.wait();
        let has_watchdog = systemd.remaining_lines().iter().any(|line| line.starts_with("WATCHDOG"));
        assert!(!has_watchdog, "without WATCHDOG_USEC, there should be no watchdog notification");
    }
}

#[testkit::test]
fn with_ready_when_leading_only_a_leader_is_ready() {
    let (systemd, lock, witnesses) = (ServiceManager::new(), TestLock::lease(), Witnesses::new());
    let mut a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let b = systemd
        .with_notify_socket(Candidate::new("b", &lock))
        .args(["--ready-when", "leading"])
        .run_witness(&witnesses, &[]);
    let lines = systemd.wait_for(&format!("STATUS=standby: {} is held by a", lock.name));
    assert!(!lines.contains(&"READY=1".to_owned()), "{lines:?}");
    a.stop();
    systemd.wait_for("READY=1");
    witnesses.wait_for("b", 1);
    drop(b);
}

/// A command that sends its own notifications to systemd for two seconds.
const NOTIFYING_COMMAND: &str = r#"exec python3 -c '
import os, socket, time
name = os.environ["NOTIFY_SOCKET"]
systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
for i in range(20):
    systemd.sendto(b"X_COMMAND=%d" % i, name)
    time.sleep(0.1)
systemd.sendto(b"X_COMMAND=done", name)
time.sleep(1000)'"#;

#[testkit::test]
fn with_notify_command_the_command_sends_the_notifications() {
    // Returns the lines up to the command's first notification, and the following lines up to its last notification.
    let notifications = |notify: &str, ready_when: &str| {
        let systemd = ServiceManager::new();
        let candidate =
            systemd.with_notify_socket(Candidate::new("a", &TestLock::file())).env("WATCHDOG_USEC", "200000");
        let running = candidate.args(["--notify", notify, "--ready-when", ready_when]).run_script(NOTIFYING_COMMAND);
        let before = systemd.wait_for("X_COMMAND=0");
        let during = systemd.wait_for("X_COMMAND=done");
        drop(running);
        (before, during)
    };
    let has_line = |lines: &[String], prefix: &str| lines.iter().any(|line| line.starts_with(prefix));

    let (before, during) = notifications("leaderrun", "leading");
    assert!(has_line(&before, "READY=1") || has_line(&during, "READY=1"), "{before:?} {during:?}");
    assert!(has_line(&during, "WATCHDOG=1"), "{during:?}");

    let (before, during) = notifications("command", "leading");
    assert!(!has_line(&before, "READY=1") && has_line(&before, "WATCHDOG=1"), "{before:?}");
    // leaderrun may learn only after the command's first notification that the command has started. Until then, it
    // still sends its own notifications.
    let from_leaderrun: Vec<_> = during.iter().skip(1).filter(|line| !line.starts_with("X_COMMAND")).collect();
    assert!(from_leaderrun.iter().all(|line| *line == "WATCHDOG=1") && from_leaderrun.len() < 3, "{during:?}");
}

/// The socket's queue fills up because nothing receives the messages. A blocking send would then hang.
#[testkit::test]
fn a_systemd_that_hangs_does_not_delay_a_candidate() {
    let (systemd, lock, witnesses) = (ServiceManager::new(), TestLock::lease(), Witnesses::new());
    let mut a = systemd
        .with_notify_socket(Candidate::new("a", &lock))
        .env("WATCHDOG_USEC", "2000")
        .run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let mut b = Candidate::new("b", &lock).run_witness(&witnesses, &[]);
    b.wait_for_log("held by a");
    let sender = UnixDatagram::unbound().expect("the socket can be created");
    sender.set_nonblocking(true).expect("the blocking mode can be changed");
    eventually("the queue is full", || sender.send_to(b"X=1", &systemd.name).is_err());
    // This is longer than the lease duration.
    std::thread::sleep(Duration::from_secs(7));
    assert_eq!(witnesses.lifetimes_of("a")[0].signaled_at, 0, "the command got a stop signal: {}", a.log());
    a.signal(Signal::SIGTERM);
    a.wait_for_exit(0);
    witnesses.wait_for("b", 1);
    b.stop();
    witnesses.assert_runs_one_at_a_time(2);
}

#[testkit::test(requires = StoppedThread::check_permitted())]
fn the_watchdog_is_not_notified_while_the_election_is_stuck() {
    let (systemd, lock, witnesses) = (ServiceManager::new(), TestLock::lease(), Witnesses::new());
    let timing = ["--lease-duration", "40s", "--renew-deadline", "30s", "--retry-period", "1s"];
    let a = systemd.with_notify_socket(Candidate::with_timing("a", &lock, timing)).env("WATCHDOG_USEC", "200000");
    let a = a.run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    systemd.wait_for("WATCHDOG=1");
    let stopped = StoppedThread::stop(a.elector(), "election").expect("the elector has an election thread");
    systemd.socket.set_read_timeout(Some(Duration::from_secs(2))).expect("the timeout can be set");
    let start = std::time::Instant::now();
    while systemd.receive().is_ok() {
        assert!(start.elapsed() < TIMEOUT, "leaderrun still notifies the watchdog");
    }
    drop(stopped);
    systemd.socket.set_read_timeout(Some(TIMEOUT)).expect("the timeout can be set");
    systemd.wait_for("WATCHDOG=1");
}

/// The programs in the units are replaced with existing ones, because `systemd-analyze` refuses a unit whose program
/// does not exist.
#[testkit::test(requires = testkit::check_installed("systemd-analyze"))]
fn the_example_units_are_valid() {
    let directory = scratch::directory("units");
    let examples =
        fs::read_dir(format!("{}/examples", env!("CARGO_MANIFEST_DIR"))).expect("the examples can be listed").flatten();
    let mut units = Vec::new();
    for example in examples {
        let (path, name) = (example.path(), example.file_name());
        if path.extension().is_some_and(|extension| extension == "service" || extension == "timer") {
            let unit = fs::read_to_string(&path).expect("the unit can be read");
            let command = path.file_stem().expect("the unit has a file name").to_string_lossy().into_owned();
            let unit = unit.replace("/usr/local/bin/leaderrun", harness::leaderrun());
            let unit = unit.replace(&format!("/usr/local/bin/{command}"), "/bin/true");
            fs::write(directory.join(&name), unit).expect("the unit can be written");
            units.push(name);
        }
    }
    assert!(units.len() >= 4, "{units:?}");
    let verify =
        Command::new("systemd-analyze").args(["--man=no", "verify"]).args(&units).current_dir(&directory).output();
    let verify = verify.expect("systemd-analyze can be started");
    let stderr = String::from_utf8_lossy(&verify.stderr);
    assert!(verify.status.success() && stderr.is_empty(), "{stderr}");
}
