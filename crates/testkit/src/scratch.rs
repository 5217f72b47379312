//! A temporary directory for the files of this test process, which is removed when the process exits.
//!
//! The clean-up runs at exit because statics, such as the shared cluster, are never dropped. A process that is killed
//! leaves its directory behind.

use std::fs;
use std::path::PathBuf;
use std::process;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex};

static DIRECTORY: LazyLock<PathBuf> = LazyLock::new(|| {
    let directory =
        tempfile::Builder::new().prefix("leaderrun-test-").tempdir().expect("a directory can be created").keep();
    let to_remove = directory.clone();
    at_exit(move || drop(fs::remove_dir_all(to_remove)));
    directory
});

/// Creates an empty directory in the temporary directory. Its name begins with `name`.
pub fn directory(name: &str) -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(1);
    let directory = DIRECTORY.join(format!("{name}-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
    fs::create_dir(&directory).expect("a directory can be created");
    directory
}

type ExitAction = Box<dyn FnOnce() + Send>;

static AT_EXIT: Mutex<Vec<ExitAction>> = Mutex::new(Vec::new());

/// Runs `action` when the process returns from `main` or calls `exit`. The action registered last runs first.
pub fn at_exit(action: impl FnOnce() + Send + 'static) {
    static REGISTERED_BY: LazyLock<u32> = LazyLock::new(|| {
        // SAFETY: the handler is a plain function that does not unwind into C.
        unsafe { libc::atexit(run_actions) };
        process::id()
    });
    // A forked child inherits the handler, but must not remove its parent's files.
    extern "C" fn run_actions() {
        if *REGISTERED_BY != process::id() {
            return;
        }
        let actions = AT_EXIT.lock().map(|mut actions| std::mem::take(&mut *actions));
        for action in actions.unwrap_or_default().into_iter().rev() {
            action();
        }
    }
    LazyLock::force(&REGISTERED_BY);
    AT_EXIT.lock().expect("no thread panics while it holds this lock").push(Box::new(action));
}
