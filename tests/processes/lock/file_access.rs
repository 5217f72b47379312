//! Tests of access to lock files: by several users, while other programs delete the files beside them, on a full disk,
//! and through links and mounts.

use std::fs::{self, Permissions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::Value;

use testkit::exit_status::{LOST, UNAVAILABLE};
use testkit::{Candidate, Running, TestLock, Witnesses, eventually, scratch};

use crate::other_users::{
    ANN, BEN, GROUP, ROOT, become_user, check_root, create_reachable_directory, leaderrun_for_all_users,
};

fn lock_at(path: &Path) -> TestLock {
    TestLock { name: format!("file:{}", path.display()), kubeconfig: None }
}

/// Starts a candidate as this user. Its command prints the fencing token.
fn candidate_as(user: u32, lock: &TestLock, arguments: &[&str]) -> Running {
    Candidate::program(&user.to_string(), leaderrun_for_all_users())
        .args(["--lock", &lock.name])
        .args(arguments)
        .configure(|command| become_user(command, user))
        .run_script("echo $LEADERRUN_FENCING_TOKEN")
}

/// Runs a candidate as each of these users, one after the other. Checks that each fencing token is greater than the
/// previous one.
#[track_caller]
fn run_as_each(users: &[u32], lock: &TestLock) {
    let run = |user: &u32| {
        let mut candidate = candidate_as(*user, lock, &["--wait", "10s"]);
        candidate.wait_for_exit(0);
        candidate.output().trim().parse().expect("the output is a fencing token")
    };
    let tokens: Vec<u64> = users.iter().map(run).collect();
    assert!(tokens.is_sorted_by(|before, after| before < after), "{tokens:?}");
}

/// Sets a flag when dropped, which ends the thread that deletes files even if the test fails.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Start-up scripts and clean-up programs may delete `*.lock` and temporary files that leaderrun uses.
#[testkit::test]
fn many_candidates_lead_one_at_a_time_while_files_beside_the_record_are_deleted() {
    let (lock, witnesses) = (TestLock::file(), Witnesses::new());
    let path = Path::new(lock.name.strip_prefix("file:").expect("the lock is a file"));
    let directory = path.parent().expect("the path has a parent directory");
    let names = ["a", "b", "c", "d"];
    let rounds = 3;
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                for entry in fs::read_dir(directory).expect("the directory can be read").flatten() {
                    if entry.path() != path {
                        let _ = fs::remove_file(entry.path());
                    }
                }
                // Without this pause, every write would lose its temporary file.
                thread::sleep(Duration::from_millis(30));
            }
        });
        let _end = SetOnDrop(&is_over);
        for round in 1..=rounds {
            let start = |name: &str| Candidate::new(name, &lock).run_witness(&witnesses, &["life=300"]);
            let mut candidates = names.map(start);
            candidates.iter_mut().for_each(|candidate| candidate.wait_for_exit(0));
            assert_eq!(witnesses.lifetimes().len(), names.len() * round);
        }
    });
    witnesses.assert_runs_one_at_a_time(names.len() * rounds);
}

#[testkit::test]
fn an_unusable_lock_file_is_refused_with_a_reason() {
    let directory = scratch::directory("unusable");
    let [record, link, broken, fifo] = ["record", "link", "broken", "fifo"].map(|name| directory.join(name));
    symlink(&record, &link).expect("the link can be created");
    fs::write(&broken, "{\"uid").expect("the file can be written");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("the FIFO can be created");
    let circular = directory.join("circular");
    symlink(&circular, &circular).expect("the link can be created");
    let missing_directory = directory.join("none");
    let missing_message =
        format!("its directory {none} does not exist; try mkdir -p {none}", none = missing_directory.display());
    for (path, expected) in [
        (&link, "it is a symbolic link; try the path that it points to"),
        (&broken, "it is not a leaderrun record"),
        (&directory, "it is a directory, not a regular file"),
        (&fifo, "it is a FIFO, not a regular file"),
        (&missing_directory.join("record"), &missing_message),
        (&circular.join("record"), "has too many symbolic links, or a loop of them"),
    ] {
        let mut candidate = Candidate::new("a", &lock_at(path)).run_script("true");
        candidate.wait_for_exit(UNAVAILABLE);
        assert!(candidate.log().contains(expected), "{}", candidate.log());
    }
}

#[testkit::test]
fn the_log_names_the_process_that_keeps_the_file_locked() {
    let lock = TestLock::file();
    let path = lock.name.strip_prefix("file:").expect("the lock is a file");
    for locked in [format!("{path}.lock"), path.to_owned()] {
        let file = fs::File::options().append(true).create(true).open(&locked).expect("the file can be opened");
        file.lock().expect("no other process has locked it");
        let locking_process = format!("process {} (", std::process::id());
        // With these durations, the wait ends before the first attempt to lock the file times out.
        let timing = ["--lease-duration", "60s", "--renew-deadline", "40s", "--retry-period", "5s"];
        let short_wait = Candidate::with_timing("b", &lock, timing).args(["--wait", "500ms"]);
        let mut short_wait = short_wait.run(["true"]);
        short_wait.wait_for_exit(UNAVAILABLE);
        let still_waiting = format!("within --wait 500ms: still waiting for {locked}, which {locking_process}");
        assert!(short_wait.log().contains(&still_waiting), "{}", short_wait.log());
        let mut long_wait = Candidate::new("a", &lock).run(["true"]);
        long_wait.wait_for_log(&format!("cannot lock {locked}: {locking_process}"));
        drop(file);
        long_wait.wait_for_exit(0);
    }
}

/// The kernel only knows the process that called flock(2). Here that process has ended, but the shell that started it
/// still has the descriptor, which keeps the file locked.
#[testkit::test]
fn the_log_says_how_to_find_an_unknown_process_that_keeps_the_file_locked() {
    let lock = TestLock::file();
    let path = lock.name.strip_prefix("file:").expect("the lock is a file");
    let script = "exec 9>$0; flock 9; echo locked; read line";
    let mut shell = Command::new("sh");
    shell.args(["-c", script, &format!("{path}.lock")]);
    let mut shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("sh can be started");
    shell.stdout.take().expect("stdout is a pipe").read_exact(&mut [0; 6]).expect("the shell has locked the file");
    let mut a = Candidate::new("a", &lock).run(["true"]);
    a.wait_for_log(&format!("another process keeps it locked; try fuser -v {path}.lock"));
    drop(shell.stdin.take());
    shell.wait().expect("the shell can be waited for");
    a.wait_for_exit(0);
}

/// The link changes, for example, if it points to the current release of an application and each deployment replaces
/// it.
#[testkit::test]
fn a_leader_follows_a_changed_link_to_the_directory_of_its_lock_file() {
    let directory = scratch::directory("releases");
    let (link, next_link) = (directory.join("current"), directory.join("next"));
    for release in ["1", "2"] {
        fs::create_dir(directory.join(release)).expect("the directory can be created");
    }
    symlink("1", &link).expect("the link can be created");
    let lock = lock_at(&link.join("job"));
    let a = Candidate::new("a", &lock).run_script("echo ready; sleep 1000");
    eventually("a leads", || a.output().contains("ready"));
    symlink("2", &next_link).expect("the link can be created");
    fs::rename(&next_link, &link).expect("the link can be replaced");
    let b = Candidate::new("b", &lock).run_script("sleep 1000");
    // If the leader writes to the new directory first, it keeps the lock. Otherwise the other candidate acquires it.
    eventually("one candidate sees that the other holds the lock", || {
        a.log().contains("held by b") || b.log().contains("held by a")
    });
}

#[testkit::test]
fn a_leader_whose_renewals_fail_does_not_log_that_it_is_waiting() {
    let lock = TestLock::file();
    let mut a = Candidate::new("a", &lock).run_script("echo ready; sleep 1000");
    eventually("a leads", || a.output().contains("ready"));
    fs::write(lock.name.strip_prefix("file:").expect("the lock is a file"), "not a record")
        .expect("the write succeeds");
    a.wait_for_exit(LOST);
    assert!(a.log().contains("it is not a leaderrun record") && !a.log().contains("waiting for"), "{}", a.log());
}

/// The file belongs to root if an administrator has run the job as root by hand.
#[testkit::test(requires = check_root())]
fn a_file_created_by_root_can_be_used_by_the_owner_of_its_directory() {
    let directory = create_reachable_directory("of-a-user", 0o755);
    chown(&directory, Some(ANN), Some(ANN)).expect("root may change the owner");
    run_as_each(&[ROOT, ANN, ROOT, ANN], &lock_at(&directory.join("job")));
}

/// In a sticky directory such as /tmp, the owner of the file must still be able to use it after a run as root.
#[testkit::test(requires = check_root())]
fn a_file_in_a_sticky_directory_keeps_its_owner() {
    let path = create_reachable_directory("sticky", 0o1777).join("job");
    run_as_each(&[ANN, ROOT, ANN, ROOT, ANN], &lock_at(&path));
    let found = fs::metadata(&path).expect("the record exists");
    assert_eq!((found.uid(), found.mode() & 0o777), (ANN, 0o644));
}

#[testkit::test(requires = check_root())]
fn a_world_writable_file_can_be_used_by_all_users() {
    for (mode, users) in [(0o1777, &[ANN, BEN, ROOT, BEN, ANN, BEN, BEN, BEN][..]), (0o755, &[ANN, BEN, ANN, BEN])] {
        let path = create_reachable_directory("shared", mode).join("job");
        fs::write(&path, "").expect("the file can be written");
        fs::set_permissions(&path, Permissions::from_mode(0o666)).expect("root may change the mode");
        run_as_each(users, &lock_at(&path));
        // `leaderrun status` only needs permission to read.
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("root may change the mode");
        let mut status = Candidate::program("status", leaderrun_for_all_users())
            .args(["status", "--lock", &lock_at(&path).name])
            .configure(|command| become_user(command, BEN))
            .start();
        status.wait_for_exit(1);
        assert!(status.output().contains("free"), "{}", status.output());
    }
}

#[testkit::test(requires = check_root())]
fn two_users_of_a_group_share_a_directory() {
    for mode in [0o775, 0o2775, 0o3775] {
        let directory = create_reachable_directory("of-a-group", mode);
        chown(&directory, None, Some(GROUP)).expect("root may change the group");
        fs::set_permissions(&directory, Permissions::from_mode(mode)).expect("root may change the mode");
        let path = directory.join("job");
        // In a sticky directory, the other user cannot replace the file, so the group must be allowed to write to it.
        if mode & 0o1000 != 0 {
            fs::write(&path, "").expect("the file can be written");
            chown(&path, Some(ANN), Some(GROUP)).expect("root may change the owner and the group");
            fs::set_permissions(&path, Permissions::from_mode(0o660)).expect("root may change the mode");
        }
        run_as_each(&[ANN, BEN, ANN, BEN, BEN, ANN], &lock_at(&path));
    }
}

/// The message names the owner of the file or of its directory, and suggests a shell command. The test runs that
/// command.
#[testkit::test(requires = check_root())]
fn the_command_that_a_refusal_suggests_makes_the_lock_file_usable() {
    let sticky = create_reachable_directory("sticky", 0o1777);
    let closed = create_reachable_directory("closed", 0o755);
    let unreadable = create_reachable_directory("unreadable", 0o777).join("it's quoted");
    for (path, mode) in [(sticky.join("job"), 0o644), (unreadable, 0o600)] {
        run_as_each(&[ROOT], &lock_at(&path));
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("root may change the mode");
        assert_suggestion_helps(&path, "it belongs to root and has mode");
    }
    assert_suggestion_helps(&closed.join("job"), "belongs to root and has mode 0755");
}

/// Checks that a candidate that runs as [`ANN`] is refused with a log line that contains `expected`, and that the
/// command suggested in that line makes the lock file usable.
#[track_caller]
fn assert_suggestion_helps(path: &Path, expected: &str) {
    let lock = lock_at(path);
    let refused = candidate_as(ANN, &lock, &["--wait", "10s"]);
    eventually("the candidate is refused", || refused.log().contains(expected));
    let log = refused.log();
    let refusal = log.lines().find(|line| line.contains(expected)).expect("the log contains the refusal");
    let (_, suggestion) = refusal.rsplit_once(": ").expect("the refusal ends with a suggestion");
    drop(refused);
    let suggestion = suggestion.split("; file:").next().expect("split returns at least one part");
    let status = Command::new("sh").args(["-c", suggestion]).status().expect("sh can be run");
    assert!(status.success(), "the suggested command fails: {suggestion}");
    run_as_each(&[ANN, ANN], &lock);
}

/// Returns an error if this user cannot mount a file system.
fn check_can_mount() -> Result<(), String> {
    let directory = scratch::directory("mount");
    mount_small_file_system(&directory).map_err(|errno| format!("no file system can be mounted: {}", errno.desc()))?;
    umount2(&directory, MntFlags::MNT_DETACH).map_err(|errno| errno.to_string())
}

fn mount_small_file_system(directory: &Path) -> nix::Result<()> {
    mount(Some("tmpfs"), directory, Some("tmpfs"), MsFlags::empty(), Some("size=64k,mode=755"))
}

#[testkit::test(requires = check_can_mount())]
fn a_leader_survives_a_full_disk() {
    let directory = scratch::directory("small");
    mount_small_file_system(&directory).expect("the file system can be mounted");
    let mounted = directory.clone();
    scratch::at_exit(move || {
        let _ = umount2(&mounted, MntFlags::MNT_DETACH);
    });
    let (lock, witnesses) = (lock_at(&directory.join("job")), Witnesses::new());
    let mut a = Candidate::new("a", &lock).run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let fill = directory.join("fill");
    let _ = fs::write(&fill, vec![b'x'; 256 * 1024]);
    assert!(fs::write(directory.join("more"), "x").is_err(), "the disk should be full");
    let status = || -> Value {
        let mut status_command = Candidate::subcommand("status", &lock).args(["-o", "json"]).start();
        status_command.wait();
        serde_json::from_str(&status_command.output()).unwrap_or_default()
    };
    let mut b = Candidate::new("b", &lock).run_witness(&witnesses, &[]);
    b.wait_for_log("held by a");
    for _ in 0..3 {
        let renewed = status()["renewed"].clone();
        eventually("the record is renewed", || status()["renewed"] != renewed);
    }
    assert_eq!(witnesses.lifetimes_of("a")[0].signaled_at, 0, "the command got a stop signal: {}", a.log());
    a.stop();
    witnesses.wait_for("b", 1);
    fs::remove_file(fill).expect("the file can be removed");
    b.stop();
    witnesses.assert_runs_one_at_a_time(2);
    let _ = umount2(&directory, MntFlags::MNT_DETACH);
}

/// With `docker run --read-only --volume /srv/job:/job`, for example, a candidate in the container cannot replace the
/// lock file, so it writes the file in place. A candidate outside the container replaces the file.
#[testkit::test(requires = check_can_mount())]
fn a_candidate_does_not_lead_if_its_lock_file_is_mounted_without_its_directory_and_was_replaced() {
    let [outside, inside] = ["outside", "inside"].map(scratch::directory);
    let [outside_file, inside_file] = [&outside, &inside].map(|directory| directory.join("job"));
    fs::write(&outside_file, "").expect("the file can be written");
    mount_small_file_system(&inside).expect("the file system can be mounted");
    fs::write(&inside_file, "").expect("the file can be written");
    let unused = None::<&str>;
    mount(Some(&outside_file), &inside_file, unused, MsFlags::MS_BIND, unused).expect("the file can be mounted");
    let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    mount(unused, &inside, unused, read_only, unused).expect("the directory can be made read-only");
    let mounted = [inside_file.clone(), inside];
    scratch::at_exit(move || {
        for mounted in mounted {
            let _ = umount2(&mounted, MntFlags::MNT_DETACH);
        }
    });
    let witnesses = Witnesses::new();
    let [a, b, c] = ["a", "b", "c"].map(|name| {
        let lock = lock_at(if name == "b" { &outside_file } else { &inside_file });
        Candidate::new(name, &lock)
    });
    let mut a = a.run_witness(&witnesses, &[]);
    witnesses.wait_for("a", 1);
    let mut b = b.run_witness(&witnesses, &[]);
    b.wait_for_log("held by a");
    a.stop();
    witnesses.wait_for("b", 1);
    // b has replaced the file outside, but c still sees the old file, and therefore does not see b's renewals. The wait
    // is longer than the lease duration, so c would lead if it trusted the record in the old file.
    let mut c = c.args(["--wait", "9s"]).run_witness(&witnesses, &[]);
    c.wait_for_exit(UNAVAILABLE);
    assert!(c.log().contains("mount its directory instead"), "{}", c.log());
    b.stop();
    witnesses.assert_runs_one_at_a_time(2);
}
