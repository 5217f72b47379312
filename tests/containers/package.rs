//! Tests that the Debian package can be installed and removed, in a container of the image that
//! `tests/systemd/build-image` builds.

use std::fs;
use std::process::Command;

use testkit::scratch;

use crate::engine::docker;

const IMAGE: &str = "leaderrun-systemd";

fn check_can_test_package() -> Result<(), String> {
    let succeeds = |program: &str, arguments: &[&str]| {
        Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
    };
    if !succeeds("docker", &["image", "inspect", IMAGE]) {
        return Err(format!("no image {IMAGE}"));
    }
    if !succeeds("cargo", &["deb", "--version"]) {
        return Err("no cargo-deb".to_owned());
    }
    Ok(())
}

/// A zsh script that types the beginning of a line and Tab into a terminal, and prints the completed line. zsh only
/// completes words on a terminal.
const ZSH: &str = r#"
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell 'autoload -U compinit && compinit -D -u; print-line() { print -rn -- "$BUFFER" >/tmp/line }; zle -N print-line'
zpty -w shell "bindkey '^T' print-line; bindkey '^I' complete-word"
zpty -w -n shell $'leaderrun --lease-d\t\C-t'
for i in {1..600}; do
    while zpty -r -t shell text; do :; done
    [[ -e /tmp/line ]] && break
    sleep 0.05
done
cat /tmp/line
"#;

/// Quotes a script for a shell.
fn quoted(script: &str) -> String {
    format!("'{}'", script.replace('\'', r"'\''"))
}

/// A Debian container. It is removed when this handle is dropped.
struct Debian(String);

impl Debian {
    fn start() -> Self {
        let name = format!("leaderrun-test-{}-{:x}", std::process::id(), fastrand::u32(..));
        docker(&["run", "--detach", "--network=none", "--name", &name, IMAGE, "sleep", "1000"]);
        Self(name)
    }

    /// Runs a script with bash and returns its output.
    #[track_caller]
    fn run(&self, script: &str) -> String {
        docker(&["exec", &self.0, "bash", "-c", script])
    }

    /// Returns the paths of all files, except temporary files, caches, logs and the files of dpkg.
    fn files(&self) -> String {
        self.run("find / -xdev \\( -path /proc -o -path /var/lib/dpkg -o -path /var/log -o -path /tmp -o -path /var/cache \\) -prune -o -print | sort")
    }
}

impl Drop for Debian {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rm", "--force", &self.0]).output();
    }
}

#[testkit::test(requires = check_can_test_package())]
fn the_debian_package_can_be_installed_and_leaves_nothing_behind_when_it_is_removed() {
    let directory = scratch::directory("package");
    let mut build = Command::new("cargo");
    build.args(["deb", "--no-build", "--offline", "--profile=dev", "--output"]).arg(directory.join("leaderrun.deb"));
    let built = build.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo can be started");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));

    let debian = Debian::start();
    let before = debian.files();
    docker(&["cp", &directory.join("leaderrun.deb").to_string_lossy(), &format!("{}:/tmp/", debian.0)]);
    debian.run("dpkg --install /tmp/leaderrun.deb");
    assert_eq!(debian.run("leaderrun --version"), format!("leaderrun {}", env!("CARGO_PKG_VERSION")));
    // man, fish and zsh find the man page and the completions by themselves. Non-interactive bash does not load
    // completions, so the script sources the completion file.
    let manual = debian.run("MANWIDTH=100 man --warnings leaderrun 2>&1");
    assert!(manual.starts_with("LEADERRUN(1) ") && manual.contains("\n       --lease-duration "), "{manual}");
    assert!(debian.run("whatis leaderrun").starts_with("leaderrun (1) "));
    let completed = debian.run(
        "source /usr/share/bash-completion/completions/leaderrun
         COMP_WORDS=(leaderrun --lease-d); COMP_CWORD=1; COMP_LINE='leaderrun --lease-d'; COMP_POINT=${#COMP_LINE}
         $(complete -p leaderrun | sed 's/.*-F \\([^ ]*\\).*/\\1/') leaderrun --lease-d leaderrun
         echo \"${COMPREPLY[@]}\"",
    );
    assert_eq!(completed.trim(), "--lease-duration");
    let completed = debian.run("HOME=/tmp fish -c 'complete -C \"leaderrun --lease-d\"'");
    assert!(completed.starts_with("--lease-duration\t"), "{completed}");
    assert_eq!(debian.run(&format!("HOME=/tmp zsh -c {}", quoted(ZSH))), "leaderrun --lease-duration=");
    for file in [
        "/usr/share/doc/leaderrun/copyright",
        "/usr/share/doc/leaderrun/docs/safety.md",
        "/usr/share/doc/leaderrun/examples/failover.service",
    ] {
        // A large file is compressed, so its name ends in .gz.
        debian.run(&format!("ls {file}*"));
    }
    debian.run("dpkg --purge leaderrun");
    assert_eq!(debian.files(), before);
    fs::remove_dir_all(directory).expect("the directory can be removed");
}
