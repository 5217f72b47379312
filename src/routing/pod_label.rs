//! Routes traffic by a label that only the leader's pod has.

use std::fmt;
use std::str::FromStr;

use leaderrun_core::instant::Instant;
use serde_json::{Value, json};

use super::mark::{RouteMark, SUFFIX};
use super::{MAX_TRIES, fill_in, log_events, too_many_conflicts};
use crate::kubernetes::{Collection, Error, ErrorKind, PODS, Rule, Verb};
use crate::lock::{SlotCount, check_name};
use crate::process::clock;
use crate::telemetry::log::printable;

/// The last part of an annotation's key. The annotation contains the label that the pod has or is about to get.
const LABEL_ANNOTATION: &str = "label";

/// The label in `--pod-label`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    pub key: String,
    pub value: String,
}

impl FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = |reason: String| format!("{reason}; for example role=leader");
        let Some((key, value)) = text.split_once('=') else {
            return Err(invalid("a label has a key and a value".to_owned()));
        };
        let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
        if let Some(prefix) = prefix {
            check_name(prefix).map_err(|reason| invalid(format!("the key's prefix {reason}")))?;
            if prefix.ends_with(SUFFIX) {
                return Err(invalid(format!("a key whose prefix ends with {SUFFIX} is reserved for leaderrun")));
            }
        }
        check_word(name).map_err(|reason| invalid(format!("the key {reason}")))?;
        // The value is longest with the largest slot number in place of the placeholder.
        let longest_value = fill_in(value, SlotCount::MAX_NUMBER);
        check_word(&longest_value).map_err(|reason| invalid(format!("the value {reason}")))?;
        Ok(Self { key: key.to_owned(), value: value.to_owned() })
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}

impl Label {
    /// Returns the label for the slot with this number.
    pub fn in_slot(&self, slot: usize) -> Self {
        Self { key: self.key.clone(), value: fill_in(&self.value, slot) }
    }

    fn is_set_on(&self, pod: &Value) -> bool {
        pod["metadata"]["labels"][&self.key] == *self.value
    }
}

/// Checks the name in a label's key, or a label's value. Unlike in Kubernetes, the value must not be empty.
fn check_word(word: &str) -> Result<(), &'static str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_valid_end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    match word.as_bytes() {
        [] => Err("is empty"),
        bytes if bytes.len() > 63 => Err("has more than 63 characters"),
        bytes if !bytes.iter().copied().all(allowed) => Err("can contain only letters, digits, -, _ and ."),
        bytes if !is_valid_end(bytes.first()) || !is_valid_end(bytes.last()) => {
            Err("must begin and end with a letter or digit")
        }
        _ => Ok(()),
    }
}

/// A label on the pod of this candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodLabel {
    pub label: Label,
    /// The pod that this candidate runs in.
    pub pod: String,
}

impl PodLabel {
    /// Returns the permissions that a candidate needs to label its pod. A Role cannot name the pods of a Deployment,
    /// because their names are generated.
    pub fn rules(namespace: &str) -> Vec<Rule> {
        vec![PODS.rule(namespace, None, &[Verb::Get, Verb::List, Verb::Patch])]
    }

    /// Removes the label from every other pod that leaders of this lock have marked, and then adds it to this pod. No
    /// write is sent after `until`. This pod is not written to if it already has the mark and the label, unless
    /// `rewrite` is set. Returns whether this pod was written to.
    ///
    /// The label is only added after the [`RouteMark`] has been seen on the pod. A later leader therefore finds, by
    /// their marks, all pods to which delayed requests may still add the label. Removing the mark changes the pod's
    /// version, so those requests fail.
    pub async fn route_here(
        &self,
        pods: &Collection,
        mark: &RouteMark,
        until: Instant,
        mut rewrite: bool,
    ) -> Result<bool, Error> {
        let mut written = false;
        for _ in 0..MAX_TRIES {
            let (own_pod, other_pods): (Vec<_>, Vec<_>) =
                pods.list_matching(&mark.key()).await?.into_iter().partition(|pod| name(pod) == self.pod);
            let mut conflict = false;
            for other in &other_pods {
                check_time(until)?;
                match (clear(pods, other, mark).await?, label_on(other, mark)) {
                    (None, _) => conflict = true,
                    (Some(_), Some(label)) => {
                        let pod = printable(name(other));
                        log_events::cleaned_up(&pod, &label.to_string());
                    }
                    (Some(_), None) => {}
                }
            }
            if conflict {
                continue;
            }
            let mut pod = match own_pod.into_iter().next() {
                Some(pod) => pod,
                None => self.read(pods).await?,
            };
            self.check_label(&pod, mark)?;
            if rewrite || mark_on(&pod, mark).as_ref() != Some(mark) {
                check_time(until)?;
                let Some(marked) = change(pods, &pod, self.mark_patch(&pod, mark)).await? else { continue };
                (pod, rewrite, written) = (marked, false, true);
            }
            if self.label.is_set_on(&pod) {
                return Ok(written);
            }
            check_time(until)?;
            let label = json!({ "labels": { &self.label.key: self.label.value } });
            if change(pods, &pod, label).await?.is_some() {
                return Ok(true);
            }
        }
        Err(too_many_conflicts())
    }

    /// Removes from this pod the label and the mark that the leader with `mark`, or an earlier leader, has set. Pending
    /// writes then have no effect. A later leader's label is kept. Returns whether a label was removed.
    pub async fn withdraw(&self, pods: &Collection, mark: &RouteMark) -> Result<bool, Error> {
        for _ in 0..MAX_TRIES {
            // A deleted pod has no label.
            let Some(pod) = pods.get(&self.pod).await? else { return Ok(false) };
            let may_remove = match mark_on(&pod, mark) {
                Some(found) => !found.is_later_than(mark),
                // Another client may have removed the mark but not the annotation.
                None => label_on(&pod, mark).is_some(),
            };
            if !may_remove {
                return Ok(false);
            }
            if clear(pods, &pod, mark).await?.is_some() {
                return Ok(label_on(&pod, mark).is_some());
            }
        }
        Err(too_many_conflicts())
    }

    async fn read(&self, pods: &Collection) -> Result<Value, Error> {
        pods.get(&self.pod).await?.ok_or_else(|| {
            let name = &self.pod;
            Error::unknown(format!(
                "there is no pod {name:?} in the lock's namespace; set --pod to the name of the pod that leaderrun runs in"
            ))
        })
    }

    /// Checks that no other program has set a label with this key on this pod.
    fn check_label(&self, pod: &Value, mark: &RouteMark) -> Result<(), Error> {
        let Label { key, .. } = &self.label;
        match pod["metadata"]["labels"][key].as_str() {
            Some(value) if label_on(pod, mark).is_none_or(|label| label.key != *key) => {
                Err(Error::unknown(format!("another program has set {key}={value} on the pod; try another key")))
            }
            _ => Ok(()),
        }
    }

    /// Returns the patch that adds the mark and the annotation for the label to this pod. If an earlier leader left a
    /// label other than the configured one, the patch also removes that label.
    fn mark_patch(&self, pod: &Value, mark: &RouteMark) -> Value {
        let mut labels = json!({ mark.key(): mark.stamp() });
        if let Some(Label { key, .. }) = label_on(pod, mark).filter(|earlier| *earlier != self.label) {
            labels[key] = Value::Null;
        }
        json!({ "labels": labels, "annotations": { mark.key_of(LABEL_ANNOTATION): self.label.to_string() } })
    }
}

fn name(pod: &Value) -> &str {
    pod["metadata"]["name"].as_str().unwrap_or_default()
}

/// Returns the mark that a leader of the same lock as `mark` has left on the pod, if there is one.
fn mark_on(pod: &Value, mark: &RouteMark) -> Option<RouteMark> {
    mark.find_in(&pod["metadata"]["labels"])
}

/// Returns the label that a leader of the same lock as `mark` has added to the pod, if there is one. It may differ from
/// the configured label.
fn label_on(pod: &Value, mark: &RouteMark) -> Option<Label> {
    let label: Label = pod["metadata"]["annotations"][mark.key_of(LABEL_ANNOTATION)].as_str()?.parse().ok()?;
    Some(label).filter(|label| label.is_set_on(pod))
}

/// Removes the mark, the label and its annotation from a pod, and returns the result of [`change`].
async fn clear(pods: &Collection, pod: &Value, mark: &RouteMark) -> Result<Option<Value>, Error> {
    let mut labels = json!({ mark.key(): null });
    if let Some(Label { key, .. }) = label_on(pod, mark) {
        labels[key] = Value::Null;
    }
    change(pods, pod, json!({ "labels": labels, "annotations": { mark.key_of(LABEL_ANNOTATION): null } })).await
}

/// Changes the metadata of a pod; `null` removes a field. Returns the stored pod, or `None` if the pod was changed or
/// deleted after it was read.
async fn change(pods: &Collection, pod: &Value, mut metadata: Value) -> Result<Option<Value>, Error> {
    for field in ["uid", "resourceVersion"] {
        metadata[field] = pod["metadata"][field].clone();
    }
    match pods.merge(name(pod), &json!({ "metadata": metadata })).await {
        Ok(pod) => Ok(Some(pod)),
        Err(error) if matches!(error.kind, ErrorKind::Conflict | ErrorKind::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Checks that there is time left. A write after `until` might arrive among the writes of the next leader.
fn check_time(until: Instant) -> Result<(), Error> {
    if clock::now() < until { Ok(()) } else { Err(Error::unknown("no time was left to label the pod")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_labels_are_parsed() {
        for (text, key, value) in [("role=leader", "role", "leader"), ("example.com/a_B.c=1", "example.com/a_B.c", "1")]
        {
            assert_eq!(text.parse(), Ok(Label { key: key.into(), value: value.into() }));
        }
    }

    #[test]
    fn invalid_labels_are_refused_with_an_example() {
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
            assert!(text.parse::<Label>().unwrap_err().ends_with("; for example role=leader"), "{text}");
        }
    }
}
