//! Request headers as metadata (`header_to_metadata`), for routes, policies and formats to go by.

use base64::Engine as _;
use http::{HeaderMap, HeaderName, header};
use lateen_proto::envoy::extensions::filters::http::header_to_metadata::v3 as proto;
use lateen_proto::envoy::extensions::filters::http::header_to_metadata::v3::config::{
    ValueEncode, ValueType,
};
use lateen_proto::{Message as _, Value, value::Kind};

use crate::error::{Cx, Result};
use crate::string_match::Substitution;

/// The namespace of values that name none.
const NAMESPACE: &str = "envoy.filters.http.header_to_metadata";
/// Longer values are left out, as in Envoy.
const LONGEST: usize = 8 * 1024;

/// A compiled `header_to_metadata`.
#[derive(Clone, Debug)]
pub struct HeaderMetadata {
    rules: Box<[Rule]>,
}

#[derive(Clone, Debug)]
struct Rule {
    from: From,
    present: Option<Target>,
    missing: Option<Target>,
    remove: bool,
}

#[derive(Clone, Debug)]
enum From {
    Header(HeaderName),
    Cookie(Box<str>),
}

/// Where a value goes, and what it is.
#[derive(Clone, Debug)]
struct Target {
    namespace: Box<str>,
    key: Box<str>,
    value: Box<str>,
    rewrite: Option<Substitution>,
    kind: ValueType,
    base64: bool,
}

/// A value for the metadata: namespace, key, value.
pub(super) type Entry<'a> = (&'a str, &'a str, Value);

impl HeaderMetadata {
    /// The values that a request's headers give; headers that are to go are taken out.
    pub fn apply(&self, headers: &mut HeaderMap) -> Vec<Entry<'_>> {
        let mut out = Vec::new();
        for rule in &self.rules {
            let found = rule.from.value(headers);
            let target = if found.is_some() { &rule.present } else { &rule.missing };
            if let Some(target) = target
                && let Some(value) = target.value(found.as_deref())
            {
                out.push((&*target.namespace, &*target.key, value));
            }
            if let (true, From::Header(name), Some(_)) = (rule.remove, &rule.from, &found) {
                headers.remove(name);
            }
        }
        out
    }

    pub(super) fn compile(cx: &mut Cx<'_>, message: &proto::Config) -> Result<Self> {
        cx.check(message)?;
        Ok(Self { rules: cx.each("request_rules", &message.request_rules, Rule::compile)?.into() })
    }
}

impl From {
    fn value(&self, headers: &HeaderMap) -> Option<String> {
        match self {
            Self::Header(name) => {
                let mut values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
                let first = values.next()?.to_owned();
                Some(values.fold(first, |all, value| all + "," + value))
            }
            Self::Cookie(name) => {
                let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
                let mut pairs =
                    cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
                let (_, value) = pairs.find(|(key, _)| **key == **name)?;
                Some(value.trim_matches('"').to_owned())
            }
        }
    }
}

impl Rule {
    fn compile(cx: &mut Cx<'_>, message: &proto::config::Rule) -> Result<Self> {
        cx.check(message)?;
        let from = match (message.header.as_str(), message.cookie.as_str()) {
            (name, "") if !name.is_empty() => From::Header(cx.header_name("header", name)?),
            ("", name) if !name.is_empty() => From::Cookie(name.into()),
            _ => return Err(cx.refuse("needs header or cookie, and not both")),
        };
        let target = |cx: &mut Cx<'_>, field: &str, target: &Option<proto::config::KeyValuePair>| match target
        {
            None => Ok(None),
            Some(target) => cx.field(field, |cx| Target::compile(cx, target)).map(Some),
        };
        let present = target(cx, "on_header_present", &message.on_header_present)?;
        let missing = target(cx, "on_header_missing", &message.on_header_missing)?;
        if present.is_none() && missing.is_none() {
            return Err(cx.refuse("needs on_header_present or on_header_missing"));
        }
        if missing.as_ref().is_some_and(|missing| missing.value.is_empty()) {
            return Err(cx.refuse_at("on_header_missing.value", "is required"));
        }
        if matches!(from, From::Cookie(_)) && message.remove {
            return Err(cx.refuse_at("remove", "is for headers: a cookie stays"));
        }
        Ok(Self { from, present, missing, remove: message.remove })
    }
}

impl Target {
    /// The value; `None` when there is none to give.
    fn value(&self, found: Option<&str>) -> Option<Value> {
        let text = if self.value.is_empty() { found? } else { &*self.value };
        let text = match &self.rewrite {
            Some(rewrite) => String::from_utf8(rewrite.apply(text.as_bytes())).ok()?,
            None => text.to_owned(),
        };
        if text.is_empty() || text.len() > LONGEST {
            return None;
        }
        let bytes = match self.base64 {
            true => base64::engine::general_purpose::STANDARD.decode(&text).ok()?,
            false => text.into_bytes(),
        };
        let kind = match self.kind {
            ValueType::String => Kind::StringValue(String::from_utf8(bytes).ok()?),
            ValueType::Number => {
                let number: f64 = std::str::from_utf8(&bytes).ok()?.trim().parse().ok()?;
                Kind::NumberValue(Some(number).filter(|number| number.is_finite())?)
            }
            ValueType::ProtobufValue => return Value::decode(&*bytes).ok(),
        };
        Some(Value { kind: Some(kind) })
    }

    fn compile(cx: &mut Cx<'_>, message: &proto::config::KeyValuePair) -> Result<Self> {
        cx.check(message)?;
        if message.key.is_empty() {
            return Err(cx.refuse_at("key", "must not be empty"));
        }
        let rewrite = match &message.regex_value_rewrite {
            None => None,
            Some(_) if !message.value.is_empty() => {
                return Err(cx.refuse_at("regex_value_rewrite", "cannot be set along with value"));
            }
            Some(rewrite) => Some(cx.field("regex_value_rewrite", |cx| Substitution::compile(cx, rewrite))?),
        };
        let namespace = match message.metadata_namespace.as_str() {
            "" => NAMESPACE,
            other => other,
        };
        Ok(Self {
            namespace: namespace.into(),
            key: message.key.as_str().into(),
            value: message.value.as_str().into(),
            rewrite,
            kind: message.r#type(),
            base64: message.encode() == ValueEncode::Base64,
        })
    }
}

#[cfg(test)]
mod tests {
    use lateen_proto::json::from_value;
    use serde_json::json;

    use super::*;

    fn compile(rules: serde_json::Value) -> Result<HeaderMetadata> {
        let message = from_value(&json!({"requestRules": rules})).unwrap();
        Cx::run("l", |cx| HeaderMetadata::compile(cx, &message)).map(|compiled| compiled.value)
    }

    fn text(value: &Value) -> Option<&str> {
        match &value.kind {
            Some(Kind::StringValue(text)) => Some(text),
            _ => None,
        }
    }

    #[test]
    fn headers_and_cookies_become_values() {
        let filter = compile(json!([
            {"header": "x-tier", "onHeaderPresent": {"metadataNamespace": "n", "key": "tier"},
             "onHeaderMissing": {"key": "tier", "value": "none"}, "remove": true},
            {"cookie": "user", "onHeaderPresent": {"key": "user", "regexValueRewrite": {"pattern": {"regex": "^(\\w+)-.*$"}, "substitution": "\\1"}}},
            {"header": "x-n", "onHeaderPresent": {"key": "n", "type": "NUMBER"}},
            {"header": "x-b", "onHeaderPresent": {"key": "b", "encode": "BASE64"}},
        ]))
        .unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in
            [("x-tier", "gold"), ("cookie", "a=b; user=ann-7"), ("x-n", "4.5"), ("x-b", "aGk=")]
        {
            headers.insert(name, value.parse().unwrap());
        }
        let entries = filter.apply(&mut headers);
        let texts: Vec<_> =
            entries.iter().map(|(namespace, key, value)| (*namespace, *key, text(value))).collect();
        assert_eq!(
            texts,
            [
                ("n", "tier", Some("gold")),
                (NAMESPACE, "user", Some("ann")),
                (NAMESPACE, "n", None),
                (NAMESPACE, "b", Some("hi"))
            ]
        );
        assert_eq!(entries[2].2.kind, Some(Kind::NumberValue(4.5)));
        assert!(!headers.contains_key("x-tier") && headers.contains_key("x-n"));
        assert_eq!(
            filter.apply(&mut headers)[0],
            (NAMESPACE, "tier", Value { kind: Some(Kind::StringValue("none".into())) })
        );
    }

    #[test]
    fn rules_that_say_nothing_are_refused() {
        for (rules, word) in [
            (json!([{"onHeaderPresent": {"key": "k"}}]), "header or cookie"),
            (json!([{"header": "x"}]), "on_header_present"),
            (json!([{"header": "x", "onHeaderMissing": {"key": "k"}}]), "value"),
            (json!([{"header": "x", "onHeaderPresent": {}}]), "key"),
            (json!([{"header": "x y", "onHeaderPresent": {"key": "k"}}]), "header name"),
        ] {
            let error = compile(rules.clone()).unwrap_err();
            assert!(error.to_string().contains(word), "{rules}: {error}");
        }
    }
}
