//! Paths of fields, and sets of them in the form `FieldsV1`.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::{Map, Value, json};

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// A field by name.
    Field(String),
    /// The item of a list with these keys, as canonical JSON.
    Key(String),
    /// The item of a set with this value, as JSON.
    Item(String),
}

/// A path from the root.
pub(super) type Path = Vec<Step>;

impl Step {
    fn word(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(keys) => format!("k:{keys}"),
            Self::Item(value) => format!("v:{value}"),
        }
    }

    fn read(word: &str) -> Option<Self> {
        let (kind, rest) = word.split_once(':')?;
        Some(match kind {
            "f" => Self::Field(rest.to_owned()),
            "k" => Self::Key(rest.to_owned()),
            "v" => Self::Item(rest.to_owned()),
            _ => return None,
        })
    }
}

/// As nested objects; `.` is the thing itself.
pub(super) fn to_fields(paths: &BTreeSet<Path>) -> Value {
    let mut root = Map::new();
    for path in paths {
        let inner = path.iter().try_fold(&mut root, |at, step| {
            at.entry(step.word()).or_insert_with(|| json!({})).as_object_mut()
        });
        // Paths come in order: what is below this one, if anything, follows.
        if let (Some(inner), Some(Step::Key(_))) = (inner, path.last()) {
            inner.insert(".".to_owned(), json!({}));
        }
    }
    Value::Object(root)
}

/// From nested objects. What cannot be read is nobody's field.
pub(super) fn from_fields(fields: &Value) -> BTreeSet<Path> {
    let mut paths = BTreeSet::new();
    collect(fields, &mut Vec::new(), &mut paths);
    paths
}

fn collect(fields: &Value, at: &mut Path, paths: &mut BTreeSet<Path>) {
    let Some(map) = fields.as_object() else { return };
    if (map.is_empty() || map.contains_key(".")) && !at.is_empty() {
        paths.insert(at.clone());
    }
    for (word, inner) in map {
        if let Some(step) = Step::read(word) {
            at.push(step);
            collect(inner, at, paths);
            at.pop();
        }
    }
}

/// As conflicts show it: `.spec.template.spec.containers[name="c"].image`.
pub(super) fn text(path: &[Step]) -> String {
    let mut out = String::new();
    for step in path {
        // Writing into a string does not fail.
        let _ = match step {
            Step::Field(name) => write!(out, ".{name}"),
            Step::Item(value) => write!(out, "[={value}]"),
            Step::Key(keys) => {
                let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
                let words: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
                write!(out, "[{}]", words.join(","))
            }
        };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            "[a-z./:]{1,6}".prop_map(Step::Field),
            "[a-z]{1,3}".prop_map(|name| Step::Key(json!({"name": name}).to_string())),
            "[a-z]{1,3}".prop_map(|value| Step::Item(json!(value).to_string())),
        ]
    }

    proptest! {
        /// Leaves stay what they are: a set in which no field contains another reads back.
        #[test]
        fn sets_survive_the_way(paths in prop::collection::btree_set(prop::collection::vec(step(), 1..4), 0..8)) {
            let leaves: BTreeSet<Path> = paths
                .iter()
                .filter(|one| !paths.iter().any(|other| other.len() > one.len() && other.starts_with(one)))
                .cloned()
                .collect();
            prop_assert_eq!(from_fields(&to_fields(&leaves)), leaves);
        }
    }

    #[test]
    fn items_are_fields_of_their_own() {
        let fields = json!({"f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:image": {}}}}});
        let paths = from_fields(&fields);
        assert_eq!(to_fields(&paths), fields);
        let shown: Vec<String> = paths.iter().map(|path| text(path)).collect();
        assert_eq!(shown, [".spec.containers[name=\"c\"]", ".spec.containers[name=\"c\"].image"]);
        assert!(from_fields(&json!([1])).is_empty() && from_fields(&json!({"x": {}})).is_empty());
    }
}
