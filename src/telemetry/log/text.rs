//! The text format of log lines.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use leaderrun_core::instant::Instant;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::{LogTime, on_one_line};
use crate::process::clock;

/// A format with one line for each event, such as `leaderrun +3m06s: what happened`. [`LogTime`] determines the time.
/// Text from outside, such as a path, can neither break a line nor forge one.
///
/// The fields of leaderrun's own events are not printed, because the sentence says what a human reader needs. Only the
/// field [`MULTILINE_FIELD`] is printed, on separate lines after the sentence.
pub struct TextFormat {
    started_at: Instant,
    time: LogTime,
    is_colored: bool,
}

impl TextFormat {
    /// Creates a format that counts elapsed times from `started_at`.
    pub fn new(started_at: Instant, time: LogTime, is_colored: bool) -> Self {
        Self { started_at, time, is_colored }
    }

    /// Returns the beginning of a line: the program and the time.
    fn prefix(&self) -> String {
        match self.time {
            LogTime::Elapsed => format!("leaderrun {}:", elapsed(clock::now().since(self.started_at))),
            LogTime::Wall => format!("leaderrun {:.3}:", Timestamp::now()),
            LogTime::None => "leaderrun:".to_owned(),
        }
    }
}

impl<S, N> FormatEvent<S, N> for TextFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let (level, target) = (*event.metadata().level(), event.metadata().target());
        let painted = |color, text: String| if self.is_colored { format!("{color}{text}{RESET}") } else { text };
        let word = match level {
            Level::ERROR => painted(RED, "error: ".into()),
            Level::WARN => painted(YELLOW, "warning: ".into()),
            _ => String::new(),
        };
        write!(writer, "{} {word}", painted(DIM, self.prefix()))?;
        let mut event_text = EventText::default();
        event.record(&mut event_text);
        if target.starts_with("leaderrun") {
            event_text.other_fields.clear();
        } else {
            write!(writer, "{target}: ")?;
        }
        let EventText { message, other_fields, multiline_text } = event_text;
        writeln!(writer, "{}", on_one_line(&(message + &other_fields)))?;
        multiline_text.map_or(Ok(()), |text| writeln!(writer, "{}", text.trim_end()))
    }
}

const DIM: &str = "\x1b[2m";
const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";
const RESET: &str = "\x1b[0m";

/// Formats the time since the start, in one or two units.
fn elapsed(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("+{}.{}s", seconds, time.subsec_millis() / 100),
        60..3600 => format!("+{minutes}m{:02}s", seconds % 60),
        3600..86_400 => format!("+{hours}h{:02}m", minutes % 60),
        _ => format!("+{days}d{:02}h", hours % 24),
    }
}

/// The field whose text has several lines, for users to copy. The text is printed as it is, so it must not contain text
/// from outside.
const MULTILINE_FIELD: &str = "role";

#[derive(Default)]
struct EventText {
    message: String,
    other_fields: String,
    multiline_text: Option<String>,
}

impl Visit for EventText {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == MULTILINE_FIELD {
            self.multiline_text = Some(value.to_owned());
        } else {
            self.record_debug(field, &value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => self.other_fields.push_str(&format!(" {name}={value:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// Returns the text that `log` logs.
    fn logged(log: impl FnOnce()) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        let format = TextFormat::new(clock::now(), LogTime::None, false);
        let layer = tracing_subscriber::fmt::layer().with_writer(file.reopen().unwrap()).event_format(format);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        std::fs::read_to_string(file.path()).unwrap()
    }

    #[test]
    fn text_from_outside_cannot_break_a_line() {
        let path = "a\nleaderrun: error: forged\r\x1b[2J";
        assert_eq!(
            logged(|| tracing::info!(path, "reading {path}")),
            "leaderrun: reading a\\nleaderrun: error: forged\\r\\u{1b}[2J\n"
        );
        let library_line = logged(|| tracing::info!(target: "hyper", %path, "reading"));
        assert_eq!(library_line.lines().count(), 1, "{library_line}");
    }

    #[test]
    fn a_role_is_printed_on_separate_lines_after_the_sentence() {
        let text = logged(|| tracing::warn!(role = "kind: Role\nrules: []\n", "bind this Role:"));
        assert_eq!(text, "leaderrun: warning: bind this Role:\nkind: Role\nrules: []\n");
    }

    #[test]
    fn longer_elapsed_times_are_shown_in_larger_units() {
        let at = |seconds: f64| elapsed(Duration::from_secs_f64(seconds));
        let shown = [0.0, 9.96, 59.9, 60.0, 3599.0, 3600.0, 86_399.0, 86_400.0, 1_000_000.0].map(at);
        assert_eq!(shown, ["+0.0s", "+9.9s", "+59.9s", "+1m00s", "+59m59s", "+1h00m", "+23h59m", "+1d00h", "+11d13h"]);
    }
}
