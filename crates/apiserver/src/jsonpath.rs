//! The JSONPath of printer columns: fields, indexes, wildcards, recursive descent, filters by equality.

use serde_json::Value;

/// A parsed path.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct JsonPath {
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    All,
    Descend,
    Filter { path: Vec<String>, equal: bool, value: Value },
}

impl JsonPath {
    /// Parses `.spec.hosts`, `.status.conditions[?(@.type=="Ready")].status` and the like.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let trimmed = text.trim().trim_start_matches('{').trim_end_matches('}');
        let mut rest = trimmed.strip_prefix('$').unwrap_or(trimmed);
        let mut steps = Vec::new();
        while !rest.is_empty() {
            rest = if let Some(after) = rest.strip_prefix('[') {
                bracket(after, &mut steps)?
            } else if let Some(after) = rest.strip_prefix("..") {
                steps.push(Step::Descend);
                if after.starts_with('[') { after } else { field(after, &mut steps)? }
            } else if let Some(after) = rest.strip_prefix('.') {
                if after.is_empty() { after } else { field(after, &mut steps)? }
            } else {
                return Err(format!("JSONPath {text:?}: expected '.' or '[' at {rest:?}"));
            };
        }
        Ok(Self { steps })
    }

    /// All values that the path leads to.
    pub(crate) fn find<'a>(&self, root: &'a Value) -> Vec<&'a Value> {
        let mut found = vec![root];
        for step in &self.steps {
            let mut next = Vec::new();
            for value in found {
                step.apply(value, &mut next);
            }
            found = next;
        }
        found
    }
}

impl Step {
    fn apply<'a>(&self, value: &'a Value, out: &mut Vec<&'a Value>) {
        match self {
            Self::Field(name) => out.extend(value.get(name)),
            Self::Index(at) => {
                let Some(list) = value.as_array() else { return };
                let len = i64::try_from(list.len()).unwrap_or(i64::MAX);
                let index = if *at < 0 { len.saturating_add(*at) } else { *at };
                out.extend(usize::try_from(index).ok().and_then(|i| list.get(i)));
            }
            Self::All => children(value, out),
            Self::Descend => descend(value, out),
            Self::Filter { path, equal, value: wanted } => {
                let Some(list) = value.as_array() else { return };
                let holds = |item: &&Value| {
                    let got = path.iter().fold(*item, |at, step| &at[step.as_str()]);
                    !got.is_null() && (got == wanted) == *equal
                };
                out.extend(list.iter().filter(holds));
            }
        }
    }
}

fn children<'a>(value: &'a Value, out: &mut Vec<&'a Value>) {
    match value {
        Value::Array(list) => out.extend(list),
        Value::Object(map) => out.extend(map.values()),
        _ => {}
    }
}

fn descend<'a>(value: &'a Value, out: &mut Vec<&'a Value>) {
    out.push(value);
    let mut below = Vec::new();
    children(value, &mut below);
    for child in below {
        descend(child, out);
    }
}

/// A name after a dot, where `\.` stands for a dot in the name.
fn field<'a>(text: &'a str, steps: &mut Vec<Step>) -> Result<&'a str, String> {
    let mut name = String::new();
    let mut chars = text.char_indices();
    let mut end = text.len();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.extend(chars.next().map(|(_, escaped)| escaped)),
            '.' | '[' => {
                end = at;
                break;
            }
            c => name.push(c),
        }
    }
    match name.as_str() {
        "" => return Err(format!("JSONPath: expected a field name at {text:?}")),
        "*" => steps.push(Step::All),
        _ => steps.push(Step::Field(name)),
    }
    Ok(&text[end..])
}

fn bracket<'a>(text: &'a str, steps: &mut Vec<Step>) -> Result<&'a str, String> {
    if let Some(filter) = text.strip_prefix("?(") {
        let (inner, rest) =
            filter.split_once(")]").ok_or_else(|| format!("JSONPath: expected ')]' after {filter:?}"))?;
        steps.push(parse_filter(inner)?);
        return Ok(rest);
    }
    if let Some(quote) = text.chars().next().filter(|c| "'\"".contains(*c)) {
        let close = format!("{quote}]");
        let (name, rest) = text[1..]
            .split_once(&close)
            .ok_or_else(|| format!("JSONPath: expected {close:?} after {text:?}"))?;
        steps.push(Step::Field(name.replace("\\.", ".")));
        return Ok(rest);
    }
    let (inner, rest) =
        text.split_once(']').ok_or_else(|| format!("JSONPath: expected ']' after {text:?}"))?;
    match inner {
        "*" => steps.push(Step::All),
        number => steps
            .push(Step::Index(number.parse().map_err(|_| format!("JSONPath: {number:?} is not an index"))?)),
    }
    Ok(rest)
}

fn parse_filter(text: &str) -> Result<Step, String> {
    let bad = || format!("JSONPath: cannot read the filter {text:?}; want @.field==\"value\"");
    let (left, equal, right) = match (text.split_once("=="), text.split_once("!=")) {
        (Some((left, right)), _) => (left, true, right),
        (None, Some((left, right))) => (left, false, right),
        (None, None) => return Err(bad()),
    };
    let path = left.trim().strip_prefix("@.").ok_or_else(bad)?.split('.').map(str::to_owned).collect();
    let right = right.trim();
    let quoted = ['"', '\''].iter().find_map(|q| right.strip_prefix(*q)?.strip_suffix(*q));
    let value = match quoted {
        Some(text) => Value::String(text.to_owned()),
        None => serde_json::from_str(right).map_err(|_| bad())?,
    };
    Ok(Step::Filter { path, equal, value })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_of_printer_columns() {
        let object = json!({
            "spec": {"hosts": ["a", "b"], "http": [{"name": "x"}, {"name": "y"}]},
            "metadata": {"labels": {"app.kubernetes.io/name": "z"}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Synced", "status": "False"}]},
        });
        let texts = |path: &str| {
            JsonPath::parse(path)
                .unwrap()
                .find(&object)
                .into_iter()
                .map(Value::to_string)
                .collect::<Vec<_>>()
                .join(" ")
        };
        for (path, found) in [
            (".spec.hosts", r#"["a","b"]"#),
            ("{.spec.hosts[1]}", r#""b""#),
            (".spec.hosts[-1]", r#""b""#),
            (".spec.http[*].name", r#""x" "y""#),
            ("..name", r#""x" "y""#),
            (r".metadata.labels.app\.kubernetes\.io/name", r#""z""#),
            (".metadata.labels['app.kubernetes.io/name']", r#""z""#),
            (r#".status.conditions[?(@.type=="Synced")].status"#, r#""False""#),
            (r".status.conditions[?(@.type!='Synced')].status", r#""True""#),
            (".none.at[3].all", ""),
        ] {
            assert_eq!(texts(path), found, "{path}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_path_or_an_error(text in r#"[.\[\]?(@=!*$a\\'"0-9é]{0,20}"#) {
            if let Ok(path) = JsonPath::parse(&text) {
                path.find(&json!({"a": [{"a": 1}, 2]}));
            }
        }
    }
}
