//! The log on stderr. Logging an event never blocks the thread that logs it.
//!
//! stderr may block, because it may be a pipe that is not read or a terminal that was stopped with Ctrl-S. Therefore a
//! separate thread writes the log. Lines that do not fit into its queue are dropped and counted.

mod printable;
mod text;

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use leaderrun_core::instant::Instant;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::json;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

pub use self::printable::{on_one_line, printable, printable_error, printable_root_cause, shell_word};
use self::text::TextFormat;
use super::log_event::DETAIL_TARGET;
use super::log_events;
use crate::process::clock;
use crate::process::system_call::SystemCallError;

/// The maximum number of lines in the queue for stderr.
const BACKLOG: usize = 1024;

/// How long leaderrun waits, before it exits, for the last lines to be written to stderr.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(200);

/// How many times leaderrun waits for [`FLUSH_TIMEOUT`] as long as stderr accepts output. In that case, the lines are
/// late only because the machine is busy.
const FLUSH_ATTEMPTS: u32 = 25;

/// The internal environment variable that passes on the log's start time when leaderrun re-executes itself.
pub const LOG_START_VARIABLE: &str = "LEADERRUN_LOG_START";

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// The time at the beginning of a line in the text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogTime {
    /// The time since the start.
    Elapsed,
    /// The time of the wall clock, in UTC.
    Wall,
    /// No time, for example because journald adds the time itself.
    None,
}

/// Starts the log. Must be called after the fork of the supervisor, because it starts a thread.
///
/// # Errors
/// Fails if the thread cannot be created. In that case no log is set up, and this function may be called again.
pub fn start(format: LogFormat, time: LogTime, level: LevelFilter) -> io::Result<Log> {
    let (lines, backlog) = sync_channel(BACKLOG);
    let (done, written) = sync_channel(1);
    let writer = LogWriter { lines: lines.clone(), dropped: Arc::default(), format };
    let thread = thread::Builder::new().name("log".into());
    thread.spawn(move || write_lines(&backlog, &done)).map_err(SystemCallError::of_thread)?;
    // Events of libraries are logged only for debugging, with -v -v.
    let library_level = if level >= LevelFilter::TRACE { level } else { LevelFilter::OFF };
    // At the default level, only the JSON format contains events of level `detail`. With -v, the text format contains
    // them too.
    let detail_level = if format == LogFormat::Text && level == LevelFilter::INFO { LevelFilter::OFF } else { level };
    let targets = Targets::new().with_target("leaderrun", level).with_target(DETAIL_TARGET, detail_level);
    let targets = targets.with_default(library_level);
    let inherited = std::env::var(LOG_START_VARIABLE).ok().and_then(|nanos| nanos.parse().ok());
    let started_at = inherited.map_or_else(clock::now, Instant::from_nanos);
    let registry = tracing_subscriber::registry().with(targets);
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    match format {
        LogFormat::Text => registry
            .with(layer.event_format(TextFormat::new(
                started_at,
                time,
                io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
            )))
            .init(),
        LogFormat::Json => registry
            .with(layer.json().flatten_event(true).with_target(false).with_current_span(false).with_span_list(false))
            .init(),
    }
    Ok(Log { started_at, lines, written })
}

/// The running log.
#[derive(Debug)]
pub struct Log {
    started_at: Instant,
    lines: SyncSender<QueueItem>,
    /// Receives a message when all lines before a [`QueueItem::Flush`] are written.
    written: Receiver<()>,
}

impl Log {
    /// Waits until the last lines are written, for at most [`FLUSH_TIMEOUT`] if stderr is blocked. Does not wait if the
    /// queue is full. Returns the instant from which the elapsed times in the log are counted.
    pub fn finish(self) -> Instant {
        if self.lines.try_send(QueueItem::Flush).is_ok() {
            for _ in 0..FLUSH_ATTEMPTS {
                let result = self.written.recv_timeout(FLUSH_TIMEOUT);
                if result != Err(RecvTimeoutError::Timeout) || !accepts_output(io::stderr()) {
                    break;
                }
            }
        }
        self.started_at
    }
}

fn accepts_output(stream: impl AsFd) -> bool {
    poll(&mut [PollFd::new(stream.as_fd(), PollFlags::POLLOUT)], PollTimeout::ZERO) == Ok(1)
}

/// An item in the queue of the thread that writes to stderr.
#[derive(Debug)]
enum QueueItem {
    Line(Vec<u8>),
    /// A request to signal that all earlier lines are written.
    Flush,
}

fn write_lines(backlog: &Receiver<QueueItem>, done: &SyncSender<()>) {
    for item in backlog {
        match item {
            QueueItem::Line(text) => {
                let _ = io::stderr().write_all(&text);
            }
            QueueItem::Flush => {
                let _ = done.send(());
            }
        }
    }
}

/// A writer that queues each line for the thread that writes to stderr, or drops the line if the queue is full.
#[derive(Clone, Debug)]
struct LogWriter {
    lines: SyncSender<QueueItem>,
    /// The number of lines that have been dropped since the last line was queued.
    dropped: Arc<AtomicUsize>,
    format: LogFormat,
}

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut text = line.to_vec();
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let gap = match self.format {
                LogFormat::Text => format!("leaderrun: {dropped} log lines were dropped here\n"),
                LogFormat::Json => {
                    let gap = json!({
                        "timestamp": format!("{:.6}", Timestamp::now()),
                        "level": "WARN",
                        "message": format!("{dropped} log lines were dropped here"),
                        "event": "dropped",
                        "lines": dropped,
                    });
                    format!("{gap}\n")
                }
            };
            text.splice(0..0, gap.into_bytes());
        }
        if self.lines.try_send(QueueItem::Line(text)).is_err() {
            self.dropped.fetch_add(dropped + 1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Installs a panic hook that logs the panic and aborts the process. The default hook writes to stderr, which may
/// block.
pub fn abort_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        log_events::panicked(&panic.to_string().replace(":\n", ": "));
        // This gives the log's thread time to write the line.
        thread::sleep(FLUSH_TIMEOUT);
        std::process::abort();
    }));
}
