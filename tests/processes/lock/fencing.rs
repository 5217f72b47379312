//! Tests of the recipes in `examples/fencing/`.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use testkit::{Candidate, TestLock, scratch};

/// Returns the path of a recipe.
fn recipe(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/fencing").join(name)
}

/// Runs a recipe as the leader with this token. Returns whether the write was accepted.
fn run_recipe(recipe: &mut Command, token: &str, input: &str) -> bool {
    recipe.env("LEADERRUN_FENCING_TOKEN", token).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = recipe.spawn().expect("the recipe can be started");
    let _ = child.stdin.take().expect("the recipe's stdin is a pipe").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("the output of the recipe can be read");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() || stderr.contains("a later leader has "), "{stderr}");
    output.status.success()
}

#[testkit::test(requires = testkit::check_installed("sqlite3"))]
fn a_table_refuses_an_older_leader() {
    let database = scratch::directory("sql").join("report.db");
    let write =
        |token: &str, total: &str| run_recipe(Command::new(recipe("sql.sh")).arg(&database).arg(total), token, "");
    let total = || {
        let read = Command::new("sqlite3")
            .arg(&database)
            .arg("SELECT total FROM report")
            .output()
            .expect("sqlite3 can be started");
        String::from_utf8_lossy(&read.stdout).trim().to_owned()
    };
    for (token, value, accepted, expected) in
        [("9", "1", true, "1"), ("10", "2", true, "2"), ("9", "3", false, "2"), ("10", "4", true, "4")]
    {
        assert_eq!((write(token, value), total().as_str()), (accepted, expected), "token {token}");
    }
}

#[testkit::test(requires = testkit::check_installed("flock"))]
fn a_file_refuses_an_older_leader() {
    let file = scratch::directory("file").join("report");
    let write = |token: &str, text: &str| run_recipe(Command::new(recipe("file.sh")).arg(&file), token, text);
    for (token, text, accepted, expected) in
        [("9", "a", true, "a"), ("10", "b", true, "b"), ("9", "c", false, "b"), ("10", "d", true, "d")]
    {
        assert_eq!(
            (write(token, text), fs::read_to_string(&file).expect("the file can be read").as_str()),
            (accepted, expected),
            "token {token}"
        );
    }
    // The recipe also accepts the token that leaderrun itself passes to it.
    let line = format!("echo led | {} {}", recipe("file.sh").display(), file.with_file_name("led").display());
    Candidate::new("a", &TestLock::file()).run_script(&line).wait_for_exit(0);
    assert_eq!(fs::read_to_string(file.with_file_name("led")).expect("the file can be read"), "led\n");
}

/// A replacement for `aws` that stores one object in the directory `$STORE`. It supports the two requests that the
/// recipe sends, including S3's conditional writes. If the file `race` exists, the ETag changes after each read, as if
/// another leader had written the object.
const FAKE_AWS: &str = r#"#!/bin/sh
set -eu
cd "$STORE"
request=$2
while [ $# -gt 0 ]; do
    case $1 in
    --if-match) [ "$(cat etag)" = "$2" ] || exit 254 ;;
    --if-none-match) [ ! -e etag ] || exit 254 ;;
    --metadata) token=${2#token=} ;;
    --body) body=$2 ;;
    esac
    shift
done
case $request in
head-object) [ -e etag ] || exit 254; printf '%s\t%s\n' "$(cat etag)" "$(cat token)"; [ ! -e race ] || echo '"other"' >etag ;;
put-object) cp "$body" object; echo "$token" >token; echo "\"$(cksum <object | cut -d ' ' -f 1)\"" >etag ;;
esac
"#;

#[testkit::test]
fn object_storage_refuses_an_older_leader() {
    let store = scratch::directory("store");
    let programs = scratch::directory("programs");
    fs::write(programs.join("aws"), FAKE_AWS).expect("the program can be written");
    fs::set_permissions(programs.join("aws"), fs::Permissions::from_mode(0o755)).expect("the file mode can be changed");
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
    let body = scratch::directory("body").join("text");
    let put = |token: &str, text: &str| {
        fs::write(&body, text).expect("the file can be written");
        let mut recipe = Command::new(recipe("object-storage.sh"));
        recipe.args(["bucket", "key"]).arg(&body).env("PATH", &path).env("STORE", &store);
        recipe.env("LEADERRUN_FENCING_TOKEN", token).output().expect("the recipe can be started").status.success()
    };
    let object = || fs::read_to_string(store.join("object")).expect("the object can be read");
    for (token, text, accepted, expected) in
        [("9", "a", true, "a"), ("10", "b", true, "b"), ("9", "c", false, "b"), ("10", "d", true, "d")]
    {
        assert_eq!((put(token, text), object().as_str()), (accepted, expected), "token {token}");
    }
    fs::write(store.join("race"), "").expect("the file can be written");
    assert!(!put("11", "e"), "a write should be refused if the object has changed since the read");
    assert_eq!(object(), "d");
}
