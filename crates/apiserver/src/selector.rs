//! Label and field selectors.

use serde_json::Value;

use crate::object::{Labels, Object};
use crate::resource::{Origin, Resource};
use crate::status::Status;

/// Label and field requirements; all have to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<FieldRequirement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Operator {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
    Above(i64),
    Below(i64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct FieldRequirement {
    path: String,
    equal: bool,
    value: String,
}

/// Fields that Kubernetes lets one select by, besides `metadata.name` and `metadata.namespace`.
const FIELDS: &[(&str, &[&str])] = &[
    (
        "pods",
        &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
    ),
    ("nodes", &["spec.unschedulable"]),
    ("namespaces", &["status.phase"]),
    ("secrets", &["type"]),
    ("services", &["spec.clusterIP", "spec.type"]),
    ("jobs.batch", &["status.successful"]),
    ("replicasets.apps", &["status.replicas"]),
    ("replicationcontrollers", &["status.replicas"]),
    (
        "events",
        &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
    ),
];

impl Selector {
    /// From the notation of `labelSelector` and `fieldSelector`.
    pub fn parse(labels: &str, fields: &str) -> Result<Self, Status> {
        let labels = Parser { rest: labels }.requirements().map_err(|why| {
            Status::bad_request(format!("unable to parse label selector \"{labels}\": {why}"))
        })?;
        Ok(Self { labels, fields: parse_fields(fields)? })
    }

    /// True when everything matches.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// True when the labels of this JSON object (a map) satisfy the label requirements.
    pub fn matches_labels(&self, labels: &Value) -> bool {
        self.labels.iter().all(|r| r.matches(labels[r.key.as_str()].as_str()))
    }

    /// The name that the fields require: one object at most, found without a search.
    pub(crate) fn required_name(&self) -> Option<&str> {
        self.fields.iter().find(|f| f.equal && f.path == "metadata.name").map(|f| f.value.as_str())
    }

    /// Refuses fields that this resource cannot be selected by.
    pub(crate) fn check(&self, resource: &Resource) -> Result<(), Status> {
        let known = FIELDS.iter().find(|(name, _)| resource.is(name)).map_or(&[][..], |(_, fields)| fields);
        for field in &self.fields {
            let path = field.path.as_str();
            if path != "metadata.name" && path != "metadata.namespace" && !known.contains(&path) {
                return Err(Status::bad_request(format!("field label not supported: {path}")));
            }
        }
        Ok(())
    }

    pub(crate) fn matches(&self, object: &Object, resource: &Resource) -> bool {
        self.labels.iter().all(|r| r.matches(find(&object.labels, &r.key)))
            && self.fields_match(object, resource)
    }

    fn fields_match(&self, object: &Object, resource: &Resource) -> bool {
        let mut decoded = None;
        self.fields.iter().all(|field| {
            let found = match field.path.as_str() {
                "metadata.name" => object.name.to_string(),
                "metadata.namespace" => object.namespace.to_string(),
                path => {
                    let value = decoded.get_or_insert_with(|| object.neutral().unwrap_or_default());
                    field_value(value, path, resource)
                }
            };
            (found == field.value) == field.equal
        })
    }
}

impl Requirement {
    fn matches(&self, value: Option<&str>) -> bool {
        match (&self.operator, value) {
            (Operator::In(set), Some(value)) => set.iter().any(|v| v == value),
            (Operator::NotIn(set), Some(value)) => set.iter().all(|v| v != value),
            (Operator::Exists, Some(_)) | (Operator::Absent | Operator::NotIn(_), None) => true,
            (Operator::Above(limit), Some(value)) => value.parse::<i64>().is_ok_and(|v| v > *limit),
            (Operator::Below(limit), Some(value)) => value.parse::<i64>().is_ok_and(|v| v < *limit),
            (Operator::Absent, Some(_)) | (_, None) => false,
        }
    }
}

fn find<'a>(labels: &'a Labels, key: &str) -> Option<&'a str> {
    labels.binary_search_by(|(k, _)| (**k).cmp(key)).ok().map(|i| &*labels[i].1)
}

fn field_value(value: &Value, path: &str, resource: &Resource) -> String {
    let path = match (path, &resource.origin) {
        // events.k8s.io words for what is stored in the core form.
        (p, Origin::BuiltIn) if p.starts_with("regarding.") => p.replacen("regarding", "involvedObject", 1),
        ("source", _) => "source.component".to_owned(),
        (p, _) => p.to_owned(),
    };
    let found = path.split('.').fold(value, |at, step| &at[step]);
    match found {
        Value::String(text) => text.clone(),
        Value::Null if path.ends_with("unschedulable") || path.ends_with("hostNetwork") => "false".to_owned(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn parse_fields(text: &str) -> Result<Vec<FieldRequirement>, Status> {
    let bad = || {
        Status::bad_request(format!("invalid field selector \"{text}\": want field=value or field!=value"))
    };
    text.split(',')
        .filter(|part| !part.trim().is_empty())
        .map(|part| {
            let (left, value) = part.split_once('=').ok_or_else(bad)?;
            let (path, equal) = match left.strip_suffix('!') {
                Some(path) => (path, false),
                None => (left, true),
            };
            let value = value.strip_prefix('=').unwrap_or(value);
            Ok(FieldRequirement { path: path.trim().into(), equal, value: value.trim().into() })
        })
        .collect()
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn requirements(mut self) -> Result<Vec<Requirement>, String> {
        let mut all = Vec::new();
        self.space();
        while !self.rest.is_empty() {
            all.push(self.requirement()?);
            self.space();
            if !self.rest.is_empty() && !self.take(",") {
                return Err(format!("expected ',' before \"{}\"", self.rest));
            }
            self.space();
        }
        Ok(all)
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let absent = self.take("!");
        let key = self.word();
        if key.is_empty() {
            return Err(format!("expected a label key at \"{}\"", self.rest));
        }
        let operator = if absent { Operator::Absent } else { self.operator()? };
        Ok(Requirement { key, operator })
    }

    fn operator(&mut self) -> Result<Operator, String> {
        self.space();
        if self.rest.is_empty() || self.rest.starts_with(',') {
            return Ok(Operator::Exists);
        }
        if self.take("!=") {
            return Ok(Operator::NotIn(vec![self.value()]));
        }
        if self.take("==") || self.take("=") {
            return Ok(Operator::In(vec![self.value()]));
        }
        if self.take(">") {
            return Ok(Operator::Above(self.number()?));
        }
        if self.take("<") {
            return Ok(Operator::Below(self.number()?));
        }
        match self.word().as_str() {
            "in" => Ok(Operator::In(self.set()?)),
            "notin" => Ok(Operator::NotIn(self.set()?)),
            other => Err(format!("unknown operator \"{other}\"; want =, ==, !=, in, notin, <, >")),
        }
    }

    fn set(&mut self) -> Result<Vec<String>, String> {
        self.space();
        if !self.take("(") {
            return Err("expected '(' after in or notin".into());
        }
        let mut values = vec![self.value()];
        while self.take(",") {
            values.push(self.value());
        }
        if self.take(")") { Ok(values) } else { Err(format!("expected ',' or ')' at \"{}\"", self.rest)) }
    }

    fn number(&mut self) -> Result<i64, String> {
        let text = self.value();
        text.parse().map_err(|_| format!("\"{text}\" is not a number"))
    }

    fn value(&mut self) -> String {
        self.space();
        let value = self.word();
        self.space();
        value
    }

    fn word(&mut self) -> String {
        let end = self
            .rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || "-_./".contains(c)))
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word.to_owned()
    }

    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn holds(selector: &str, labels: Value) -> bool {
        Selector::parse(selector, "").unwrap().matches_labels(&labels)
    }

    #[test]
    fn label_selectors_select_as_kubectl_says() {
        let labels = json!({"app": "reviews", "version": "v2", "n": "7"});
        for yes in [
            "",
            "app=reviews",
            "app == reviews , version!=v1",
            "version in (v1, v2)",
            "!gone",
            "app",
            "n>5,n<8",
        ] {
            assert!(holds(yes, labels.clone()), "{yes}");
        }
        for no in ["app=x", "version notin (v2,v3)", "!app", "gone", "n>7", "gone in (a)"] {
            assert!(!holds(no, labels.clone()), "{no}");
        }
        assert!(holds("gone!=x,gone notin (y)", labels), "an absent label differs from every value");
    }

    #[test]
    fn bad_selectors_are_refused() {
        for bad in ["=x", "a in v1", "a in (v1", "a b", "a>x", ",,"] {
            assert_eq!(Selector::parse(bad, "").unwrap_err().code, 400, "{bad}");
        }
        assert_eq!(Selector::parse("", "spec.nodeName").unwrap_err().code, 400);
    }

    proptest! {
        #[test]
        fn any_text_is_a_selector_or_an_error(text in ".{0,40}") {
            let _ = Selector::parse(&text, &text);
        }

        #[test]
        fn in_and_notin_are_opposites(value in "[a-c]", set in proptest::collection::vec("[a-c]", 1..4)) {
            let set = set.join(",");
            let labels = json!({"k": value});
            prop_assert_ne!(holds(&format!("k in ({set})"), labels.clone()), holds(&format!("k notin ({set})"), labels));
        }
    }
}
