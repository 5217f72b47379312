//! leaderrun itself, under test.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::harness::leaderrun;
use crate::witness::Witnesses;
use crate::{Cluster, scratch};

/// Longer than anything here takes on a machine that is busy with something else.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Short times, as long as a busy machine allows: the command is stopped 4 s after the last renewal,
/// killed after 5 s, and may be run by another candidate after 6 s.
const TIMES: [&str; 6] = ["--lease-duration", "6s", "--renew-deadline", "4s", "--retry-period", "1s"];

/// Waits for a condition, looking again and again.
#[track_caller]
pub fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A lock that no other test uses.
#[derive(Clone)]
pub struct TestLock {
    /// As `--lock` takes it.
    pub name: String,
    pub kubeconfig: Option<PathBuf>,
}

impl TestLock {
    /// A Lease on the shared API server.
    pub fn lease() -> Self {
        Self::lease_by(Cluster::shared().kubeconfig())
    }

    /// A lock of another kind on the shared API server.
    pub fn of_kind(kind: &str) -> Self {
        let lease = Self::lease();
        Self { name: format!("{kind}:{}", lease.name), ..lease }
    }

    /// A Lease, by way of another kubeconfig.
    pub fn lease_by(kubeconfig: PathBuf) -> Self {
        Self { name: format!("{}/job", Cluster::shared().new_namespace()), kubeconfig: Some(kubeconfig) }
    }

    /// A file in a folder of its own.
    pub fn file() -> Self {
        let path = scratch::folder("lock").join("job.lease");
        Self { name: format!("file:{}", path.display()), kubeconfig: None }
    }

    /// The same lock by way of another kubeconfig.
    pub fn by(&self, kubeconfig: PathBuf) -> Self {
        Self { kubeconfig: Some(kubeconfig), ..self.clone() }
    }

    /// Where the API server has the Lease.
    pub fn path(&self) -> String {
        format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases/job", self.namespace())
    }

    /// Where the API server has the object of that name of a core kind.
    pub fn core_path(&self, plural: &str) -> String {
        format!("/api/v1/namespaces/{}/{plural}/job", self.namespace())
    }

    pub fn namespace(&self) -> &str {
        let (_, name) = self.name.split_once(':').unwrap_or(("", &self.name));
        name.split('/').next().expect("a namespace")
    }
}

/// All that a candidate does with the objects of a lock.
pub const VERBS: [&str; 4] = ["get", "create", "update", "watch"];

/// A rule of a Role for objects of these names.
pub fn rule(plural: &str, names: &[&str], verbs: &[&str]) -> Value {
    let group = if plural == "leases" { "coordination.k8s.io" } else { "" };
    json!({ "apiGroups": [group], "resources": [plural], "resourceNames": names, "verbs": verbs })
}

/// A leaderrun that is being put together.
pub struct Candidate {
    pub name: String,
    command: Command,
}

impl Candidate {
    /// A candidate for a lock, with short times, known by `name`.
    pub fn new(name: &str, lock: &TestLock) -> Self {
        Self::with_times(name, lock, TIMES)
    }

    /// A candidate with other times.
    pub fn with_times(name: &str, lock: &TestLock, times: [&str; 6]) -> Self {
        let mut candidate = Self::bare(name);
        candidate.command.args(["--lock", &lock.name, "--identity", name]).args(times);
        if let Some(kubeconfig) = &lock.kubeconfig {
            candidate.command.arg("--kubeconfig").arg(kubeconfig);
        }
        candidate
    }

    /// A subcommand, about a lock.
    pub fn tool(name: &str, lock: &TestLock) -> Self {
        let mut tool = Self::bare(name);
        tool.command.args([name, "--lock", &lock.name]);
        if let Some(kubeconfig) = &lock.kubeconfig {
            tool.command.arg("--kubeconfig").arg(kubeconfig);
        }
        tool
    }

    /// leaderrun without any option.
    pub fn bare(name: &str) -> Self {
        Self::program(name, leaderrun())
    }

    /// Another program, which starts leaderrun.
    pub fn program(name: &str, program: &str) -> Self {
        let mut command = Command::new(program);
        // Tests run under nohup or in the background of a script inherit ignored signals.
        // SAFETY: between fork and exec, only system calls.
        unsafe {
            command.pre_exec(|| {
                for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGCHLD] {
                    libc::signal(signal, libc::SIG_DFL);
                }
                Ok(())
            });
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for (variable, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("LEADERRUN_")) {
            command.env_remove(variable);
        }
        command.env_remove("KUBECONFIG");
        Self { name: name.to_owned(), command }
    }

    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Anything else about how it is started.
    pub fn with(mut self, change: impl FnOnce(&mut Command)) -> Self {
        change(&mut self.command);
        self
    }

    /// Starts it with a witness as its command.
    pub fn witnessed(self, witnesses: &Witnesses, words: &[&str]) -> Running {
        self.runs(witnesses.command(words))
    }

    /// Starts it with a shell script as its command.
    pub fn script(self, script: &str) -> Running {
        self.runs(["sh", "-c", script])
    }

    /// Starts it with a command.
    pub fn runs<S: AsRef<OsStr>>(mut self, command: impl IntoIterator<Item = S>) -> Running {
        self.command.arg("--").args(command);
        self.start()
    }

    /// Starts it.
    pub fn start(mut self) -> Running {
        let mut child = self.command.spawn().expect("leaderrun");
        let clogged = Arc::<AtomicBool>::default();
        let (stdout, stderr) = (gather(child.stdout.take(), &clogged), gather(child.stderr.take(), &clogged));
        Running { name: self.name, child, stdout, stderr, clogged }
    }
}

/// What a process writes to a pipe, gathered while it does.
struct Output {
    gathered: Arc<Mutex<Vec<u8>>>,
    reader: thread::JoinHandle<()>,
}

impl Output {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.gathered.lock().expect("output")).into_owned()
    }
}

fn gather(from: Option<impl Read + Send + 'static>, clogged: &Arc<AtomicBool>) -> Output {
    let gathered = Arc::<Mutex<Vec<u8>>>::default();
    let (output, clogged) = (Arc::clone(&gathered), Arc::clone(clogged));
    let reader = thread::spawn(move || {
        let (Some(mut from), mut some) = (from, [0; 4096]) else { return };
        while let Ok(length @ 1..) = from.read(&mut some) {
            Mutex::lock(&output).expect("output").extend(&some[..length]);
            while clogged.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(5));
            }
        }
    });
    Output { gathered, reader }
}

/// A leaderrun that was started. Killed with all that it runs when dropped.
pub struct Running {
    name: String,
    child: Child,
    stdout: Output,
    stderr: Output,
    clogged: Arc<AtomicBool>,
}

impl Running {
    /// The elector: the process that was started.
    pub fn elector(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// The supervisor, the elector's child.
    pub fn supervisor(&self) -> Pid {
        let elector = self.elector();
        eventually(&format!("{} has a supervisor", self.name), || !children(elector).is_empty());
        children(elector)[0]
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.elector(), signal).expect("leaderrun is alive");
    }

    /// Whether it is still to be reaped: until then its pid is its own.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|ended| ended.is_none())
    }

    /// Whether nothing is left that it started, as far as the ends of its pipes tell.
    pub fn is_over(&mut self) -> bool {
        !self.is_running() && self.stdout.reader.is_finished() && self.stderr.reader.is_finished()
    }

    /// Stops reading what it writes, or goes on with it.
    pub fn clog(&self, clogged: bool) {
        self.clogged.store(clogged, Ordering::Relaxed);
    }

    /// Waits for the end of it.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                // Nothing that it started may be alive and keep the pipes open.
                eventually("its output ends", || self.stdout.reader.is_finished() && self.stderr.reader.is_finished());
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "{} does not end; its log:\n{}", self.name, self.log());
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits for the end of it, which must come with this status.
    #[track_caller]
    pub fn ends_with(&mut self, status: i32) {
        let ended = self.wait();
        let shown = ended.code().or(ended.signal().map(|signal| 1000 + signal));
        assert_eq!(shown, Some(status), "{}'s log:\n{}", self.name, self.log());
    }

    /// Asks it to end, and waits for that.
    pub fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        self.wait();
    }

    /// What it has written to stderr so far.
    pub fn log(&self) -> String {
        self.stderr.text()
    }

    /// What the command has written to stdout so far.
    pub fn output(&self) -> String {
        self.stdout.text()
    }

    /// Waits until its log contains this.
    #[track_caller]
    pub fn says(&self, text: &str) {
        let start = Instant::now();
        while !self.log().contains(text) {
            assert!(start.elapsed() < PATIENCE, "{} does not say {text:?} but:\n{}", self.name, self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.clog(false);
        // The tree first: what is orphaned here would end up with nobody.
        let mut doomed = vec![self.elector()];
        let mut next = 0;
        while let Some(parent) = doomed.get(next) {
            let found = children(*parent);
            doomed.extend(found);
            next += 1;
        }
        for process in doomed {
            let _ = kill(process, Signal::SIGKILL);
        }
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- log of {}:\n{}", self.name, self.log());
        }
    }
}

/// The children of all threads of a process.
pub fn children(process: Pid) -> Vec<Pid> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .map(Pid::from_raw)
        .collect()
}

/// All that are below it.
pub fn descendants(process: Pid) -> Vec<Pid> {
    children(process).into_iter().flat_map(|child| [vec![child], descendants(child)].concat()).collect()
}

/// Whether a process runs or is stopped, but not a zombie.
pub fn is_alive(process: impl std::fmt::Display) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains('Z') && !line.contains('X'))
}

/// Arguments made of bytes.
pub fn os(bytes: &[u8]) -> OsString {
    std::os::unix::ffi::OsStringExt::from_vec(bytes.to_vec())
}
