//! Manifests: YAML or JSON text with any number of documents, Lists among them.

mod yaml;

use std::sync::Arc;

use lateen_base::ObjectRef;
use serde_json::Value;

use crate::field::{FieldError, FieldErrors};
use crate::kinds::{KINDS, Kind};
use crate::object::{Object, ObjectError, Origin, group_version, parse_json, reference_of};

/// One object of a manifest.
#[derive(Clone, Debug, PartialEq)]
pub enum Document {
    /// One of Istio's.
    Istio(Box<Object>),
    /// Any other.
    Other {
        /// The object as it is.
        value: Value,
        /// Where it was written.
        origin: Origin,
    },
}

impl Document {
    /// What it calls itself.
    pub fn reference(&self) -> Option<ObjectRef> {
        match self {
            Document::Istio(object) => Some(object.reference()),
            Document::Other { value, .. } => reference_of(value),
        }
    }
}

/// Reads a manifest as `kubectl` reads it: documents between `---` lines, `List`s taken apart, YAML 1.1 booleans.
/// Documents that fail do not keep others from being read; empty ones are left out. Kinds that are not Istio's are left
/// as they are, whatever their version says.
pub fn parse_yaml(file: &str, text: &str) -> Vec<Result<Document, ObjectError>> {
    let file: Arc<str> = file.into();
    let mut documents = Vec::new();
    for (line, text) in yaml::documents(text) {
        let origin = Origin { file: file.clone(), line };
        match yaml::parse(text) {
            Ok(Value::Null) => {}
            Ok(value) => read(value, &origin, 0, &mut documents),
            Err(error) => documents.push(Err(broken(origin, error))),
        }
    }
    documents
}

/// Reads text that is one YAML or JSON value.
///
/// # Errors
/// Broken YAML.
pub fn value(text: &str) -> Result<Value, FieldErrors> {
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    yaml::parse(text).map_err(|error| {
        let message = format!("broken YAML: line {}: {}", error.line, error.message);
        FieldErrors(vec![FieldError { path: String::new(), message }])
    })
}

fn broken(mut origin: Origin, error: yaml::YamlError) -> ObjectError {
    let first = origin.line;
    origin.line += error.line.saturating_sub(1);
    let message = format!("broken YAML: {} (in the document that begins at line {first})", error.message);
    ObjectError {
        origin: Some(origin),
        object: None,
        errors: vec![FieldError { path: String::new(), message }],
    }
}

fn read(value: Value, origin: &Origin, depth: usize, documents: &mut Vec<Result<Document, ObjectError>>) {
    let fail = |path: &str, message: String| {
        let errors = vec![FieldError { path: path.to_owned(), message }];
        Err(ObjectError { origin: Some(origin.clone()), object: reference_of(&value), errors })
    };
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
    let (kind, (group, version)) = (text("kind"), group_version(text("apiVersion")));
    if !value.is_object() {
        return documents.push(fail("", "expected an object with apiVersion and kind".to_owned()));
    }
    if kind.is_empty() {
        return documents.push(fail("kind", "is required".to_owned()));
    }
    if version.is_empty() && KINDS.iter().any(|info| info.name == kind) {
        return documents.push(fail("apiVersion", "is required".to_owned()));
    }
    if depth < 4
        && let Some(items) = list_items(&value, kind)
    {
        return items.iter().for_each(|item| read(item.clone(), origin, depth + 1, documents));
    }
    if Kind::of(group, kind).is_some() {
        let object = parse_json(&value).map(|mut object| {
            object.origin = Some(origin.clone());
            Document::Istio(Box::new(object))
        });
        return documents.push(object.map_err(|error| ObjectError { origin: Some(origin.clone()), ..error }));
    }
    if KINDS.iter().any(|info| info.group == group) {
        let known: Vec<&str> =
            KINDS.iter().filter(|info| info.group == group).map(|info| info.name).collect();
        let message = format!("no kind {kind:?} in group {group}; it has {}", known.join(", "));
        return documents.push(fail("kind", message));
    }
    documents.push(Ok(Document::Other { value, origin: origin.clone() }));
}

fn list_items<'v>(value: &'v Value, kind: &str) -> Option<&'v Vec<Value>> {
    if !kind.ends_with("List") {
        return None;
    }
    value.get("items").and_then(Value::as_array)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TWO: &str = "\
# a comment
---
apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - timeout: 0.5s
    route:
    - destination: {host: reviews, subset: v1}
      weight: \"100\"
---
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Service
  metadata: {name: a, labels: {x: 'yes'}}
  spec: {publishNotReadyAddresses: yes}
- apiVersion: networking.istio.io/v1
  kind: DestinationRule
  metadata: {name: b}
  spec: {host: b, trafic_policy: {}}
";

    #[test]
    fn reads_documents_and_lists() {
        let documents = parse_yaml("f.yaml", TWO);
        assert_eq!(documents.len(), 3);
        let Ok(Document::Istio(object)) = &documents[0] else { panic!("{:?}", documents[0]) };
        assert_eq!(object.origin.as_ref().unwrap().to_string(), "f.yaml:3");
        let crate::Spec::VirtualService(spec) = &object.spec else { panic!() };
        assert_eq!(spec.http[0].route[0].weight, 100);
        let Ok(Document::Other { value, .. }) = &documents[1] else { panic!("{:?}", documents[1]) };
        assert_eq!(value.pointer("/spec/publishNotReadyAddresses"), Some(&Value::Bool(true)));
        assert_eq!(value.pointer("/metadata/labels/x"), Some(&Value::String("yes".to_owned())));
        let error = documents[2].as_ref().unwrap_err().to_string();
        assert_eq!(
            error,
            "f.yaml:14: DestinationRule b: spec.trafic_policy: unknown field \"trafic_policy\"; \
             did you mean \"trafficPolicy\"?"
        );
    }

    #[test]
    fn one_broken_document_leaves_the_others() {
        let documents = parse_yaml("f", "a: [\n---\nkind: X\napiVersion: v1\n");
        assert!(documents[0].is_err());
        assert!(documents[1].is_ok());
    }

    /// Scalars and structure that YAML and our readers have special cases for.
    fn fragment() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("---\n".to_owned()),
            Just("kind: VirtualService\napiVersion: networking.istio.io/v1\n".to_owned()),
            Just("kind: List\napiVersion: v1\nitems:\n- ".to_owned()),
            Just("spec:\n  http:\n  - match: [{uri: {prefix: /}}]\n".to_owned()),
            Just("metadata: {name: a, creationTimestamp: null}\n".to_owned()),
            Just("a: &x [*x, *x]\n<<: *x\n".to_owned()),
            "[ -~\n\t{}\\[\\]:,&*!|>'\"%@#0-9é]{0,40}",
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn any_text_is_read_without_panic(fragments in proptest::collection::vec(fragment(), 0..8)) {
            for document in parse_yaml("f", &fragments.concat()).into_iter().flatten() {
                if let Document::Istio(object) = document {
                    crate::validate(&object);
                }
            }
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            parse_yaml("f", &String::from_utf8_lossy(&bytes));
        }

        /// A spec in which every field has a value of some JSON type: read or refused, and what was read is written
        /// and read again as the same.
        #[test]
        fn specs_of_any_shape_are_read_or_refused(kind in 0..KINDS.len(), seed in any::<u64>()) {
            let info = &KINDS[kind];
            let schema: Value = (info.schema)().into();
            let spec = sample(&schema, &mut { seed });
            let object = serde_json::json!({
                "apiVersion": info.api_version(), "kind": info.name, "metadata": {"name": "a"}, "spec": spec,
            });
            if let Ok(object) = parse_json(&object) {
                crate::validate(&object);
                let again = parse_json(&object.write()).unwrap();
                prop_assert_eq!(again.spec, object.spec);
            }
        }
    }

    /// A value of a schema, or now and then of something else.
    fn sample(schema: &Value, seed: &mut u64) -> Value {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let dice = *seed >> 33;
        if dice.is_multiple_of(97) {
            return [Value::Null, 7.into(), "x".into(), true.into(), Value::Array(vec![])]
                [(dice / 97) as usize % 5]
                .clone();
        }
        match schema.get("type").and_then(Value::as_str) {
            Some("object") => {
                let properties = schema.get("properties").and_then(Value::as_object);
                let mut object = serde_json::Map::new();
                for (name, inner) in properties.into_iter().flatten() {
                    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
                    if (*seed >> 40).is_multiple_of(3) {
                        object.insert(name.clone(), sample(inner, seed));
                    }
                }
                if let Some(inner) = schema.get("additionalProperties") {
                    object.insert("80".to_owned(), sample(inner, seed));
                }
                object.into()
            }
            Some("array") => (0..dice % 3).map(|_| sample(&schema["items"], seed)).collect(),
            Some("string") => match schema.get("enum").and_then(Value::as_array) {
                Some(names) => names[dice as usize % names.len()].clone(),
                None => ["", "a", "5s", "*.b.com", "1.2.3.4", "unix:///x", "%", "[", "ns/a", "99999999999h"]
                    [dice as usize % 10]
                    .into(),
            },
            Some("integer") => [0, 1, 80, 70000, -1][dice as usize % 5].into(),
            Some("number") => serde_json::json!([0.5, 100.0, -1.0][dice as usize % 3]),
            Some("boolean") => dice.is_multiple_of(2).into(),
            _ => Value::Null,
        }
    }
}
