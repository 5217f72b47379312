//! Starts and inspects Docker containers that run leaderrun.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::LazyLock;

use testkit::{TIMING, TestLock, Witnesses, eventually, leaderrun, scratch};

/// The name of an image without files.
const EMPTY_IMAGE: &str = "leaderrun-empty";

/// The directories with this machine's programs and libraries, which are mounted into the empty image.
const PROGRAMS: [&str; 4] = ["/bin", "/lib", "/lib64", "/usr"];

/// Checks that containers can run the programs of this machine. Imports the empty image if it does not exist yet.
pub fn check_can_run_containers() -> Result<(), String> {
    static RESULT: LazyLock<Result<(), String>> = LazyLock::new(|| {
        let import = format!(
            "docker image inspect {EMPTY_IMAGE} || tar --create --files-from /dev/null | docker import - {EMPTY_IMAGE}"
        );
        match Command::new("sh").args(["-c", &import]).output() {
            Ok(output) if output.status.success() => {}
            _ => return Err("no Docker engine".to_owned()),
        }
        // This fails if the engine is on another machine, because an engine mounts the files of its own machine.
        let mut version = Command::new("docker");
        version.args(["run", "--rm"]).args(mounts()).args([EMPTY_IMAGE, leaderrun(), "--version"]);
        match version.output() {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Err(error.to_string()),
        }
    });
    RESULT.clone()
}

/// Returns the options that mount the programs of this machine and of the tests, read-only.
fn mounts() -> Vec<String> {
    let tests = std::env::current_exe().expect("the path of this program is known");
    let directories =
        [leaderrun().as_ref(), tests.as_path()].map(|program| program.parent().expect("a program is in a directory"));
    let programs = PROGRAMS.iter().map(Path::new).chain(directories).filter(|directory| directory.exists());
    programs.map(|directory| format!("--volume={0}:{0}:ro", directory.display())).collect()
}

/// Runs docker and returns its output. The test fails if docker fails.
#[track_caller]
pub fn docker(arguments: &[&str]) -> String {
    let output = docker_output(arguments);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "docker {}: {stderr}", arguments.join(" "));
    stdout.trim().to_owned()
}

fn docker_output(arguments: &[&str]) -> Output {
    Command::new("docker").args(arguments).output().expect("docker can be started")
}

/// A container with leaderrun that is configured but not started yet.
pub struct Candidate {
    identity: String,
    network: String,
    docker_options: Vec<String>,
    program: Vec<String>,
    options: Vec<String>,
}

impl Candidate {
    /// Configures a candidate for a lock, with this identity and on this machine's network.
    pub fn new(identity: &str, lock: &TestLock) -> Self {
        let mut options = vec!["--lock".to_owned(), lock.name.clone(), "--identity".to_owned(), identity.to_owned()];
        options.extend(TIMING.map(str::to_owned));
        if let Some(kubeconfig) = &lock.kubeconfig {
            options.extend(["--kubeconfig".to_owned(), kubeconfig.display().to_string()]);
        }
        let program = vec![leaderrun().to_owned()];
        Self { identity: identity.to_owned(), network: "host".to_owned(), docker_options: mounts(), program, options }
    }

    /// Runs a shell script instead of leaderrun. The script must start leaderrun with the arguments `"$@"`.
    pub fn started_by(self, script: &str) -> Self {
        let program = ["/bin/sh", "-c", script, "sh"].map(str::to_owned).to_vec();
        Self { program, ..self }
    }

    /// Connects the container to `network` instead of this machine's network.
    pub fn on_network(self, network: &str) -> Self {
        Self { network: network.to_owned(), ..self }
    }

    /// Adds options for `docker run`.
    pub fn docker_options(mut self, options: &[&str]) -> Self {
        self.docker_options.extend(options.iter().map(|option| (*option).to_owned()));
        self
    }

    /// Adds options for leaderrun.
    pub fn args(mut self, options: &[&str]) -> Self {
        self.options.extend(options.iter().map(|option| (*option).to_owned()));
        self
    }

    /// Starts the container with a witness as leaderrun's command. `arguments` select the witness's behavior (see
    /// [`testkit::witness::run`]).
    pub fn run_witness(self, witnesses: &Witnesses, arguments: &[&str]) -> Container {
        self.run(&witnesses.command(arguments), witnesses)
    }

    /// Starts the container with a shell script as leaderrun's command. In the script, `$WITNESS` starts a witness with
    /// these arguments.
    pub fn run_script(self, witnesses: &Witnesses, arguments: &[&str], script: &str) -> Container {
        let witness = witnesses.command(arguments).join(" ".as_ref());
        let script = script.replace("$WITNESS", &witness.to_string_lossy());
        self.run(&["/bin/sh", "-c", &script].map(OsString::from), witnesses)
    }

    fn run(self, command: &[OsString], witnesses: &Witnesses) -> Container {
        let Self { identity, network, docker_options, program, options } = self;
        let name = format!("leaderrun-test-{}-{identity}-{:x}", std::process::id(), fastrand::u32(..));
        // The directory contains the locks, the kubeconfigs and the files of the witnesses. Every user needs access,
        // because a container may run as any user.
        let directory = witnesses.directory().parent().expect("the directory has a parent");
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).expect("the file mode can be changed");
        fs::set_permissions(witnesses.directory(), fs::Permissions::from_mode(0o777))
            .expect("the file mode can be changed");
        let mut run = Command::new("docker");
        run.args(["run", "--detach", "--name", &name, "--network", &network]).args(docker_options);
        run.arg(format!("--volume={0}:{0}", directory.display()));
        run.arg(EMPTY_IMAGE).args(program).args(options).arg("--").args(command);
        // `docker run` may create the container and then fail to start it. Dropping `container` removes it even then.
        let container = Container { name };
        let output = run.output().expect("docker can be started");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        container
    }
}

/// A started container, which is removed when this handle is dropped.
pub struct Container {
    pub name: String,
}

impl Container {
    /// Runs `docker ARGUMENTS NAME` and returns its output.
    #[track_caller]
    pub fn docker(&self, arguments: &[&str]) -> String {
        docker(&[arguments, &[&self.name]].concat())
    }

    /// Runs a command in the container and returns its output.
    #[track_caller]
    pub fn exec(&self, command: &[&str]) -> String {
        docker(&[&["exec", &self.name], command].concat())
    }

    /// Returns the stderr of the container, which contains leaderrun's log.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&docker_output(&["logs", &self.name]).stderr).into_owned()
    }

    #[track_caller]
    pub fn wait_for_log(&self, text: &str) {
        eventually(&format!("{} logs {text:?}", self.name), || self.log().contains(text));
    }

    pub fn is_running(&self) -> bool {
        self.inspect("{{.State.Running}}") == "true"
    }

    /// Waits until the container has ended, and returns its exit status.
    #[track_caller]
    pub fn wait(&self) -> i32 {
        eventually(&format!("{} ends", self.name), || !self.is_running());
        self.inspect("{{.State.ExitCode}}").parse().expect("the exit status is a number")
    }

    /// Returns the property of the container that a Go template selects (see `docker inspect --format`).
    pub fn inspect(&self, format: &str) -> String {
        self.docker(&["inspect", "--format", format])
    }

    /// Returns the pid of the first process with this name, as seen inside the container.
    pub fn pid_of(&self, comm: &str) -> String {
        let script =
            format!("for p in /proc/[0-9]*; do [ \"$(cat $p/comm)\" = {comm} ] && echo ${{p#/proc/}}; done; :");
        self.exec(&["/bin/sh", "-c", &script])
            .lines()
            .next()
            .unwrap_or_else(|| panic!("no process is named {comm}"))
            .to_owned()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of {}:\n{}", self.name, self.log());
        }
        docker_output(&["rm", "--force", "--volumes", &self.name]);
    }
}

/// Returns a lock in a file that every user in a container can use.
pub fn shared_file() -> TestLock {
    let directory = scratch::directory("lock");
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).expect("the file mode can be changed");
    TestLock { name: format!("file:{}", directory.join("job.lease").display()), kubeconfig: None }
}
