use std::fs;
use std::path::Path;

use super::*;

/// Returns the paths of the generated files, relative to the package's directory, and the contents that they should
/// have.
fn files() -> [(&'static str, String); 5] {
    [
        ("completions/leaderrun.bash", completion(Shell::Bash)),
        ("completions/_leaderrun", completion(Shell::Zsh)),
        ("completions/leaderrun.fish", completion(Shell::Fish)),
        ("completions/leaderrun.1", man_page()),
        ("docs/reference.md", reference::document()),
    ]
}

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// If the variable `UPDATE` is set, the test writes the files before it compares them.
#[test]
fn the_documents_are_current() {
    let is_update = std::env::var_os("UPDATE").is_some();
    for (name, expected) in files() {
        let path = package().join(name);
        if is_update {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &expected).unwrap();
        }
        let present = fs::read_to_string(&path).unwrap_or_default();
        assert!(present == expected, "{name} is stale; update it with: UPDATE=1 cargo test --bin leaderrun documents");
    }
}

#[test]
fn the_completions_directory_contains_only_generated_files() {
    for entry in fs::read_dir(package().join("completions")).unwrap() {
        let name = format!("completions/{}", entry.unwrap().file_name().display());
        assert!(files().iter().any(|(known, _)| *known == name), "{name} is not a generated file");
    }
}
