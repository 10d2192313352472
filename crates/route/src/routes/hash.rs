//! What the load balancer's hash is made of.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use lateen_proto::envoy::config::route::v3::route_action as proto;
use smallvec::SmallVec;
use xxhash_rust::xxh64::xxh64;

use crate::error::{Cx, Result};
use crate::header_match::cookie;
use crate::request::RequestView;
use crate::string_match::Substitution;

/// A part of the load balancer's hash.
#[derive(Clone, Debug)]
pub struct HashPolicy {
    /// What is hashed.
    pub source: HashSource,
    /// Whether the following policies are left out once this one gave something.
    pub terminal: bool,
}

/// What is hashed.
#[derive(Clone, Debug)]
pub enum HashSource {
    /// A request header.
    Header {
        /// Its name.
        name: HeaderName,
        /// What is done with its value before.
        rewrite: Option<Substitution>,
    },
    /// A cookie; with a lifetime it is made where it is missing.
    Cookie(HashCookie),
    /// The client's address.
    SourceIp,
    /// A query parameter.
    Query(Arc<str>),
}

/// A cookie that is hashed.
#[derive(Clone, Debug)]
pub struct HashCookie {
    /// Its name.
    pub name: Arc<str>,
    /// Its lifetime; zero is a session cookie. `None` is never made.
    pub ttl: Option<Duration>,
    /// Its path; empty is none.
    pub path: Arc<str>,
    /// Attributes of one that is made, as `SameSite` and `Strict`.
    pub attributes: Box<[(Arc<str>, Arc<str>)]>,
}

impl HashCookie {
    /// The `set-cookie` header of a cookie that was made.
    pub fn header(&self, value: &str) -> String {
        let mut out = format!("{}=\"{value}\"", self.name);
        if let Some(ttl) = self.ttl.filter(|ttl| !ttl.is_zero()) {
            out.push_str(&format!("; Max-Age={}", ttl.as_secs()));
        }
        if !self.path.is_empty() {
            out.push_str(&format!("; Path={}", self.path));
        }
        for (name, value) in &self.attributes {
            out.push_str("; ");
            out.push_str(name);
            if !value.is_empty() {
                out.push('=');
                out.push_str(value);
            }
        }
        out.push_str("; HttpOnly");
        out
    }
}

impl HashSource {
    fn hash(
        &self,
        request: &RequestView<'_>,
        make: &mut dyn FnMut(&HashCookie) -> Option<String>,
    ) -> Option<u64> {
        match self {
            Self::Header { name, rewrite } => header(request, name, rewrite.as_ref()),
            Self::Cookie(rules) => match cookie(request, &rules.name) {
                Some(value) => Some(xxh64(value.as_bytes(), 0)),
                None => rules.ttl.and_then(|_| make(rules)).map(|value| xxh64(value.as_bytes(), 0)),
            },
            Self::SourceIp => {
                Some(address_hash(request.remote.unwrap_or_else(|| request.connection.source.ip())))
            }
            Self::Query(name) => request.query().split('&').find_map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                (key == &**name).then(|| xxh64(value.as_bytes(), 0))
            }),
        }
    }
}

/// The hash of a client's address.
pub fn address_hash(address: IpAddr) -> u64 {
    xxh64(address.to_string().as_bytes(), 0)
}

/// Several values of a header count in order of their bytes.
fn header(request: &RequestView<'_>, name: &HeaderName, rewrite: Option<&Substitution>) -> Option<u64> {
    let mut values: SmallVec<[std::borrow::Cow<'_, [u8]>; 1]> = SmallVec::new();
    for value in request.headers.get_all(name) {
        values.push(match rewrite {
            None => value.as_bytes().into(),
            Some(rewrite) => rewrite.apply(value.as_bytes()).into(),
        });
    }
    if values.is_empty() {
        return None;
    }
    values.sort();
    Some(values.iter().fold(0, |hash, value| xxh64(value, hash)))
}

impl HashPolicy {
    /// The hash of a request by several policies, in order. `make` makes a cookie that is missing.
    pub fn all(
        policies: &[Self],
        request: &RequestView<'_>,
        make: &mut dyn FnMut(&HashCookie) -> Option<String>,
    ) -> Option<u64> {
        let mut hash: Option<u64> = None;
        for policy in policies {
            if let Some(part) = policy.source.hash(request, make) {
                hash = Some(hash.map_or(part, |old| old.rotate_left(1) ^ part));
            }
            if policy.terminal && hash.is_some() {
                break;
            }
        }
        hash
    }

    pub(super) fn compile(cx: &mut Cx<'_>, message: &proto::HashPolicy) -> Result<Self> {
        use proto::hash_policy::PolicySpecifier as P;
        let source = match cx.required("policy_specifier", &message.policy_specifier)? {
            P::Header(header) => HashSource::Header {
                name: cx.header_name("header.header_name", &header.header_name)?,
                rewrite: header
                    .regex_rewrite
                    .as_ref()
                    .map(|rewrite| cx.field("header.regex_rewrite", |cx| Substitution::compile(cx, rewrite)))
                    .transpose()?,
            },
            P::Cookie(cookie) => HashSource::Cookie(HashCookie {
                name: cookie.name.as_str().into(),
                ttl: cx.duration("cookie.ttl", &cookie.ttl)?,
                path: cookie.path.as_str().into(),
                attributes: cookie
                    .attributes
                    .iter()
                    .map(|attribute| (attribute.name.as_str().into(), attribute.value.as_str().into()))
                    .collect(),
            }),
            P::ConnectionProperties(properties) if properties.source_ip => HashSource::SourceIp,
            P::ConnectionProperties(_) => {
                return Err(cx.refuse_at("connection_properties", "needs source_ip: true"));
            }
            P::QueryParameter(query) => HashSource::Query(query.name.as_str().into()),
            P::FilterState(_) => return Err(cx.refuse_at("filter_state", "is not supported")),
        };
        Ok(Self { source, terminal: message.terminal })
    }
}
