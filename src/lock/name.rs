//! The name of a lock: `[KIND:][NAMESPACE/]NAME`.

use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::str::FromStr;

use super::annotation::{CONFIGMAP, ENDPOINTS};
use super::lease::LEASE;
use super::object::RecordFormat;
use crate::kubernetes::ObjectName;

/// The number of slots of a lock, each of which can be held at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotCount(u8);

impl SlotCount {
    const RANGE: RangeInclusive<u8> = 2..=64;

    /// The highest number of a slot.
    pub const HIGHEST: usize = *Self::RANGE.end() as usize - 1;

    /// Returns the numbers of the slots.
    pub fn numbers(self) -> Range<usize> {
        0..usize::from(self.0)
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

/// A lock as named on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockName {
    /// A record in one or two Kubernetes objects. The default namespace is that of the kubeconfig's context or of the
    /// pod's service account.
    Objects { kind: Kind, namespace: Option<String>, name: String },
    /// A JSON record in a local file.
    File(PathBuf),
}

/// The kind of a lock in Kubernetes objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Lease,
    Endpoints,
    ConfigMap,
    EndpointsAndLease,
    ConfigMapAndLease,
}

impl Kind {
    const ALL: [Self; 5] =
        [Self::Lease, Self::Endpoints, Self::ConfigMap, Self::EndpointsAndLease, Self::ConfigMapAndLease];

    /// Returns the kind as written in `--lock`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Lease => "lease",
            Self::Endpoints => "endpoints",
            Self::ConfigMap => "configmap",
            Self::EndpointsAndLease => "endpoints+lease",
            Self::ConfigMapAndLease => "configmap+lease",
        }
    }

    /// Returns the format of the record, and that of the second object of a lock in two objects.
    pub fn formats(self) -> (&'static RecordFormat, Option<&'static RecordFormat>) {
        match self {
            Self::Lease => (&LEASE, None),
            Self::Endpoints => (&ENDPOINTS, None),
            Self::ConfigMap => (&CONFIGMAP, None),
            Self::EndpointsAndLease => (&ENDPOINTS, Some(&LEASE)),
            Self::ConfigMapAndLease => (&CONFIGMAP, Some(&LEASE)),
        }
    }

    /// The kinds of locks in a single object.
    pub const IN_ONE_OBJECT: [Self; 3] = [Self::Lease, Self::Endpoints, Self::ConfigMap];

    /// Returns the objects that contain the record of a lock of this kind.
    pub fn objects(self, namespace: &str, name: &str) -> Vec<ObjectName> {
        let (first, second) = self.formats();
        let formats = [Some(first), second].into_iter().flatten();
        let object = |format: &RecordFormat| ObjectName {
            resource: format.resource,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        formats.map(object).collect()
    }
}

impl LockName {
    /// Returns the lock of the slot with this number, which is an ordinary lock.
    pub fn in_slot(&self, number: usize) -> Self {
        match self {
            Self::Objects { kind, namespace, name } => {
                Self::Objects { kind: *kind, namespace: namespace.clone(), name: format!("{name}-{number}") }
            }
            Self::File(path) => {
                let mut path = path.clone().into_os_string();
                path.push(format!("-{number}"));
                Self::File(path.into())
            }
        }
    }

    /// Returns the objects that contain the lock's record, in this namespace; none for a file.
    pub fn objects(&self, namespace: &str) -> Vec<ObjectName> {
        match self {
            Self::Objects { kind, name, .. } => kind.objects(namespace, name),
            Self::File(_) => Vec::new(),
        }
    }

    /// Returns the locks of all slots, or the lock itself if it has none.
    pub fn in_slots(&self, slots: Option<SlotCount>) -> Vec<Self> {
        match slots {
            None => vec![self.clone()],
            Some(slots) => slots.numbers().map(|number| self.in_slot(number)).collect(),
        }
    }
}

impl FromStr for LockName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (word, rest) = text.split_once(':').unwrap_or((Kind::Lease.word(), text));
        if word == "file" {
            return match rest {
                "" => Err("the path is missing; for example file:/run/job.lease".into()),
                _ if rest.ends_with('/') => Err("the path is that of a folder; for example file:/run/job.lease".into()),
                path => Ok(Self::File(path.into())),
            };
        }
        let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.word() == word) else {
            return Err(
                "the kind of a lock is lease, endpoints, configmap, endpoints+lease, configmap+lease or file; for example lease:default/my-job".into()
            );
        };
        let (namespace, name) = match rest.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, rest),
        };
        if let Some(namespace) = namespace {
            check_label(namespace).map_err(|reason| format!("the namespace {reason}; for example default/my-job"))?;
        }
        check_name(name).map_err(|reason| format!("the name {reason}; for example default/my-job"))?;
        Ok(Self::Objects { kind, namespace: namespace.map(str::to_owned), name: name.to_owned() })
    }
}

impl fmt::Display for LockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Objects { kind, namespace, name } => {
                if *kind != Kind::Lease {
                    write!(f, "{}:", kind.word())?;
                }
                if let Some(namespace) = namespace {
                    write!(f, "{namespace}/")?;
                }
                f.write_str(name)
            }
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
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
        bytes if !bytes.iter().copied().all(allowed) => Err("may have lower-case letters, digits and - only"),
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
    let ends_well = |label: &str| !label.is_empty() && !label.starts_with('-') && !label.ends_with('-');
    match name {
        "" => Err("is empty"),
        _ if name.len() > 253 => Err("has more than 253 characters"),
        _ if !name.bytes().all(allowed) => Err("may have lower-case letters, digits, - and . only"),
        _ if !name.split('.').all(ends_well) => Err("must begin and end with a letter or digit, around each . too"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use testkit::{fuzz, hostile_input};

    use super::*;

    fn lease(namespace: Option<&str>, name: &str) -> LockName {
        LockName::Objects { kind: Kind::Lease, namespace: namespace.map(str::to_owned), name: name.to_owned() }
    }

    #[test]
    fn names_are_read_and_shown() {
        for (text, lock) in [
            ("default/x", lease(Some("default"), "x")),
            ("x", lease(None, "x")),
            ("x.y-z.1", lease(None, "x.y-z.1")),
            ("file:/run/x", LockName::File("/run/x".into())),
            ("file:x", LockName::File("x".into())),
            (
                "endpoints+lease:a/x",
                LockName::Objects { kind: Kind::EndpointsAndLease, namespace: Some("a".into()), name: "x".into() },
            ),
            ("configmap:x", LockName::Objects { kind: Kind::ConfigMap, namespace: None, name: "x".into() }),
        ] {
            assert_eq!(text.parse().as_ref(), Ok(&lock));
            assert_eq!(lock.to_string(), text);
        }
        assert_eq!("lease:default/x".parse(), Ok(lease(Some("default"), "x")));
    }

    #[test]
    fn each_slot_is_a_lock_of_its_own() {
        let slots = "2".parse().ok();
        let names = |text: &str| {
            let lock: LockName = text.parse().unwrap();
            lock.in_slots(slots).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(names("default/x"), ["default/x-0", "default/x-1"]);
        assert_eq!(names("file:/run/x"), ["file:/run/x-0", "file:/run/x-1"]);
        assert!(["1", "65", "-1", "many", ""].iter().all(|text| text.parse::<SlotCount>().is_err()));
    }

    #[test]
    fn bad_names_are_refused_with_one_that_would_do() {
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
            assert!(refusal.contains("; for example "), "{text}: {refusal}");
        }
    }

    #[test]
    fn lock_names_are_parsed_without_a_panic_and_written_back() {
        fuzz("lock names", 50_000, |mut random| {
            let text = [hostile_input::text(&mut random), hostile_input::text(&mut random)]
                .join(["/", ":", ""][random.usize(..3)]);
            if let Ok(name) = text.parse::<LockName>() {
                assert_eq!(name.to_string().parse(), Ok(name));
            }
        });
    }
}
