//! Parses the times in records, which other programs may have written.

use jiff::Timestamp;
use jiff::fmt::temporal::Pieces;
use jiff::tz::Offset;

/// Parses a time in a record. In addition to RFC 3339, accepts what other programs write:
///
/// - A time after [`Timestamp::MAX`], such as `9999-12-31T23:59:59Z` for "forever", counts as [`Timestamp::MAX`].
/// - A time without an offset counts as UTC. The Python client writes the local time in this way. The wrong offset does
///   no harm, because candidates only notice that such a time has changed, and do not compare it with a clock.
///
/// # Errors
/// Fails if the text is not a time.
pub fn parse(text: &str) -> Result<Timestamp, jiff::Error> {
    text.parse().or_else(|failure| parse_unusual(text).ok_or(failure))
}

/// Parses a time that has no offset, or is after [`Timestamp::MAX`].
fn parse_unusual(text: &str) -> Option<Timestamp> {
    let pieces = Pieces::parse(text).ok()?;
    let time = pieces.date().to_datetime(pieces.time()?);
    let offset = pieces.to_numeric_offset().unwrap_or(Offset::UTC);
    let is_late = time.year() == 9999;
    offset.to_timestamp(time).ok().or_else(|| is_late.then_some(Timestamp::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_from_other_programs_are_parsed() {
        let parsed = |text: &str| parse(text).unwrap();
        assert_eq!(parsed("2026-01-02T03:04:05.000006Z").as_microsecond(), 1_767_323_045_000_006);
        assert_eq!(parsed("2026-01-02 03:04:05.000006"), parsed("2026-01-02T03:04:05.000006Z"));
        assert_eq!(parsed("2026-01-02 05:04:05+02:00"), parsed("2026-01-02T03:04:05Z"));
        for late in ["9999-12-31T23:59:59.000000Z", "9999-12-31 23:59:59", "9999-12-31T23:59:59+00:00"] {
            assert_eq!(parsed(late), Timestamp::MAX, "{late}");
        }
    }

    #[test]
    fn text_that_is_not_a_time_is_an_error() {
        for text in ["", "soon", "2026-01-02", "1767323045", "20260102", "03:04:05", "12026-01-02T03:04:05Z"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
