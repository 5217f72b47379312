//! A label that only the leader's pod has.

use std::fmt;
use std::str::FromStr;

use serde_json::{Value, json};

use super::collection::{Collection, Refusal, Resource, is_stamp_of, stamp};
use crate::lock::{Rule, check_name};
use crate::process::clock::Instant;

/// Says for which leadership the label was last changed: see [`stamp`].
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

    /// Takes the label off every other pod, then puts it on this one, and sends nothing more once the time
    /// is over. Whether that changed anything.
    pub async fn show(&self, pods: &Collection, token: &str, until: Instant) -> Result<bool, Refusal> {
        let Label { key, value } = &self.label;
        let mut changed = false;
        for _ in 0..TRIES {
            let mut labelled = pods.labelled(key, value).await?;
            // Others may have chosen the same label for pods of their own.
            labelled.retain(|pod| pod["metadata"]["name"] == *self.pod || was_marked(pod));
            let mine = labelled.iter().position(|pod| pod["metadata"]["name"] == *self.pod);
            let mine = mine.map(|index| labelled.swap_remove(index));
            check(until)?;
            let patched = match labelled.first() {
                Some(other) => self.strip(pods, other).await,
                None if mine
                    .is_some_and(|mine| is_stamp_of(token, &mine["metadata"]["annotations"][CHANGED_ANNOTATION])) =>
                {
                    return Ok(changed);
                }
                None => {
                    let pod = self.read(pods).await?;
                    check(until)?;
                    self.mark(pods, &pod, value.as_str().into(), token).await
                }
            };
            match patched {
                Ok(()) => changed = true,
                Err(Refusal::Conflict) => {}
                Err(refusal) => return Err(refusal),
            }
        }
        Err(Refusal::Conflict)
    }

    /// Takes the label off this pod. With a token, so that whatever that leadership has sent comes too late.
    /// Whether it was there.
    pub async fn withdraw(&self, pods: &Collection, token: Option<&str>) -> Result<bool, Refusal> {
        for _ in 0..TRIES {
            // A pod that is gone has no label.
            let Some(pod) = pods.get(&self.pod).await? else { return Ok(false) };
            // What else the key may say on this pod was not said by leaderrun.
            let is_labelled = pod["metadata"]["labels"][&self.label.key] == *self.label.value;
            let withdrawn = match token {
                Some(token) => self.mark(pods, &pod, Value::Null, token).await,
                None if is_labelled => self.strip(pods, &pod).await,
                None => return Ok(false),
            };
            match withdrawn {
                Err(Refusal::Conflict) => {}
                ended => return ended.map(|()| is_labelled),
            }
        }
        Err(Refusal::Conflict)
    }

    async fn read(&self, pods: &Collection) -> Result<Value, Refusal> {
        let missing = || Refusal::Other(format!("there is no pod {:?}; --pod says which one this is", self.pod));
        pods.get(&self.pod).await?.ok_or_else(missing)
    }

    async fn mark(&self, pods: &Collection, pod: &Value, value: Value, token: &str) -> Result<(), Refusal> {
        let changes =
            json!({ "labels": { &self.label.key: value }, "annotations": { CHANGED_ANNOTATION: stamp(token) } });
        pods.merge(&self.pod, &based_on(pod, changes)).await
    }

    async fn strip(&self, pods: &Collection, pod: &Value) -> Result<(), Refusal> {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        pods.merge(name, &based_on(pod, json!({ "labels": { &self.label.key: Value::Null } }))).await
    }
}

/// Whether leaderrun has ever changed the label of this pod.
fn was_marked(pod: &Value) -> bool {
    !pod["metadata"]["annotations"][CHANGED_ANNOTATION].is_null()
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
