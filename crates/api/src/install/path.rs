//! Paths into JSON as `--set` and overlays write them.
//!
//! `a.b.c` goes into fields, `\.` is a dot inside a field's name, `[2]` an item by its index (`[-1]` or one past the
//! end appends), `[name:istiod]` the item with that field (made where there is none), `[:30m]` the item that is that
//! text. A bracket follows its list with or without a dot: `args.[0]` and `args[0]` are the same.

use serde_json::{Map, Value, json};

/// Why a path or `path=value` is unusable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?}: {message}")]
pub struct PathError {
    /// What was written.
    pub text: String,
    /// What is wrong with it.
    pub message: String,
}

/// A step into a value.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// A field.
    Field(String),
    /// An item by its index.
    Index(i64),
    /// The item whose field has this value; an empty field name means the item itself.
    Item { field: String, value: String },
}

/// A parsed path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetPath {
    text: String,
    steps: Vec<Step>,
}

/// Paths below which a value stays text, whatever it looks like.
const ALWAYS_TEXT: &[&str] = &[
    "tag",
    "revision",
    "hub",
    "compatibilityVersion",
    "values.compatibilityVersion",
    "values.global.tag",
    "values.revision",
    "meshConfig.defaultConfig.proxyMetadata",
    "values.meshConfig.defaultConfig.proxyMetadata",
];

impl SetPath {
    /// Parses a path.
    ///
    /// # Errors
    /// When it is empty, has an empty part, or a bracket is not closed.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let error = |message: &str| PathError { text: text.to_owned(), message: message.to_owned() };
        let (mut steps, mut part, mut bracketed) = (Vec::new(), String::new(), false);
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '\\' => part.push(chars.next().unwrap_or('\\')),
                '.' if bracketed => {}
                '.' if part.is_empty() => return Err(error("a part of the path is empty")),
                '.' => steps.push(Step::Field(std::mem::take(&mut part))),
                '[' => {
                    if !part.is_empty() {
                        steps.push(Step::Field(std::mem::take(&mut part)));
                    }
                    let inner: String = chars.by_ref().take_while(|c| *c != ']').collect();
                    if !chars.as_str().is_empty() && !chars.as_str().starts_with(['.', '[']) {
                        return Err(error("after ] a dot has to follow"));
                    }
                    if !text[..text.len() - chars.as_str().len()].ends_with(']') {
                        return Err(error("[ is not closed"));
                    }
                    steps.push(bracket(&inner).ok_or_else(|| error("write [INDEX] or [FIELD:VALUE]"))?);
                    bracketed = true;
                    continue;
                }
                c if bracketed => return Err(error(&format!("{c:?} after ]: a dot has to stand between"))),
                c => part.push(c),
            }
            bracketed = false;
        }
        if !part.is_empty() {
            steps.push(Step::Field(part));
        } else if !bracketed {
            return Err(error("the path is empty or ends with a dot"));
        }
        Ok(Self { text: text.to_owned(), steps })
    }

    /// Parses `path=value` and types the value: numbers, booleans, `null`, lists as `{a,b}`, else text, in which `\,`
    /// is a comma. Text stays text below `proxyMetadata` and where a version is meant.
    ///
    /// # Errors
    /// When there is no `=`, or the path is malformed.
    pub fn assignment(text: &str) -> Result<(Self, Value), PathError> {
        let error = |message: &str| PathError { text: text.to_owned(), message: message.to_owned() };
        let (path, value) = text.split_once('=').ok_or_else(|| error("write PATH=VALUE"))?;
        let path = Self::parse(path.trim()).map_err(|e| error(&e.message))?;
        let value = value.trim();
        let text_only = ALWAYS_TEXT.iter().any(|prefix| {
            path.text.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        });
        Ok((path, if text_only { json!(value) } else { typed(value) }))
    }

    /// What was parsed.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The value at this path, where there is one.
    pub fn get<'v>(&self, root: &'v Value) -> Option<&'v Value> {
        self.steps.iter().try_fold(root, |at, step| match step {
            Step::Field(name) => at.get(name),
            Step::Index(index) => at.get(usize::try_from(*index).ok()?),
            Step::Item { field, value } => at.as_array()?.iter().find(|item| matches(item, field, value)),
        })
    }

    /// Sets the value at this path, making objects and lists on the way; null deletes.
    ///
    /// # Errors
    /// When the path goes through something that is neither an object nor a list.
    pub fn set(&self, root: &mut Value, value: Value) -> Result<(), PathError> {
        set(root, &self.steps, value).map_err(|message| PathError { text: self.text.clone(), message })
    }
}

fn bracket(inner: &str) -> Option<Step> {
    if let Ok(index) = inner.parse() {
        return Some(Step::Index(index));
    }
    match inner.split_once(':') {
        Some((field, value)) => Some(Step::Item { field: field.to_owned(), value: value.to_owned() }),
        None if inner.is_empty() => None,
        None => Some(Step::Item { field: String::new(), value: inner.to_owned() }),
    }
}

fn typed(text: &str) -> Value {
    if let Some(inner) = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        let items = split_unescaped(inner);
        return items.iter().filter(|item| !item.is_empty()).map(|item| typed(item)).collect();
    }
    match text {
        "true" => json!(true),
        "false" => json!(false),
        "null" => Value::Null,
        _ => {
            let number = text.parse::<i64>().ok().filter(|_| plain_integer(text)).map(|number| json!(number));
            let float = || {
                let decimal =
                    text.contains('.') && text.bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b'-');
                text.parse::<f64>().ok().filter(|_| decimal).map(|number| json!(number))
            };
            number.or_else(float).unwrap_or_else(|| json!(unescape(text)))
        }
    }
}

/// `007` and `+7` are names rather than numbers.
fn plain_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    digits == "0" || !digits.starts_with(['0', '+'])
}

fn split_unescaped(text: &str) -> Vec<String> {
    let (mut items, mut escaped) = (vec![String::new()], false);
    for c in text.chars() {
        // The list is never empty: it begins with one item and only grows.
        let Some(item) = items.last_mut() else { break };
        match c {
            ',' if !escaped => items.push(String::new()),
            c => item.push(c),
        }
        escaped = c == '\\' && !escaped;
    }
    items
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek()) {
            ('\\', Some(',' | '{' | '}' | '=' | '\\')) => plain.extend(chars.next()),
            _ => plain.push(c),
        }
    }
    plain
}

fn set(at: &mut Value, steps: &[Step], value: Value) -> Result<(), String> {
    let Some((step, rest)) = steps.split_first() else {
        *at = value;
        return Ok(());
    };
    match step {
        Step::Field(name) => {
            if at.is_null() {
                *at = Value::Object(Map::new());
            }
            let object =
                at.as_object_mut().ok_or_else(|| format!("{name:?} is asked of what is no object"))?;
            if rest.is_empty() && value.is_null() {
                object.shift_remove(name);
                return Ok(());
            }
            set(object.entry(name.clone()).or_insert(Value::Null), rest, value)
        }
        Step::Index(_) | Step::Item { .. } => {
            if at.is_null() {
                *at = json!([]);
            }
            let list = at.as_array_mut().ok_or("an item is asked of what is no list")?;
            set_item(list, step, rest, value)
        }
    }
}

fn set_item(list: &mut Vec<Value>, step: &Step, rest: &[Step], value: Value) -> Result<(), String> {
    let found = match step {
        Step::Index(index) => usize::try_from(*index).ok().filter(|index| *index < list.len()),
        Step::Item { field, value } => list.iter().position(|item| matches(item, field, value)),
        Step::Field(_) => None,
    };
    if rest.is_empty() && value.is_null() {
        found.map(|index| list.remove(index));
        return Ok(());
    }
    let index = found.unwrap_or_else(|| {
        list.push(match step {
            Step::Item { field, value } if !field.is_empty() => json!({ field: value }),
            _ => Value::Null,
        });
        list.len() - 1
    });
    set(&mut list[index], rest, value)
}

fn matches(item: &Value, field: &str, wanted: &str) -> bool {
    let found = if field.is_empty() { Some(item) } else { item.get(field) };
    match found {
        Some(Value::String(text)) => text == wanted,
        Some(Value::Number(number)) => number.to_string() == wanted,
        Some(Value::Bool(flag)) => flag.to_string() == wanted,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(mut root: Value, text: &str) -> Value {
        let (path, value) = SetPath::assignment(text).unwrap();
        path.set(&mut root, value).unwrap();
        root
    }

    #[test]
    fn values_have_the_type_they_look_like() {
        for (text, want) in [
            ("a=5", json!(5)),
            ("a=true", json!(true)),
            ("a=1.5", json!(1.5)),
            ("a=1.26.0", json!("1.26.0")),
            ("a=50m", json!("50m")),
            ("a=007", json!("007")),
            ("a={x,1}", json!(["x", 1])),
            ("a=x\\,y", json!("x,y")),
            ("a=x=y", json!("x=y")),
            ("a=", json!("")),
        ] {
            assert_eq!(applied(json!({}), text), json!({ "a": want }), "{text}");
        }
        assert_eq!(applied(json!({}), "tag=1.26"), json!({ "tag": "1.26" }));
        let metadata = applied(json!({}), "meshConfig.defaultConfig.proxyMetadata.DNS=true");
        assert_eq!(metadata["meshConfig"]["defaultConfig"]["proxyMetadata"]["DNS"], "true");
    }

    #[test]
    fn items_are_found_by_name_or_index() {
        let gateways = json!({ "gw": [{ "name": "a", "on": false }, { "name": "b" }] });
        let by_name = applied(gateways.clone(), "gw.[name:b].on=true");
        assert_eq!(by_name["gw"][1], json!({ "name": "b", "on": true }));
        let by_index = applied(gateways.clone(), "gw[0].on=true");
        assert_eq!(by_index["gw"][0]["on"], true);
        let new = applied(gateways.clone(), "gw.[name:c].on=true");
        assert_eq!(new["gw"][2], json!({ "name": "c", "on": true }));
        let appended = applied(gateways, "gw[-1]=x");
        assert_eq!(appended["gw"][2], "x");
        let args = applied(json!({ "args": ["-a", "30m"] }), "args.[30m]=60m");
        assert_eq!(args["args"], json!(["-a", "60m"]));
    }

    #[test]
    fn a_dot_can_be_part_of_a_name_and_null_deletes() {
        let labelled = applied(json!({}), "labels.app\\.kubernetes\\.io/name=x");
        assert_eq!(labelled, json!({ "labels": { "app.kubernetes.io/name": "x" } }));
        assert_eq!(applied(json!({ "a": 1, "b": 2 }), "a=null"), json!({ "b": 2 }));
    }

    #[test]
    fn malformed_paths_are_refused() {
        for text in ["", "a..b=1", "a.=1", ".a=1", "a[0=1", "a[]=1", "a[0]b=1", "noequals"] {
            assert!(SetPath::assignment(text).is_err(), "{text}");
        }
        let (path, value) = SetPath::assignment("a.b=1").unwrap();
        assert!(path.set(&mut json!({ "a": "text" }), value).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in ".{0,40}") {
            if let Ok((path, value)) = SetPath::assignment(&text) {
                let _ = path.set(&mut json!({ "a": [1, { "b": 2 }] }), value);
            }
        }
    }
}
