//! Tests of the record file as a whole: two of them are two candidates.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::thread;

use leaderrun_core::record::RunId;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::super::FileLock;
use super::super::contents::SLOT_SIZE;
use super::*;

/// Long enough for a busy machine.
const ATTEMPT: Duration = Duration::from_secs(20);

struct Scene {
    folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("job")
    }

    fn lock_file(&self) -> PathBuf {
        self.folder.path().join("job.lock")
    }

    fn candidate(&self) -> RecordFile {
        RecordFile::new(self.path(), ATTEMPT)
    }

    fn impatient_candidate(&self) -> RecordFile {
        RecordFile::new(self.path(), Duration::from_millis(50))
    }

    fn delete_everything(&self) {
        for entry in fs::read_dir(&self.folder).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.folder).unwrap();
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

/// A write during whose preparation something else happens.
fn write_interrupted(
    candidate: &RecordFile,
    method: Method,
    expected: Option<&Version>,
    meanwhile: impl FnOnce(),
) -> Result<bool, LockError> {
    let found = candidate.find()?;
    let next = candidate.next_contents(found.as_ref(), held_by("interrupted"))?;
    let mut prepared = candidate.prepare(method, found.as_ref(), &next).unwrap();
    meanwhile();
    candidate.commit(&mut prepared, expected).map(Result::unwrap)
}

fn is_carried_out(written: Result<bool, LockError>) -> bool {
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
fn a_write_needs_the_version_that_is_there() {
    let scene = Scene::new();
    let candidate = scene.candidate();
    let first = candidate.write(None, Record::default()).unwrap();
    assert!(is_conflict(candidate.write(None, Record::default())));
    let second = candidate.write(Some(&first.version), Record::default()).unwrap();
    assert_eq!(token(&second), token(&first) + 1);
    assert!(is_conflict(candidate.write(Some(&first.version), Record::default())));
    assert_eq!(scene.names(), ["job", "job.lock"]);
}

#[test]
fn a_file_made_anew_is_another_one_and_its_token_is_greater() {
    let scene = Scene::new();
    let candidate = scene.candidate();
    let mut before = candidate.write(None, Record::default()).unwrap();
    for _ in 0..20 {
        before = candidate.write(Some(&before.version), Record::default()).unwrap();
    }
    fs::remove_file(scene.path()).unwrap();
    let after = scene.candidate().write(None, Record::default()).unwrap();
    assert!(token(&after) > token(&before));
    assert!(is_conflict(candidate.write(Some(&before.version), Record::default())));
}

#[test]
fn a_clock_that_was_set_back_does_not_set_back_what_a_candidate_has_seen() {
    let scene = Scene::new();
    let candidate = scene.candidate();
    let far_ahead = u64::MAX / 2;
    let contents = Contents { uid: "u".into(), version: far_ahead, record: Record::default() };
    fs::write(scene.path(), contents.to_document()).unwrap();
    candidate.read().unwrap();
    fs::remove_file(scene.path()).unwrap();
    assert_eq!(token(&candidate.write(None, Record::default()).unwrap()), far_ahead + 1);
}

#[test]
fn nobody_writes_while_another_process_has_locked_the_record_file_or_the_lock_file() {
    let scene = Scene::new();
    let first = scene.candidate().write(None, Record::default()).unwrap();
    for path in [scene.path(), scene.lock_file()] {
        let other = File::open(path).unwrap();
        other.lock().unwrap();
        let refusal = scene.impatient_candidate().write(Some(&first.version), Record::default()).unwrap_err();
        assert_eq!(refusal.kind, LockErrorKind::Refused, "{refusal}");
    }
    scene.impatient_candidate().write(Some(&first.version), Record::default()).unwrap();
}

/// Both have looked, and nothing was there.
#[test]
fn one_of_two_first_writes_is_carried_out_whatever_is_deleted_meanwhile() {
    for deleted in [&[][..], &["job.lock"], &["job"], &["job", "job.lock"]] {
        let scene = Scene::new();
        let (a, b) = (scene.candidate(), scene.candidate());
        let delete = || deleted.iter().for_each(|name| drop(fs::remove_file(scene.folder.path().join(name))));
        let late = write_interrupted(&a, Method::Create, None, || {
            b.write(None, held_by("b")).unwrap();
            delete();
            if !scene.path().exists() {
                b.write(None, held_by("b")).unwrap();
            }
        });
        assert!(!is_carried_out(late));
        assert_eq!(holder(&a), "b");
    }
}

#[test]
fn a_write_that_comes_late_replaces_nothing_that_was_made_anew() {
    for method in [Method::Replace, Method::InPlace] {
        let scene = Scene::new();
        let (a, b) = (scene.candidate(), scene.candidate());
        let before = a.write(None, held_by("a")).unwrap();
        let late = write_interrupted(&a, method, Some(&before.version), || {
            scene.delete_everything();
            b.write(None, held_by("b")).unwrap();
        });
        assert!(!is_carried_out(late));
        assert_eq!(holder(&b), "b");
    }
}

/// It is deleted after the last look, with both locks taken.
#[test]
fn a_write_in_place_to_a_file_that_was_deleted_is_in_vain() {
    let scene = Scene::new();
    let (a, b) = (scene.candidate(), scene.candidate());
    a.write(None, held_by("a")).unwrap();
    let (found, locked) = (a.find().unwrap().unwrap(), FileId::at(&scene.path()).unwrap());
    let next = a.next_contents(Some(&found), held_by("a")).unwrap();
    let mut prepared = a.prepare(Method::InPlace, Some(&found), &next).unwrap();
    scene.delete_everything();
    b.write(None, held_by("b")).unwrap();
    assert!(!prepared.carry_out(&scene.path(), Some(locked)).unwrap());
    assert_eq!(holder(&b), "b");
}

#[test]
fn one_of_many_that_write_at_once_succeeds_while_the_lock_file_is_deleted_all_the_time() {
    let scene = Scene::new();
    let mut present = None;
    for _ in 0..20 {
        let expected: Option<Version> = present.take();
        let written: Vec<_> = thread::scope(|scope| {
            let write = |_| scope.spawn(|| scene.candidate().write(expected.as_ref(), Record::default()));
            let writers: Vec<_> = (0..4).map(write).collect();
            while writers.iter().any(|writer| !writer.is_finished()) {
                let _ = fs::remove_file(scene.lock_file());
                thread::yield_now();
            }
            writers.into_iter().filter_map(|writer| writer.join().unwrap().ok()).collect()
        });
        assert_eq!(written.len(), 1);
        present = written.into_iter().next().map(|stored| stored.version);
        assert_eq!(scene.candidate().read().unwrap().map(|contents| contents.version()), present);
    }
}

#[test]
fn a_file_with_two_names_keeps_both() {
    let scene = Scene::new();
    let a = scene.candidate();
    let mut stored = a.write(None, held_by("a")).unwrap();
    let other = scene.folder.path().join("other");
    fs::hard_link(scene.path(), &other).unwrap();
    let b = RecordFile::new(other, ATTEMPT);
    for (candidate, name) in [(&b, "b"), (&a, "a"), (&b, "b"), (&a, "a")] {
        stored = candidate.write(Some(&stored.version), held_by(name)).unwrap();
        assert_eq!([holder(&a), holder(&b)], [name, name]);
    }
}

#[test]
fn an_empty_file_is_where_a_record_is_to_be() {
    let scene = Scene::new();
    fs::write(scene.path(), "").unwrap();
    fs::set_permissions(scene.path(), Permissions::from_mode(0o640)).unwrap();
    let candidate = scene.candidate();
    assert_eq!(candidate.read().unwrap(), None);
    candidate.write(None, held_by("a")).unwrap();
    assert_eq!(holder(&candidate), "a");
    assert_eq!(fs::metadata(scene.path()).unwrap().permissions().mode() & 0o777, 0o640);
}

/// Somebody may have linked it here to have it overwritten.
#[test]
fn an_empty_file_with_another_name_is_not_written_to() {
    let scene = Scene::new();
    let victim = scene.folder.path().join("victim");
    fs::write(&victim, "").unwrap();
    fs::hard_link(&victim, scene.path()).unwrap();
    scene.candidate().write(None, held_by("a")).unwrap();
    assert_eq!(fs::read_to_string(victim).unwrap(), "");
}

#[test]
fn links_and_fifos_beside_it_are_not_used() {
    let scene = Scene::new();
    let victim = scene.folder.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    symlink(&victim, scene.lock_file()).unwrap();
    let refusal = scene.candidate().write(None, Record::default()).unwrap_err();
    assert_eq!(refusal.kind, LockErrorKind::Forbidden);
    assert!(refusal.message.contains("symbolic link"), "{refusal}");
    fs::remove_file(scene.lock_file()).unwrap();
    mkfifo(&scene.lock_file(), Mode::S_IRWXU).unwrap();
    let refusal = scene.candidate().write(None, Record::default()).unwrap_err();
    assert!(refusal.message.contains("it is no file"), "{refusal}");
    assert_eq!(fs::read_to_string(victim).unwrap(), "precious");
}

#[test]
fn what_is_no_file_is_refused() {
    let scene = Scene::new();
    scene.candidate().write(None, Record::default()).unwrap();
    let link = scene.folder.path().join("link");
    symlink(scene.path(), &link).unwrap();
    for not_a_file in [link.as_path(), scene.folder.path()] {
        assert!(FileLock::new(not_a_file, ATTEMPT).is_err());
    }
}

#[test]
fn a_folder_that_is_gone_is_not_a_record_that_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let candidate = RecordFile::new(folder.path().join("inside").join("job"), ATTEMPT);
    for refusal in [candidate.read().unwrap_err(), candidate.write(None, Record::default()).unwrap_err()] {
        assert_eq!(refusal.kind, LockErrorKind::Forbidden);
        assert!(refusal.message.contains("its folder") && refusal.message.contains("does not exist"), "{refusal}");
    }
}

#[test]
fn a_lock_file_that_may_only_be_read_is_enough() {
    let scene = Scene::new();
    File::create(scene.lock_file()).unwrap();
    fs::set_permissions(scene.lock_file(), Permissions::from_mode(0o444)).unwrap();
    scene.candidate().write(None, Record::default()).unwrap();
}

/// Cleaners such as systemd-tmpfiles delete what was not used for days.
#[test]
fn every_write_renews_the_times_of_the_lock_file() {
    let scene = Scene::new();
    let candidate = scene.candidate();
    let first = candidate.write(None, Record::default()).unwrap();
    let long_ago = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    let times = std::fs::FileTimes::new().set_accessed(long_ago).set_modified(long_ago);
    File::options().write(true).open(scene.lock_file()).unwrap().set_times(times).unwrap();
    candidate.write(Some(&first.version), Record::default()).unwrap();
    let metadata = fs::metadata(scene.lock_file()).unwrap();
    assert!(metadata.modified().unwrap() > long_ago && metadata.accessed().unwrap() > long_ago);
}

#[test]
fn a_record_that_is_written_in_place_stays_one_file_and_one_block() {
    let scene = Scene::new();
    let candidate = scene.candidate();
    let mut stored = candidate.write(None, held_by("a")).unwrap();
    candidate.is_written_in_place.store(true, Ordering::Relaxed);
    let before = FileId::at(&scene.path()).unwrap();
    for _ in 0..5 {
        stored = candidate.write(Some(&stored.version), held_by("b")).unwrap();
    }
    assert_eq!(FileId::at(&scene.path()).unwrap(), before);
    let bytes = fs::read(scene.path()).unwrap();
    assert!(bytes.len() <= 2 * SLOT_SIZE);
    assert_eq!(Layout::parse(&bytes).unwrap().contents.unwrap().into_stored(), stored);
}

#[test]
fn an_identity_that_fills_a_slot_is_refused_where_it_has_to_be_written_in_place() {
    let scene = Scene::new();
    let candidate = scene.candidate();
    let stored = candidate.write(None, held_by("a")).unwrap();
    candidate.is_written_in_place.store(true, Ordering::Relaxed);
    let long = Record { step_down: Some(RunId::new("x".repeat(SLOT_SIZE))), ..held_by("a") };
    // It is replaced as a whole, where that is possible.
    candidate.write(Some(&stored.version), long).unwrap();
}
