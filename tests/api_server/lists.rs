//! Tests of lists: their pages, and lists that contain only metadata.

use serde_json::{Value, json};

use super::Namespace;
use testkit::Client;

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().expect("items").iter();
    items.map(|item| item["metadata"]["name"].as_str().expect("a name")).collect()
}

#[testkit::test]
fn the_pages_of_a_list_contain_each_object_once_even_if_their_size_changes() {
    let namespace = Namespace::new();
    for name in ["a", "b", "c", "d", "e"] {
        namespace.put(name, "holder");
    }
    let (mut pages, mut token) = (Vec::new(), String::new());
    for size in [2, 1, 5] {
        let path = format!("{}?limit={size}&continue={token}", namespace.leases());
        let list = namespace.admin.get(&path).expect("a page");
        pages.push(names(&list).join(""));
        token = list["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
        let needs_no_escaping = |character: char| character.is_ascii_alphanumeric() || "-_./=".contains(character);
        assert!(token.chars().all(needs_no_escaping), "{token:?} should be usable in a URL as it is");
    }
    assert_eq!((pages, token.as_str()), (vec!["ab".to_owned(), "c".to_owned(), "de".to_owned()], ""));
}

#[testkit::test]
fn a_list_of_metadata_contains_annotations_but_no_other_fields() {
    let namespace = Namespace::new();
    let object = json!({ "metadata": { "name": "x", "annotations": { "k": "v" } }, "data": { "key": "value" } });
    namespace.admin.create(&namespace.configmaps(), &object).expect("a ConfigMap");
    let list = |format: &str| {
        let admin: Client = namespace.admin.clone();
        admin.accepting(format).get(&format!("{}?limit=500", namespace.configmaps())).expect("a list")
    };
    let whole = list("application/json");
    let metadata = list("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json");
    assert_eq!((&whole["kind"], &metadata["kind"]), (&json!("ConfigMapList"), &json!("PartialObjectMetadataList")));
    // A real server creates a ConfigMap in each new namespace.
    let find = |list: &Value| {
        let items = list["items"].as_array().expect("items");
        items.iter().find(|item| item["metadata"]["name"] == "x").expect("the ConfigMap").clone()
    };
    let (whole, metadata) = (find(&whole), find(&metadata));
    assert_eq!((&whole["data"]["key"], &metadata["data"]), (&json!("value"), &Value::Null));
    assert_eq!(metadata["metadata"], whole["metadata"]);
    assert_eq!(metadata["kind"], "PartialObjectMetadata");
}
