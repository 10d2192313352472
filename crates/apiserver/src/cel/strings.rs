//! Functions of strings, and conversions.

use std::borrow::Cow;

use super::eval::Env;
use super::value::Val;
use super::{Fault, error, times};

type Done<'a> = Option<Result<Val<'a>, Fault>>;

/// Characters that a string may grow to.
const LARGEST: usize = 1 << 20;

pub(super) fn global<'a>(env: &Env<'a, '_>, name: &str, args: &[Val<'a>]) -> Done<'a> {
    Some(match (name, args) {
        ("size", [Val::Text(text)]) => Ok(Val::Int(length(text))),
        ("size", [Val::Bytes(bytes)]) => Ok(Val::Int(bytes.len() as i64)),
        ("size", [Val::List(list)]) => Ok(Val::Int(list.len() as i64)),
        ("size", [Val::Map(map)]) => Ok(Val::Int(map.len() as i64)),
        ("matches", [Val::Text(text), pattern @ Val::Text(_)]) => {
            return method(env, "matches", text, std::slice::from_ref(pattern));
        }
        ("dyn", [value]) => Ok(value.clone()),
        ("type", [value]) => Ok(Val::Type(value.type_name())),
        ("int", [value]) => int(value),
        ("uint", [value]) => uint(value),
        ("double", [value]) => double(value),
        ("string", [value]) => string(value),
        ("bytes", [Val::Text(text)]) => Ok(Val::Bytes(text.as_bytes().into())),
        ("bytes", [Val::Bytes(bytes)]) => Ok(Val::Bytes(bytes.clone())),
        ("bool", [Val::Bool(is)]) => Ok(Val::Bool(*is)),
        ("bool", [Val::Text(text)]) => match &**text {
            "true" | "True" | "TRUE" | "t" | "1" => Ok(Val::Bool(true)),
            "false" | "False" | "FALSE" | "f" | "0" => Ok(Val::Bool(false)),
            other => error(format!("{other:?} is no bool")),
        },
        _ => return None,
    })
}

fn int<'a>(value: &Val<'a>) -> Result<Val<'a>, Fault> {
    let range = || Fault::Error("integer overflow".into());
    Ok(Val::Int(match value {
        Val::Int(n) => *n,
        Val::Uint(n) => i64::try_from(*n).map_err(|_| range())?,
        Val::Double(n) if n.abs() < 9.2e18 => *n as i64,
        Val::Double(_) => return Err(range()),
        Val::Text(text) => text.parse().map_err(|_| Fault::Error(format!("{text:?} is no int")))?,
        Val::Time(at) => at.unix_timestamp(),
        other => return error(format!("no such overload: int({})", other.type_name())),
    }))
}

fn uint<'a>(value: &Val<'a>) -> Result<Val<'a>, Fault> {
    let range = || Fault::Error("unsigned integer overflow".into());
    Ok(Val::Uint(match value {
        Val::Uint(n) => *n,
        Val::Int(n) => u64::try_from(*n).map_err(|_| range())?,
        Val::Double(n) if *n >= 0.0 && *n < 1.8e19 => *n as u64,
        Val::Double(_) => return Err(range()),
        Val::Text(text) => text.parse().map_err(|_| Fault::Error(format!("{text:?} is no uint")))?,
        other => return error(format!("no such overload: uint({})", other.type_name())),
    }))
}

fn double<'a>(value: &Val<'a>) -> Result<Val<'a>, Fault> {
    Ok(Val::Double(match value {
        Val::Double(n) => *n,
        Val::Int(n) => *n as f64,
        Val::Uint(n) => *n as f64,
        Val::Text(text) => text.parse().map_err(|_| Fault::Error(format!("{text:?} is no double")))?,
        other => return error(format!("no such overload: double({})", other.type_name())),
    }))
}

pub(super) fn string<'a>(value: &Val<'a>) -> Result<Val<'a>, Fault> {
    Ok(match value {
        Val::Text(text) => Val::Text(text.clone()),
        Val::Bool(is) => Val::text(is.to_string()),
        Val::Int(n) => Val::text(n.to_string()),
        Val::Uint(n) => Val::text(n.to_string()),
        Val::Double(n) => Val::text(n.to_string()),
        Val::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Val::text(text),
            Err(_) => return error("the bytes are not UTF-8"),
        },
        Val::Duration(duration) => Val::text(times::duration_text(*duration)),
        Val::Time(at) => {
            Val::text(at.format(&time::format_description::well_known::Rfc3339).unwrap_or_default())
        }
        Val::Ip(ip) => Val::text(ip.to_string()),
        Val::Cidr(cidr) => Val::text(cidr.to_string()),
        Val::Url(url) => Val::text(url.to_string()),
        other => return error(format!("no such overload: string({})", other.type_name())),
    })
}

fn length(text: &str) -> i64 {
    text.chars().count() as i64
}

pub(super) fn method<'a>(env: &Env<'a, '_>, name: &str, text: &Cow<'a, str>, args: &[Val<'a>]) -> Done<'a> {
    Some(match (name, args) {
        ("size", []) => Ok(Val::Int(length(text))),
        ("contains", [Val::Text(part)]) => Ok(Val::Bool(text.contains(&**part))),
        ("startsWith", [Val::Text(part)]) => Ok(Val::Bool(text.starts_with(&**part))),
        ("endsWith", [Val::Text(part)]) => Ok(Val::Bool(text.ends_with(&**part))),
        ("matches", [Val::Text(pattern)]) => {
            env.matcher(pattern).map(|found| Val::Bool(found.is_match(text)))
        }
        ("find", [Val::Text(pattern)]) => env
            .matcher(pattern)
            .map(|pattern| Val::text(pattern.find(text).map_or("", |found| found.as_str()))),
        ("findAll", [Val::Text(pattern)]) => find_all(env, text, pattern, usize::MAX),
        ("findAll", [Val::Text(pattern), Val::Int(most)]) => {
            find_all(env, text, pattern, usize::try_from(*most).unwrap_or(usize::MAX))
        }
        ("charAt", [Val::Int(at)]) => part(text, *at, at.saturating_add(1), true),
        ("substring", [Val::Int(from)]) => part(text, *from, length(text), false),
        ("substring", [Val::Int(from), Val::Int(to)]) => part(text, *from, *to, false),
        ("indexOf", [Val::Text(wanted)]) => Ok(index(text, wanted, 0)),
        ("indexOf", [Val::Text(wanted), Val::Int(from)]) => match offset(text, *from) {
            Some(_) => Ok(index(text, wanted, *from)),
            None => error(format!("index out of range: {from}")),
        },
        ("lastIndexOf", [Val::Text(wanted)]) => Ok(last_index(text, wanted, length(text))),
        ("lastIndexOf", [Val::Text(wanted), Val::Int(to)]) => Ok(last_index(text, wanted, *to)),
        ("lowerAscii", []) => Ok(Val::text(text.to_ascii_lowercase())),
        ("upperAscii", []) => Ok(Val::text(text.to_ascii_uppercase())),
        ("trim", []) => Ok(Val::text(text.trim())),
        ("replace", [Val::Text(old), Val::Text(new)]) => replace(env, text, old, new, -1),
        ("replace", [Val::Text(old), Val::Text(new), Val::Int(most)]) => replace(env, text, old, new, *most),
        ("split", [Val::Text(by)]) => split(env, text, by, -1),
        ("split", [Val::Text(by), Val::Int(most)]) => split(env, text, by, *most),
        ("format", [Val::List(values)]) => {
            let values: Vec<Val<'a>> = values.iter().collect();
            format(text, &values).and_then(|made| {
                env.budget.pay_for(made.len())?;
                Ok(Val::text(made))
            })
        }
        _ => return None,
    })
}

fn find_all<'a>(env: &Env<'a, '_>, text: &str, pattern: &str, most: usize) -> Result<Val<'a>, Fault> {
    let pattern = env.matcher(pattern)?;
    let found: Vec<Val<'a>> =
        pattern.find_iter(text).take(most).map(|found| Val::text(found.as_str())).collect();
    env.budget.pay(found.len() as u64)?;
    Ok(Val::list(found))
}

/// Bytes before the character of this number, if there is one, or the end.
fn offset(text: &str, at: i64) -> Option<usize> {
    let at = usize::try_from(at).ok()?;
    text.char_indices().map(|(offset, _)| offset).chain([text.len()]).nth(at)
}

fn part<'a>(text: &str, from: i64, to: i64, single: bool) -> Result<Val<'a>, Fault> {
    if single && from == length(text) {
        return Ok(Val::text(""));
    }
    match (offset(text, from), offset(text, to)) {
        (Some(first), Some(last)) if first <= last => Ok(Val::text(&text[first..last])),
        _ => error(format!("index out of range: {from}, {to}")),
    }
}

fn index<'a>(text: &str, wanted: &str, from: i64) -> Val<'a> {
    let start = offset(text, from).unwrap_or(text.len());
    Val::Int(text[start..].find(wanted).map_or(-1, |found| length(&text[..start + found])))
}

fn last_index<'a>(text: &str, wanted: &str, upto: i64) -> Val<'a> {
    let last = text.match_indices(wanted).map(|(at, _)| length(&text[..at])).filter(|at| *at <= upto).last();
    Val::Int(last.unwrap_or(-1))
}

fn replace<'a>(env: &Env<'a, '_>, text: &str, old: &str, new: &str, most: i64) -> Result<Val<'a>, Fault> {
    let times = text.matches(old).count().min(usize::try_from(most).unwrap_or(usize::MAX));
    let size = text.len().saturating_add(times.saturating_mul(new.len()));
    if size > LARGEST {
        return error("the string would be too large");
    }
    env.budget.pay_for(size)?;
    Ok(Val::text(text.replacen(old, new, times)))
}

fn split<'a>(env: &Env<'a, '_>, text: &str, by: &str, most: i64) -> Result<Val<'a>, Fault> {
    let pieces: Vec<&str> = match (usize::try_from(most), by) {
        (Ok(0), _) => Vec::new(),
        (Ok(most), "") => {
            let mut all: Vec<&str> = text.split("").filter(|piece| !piece.is_empty()).collect();
            if all.len() > most {
                let kept: usize = all[..most - 1].iter().map(|piece| piece.len()).sum();
                all.truncate(most - 1);
                all.push(&text[kept..]);
            }
            all
        }
        (Ok(most), by) => text.splitn(most, by).collect(),
        (Err(_), "") => text.split("").filter(|piece| !piece.is_empty()).collect(),
        (Err(_), by) => text.split(by).collect(),
    };
    env.budget.pay(pieces.len() as u64)?;
    Ok(Val::list(pieces.into_iter().map(Val::text).collect()))
}

/// `%s`, `%d`, `%f` with a precision, `%b`, `%x`, `%X`, `%o`, `%%`.
fn format(pattern: &str, values: &[Val<'_>]) -> Result<String, Fault> {
    let (mut out, mut rest, mut values) = (String::new(), pattern, values.iter());
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (precision, after) = rest.split_at(digits);
        let Some(verb) = after.chars().next() else { return error("a format ends with %") };
        rest = &after[verb.len_utf8()..];
        if verb == '%' {
            out.push('%');
            continue;
        }
        let Some(value) = values.next() else { return error("there are fewer values than the format wants") };
        out.push_str(&formatted(verb, precision, value)?);
        if out.len() > LARGEST {
            return error("the string would be too large");
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn formatted(verb: char, precision: &str, value: &Val<'_>) -> Result<String, Fault> {
    Ok(match (verb, value) {
        ('s', Val::List(list)) => {
            let items: Result<Vec<String>, Fault> =
                list.iter().map(|item| formatted('s', "", &item)).collect();
            format!("[{}]", items?.join(", "))
        }
        ('s', Val::Null) => "null".to_owned(),
        ('s', Val::Type(name)) => (*name).to_owned(),
        ('s', value) => match string(value)? {
            Val::Text(text) => text.into_owned(),
            _ => String::new(),
        },
        ('d', Val::Int(n)) => n.to_string(),
        ('d', Val::Uint(n)) => n.to_string(),
        ('f', Val::Double(n)) => {
            let places = precision.trim_start_matches('.').parse::<usize>().unwrap_or(6).min(100);
            format!("{n:.places$}")
        }
        ('b', Val::Bool(is)) => u8::from(*is).to_string(),
        ('b', Val::Int(n)) => format!("{}{:b}", if *n < 0 { "-" } else { "" }, n.unsigned_abs()),
        ('x', Val::Int(n)) => format!("{}{:x}", if *n < 0 { "-" } else { "" }, n.unsigned_abs()),
        ('X', Val::Int(n)) => format!("{}{:X}", if *n < 0 { "-" } else { "" }, n.unsigned_abs()),
        ('o', Val::Int(n)) => format!("{}{:o}", if *n < 0 { "-" } else { "" }, n.unsigned_abs()),
        (verb, value) => return error(format!("%{verb} cannot be used for a {}", value.type_name())),
    })
}
