//! A label that only the leader's pod has.

use std::fmt;
use std::str::FromStr;

use leaderrun_core::instant::Instant;
use serde_json::{Value, json};
use tracing::info;

use super::collection::{Collection, Refusal, Resource};
use super::mark::{Mark, SUFFIX};
use crate::lock::{Rule, check_name};
use crate::process::clock;
use crate::telemetry::log::printable;

/// What the annotation is called that says which label the pod has, or is about to have.
const LABEL: &str = "label";

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
            if prefix.ends_with(SUFFIX) {
                return Err(format!("keys with {SUFFIX}/ are leaderrun's own; role=leader would do"));
            }
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

impl Label {
    fn is_on(&self, pod: &Value) -> bool {
        pod["metadata"]["labels"][&self.key] == *self.value
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
    /// nothing more once the time is over. Where it is there already nothing is written, unless `anew`. Whether
    /// that changed anything.
    ///
    /// The label is put on a pod only where the [`Mark`] was seen before, so a later leader finds every pod for which
    /// an earlier one's label may still be on its way; taking the mark off it makes that label come too late.
    pub async fn show(&self, pods: &Collection, mark: &Mark, until: Instant, mut anew: bool) -> Result<bool, Refusal> {
        let mut written = false;
        for _ in 0..TRIES {
            let (mine, others): (Vec<_>, Vec<_>) =
                pods.labelled(&mark.key()).await?.into_iter().partition(|pod| name(pod) == self.pod);
            let mut conflict = false;
            for other in &others {
                check(until)?;
                match (clear(pods, other, mark).await?, label_on(other, mark)) {
                    (None, _) => conflict = true,
                    (Some(_), Some(label)) => {
                        let pod = printable(name(other));
                        info!(event = "cleaned_up", pod, "took the label {label} off the pod {pod}");
                    }
                    (Some(_), None) => {}
                }
            }
            if conflict {
                continue;
            }
            let mut pod = match mine.into_iter().next() {
                Some(pod) => pod,
                None => self.read(pods).await?,
            };
            self.check_label(&pod, mark)?;
            if anew || mark_of(&pod, mark).as_ref() != Some(mark) {
                check(until)?;
                let Some(marked) = change(pods, &pod, self.marking(&pod, mark)).await? else { continue };
                (pod, anew, written) = (marked, false, true);
            }
            if self.label.is_on(&pod) {
                return Ok(written);
            }
            check(until)?;
            let label = json!({ "labels": { &self.label.key: self.label.value } });
            if change(pods, &pod, label).await?.is_some() {
                return Ok(true);
            }
        }
        Err(Refusal::Conflict)
    }

    /// Takes the label off this pod after this leadership, so that whatever that has sent comes too late. A later
    /// one's is left alone. Whether it was there.
    pub async fn withdraw(&self, pods: &Collection, mark: &Mark) -> Result<bool, Refusal> {
        for _ in 0..TRIES {
            // A pod that is gone has no label.
            let Some(pod) = pods.get(&self.pod).await? else { return Ok(false) };
            let is_ours = match mark_of(&pod, mark) {
                Some(present) => !present.is_later_than(mark),
                // Somebody may have removed it, and left what is noted beside it.
                None => label_on(&pod, mark).is_some(),
            };
            if !is_ours {
                return Ok(false);
            }
            if clear(pods, &pod, mark).await?.is_some() {
                return Ok(label_on(&pod, mark).is_some());
            }
        }
        Err(Refusal::Conflict)
    }

    async fn read(&self, pods: &Collection) -> Result<Value, Refusal> {
        pods.get(&self.pod).await?.ok_or_else(|| {
            let name = &self.pod;
            Refusal::Other(format!("there is no pod {name:?} in the lock's namespace; --pod says which one this is"))
        })
    }

    /// Whether the label would take the place of one that is not from a leader of this lock.
    fn check_label(&self, pod: &Value, mark: &Mark) -> Result<(), Refusal> {
        let Label { key, .. } = &self.label;
        match pod["metadata"]["labels"][key].as_str() {
            Some(value) if label_on(pod, mark).is_none_or(|ours| ours.key != *key) => {
                Err(Refusal::Other(format!("the pod has {key}={value} from somebody else; another key would do")))
            }
            _ => Ok(()),
        }
    }

    /// The mark, with the label that is to follow. Another one that an earlier leader has put on this pod is taken
    /// off.
    fn marking(&self, pod: &Value, mark: &Mark) -> Value {
        let mut labels = json!({ mark.key(): mark.stamp() });
        if let Some(Label { key, .. }) = label_on(pod, mark).filter(|earlier| *earlier != self.label) {
            labels[key] = Value::Null;
        }
        json!({ "labels": labels, "annotations": { mark.key_of(LABEL): self.label.to_string() } })
    }
}

fn name(pod: &Value) -> &str {
    pod["metadata"]["name"].as_str().unwrap_or_default()
}

/// The mark that a pod has from the same lock.
fn mark_of(pod: &Value, mark: &Mark) -> Option<Mark> {
    mark.of_same_lock(&pod["metadata"]["labels"])
}

/// The label that a leader of the same lock has put on a pod, which may be another one than today's.
fn label_on(pod: &Value, mark: &Mark) -> Option<Label> {
    let label: Label = pod["metadata"]["annotations"][mark.key_of(LABEL)].as_str()?.parse().ok()?;
    Some(label).filter(|label| label.is_on(pod))
}

/// Takes mark and label off a pod, see [`change`].
async fn clear(pods: &Collection, pod: &Value, mark: &Mark) -> Result<Option<Value>, Refusal> {
    let mut labels = json!({ mark.key(): null });
    if let Some(Label { key, .. }) = label_on(pod, mark) {
        labels[key] = Value::Null;
    }
    change(pods, pod, json!({ "labels": labels, "annotations": { mark.key_of(LABEL): null } })).await
}

/// Changes a pod's metadata, where `null` removes. What it is then; nothing if it was changed since it was read, or
/// is gone.
async fn change(pods: &Collection, pod: &Value, mut metadata: Value) -> Result<Option<Value>, Refusal> {
    for field in ["uid", "resourceVersion"] {
        metadata[field] = pod["metadata"][field].clone();
    }
    match pods.merge(name(pod), &json!({ "metadata": metadata })).await {
        Ok(pod) => Ok(Some(pod)),
        Err(Refusal::Conflict | Refusal::Missing) => Ok(None),
        Err(refusal) => Err(refusal),
    }
}

/// What is sent after that might arrive beside the next leader's.
fn check(until: Instant) -> Result<(), Refusal> {
    match clock::now() < until {
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
        for text in [
            "",
            "role",
            "=x",
            "role=",
            "-a=x",
            "a=x-",
            "a b=c",
            "A.B/a=x",
            "a/b/c=x",
            "role=a,b",
            "job.leaderrun/token=x",
            &long,
        ] {
            assert!(text.parse::<Label>().unwrap_err().ends_with("role=leader would do"), "{text}");
        }
    }
}
