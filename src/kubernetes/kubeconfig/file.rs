//! The format of a kubeconfig file.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf, absolute};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_saphyr::DuplicateKeyPolicy;
use serde_saphyr::options::NonFiniteFloatPolicy;

use super::super::credentials::files;
use super::merge_keys;

/// The contents of a kubeconfig. As in client-go, a field that is absent, null or empty is not set.
#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct KubeconfigFile {
    /// The path of the file.
    #[serde(skip)]
    pub path: PathBuf,
    #[serde(rename = "apiVersion")]
    api_version: Option<String>,
    kind: Option<String>,
    pub current_context: Option<String>,
    #[serde(default, deserialize_with = "list")]
    pub contexts: Option<Vec<NamedContext>>,
    #[serde(default, deserialize_with = "list")]
    pub clusters: Option<Vec<NamedCluster>>,
    #[serde(default, deserialize_with = "list")]
    pub users: Option<Vec<NamedUser>>,
}

#[derive(Default, Deserialize)]
pub struct NamedContext {
    pub name: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub context: Context,
}

#[derive(Default, Deserialize)]
pub struct NamedCluster {
    pub name: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub cluster: Cluster,
}

#[derive(Default, Deserialize)]
pub struct NamedUser {
    pub name: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub user: User,
}

#[derive(Clone, Deserialize)]
pub struct NamedExtension {
    pub name: Option<String>,
    pub extension: Option<Value>,
}

#[derive(Clone, Default, Deserialize)]
pub struct Context {
    pub cluster: Option<String>,
    pub user: Option<String>,
    pub namespace: Option<String>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Cluster {
    pub server: Option<String>,
    pub tls_server_name: Option<String>,
    pub insecure_skip_tls_verify: Option<bool>,
    pub certificate_authority: Option<String>,
    pub certificate_authority_data: Option<Base64>,
    pub proxy_url: Option<String>,
    pub extensions: Option<Vec<NamedExtension>>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct User {
    pub client_certificate: Option<String>,
    pub client_certificate_data: Option<Base64>,
    pub client_key: Option<String>,
    pub client_key_data: Option<Base64>,
    pub token: Option<String>,
    #[serde(rename = "tokenFile")]
    pub token_file: Option<String>,
    pub username: Option<String>,
    pub password: Option<String>,
    #[serde(rename = "as")]
    pub impersonate: Option<String>,
    pub as_uid: Option<String>,
    #[serde(default, deserialize_with = "list")]
    pub as_groups: Option<Vec<String>>,
    pub as_user_extra: Option<BTreeMap<String, Option<Vec<String>>>>,
    pub auth_provider: Option<AuthProvider>,
    pub exec: Option<Exec>,
}

#[derive(Clone, Deserialize)]
pub struct AuthProvider {
    pub name: Option<String>,
    pub config: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exec {
    pub api_version: Option<String>,
    pub command: Option<String>,
    #[serde(default, deserialize_with = "list")]
    pub args: Option<Vec<String>>,
    pub env: Option<Vec<EnvironmentVariable>>,
    pub install_hint: Option<String>,
    pub interactive_mode: Option<String>,
    pub provide_cluster_info: Option<bool>,
}

#[derive(Clone, Deserialize)]
pub struct EnvironmentVariable {
    pub name: Option<String>,
    pub value: Option<String>,
}

/// Deserializes null as an empty entry.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Deserializes a list, and each null in it as an empty entry.
fn list<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<Option<Vec<T>>, D::Error> {
    let entries: Option<Vec<Option<T>>> = Option::deserialize(deserializer)?;
    Ok(entries.map(|entries| entries.into_iter().map(Option::unwrap_or_default).collect()))
}

/// Bytes that are written as base64, possibly on several lines.
#[derive(Clone)]
pub struct Base64(pub Vec<u8>);

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut text = String::deserialize(deserializer)?;
        text.retain(|character| !character.is_ascii_whitespace());
        let decoded = BASE64_STANDARD.decode(text);
        decoded.map(Self).map_err(|_| D::Error::custom("invalid base64"))
    }
}

impl KubeconfigFile {
    /// Reads the kubeconfig at a path.
    ///
    /// # Errors
    /// Fails if the file cannot be read, or with the kind `InvalidData` if it is not a valid kubeconfig.
    pub fn read(path: &Path) -> io::Result<Self> {
        let invalid = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
        let file = Self::parse(&files::read(path)?).map_err(invalid)?;
        Ok(Self { path: absolute(path)?, ..file })
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        let invalid = |reason: String| format!("it is not a valid kubeconfig: {reason}");
        let text = decode(text).map_err(invalid)?;
        let document = first_document(&text);
        merge_keys::check(document)?;
        let options = serde_saphyr::options! {
            // Many aliases of one anchor are legitimate: one user may be used in many contexts.
            budget: serde_saphyr::budget! { enforce_alias_anchor_ratio: false },
            // Go reads a number that is too large as text.
            non_finite_float_policy: NonFiniteFloatPolicy::AsString,
            // client-go uses the last of several equal keys.
            duplicate_keys: DuplicateKeyPolicy::LastWins,
            // A snippet in an error message could contain secrets.
            with_snippet: false,
        };
        let file: Option<Self> =
            serde_saphyr::from_str_with_options(document, options).map_err(|failure| invalid(failure.to_string()))?;
        let file = file.unwrap_or_default();
        file.check()?;
        Ok(file)
    }

    fn check(&self) -> Result<(), String> {
        let Self { kind, api_version, contexts, clusters, users, .. } = self;
        let is_absent_or =
            |text: &Option<String>, expected| text.as_deref().is_none_or(|text| ["", expected].contains(&text));
        if !is_absent_or(kind, "Config") || !is_absent_or(api_version, "v1") {
            let (kind, version) = (kind.as_deref().unwrap_or_default(), api_version.as_deref().unwrap_or_default());
            return Err(format!(
                "it has kind {kind:?} and apiVersion {version:?}, but a kubeconfig has kind Config and apiVersion v1"
            ));
        }
        check_unique_names("context", contexts.iter().flatten().map(|entry| &entry.name))?;
        check_unique_names("cluster", clusters.iter().flatten().map(|entry| &entry.name))?;
        check_unique_names("user", users.iter().flatten().map(|entry| &entry.name))
    }

    /// Returns whether the file defines no context, cluster or user, and sets no current context.
    pub fn is_empty(&self) -> bool {
        let Self { current_context, contexts, clusters, users, .. } = self;
        let is_zero = |length: Option<usize>| length.unwrap_or_default() == 0;
        is_zero(current_context.as_ref().map(String::len))
            && is_zero(contexts.as_ref().map(Vec::len))
            && is_zero(clusters.as_ref().map(Vec::len))
            && is_zero(users.as_ref().map(Vec::len))
    }
}

fn check_unique_names<'a>(kind: &str, names: impl Iterator<Item = &'a Option<String>>) -> Result<(), String> {
    let mut seen = HashSet::new();
    for name in names.map(|name| name.as_deref().unwrap_or_default()) {
        if !seen.insert(name) {
            return Err(format!("it has two entries for the {kind} {name:?}; remove one of them"));
        }
    }
    Ok(())
}

/// A character that ends a line in YAML 1.1, the version that client-go reads.
const NEXT_LINE: char = '\u{85}';

/// Decodes a file in UTF-8, or in UTF-16 with a byte order mark, which PowerShell writes. Replaces each [`NEXT_LINE`]
/// with a line feed.
fn decode(bytes: &[u8]) -> Result<Cow<'_, str>, String> {
    let utf16 = |to_unit: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes.as_chunks().0.iter().copied().map(to_unit).collect();
        String::from_utf16(&units).map(Cow::from).map_err(|failure| failure.to_string())
    };
    match bytes {
        [0xff, 0xfe, ..] => utf16(u16::from_le_bytes),
        [0xfe, 0xff, ..] => utf16(u16::from_be_bytes),
        _ => str::from_utf8(bytes).map(Cow::from).map_err(|failure| failure.to_string()),
    }
    .map(|text| if text.contains(NEXT_LINE) { text.replace(NEXT_LINE, "\n").into() } else { text })
}

/// Returns the first of several YAML documents. Like client-go, leaderrun ignores the others.
pub fn first_document(text: &str) -> &str {
    let (mut end, mut has_begun) = (0, false);
    for line in text.split_inclusive('\n') {
        let trimmed = line.trim_end();
        let is_marker = trimmed == "---" || line.starts_with("--- ");
        let is_end = trimmed == "...";
        if (is_marker || is_end) && has_begun {
            break;
        }
        let is_blank = trimmed.is_empty() || trimmed.starts_with(['#', '%', '\u{feff}']) && !is_marker;
        has_begun |= !is_blank;
        end += line.len();
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfig_with_a_byte_order_mark_is_read() {
        let text = "\u{feff}current-context: \u{1f600}\r\n";
        let utf16 = |to_bytes: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(to_bytes).collect::<Vec<u8>>();
        for bytes in [text.as_bytes().to_vec(), utf16(u16::to_le_bytes), utf16(u16::to_be_bytes)] {
            let file = KubeconfigFile::parse(&bytes).expect("the kubeconfig is valid");
            assert_eq!(file.current_context.as_deref(), Some("\u{1f600}"));
        }
    }
}
