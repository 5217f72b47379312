//! Log events. Each is defined once: its level, name, fields, sentence, and when it is logged.

/// The target of events that the text format leaves out unless it is verbose: their neighbours say enough to people.
pub const DETAIL_TARGET: &str = "leaderrun::detail";

/// What the reference says of an event.
#[cfg(test)]
#[derive(Debug)]
pub struct LogEvent {
    pub name: &'static str,
    /// `error`, `warn`, `info`, `detail` (info that the text format shows only with `-v`) or `debug`.
    pub level: &'static str,
    pub fields: &'static [&'static str],
    /// When it is logged, as a sentence that begins with "Logged".
    pub meaning: &'static str,
}

/// Defines log events, each as the function that logs it, and `EVENTS`, the table of them for the reference.
///
/// An event has the form `LEVEL NAME(FIELD: TYPE, …; ARGUMENT: TYPE, …) "SENTENCE";`. The fields are for programs,
/// and the sentence says the same to people; it can also name the arguments, which are no fields.
macro_rules! log_events {
    ($(
        $(#[doc = $meaning:literal])+
        $level:ident $name:ident($($field:ident: $type:ty),* $(; $($argument:ident: $argument_type:ty),+)?) $sentence:literal;
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
