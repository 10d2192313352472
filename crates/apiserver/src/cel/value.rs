//! Values: those of objects stay where they are, everything else is made.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Map, Value};
use time::format_description::well_known::Rfc3339;

use super::formats::Format;
use super::network::{Cidr, Url};
use super::quantity::Quantity;
use super::times;
use crate::schema::Schema;

/// A value of an expression.
#[derive(Debug, Clone)]
pub(crate) enum Val<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Cow<'a, str>),
    Bytes(Arc<[u8]>),
    Duration(time::Duration),
    Time(time::OffsetDateTime),
    List(List<'a>),
    Map(Entries<'a>),
    Optional(Option<Arc<Val<'a>>>),
    Type(&'static str),
    Url(Arc<Url>),
    Ip(IpAddr),
    Cidr(Cidr),
    Quantity(Quantity),
    Format(&'static Format),
}

/// Items.
#[derive(Debug, Clone)]
pub(crate) enum List<'a> {
    Given(&'a [Value], Option<&'a Schema>),
    Made(Arc<Vec<Val<'a>>>),
}

/// Keys with their values.
#[derive(Debug, Clone)]
pub(crate) enum Entries<'a> {
    Given(&'a Map<String, Value>, Option<&'a Schema>),
    Made(Arc<Vec<(Val<'a>, Val<'a>)>>),
}

impl<'a> Val<'a> {
    /// A value of an object, as its schema has it; without a schema as it is written.
    pub(crate) fn of(value: &'a Value, schema: Option<&'a Schema>) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(is) => Self::Bool(*is),
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(int), _) if !schema.is_some_and(Schema::is_number) => Self::Int(int),
                (_, Some(double)) if schema.is_some_and(Schema::is_integer) && double.fract() == 0.0 => {
                    Self::Int(double as i64)
                }
                (_, double) => Self::Double(double.unwrap_or(f64::NAN)),
            },
            Value::String(text) => Self::text_of(text, schema.map_or("", Schema::format)),
            Value::Array(items) => Self::List(List::Given(items, schema.and_then(Schema::item))),
            Value::Object(map) => Self::Map(Entries::Given(map, schema)),
        }
    }

    fn text_of(text: &'a str, format: &str) -> Self {
        let special = match format {
            "date-time" => time::OffsetDateTime::parse(text, &Rfc3339).ok().map(Self::Time),
            "duration" => times::parse_duration(text).ok().map(Self::Duration),
            "byte" => base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text)
                .ok()
                .map(|bytes| Self::Bytes(bytes.into())),
            _ => None,
        };
        special.unwrap_or(Self::Text(Cow::Borrowed(text)))
    }

    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(Cow::Owned(text.into()))
    }

    pub(crate) fn list(items: Vec<Val<'a>>) -> Self {
        Self::List(List::Made(Arc::new(items)))
    }

    pub(crate) fn optional(value: Option<Val<'a>>) -> Self {
        Self::Optional(value.map(Arc::new))
    }

    /// The name of the type.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::Text(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::Time(_) => "google.protobuf.Timestamp",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Optional(_) => "optional_type",
            Self::Type(_) => "type",
            Self::Url(_) => "net.URL",
            Self::Ip(_) => "net.IP",
            Self::Cidr(_) => "net.CIDR",
            Self::Quantity(_) => "kubernetes.Quantity",
            Self::Format(_) => "kubernetes.NamedFormat",
        }
    }

    /// How much there is to look at: items, or bytes.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            Self::List(list) => list.len(),
            Self::Map(map) => map.len(),
            _ => 1,
        }
    }

    /// Whether the two are the same value. Numbers of different types are compared by what they count.
    pub(crate) fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::List(a), Self::List(b)) => {
                a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| a.same(&b))
            }
            (Self::Map(a), Self::Map(b)) => {
                a.len() == b.len()
                    && a.iter().all(|(key, value)| b.get(&key).is_some_and(|other| other.same(&value)))
            }
            (Self::Optional(Some(a)), Self::Optional(Some(b))) => a.same(b),
            // Rules of Gateway API ask so whether a format has found nothing wrong.
            (Self::Optional(None), Self::Optional(None) | Self::Null)
            | (Self::Null, Self::Optional(None)) => true,
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::Type(a), Self::Type(b)) => a == b,
            (Self::Url(a), Self::Url(b)) => a == b,
            (Self::Ip(a), Self::Ip(b)) => a == b,
            (Self::Cidr(a), Self::Cidr(b)) => a == b,
            (Self::Format(a), Self::Format(b)) => a.name == b.name,
            _ => self.order(other) == Some(Ordering::Equal),
        }
    }

    /// Which of the two comes first, where there is an order.
    pub(crate) fn order(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => Some(a.cmp(b)),
            (Self::Uint(a), Self::Uint(b)) => Some(a.cmp(b)),
            (Self::Int(a), Self::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (Self::Uint(a), Self::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (Self::Double(a), Self::Double(b)) => a.partial_cmp(b),
            (Self::Double(a), b) => a.partial_cmp(&b.number()?),
            (a, Self::Double(b)) => a.number()?.partial_cmp(b),
            (Self::Text(a), Self::Text(b)) => Some(a.cmp(b)),
            (Self::Bytes(a), Self::Bytes(b)) => Some(a.cmp(b)),
            (Self::Bool(a), Self::Bool(b)) => Some(a.cmp(b)),
            (Self::Duration(a), Self::Duration(b)) => Some(a.cmp(b)),
            (Self::Time(a), Self::Time(b)) => Some(a.cmp(b)),
            (Self::Quantity(a), Self::Quantity(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }

    fn number(&self) -> Option<f64> {
        match self {
            Self::Int(n) => Some(*n as f64),
            Self::Uint(n) => Some(*n as f64),
            _ => None,
        }
    }
}

impl<'a> List<'a> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Given(items, _) => items.len(),
            Self::Made(items) => items.len(),
        }
    }

    pub(crate) fn get(&self, index: usize) -> Option<Val<'a>> {
        match self {
            Self::Given(items, schema) => items.get(index).map(|item| Val::of(item, *schema)),
            Self::Made(items) => items.get(index).cloned(),
        }
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = Val<'a>> + '_ {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    pub(crate) fn contains(&self, wanted: &Val<'a>) -> bool {
        self.iter().any(|item| item.same(wanted))
    }
}

impl<'a> Entries<'a> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Given(map, _) => map.len(),
            Self::Made(entries) => entries.len(),
        }
    }

    pub(crate) fn get(&self, key: &Val<'a>) -> Option<Val<'a>> {
        match (self, key) {
            (Self::Given(..), Val::Text(name)) => self.field(name),
            (Self::Given(..), _) => None,
            (Self::Made(entries), _) => {
                entries.iter().find(|(other, _)| other.same(key)).map(|(_, value)| value.clone())
            }
        }
    }

    /// The value of a field, by the name that expressions have for it.
    pub(crate) fn field(&self, name: &str) -> Option<Val<'a>> {
        match self {
            Self::Given(map, schema) => {
                let value = map.get(name).or_else(|| map.get(&unescaped(name)?))?;
                let schema =
                    schema.and_then(|schema| schema.field(name).or_else(|| schema.field(&unescaped(name)?)));
                // A null where none is allowed is a field that is not there.
                if value.is_null() && !schema.is_some_and(Schema::is_nullable) {
                    return None;
                }
                Some(Val::of(value, schema))
            }
            Self::Made(_) => self.get(&Val::text(name)),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Val<'a>, Val<'a>)> + '_ {
        let (given, schema, made) = match self {
            Self::Given(map, schema) => (Some(*map), *schema, None),
            Self::Made(entries) => (None, None, Some(entries)),
        };
        let given = given.into_iter().flatten().map(move |(key, value)| {
            let of = schema.and_then(|schema| schema.field(key));
            (Val::Text(Cow::Borrowed(key.as_str())), Val::of(value, of))
        });
        given.chain(made.into_iter().flat_map(|entries| entries.iter().cloned()))
    }
}

/// The field that an identifier stands for, when its name cannot be one (`__dot__` and the like, or a word of the language).
pub(crate) fn unescaped(name: &str) -> Option<String> {
    if !name.contains("__") {
        return None;
    }
    const WORDS: &[&str] = &[
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
    ];
    let inner = name.strip_prefix("__").and_then(|rest| rest.strip_suffix("__"));
    if let Some(word) = inner.filter(|inner| WORDS.contains(inner)) {
        return Some(word.to_owned());
    }
    let mut text = name.to_owned();
    for (escaped, plain) in
        [("__dot__", "."), ("__dash__", "-"), ("__slash__", "/"), ("__underscores__", "__")]
    {
        text = text.replace(escaped, plain);
    }
    Some(text)
}
