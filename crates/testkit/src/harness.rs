//! The harness of the test binaries that run leaderrun. A test binary calls the harness in `main`, and marks each test
//! with an attribute.
//!
//! ```ignore
//! fn main() -> std::process::ExitCode {
//!     testkit::harness!().run()
//! }
//!
//! #[testkit::test]
//! fn a_standby_takes_over() {}
//! ```
//!
//! Tests register themselves. A file without a `mod` line is not compiled, so its tests would be skipped silently.
//! Therefore a test binary refuses to run if its directory contains a source file that it was built without.

use std::env::ArgsOs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::{env, fs};

use libtest_mimic::{Arguments, Trial};

use crate::{rerun, witness};

pub use inventory::submit;

/// A test that the attribute [`test`](macro@crate::test) has registered.
pub struct Test {
    /// The path of its module, which begins with the name of the binary.
    pub module: &'static str,
    pub name: &'static str,
    /// `true` if no other test may run at the same time, because this one needs most of the machine.
    pub alone: bool,
    /// Checks the requirement of the test, if it has one. An error is the reason why the test is skipped.
    pub requirement: Option<fn() -> Result<(), String>>,
    pub function: fn(),
}

inventory::collect!(Test);

/// The settings of one test binary, created by [`harness!`](crate::harness!).
pub struct Harness {
    /// The directory of the package.
    package: &'static str,
    /// The path of the binary's main file, relative to the package.
    main: &'static str,
    run_as_command: fn(ArgsOs) -> ExitCode,
    test_threads: Option<usize>,
    /// `true` if tests that fail after a stall of the machine are rerun.
    rerun_after_stalls: bool,
}

/// Creates the [`Harness`] of a test binary. The binary's `main.rs` must call it, because Cargo sets the path of the
/// leaderrun program only for the tests of leaderrun's own package, and not for the testkit.
#[macro_export]
macro_rules! harness {
    () => {
        $crate::harness::Harness::new(env!("CARGO_BIN_EXE_leaderrun"), env!("CARGO_MANIFEST_DIR"), file!())
    };
}

/// The lock that each test holds while it runs: for writing if it runs alone, and otherwise for reading.
static TURNS: RwLock<()> = RwLock::new(());

/// The permission to run a test now.
enum Turn {
    Alone { _guard: RwLockWriteGuard<'static, ()> },
    WithOthers { _guard: RwLockReadGuard<'static, ()> },
}

impl Turn {
    /// Waits for the end of the tests that may not run at the same time.
    fn take(alone: bool) -> Self {
        // The lock is poisoned if a test that ran alone has failed.
        if alone {
            Self::Alone { _guard: TURNS.write().unwrap_or_else(PoisonError::into_inner) }
        } else {
            Self::WithOthers { _guard: TURNS.read().unwrap_or_else(PoisonError::into_inner) }
        }
    }
}

static LEADERRUN: OnceLock<PathBuf> = OnceLock::new();

/// Returns the path of the program under test.
pub fn leaderrun() -> &'static str {
    let program = LEADERRUN.get().expect("testkit::harness!() sets the path of leaderrun");
    program.to_str().expect("the path is UTF-8")
}

/// Checks a requirement of a test: that this program is in a directory of `PATH`.
pub fn check_installed(program: &str) -> Result<(), String> {
    let directories = env::var_os("PATH").unwrap_or_default();
    let is_installed = env::split_paths(&directories).any(|directory| directory.join(program).is_file());
    is_installed.then_some(()).ok_or_else(|| format!("no {program}"))
}

impl Harness {
    /// Creates a harness from the program under test, the package's directory, and the binary's main file; see
    /// [`harness!`](crate::harness!).
    pub fn new(leaderrun: &'static str, package: &'static str, main: &'static str) -> Harness {
        LEADERRUN.get_or_init(|| leaderrun.into());
        Harness {
            package,
            main,
            run_as_command: |arguments| witness::run(arguments),
            test_threads: None,
            rerun_after_stalls: false,
        }
    }

    /// Sets the default number of tests that run at the same time. If tests mostly wait, it can exceed the number of
    /// processors.
    pub fn test_threads(mut self, threads: usize) -> Harness {
        self.test_threads = Some(threads);
        self
    }

    /// Reruns tests that fail after a stall of the machine.
    pub fn rerun_after_stalls(mut self) -> Harness {
        self.rerun_after_stalls = true;
        self
    }

    /// Sets the function to call when this binary is started as a command, instead of [`witness::run`].
    pub fn command(mut self, run: fn(ArgsOs) -> ExitCode) -> Harness {
        self.run_as_command = run;
        self
    }

    /// Runs this binary as a candidate's command, and returns its exit status; `None` if it was not started as one.
    pub fn run_as_command(&self) -> Option<ExitCode> {
        let mut arguments = env::args_os();
        (arguments.nth(1)? == witness::FLAG).then(|| (self.run_as_command)(arguments))
    }

    /// Runs the tests selected on the command line. If this binary was started as the command of a candidate, runs that
    /// command instead.
    pub fn run(self) -> ExitCode {
        if let Some(status) = self.run_as_command() {
            return status;
        }
        let missing = self.missing_sources();
        if !missing.is_empty() {
            eprintln!(
                "error: this binary was built without {missing:?}\n\
                 Declare each with `mod` in {main}, or touch {main} if it uses automod, and build again.",
                main = self.main
            );
            return ExitCode::FAILURE;
        }
        if self.rerun_after_stalls {
            rerun::watch_for_stalls();
        }
        let mut arguments = Arguments::from_args();
        if let Some(threads) = self.test_threads {
            arguments.test_threads.get_or_insert(threads);
        }
        let mut tests: Vec<&'static Test> = inventory::iter::<Test>.into_iter().collect();
        tests.sort_by_key(|test| (test.module, test.name));
        let trials = tests.into_iter().map(|test| self.trial(test)).collect();
        libtest_mimic::run(&arguments, trials).exit_code()
    }

    fn trial(&self, test: &'static Test) -> Trial {
        let module = test.module.split_once("::").map_or("", |(_, module)| module);
        let path = if module.is_empty() { test.name.to_owned() } else { format!("{module}::{}", test.name) };
        let skipped = test.requirement.and_then(|requirement| requirement().err());
        let name = match &skipped {
            Some(reason) => format!("{path} [skipped: {reason}]"),
            None => path.clone(),
        };
        let rerun_after_stalls = self.rerun_after_stalls;
        let run = move || {
            let _turn = Turn::take(test.alone);
            if rerun_after_stalls {
                rerun::run(&path, test.function);
            } else {
                (test.function)();
            }
            Ok(())
        };
        Trial::test(name, run).with_ignored_flag(skipped.is_some())
    }

    /// Returns the source files in the main file's directory that this binary was built without.
    fn missing_sources(&self) -> Vec<String> {
        let package = Path::new(self.package);
        let Some(compiled) = compiled_sources() else { return Vec::new() };
        let directory = package.join(self.main).parent().expect("the main file is in a directory").to_owned();
        let sources = sources_in(&directory).into_iter();
        let relative = sources.filter_map(|source| Some(source.strip_prefix(package).ok()?.to_str()?.to_owned()));
        let mut missing: Vec<String> = relative.filter(|source| !compiled.contains(source)).collect();
        missing.sort();
        missing
    }
}

/// Returns the source files of this binary, which the compiler listed in a dependency file beside the binary. Returns
/// `None` if there is no such file, for example because the binary was moved.
fn compiled_sources() -> Option<Vec<String>> {
    let list = fs::read_to_string(env::current_exe().ok()?.with_extension("d")).ok()?;
    let (_, sources) = list.lines().next()?.split_once(": ")?;
    Some(sources.split(' ').map(str::to_owned).collect())
}

fn sources_in(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let (directories, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let mut sources: Vec<PathBuf> =
        files.into_iter().filter(|file| file.extension().is_some_and(|extension| extension == "rs")).collect();
    sources.extend(directories.iter().flat_map(|directory| sources_in(directory)));
    sources
}
