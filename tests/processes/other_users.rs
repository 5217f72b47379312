//! Runs candidates as other users.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

use nix::unistd::geteuid;

use testkit::scratch;

pub const ROOT: u32 = 0;
pub const ANN: u32 = 20_001;
pub const BEN: u32 = 20_002;
/// A group of all these users except root.
pub const GROUP: u32 = 20_100;

/// Checks whether candidates can be run as other users.
pub fn root() -> Result<(), String> {
    if geteuid().is_root() { Ok(()) } else { Err("only root can run candidates as other users".into()) }
}

/// Returns the path of a leaderrun that every user can execute.
pub fn program() -> &'static str {
    static PROGRAM: LazyLock<String> = LazyLock::new(|| copy_of_program("program"));
    &PROGRAM
}

/// Copies leaderrun to a folder of its own that every user can reach. Returns the path of the copy.
pub fn copy_of_program(folder: &str) -> String {
    let program = open_folder(folder, 0o755).join("leaderrun");
    // `cp` copies the file, because a file that is open for writing cannot be executed. If this process had it open, a
    // child of another test could inherit the descriptor.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_leaderrun")).arg(&program).status().expect("cp");
    assert!(copied.success(), "cp: {copied}");
    program.into_os_string().into_string().expect("a path in UTF-8")
}

/// Creates a folder that every user can reach.
pub fn open_folder(name: &str, mode: u32) -> PathBuf {
    let folder = scratch::folder(name);
    let parent = folder.parent().expect("the scratch folder");
    fs::set_permissions(parent, Permissions::from_mode(0o711)).expect("the scratch folder is ours");
    fs::set_permissions(&folder, Permissions::from_mode(mode)).expect("the folder is ours");
    folder
}

/// Runs a command as this user, who is in their own group and in the common one.
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
