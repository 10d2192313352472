//! `metadata`: names, and the fields that belong to the server.

use rand::Rng;
use serde_json::{Value, json};

use super::Call;
use crate::object;
use crate::resource::Resource;
use crate::status::{Cause, Status};

/// The time as Kubernetes writes it: RFC 3339 in UTC, whole seconds.
pub(crate) fn now() -> String {
    rfc3339(time::OffsetDateTime::now_utc())
}

/// A time as Kubernetes writes it.
pub(crate) fn rfc3339(at: time::OffsetDateTime) -> String {
    let (date, time) = (at.date(), at.time());
    let (hour, minute, second) = time.as_hms();
    format!(
        "{:04}-{:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z",
        date.year(),
        u8::from(date.month()),
        date.day()
    )
}

/// A random version 4 UUID.
pub(crate) fn uuid() -> String {
    let mut bytes: [u8; 16] = rand::rng().random();
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// The five letters that end a generated name; no vowels, as in Kubernetes.
pub(crate) fn suffix() -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut random = rand::rng();
    (0..5).map(|_| LETTERS[random.random_range(0..LETTERS.len())] as char).collect()
}

/// Checks `apiVersion` and `kind` against the address of the request and fills them in.
pub(super) fn check_type(call: &Call<'_>, value: &mut Value) -> Result<(), Status> {
    if !value.is_object() {
        return Err(Status::bad_request(format!(
            "the body is not a JSON object that holds a {}",
            call.resource.kind
        )));
    }
    for (key, wanted) in [("apiVersion", call.resource.api_version()), ("kind", call.resource.kind.clone())] {
        match value[key].as_str() {
            None => value[key] = json!(wanted),
            Some(got) if got == wanted => {}
            Some(got) => {
                return Err(Status::bad_request(format!(
                    "the {key} in the data ({got}) does not match the expected {key} ({wanted})"
                )));
            }
        }
    }
    Ok(())
}

/// Checks `metadata.namespace` against the address of the request and fills it in.
pub(super) fn check_namespace(call: &Call<'_>, value: &mut Value) -> Result<(), Status> {
    let given = object::namespace(value).to_owned();
    if !given.is_empty() && given != call.namespace {
        return Err(Status::bad_request(format!(
            "the namespace of the provided object does not match the namespace sent on the request ({given}, {})",
            if call.namespace.is_empty() { "none" } else { call.namespace }
        )));
    }
    let metadata = object::metadata_mut(value);
    if call.resource.namespaced {
        if call.namespace.is_empty() {
            return Err(Status::bad_request("an empty namespace may not be set during creation"));
        }
        metadata.insert("namespace".into(), json!(call.namespace));
    } else {
        metadata.remove("namespace");
    }
    Ok(())
}

/// Metadata as every kind has to have it.
pub(super) fn causes(resource: &Resource, value: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let metadata = object::metadata(value);
    if let Some(why) = name_problem(resource, object::name(value)) {
        causes.push(Cause::invalid("metadata.name", &metadata["name"], why));
    }
    for key in ["labels", "annotations"] {
        match &metadata[key] {
            Value::Null => {}
            Value::Object(map) => map_causes(key, map, &mut causes),
            other => {
                causes.push(Cause::type_mismatch(format!("metadata.{key}"), other, "want a map of strings"))
            }
        }
    }
    causes
}

fn map_causes(key: &str, map: &serde_json::Map<String, Value>, causes: &mut Vec<Cause>) {
    let path = format!("metadata.{key}");
    for (name, value) in map {
        if !is_qualified_name(name) {
            causes.push(Cause::invalid(&*path, &json!(name), "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc'), with an optional DNS subdomain prefix and '/'"));
        }
        match value.as_str() {
            None => causes.push(Cause::type_mismatch(
                format!("{path}.{name}"),
                value,
                "want a string; put numbers and booleans in quotes",
            )),
            Some(text) if key == "labels" && !is_label_value(text) => {
                causes.push(Cause::invalid(&*path, value, "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character, and be at most 63 characters long"));
            }
            Some(_) => {}
        }
    }
}

/// A label value as Kubernetes allows it.
pub(crate) fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_word(text)
}

fn is_word(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && edge(text.chars().next())
        && edge(text.chars().last())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

fn is_qualified_name(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_subdomain(&prefix.to_lowercase()) && is_word(name),
        None => is_word(text),
    }
}

fn is_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty()
        && text.len() <= 63
        && text.chars().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_subdomain(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|part| {
            is_label(part) || part.len() > 63 && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        })
}

fn name_problem(resource: &Resource, name: &str) -> Option<&'static str> {
    const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com')";
    const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc')";
    const SERVICE: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123')";
    if resource.group == "rbac.authorization.k8s.io" {
        let bad = name.is_empty() || name == "." || name == ".." || name.contains(['/', '%']);
        return bad.then_some("may not be empty, '.', '..', or contain '/' or '%'");
    }
    match resource.name.as_str() {
        "namespaces" => (!is_label(name)).then_some(LABEL),
        "services" => (!is_label(name) || name.starts_with(|c: char| c.is_ascii_digit())).then_some(SERVICE),
        _ => (!is_subdomain(name)).then_some(SUBDOMAIN),
    }
}
