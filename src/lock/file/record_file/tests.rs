//! Tests of record files. Each [`RecordFile`] represents a candidate.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::thread;

use leaderrun_core::record::RunId;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::super::FileLock;
use super::super::contents::SLOT_SIZE;
use super::*;

/// A timeout that is long enough for a busy machine.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

struct Fixture {
    directory: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("job")
    }

    fn companion(&self) -> PathBuf {
        self.directory.path().join("job.lock")
    }

    fn candidate(&self) -> RecordFile {
        RecordFile::new(self.path(), REQUEST_TIMEOUT)
    }

    fn candidate_with_short_timeout(&self) -> RecordFile {
        RecordFile::new(self.path(), Duration::from_millis(50))
    }

    fn delete_everything(&self) {
        for entry in fs::read_dir(&self.directory).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.directory).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn held_by(holder: &str) -> Record {
    Record { holder_identity: holder.into(), ..Record::default() }
}

fn holder(candidate: &RecordFile) -> String {
    candidate.read().unwrap().unwrap().record.holder_identity
}

fn token(stored: &Stored) -> u64 {
    stored.version.resource_version.parse().unwrap()
}

/// Prepares a write, calls `meanwhile`, and then commits the write.
fn write_late(
    candidate: &RecordFile,
    method: Method,
    expected: Option<&Version>,
    meanwhile: impl FnOnce(),
) -> Result<bool, LockError> {
    let found = candidate.find()?;
    let next = candidate.next_document(found.as_ref(), held_by("late"))?;
    let mut prepared = candidate.prepare(method, found.as_ref(), &next).unwrap();
    meanwhile();
    candidate.commit(&mut prepared, expected).map(Result::unwrap)
}

fn was_written(written: Result<bool, LockError>) -> bool {
    match written {
        Ok(done) => done,
        Err(failure) => {
            assert_eq!(failure.kind, LockErrorKind::Conflict, "{failure}");
            false
        }
    }
}

fn is_conflict(written: Result<Stored, LockError>) -> bool {
    written.unwrap_err().kind == LockErrorKind::Conflict
}

#[test]
fn a_write_with_an_outdated_version_is_a_conflict() {
    let fixture = Fixture::new();
    let candidate = fixture.candidate();
    let first = candidate.write(None, Record::default()).unwrap();
    assert!(is_conflict(candidate.write(None, Record::default())));
    let second = candidate.write(Some(&first.version), Record::default()).unwrap();
    assert_eq!(token(&second), token(&first) + 1);
    assert!(is_conflict(candidate.write(Some(&first.version), Record::default())));
    assert_eq!(fixture.names(), ["job", "job.lock"]);
}

#[test]
fn a_recreated_record_has_a_different_uid_and_a_greater_token() {
    let fixture = Fixture::new();
    let candidate = fixture.candidate();
    let mut before = candidate.write(None, Record::default()).unwrap();
    for _ in 0..20 {
        before = candidate.write(Some(&before.version), Record::default()).unwrap();
    }
    fs::remove_file(fixture.path()).unwrap();
    let after = fixture.candidate().write(None, Record::default()).unwrap();
    assert_ne!(after.version.uid, before.version.uid);
    assert!(token(&after) > token(&before));
    assert!(is_conflict(candidate.write(Some(&before.version), Record::default())));
}

#[test]
fn a_new_token_is_greater_than_all_observed_tokens_even_if_the_clock_was_set_back() {
    let fixture = Fixture::new();
    let candidate = fixture.candidate();
    let far_ahead = u64::MAX / 2;
    let document = Document { uid: "u".into(), version: far_ahead, record: Record::default() };
    fs::write(fixture.path(), document.to_bytes()).unwrap();
    candidate.read().unwrap();
    fs::remove_file(fixture.path()).unwrap();
    assert_eq!(token(&candidate.write(None, Record::default()).unwrap()), far_ahead + 1);
}

#[test]
fn a_write_is_refused_while_either_file_is_locked() {
    let fixture = Fixture::new();
    let first = fixture.candidate().write(None, Record::default()).unwrap();
    for path in [fixture.path(), fixture.companion()] {
        let other = File::open(path).unwrap();
        other.lock().unwrap();
        let refusal =
            fixture.candidate_with_short_timeout().write(Some(&first.version), Record::default()).unwrap_err();
        assert_eq!(refusal.kind, LockErrorKind::Refused, "{refusal}");
    }
    fixture.candidate_with_short_timeout().write(Some(&first.version), Record::default()).unwrap();
}

/// Both writers have found no file, and one of them is late.
#[test]
fn a_late_first_write_does_not_replace_another_first_write_even_if_files_are_deleted_in_the_meantime() {
    for deleted in [&[][..], &["job.lock"], &["job"], &["job", "job.lock"]] {
        let fixture = Fixture::new();
        let (a, b) = (fixture.candidate(), fixture.candidate());
        let delete = || deleted.iter().for_each(|name| drop(fs::remove_file(fixture.directory.path().join(name))));
        let late = write_late(&a, Method::Create, None, || {
            b.write(None, held_by("b")).unwrap();
            delete();
            if !fixture.path().exists() {
                b.write(None, held_by("b")).unwrap();
            }
        });
        assert!(!was_written(late));
        assert_eq!(holder(&a), "b");
    }
}

#[test]
fn a_late_write_does_not_replace_a_recreated_file() {
    for method in [Method::Replace, Method::InPlace] {
        let fixture = Fixture::new();
        let (a, b) = (fixture.candidate(), fixture.candidate());
        let before = a.write(None, held_by("a")).unwrap();
        let late = write_late(&a, method, Some(&before.version), || {
            fixture.delete_everything();
            b.write(None, held_by("b")).unwrap();
        });
        assert!(!was_written(late));
        assert_eq!(holder(&b), "b");
    }
}

/// Calls `carry_out` directly, as if the file were deleted just after `commit` has checked it.
#[test]
fn a_write_in_place_to_a_deleted_file_is_a_conflict() {
    let fixture = Fixture::new();
    let (a, b) = (fixture.candidate(), fixture.candidate());
    a.write(None, held_by("a")).unwrap();
    let (found, locked) = (a.find().unwrap().unwrap(), FileId::at(&fixture.path()).unwrap());
    let next = a.next_document(Some(&found), held_by("a")).unwrap();
    let mut prepared = a.prepare(Method::InPlace, Some(&found), &next).unwrap();
    fixture.delete_everything();
    b.write(None, held_by("b")).unwrap();
    assert!(!prepared.carry_out(&fixture.path(), Some(locked)).unwrap());
    assert_eq!(holder(&b), "b");
}

#[test]
fn one_of_many_concurrent_writes_succeeds_while_the_companion_is_deleted_repeatedly() {
    let fixture = Fixture::new();
    let mut current = None;
    for _ in 0..20 {
        let expected: Option<Version> = current.take();
        let written: Vec<_> = thread::scope(|scope| {
            let write = |_| scope.spawn(|| fixture.candidate().write(expected.as_ref(), Record::default()));
            let writers: Vec<_> = (0..4).map(write).collect();
            while writers.iter().any(|writer| !writer.is_finished()) {
                let _ = fs::remove_file(fixture.companion());
                thread::yield_now();
            }
            writers.into_iter().filter_map(|writer| writer.join().unwrap().ok()).collect()
        });
        assert_eq!(written.len(), 1);
        current = written.into_iter().next().map(|stored| stored.version);
        assert_eq!(fixture.candidate().read().unwrap().map(|document| document.version()), current);
    }
}

#[test]
fn a_file_with_two_hard_links_keeps_both() {
    let fixture = Fixture::new();
    let a = fixture.candidate();
    let mut stored = a.write(None, held_by("a")).unwrap();
    let other = fixture.directory.path().join("other");
    fs::hard_link(fixture.path(), &other).unwrap();
    let b = RecordFile::new(other, REQUEST_TIMEOUT);
    for (candidate, name) in [(&b, "b"), (&a, "a"), (&b, "b"), (&a, "a")] {
        stored = candidate.write(Some(&stored.version), held_by(name)).unwrap();
        assert_eq!([holder(&a), holder(&b)], [name, name]);
    }
}

#[test]
fn an_empty_file_is_a_file_without_a_record() {
    let fixture = Fixture::new();
    fs::write(fixture.path(), "").unwrap();
    fs::set_permissions(fixture.path(), Permissions::from_mode(0o640)).unwrap();
    let candidate = fixture.candidate();
    assert_eq!(candidate.read().unwrap(), None);
    candidate.write(None, held_by("a")).unwrap();
    assert_eq!(holder(&candidate), "a");
    assert_eq!(fs::metadata(fixture.path()).unwrap().permissions().mode() & 0o777, 0o640);
}

/// An attacker may have linked the file here to have it overwritten.
#[test]
fn an_empty_file_with_another_hard_link_is_not_overwritten() {
    let fixture = Fixture::new();
    let victim = fixture.directory.path().join("victim");
    fs::write(&victim, "").unwrap();
    fs::hard_link(&victim, fixture.path()).unwrap();
    fixture.candidate().write(None, held_by("a")).unwrap();
    assert_eq!(fs::read_to_string(victim).unwrap(), "");
}

#[test]
fn a_companion_that_is_a_link_or_a_fifo_is_refused() {
    let fixture = Fixture::new();
    let victim = fixture.directory.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    symlink(&victim, fixture.companion()).unwrap();
    let refusal = fixture.candidate().write(None, Record::default()).unwrap_err();
    assert_eq!(refusal.kind, LockErrorKind::Forbidden);
    assert!(refusal.message.contains("symbolic link"), "{refusal}");
    fs::remove_file(fixture.companion()).unwrap();
    mkfifo(&fixture.companion(), Mode::S_IRWXU).unwrap();
    let refusal = fixture.candidate().write(None, Record::default()).unwrap_err();
    assert!(refusal.message.contains("it is not a regular file"), "{refusal}");
    assert_eq!(fs::read_to_string(victim).unwrap(), "precious");
}

#[test]
fn a_path_that_is_not_a_regular_file_is_refused() {
    let fixture = Fixture::new();
    fixture.candidate().write(None, Record::default()).unwrap();
    let link = fixture.directory.path().join("link");
    symlink(fixture.path(), &link).unwrap();
    for not_a_file in [link.as_path(), fixture.directory.path()] {
        assert!(FileLock::new(not_a_file, REQUEST_TIMEOUT).is_err());
    }
}

#[test]
fn a_missing_directory_is_an_error_and_not_a_free_lock() {
    let directory = tempfile::tempdir().unwrap();
    let candidate = RecordFile::new(directory.path().join("inside").join("job"), REQUEST_TIMEOUT);
    for refusal in [candidate.read().unwrap_err(), candidate.write(None, Record::default()).unwrap_err()] {
        assert_eq!(refusal.kind, LockErrorKind::Forbidden);
        assert!(refusal.message.contains("its directory") && refusal.message.contains("does not exist"), "{refusal}");
    }
}

#[test]
fn a_read_only_companion_can_be_locked() {
    let fixture = Fixture::new();
    File::create(fixture.companion()).unwrap();
    fs::set_permissions(fixture.companion(), Permissions::from_mode(0o444)).unwrap();
    fixture.candidate().write(None, Record::default()).unwrap();
}

/// Programs such as systemd-tmpfiles delete files that have not been used for days.
#[test]
fn a_write_updates_the_times_of_the_companion() {
    let fixture = Fixture::new();
    let candidate = fixture.candidate();
    let first = candidate.write(None, Record::default()).unwrap();
    let long_ago = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    let times = std::fs::FileTimes::new().set_accessed(long_ago).set_modified(long_ago);
    File::options().write(true).open(fixture.companion()).unwrap().set_times(times).unwrap();
    candidate.write(Some(&first.version), Record::default()).unwrap();
    let metadata = fs::metadata(fixture.companion()).unwrap();
    assert!(metadata.modified().unwrap() > long_ago && metadata.accessed().unwrap() > long_ago);
}

#[test]
fn writes_in_place_keep_the_same_file_and_use_only_its_two_slots() {
    let fixture = Fixture::new();
    let candidate = fixture.candidate();
    let mut stored = candidate.write(None, held_by("a")).unwrap();
    candidate.is_written_in_place.store(true, Ordering::Relaxed);
    let before = FileId::at(&fixture.path()).unwrap();
    for _ in 0..5 {
        stored = candidate.write(Some(&stored.version), held_by("b")).unwrap();
    }
    assert_eq!(FileId::at(&fixture.path()).unwrap(), before);
    let bytes = fs::read(fixture.path()).unwrap();
    assert!(bytes.len() <= 2 * SLOT_SIZE);
    assert_eq!(ParsedFile::parse(&bytes).unwrap().current.unwrap().into_stored(), stored);
}

#[test]
fn a_record_that_is_too_long_for_a_slot_replaces_the_file() {
    let fixture = Fixture::new();
    let candidate = fixture.candidate();
    let stored = candidate.write(None, held_by("a")).unwrap();
    candidate.is_written_in_place.store(true, Ordering::Relaxed);
    let before = FileId::at(&fixture.path()).unwrap();
    let long = Record { step_down: Some(RunId::new("x".repeat(SLOT_SIZE))), ..held_by("a") };
    // Replacing the whole file succeeds, because a document is not limited to the size of a slot.
    candidate.write(Some(&stored.version), long).unwrap();
    assert_ne!(FileId::at(&fixture.path()).unwrap(), before);
}
