//! Suggestions for mistyped words.

/// Returns the known word that a mistyped word probably stands for: one that differs in one letter or in up to a third
/// of the letters, or the only one that begins with the mistyped word.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let known: Vec<&str> = known.into_iter().collect();
    let tolerated = (word.trim_start_matches('-').chars().count() / 3).max(1);
    let distance = |other: &&&str| strsim::damerau_levenshtein(word, other);
    let near = known.iter().min_by_key(distance).filter(|other| distance(other) <= tolerated);
    let mut with_prefix =
        known.iter().filter(|other| word.trim_start_matches('-').len() > 2 && other.starts_with(word));
    let only_with_prefix = with_prefix.next().filter(|_| with_prefix.next().is_none());
    near.or(only_with_prefix).copied()
}

/// Returns the DNS-1123 label that is nearest to a string, for use as the name of a namespace or Service. Returns
/// `None` if the string contains no ASCII letter or digit.
pub fn nearest_label(text: &str) -> Option<String> {
    let label = text.to_lowercase().replace(|character: char| !character.is_ascii_alphanumeric(), "-");
    let label = label.get(..63).unwrap_or(&label).trim_matches('-').to_owned();
    (!label.is_empty()).then_some(label)
}

/// Returns the DNS-1123 subdomain that is nearest to a string, for use as the name of any other object.
pub fn nearest_name(text: &str) -> Option<String> {
    let labels: Vec<String> = text.split('.').filter_map(nearest_label).collect();
    (!labels.is_empty()).then(|| labels.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: [&str; 5] = ["--lock", "--as", "--lease-duration", "--log-format", "--log-time"];

    #[test]
    fn a_word_with_a_few_wrong_letters_is_recognized() {
        assert_eq!(nearest("--lokc", OPTIONS), Some("--lock"));
        assert_eq!(nearest("--leaseduration", OPTIONS), Some("--lease-duration"));
        assert_eq!(nearest("--namespace", OPTIONS), None);
        assert_eq!(nearest("stauts", ["status", "check"]), Some("status"));
        assert_eq!(nearest("true", ["status", "check"]), None);
    }

    #[test]
    fn a_prefix_of_only_one_word_is_recognized() {
        assert_eq!(nearest("--lease", OPTIONS), Some("--lease-duration"));
        assert_eq!(nearest("--log", OPTIONS), None);
    }

    #[test]
    fn the_nearest_valid_name_is_returned() {
        assert_eq!(nearest_name("My_Job.v2").as_deref(), Some("my-job.v2"));
        assert_eq!(nearest_label("-x-").as_deref(), Some("x"));
        assert_eq!(nearest_label("_"), None);
    }
}
