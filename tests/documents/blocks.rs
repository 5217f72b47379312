//! Finds the fenced code blocks in the documents.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// A fenced code block.
pub struct Block {
    pub file: PathBuf,
    /// The number of the block's first line, which names its language.
    pub line: usize,
    pub language: String,
    pub text: String,
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// The languages that blocks may be in. The blocks of each language are checked by a test for that language, except
/// that every `text` block has a test of its own.
const LANGUAGES: [&str; 7] = ["yaml", "sh", "console", "crontab", "dockerfile", "json", "text"];

/// Returns the directory of the package.
pub fn package_directory() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the text of a file of the package.
pub fn read(file: impl AsRef<Path>) -> String {
    let file = package_directory().join(file);
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Returns the paths of the documents in the package's directory and in `docs/`, except `docs/reference.md`, which is
/// generated.
pub fn documents() -> Vec<PathBuf> {
    let mut documents: Vec<PathBuf> =
        ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"].map(PathBuf::from).into();
    let pages = fs::read_dir(package_directory().join("docs")).expect("docs/ can be read").flatten();
    documents.extend(pages.map(|entry| entry.file_name()).filter_map(|name| {
        let name = name.into_string().expect("the file name is UTF-8");
        (name.ends_with(".md") && name != "reference.md").then(|| Path::new("docs").join(name))
    }));
    documents.sort();
    documents
}

/// Returns the blocks of one document.
pub fn blocks_of(file: &Path) -> Vec<Block> {
    let text = read(file);
    let mut blocks = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(language) = line.strip_prefix("```") else { continue };
        let body = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```");
        let text = body.fold(String::new(), |text, line| text + line + "\n");
        blocks.push(Block { file: file.to_owned(), line: number + 1, language: language.to_owned(), text });
    }
    blocks
}

/// Returns all blocks in this language.
pub fn blocks_in(language: &str) -> Vec<Block> {
    assert!(LANGUAGES.contains(&language), "{language} is missing from LANGUAGES");
    let all = documents().into_iter().flat_map(|file| blocks_of(&file));
    all.filter(|block| block.language == language).collect()
}

#[testkit::test]
fn every_block_is_in_a_known_language() {
    for block in documents().iter().flat_map(|file| blocks_of(file)) {
        assert!(LANGUAGES.contains(&&*block.language), "{block} is in an unknown language: {:?}", block.language);
    }
}

/// A `text` block cannot be executed or parsed, so each one needs a test of its own.
#[testkit::test]
fn the_only_text_blocks_are_those_with_a_test() {
    let files: Vec<PathBuf> = blocks_in("text").into_iter().map(|block| block.file).collect();
    assert_eq!(
        files,
        [Path::new("README.md"), Path::new("docs/safety.md")],
        "every text block needs its own test, like those in demo.rs and process_tree.rs; add one, then update this list"
    );
}

#[testkit::test]
fn the_readme_is_short() {
    let lines = read("README.md").lines().count();
    assert!(lines <= 150, "the README has {lines} lines");
}
