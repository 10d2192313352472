//! Validation of objects.

use serde_json::{Map, Value, json};

use super::{Additional, Limits, Schema, Type};
use crate::status::Cause;

impl Schema {
    /// What is wrong with the object.
    pub(crate) fn causes(&self, root: &Value) -> Vec<Cause> {
        let mut causes = Vec::new();
        self.check(root, "", &mut causes);
        causes
    }

    fn holds(&self, value: &Value) -> bool {
        let mut causes = Vec::new();
        self.check(value, "", &mut causes);
        causes.is_empty()
    }

    fn check(&self, value: &Value, path: &str, causes: &mut Vec<Cause>) {
        if value.is_null() {
            if !self.nullable && (self.types.is_some() || self.int_or_string) {
                causes.push(Cause::type_mismatch(
                    path,
                    value,
                    format!("{path} in body must be of type {}: \"null\"", self.type_name()),
                ));
            }
            return;
        }
        if !self.has_type(value) {
            let got = type_of(value);
            let why = format!("{path} in body must be of type {}: \"{got}\"", self.type_name());
            causes.push(Cause::type_mismatch(path, value, why));
            return;
        }
        if !self.allowed.is_empty() && !self.allowed.contains(value) {
            let allowed: Vec<String> = self
                .allowed
                .iter()
                .map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned))
                .collect();
            causes.push(Cause::not_supported(path, value, &allowed));
        }
        match value {
            Value::Object(map) => self.check_map(map, path, causes),
            Value::Array(list) => self.check_list(list, value, path, causes),
            Value::String(text) => self.check_text(text, value, path, causes),
            Value::Number(number) => {
                self.limits.check_number(number.as_f64().unwrap_or(0.0), value, path, causes)
            }
            _ => {}
        }
        self.check_logic(value, path, causes);
    }

    fn check_map(&self, map: &Map<String, Value>, path: &str, causes: &mut Vec<Cause>) {
        for name in &self.required {
            if !map.contains_key(name) {
                causes.push(Cause::required(join(path, name), ""));
            }
        }
        let count = map.len() as u64;
        if self.limits.min_properties.is_some_and(|min| count < min)
            || self.limits.max_properties.is_some_and(|max| count > max)
        {
            causes.push(Cause::invalid(path, &json!(count), "has the wrong number of properties"));
        }
        for (name, value) in map {
            match (self.properties.get(name), &self.additional) {
                (Some(schema), _) => schema.check(value, &join(path, name), causes),
                (None, Additional::Of(schema)) => schema.check(value, &join(path, name), causes),
                _ => {}
            }
        }
    }

    fn check_list(&self, list: &[Value], value: &Value, path: &str, causes: &mut Vec<Cause>) {
        let count = list.len() as u64;
        if let Some(min) = self.limits.min_items.filter(|min| count < *min) {
            causes.push(Cause::invalid(
                path,
                &json!(count),
                format!("{path} in body should have at least {min} items"),
            ));
        }
        if let Some(max) = self.limits.max_items.filter(|max| count > *max) {
            causes.push(Cause::invalid(
                path,
                &json!(count),
                format!("{path} in body should have at most {max} items"),
            ));
        }
        if (self.limits.unique_items || self.list_set)
            && list.iter().enumerate().any(|(i, v)| list[..i].contains(v))
        {
            causes.push(Cause::invalid(path, value, format!("{path} in body shouldn't contain duplicates")));
        }
        if !self.map_keys.is_empty() {
            let key = |item: &Value| self.map_keys.iter().map(|k| item[k].clone()).collect::<Vec<_>>();
            let keys: Vec<_> = list.iter().map(key).collect();
            for (index, one) in keys.iter().enumerate().filter(|(i, one)| keys[..*i].contains(one)) {
                let message = format!("Duplicate value: {}", Value::Array(one.clone()));
                causes.push(Cause {
                    reason: "FieldValueDuplicate",
                    message,
                    field: format!("{path}[{index}]"),
                });
            }
        }
        if let Some(items) = &self.items {
            for (index, item) in list.iter().enumerate() {
                items.check(item, &format!("{path}[{index}]"), causes);
            }
        }
    }

    fn check_text(&self, text: &str, value: &Value, path: &str, causes: &mut Vec<Cause>) {
        let length = text.chars().count() as u64;
        if let Some(min) = self.limits.min_length.filter(|min| length < *min) {
            causes.push(Cause::invalid(
                path,
                value,
                format!("{path} in body should be at least {min} chars long"),
            ));
        }
        if let Some(max) = self.limits.max_length.filter(|max| length > *max) {
            causes.push(Cause::invalid(
                path,
                value,
                format!("{path} in body should be at most {max} chars long"),
            ));
        }
        if let Some(pattern) = self.pattern.as_ref().filter(|p| !p.is_match(text)) {
            causes.push(Cause::invalid(path, value, format!("{path} in body should match '{pattern}'")));
        }
        if !format_holds(&self.format, text) {
            causes.push(Cause::invalid(
                path,
                value,
                format!("{path} in body must be of type {}: {value}", self.format),
            ));
        }
    }

    fn check_logic(&self, value: &Value, path: &str, causes: &mut Vec<Cause>) {
        for schema in &self.all_of {
            schema.check(value, path, causes);
        }
        let shown = brief(value);
        if !self.any_of.is_empty() && !self.any_of.iter().any(|s| s.holds(value)) {
            causes.push(Cause::invalid(
                path,
                &shown,
                format!("{path} in body must validate at least one schema (anyOf)"),
            ));
        }
        if !self.one_of.is_empty() {
            let matched = self.one_of.iter().filter(|s| s.holds(value)).count();
            if matched != 1 {
                let why = format!(
                    "{path} in body must validate one and only one schema (oneOf). Found {}",
                    if matched == 0 {
                        "none valid".to_owned()
                    } else {
                        format!("{matched} valid alternatives")
                    }
                );
                causes.push(Cause::invalid(path, &shown, why));
            }
        }
        if self.not.as_ref().is_some_and(|s| s.holds(value)) {
            causes.push(Cause::invalid(
                path,
                &shown,
                format!("{path} in body must not validate the schema (not)"),
            ));
        }
    }

    fn has_type(&self, value: &Value) -> bool {
        if self.int_or_string {
            return value.is_string() || is_integer(value);
        }
        match self.types {
            None => true,
            Some(Type::Object) => value.is_object(),
            Some(Type::Array) => value.is_array(),
            Some(Type::String) => value.is_string(),
            Some(Type::Integer) => is_integer(value),
            Some(Type::Number) => value.is_number(),
            Some(Type::Boolean) => value.is_boolean(),
        }
    }

    pub(super) fn type_name(&self) -> &'static str {
        match self.types {
            _ if self.int_or_string => "integer,string",
            None => "any",
            Some(Type::Object) => "object",
            Some(Type::Array) => "array",
            Some(Type::String) => "string",
            Some(Type::Integer) => "integer",
            Some(Type::Number) => "number",
            Some(Type::Boolean) => "boolean",
        }
    }
}

impl Limits {
    fn check_number(&self, number: f64, value: &Value, path: &str, causes: &mut Vec<Cause>) {
        let below = |min: &f64| if self.exclusive_minimum { number <= *min } else { number < *min };
        if let Some(min) = self.minimum.filter(below) {
            let than = if self.exclusive_minimum { "than" } else { "than or equal to" };
            causes.push(Cause::invalid(
                path,
                value,
                format!("{path} in body should be greater {than} {min}"),
            ));
        }
        let above = |max: &f64| if self.exclusive_maximum { number >= *max } else { number > *max };
        if let Some(max) = self.maximum.filter(above) {
            let than = if self.exclusive_maximum { "than" } else { "than or equal to" };
            causes.push(Cause::invalid(path, value, format!("{path} in body should be less {than} {max}")));
        }
        if let Some(step) = self.multiple_of.filter(|step| (number / step).fract() != 0.0) {
            causes.push(Cause::invalid(
                path,
                value,
                format!("{path} in body should be a multiple of {step}"),
            ));
        }
    }
}

fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|n| n.fract() == 0.0)
}

/// Formats that Kubernetes checks and users of meshes meet; others are notes.
fn format_holds(format: &str, text: &str) -> bool {
    use std::net::{Ipv4Addr, Ipv6Addr};
    match format {
        "date-time" => {
            time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).is_ok()
        }
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "byte" => base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).is_ok(),
        _ => true,
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Whole objects would drown the message.
fn brief(value: &Value) -> Value {
    if value.is_object() || value.is_array() { json!(type_of(value)) } else { value.clone() }
}
