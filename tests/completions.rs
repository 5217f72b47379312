//! `completions/` is what the definition of the command line generates.

use std::fs;
use std::path::Path;

#[path = "../examples/completions.rs"]
#[allow(dead_code)]
mod generator;

#[test]
fn completions_are_up_to_date() {
    let renew = "renew it with: cargo run --example completions";
    for (name, expected) in generator::files().unwrap() {
        let path = Path::new(generator::FOLDER).join(name);
        let present = fs::read_to_string(&path).unwrap_or_else(|error| panic!("completions/{name}: {error}; {renew}"));
        assert!(present == expected, "completions/{name} is stale; {renew}");
    }
}

#[test]
fn completions_contain_nothing_else() {
    let generated: Vec<_> = generator::files().unwrap().into_iter().map(|(name, _)| name).collect();
    for entry in fs::read_dir(generator::FOLDER).unwrap() {
        let name = entry.unwrap().file_name();
        assert!(generated.iter().any(|known| name == *known), "nobody generates completions/{}", name.display());
    }
}
