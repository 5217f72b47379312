//! Makes untrusted text and chains of errors printable in the log and in messages.

use std::error::Error;

/// Returns untrusted text, such as another holder's identity, in a form that is safe for logs and terminals.
///
/// Text longer than 200 characters is truncated.
pub fn printable(text: &str) -> String {
    const MAX_LENGTH: usize = 200;
    match text.char_indices().nth(MAX_LENGTH) {
        None => on_one_line(text),
        Some((end, _)) => on_one_line(&text[..end]) + "…",
    }
}

/// Returns text on one line: escapes every character that could end a line or control a terminal. Text that is already
/// escaped is not changed.
pub fn on_one_line(text: &str) -> String {
    let mut shown = String::new();
    for character in text.chars() {
        // `escape_debug` would also escape these characters, although they are harmless.
        if ['"', '\'', '\\'].contains(&character) {
            shown.push(character);
        } else {
            shown.extend(character.escape_debug());
        }
    }
    shown
}

/// Returns an error on one line: its context, followed by the first line of its innermost cause unless the context
/// contains that line. The causes in between usually repeat one of the two.
pub fn printable_error(failure: &anyhow::Error) -> String {
    let (outer, inner) = (failure.to_string(), failure.root_cause().to_string());
    let message = match inner.lines().next() {
        Some(inner) if !outer.contains(inner) => format!("{outer}: {inner}"),
        _ => outer,
    };
    on_one_line(without_os_error_number(&message))
}

/// Removes the number from an error message of the operating system, as in `No such file or directory (os error 2)`.
fn without_os_error_number(text: &str) -> &str {
    text.rsplit_once(" (os error ").filter(|(_, number)| number.ends_with(')')).map_or(text, |(words, _)| words)
}

/// Returns the innermost cause of an error as [`printable`] text. The outer errors of the HTTP stack contain no
/// information.
pub fn printable_root_cause(failure: &(dyn Error + 'static)) -> String {
    let mut cause = failure;
    while let Some(next) = cause.source() {
        cause = next;
    }
    printable(without_os_error_number(&cause.to_string()))
}

/// Returns a word for a shell, quoted if necessary. A word with control characters cannot be pasted safely, so it is
/// shown as a Rust string literal.
pub fn shell_word(word: &str) -> String {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "_./:=@%+,-".contains(character);
    match word {
        "" => "''".to_owned(),
        _ if word.chars().all(is_plain) => word.to_owned(),
        _ if word.chars().any(char::is_control) => format!("{word:?}"),
        _ => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use testkit::hostile_input::is_dangerous;
    use testkit::{fuzz, hostile_input};

    use super::*;

    #[test]
    fn untrusted_text_cannot_control_a_terminal() {
        assert_eq!(printable("pod-0_\x1b[2J\n"), "pod-0_\\u{1b}[2J\\n");
        assert_eq!(printable(&"x".repeat(500)).chars().count(), 201);
        assert_eq!(printable_error(&anyhow::anyhow!("in\x1b[2J").context("out\x07")), "out\\u{7}: in\\u{1b}[2J");
    }

    #[test]
    fn os_errors_are_shown_without_their_number() {
        let missing = || std::io::Error::from_raw_os_error(libc::ENOENT);
        assert_eq!(printable_root_cause(&missing()), "No such file or directory");
        assert_eq!(
            printable_error(&anyhow::Error::from(missing()).context("no file")),
            "no file: No such file or directory"
        );
    }

    #[test]
    fn printable_text_contains_no_dangerous_characters() {
        const LONGEST_ESCAPE: usize = r"\u{10ffff}".len();
        fuzz("printed text", 50_000, |mut random| {
            let text = hostile_input::text(&mut random);
            let shown = printable(&text);
            assert!(shown.chars().count() <= 201 * LONGEST_ESCAPE, "at most one escape for each character");
            assert!(!shown.chars().any(is_dangerous), "{shown:?}");
        });
    }

    #[test]
    fn words_are_quoted_if_a_shell_requires_quotes() {
        let words = ["15s", "", "a b", "it's", "a\nb", "$HOME", "file:/run/a-b_c.lease"].map(shell_word);
        assert_eq!(words, ["15s", "''", "'a b'", r"'it'\''s'", r#""a\nb""#, "'$HOME'", "file:/run/a-b_c.lease"]);
    }
}
