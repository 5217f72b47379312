//! `leaderrun list`: lists the locks in a namespace or in all namespaces.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, anyhow};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use tokio::time::sleep;

use super::lock_status::{LockState, LockStatus, escaped_json, formatted_seconds};
use super::output::{print, warn};
use super::{CommandOutput, OutputFormat, REQUEST_TIMEOUT, with_open_timeout};
use crate::kubernetes::{Cluster, ClusterAccess, ClusterOptions, Collection, Error, ErrorKind};
use crate::lock::{KINDS, LockKind, LockName, RecordFormat, default_kind};
use crate::telemetry::log::printable;

/// The interval at which `--watch` reads the locks.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// The arguments of `leaderrun list`.
#[derive(Debug)]
pub struct ListRequest {
    /// The namespace. The default is the namespace of the kubeconfig's context or of the pod.
    pub namespace: Option<String>,
    pub all_namespaces: bool,
    /// The API server and the user.
    pub cluster: ClusterOptions,
    pub output: OutputFormat,
    /// Whether to keep running and print each change until no process reads stdout any more.
    pub watch: bool,
}

/// A lock with its state.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LockRow {
    namespace: String,
    name: String,
    kind: &'static str,
    #[serde(flatten)]
    status: LockStatus,
}

/// The key that identifies and sorts rows: the namespace, the name without the number at its end, that number, the
/// whole name, and the kind.
type Key = (String, String, Option<u64>, String, &'static str);

/// Lists the locks once, or with `--watch` continuously.
pub async fn list(request: ListRequest) -> Result<CommandOutput> {
    let access = ClusterAccess::new(request.cluster);
    let cluster = with_open_timeout(&access, Cluster::open(&access, REQUEST_TIMEOUT)).await?;
    let namespace = match (request.all_namespaces, request.namespace) {
        (true, _) => String::new(),
        (false, Some(namespace)) => namespace,
        (false, None) => cluster.default_namespace().to_owned(),
    };
    let kinds = KINDS.iter().filter_map(|kind| Some((kind, kind.object_format()?))).collect();
    let mut lister = Lister { cluster, namespace, kinds };
    let rows = lister.read().await?;
    if rows.is_empty() && !request.all_namespaces && lister.cluster.lacks_namespace(&lister.namespace).await {
        let namespace = &lister.namespace;
        warn(&format!("there is no namespace {namespace:?}; try kubectl get namespaces to list the existing ones"));
    }
    let shows_namespace = request.all_namespaces;
    let text = match request.output {
        OutputFormat::Text => table(&rows, shows_namespace) + &summary(&rows),
        OutputFormat::Json if request.watch => rows.values().map(json).collect::<Result<_>>()?,
        OutputFormat::Json => escaped_json(&serde_json::to_string(&rows.values().collect::<Vec<_>>())?) + "\n",
    };
    if !request.watch {
        return Ok(CommandOutput { text, status: 0 });
    }
    let mut stdout_is_read = print(&text)?;
    let mut seen = rows;
    let mut logged_error = None;
    while stdout_is_read {
        sleep(POLL_INTERVAL).await;
        let rows = match lister.read().await {
            Ok(rows) => rows,
            Err(error) => {
                let error = error.to_string();
                if logged_error.as_ref() != Some(&error) {
                    warn(&format!("{error}; trying again"));
                    logged_error = Some(error);
                }
                continue;
            }
        };
        logged_error = None;
        for row in changes(&seen, &rows) {
            stdout_is_read = print(&match request.output {
                OutputFormat::Text => line(&row, shows_namespace),
                OutputFormat::Json => json(&row)?,
            })?;
        }
        if request.output == OutputFormat::Text {
            let before = slot_phrases(&seen);
            let changed = slot_phrases(&rows).into_iter().filter(|(lock, phrase)| before.get(lock) != Some(phrase));
            for (lock, phrase) in changed {
                stdout_is_read = print(&format!("{lock}: {phrase}\n"))?;
            }
        }
        seen = rows;
    }
    Ok(CommandOutput::nothing())
}

/// Reads the locks of the kinds that this user may list.
struct Lister {
    cluster: Cluster,
    /// The namespace; empty for all.
    namespace: String,
    /// The kinds to list, with the format of their objects.
    kinds: Vec<(&'static LockKind, &'static RecordFormat)>,
}

impl Lister {
    /// Reads all locks. If this user may not list a kind, that kind is skipped from then on, with a warning; for the
    /// default kind, this is an error.
    async fn read(&mut self) -> Result<BTreeMap<Key, LockRow>> {
        let mut rows = BTreeMap::new();
        for (kind, format) in self.kinds.clone() {
            match self.objects(format).await {
                Ok(objects) => rows.extend(objects.iter().filter_map(|object| row(kind, format, object))),
                // A user who is only allowed to list Leases still sees most locks.
                Err(error) if error.kind == ErrorKind::Forbidden && kind != default_kind() => {
                    warn(&format!("{error}; locks of kind {} are not listed", kind.word));
                    self.kinds.retain(|(other, _)| *other != kind);
                }
                Err(error) if error.refused_by_rbac => {
                    let (flag, role) = match self.namespace.as_str() {
                        "" => (String::new(), "clusterrole"),
                        namespace => (format!(" -n {namespace}"), "role"),
                    };
                    return Err(anyhow!(
                        "{error}; try kubectl create {role} lock-viewer{flag} --verb=list \
                         --resource=leases.coordination.k8s.io,configmaps,endpoints, and bind it to this user"
                    ));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(rows)
    }

    async fn objects(&self, format: &RecordFormat) -> Result<Vec<Value>, Error> {
        let objects = Collection::new(&self.cluster, format.resource, &self.namespace).with_timeout(REQUEST_TIMEOUT);
        let objects = if format.is_in_metadata { objects.with_metadata_lists() } else { objects };
        objects.list(format.is_lock).await
    }
}

/// Returns the row of a lock. If its record cannot be parsed, prints a warning and returns `None`.
fn row(kind: &'static LockKind, format: &RecordFormat, object: &Value) -> Option<(Key, LockRow)> {
    let metadata = |field: &str| object["metadata"][field].as_str().map(str::to_owned);
    let (namespace, name) = (metadata("namespace")?, metadata("name")?);
    let lock = LockName { kind, namespace: Some(namespace.clone()), name: name.clone() }.to_string();
    let record = match format.record(object) {
        Ok(record) => record,
        Err(reason) => {
            warn(&format!("cannot use {lock}: {}", printable(&reason)));
            return None;
        }
    };
    let status = LockStatus::new(lock, Some(&record), Timestamp::now());
    Some((key(&namespace, &name, kind), LockRow { namespace, name, kind: kind.word, status }))
}

/// Returns a key that sorts `job-10` after `job-9`.
fn key(namespace: &str, name: &str, kind: &LockKind) -> Key {
    let numbered = name.rsplit_once('-').and_then(|(stem, number)| Some((stem, number.parse().ok()?)));
    let (stem, number) = numbered.map_or((name, None), |(stem, number)| (stem, Some(number)));
    (namespace.to_owned(), stem.to_owned(), number, name.to_owned(), kind.word)
}

/// Returns rows for locks that are new, changed or deleted. Deleted locks are shown as free.
fn changes(before: &BTreeMap<Key, LockRow>, after: &BTreeMap<Key, LockRow>) -> Vec<LockRow> {
    let differs =
        |(key, row): &(&Key, &LockRow)| before.get(*key).is_none_or(|other| row.status.differs_from(&other.status));
    let row = |row: &LockRow, status: LockStatus| LockRow {
        namespace: row.namespace.clone(),
        name: row.name.clone(),
        kind: row.kind,
        status,
    };
    let changed = after.iter().filter(differs).map(|(_, after)| row(after, after.status.clone()));
    let gone = before.iter().filter(|(key, _)| !after.contains_key(*key));
    let gone = gone.map(|(_, gone)| row(gone, LockStatus::new(gone.status.lock.clone(), None, Timestamp::now())));
    changed.chain(gone).collect()
}

/// The number of columns.
const COLUMNS: usize = 11;

const HEADINGS: [&str; COLUMNS] = [
    "NAMESPACE",
    "NAME",
    "KIND",
    "SLOT",
    "STATE",
    "HOLDER",
    "HELD FOR",
    "RENEWED",
    "EXPIRES IN",
    "CLAIM DELAY",
    "TRANSITIONS",
];

fn cells(row: &LockRow) -> [String; COLUMNS] {
    let LockRow { namespace, name, kind, status } = row;
    let or_dash = |text: Option<String>| text.filter(|text| !text.is_empty()).unwrap_or_else(|| "-".to_owned());
    let ago = |seconds: f64| format!("{} ago", formatted_seconds(seconds));
    let state = match status.not_before.filter(|_| status.state == LockState::NotDue) {
        Some(not_before) => format!("not due before {not_before:.0}"),
        None => status.state.word().to_owned(),
    };
    [
        namespace.clone(),
        name.clone(),
        (*kind).to_owned(),
        or_dash(status.record_slot().map(|slot| slot.to_string())),
        state,
        or_dash(status.holder.as_deref().map(printable)),
        or_dash(status.held_for_seconds.map(formatted_seconds)),
        or_dash(status.renewed_seconds_ago.map(ago)),
        or_dash(status.expires_in_seconds.filter(|left| *left > 0.0).map(formatted_seconds)),
        or_dash(status.claim_delay_seconds.map(formatted_seconds)),
        status.transitions.to_string(),
    ]
}

/// Returns the index of the first column that is shown. The namespace, in column 0, is only shown if locks of all
/// namespaces are listed.
fn first_column(shows_namespace: bool) -> usize {
    usize::from(!shows_namespace)
}

fn table(rows: &BTreeMap<Key, LockRow>, shows_namespace: bool) -> String {
    let skipped = first_column(shows_namespace);
    let lines: Vec<[String; COLUMNS]> =
        [HEADINGS.map(str::to_owned)].into_iter().chain(rows.values().map(cells)).collect();
    let width = |column: usize| lines.iter().map(|cells| cells[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..COLUMNS).map(width).collect();
    let padded = |cells: &[String; COLUMNS]| {
        let cells = cells.iter().zip(&widths).skip(skipped).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("   ").trim_end().to_owned() + "\n"
    };
    lines.iter().map(padded).collect()
}

/// Returns, for each lock with slots, a line with the number of held slots.
fn summary(rows: &BTreeMap<Key, LockRow>) -> String {
    let lines: String = slot_phrases(rows).into_iter().map(|(lock, phrase)| format!("{lock}: {phrase}\n")).collect();
    if lines.is_empty() { lines } else { format!("\n{lines}") }
}

/// Returns, for each lock with slots, a phrase that states how many of them are held.
fn slot_phrases(rows: &BTreeMap<Key, LockRow>) -> BTreeMap<String, String> {
    // A slot that was never held has no row, so the number of slots is taken from the rows of the other slots.
    let mut locks: BTreeMap<String, (u32, u32)> = BTreeMap::new();
    for LockRow { namespace, name, kind, status } in rows.values() {
        let Some(slot) = status.record_slot() else { continue };
        let Some(lock) = name.strip_suffix(&format!("-{}", slot.number)) else { continue };
        let kind = if *kind == default_kind().word { String::new() } else { format!("{kind}:") };
        let (held, count) = locks.entry(format!("{kind}{namespace}/{lock}")).or_default();
        *held += u32::from(status.state == LockState::Held);
        *count = slot.count.max(*count);
    }
    let phrase = |(lock, (held, count))| (lock, format!("{held} of {count} slots are held"));
    locks.into_iter().map(phrase).collect()
}

/// Returns a changed row as one line.
fn line(row: &LockRow, shows_namespace: bool) -> String {
    let cells = cells(row);
    cells[first_column(shows_namespace)..].join("   ") + "\n"
}

fn json(row: &LockRow) -> Result<String> {
    Ok(escaped_json(&serde_json::to_string(row)?) + "\n")
}
