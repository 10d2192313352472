//! Bodies in Kubernetes' protobuf: `kubectl create ns` and others of its typed commands send nothing else since 1.32.
//!
//! Read into JSON by a table of the messages that kubectl sends. Fields that Go always writes, empty or not, are left out when
//! they are empty, unless emptiness says something there.

use std::collections::HashMap;
use std::sync::OnceLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::status::Status;

/// The media type.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

const MAGIC: &[u8] = b"k8s\0";
const TABLE: &str = include_str!("protobuf/fields.txt");
const DEEPEST: usize = 48;

/// Numbers and booleans that are pointers in Go: zero and false are values there, not absence.
const MEANT: &[&str] = &[
    "activeDeadlineSeconds",
    "allocateLoadBalancerNodePorts",
    "allowPrivilegeEscalation",
    "automountServiceAccountToken",
    "averageUtilization",
    "backoffLimit",
    "blockOwnerDeletion",
    "completions",
    "controller",
    "defaultMode",
    "enableServiceLinks",
    "expirationSeconds",
    "failedJobsHistoryLimit",
    "fsGroup",
    "gracePeriodSeconds",
    "immutable",
    "minReplicas",
    "mode",
    "optional",
    "orphanDependents",
    "parallelism",
    "priority",
    "privileged",
    "readOnlyRootFilesystem",
    "replicas",
    "revisionHistoryLimit",
    "runAsGroup",
    "runAsNonRoot",
    "runAsUser",
    "shareProcessNamespace",
    "stabilizationWindowSeconds",
    "successfulJobsHistoryLimit",
    "suspend",
    "terminationGracePeriodSeconds",
    "tolerationSeconds",
    "ttlSecondsAfterFinished",
    "value",
];

#[derive(Debug, Clone, Copy)]
struct Field {
    /// `-`: the message's fields belong to the parent.
    name: &'static str,
    shape: Shape,
    of: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    One,
    Many,
    Map,
}

type Messages = HashMap<&'static str, HashMap<u64, Field>>;

/// A body as JSON, with `apiVersion` and `kind`.
pub(crate) fn decode(body: &[u8]) -> Result<Value, Status> {
    read(body)
        .map_err(|why| Status::bad_request(format!("the body is not a Kubernetes protobuf object: {why}")))
}

fn read(body: &[u8]) -> Result<Value, String> {
    let envelope = body.strip_prefix(MAGIC).ok_or("it does not start with k8s and a zero byte")?;
    let (mut type_meta, mut raw) = (&[][..], &[][..]);
    for entry in Entries(envelope) {
        match entry? {
            (1, Wire::Bytes(bytes)) => type_meta = bytes,
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let (mut api_version, mut kind) = (String::new(), String::new());
    for entry in Entries(type_meta) {
        match entry? {
            (1, Wire::Bytes(bytes)) => api_version = text(bytes)?,
            (2, Wire::Bytes(bytes)) => kind = text(bytes)?,
            _ => {}
        }
    }
    let name = match (api_version.as_str(), kind.as_str()) {
        ("autoscaling/v2", "HorizontalPodAutoscaler") => "autoscaling.v2.HorizontalPodAutoscaler",
        ("events.k8s.io/v1", "Event") => "",
        (_, kind) => kind,
    };
    let (name, _) = messages().get_key_value(name).ok_or_else(|| {
        format!("{api_version} {kind} is not understood in protobuf by this server; send JSON")
    })?;
    let mut object = Map::new();
    object.insert("apiVersion".into(), json!(api_version));
    object.insert("kind".into(), json!(kind));
    message(name, raw, &mut object, 0)?;
    Ok(Value::Object(object))
}

fn messages() -> &'static Messages {
    static MESSAGES: OnceLock<Messages> = OnceLock::new();
    MESSAGES.get_or_init(|| {
        let lines = TABLE.lines().filter(|line| !line.starts_with('#'));
        lines
            .filter_map(|line| {
                let mut words = line.split(' ');
                Some((words.next()?, words.filter_map(field).collect()))
            })
            .collect()
    })
}

/// `env=7*:EnvVar`.
fn field(word: &'static str) -> Option<(u64, Field)> {
    let (name, rest) = word.split_once('=')?;
    let (number, of) = rest.split_once(':')?;
    let digits = number.trim_end_matches(['*', '{', '}']);
    let shape = match &number[digits.len()..] {
        "*" => Shape::Many,
        "{}" => Shape::Map,
        _ => Shape::One,
    };
    Some((digits.parse().ok()?, Field { name, shape, of }))
}

fn message(name: &str, bytes: &[u8], out: &mut Map<String, Value>, depth: usize) -> Result<(), String> {
    if depth > DEEPEST {
        return Err("it is nested too deeply".into());
    }
    let Some(fields) = messages().get(name) else { return Ok(()) };
    for entry in Entries(bytes) {
        let (number, wire) = entry?;
        let Some(field) = fields.get(&number) else { continue };
        match field.shape {
            Shape::One if field.name == "-" => {
                if let Wire::Bytes(inner) = wire {
                    message(field.of, inner, out, depth + 1)?;
                }
            }
            Shape::One => {
                let value = value(field.of, &wire, depth)?;
                if !is_empty(field.name, &value) {
                    out.insert(field.name.into(), value);
                }
            }
            Shape::Many => {
                let value = value(field.of, &wire, depth)?;
                if let Value::Array(list) = out.entry(field.name).or_insert_with(|| json!([])) {
                    list.push(value);
                }
            }
            Shape::Map => {
                let (key, value) = map_entry(field.of, &wire, depth)?;
                if let Value::Object(map) = out.entry(field.name).or_insert_with(|| json!({})) {
                    map.insert(key, value);
                }
            }
        }
    }
    Ok(())
}

fn is_empty(name: &str, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Bool(false) => !MEANT.contains(&name),
        Value::Number(number) => number.as_i64() == Some(0) && !MEANT.contains(&name),
        // Go writes empty structs; those that mean something when empty are these.
        Value::Object(map) => {
            map.is_empty()
                && !matches!(
                    name,
                    "emptyDir" | "podSelector" | "namespaceSelector" | "selector" | "securityContext"
                )
        }
        _ => false,
    }
}

fn map_entry(of: &str, wire: &Wire<'_>, depth: usize) -> Result<(String, Value), String> {
    let Wire::Bytes(bytes) = wire else { return Err("a map entry is not a message".into()) };
    let mut key = String::new();
    let mut found = match of {
        "s" | "y" | "Quantity" => json!(""),
        _ => Value::Null,
    };
    for entry in Entries(bytes) {
        match entry? {
            (1, Wire::Bytes(bytes)) => key = text(bytes)?,
            (2, wire) => found = value(of, &wire, depth)?,
            _ => {}
        }
    }
    Ok((key, found))
}

fn value(of: &str, wire: &Wire<'_>, depth: usize) -> Result<Value, String> {
    Ok(match (of, wire) {
        ("s", Wire::Bytes(bytes)) => json!(text(bytes)?),
        ("y", Wire::Bytes(bytes)) => json!(STANDARD.encode(bytes)),
        ("b", Wire::Varint(number)) => json!(*number != 0),
        // Negative numbers are written as their 64-bit two's complement.
        ("i", Wire::Varint(number)) => json!(number.cast_signed()),
        ("Quantity", Wire::Bytes(bytes)) => first_text(bytes)?,
        ("Time" | "MicroTime", Wire::Bytes(bytes)) => time_of(bytes)?,
        ("IntOrString", Wire::Bytes(bytes)) => int_or_string(bytes)?,
        ("ExtraValue", Wire::Bytes(bytes)) => {
            let items: Result<Vec<Value>, String> =
                Entries(bytes).map(|e| value("s", &e?.1, depth)).collect();
            Value::Array(items?)
        }
        (name, Wire::Bytes(bytes)) if name.len() > 1 => {
            let mut inner = Map::new();
            message(name, bytes, &mut inner, depth + 1)?;
            Value::Object(inner)
        }
        _ => return Err(format!("a field of type {of} is encoded as something else")),
    })
}

fn first_text(bytes: &[u8]) -> Result<Value, String> {
    for entry in Entries(bytes) {
        if let (1, Wire::Bytes(bytes)) = entry? {
            return Ok(json!(text(bytes)?));
        }
    }
    Ok(json!(""))
}

fn time_of(bytes: &[u8]) -> Result<Value, String> {
    for entry in Entries(bytes) {
        if let (1, Wire::Varint(seconds)) = entry? {
            let at = time::OffsetDateTime::from_unix_timestamp(seconds.cast_signed())
                .map_err(|e| e.to_string())?;
            return Ok(json!(crate::api::rfc3339(at)));
        }
    }
    Ok(Value::Null)
}

fn int_or_string(bytes: &[u8]) -> Result<Value, String> {
    let (mut is_text, mut number, mut word) = (false, 0, String::new());
    for entry in Entries(bytes) {
        match entry? {
            (1, Wire::Varint(kind)) => is_text = kind == 1,
            (2, Wire::Varint(value)) => number = value.cast_signed(),
            (3, Wire::Bytes(bytes)) => word = text(bytes)?,
            _ => {}
        }
    }
    Ok(match (is_text, number) {
        (true, _) => json!(word),
        (false, 0) => Value::Null,
        (false, number) => json!(number),
    })
}

fn text(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| "a string is not UTF-8".into())
}

/// A value on the wire.
#[derive(Debug)]
enum Wire<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// Fixed-size numbers, which these messages do not use.
    Fixed,
}

/// The fields of a message, in order.
struct Entries<'a>(&'a [u8]);

impl<'a> Entries<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, count: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(count).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    fn entry(&mut self) -> Option<(u64, Wire<'a>)> {
        let key = self.varint()?;
        let wire = match key & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => self.take(8).map(|_| Wire::Fixed)?,
            2 => {
                let count = self.varint()?;
                Wire::Bytes(self.take(count)?)
            }
            5 => self.take(4).map(|_| Wire::Fixed)?,
            _ => return None,
        };
        Some((key >> 3, wire))
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<(u64, Wire<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let entry = self.entry().ok_or_else(|| "it ends in the middle of a field".to_owned());
        if entry.is_err() {
            self.0 = &[];
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, u8::try_from(content.len()).unwrap()], content].concat()
    }

    fn body(kind: &str, raw: &[u8]) -> Vec<u8> {
        let type_meta = [field(1, b"v1"), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &type_meta), field(2, raw)].concat()
    }

    #[test]
    fn a_secret_and_a_service() {
        let metadata = [field(1, b"s"), field(3, b""), field(8, &[])].concat();
        let data = [field(1, b"k"), field(2, b"\x01\x02")].concat();
        let secret = [field(1, &metadata), field(2, &data), field(3, b"Opaque")].concat();
        let expected = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"k": "AQI="}, "type": "Opaque"});
        assert_eq!(decode(&body("Secret", &secret)).unwrap(), expected);
        let target = [vec![0x08, 0x01, 0x10, 0x00], field(3, b"http")].concat();
        let port = [vec![0x18, 0x50], field(4, &target), vec![0x28, 0x00]].concat();
        let service = field(2, &field(1, &port));
        let decoded = decode(&body("Service", &service)).unwrap();
        assert_eq!(decoded["spec"]["ports"], json!([{"port": 80, "targetPort": "http"}]));
        assert_eq!(decode(&body("Nothing", b"")).unwrap_err().code, 400);
    }

    #[test]
    fn the_table_is_whole() {
        let known = messages();
        for (name, fields) in known {
            for field in fields.values() {
                let builtin =
                    ["s", "b", "i", "y", "Quantity", "Time", "MicroTime", "IntOrString"].contains(&field.of);
                assert!(builtin || known.contains_key(field.of), "{name}.{}: {}", field.name, field.of);
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_object_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = decode(&body("Pod", &bytes));
        }
    }
}
