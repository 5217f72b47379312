//! The definition of log events: each has a level, a name, fields, a sentence, and a description of when it is logged.

/// The target of events of level `detail`, which the text format only shows with `-v`, because a human reader rarely
/// needs them.
pub const DETAIL_TARGET: &str = "leaderrun::detail";

/// The description of an event for `docs/reference.md`.
#[cfg(test)]
#[derive(Debug)]
pub struct LogEvent {
    pub name: &'static str,
    /// The level: `error`, `warn`, `info`, `detail` (an `info` event that the text format only shows with `-v`) or
    /// `debug`.
    pub level: &'static str,
    pub fields: &'static [&'static str],
    /// Text that begins with "Logged" and says when the event is logged.
    pub meaning: &'static str,
}

/// Defines a logging function for each log event, and `EVENTS`, the table of these events, from which
/// `docs/reference.md` is generated.
///
/// An event has the form `LEVEL NAME(FIELD: TYPE, …; ARGUMENT: TYPE, …) "SENTENCE";`. The fields are for programs, the
/// sentence is for people. The sentence can also contain the arguments, which are not logged as fields.
macro_rules! log_events {
    ($(
        $(#[doc = $meaning:literal])+
        $level:ident $name:ident($($field:ident: $type:ty),* $(; $($argument:ident: $argument_type:ty),+)?)
            $sentence:literal;
    )+) => {
        $(
            $(#[doc = $meaning])+
            pub fn $name($($field: $type,)* $($($argument: $argument_type,)+)?) {
                $crate::telemetry::log_event::log_event!($level $name($($field),*) $sentence);
            }
        )+

        /// All events that are defined here.
        #[cfg(test)]
        pub const EVENTS: &[$crate::telemetry::log_event::LogEvent] = &[$(
            $crate::telemetry::log_event::LogEvent {
                name: stringify!($name),
                level: stringify!($level),
                fields: &[$(stringify!($field)),*],
                meaning: concat!($($meaning),+),
            }
        ),+];
    };
}

macro_rules! log_event {
    (error $name:ident($($field:ident),*) $sentence:literal) => {
        ::tracing::error!(event = stringify!($name), $($field,)* $sentence)
    };
    (warn $name:ident($($field:ident),*) $sentence:literal) => {
        ::tracing::warn!(event = stringify!($name), $($field,)* $sentence)
    };
    (info $name:ident($($field:ident),*) $sentence:literal) => {
        ::tracing::info!(event = stringify!($name), $($field,)* $sentence)
    };
    (detail $name:ident($($field:ident),*) $sentence:literal) => {
        ::tracing::info!(
            target: $crate::telemetry::log_event::DETAIL_TARGET,
            event = stringify!($name),
            $($field,)*
            $sentence
        )
    };
    (debug $name:ident($($field:ident),*) $sentence:literal) => {
        ::tracing::debug!(event = stringify!($name), $($field,)* $sentence)
    };
}

pub(crate) use {log_event, log_events};
