//! Runs candidates as other users. Only root can do that.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

use nix::unistd::geteuid;

use testkit::scratch;

// The user IDs of root and of two ordinary users, which need no entry in /etc/passwd.
pub const ROOT: u32 = 0;
pub const ANN: u32 = 20_001;
pub const BEN: u32 = 20_002;
/// The ID of a group that both ordinary users belong to.
pub const GROUP: u32 = 20_100;

/// Returns an error if this process does not run as root. Only root can run candidates as other users.
pub fn check_root() -> Result<(), String> {
    if geteuid().is_root() { Ok(()) } else { Err("only root can run candidates as other users".into()) }
}

/// Returns the path of a copy of leaderrun that every user can execute.
pub fn leaderrun_for_all_users() -> &'static str {
    static PROGRAM: LazyLock<String> = LazyLock::new(|| copy_leaderrun("program"));
    &PROGRAM
}

/// Copies leaderrun to a new directory that every user can reach. Returns the path of the copy.
pub fn copy_leaderrun(directory: &str) -> String {
    let program = create_reachable_directory(directory, 0o755).join("leaderrun");
    // A file that is open for writing cannot be executed. If this process wrote the copy itself, a child that another
    // test starts could inherit the descriptor and keep the file open.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_leaderrun")).arg(&program).status().expect("cp can be run");
    assert!(copied.success(), "cp: {copied}");
    program.into_os_string().into_string().expect("the path is UTF-8")
}

/// Creates a directory with this mode that every user can reach.
pub fn create_reachable_directory(name: &str, mode: u32) -> PathBuf {
    let directory = scratch::directory(name);
    let parent = directory.parent().expect("a scratch directory has a parent");
    fs::set_permissions(parent, Permissions::from_mode(0o711)).expect("the parent of the scratch directory is ours");
    fs::set_permissions(&directory, Permissions::from_mode(mode)).expect("the directory is ours");
    directory
}

/// Makes a command run as this user. An ordinary user belongs to a group with the same ID, and to [`GROUP`].
pub fn become_user(command: &mut Command, user: u32) {
    command.current_dir("/");
    // SAFETY: only system calls are made between fork and exec.
    unsafe {
        command.pre_exec(move || {
            if user != ROOT {
                let groups = [GROUP];
                nix::Error::result(libc::setgroups(groups.len(), groups.as_ptr()))?;
                nix::Error::result(libc::setgid(user))?;
                nix::Error::result(libc::setuid(user))?;
            }
            libc::umask(0o022);
            Ok(())
        });
    }
}
