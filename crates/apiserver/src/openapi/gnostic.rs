//! OpenAPI version 2 in protobuf, as kubectl asks for it
//! (<https://github.com/google/gnostic-models/blob/main/openapiv2/OpenAPIv2.proto>).

use serde_json::{Map, Value};

/// A whole document.
pub(crate) fn document(document: &Value) -> Vec<u8> {
    let mut out = Message::default();
    out.text(1, document["swagger"].as_str().unwrap_or("2.0"));
    let mut info = Message::default();
    info.text(1, document["info"]["title"].as_str().unwrap_or_default());
    info.text(2, document["info"]["version"].as_str().unwrap_or_default());
    out.message(2, info);
    out.message(8, paths(&document["paths"]));
    out.message(9, named_schemas(document["definitions"].as_object()));
    out.0
}

fn paths(paths: &Value) -> Message {
    let mut out = Message::default();
    for (name, item) in paths.as_object().into_iter().flatten() {
        let mut operations = Message::default();
        for (field, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (8, "patch")] {
            if item[method].is_object() {
                operations.message(field, operation(&item[method]));
            }
        }
        let mut named = Message::default();
        named.text(1, name);
        named.message(2, operations);
        out.message(2, named);
    }
    out
}

/// What clients look for: parameters, and whose operation it is.
fn operation(value: &Value) -> Message {
    let mut out = Message::default();
    out.text(5, value["operationId"].as_str().unwrap_or_default());
    for parameter in value["parameters"].as_array().into_iter().flatten() {
        let mut query = Message::default();
        for (field, key) in [(2, "in"), (4, "name"), (6, "type")] {
            query.text(field, parameter[key].as_str().unwrap_or_default());
        }
        // A parameter is one of several, which is one of several.
        let wrapped = [3, 2, 1].into_iter().fold(query, |inner, field| {
            let mut outer = Message::default();
            outer.message(field, inner);
            outer
        });
        out.message(8, wrapped);
    }
    for (key, value) in value.as_object().into_iter().flatten().filter(|(key, _)| key.starts_with("x-")) {
        out.message(13, extension(key, value));
    }
    out
}

fn extension(name: &str, value: &Value) -> Message {
    let mut named = Message::default();
    named.text(1, name);
    named.message(2, any(value));
    named
}

/// `Definitions` and `Properties` look alike.
fn named_schemas(schemas: Option<&Map<String, Value>>) -> Message {
    let mut out = Message::default();
    for (name, value) in schemas.into_iter().flatten() {
        let mut named = Message::default();
        named.text(1, name);
        named.message(2, schema(value));
        out.message(1, named);
    }
    out
}

fn schema(value: &Value) -> Message {
    let mut out = Message::default();
    for (key, value) in value.as_object().into_iter().flatten() {
        match key.as_str() {
            "$ref" => out.text(1, value.as_str().unwrap_or_default()),
            "format" => out.text(2, value.as_str().unwrap_or_default()),
            "description" => out.text(4, value.as_str().unwrap_or_default()),
            "default" => out.message(5, any(value)),
            "maximum" => out.double(7, value.as_f64().unwrap_or_default()),
            "minimum" => out.double(9, value.as_f64().unwrap_or_default()),
            "maxLength" => out.number(11, value.as_u64().unwrap_or_default()),
            "minLength" => out.number(12, value.as_u64().unwrap_or_default()),
            "pattern" => out.text(13, value.as_str().unwrap_or_default()),
            "maxItems" => out.number(14, value.as_u64().unwrap_or_default()),
            "minItems" => out.number(15, value.as_u64().unwrap_or_default()),
            "required" => texts(value).for_each(|text| out.text(19, text)),
            "enum" => value.as_array().into_iter().flatten().for_each(|one| out.message(20, any(one))),
            "additionalProperties" => out.message(21, additional(value)),
            "type" => {
                let mut kinds = Message::default();
                value.as_str().into_iter().chain(texts(value)).for_each(|kind| kinds.text(1, kind));
                out.message(22, kinds);
            }
            "items" => {
                let mut items = Message::default();
                items.message(1, schema(value));
                out.message(23, items);
            }
            "allOf" => value.as_array().into_iter().flatten().for_each(|one| out.message(24, schema(one))),
            "properties" => out.message(25, named_schemas(value.as_object())),
            name if name.starts_with("x-") => out.message(31, extension(name, value)),
            _ => {}
        }
    }
    out
}

fn additional(value: &Value) -> Message {
    let mut out = Message::default();
    match value {
        Value::Bool(allowed) => out.number(2, u64::from(*allowed)),
        other => out.message(1, schema(other)),
    }
    out
}

/// Any value, as YAML: JSON is a part of it.
fn any(value: &Value) -> Message {
    let mut out = Message::default();
    out.text(2, &value.to_string());
    out
}

fn texts(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// A message being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn key(&mut self, field: u64, wire: u64) {
        self.varint(field << 3 | wire);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.key(field, 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, field: u64, text: &str) {
        self.bytes(field, text.as_bytes());
    }

    fn message(&mut self, field: u64, message: Self) {
        self.bytes(field, &message.0);
    }

    fn number(&mut self, field: u64, value: u64) {
        self.key(field, 0);
        self.varint(value);
    }

    fn double(&mut self, field: u64, value: f64) {
        self.key(field, 1);
        self.0.extend_from_slice(&value.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_and_lengths_are_varints() {
        let mut message = Message::default();
        message.number(1, 300);
        message.text(2, "ab");
        assert_eq!(message.0, [0x08, 0xac, 0x02, 0x12, 0x02, b'a', b'b']);
        let schema = schema(&json!({"type": "string", "x-y": [1]}));
        assert_eq!(
            schema.0,
            [
                0xb2, 0x01, 8, 0x0a, 6, b's', b't', b'r', b'i', b'n', b'g', 0xfa, 0x01, 12, 0x0a, 3, b'x',
                b'-', b'y', 0x12, 5, 0x12, 3, b'[', b'1', b']'
            ]
        );
    }
}
