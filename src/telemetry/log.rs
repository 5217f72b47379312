//! The log on stderr, which nothing ever waits for.
//!
//! stderr may be a pipe that nobody reads, or a terminal stopped with Ctrl-S: a thread of its own writes
//! to it, and lines that it cannot write in time are dropped and counted.

use std::error::Error;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use leaderrun_core::instant::Instant;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use super::log_event::DETAIL_TARGET;
use crate::process::clock;

/// Lines that may wait for stderr.
const BACKLOG: usize = 1024;

/// How long the program's end waits for stderr to take the last lines.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Text,
    Json,
}

/// Starts the log. To be called once, after the fork.
///
/// # Errors
/// When the thread cannot be started.
pub fn start(format: Format, level: LevelFilter) -> io::Result<Log> {
    let (lines, backlog) = sync_channel(BACKLOG);
    let (done, written) = sync_channel(1);
    let writer = Lines { lines: lines.clone(), dropped: Arc::default(), format };
    thread::Builder::new().name("log".into()).spawn(move || write_lines(&backlog, &done))?;
    // What libraries say is for whoever debugs: -v -v.
    let others = if level >= LevelFilter::TRACE { level } else { LevelFilter::OFF };
    // In text the neighbours of a detail say enough to people; programs read all events.
    let details = if format == Format::Text && level == LevelFilter::INFO { LevelFilter::OFF } else { level };
    let targets = Targets::new().with_target("leaderrun", level).with_target(DETAIL_TARGET, details);
    let targets = targets.with_default(others);
    let registry = tracing_subscriber::registry().with(targets);
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    match format {
        Format::Text => registry
            .with(layer.event_format(Text {
                begun: clock::now(),
                colored: io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
            }))
            .init(),
        Format::Json => registry
            .with(layer.json().flatten_event(true).with_target(false).with_current_span(false).with_span_list(false))
            .init(),
    }
    Ok(Log { lines, written })
}

/// The running log; kept to its end for the last lines.
#[derive(Debug)]
pub struct Log {
    lines: SyncSender<Line>,
    written: Receiver<()>,
}

impl Log {
    /// Waits for the last lines to be written, but not for a stderr that takes none.
    pub fn finish(self) {
        if self.lines.try_send(Line::Last).is_ok() {
            let _ = self.written.recv_timeout(LAST_WORDS);
        }
    }
}

#[derive(Debug)]
enum Line {
    Text(Vec<u8>),
    Last,
}

fn write_lines(backlog: &Receiver<Line>, done: &SyncSender<()>) {
    for line in backlog {
        match line {
            Line::Text(text) => {
                let _ = io::stderr().write_all(&text);
            }
            Line::Last => {
                let _ = done.send(());
            }
        }
    }
}

/// Hands each line to the thread, or drops it.
#[derive(Clone, Debug)]
struct Lines {
    lines: SyncSender<Line>,
    dropped: Arc<AtomicUsize>,
    format: Format,
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut text = line.to_vec();
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let gap = match self.format {
                Format::Text => format!("leaderrun: {dropped} lines of log were dropped here\n"),
                Format::Json => format!("{{\"level\":\"WARN\",\"event\":\"dropped\",\"lines\":{dropped}}}\n"),
            };
            text.splice(0..0, gap.into_bytes());
        }
        if self.lines.try_send(Line::Text(text)).is_err() {
            self.dropped.fetch_add(dropped + 1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// One line an event: `leaderrun +3m06s: what happened`. The fields of leaderrun's own events are for
/// programs; the sentence says the same.
struct Text {
    begun: Instant,
    colored: bool,
}

impl<S, N> FormatEvent<S, N> for Text
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let (level, target) = (*event.metadata().level(), event.metadata().target());
        let painted = |color, text: String| if self.colored { format!("{color}{text}{PLAIN}") } else { text };
        let word = match level {
            Level::ERROR => painted(RED, "error: ".into()),
            Level::WARN => painted(YELLOW, "warning: ".into()),
            _ => String::new(),
        };
        let elapsed = elapsed(clock::now().since(self.begun));
        write!(writer, "{} {word}", painted(DIM, format!("leaderrun {elapsed}:")))?;
        let mut fields = Fields { message: String::new(), others: String::new() };
        event.record(&mut fields);
        if !target.starts_with("leaderrun") {
            write!(writer, "{target}: ")?;
        } else if level <= Level::INFO {
            fields.others.clear();
        }
        writeln!(writer, "{}{}", fields.message, fields.others)
    }
}

const DIM: &str = "\x1b[2m";
const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";
const PLAIN: &str = "\x1b[0m";

/// How long after the start something happened, in two units.
fn elapsed(since: Duration) -> String {
    let seconds = since.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("+{}.{}s", seconds, since.subsec_millis() / 100),
        60..3600 => format!("+{minutes}m{:02}s", seconds % 60),
        3600..86_400 => format!("+{hours}h{:02}m", minutes % 60),
        _ => format!("+{days}d{:02}h", hours % 24),
    }
}

struct Fields {
    message: String,
    others: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => self.others.push_str(&format!(" {name}={value:?}")),
        }
    }
}

/// Text from outside, such as another holder's identity, as a log or terminal may safely show it.
pub fn printable(text: &str) -> String {
    const LONGEST: usize = 200;
    match text.char_indices().nth(LONGEST) {
        None => escaped(text),
        Some((end, _)) => escaped(&text[..end]) + "…",
    }
}

fn escaped(text: &str) -> String {
    let harmless = |character: char| matches!(character, '"' | '\'' | '\\');
    let mut shown = String::new();
    for character in text.chars() {
        match character {
            character if harmless(character) => shown.push(character),
            character => shown.extend(character.escape_debug()),
        }
    }
    shown
}

/// A failure in one line: what it is about and, if that says more, the innermost cause. What lies
/// between mostly repeats one of them.
pub fn printable_cause(failure: &anyhow::Error) -> String {
    let (outer, inner) = (failure.to_string(), failure.root_cause().to_string());
    escaped(&match inner.lines().next() {
        Some(inner) if !outer.contains(inner) => format!("{outer}: {inner}"),
        _ => outer,
    })
}

/// The cause that says most, in one line: errors of the HTTP stack wrap each other without adding a word.
pub fn printable_root_cause(failure: &(dyn Error + 'static)) -> String {
    let mut cause = failure;
    while let Some(next) = cause.source() {
        cause = next;
    }
    printable(&cause.to_string())
}

/// Ends the process on a panic, with a word to the log rather than to a stderr that might block.
pub fn abort_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!(event = "failed", "a defect in leaderrun: {panic}");
        thread::sleep(LAST_WORDS);
        std::process::abort();
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_cannot_command_a_terminal() {
        assert_eq!(printable("pod-0_\x1b[2J\n"), "pod-0_\\u{1b}[2J\\n");
        assert_eq!(printable(&"x".repeat(500)).chars().count(), 201);
        assert_eq!(printable_cause(&anyhow::anyhow!("in\x1b[2J").context("out\x07")), "out\\u{7}: in\\u{1b}[2J");
    }

    #[test]
    fn what_happened_later_is_told_less_precisely() {
        let at = |seconds: f64| elapsed(Duration::from_secs_f64(seconds));
        let told = [0.0, 9.96, 59.9, 60.0, 3599.0, 3600.0, 86_399.0, 86_400.0, 1_000_000.0].map(at);
        assert_eq!(told, ["+0.0s", "+9.9s", "+59.9s", "+1m00s", "+59m59s", "+1h00m", "+23h59m", "+1d00h", "+11d13h"]);
    }
}
