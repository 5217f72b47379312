//! Tests of the parts of a release that can be checked without publishing one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use crate::blocks::{package_directory, read};

fn release_notes(version: &str) -> Output {
    let script = package_directory().join("packaging/release-notes");
    Command::new(script).arg(version).output().expect("the script can be started")
}

#[testkit::test]
fn the_release_notes_are_the_changelogs_section_for_the_version() {
    let changelog = read("CHANGELOG.md");
    let version = env!("CARGO_PKG_VERSION");
    let (_, section) =
        changelog.split_once(&format!("## [{version}]")).expect("the changelog has a section for this version");
    let output = release_notes(version);
    let notes = String::from_utf8(output.stdout).expect("the output is UTF-8");
    assert!(output.status.success() && section.contains(notes.trim()) && !notes.trim().is_empty(), "{notes}");
    assert!(!notes.contains("## ") && !notes.contains("]: "), "{notes}");
}

#[testkit::test]
fn a_tag_that_differs_from_the_version_is_refused() {
    let output = release_notes("999.0.0");
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && message.contains("Cargo.toml has"), "{message}");
}

/// Runs git in a directory, independently of the user's configuration.
fn git(directory: &Path, arguments: &[&str]) {
    let mut git = Command::new("git");
    let identity = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgSign=false"];
    let status =
        git.args(identity).args(arguments).current_dir(directory).env("GIT_CONFIG_GLOBAL", "/dev/null").status();
    assert!(status.expect("git can be started").success(), "{arguments:?}");
}

#[testkit::test]
fn the_last_release_is_the_greatest_earlier_version() {
    let directory = testkit::scratch::directory("releases");
    git(&directory, &["init", "--quiet"]);
    let script = package_directory().join("packaging/last-release");
    let last = || {
        let output = Command::new(&script).current_dir(&directory).output().expect("the script can be started");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("the output is UTF-8").trim().to_owned()
    };
    let tags = ["v0.9.0", "v0.10.0-rc1", "v0.10.0", "v1.0.0-rc1", "v1.0.0-rc2", "v1.0.0"];
    let expected = ["", "v0.9.0", "v0.10.0-rc1", "v0.10.0", "v1.0.0-rc1", "v1.0.0-rc2"];
    for (tag, before) in tags.into_iter().zip(expected) {
        git(&directory, &["commit", "--quiet", "--allow-empty", "--message", tag]);
        git(&directory, &["tag", tag]);
        assert_eq!(last(), before, "before {tag}");
    }
    git(&directory, &["commit", "--quiet", "--allow-empty", "--message", "next"]);
    assert_eq!(last(), "v1.0.0");
}

#[testkit::test]
fn workflows_run_scripts_that_exist() {
    let workflows = ["ci", "release"].map(|name| read(format!(".github/workflows/{name}.yml")));
    let text = workflows.concat();
    let scripts = text.split_whitespace().filter(|word| word.starts_with("packaging/") || *word == ".ci/run");
    let scripts: Vec<&str> = scripts.collect();
    assert!(scripts.len() >= 4, "{scripts:?}");
    for script in scripts {
        assert!(package_directory().join(script).exists(), "{script}");
    }
}

#[testkit::test]
fn the_files_and_directories_that_are_packaged_exist() {
    let manifest = read("Cargo.toml");
    let (_, packages) = manifest.split_once("[package.metadata.deb]").expect("Cargo.toml describes the Debian package");
    let names = packages.lines().filter(|line| line.contains("share/"));
    let names: Vec<&str> = names.filter_map(|line| line.split('"').nth(1)).collect();
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        let directory = name.rsplit_once("/*").map_or(name, |(directory, _)| directory);
        assert!(package_directory().join(directory).exists(), "{name}");
    }
}

#[testkit::test]
fn the_debian_package_and_the_rpm_contain_the_same_files() {
    let manifest = read("Cargo.toml");
    let sources = |table: &str, prefix: &str| -> Vec<String> {
        let (_, table) = manifest.split_once(table).expect("Cargo.toml has a table for the package");
        let (_, assets) = table.split_once("assets = [\n").expect("the table lists the assets");
        let (assets, _) = assets.split_once("\n]").expect("the list of assets ends");
        assets.lines().filter_map(|line| Some(line.split_once(prefix)?.1.split_once('"')?.0.to_owned())).collect()
    };
    let debian = sources("[package.metadata.deb]", "[\"");
    let rpm = sources("[package.metadata.generate-rpm]", "source = \"");
    assert_eq!(debian, rpm);
    // Two lists that lack the same files are also equal, so some files are looked up.
    for name in ["examples/dashboard.json", "examples/alerts.yaml", "examples/fencing/sql.sh", "docs/safety.md"] {
        let (directory, file) = name.rsplit_once('/').expect("the name contains a directory");
        let (_, extension) = file.rsplit_once('.').expect("the file has an extension");
        let patterns = [format!("{directory}/*"), format!("{directory}/*.{extension}")];
        assert!(patterns.iter().any(|pattern| debian.contains(pattern)), "{name}");
    }
}

/// A program that replaces `gh` and `cargo`. It publishes into the directory `$STATE`. Change number `$FAILING_CHANGE`
/// fails before it takes effect, except that an upload fails after its first file.
const FAKE_PUBLISHER: &str = r#"#!/bin/sh
change() {
    echo "$1" >>"$STATE/changes"
    if [ "$(wc -l <"$STATE/changes")" = "$FAILING_CHANGE" ]; then exit 1; fi
}
case "$(basename "$0") $1 $2" in
"gh release view") cat "$STATE/draft" 2>/dev/null || exit 1 ;;
"gh release create") [ ! -e "$STATE/draft" ] || exit 1; change create; echo true >"$STATE/draft" ;;
"gh release upload") [ "$(cat "$STATE/draft")" = true ] || exit 1; shift 4; cp "$1" "$STATE/files"; change upload; cp "$@" "$STATE/files" ;;
"gh release edit") change edit; echo false >"$STATE/draft" ;;
"cargo info --quiet") grep -qx "$3" "$STATE/crates" ;;
"cargo publish --locked") ! grep -qx "$4@$VERSION" "$STATE/crates" || exit 1; change "$4"; echo "$4@$VERSION" >>"$STATE/crates" ;;
*) exit 2 ;;
esac
"#;

/// Runs `packaging/publish` with the fake programs, which fail at change number `failing_change` (the first is 1).
/// Returns whether the script succeeded.
fn publish(directory: &Path, failing_change: Option<usize>) -> bool {
    let version = env!("CARGO_PKG_VERSION");
    let path = format!("{}:{}", directory.display(), std::env::var("PATH").expect("PATH is set"));
    let mut script = Command::new(package_directory().join("packaging/publish"));
    script.arg(format!("v{version}")).arg(directory.join("dist"));
    script.env("PATH", path).env("STATE", directory.join("state"));
    script
        .env("VERSION", version)
        .env("FAILING_CHANGE", failing_change.map(|number| number.to_string()).unwrap_or_default())
        .output()
        .expect("the script can be started")
        .status
        .success()
}

#[testkit::test]
fn a_second_run_completes_a_publication_that_failed() {
    let mut failures = 0;
    loop {
        let directory = testkit::scratch::directory("publish");
        for name in ["dist", "state", "state/files"] {
            fs::create_dir(directory.join(name)).expect("the directory can be created");
        }
        for program in ["gh", "cargo"] {
            let program = directory.join(program);
            fs::write(&program, FAKE_PUBLISHER).expect("the program can be written");
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("the file mode can be changed");
        }
        for (file, text) in [("dist/a.deb", "a"), ("dist/b.tar.gz", "b"), ("state/crates", ""), ("state/changes", "")] {
            fs::write(directory.join(file), text).expect("the file can be written");
        }
        let failing_change = failures + 1;
        let succeeded = publish(&directory, Some(failing_change));
        assert!(
            succeeded || publish(&directory, None),
            "the second run should succeed after change {failing_change} has failed"
        );
        let state = |name: &str| fs::read_to_string(directory.join("state").join(name)).expect(name);
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(state("crates"), format!("leaderrun-core@{version}\nleaderrun@{version}\n"));
        assert_eq!((state("files/a.deb"), state("files/b.tar.gz")), ("a".to_owned(), "b".to_owned()));
        let sums = state("files/SHA256SUMS");
        assert!(sums.contains("  a.deb\n") && sums.contains("  b.tar.gz\n") && sums.lines().count() == 2, "{sums}");
        assert_eq!(state("draft").trim(), "false");
        let changes = state("changes");
        assert!(publish(&directory, None), "another run should succeed");
        assert_eq!(state("changes"), changes, "a run after a complete one should change nothing");
        if succeeded {
            break;
        }
        failures += 1;
    }
    assert_eq!(failures, 5, "the changes should be create, upload, edit, and two crates");
}

/// `cargo binstall` downloads the archive at `pkg-url`, and takes the program from the path `bin-dir` in the archive.
#[testkit::test]
fn binstall_finds_the_archive_of_a_release() {
    let script = read("packaging/build");
    assert!(script.contains("name=leaderrun-$version-$target\n") && script.contains("\"$output/$name.tar.gz\""));
    let workflow = read(".github/workflows/release.yml");
    let manifest = read("Cargo.toml");
    let (_, metadata) =
        manifest.split_once("[package.metadata.binstall").expect("Cargo.toml has metadata for binstall");
    let values = |key: &str, target: &str| -> Vec<String> {
        let lines =
            metadata.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"'));
        let filled = lines.map(|template| {
            let template = template.replace("{ target }", target).replace("{ version }", "1.2.3");
            template.replace("{ name }", "leaderrun").replace("{ bin }", "leaderrun").replace("{ binary-ext }", "")
        });
        filled.collect()
    };
    // There are three entries: one for all targets, and one for each of the two GNU targets. A GNU target has no
    // archive of its own, so its entry names the musl archive of the same architecture. The URL of a musl archive is
    // therefore in two entries.
    for target in ["x86_64-unknown-linux-musl", "aarch64-unknown-linux-musl"] {
        assert!(workflow.contains(&format!("target: {target}")), "{target} should be built");
        let url = format!("{{ repo }}/releases/download/v1.2.3/leaderrun-1.2.3-{target}{{ archive-suffix }}");
        let program = format!("leaderrun-1.2.3-{target}/leaderrun");
        for (key, expected) in [("pkg-url", &url), ("bin-dir", &program)] {
            let values = values(key, target);
            let matching = values.iter().filter(|value| *value == expected).count();
            assert_eq!((matching, values.len()), (2, 3), "{expected} should be in two entries: {values:?}");
        }
    }
}
