//! The functions that expressions may call: CEL's own and Kubernetes' libraries.

use super::check::Tag;
use super::eval::Env;
use super::value::Val;
use super::{Fault, error, formats, lists, network, quantity, strings, times};

/// A function: what it is called on, how many arguments it takes, what it gives.
pub(super) struct Signature {
    pub(super) name: &'static str,
    /// Empty: it is called on nothing.
    pub(super) on: &'static [Tag],
    pub(super) least: usize,
    pub(super) most: usize,
    pub(super) gives: Tag,
}

const fn on(name: &'static str, on: &'static [Tag], least: usize, most: usize, gives: Tag) -> Signature {
    Signature { name, on, least, most, gives }
}

const fn global(name: &'static str, arguments: usize, gives: Tag) -> Signature {
    on(name, &[], arguments, arguments, gives)
}

const TEXT: &[Tag] = &[Tag::Text];
const LIST: &[Tag] = &[Tag::List];
const URL: &[Tag] = &[Tag::Url];
const IP: &[Tag] = &[Tag::Ip];
const CIDR: &[Tag] = &[Tag::Cidr];
const QUANTITY: &[Tag] = &[Tag::Quantity];
const TIME: &[Tag] = &[Tag::Time];
const TIMES: &[Tag] = &[Tag::Time, Tag::Duration];
const OPTIONAL: &[Tag] = &[Tag::Optional];

/// All of them.
pub(super) const SIGNATURES: &[Signature] = &[
    global("size", 1, Tag::Int),
    global("int", 1, Tag::Int),
    global("uint", 1, Tag::Uint),
    global("double", 1, Tag::Double),
    global("string", 1, Tag::Text),
    global("bytes", 1, Tag::Bytes),
    global("bool", 1, Tag::Bool),
    global("dyn", 1, Tag::Dyn),
    global("type", 1, Tag::Type),
    global("duration", 1, Tag::Duration),
    global("timestamp", 1, Tag::Time),
    global("matches", 2, Tag::Bool),
    global("url", 1, Tag::Url),
    global("isURL", 1, Tag::Bool),
    global("ip", 1, Tag::Ip),
    global("isIP", 1, Tag::Bool),
    global("ip.isCanonical", 1, Tag::Bool),
    global("cidr", 1, Tag::Cidr),
    global("isCIDR", 1, Tag::Bool),
    global("quantity", 1, Tag::Quantity),
    global("isQuantity", 1, Tag::Bool),
    global("sets.contains", 2, Tag::Bool),
    global("sets.equivalent", 2, Tag::Bool),
    global("sets.intersects", 2, Tag::Bool),
    global("optional.of", 1, Tag::Optional),
    global("optional.ofNonZeroValue", 1, Tag::Optional),
    global("optional.none", 0, Tag::Optional),
    global("format.named", 1, Tag::Optional),
    global("format.dns1123Label", 0, Tag::Format),
    global("format.dns1123Subdomain", 0, Tag::Format),
    global("format.dns1035Label", 0, Tag::Format),
    global("format.dns1123LabelPrefix", 0, Tag::Format),
    global("format.dns1123SubdomainPrefix", 0, Tag::Format),
    global("format.dns1035LabelPrefix", 0, Tag::Format),
    global("format.qualifiedName", 0, Tag::Format),
    global("format.labelValue", 0, Tag::Format),
    global("format.uri", 0, Tag::Format),
    global("format.uuid", 0, Tag::Format),
    global("format.byte", 0, Tag::Format),
    global("format.date", 0, Tag::Format),
    global("format.datetime", 0, Tag::Format),
    on("validate", &[Tag::Format], 1, 1, Tag::Optional),
    on("size", &[Tag::Text, Tag::Bytes, Tag::List, Tag::Map], 0, 0, Tag::Int),
    on("contains", TEXT, 1, 1, Tag::Bool),
    on("startsWith", TEXT, 1, 1, Tag::Bool),
    on("endsWith", TEXT, 1, 1, Tag::Bool),
    on("matches", TEXT, 1, 1, Tag::Bool),
    on("find", TEXT, 1, 1, Tag::Text),
    on("findAll", TEXT, 1, 2, Tag::List),
    on("charAt", TEXT, 1, 1, Tag::Text),
    on("indexOf", &[Tag::Text, Tag::List], 1, 2, Tag::Int),
    on("lastIndexOf", &[Tag::Text, Tag::List], 1, 2, Tag::Int),
    on("lowerAscii", TEXT, 0, 0, Tag::Text),
    on("upperAscii", TEXT, 0, 0, Tag::Text),
    on("replace", TEXT, 2, 3, Tag::Text),
    on("split", TEXT, 1, 2, Tag::List),
    on("substring", TEXT, 1, 2, Tag::Text),
    on("trim", TEXT, 0, 0, Tag::Text),
    on("format", TEXT, 1, 1, Tag::Text),
    on("join", LIST, 0, 1, Tag::Text),
    on("isSorted", LIST, 0, 0, Tag::Bool),
    on("sum", LIST, 0, 0, Tag::Dyn),
    on("min", LIST, 0, 0, Tag::Dyn),
    on("max", LIST, 0, 0, Tag::Dyn),
    on("getScheme", URL, 0, 0, Tag::Text),
    on("getHost", URL, 0, 0, Tag::Text),
    on("getHostname", URL, 0, 0, Tag::Text),
    on("getPort", URL, 0, 0, Tag::Text),
    on("getEscapedPath", URL, 0, 0, Tag::Text),
    on("getQuery", URL, 0, 0, Tag::Map),
    on("family", IP, 0, 0, Tag::Int),
    on("isUnspecified", IP, 0, 0, Tag::Bool),
    on("isLoopback", IP, 0, 0, Tag::Bool),
    on("isLinkLocalMulticast", IP, 0, 0, Tag::Bool),
    on("isLinkLocalUnicast", IP, 0, 0, Tag::Bool),
    on("isGlobalUnicast", IP, 0, 0, Tag::Bool),
    on("containsIP", CIDR, 1, 1, Tag::Bool),
    on("containsCIDR", CIDR, 1, 1, Tag::Bool),
    on("ip", CIDR, 0, 0, Tag::Ip),
    on("masked", CIDR, 0, 0, Tag::Cidr),
    on("prefixLength", CIDR, 0, 0, Tag::Int),
    on("sign", QUANTITY, 0, 0, Tag::Int),
    on("isInteger", QUANTITY, 0, 0, Tag::Bool),
    on("asInteger", QUANTITY, 0, 0, Tag::Int),
    on("asApproximateFloat", QUANTITY, 0, 0, Tag::Double),
    on("isGreaterThan", QUANTITY, 1, 1, Tag::Bool),
    on("isLessThan", QUANTITY, 1, 1, Tag::Bool),
    on("compareTo", QUANTITY, 1, 1, Tag::Int),
    on("add", QUANTITY, 1, 1, Tag::Quantity),
    on("sub", QUANTITY, 1, 1, Tag::Quantity),
    on("getFullYear", TIME, 0, 0, Tag::Int),
    on("getMonth", TIME, 0, 0, Tag::Int),
    on("getDate", TIME, 0, 0, Tag::Int),
    on("getDayOfMonth", TIME, 0, 0, Tag::Int),
    on("getDayOfWeek", TIME, 0, 0, Tag::Int),
    on("getDayOfYear", TIME, 0, 0, Tag::Int),
    on("getHours", TIMES, 0, 0, Tag::Int),
    on("getMinutes", TIMES, 0, 0, Tag::Int),
    on("getSeconds", TIMES, 0, 0, Tag::Int),
    on("getMilliseconds", TIMES, 0, 0, Tag::Int),
    on("hasValue", OPTIONAL, 0, 0, Tag::Bool),
    on("value", OPTIONAL, 0, 0, Tag::Dyn),
    on("orValue", OPTIONAL, 1, 1, Tag::Dyn),
    on("or", OPTIONAL, 1, 1, Tag::Optional),
];

/// Calls a function. What it works on is paid for before.
pub(super) fn call<'a>(
    env: &Env<'a, '_>,
    name: &str,
    target: Option<&Val<'a>>,
    args: &[Val<'a>],
) -> Result<Val<'a>, Fault> {
    for value in target.into_iter().chain(args) {
        env.budget.pay_for(value.size())?;
    }
    let found = match target {
        None => strings::global(env, name, args)
            .or_else(|| lists::global(env, name, args))
            .or_else(|| times::global(name, args))
            .or_else(|| network::global(name, args))
            .or_else(|| quantity::global(name, args))
            .or_else(|| formats::global(name, args)),
        Some(Val::Text(text)) => strings::method(env, name, text, args),
        Some(Val::Bytes(bytes)) if name == "size" => Some(Ok(Val::Int(bytes.len() as i64))),
        Some(Val::Map(map)) if name == "size" => Some(Ok(Val::Int(map.len() as i64))),
        Some(Val::List(list)) => lists::method(env, name, list, args),
        Some(Val::Url(url)) => network::of_url(name, url),
        Some(Val::Ip(ip)) => network::of_ip(name, *ip),
        Some(Val::Cidr(cidr)) => network::of_cidr(name, *cidr, args),
        Some(Val::Quantity(quantity)) => quantity::method(name, *quantity, args),
        Some(Val::Time(at)) => times::of_time(name, *at),
        Some(Val::Duration(duration)) => times::of_duration(name, *duration),
        Some(Val::Format(format)) => formats::method(env, name, format, args),
        Some(Val::Optional(value)) => optional(name, value.as_deref(), args),
        Some(_) => None,
    };
    found.unwrap_or_else(|| {
        let of: Vec<&str> = args.iter().map(Val::type_name).collect();
        let target = target.map_or_else(String::new, |target| format!("{}.", target.type_name()));
        error(format!("no such overload: {target}{name}({})", of.join(", ")))
    })
}

fn optional<'a>(name: &str, value: Option<&Val<'a>>, args: &[Val<'a>]) -> Option<Result<Val<'a>, Fault>> {
    Some(match (name, value, args) {
        ("hasValue", value, []) => Ok(Val::Bool(value.is_some())),
        ("value", Some(value), []) | ("orValue", Some(value), [_]) => Ok(value.clone()),
        ("value", None, []) => error("optional.none() dereference"),
        ("orValue" | "or", None, [other]) => Ok(other.clone()),
        ("or", Some(value), [_]) => Ok(Val::optional(Some(value.clone()))),
        _ => return None,
    })
}
