//! The bounds that Envoy's message types declare for their fields, and whether a message keeps within them.
//!
//! Envoy refuses a resource that does not (protoc-gen-validate's rules are part of its types), so what this finds is
//! what Envoy would find. Unknown types inside an `Any` are not looked into.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use prost::{Message, Name};
use prost_reflect::{
    DynamicMessage, ExtensionDescriptor, FieldDescriptor, Kind, MessageDescriptor, OneofDescriptor,
    ReflectMessage, Value,
};
use regex::Regex;

use crate::json::POOL;

/// A bound that a message breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {rule}")]
pub struct Violation {
    /// The field, from the message that was checked: `filter_chains[0].filters[1].name`.
    pub field: String,
    /// What it has to be.
    pub rule: String,
}

/// Whether a message and all within it keep within their bounds.
///
/// # Errors
/// The first bound that is broken.
pub fn check<M: Message + Name>(message: &M) -> Result<(), Violation> {
    let name = M::full_name();
    let Some(kind) = POOL.get_message_by_name(&name) else { return Ok(()) };
    let decoded = DynamicMessage::decode(kind, message.encode_to_vec().as_slice());
    let wrong = |error: prost::DecodeError| Violation { field: name.clone(), rule: error.to_string() };
    check_message(&decoded.map_err(wrong)?, "", 0)
}

/// Messages are not nested deeper than any reader takes.
const DEPTH: usize = 100;

/// What is declared for a message type.
struct Declared {
    fields: Vec<(FieldDescriptor, DynamicMessage)>,
    oneofs: Vec<OneofDescriptor>,
}

/// Extensions by which bounds are declared; none in a set without them.
struct Extensions {
    rules: ExtensionDescriptor,
    required: ExtensionDescriptor,
}

static EXTENSIONS: LazyLock<Option<Extensions>> = LazyLock::new(|| {
    let find = |name: &str| POOL.all_extensions().find(|extension| extension.full_name() == name);
    Some(Extensions { rules: find("validate.rules")?, required: find("validate.required")? })
});

static DECLARED: LazyLock<Mutex<HashMap<String, Arc<Declared>>>> = LazyLock::new(Mutex::default);

fn declared(kind: &MessageDescriptor) -> Arc<Declared> {
    let mut known = DECLARED.lock().unwrap_or_else(PoisonError::into_inner);
    known.entry(kind.full_name().to_owned()).or_insert_with(|| Arc::new(read(kind))).clone()
}

fn read(kind: &MessageDescriptor) -> Declared {
    let mut declared = Declared { fields: Vec::new(), oneofs: Vec::new() };
    let Some(extensions) = &*EXTENSIONS else { return declared };
    for field in kind.fields() {
        let options = field.options();
        if options.has_extension(&extensions.rules)
            && let Some(rules) = options.get_extension(&extensions.rules).as_message()
        {
            declared.fields.push((field, rules.clone()));
        }
    }
    declared.oneofs = kind
        .oneofs()
        .filter(|oneof| oneof.options().get_extension(&extensions.required).as_bool() == Some(true))
        .collect();
    declared
}

fn check_message(message: &DynamicMessage, at: &str, depth: usize) -> Result<(), Violation> {
    if depth > DEPTH {
        return broken(at, format!("messages are nested deeper than {DEPTH}"));
    }
    let kind = message.descriptor();
    if kind.full_name() == "google.protobuf.Any" {
        return check_packed(message, at, depth);
    }
    let declared = declared(&kind);
    for (field, rules) in &declared.fields {
        check_field(message, field, rules, &under(at, field.name()))?;
    }
    for oneof in &declared.oneofs {
        if !oneof.fields().any(|field| message.has_field(&field)) {
            let names: Vec<String> = oneof.fields().map(|field| field.name().to_owned()).collect();
            return broken(&under(at, oneof.name()), format!("one of {} is required", names.join(", ")));
        }
    }
    for (field, value) in message.fields() {
        let at = under(at, field.name());
        match value {
            Value::Message(inner) => check_message(inner, &at, depth + 1)?,
            Value::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    let Some(inner) = item.as_message() else { break };
                    check_message(inner, &format!("{at}[{index}]"), depth + 1)?;
                }
            }
            Value::Map(entries) => {
                for (key, value) in entries {
                    let Some(inner) = value.as_message() else { break };
                    check_message(inner, &format!("{at}[{key:?}]"), depth + 1)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_packed(any: &DynamicMessage, at: &str, depth: usize) -> Result<(), Violation> {
    let url = any.get_field_by_name("type_url").and_then(|url| Some(url.as_str()?.to_owned()));
    let url = url.unwrap_or_default();
    let Some(kind) = POOL.get_message_by_name(url.rsplit('/').next().unwrap_or_default()) else {
        return Ok(());
    };
    let bytes = any.get_field_by_name("value");
    let bytes = bytes.as_ref().and_then(|value| value.as_bytes()).cloned().unwrap_or_default();
    match DynamicMessage::decode(kind, bytes) {
        Ok(inner) => check_message(&inner, at, depth + 1),
        Err(error) => broken(at, format!("is not of its type {url}: {error}")),
    }
}

fn check_field(
    message: &DynamicMessage,
    field: &FieldDescriptor,
    rules: &DynamicMessage,
    at: &str,
) -> Result<(), Violation> {
    let there = message.has_field(field);
    // Of the members of a oneof only the one that is set has bounds to keep.
    if !there && field.containing_oneof().is_some_and(|oneof| !oneof.is_synthetic()) {
        return Ok(());
    }
    if let Some(of_message) = part(rules, "message") {
        if flag(&of_message, "skip") {
            return Ok(());
        }
        if flag(&of_message, "required") && !there {
            return broken(at, "is required");
        }
    }
    // What has presence and is absent breaks nothing but being required.
    let Some((kind, of_kind)) = typed(rules) else { return Ok(()) };
    if flag(&of_kind, "required") && !there {
        return broken(at, "is required");
    }
    if !there && (field.supports_presence() || flag(&of_kind, "ignore_empty")) {
        return Ok(());
    }
    let value = message.get_field(field);
    match (&*value, kind.as_str()) {
        (Value::List(items), "repeated") => check_list(items, field, &of_kind, at),
        (Value::Map(entries), "map") => {
            bounds(entries.len() as u64, &of_kind, "min_pairs", "max_pairs", "entries", at)?;
            let (Some(of_values), false) = (part(&of_kind, "values"), entries.is_empty()) else {
                return Ok(());
            };
            entries
                .iter()
                .try_for_each(|(key, value)| check_value(value, field, &of_values, &format!("{at}[{key:?}]")))
        }
        (value, _) => check_value(value, field, rules, at),
    }
}

fn check_list(
    items: &[Value],
    field: &FieldDescriptor,
    rules: &DynamicMessage,
    at: &str,
) -> Result<(), Violation> {
    bounds(items.len() as u64, rules, "min_items", "max_items", "items", at)?;
    if flag(rules, "unique") {
        let twice = items.iter().enumerate().find(|(index, item)| items[..*index].contains(item));
        if let Some((index, _)) = twice {
            return broken(&format!("{at}[{index}]"), "is there twice");
        }
    }
    let Some(of_items) = part(rules, "items") else { return Ok(()) };
    items
        .iter()
        .enumerate()
        .try_for_each(|(i, item)| check_value(item, field, &of_items, &format!("{at}[{i}]")))
}

/// Checks one value; a wrapper stands for what it holds.
fn check_value(
    value: &Value,
    field: &FieldDescriptor,
    rules: &DynamicMessage,
    at: &str,
) -> Result<(), Violation> {
    let Some((kind, rules)) = typed(rules) else { return Ok(()) };
    let unwrapped = value.as_message().and_then(|message| {
        let name = message.descriptor().full_name().to_owned();
        let wraps = name.starts_with("google.protobuf.") && name.ends_with("Value");
        wraps.then(|| message.get_field_by_name("value").map(|value| value.into_owned())).flatten()
    });
    let value = unwrapped.as_ref().unwrap_or(value);
    match kind.as_str() {
        "string" => check_text(value.as_str().unwrap_or_default(), &rules, at),
        "bytes" => {
            let length = value.as_bytes().map_or(0, |bytes| bytes.len() as u64);
            bounds(length, &rules, "min_len", "max_len", "bytes", at)
        }
        "enum" => check_enum(value, field, &rules, at),
        "duration" => {
            let length = value.as_message().map(seconds).unwrap_or_default();
            in_range(length, &rules, |bound| bound.as_message().map(seconds), "s", at)
        }
        "any" | "timestamp" | "bool" => Ok(()),
        _ => in_range(number(value).unwrap_or_default(), &rules, number, "", at),
    }
}

fn check_text(text: &str, rules: &DynamicMessage, at: &str) -> Result<(), Violation> {
    bounds(text.chars().count() as u64, rules, "min_len", "max_len", "characters", at)?;
    bounds(text.len() as u64, rules, "min_bytes", "max_bytes", "bytes", at)?;
    let given = |name: &str| Some(string(rules, name)).filter(|wanted| !wanted.is_empty());
    if let Some(prefix) = given("prefix").filter(|prefix| !text.starts_with(prefix)) {
        return broken(at, format!("has to begin with {prefix:?}"));
    }
    if let Some(pattern) = given("pattern")
        && let Ok(regex) = Regex::new(&pattern)
        && !regex.is_match(text)
    {
        return broken(at, format!("has to match {pattern}"));
    }
    let one_of = list(rules, "in");
    if !one_of.is_empty() && !one_of.iter().any(|wanted| wanted.as_str() == Some(text)) {
        return broken(at, "is none of the values that are allowed");
    }
    let known = rules.get_field_by_name("well_known_regex").and_then(|value| value.as_enum_number());
    let strict = !rules.has_field_by_name("strict") || flag(rules, "strict");
    let (name, ok) = match known {
        // Unset is the empty text: what has to be there says so by its length.
        Some(1) if text.is_empty() && !strict => return Ok(()),
        Some(1) => ("the name of a header", !text.is_empty() && text.chars().all(|c| header_name(c, strict))),
        Some(2) => ("the value of a header", text.chars().all(|c| header_value(c, strict))),
        _ => return Ok(()),
    };
    if ok || (text.is_empty() && flag(rules, "ignore_empty")) {
        Ok(())
    } else {
        broken(at, format!("is not {name}"))
    }
}

fn header_name(c: char, strict: bool) -> bool {
    match strict {
        true => c.is_ascii_alphanumeric() || "!#$%&'*+-.^_|~`:".contains(c),
        false => !matches!(c, '\0' | '\n' | '\r'),
    }
}

fn header_value(c: char, strict: bool) -> bool {
    match strict {
        true => c == '\t' || !c.is_ascii_control(),
        false => !matches!(c, '\0' | '\n' | '\r'),
    }
}

fn check_enum(
    value: &Value,
    field: &FieldDescriptor,
    rules: &DynamicMessage,
    at: &str,
) -> Result<(), Violation> {
    let Some(number) = value.as_enum_number() else { return Ok(()) };
    let defined = match field.kind() {
        Kind::Enum(kind) => kind.get_value(number).is_some(),
        _ => true,
    };
    let has = |name: &str| list(rules, name).iter().any(|value| value.as_i32() == Some(number));
    if (flag(rules, "defined_only") && !defined) || has("not_in") {
        return broken(at, format!("{number} is not allowed"));
    }
    Ok(())
}

/// Whether a number is where its rules have it.
fn in_range(
    value: f64,
    rules: &DynamicMessage,
    read: impl Fn(&Value) -> Option<f64>,
    unit: &str,
    at: &str,
) -> Result<(), Violation> {
    let bound = |name: &str| {
        rules.get_field_by_name(name).filter(|_| rules.has_field_by_name(name)).and_then(|v| read(&v))
    };
    let words = [("gt", "greater than"), ("gte", "at least"), ("lt", "less than"), ("lte", "at most")];
    for (name, words) in words {
        let Some(bound) = bound(name) else { continue };
        let holds = match name {
            "gt" => value > bound,
            "gte" => value >= bound,
            "lt" => value < bound,
            _ => value <= bound,
        };
        if !holds {
            return broken(at, format!("{value}{unit} has to be {words} {bound}{unit}"));
        }
    }
    let one_of = list(rules, "in");
    if !one_of.is_empty() && !one_of.iter().any(|wanted| read(wanted) == Some(value)) {
        return broken(at, format!("{value}{unit} is none of the values that are allowed"));
    }
    Ok(())
}

fn bounds(
    size: u64,
    rules: &DynamicMessage,
    least: &str,
    most: &str,
    of: &str,
    at: &str,
) -> Result<(), Violation> {
    let bound = |name: &str| {
        rules
            .get_field_by_name(name)
            .filter(|_| rules.has_field_by_name(name))
            .and_then(|value| value.as_u64())
    };
    if let Some(least) = bound(least).filter(|least| size < *least) {
        return broken(at, format!("needs at least {least} {of}"));
    }
    if let Some(most) = bound(most).filter(|most| size > *most) {
        return broken(at, format!("has more than {most} {of}"));
    }
    Ok(())
}

/// The rules for the kind of a value, and the kind's name.
fn typed(rules: &DynamicMessage) -> Option<(String, DynamicMessage)> {
    let oneof = rules.descriptor().oneofs().find(|oneof| oneof.name() == "type")?;
    let field = oneof.fields().find(|field| rules.has_field(field))?;
    let of_kind = rules.get_field(&field).as_message()?.clone();
    Some((field.name().to_owned(), of_kind))
}

fn part(rules: &DynamicMessage, name: &str) -> Option<DynamicMessage> {
    rules.has_field_by_name(name).then(|| rules.get_field_by_name(name)?.as_message().cloned()).flatten()
}

fn flag(rules: &DynamicMessage, name: &str) -> bool {
    rules.get_field_by_name(name).and_then(|value| value.as_bool()).unwrap_or(false)
}

fn string(rules: &DynamicMessage, name: &str) -> String {
    rules.get_field_by_name(name).and_then(|value| Some(value.as_str()?.to_owned())).unwrap_or_default()
}

fn list(rules: &DynamicMessage, name: &str) -> Vec<Value> {
    rules.get_field_by_name(name).and_then(|value| Some(value.as_list()?.to_vec())).unwrap_or_default()
}

fn number(value: &Value) -> Option<f64> {
    Some(match value {
        Value::I32(value) => f64::from(*value),
        Value::U32(value) => f64::from(*value),
        Value::I64(value) => *value as f64,
        Value::U64(value) => *value as f64,
        Value::F32(value) => f64::from(*value),
        Value::F64(value) => *value,
        _ => return None,
    })
}

/// A duration in seconds.
fn seconds(duration: &DynamicMessage) -> f64 {
    let of =
        |name: &str| duration.get_field_by_name(name).and_then(|value| number(&value)).unwrap_or_default();
    of("seconds") + of("nanos") / 1e9
}

fn under(at: &str, name: &str) -> String {
    if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") }
}

fn broken(at: &str, rule: impl Display) -> Result<(), Violation> {
    Err(Violation { field: at.to_owned(), rule: rule.to_string() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::envoy::config::cluster::v3::Cluster;
    use crate::envoy::config::listener::v3::Listener;
    use crate::envoy::config::route::v3::RouteConfiguration;
    use crate::json::from_value;

    fn said<M: Message + Name + Default>(json: serde_json::Value) -> String {
        check(&from_value::<M>(&json).unwrap())
            .err()
            .map(|violation| violation.to_string())
            .unwrap_or_default()
    }

    #[test]
    fn bounds_of_envoys_types_are_kept() {
        assert_eq!(said::<Cluster>(json!({"name": "a", "connect_timeout": "1s"})), "");
        assert_eq!(said::<Cluster>(json!({})), "name: needs at least 1 characters");
        assert_eq!(
            said::<Cluster>(json!({"name": "a", "connect_timeout": "0s"})),
            "connect_timeout: 0s has to be greater than 0s"
        );
        let ring = json!({"name": "a", "ring_hash_lb_config": {"minimum_ring_size": 8_388_609}});
        assert_eq!(
            said::<Cluster>(ring),
            "ring_hash_lb_config.minimum_ring_size: 8388609 has to be at most 8388608"
        );
        assert_eq!(said::<Cluster>(json!({"name": "a", "lb_policy": 99})), "lb_policy: 99 is not allowed");
    }

    #[test]
    fn what_is_required_is_and_lists_have_their_sizes() {
        let host = |host: serde_json::Value| said::<RouteConfiguration>(json!({"virtual_hosts": [host]}));
        assert_eq!(host(json!({"name": "a"})), "virtual_hosts[0].domains: needs at least 1 items");
        let route = json!({"name": "a", "domains": ["*"], "routes": [{"match": {"prefix": "/"}}]});
        let wrong = host(route);
        assert!(wrong.starts_with("virtual_hosts[0].routes[0].action: one of route, "), "{wrong}");
        let good = json!({"name": "a", "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, "direct_response": {"status": 418}}]});
        assert_eq!(host(good), "", "what no member of a oneof is required of is not");
        let header = json!({"name": "a", "domains": ["*"],
            "request_headers_to_add": [{"header": {"key": "a\nb", "value": "c"}}]});
        assert_eq!(
            host(header),
            "virtual_hosts[0].request_headers_to_add[0].header.key: is not the name of a header"
        );
    }

    #[test]
    fn what_is_packed_is_looked_into() {
        let manager = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
        let listener =
            json!({"filter_chains": [{"filters": [{"name": "hcm", "typed_config": {"@type": manager}}]}]});
        assert_eq!(
            said::<Listener>(listener),
            "filter_chains[0].filters[0].typed_config.stat_prefix: needs at least 1 characters"
        );
    }
}
