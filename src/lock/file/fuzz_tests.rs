//! Tests with missing, damaged and otherwise unexpected record files. They check that a record can be created only if
//! the file is empty or missing, and that all errors are printable.

use std::fs;
use std::path::Path;
use std::time::Duration;

use fastrand::Rng;
use leaderrun_core::record::{Record, Version};
use serde_json::json;
use testkit::hostile_input::is_dangerous;
use testkit::{fuzz, hostile_input, scratch};

use super::FileLock;
use crate::lock::{Lock, LockError};

const REQUEST_TIMEOUT: Duration = Duration::from_millis(200);

#[test]
fn any_content_of_a_lock_file_is_read_or_refused() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be built");
    let directory = scratch::directory("files");
    fuzz("files", 400, |mut random| {
        let path = directory.join("job.lease");
        clear(&path);
        let lock = FileLock::new(&path, REQUEST_TIMEOUT).expect("a lock needs no file");
        let created = runtime.block_on(lock.create(hostile_input::record(&mut random)));
        let created = created.expect("a record can be created");
        let is_free = replace_file(&mut random, &path);
        let outcome = run_with_timeout(&runtime, async {
            let read = lock.get().await;
            let written = lock.create(Record::default()).await;
            assert!(is_free || written.is_err(), "a record was created although the file was not empty");
            let version = Version { uid: hostile_input::text(&mut random), ..created.version };
            let replaced = lock.update(version, Record::default()).await;
            assert!(replaced.is_err(), "an update that expected a different uid replaced the record");
            [read.err(), written.err(), replaced.err()]
        });
        outcome.iter().flatten().for_each(assert_printable);
        if let Err(refusal) = FileLock::new(&path, REQUEST_TIMEOUT) {
            let text = format!("{refusal:#}");
            assert!(!text.chars().any(is_dangerous), "{text:?}");
        }
        clear(&path);
    });
}

fn run_with_timeout<T>(runtime: &tokio::runtime::Runtime, work: impl Future<Output = T>) -> T {
    let limited = async { tokio::time::timeout(Duration::from_secs(20), work).await };
    runtime.block_on(limited).expect("the requests do not block")
}

fn assert_printable(error: &LockError) {
    assert!(!error.message.chars().any(is_dangerous), "{:?}", error.message);
}

/// Deletes the file, or replaces it with something else. Returns whether a record can be created there.
fn replace_file(random: &mut Rng, path: &Path) -> bool {
    let contents = fs::read(path).expect("the record can be read");
    fs::remove_file(path).expect("the file can be removed");
    match random.u8(..12) {
        0 => return true,
        1 => {
            fs::write(path, "").expect("the file can be created");
            return true;
        }
        2 => fs::create_dir(path).expect("the directory can be created"),
        3 => nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).expect("the FIFO can be created"),
        4 => std::os::unix::fs::symlink("/dev/zero", path).expect("the link can be created"),
        5 => std::os::unix::fs::symlink(path, path).expect("the link can be created"),
        6 => fs::write(path, vec![b'['; 100_000]).expect("the file can be created"),
        7 => fs::write(path, "[".repeat(60_000)).expect("the file can be created"),
        8 => {
            let last_version = json!({ "uid": "x", "version": u64::MAX, "record": {} });
            fs::write(path, last_version.to_string()).expect("the file can be created");
        }
        9 => {
            let mut bytes = contents;
            hostile_input::garble(random, &mut bytes);
            fs::write(path, &bytes).expect("the file can be created");
            return bytes.is_empty();
        }
        _ => {
            let mut document = serde_json::from_slice(&contents).expect("the record is JSON");
            hostile_input::mutate(random, &mut document);
            fs::write(path, document.to_string()).expect("the file can be created");
        }
    }
    false
}

fn clear(path: &Path) {
    let _ = fs::remove_dir(path);
    let _ = fs::remove_file(path);
}
