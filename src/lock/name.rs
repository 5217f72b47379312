//! The name of a lock: `[KIND:][NAMESPACE/]NAME`.

use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::str::FromStr;

use super::kind::LockKind;
use super::kinds::{KINDS, default_kind};
use crate::kubernetes::ObjectName;

/// The number of slots of a lock. All slots can be held at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotCount(u8);

impl SlotCount {
    const RANGE: RangeInclusive<u8> = 2..=64;

    /// The highest number that a slot can have.
    pub const MAX_NUMBER: usize = *Self::RANGE.end() as usize - 1;

    /// Returns the numbers of the slots.
    pub fn numbers(self) -> Range<usize> {
        0..usize::from(self.0)
    }

    /// Returns the result of `in_slot` for each slot, or only `whole` if there are no slots.
    pub fn expand<T: Clone>(slots: Option<Self>, whole: &T, in_slot: impl Fn(&T, usize) -> T) -> Vec<T> {
        match slots {
            None => vec![whole.clone()],
            Some(slots) => slots.numbers().map(|number| in_slot(whole, number)).collect(),
        }
    }
}

impl FromStr for SlotCount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let count = text.parse().ok().filter(|count| Self::RANGE.contains(count));
        count.map(Self).ok_or_else(|| "a lock has 2 to 64 slots; for example 3".into())
    }
}

impl fmt::Display for SlotCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of a lock, as given on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockName {
    pub kind: &'static LockKind,
    /// The namespace of a lock in a cluster. The default is the namespace of the kubeconfig's context or of the pod.
    pub namespace: Option<String>,
    pub name: String,
}

impl LockName {
    /// Returns the name of the lock for the slot with this number. The lock of a slot is an ordinary lock.
    pub fn in_slot(&self, number: usize) -> Self {
        Self { name: format!("{}-{number}", self.name), ..self.clone() }
    }

    /// Returns the names of the locks of all slots, or this name if the lock has no slots.
    pub fn in_slots(&self, slots: Option<SlotCount>) -> Vec<Self> {
        SlotCount::expand(slots, self, Self::in_slot)
    }

    /// Returns the objects in this namespace that contain the lock's record. A lock outside of a cluster has no
    /// objects.
    pub fn objects(&self, namespace: &str) -> Vec<ObjectName> {
        self.kind.objects(namespace, &self.name)
    }
}

impl FromStr for LockName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, rest) = match text.split_once(':') {
            None => (default_kind(), text),
            Some((word, rest)) => (kind_named(word)?, rest),
        };
        let (namespace, name) = match rest.split_once('/').filter(|_| kind.is_in_cluster()) {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, rest),
        };
        if let Some(namespace) = namespace {
            check_label(namespace).map_err(|reason| format!("the namespace {reason}; try default/my-job"))?;
        }
        kind.check_name(name)?;
        Ok(Self { kind, namespace: namespace.map(str::to_owned), name: name.to_owned() })
    }
}

/// Returns the kind with this word.
fn kind_named(word: &str) -> Result<&'static LockKind, String> {
    KINDS.iter().find(|kind| kind.word == word).ok_or_else(|| {
        let (last, first_kinds) = KINDS.split_last().expect("there is a default kind");
        let first_words = first_kinds.iter().map(|kind| kind.word).collect::<Vec<_>>().join(", ");
        format!("the kind of a lock is {first_words} or {}; try lease:default/my-job", last.word)
    })
}

impl fmt::Display for LockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind != default_kind() {
            write!(f, "{}:", self.kind.word)?;
        }
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&self.name)
    }
}

/// Checks a DNS-1123 label: the name of a namespace or a Service.
///
/// # Errors
/// Returns what is wrong, as a phrase that follows the subject of a sentence.
pub fn check_label(label: &str) -> Result<(), &'static str> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    match label.as_bytes() {
        [] => Err("is empty"),
        bytes if bytes.len() > 63 => Err("has more than 63 characters"),
        bytes if !bytes.iter().copied().all(allowed) => Err("can contain only lower-case letters, digits and -"),
        [b'-', ..] | [.., b'-'] => Err("must begin and end with a letter or digit"),
        _ => Ok(()),
    }
}

/// Checks a DNS-1123 subdomain, the name of most objects: labels of any length, separated by dots.
///
/// # Errors
/// Returns what is wrong, as a phrase that follows the subject of a sentence.
pub fn check_name(name: &str) -> Result<(), &'static str> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    let has_valid_ends = |label: &str| !label.is_empty() && !label.starts_with('-') && !label.ends_with('-');
    match name {
        "" => Err("is empty"),
        _ if name.len() > 253 => Err("has more than 253 characters"),
        _ if !name.bytes().all(allowed) => Err("can contain only lower-case letters, digits, - and ."),
        _ if !name.split('.').all(has_valid_ends) => {
            Err("must have a letter or digit at both ends and on both sides of each .")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use testkit::{fuzz, hostile_input};

    use super::*;

    #[test]
    fn lock_names_round_trip() {
        for (text, word, namespace, name) in [
            ("default/x", "lease", Some("default"), "x"),
            ("x", "lease", None, "x"),
            ("x.y-z.1", "lease", None, "x.y-z.1"),
            ("file:/run/x", "file", None, "/run/x"),
            ("file:x", "file", None, "x"),
            ("endpoints+lease:a/x", "endpoints+lease", Some("a"), "x"),
            ("configmap:x", "configmap", None, "x"),
        ] {
            let lock: LockName = text.parse().unwrap();
            assert_eq!((lock.kind.word, lock.namespace.as_deref(), &*lock.name), (word, namespace, name));
            assert_eq!(lock.to_string(), text);
        }
        assert_eq!("lease:default/x".parse::<LockName>(), "default/x".parse());
    }

    #[test]
    fn each_slot_has_its_own_lock_name() {
        let slots = "2".parse().ok();
        let names = |text: &str| {
            let lock: LockName = text.parse().unwrap();
            lock.in_slots(slots).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(names("default/x"), ["default/x-0", "default/x-1"]);
        assert_eq!(names("file:/run/x"), ["file:/run/x-0", "file:/run/x-1"]);
    }

    #[test]
    fn invalid_slot_counts_are_refused() {
        assert!(["1", "65", "-1", "many", ""].iter().all(|text| text.parse::<SlotCount>().is_err()));
    }

    #[test]
    fn invalid_names_are_refused_with_an_example() {
        let long_label = format!("{}/x", "a".repeat(64));
        let long_name = "a".repeat(254);
        for text in [
            "",
            "/",
            "/x",
            "default/",
            "Default/x",
            "default/X",
            "de.fault/x",
            "-a/x",
            "a-/x",
            "a/-x",
            "a/x-",
            "a/.x",
            "a/x..y",
            "a/b/c",
            "a/x y",
            "lease:",
            "file:",
            "file:dir/",
            "secret:default/x",
            &long_label,
            &long_name,
        ] {
            let refusal = text.parse::<LockName>().unwrap_err();
            assert!(refusal.contains("; try "), "{text}: {refusal}");
        }
    }

    #[test]
    fn random_lock_names_are_parsed_without_a_panic_and_round_trip() {
        fuzz("lock names", 50_000, |mut random| {
            let text = [hostile_input::text(&mut random), hostile_input::text(&mut random)]
                .join(["/", ":", ""][random.usize(..3)]);
            if let Ok(name) = text.parse::<LockName>() {
                assert_eq!(name.to_string().parse(), Ok(name));
            }
        });
    }
}
