//! Tests of lists: their selectors, their pages, and lists that contain only metadata.

use serde_json::{Value, json};

use super::{Namespace, version};
use testkit::Client;

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().expect("a list has items").iter();
    items.map(|item| item["metadata"]["name"].as_str().expect("an item has a name")).collect()
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
        let list = namespace.admin.get(&path).expect("the page can be read");
        pages.push(names(&list).join(""));
        token = list["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
        let needs_no_escaping = |character: char| character.is_ascii_alphanumeric() || "-_./=".contains(character);
        assert!(token.chars().all(needs_no_escaping), "{token:?} should not need escaping in a URL");
    }
    assert_eq!((pages, token.as_str()), (vec!["ab".to_owned(), "c".to_owned(), "de".to_owned()], ""));
}

#[testkit::test]
fn a_list_of_metadata_contains_all_metadata_but_no_data() {
    let namespace = Namespace::new();
    let object = json!({ "metadata": { "name": "x", "annotations": { "k": "v" } }, "data": { "key": "value" } });
    namespace.admin.create(&namespace.configmaps(), &object).expect("the ConfigMap can be created");
    let list = |format: &str| {
        let admin: Client = namespace.admin.clone();
        admin.accepting(format).get(&format!("{}?limit=500", namespace.configmaps())).expect("the list can be read")
    };
    let whole = list("application/json");
    let metadata = list("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json");
    assert_eq!((&whole["kind"], &metadata["kind"]), (&json!("ConfigMapList"), &json!("PartialObjectMetadataList")));
    assert_eq!((names(&whole), names(&metadata)), (vec!["x"], vec!["x"]));
    let (whole, metadata) = (&whole["items"][0], &metadata["items"][0]);
    assert_eq!((&whole["data"]["key"], &metadata["data"]), (&json!("value"), &Value::Null));
    assert_eq!(metadata["metadata"], whole["metadata"]);
    assert_eq!(metadata["kind"], "PartialObjectMetadata");
}

#[testkit::test]
fn a_list_can_be_filtered_by_name_and_label_and_can_require_a_minimum_version() {
    let namespace = Namespace::new();
    namespace.put("one", "a");
    namespace.put("two", "b");
    let labels = json!({ "metadata": { "labels": { "app": "web" } } });
    namespace.admin.merge_patch(&namespace.lease("two"), &labels).expect("the Lease can be labeled");
    for (query, expected) in [
        ("fieldSelector=metadata.name%3Done", vec!["one"]),
        ("fieldSelector=metadata.name!%3Done", vec!["two"]),
        ("labelSelector=app%3Dweb", vec!["two"]),
        ("labelSelector=app%20in%20(web,api)", vec!["two"]),
        ("labelSelector=!app", vec!["one"]),
        ("labelSelector=app!%3Dweb", vec!["one"]),
        ("resourceVersion=0", vec!["one", "two"]),
    ] {
        let list = namespace.admin.get(&format!("{}?{query}", namespace.leases())).expect("the list can be read");
        assert_eq!(names(&list), expected, "{query}");
        assert_eq!(list["kind"], "LeaseList");
        assert!(version(&list) > 0);
    }
    let unknown = namespace.admin.get(&format!("{}?fieldSelector=spec.holder%3Da", namespace.leases())).unwrap_err();
    assert_eq!(unknown.code, 400);
    let future = namespace.admin.get(&format!("{}?resourceVersion=999999999", namespace.leases())).unwrap_err();
    assert_eq!((future.code, future.reason.as_str()), (504, "Timeout"));
}
