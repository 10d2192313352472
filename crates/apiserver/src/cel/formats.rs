//! Named formats of strings (`format.dns1123Label().validate(..)`).

use std::sync::OnceLock;

use regex::Regex;

use super::eval::Env;
use super::value::Val;
use super::{Fault, error};

type Done<'a> = Option<Result<Val<'a>, Fault>>;

/// A format of strings.
#[derive(Debug)]
pub(crate) struct Format {
    pub(super) name: &'static str,
    /// Without anchors.
    pattern: &'static str,
    /// Characters at most.
    longest: usize,
    compiled: OnceLock<Option<Regex>>,
}

const fn format(name: &'static str, longest: usize, pattern: &'static str) -> Format {
    Format { name, pattern, longest, compiled: OnceLock::new() }
}

static FORMATS: [Format; 13] = [
    format("dns1123Label", 63, "[a-z0-9]([-a-z0-9]*[a-z0-9])?"),
    format("dns1123Subdomain", 253, r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"),
    format("dns1035Label", 63, "[a-z]([-a-z0-9]*[a-z0-9])?"),
    format("dns1123LabelPrefix", 63, "[a-z0-9]([-a-z0-9]*[a-z0-9])?-?"),
    format(
        "dns1123SubdomainPrefix",
        253,
        r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*-?",
    ),
    format("dns1035LabelPrefix", 63, "[a-z]([-a-z0-9]*[a-z0-9])?-?"),
    format(
        "qualifiedName",
        317,
        r"([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?",
    ),
    format("labelValue", 63, "([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?"),
    format("uri", usize::MAX, r"([A-Za-z][-+.A-Za-z0-9]*:|/)[^\s\x00-\x1f]*"),
    format("uuid", 36, "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"),
    format("byte", usize::MAX, "(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"),
    format("date", 10, "[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"),
    format(
        "datetime",
        usize::MAX,
        r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[Tt]([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]+)?([Zz]|[-+][0-9]{2}:[0-9]{2})",
    ),
];

fn named(name: &str) -> Option<&'static Format> {
    FORMATS.iter().find(|format| format.name == name)
}

pub(super) fn global<'a>(name: &str, args: &[Val<'a>]) -> Done<'a> {
    match (name, args) {
        ("format.named", [Val::Text(name)]) => Some(Ok(Val::optional(named(name).map(Val::Format)))),
        ("optional.of", [value]) => Some(Ok(Val::optional(Some(value.clone())))),
        ("optional.none", []) => Some(Ok(Val::optional(None))),
        ("optional.ofNonZeroValue", [value]) => {
            let zero = match value {
                Val::Null => true,
                Val::Bool(is) => !is,
                Val::Int(n) => *n == 0,
                Val::Uint(n) => *n == 0,
                Val::Double(n) => *n == 0.0,
                Val::Text(_) | Val::Bytes(_) | Val::List(_) | Val::Map(_) => value.size() == 0,
                _ => false,
            };
            Some(Ok(Val::optional((!zero).then(|| value.clone()))))
        }
        (name, []) => named(name.strip_prefix("format.")?).map(|format| Ok(Val::Format(format))),
        _ => None,
    }
}

/// What is wrong with a text, or nothing.
pub(super) fn method<'a>(
    env: &Env<'a, '_>,
    name: &str,
    format: &'static Format,
    args: &[Val<'a>],
) -> Done<'a> {
    let ("validate", [Val::Text(text)]) = (name, args) else { return None };
    // The table's patterns compile: a test says so.
    let compiled = format.compiled.get_or_init(|| super::pattern(&format!("^(?:{})$", format.pattern)).ok());
    let Some(pattern) = compiled else { return Some(error(format!("format {} is not known", format.name))) };
    if let Err(fault) = env.budget.pay_for(text.len()) {
        return Some(Err(fault));
    }
    let mut wrong = Vec::new();
    if text.len() > format.longest {
        wrong.push(Val::text(format!("must be no more than {} characters", format.longest)));
    }
    if !pattern.is_match(text) {
        wrong.push(Val::text(format!("must match the regex {}", format.pattern)));
    }
    Some(Ok(Val::optional((!wrong.is_empty()).then(|| Val::list(wrong)))))
}
