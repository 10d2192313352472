//! URLs, addresses, networks.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::value::{Entries, Val};
use super::{Fault, error};

type Done<'a> = Option<Result<Val<'a>, Fault>>;

/// An absolute URL, or a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    text: String,
    scheme: String,
    host: String,
    path: String,
    query: String,
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Url {
    /// RFC 3986, absolute: with a scheme, or a path that begins with `/`.
    fn parse(text: &str) -> Option<Self> {
        if text.is_empty() || text.chars().any(|c| c.is_control() || c == ' ') {
            return None;
        }
        let (before, _) = text.split_once('#').unwrap_or((text, ""));
        let (before, query) = before.split_once('?').unwrap_or((before, ""));
        let (scheme, rest) = if before.starts_with('/') { ("", before) } else { before.split_once(':')? };
        let legal = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        if !before.starts_with('/')
            && (!scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !scheme.chars().all(legal))
        {
            return None;
        }
        let (host, path) = match rest.strip_prefix("//") {
            Some(authority) => {
                let end = authority.find('/').unwrap_or(authority.len());
                let (authority, path) = authority.split_at(end);
                (authority.rsplit_once('@').map_or(authority, |(_, host)| host), path)
            }
            None => ("", rest),
        };
        let named = percent(host) && percent(path) && percent(query);
        let (_, port) = Self::split(host)?;
        if !named || !port.chars().all(|c| c.is_ascii_digit()) || host.contains(['<', '>', '"', '^', '\\']) {
            return None;
        }
        let [text, scheme, host, path, query] =
            [text, &scheme.to_ascii_lowercase(), host, path, query].map(str::to_owned);
        Some(Self { text, scheme, host, path, query })
    }

    /// Host name and port; the name of an address of version 6 is without its brackets.
    fn split(host: &str) -> Option<(&str, &str)> {
        if let Some(rest) = host.strip_prefix('[') {
            let (name, after) = rest.split_once(']')?;
            name.split('%').next()?.parse::<std::net::Ipv6Addr>().ok()?;
            return match after.strip_prefix(':') {
                Some(port) => Some((name, port)),
                None => after.is_empty().then_some((name, "")),
            };
        }
        match host.split_once(':') {
            Some((_, port)) if port.contains(':') => None,
            Some(split) => Some(split),
            None => Some((host, "")),
        }
    }

    fn parameters<'a>(&self) -> Val<'a> {
        let mut all: Vec<(String, Vec<Val<'a>>)> = Vec::new();
        let decode = |text: &str| {
            percent_encoding::percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
        };
        for pair in self.query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (key, value) = (decode(key), Val::text(decode(value)));
            match all.iter_mut().find(|(known, _)| *known == key) {
                Some((_, values)) => values.push(value),
                None => all.push((key, vec![value])),
            }
        }
        let entries = all.into_iter().map(|(key, values)| (Val::text(key), Val::list(values)));
        Val::Map(Entries::Made(Arc::new(entries.collect())))
    }
}

/// Every percent sign is followed by two hexadecimal digits.
fn percent(text: &str) -> bool {
    text.split('%').skip(1).all(|rest| rest.len() >= 2 && rest.bytes().take(2).all(|b| b.is_ascii_hexdigit()))
}

/// A network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cidr {
    address: IpAddr,
    length: u8,
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl Cidr {
    fn parse(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/')?;
        let address = parse_ip(address)?;
        let digits = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
        let length = length.parse().ok().filter(|length| digits && *length <= bits(address))?;
        Some(Self { address, length })
    }

    fn masked(self) -> Self {
        let kept = |bits: u32, all: u128| match u32::from(self.length) {
            0 => 0,
            length => all << (bits - length) & all,
        };
        let address = match self.address {
            IpAddr::V4(ip) => IpAddr::V4((u32::from(ip) & kept(32, u32::MAX.into()) as u32).into()),
            IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) & kept(128, u128::MAX)).into()),
        };
        Self { address, ..self }
    }

    fn contains(self, address: IpAddr) -> bool {
        bits(self.address) == bits(address)
            && Self { address, length: self.length }.masked().address == self.masked().address
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// An address without zone, and not of version 4 in the form of version 6.
fn parse_ip(text: &str) -> Option<IpAddr> {
    let parsed: IpAddr = text.parse().ok()?;
    match parsed {
        IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => None,
        other => Some(other),
    }
}

pub(super) fn global<'a>(name: &str, args: &[Val<'a>]) -> Done<'a> {
    let bad = |text: &str, what: &str| Fault::Error(format!("{text:?} is no {what}"));
    Some(match (name, args) {
        ("isURL", [Val::Text(text)]) => Ok(Val::Bool(Url::parse(text).is_some())),
        ("url", [Val::Text(text)]) => {
            Url::parse(text).map(|url| Val::Url(Arc::new(url))).ok_or_else(|| bad(text, "URL"))
        }
        ("isIP", [Val::Text(text)]) => Ok(Val::Bool(parse_ip(text).is_some())),
        ("ip", [Val::Text(text)]) => parse_ip(text).map(Val::Ip).ok_or_else(|| bad(text, "IP address")),
        ("ip.isCanonical", [Val::Text(text)]) => match parse_ip(text) {
            Some(ip) => Ok(Val::Bool(ip.to_string() == **text)),
            None => Err(bad(text, "IP address")),
        },
        ("isCIDR", [Val::Text(text)]) => Ok(Val::Bool(Cidr::parse(text).is_some())),
        ("cidr", [Val::Text(text)]) => Cidr::parse(text).map(Val::Cidr).ok_or_else(|| bad(text, "CIDR")),
        _ => return None,
    })
}

pub(super) fn of_url<'a>(name: &str, url: &Url) -> Done<'a> {
    let (host, port) = Url::split(&url.host).unwrap_or_default();
    Some(Ok(match name {
        "getScheme" => Val::text(url.scheme.as_str()),
        "getHost" => Val::text(url.host.as_str()),
        "getHostname" => Val::text(host),
        "getPort" => Val::text(port),
        "getEscapedPath" => Val::text(url.path.as_str()),
        "getQuery" => url.parameters(),
        _ => return None,
    }))
}

pub(super) fn of_ip<'a>(name: &str, ip: IpAddr) -> Done<'a> {
    let local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let local_multicast = match ip {
        IpAddr::V4(ip) => ip.octets()[..3] == [224, 0, 0],
        IpAddr::V6(ip) => ip.segments()[0] & 0xff0f == 0xff02,
    };
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    Some(Ok(Val::Bool(match name {
        "family" => return Some(Ok(Val::Int(if ip.is_ipv4() { 4 } else { 6 }))),
        "isUnspecified" => ip.is_unspecified(),
        "isLoopback" => ip.is_loopback(),
        "isLinkLocalUnicast" => local,
        "isLinkLocalMulticast" => local_multicast,
        "isGlobalUnicast" => {
            !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast() && !local && !broadcast
        }
        _ => return None,
    })))
}

pub(super) fn of_cidr<'a>(name: &str, cidr: Cidr, args: &[Val<'a>]) -> Done<'a> {
    let contains = |other: Cidr| other.length >= cidr.length && cidr.contains(other.address);
    Some(Ok(match (name, args) {
        ("ip", []) => Val::Ip(cidr.address),
        ("masked", []) => Val::Cidr(cidr.masked()),
        ("prefixLength", []) => Val::Int(i64::from(cidr.length)),
        ("containsIP", [Val::Ip(ip)]) => Val::Bool(cidr.contains(*ip)),
        ("containsIP", [Val::Text(text)]) => match parse_ip(text) {
            Some(ip) => Val::Bool(cidr.contains(ip)),
            None => return Some(error(format!("{text:?} is no IP address"))),
        },
        ("containsCIDR", [Val::Cidr(other)]) => Val::Bool(contains(*other)),
        ("containsCIDR", [Val::Text(text)]) => match Cidr::parse(text) {
            Some(other) => Val::Bool(contains(other)),
            None => return Some(error(format!("{text:?} is no CIDR"))),
        },
        _ => return None,
    }))
}
