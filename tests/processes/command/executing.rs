//! Tests of commands that cannot be executed, and of the reasons in the messages.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::ptr;

use nix::errno::Errno;

use testkit::exit_status::{NOT_EXECUTABLE, NOT_FOUND};
use testkit::{Candidate, TestLock, eventually, scratch};

use crate::other_users::{self, ANN, become_user, check_root, create_reachable_directory};

/// Creates an executable file. Returns its path.
fn create_executable(contents: &[u8]) -> PathBuf {
    let file = scratch::directory("program").join("program");
    fs::write(&file, contents).expect("the file can be written");
    fs::set_permissions(&file, Permissions::from_mode(0o755)).expect("the file mode can be changed");
    file
}

/// Checks that a file with these contents is not executed, whether it is named by its path or found in `PATH`, and that
/// the log contains this reason.
#[track_caller]
fn assert_not_executed(contents: &[u8], reason: &str) {
    let file = create_executable(contents);
    let directory = file.parent().expect("the file is in a directory").to_str().expect("the path is UTF-8");
    let path = format!("{directory}:{}", std::env::var("PATH").expect("PATH is set"));
    for (name, path) in [(file.to_str().expect("the path is UTF-8"), ""), ("program", path.as_str())] {
        let mut a = Candidate::new("a", &TestLock::file()).env("PATH", path).run([name]);
        a.wait_for_exit(NOT_EXECUTABLE);
        assert!(a.log().contains(reason), "{}", a.log());
        assert_eq!(a.output(), "", "nothing should be executed");
    }
}

#[testkit::test]
fn a_program_for_another_machine_is_not_given_to_the_shell() {
    let (machine, name) = if cfg!(target_arch = "s390x") { (62, "x86_64") } else { (22, "s390x") };
    // The beginning of an ELF file with 64-bit, little-endian data.
    let mut program = [0; 128];
    program[..6].copy_from_slice(b"\x7fELF\x02\x01");
    // The type (executable file) and the machine.
    program[16] = 2;
    program[18] = machine;
    assert_not_executed(&program, &format!("it is a program for another machine: {name}"));
}

#[testkit::test]
fn the_message_says_what_is_wrong_with_the_interpreter() {
    assert_not_executed(b"#!/no/such/python3 -u\necho ran\n", "its interpreter /no/such/python3 is missing");
    assert_not_executed(b"#!/bin/sh\r\necho ran\r\n", "carriage return");
    let interpreter = create_executable(b"#!/no/such/perl\n");
    let script = format!("#!{}\n", interpreter.display());
    assert_not_executed(script.as_bytes(), "the interpreter /no/such/perl of its interpreter");
}

#[testkit::test]
fn a_file_that_is_neither_a_program_nor_a_script_is_not_executed() {
    assert_not_executed(b"\x01\x02\x00\x03", "it is neither a program nor a script");
}

#[testkit::test]
fn a_script_without_an_interpreter_is_run_by_the_shell() {
    let file = create_executable(b"echo \"got $1\"; exit 5\n");
    let mut a = Candidate::new("a", &TestLock::file()).run([file.to_str().expect("the path is UTF-8"), "argument"]);
    a.wait_for_exit(5);
    assert_eq!(a.output(), "got argument\n");
}

#[testkit::test]
fn the_message_says_why_a_file_is_not_executable() {
    let directory = scratch::directory("not-executable");
    let (plain, script) = (directory.join("plain"), directory.join("script"));
    fs::write(&plain, "#!/bin/sh\n").expect("the file can be written");
    fs::set_permissions(&plain, Permissions::from_mode(0o644)).expect("the file mode can be changed");
    fs::write(&script, format!("#!{}\n", plain.display())).expect("the file can be written");
    fs::set_permissions(&script, Permissions::from_mode(0o755)).expect("the file mode can be changed");
    for (file, reason) in [
        (&plain, format!("it is not executable; try chmod +x {}", plain.display()).as_str()),
        (&script, &format!("its interpreter {} is not executable", plain.display())),
        (&directory, "it is a directory"),
    ] {
        let mut a = Candidate::new("a", &TestLock::file()).run([file]);
        a.wait_for_exit(NOT_EXECUTABLE);
        let expected = format!("cannot execute {}: {reason}\n", file.display());
        assert!(a.log().contains(&expected), "{}", a.log());
    }
}

#[testkit::test(requires = check_root())]
fn the_message_names_the_directory_or_the_file_that_this_user_lacks_permission_for() {
    let (closed, lock) =
        (create_reachable_directory("closed", 0o700), create_reachable_directory("lock", 0o777).join("job"));
    let file = closed.join("program");
    fs::write(&file, "#!/bin/sh\n").expect("the file can be written");
    fs::set_permissions(&file, Permissions::from_mode(0o700)).expect("the file mode can be changed");
    let run = |path: &str, program: &str| {
        let candidate = Candidate::program("a", other_users::leaderrun_for_all_users())
            .args(["--lock", &format!("file:{}", lock.display())]);
        candidate.configure(|command| become_user(command, ANN)).env("PATH", path).run([program])
    };
    let directory = closed.display().to_string();
    let path = format!("{directory}:/usr/bin:/bin");
    run(&path, "true").wait_for_exit(0);
    let mut missing = run(&path, "program");
    missing.wait_for_exit(NOT_FOUND);
    let expected =
        format!("cannot execute program: No such file or directory, and this user may not search {directory}; PATH is");
    assert!(missing.log().contains(&expected), "{}", missing.log());
    let mut run_by_path = run(&path, file.to_str().expect("the path is UTF-8"));
    run_by_path.wait_for_exit(NOT_EXECUTABLE);
    let expected = format!("cannot execute {}: this user may not search the directory {directory}\n", file.display());
    assert!(run_by_path.log().contains(&expected), "{}", run_by_path.log());
    fs::set_permissions(&closed, Permissions::from_mode(0o755)).expect("the directory's mode can be changed");
    let mut not_executable = run(&path, "program");
    not_executable.wait_for_exit(NOT_EXECUTABLE);
    assert!(
        not_executable.log().contains("its mode 0700 does not let this user execute it"),
        "{}",
        not_executable.log()
    );
}

#[testkit::test]
fn a_program_that_is_open_for_writing_is_not_executed() {
    let file = create_executable(b"\x7fELF");
    let _writing = fs::File::options().append(true).open(&file).expect("the file can be opened");
    let mut a = Candidate::new("a", &TestLock::file()).run([&file]);
    a.wait_for_exit(NOT_EXECUTABLE);
    assert!(a.log().contains("a process has it open for writing"), "{}", a.log());
}

#[testkit::test]
fn the_message_says_that_a_command_line_is_too_long() {
    let lock = TestLock::file();
    let mut a = Candidate::new("a", &lock).run_script("echo ready; exec sleep 1000");
    eventually("a leads", || a.output().contains("ready"));
    let long = vec!["x".repeat(100_000); 10];
    let mut b = Candidate::new("b", &lock).run([&["true".to_owned()], &long[..]].concat());
    b.wait_for_log("held by a");
    // The kernel limits the size of the arguments and the environment to a quarter of the stack limit.
    let small_stack = libc::rlimit { rlim_cur: 1 << 20, rlim_max: 1 << 20 };
    // SAFETY: `small_stack` is valid for the call, and the null pointer means that the old limit is not written.
    let result =
        unsafe { libc::prlimit(b.supervisor().as_raw(), libc::RLIMIT_STACK, &raw const small_stack, ptr::null_mut()) };
    Errno::result(result).expect("the limit can be lowered");
    a.stop();
    b.wait_for_exit(NOT_EXECUTABLE);
    assert!(b.log().contains("its arguments and environment are longer than the kernel allows"), "{}", b.log());
}
