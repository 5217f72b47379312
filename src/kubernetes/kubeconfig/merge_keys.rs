//! Checks the order of merge keys (`<<`) in YAML.
//!
//! In YAML the keys of a map take precedence over merged keys, wherever `<<` is. In client-go, however, merged keys
//! replace the keys before `<<`, so kubectl might use a different server than leaderrun. leaderrun refuses a file for
//! which this makes a difference.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::DuplicateKeyPolicy;
use serde_saphyr::options::{MergeKeyPolicy, NonFiniteFloatPolicy};

const MERGE_KEY: &str = "<<";

/// Checks that no merged key repeats an earlier key of the same map.
///
/// # Errors
/// Fails if a merged key repeats an earlier key; the error names the key and says how to fix the file. Also fails if
/// the document contains `<<` but is not valid YAML.
pub fn check(document: &str) -> Result<(), String> {
    if !document.contains(MERGE_KEY) {
        return Ok(());
    }
    // Apart from the two key policies, these are the options with which the kubeconfig itself is parsed.
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { enforce_alias_anchor_ratio: false },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        merge_keys: MergeKeyPolicy::AsOrdinary,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        with_snippet: false,
    };
    let checked = serde_saphyr::from_str_with_options::<Node>(document, options);
    checked.map(drop).map_err(|failure| failure.to_string())
}

/// A YAML value, reduced to the keys of its maps.
enum Node {
    Text(String),
    List(Vec<Node>),
    /// The keys of a map, including merged keys.
    Map(Vec<String>),
    Other,
}

impl Node {
    /// Returns the keys that a map gets if this is the value of its merge key.
    fn merged_keys(self) -> Vec<String> {
        match self {
            Self::Map(keys) => keys,
            Self::List(nodes) => nodes.into_iter().flat_map(Self::merged_keys).collect(),
            Self::Text(_) | Self::Other => Vec::new(),
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut keys = Vec::<String>::new();
        while let Some(key) = map.next_key()? {
            match key {
                Node::Text(key) if key == MERGE_KEY => {
                    let merged = map.next_value::<Node>()?.merged_keys();
                    if let Some(replaced) = merged.iter().find(|key| keys.contains(key)) {
                        return Err(A::Error::custom(format_args!(
                            "the key {replaced:?} comes before a << that merges the same key, and programs disagree \
                             about which one is used; put << first, and merge several maps with a list, for example \
                             <<: [*a, *b]"
                        )));
                    }
                    keys.extend(merged);
                }
                Node::Text(key) => {
                    map.next_value::<Node>()?;
                    keys.push(key);
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Node::Map(keys))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element()? {
            nodes.push(node);
        }
        Ok(Node::List(nodes))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_i128<E: Error>(self, _: i128) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_u128<E: Error>(self, _: u128) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_bytes<E: Error>(self, _: &[u8]) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANCHORS: &str = "a: &a {server: one, color: red}\nb: &b {server: two}\n";

    #[test]
    fn a_merged_key_is_refused_only_if_it_repeats_an_earlier_key() {
        for map in [
            "{<<: *a, server: three}",
            "{<<: [*a, *b]}",
            "{size: 1, <<: *a}",
            "{1: 2, ~: 3, 1.5: 1e400, <<: *b}",
            "{server: three, <<: 1}",
            "{a: [{<<: *a}, {<<: *b}]}",
        ] {
            assert_eq!(check(&format!("{ANCHORS}c: {map}\n")), Ok(()), "{map}");
        }
        for map in [
            "{server: three, <<: *a}",
            "{<<: *a, <<: *b}",
            "{server: three, <<: [*a, *b]}",
            "{server: three, <<: {<<: *b}}",
            "{a: [{server: three, <<: *a}]}",
        ] {
            let refusal = check(&format!("{ANCHORS}c: {map}\n")).expect_err(map);
            let expected = "the key \"server\" comes before a << that merges the same key";
            assert!(refusal.contains(expected) && refusal.contains("line 3"), "{map}: {refusal}");
        }
    }
}
