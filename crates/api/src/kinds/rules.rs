//! Rules that several kinds share.

use std::time::Duration;

use lateen_base::parse_duration;
use serde_json::Value;

use crate::field::{Rule, names};

/// The field `name` of an object, in either spelling; `null` is absence.
pub fn part<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    let object = value.as_object()?;
    object.iter().find(|(key, value)| names(name, key) && !value.is_null()).map(|(_, value)| value)
}

/// How many of the fields are set.
pub fn count(value: &Value, fields: &[&str]) -> usize {
    fields.iter().filter(|name| part(value, name).is_some()).count()
}

/// The text of a field, empty when absent.
pub fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    part(value, name).and_then(Value::as_str).unwrap_or_default()
}

/// How many items or entries a field has.
pub fn size(value: &Value, name: &str) -> usize {
    match part(value, name) {
        Some(Value::Array(items)) => items.len(),
        Some(Value::Object(entries)) => entries.len(),
        _ => 0,
    }
}

fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.parse().ok())
}

/// A duration of a millisecond at least.
pub const DURATION: Rule = Rule::Cel {
    rule: "duration(self) >= duration('1ms')",
    message: "must be a valid duration greater than 1ms",
    holds: |value| match value.as_str().map(parse_duration) {
        Some(Ok(duration)) => duration >= Duration::from_millis(1),
        _ => true,
    },
};

/// A port number.
pub const PORT: Rule = Rule::Cel {
    rule: "0 < self && self <= 65535",
    message: "port must be between 1-65535",
    holds: |value| number(value).is_none_or(|n| (1.0..=65535.0).contains(&n)),
};

/// A policy selects by labels, or by one reference, or by a list of references.
pub const ONE_TARGET: Rule = Rule::Cel {
    rule: "(has(self.selector) ? 1 : 0) + (has(self.targetRef) ? 1 : 0) + (has(self.targetRefs) ? 1 : 0) <= 1",
    message: "only one of targetRefs or selector can be set",
    holds: |value| count(value, &["selector", "target_ref", "target_refs"]) <= 1,
};

/// A selector's values know no wildcard.
pub const NO_WILDCARD_IN_SELECTOR: Rule = Rule::Cel {
    rule: "!self.contains(\"*\")",
    message: "wildcard is not supported in selector",
    holds: |value| value.as_str().is_none_or(|text| !text.contains('*')),
};

/// Where code is fetched from.
pub const CODE_URL: Rule = Rule::Cel {
    rule: "isURL(self) ? (url(self).getScheme() in [\"\", \"http\", \"https\", \"oci\", \"file\"]) : (isURL(\"http://\" + self) && \
           url(\"http://\" + self).getScheme() in [\"\", \"http\", \"https\", \"oci\", \"file\"])",
    message: "url must have schema one of [http, https, file, oci]",
    holds: |value| match value.as_str().and_then(|text| text.split_once("://")) {
        Some((scheme, _)) => ["http", "https", "oci", "file"].contains(&scheme),
        None => true,
    },
};
