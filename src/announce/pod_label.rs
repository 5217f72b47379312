//! A label that only the leader's pod has.

use std::fmt;
use std::str::FromStr;

use serde_json::{Value, json};
use tracing::info;

use super::collection::{Collection, Refusal, Resource};
use super::mark::Mark;
use crate::lock::{Rule, check_name};
use crate::process::clock::Instant;
use crate::telemetry::log::printable;

/// The [`Mark`] of who last changed the label.
const CHANGED_ANNOTATION: &str = "leaderrun/label-changed";

/// Tries against others who change the pod meanwhile, such as its kubelet.
const TRIES: usize = 8;

pub const PODS: Resource = Resource { group: "", plural: "pods" };

/// A label, as `--pod-label` takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    pub key: String,
    pub value: String,
}

impl FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((key, value)) = text.split_once('=') else {
            return Err("a label has a key and a value; role=leader would do".into());
        };
        let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
        if let Some(prefix) = prefix {
            check_name(prefix).map_err(|reason| format!("the key's prefix {reason}; role=leader would do"))?;
        }
        check_word(name).map_err(|reason| format!("the key {reason}; role=leader would do"))?;
        check_word(value).map_err(|reason| format!("the value {reason}; role=leader would do"))?;
        Ok(Self { key: key.to_owned(), value: value.to_owned() })
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}

/// What the name of a label, and its value unless it is empty, may be.
fn check_word(word: &str) -> Result<(), &'static str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let ends_well = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    match word.as_bytes() {
        [] => Err("is empty"),
        bytes if bytes.len() > 63 => Err("has more than 63 characters"),
        bytes if !bytes.iter().copied().all(allowed) => Err("may have letters, digits, -, _ and . only"),
        bytes if !ends_well(bytes.first()) || !ends_well(bytes.last()) => {
            Err("must begin and end with a letter or digit")
        }
        _ => Ok(()),
    }
}

/// A label on this pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodLabel {
    pub label: Label,
    /// The pod that this candidate runs in.
    pub pod: String,
}

impl PodLabel {
    /// What a candidate needs for it. Pods of a Deployment have no names that a Role could be restricted to.
    pub fn rules(namespace: &str) -> Vec<Rule> {
        vec![PODS.rule(namespace, None, &["get", "list", "patch"])]
    }

    /// Takes the label off every other pod that this lock has put it on, then puts it on this one, and sends
    /// nothing more once the time is over. Where it is there already nothing is written, unless `anew`.
    /// Whether that changed anything.
    pub async fn show(&self, pods: &Collection, mark: &Mark, until: Instant, anew: bool) -> Result<bool, Refusal> {
        let Label { key, value } = &self.label;
        let mut written = false;
        for _ in 0..TRIES {
            let (mine, others): (Vec<_>, Vec<_>) =
                pods.labelled(key, value).await?.into_iter().partition(|pod| pod["metadata"]["name"] == *self.pod);
            // Somebody else may have chosen the same label for pods of his own.
            let others: Vec<_> =
                others.iter().filter(|pod| marked(pod).is_some_and(|other| other.lock == mark.lock)).collect();
            if others.is_empty() && (written || !anew) && mine.first().and_then(marked).as_ref() == Some(mark) {
                return Ok(written);
            }
            check(until)?;
            let mut conflict = false;
            for other in &others {
                let pod = printable(name(other));
                match unless_changed(self.strip(pods, other).await)? {
                    true => conflict = true,
                    false => info!(event = "cleaned_up", pod, "took the label {} off the pod {pod}", self.label),
                }
            }
            if conflict {
                continue;
            }
            let pod = self.read(pods).await?;
            check(until)?;
            written |= !unless_changed(self.mark(pods, &pod, Some(value), mark).await)?;
        }
        Err(Refusal::Conflict)
    }

    /// Takes the label off this pod after this leadership, so that whatever that has sent comes too late. A later
    /// one's is left alone. Whether it was there.
    pub async fn withdraw(&self, pods: &Collection, mark: &Mark) -> Result<bool, Refusal> {
        for _ in 0..TRIES {
            // A pod that is gone has no label.
            let Some(pod) = pods.get(&self.pod).await? else { return Ok(false) };
            if marked(&pod).is_some_and(|present| present.is_later_than(mark)) {
                return Ok(false);
            }
            if !unless_changed(self.mark(pods, &pod, None, mark).await)? {
                return Ok(self.is_on(&pod));
            }
        }
        Err(Refusal::Conflict)
    }

    fn is_on(&self, pod: &Value) -> bool {
        pod["metadata"]["labels"][&self.label.key] == *self.label.value
    }

    async fn read(&self, pods: &Collection) -> Result<Value, Refusal> {
        let Self { label: Label { key, value }, pod: name } = self;
        let Some(pod) = pods.get(name).await? else {
            let reason = format!("there is no pod {name:?} in the lock's namespace; --pod says which one this is");
            return Err(Refusal::Other(reason));
        };
        match pod["metadata"]["labels"][key].as_str().filter(|present| present != value) {
            None => Ok(pod),
            Some(other) => Err(Refusal::Other(format!("the pod has {key}={other}; another key would do"))),
        }
    }

    /// Marks the pod, and puts the label on or takes it off.
    async fn mark(&self, pods: &Collection, pod: &Value, value: Option<&str>, mark: &Mark) -> Result<(), Refusal> {
        let mut changes = json!({ "annotations": { CHANGED_ANNOTATION: mark.stamp() } });
        if value.is_some() || self.is_on(pod) {
            changes["labels"] = json!({ &self.label.key: value });
        }
        pods.merge(&self.pod, &based_on(pod, changes)).await
    }

    async fn strip(&self, pods: &Collection, pod: &Value) -> Result<(), Refusal> {
        pods.merge(name(pod), &based_on(pod, json!({ "labels": { &self.label.key: Value::Null } }))).await
    }
}

fn name(pod: &Value) -> &str {
    pod["metadata"]["name"].as_str().unwrap_or_default()
}

fn marked(pod: &Value) -> Option<Mark> {
    Mark::read(&pod["metadata"]["annotations"][CHANGED_ANNOTATION])
}

/// Whether a write was refused because the object has changed, or is gone.
fn unless_changed(written: Result<(), Refusal>) -> Result<bool, Refusal> {
    match written {
        Ok(()) => Ok(false),
        Err(Refusal::Conflict | Refusal::Missing) => Ok(true),
        Err(refusal) => Err(refusal),
    }
}

/// A patch of an object's metadata that is refused when the object has changed.
fn based_on(object: &Value, mut metadata: Value) -> Value {
    for field in ["uid", "resourceVersion"] {
        metadata[field] = object["metadata"][field].clone();
    }
    json!({ "metadata": metadata })
}

/// What is sent after that might arrive beside the next leader's.
fn check(until: Instant) -> Result<(), Refusal> {
    match Instant::now() < until {
        true => Ok(()),
        false => Err(Refusal::Other("no time was left to label the pod".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read() {
        for (text, key, value) in [("role=leader", "role", "leader"), ("example.com/a_B.c=1", "example.com/a_B.c", "1")]
        {
            assert_eq!(text.parse(), Ok(Label { key: key.into(), value: value.into() }));
        }
    }

    #[test]
    fn what_is_no_label_is_refused_with_one_that_would_do() {
        let long = format!("{}=x", "a".repeat(64));
        for text in ["", "role", "=x", "role=", "-a=x", "a=x-", "a b=c", "A.B/a=x", "a/b/c=x", "role=a,b", &long] {
            assert!(text.parse::<Label>().unwrap_err().ends_with("role=leader would do"), "{text}");
        }
    }
}
