//! Merging messages the way EnvoyFilter does: as protobuf merges, but inside of what is packed, too.
//!
//! Protobuf's own merge would take one `Any` for another, and add durations up field by field. Here configurations of
//! the same type are merged inside their `Any`, and what stands for a single value is replaced.

use prost::{Message, Name};
use prost_reflect::{DynamicMessage, MapKey, ReflectMessage, Value};

use crate::json::{self, JsonError, POOL, Unknown};

/// What becomes of lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lists {
    /// The patch's items come after those there are.
    Append,
    /// The patch's items take the place of those there are.
    Replace,
}

const ANY: &str = "google.protobuf.Any";
/// Messages that stand for one value.
const SINGLE: &[&str] = &["Duration", "Timestamp", "Value", "ListValue", "FieldMask"];
/// Any message as JSON-like data, with the type that it is of.
const TYPED_STRUCTS: &[&str] = &["udpa.type.v1.TypedStruct", "xds.type.v3.TypedStruct"];

/// Merges `patch` into a message: what it sets is set, messages merge field by field, lists as `lists` says, entries of
/// maps take the place of those of their key. `Any` of one type merge inside, of two types the patch's counts.
///
/// # Errors
/// When the type is not of the built-in set, or what an `Any` holds is malformed.
pub fn merge<M: Message + Name + Default>(into: &mut M, patch: &M, lists: Lists) -> Result<(), JsonError> {
    let name = M::full_name();
    let mut merged = dynamic(&name, &into.encode_to_vec())?;
    merge_into(&mut merged, &dynamic(&name, &patch.encode_to_vec())?, lists)?;
    let bytes = merged.encode_to_vec();
    *into = M::decode(bytes.as_slice()).map_err(|error| JsonError::Decode(name, error))?;
    Ok(())
}

/// Whether both hold configuration of one type, so that they merge inside.
pub fn same_type(into: &crate::Any, patch: &crate::Any) -> bool {
    let of = |any: &crate::Any| any.type_url.rsplit('/').next().unwrap_or_default().to_owned();
    let named = |any: &crate::Any| {
        let kind = of(any);
        let inner = || {
            let held = dynamic(&kind, &any.value).ok()?;
            let url = held.get_field_by_name("type_url")?.as_str()?.to_owned();
            url.rsplit('/').next().map(str::to_owned)
        };
        match TYPED_STRUCTS.contains(&kind.as_str()) {
            true => inner().unwrap_or(kind),
            false => kind,
        }
    };
    of(into) == of(patch) || of(into) == named(patch)
}

fn merge_into(into: &mut DynamicMessage, patch: &DynamicMessage, lists: Lists) -> Result<(), JsonError> {
    for (field, value) in patch.fields() {
        match value {
            Value::Map(entries) if field.is_map() => {
                let mut merged = into.get_field(&field).into_owned();
                if let Value::Map(merged) = &mut merged {
                    for (key, value) in entries {
                        let value = entry(merged.get(key), key, value, lists)?;
                        merged.insert(key.clone(), value);
                    }
                }
                into.set_field(&field, merged);
            }
            Value::List(items) if field.is_list() && lists == Lists::Append => {
                let mut all = into.get_field(&field).into_owned();
                if let Value::List(all) = &mut all {
                    all.extend(items.iter().cloned());
                }
                into.set_field(&field, all);
            }
            Value::Message(patch) if into.has_field(&field) => {
                let mut merged = into.get_field(&field).into_owned();
                if let Value::Message(merged) = &mut merged {
                    message(merged, patch, lists)?;
                }
                into.set_field(&field, merged);
            }
            value => into.set_field(&field, value.clone()),
        }
    }
    Ok(())
}

/// An entry of a map: protobuf has the patch's, except for what is packed, which merges inside.
fn entry(there: Option<&Value>, _key: &MapKey, patch: &Value, lists: Lists) -> Result<Value, JsonError> {
    match (there, patch) {
        (Some(Value::Message(there)), Value::Message(patch)) if patch.descriptor().full_name() == ANY => {
            let mut merged = there.clone();
            any(&mut merged, patch, lists)?;
            Ok(Value::Message(merged))
        }
        _ => Ok(patch.clone()),
    }
}

fn message(into: &mut DynamicMessage, patch: &DynamicMessage, lists: Lists) -> Result<(), JsonError> {
    let kind = patch.descriptor();
    if kind.full_name() == ANY {
        return any(into, patch, lists);
    }
    if is_single(kind.full_name()) {
        into.clone_from(patch);
        return Ok(());
    }
    merge_into(into, patch, lists)
}

/// Whether messages of this type stand for one value: durations, and numbers and texts that can be absent.
fn is_single(kind: &str) -> bool {
    let known = kind.strip_prefix("google.protobuf.");
    known.is_some_and(|name| SINGLE.contains(&name) || (name.ends_with("Value") && name != "NullValue"))
}

fn any(into: &mut DynamicMessage, patch: &DynamicMessage, lists: Lists) -> Result<(), JsonError> {
    let (there, new) = (packed(into), packed(patch));
    let merged = match (&there, &new) {
        (Some((kind, bytes)), Some((other, patch))) if kind == other => {
            Some((kind, bytes, dynamic(other, patch)?))
        }
        // Data of the type that is there, by another way of writing it.
        (Some((kind, bytes)), Some((other, patch))) if TYPED_STRUCTS.contains(&other.as_str()) => {
            unstructured(&dynamic(other, patch)?, kind)?.map(|patch| (kind, bytes, patch))
        }
        _ => None,
    };
    let Some((kind, bytes, patch_inside)) = merged.filter(|(kind, ..)| json::knows(kind)) else {
        into.clone_from(patch);
        return Ok(());
    };
    let mut inside = dynamic(kind, bytes)?;
    merge_into(&mut inside, &patch_inside, lists)?;
    into.set_field_by_name("value", Value::Bytes(inside.encode_to_vec().into()));
    Ok(())
}

/// The type and the bytes that an `Any` holds.
fn packed(any: &DynamicMessage) -> Option<(String, Vec<u8>)> {
    let url = any.get_field_by_name("type_url")?.as_str()?.to_owned();
    let bytes = any.get_field_by_name("value")?.as_bytes()?.to_vec();
    let kind = url.rsplit('/').next().unwrap_or_default().to_owned();
    Some((kind, bytes))
}

/// What a typed struct says, as the message that it names; nothing where it names another type than `kind`.
fn unstructured(typed: &DynamicMessage, kind: &str) -> Result<Option<DynamicMessage>, JsonError> {
    let url = typed.get_field_by_name("type_url").and_then(|url| Some(url.as_str()?.to_owned()));
    let names = url.unwrap_or_default().rsplit('/').next() == Some(kind);
    if !names || !json::knows(kind) {
        return Ok(None);
    }
    let value = typed.get_field_by_name("value");
    let Some(value) = value.as_ref().and_then(|value| value.as_message()) else { return Ok(None) };
    let json = serde_json::to_value(value).map_err(|error| JsonError::Json(kind.to_owned(), error))?;
    json::decode(kind, &json, Unknown::Refused).map(Some)
}

fn dynamic(name: &str, bytes: &[u8]) -> Result<DynamicMessage, JsonError> {
    let kind = POOL.get_message_by_name(name).ok_or_else(|| JsonError::UnknownType(name.to_owned()))?;
    DynamicMessage::decode(kind, bytes).map_err(|error| JsonError::Decode(name.to_owned(), error))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::envoy::config::cluster::v3::Cluster;
    use crate::json::{Names, from_value, to_value};

    fn merged(into: serde_json::Value, patch: serde_json::Value, lists: Lists) -> serde_json::Value {
        let mut cluster: Cluster = from_value(&into).unwrap();
        merge(&mut cluster, &from_value(&patch).unwrap(), lists).unwrap();
        to_value(&cluster, Names::Proto).unwrap()
    }

    #[test]
    fn durations_and_wrappers_are_replaced_messages_and_lists_merge() {
        let into = json!({
            "name": "a", "connect_timeout": "1.5s", "lb_policy": "RANDOM",
            "circuit_breakers": {"thresholds": [{"max_connections": 7}]},
            "common_lb_config": {"healthy_panic_threshold": {"value": 50.0}},
        });
        let patch = json!({
            "connect_timeout": "2s", "per_connection_buffer_limit_bytes": 0,
            "circuit_breakers": {"thresholds": [{"max_connections": 9}]},
            "common_lb_config": {"close_connections_on_host_set_change": true},
        });
        let appended = merged(into.clone(), patch.clone(), Lists::Append);
        assert_eq!(
            appended,
            json!({
                "name": "a", "connect_timeout": "2s", "lb_policy": "RANDOM", "per_connection_buffer_limit_bytes": 0,
                "circuit_breakers": {"thresholds": [{"max_connections": 7}, {"max_connections": 9}]},
                "common_lb_config": {
                    "healthy_panic_threshold": {"value": 50.0}, "close_connections_on_host_set_change": true},
            })
        );
        let replaced = merged(into, patch, Lists::Replace);
        assert_eq!(replaced["circuit_breakers"]["thresholds"], json!([{"max_connections": 9}]));
    }

    #[test]
    fn the_member_of_a_oneof_that_the_patch_sets_is_the_one() {
        let into = json!({"name": "a", "type": "EDS", "least_request_lb_config": {"choice_count": 3}});
        let patch =
            json!({"cluster_type": {"name": "own"}, "original_dst_lb_config": {"use_http_header": true}});
        let merged = merged(into, patch, Lists::Append);
        assert_eq!(
            merged,
            json!({"name": "a", "cluster_type": {"name": "own"}, "original_dst_lb_config": {"use_http_header": true}})
        );
    }

    #[test]
    fn what_is_packed_merges_inside_and_typed_structs_by_the_type_they_name() {
        let tls = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
        let into = json!({"name": "a", "transport_socket": {"name": "tls", "typed_config": {
            "@type": tls, "sni": "here", "common_tls_context": {"alpn_protocols": ["h2"]}}}});
        let patch = json!({"transport_socket": {"name": "tls", "typed_config": {
            "@type": tls, "common_tls_context": {"tls_params": {"tls_minimum_protocol_version": "TLSv1_3"}}}}});
        let socket = json!({"name": "tls", "typed_config": {"@type": tls, "sni": "here", "common_tls_context": {
            "alpn_protocols": ["h2"], "tls_params": {"tls_minimum_protocol_version": "TLSv1_3"}}}});
        assert_eq!(merged(into.clone(), patch, Lists::Append)["transport_socket"], socket);
        let typed = json!({"transport_socket": {"name": "tls", "typed_config": {
            "@type": "type.googleapis.com/udpa.type.v1.TypedStruct", "type_url": tls,
            "value": {"common_tls_context": {"tls_params": {"tls_minimum_protocol_version": "TLSv1_3"}}}}}});
        assert_eq!(merged(into.clone(), typed, Lists::Append)["transport_socket"], socket);
        let other = json!({"transport_socket": {"name": "raw", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"}}});
        assert_eq!(merged(into, other.clone(), Lists::Append)["transport_socket"], other["transport_socket"]);
    }

    #[test]
    fn entries_of_maps_are_replaced_unless_they_are_packed() {
        let options = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
        let key = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
        let into = json!({"name": "a", "metadata": {"filter_metadata": {"x": {"a": 1.0}, "y": {"b": 1.0}}},
            "typed_extension_protocol_options": {key: {"@type": options,
                "explicit_http_config": {"http2_protocol_options": {}}}}});
        let patch = json!({"metadata": {"filter_metadata": {"x": {"c": 2.0}}},
            "typed_extension_protocol_options": {key: {"@type": options,
                "common_http_protocol_options": {"idle_timeout": "9s"}}}});
        assert_eq!(
            merged(into, patch, Lists::Append),
            json!({
            "name": "a", "metadata": {"filter_metadata": {"x": {"c": 2.0}, "y": {"b": 1.0}}},
            "typed_extension_protocol_options": {key: {"@type": options,
                "common_http_protocol_options": {"idle_timeout": "9s"},
                "explicit_http_config": {"http2_protocol_options": {}}}}})
        );
    }
}
