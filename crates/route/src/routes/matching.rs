//! Which requests a route takes.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use lateen_proto::envoy::config::route::v3 as proto;
use lateen_proto::envoy::config::route::v3::route_match::PathSpecifier;

use crate::entropy::Fraction;
use crate::error::{Cx, Result};
use crate::header_match::{CookieMatcher, HeaderMatcher, QueryMatcher};
use crate::metadata_match::MetadataMatcher;
use crate::request::RequestView;
use crate::string_match::FullRegex;

/// A compiled `RouteMatch`.
#[derive(Clone, Debug)]
pub struct RouteMatcher {
    /// The path.
    pub path: PathMatch,
    ignore_case: bool,
    rest: Option<Arc<Conditions>>,
}

/// What a path has to be; queries are not looked at.
#[derive(Clone, Debug)]
pub enum PathMatch {
    /// It begins so.
    Prefix(Arc<str>),
    /// It is so.
    Exact(Arc<str>),
    /// It is so, or goes on with a slash.
    Segments(Arc<str>),
    /// The whole of it matches.
    Regex(FullRegex),
    /// The request is a CONNECT.
    Connect,
}

#[derive(Clone, Debug, Default)]
struct Conditions {
    headers: Vec<HeaderMatcher>,
    query: Vec<QueryMatcher>,
    cookies: Vec<CookieMatcher>,
    metadata: Vec<MetadataMatcher>,
    share: Option<Fraction>,
    grpc: bool,
    tls: Option<TlsConditions>,
}

#[derive(Clone, Copy, Debug, Default)]
struct TlsConditions {
    presented: Option<bool>,
    validated: Option<bool>,
}

/// Keeps equal strings once: route configurations repeat prefixes such as `/` a thousand times.
#[derive(Default)]
pub(super) struct Interned(std::collections::HashSet<Arc<str>>);

impl Interned {
    fn text(&mut self, text: &str) -> Arc<str> {
        match self.0.get(text) {
            Some(kept) => kept.clone(),
            None => {
                let kept: Arc<str> = text.into();
                self.0.insert(kept.clone());
                kept
            }
        }
    }
}

/// How many expressions of one beginning wait for the first request that begins so.
const WAITING: usize = 64;

/// Builds the expressions that one request would have to build too many of: those that begin alike.
pub(super) fn build_shared<'m>(matchers: impl Iterator<Item = &'m RouteMatcher>) {
    let mut by_prefix: HashMap<&[u8], Vec<&FullRegex>> = HashMap::new();
    for matcher in matchers {
        if let PathMatch::Regex(regex) = &matcher.path {
            by_prefix.entry(regex.prefix()).or_default().push(regex);
        }
    }
    for regex in by_prefix.into_values().filter(|alike| alike.len() > WAITING).flatten() {
        regex.build();
    }
}

/// Why a route does not take a request; words only when asked for.
pub(super) struct Mismatch<'m>(Reason<'m>);

enum Reason<'m> {
    Path(&'m PathMatch),
    Header(&'m HeaderMatcher),
    Other(&'static str),
}

impl RouteMatcher {
    /// Whether the route takes a request; `draw` decides shares.
    #[inline]
    pub fn matches(&self, request: &RequestView<'_>, draw: u64) -> bool {
        self.mismatch(request, draw).is_none()
    }

    #[inline]
    pub(super) fn mismatch(&self, request: &RequestView<'_>, draw: u64) -> Option<Mismatch<'_>> {
        if !self.path_matches(request) {
            return Some(Mismatch(Reason::Path(&self.path)));
        }
        self.rest.as_ref()?.mismatch(request, draw).map(Mismatch)
    }

    fn path_matches(&self, request: &RequestView<'_>) -> bool {
        if let PathMatch::Connect = self.path {
            return request.method == "CONNECT";
        }
        let path = request.path_only();
        let starts = |prefix: &str| match self.ignore_case {
            false => path.starts_with(prefix),
            true => path
                .as_bytes()
                .get(..prefix.len())
                .is_some_and(|head| head.eq_ignore_ascii_case(prefix.as_bytes())),
        };
        match &self.path {
            PathMatch::Prefix(prefix) => starts(prefix),
            PathMatch::Exact(whole) => path.len() == whole.len() && starts(whole),
            PathMatch::Segments(prefix) => {
                starts(prefix) && matches!(path.as_bytes().get(prefix.len()), None | Some(b'/'))
            }
            PathMatch::Regex(regex) => regex.matches(path.as_bytes()),
            PathMatch::Connect => true,
        }
    }

    /// Whether it takes every request.
    pub fn is_catch_all(&self) -> bool {
        self.rest.is_none() && matches!(&self.path, PathMatch::Prefix(prefix) if &**prefix == "/")
    }

    /// A matcher that is no route's.
    pub(crate) fn alone(cx: &mut Cx<'_>, message: &proto::RouteMatch) -> Result<Self> {
        Self::compile(cx, message, &mut Interned::default())
    }

    pub(super) fn compile(
        cx: &mut Cx<'_>,
        message: &proto::RouteMatch,
        texts: &mut Interned,
    ) -> Result<Self> {
        cx.check(message)?;
        let path = match cx.required("path_specifier", &message.path_specifier)? {
            PathSpecifier::Prefix(text) => PathMatch::Prefix(texts.text(text)),
            PathSpecifier::Path(text) => PathMatch::Exact(texts.text(text)),
            PathSpecifier::PathSeparatedPrefix(text) => {
                if !text.starts_with('/') || text.ends_with('/') || text.contains(['?', '#']) {
                    let reason = "has to begin with a slash, end without one, and hold no ? or #";
                    return Err(cx.refuse_at("path_separated_prefix", reason));
                }
                PathMatch::Segments(texts.text(text))
            }
            PathSpecifier::SafeRegex(regex) => {
                PathMatch::Regex(cx.field("safe_regex", |cx| FullRegex::compile(cx, regex))?)
            }
            PathSpecifier::ConnectMatcher(_) => PathMatch::Connect,
            PathSpecifier::PathMatchPolicy(policy) => PathMatch::Regex(
                cx.field("path_match_policy", |cx| crate::path_template::compile(cx, policy))?,
            ),
        };
        let ignore_case = message.case_sensitive == Some(false);
        Ok(Self { path, ignore_case, rest: Conditions::compile(cx, message)? })
    }
}

impl Conditions {
    fn mismatch(&self, request: &RequestView<'_>, draw: u64) -> Option<Reason<'_>> {
        if let Some(header) = self.headers.iter().find(|header| !header.matches(request)) {
            return Some(Reason::Header(header));
        }
        if !self.query.iter().all(|query| query.matches(request)) {
            return Some(Reason::Other("a query parameter does not match"));
        }
        if !self.cookies.iter().all(|cookie| cookie.matches(request)) {
            return Some(Reason::Other("a cookie does not match"));
        }
        if !self.metadata.iter().all(|metadata| metadata.matches(request.metadata)) {
            return Some(Reason::Other("dynamic metadata does not match"));
        }
        if self.grpc && !is_grpc(request) {
            return Some(Reason::Other("it is no gRPC request"));
        }
        if self.tls.is_some_and(|tls| !tls.hold(request)) {
            return Some(Reason::Other("the client's certificate does not match"));
        }
        if self.share.is_some_and(|share| !share.hits(draw)) {
            return Some(Reason::Other("it is not in the share of requests"));
        }
        None
    }

    fn compile(cx: &mut Cx<'_>, message: &proto::RouteMatch) -> Result<Option<Arc<Self>>> {
        let out = Self {
            headers: cx.each("headers", &message.headers, HeaderMatcher::compile)?,
            query: cx.each("query_parameters", &message.query_parameters, QueryMatcher::compile)?,
            cookies: cx.each("cookies", &message.cookies, CookieMatcher::compile)?,
            metadata: cx.each("dynamic_metadata", &message.dynamic_metadata, MetadataMatcher::compile)?,
            share: message
                .runtime_fraction
                .is_some()
                .then(|| Fraction::of_runtime(&message.runtime_fraction, Fraction::ALL)),
            grpc: message.grpc.is_some(),
            tls: message
                .tls_context
                .map(|tls| TlsConditions { presented: tls.presented, validated: tls.validated }),
        };
        let empty = out.headers.is_empty()
            && out.query.is_empty()
            && out.cookies.is_empty()
            && out.metadata.is_empty()
            && out.share.is_none()
            && !out.grpc
            && out.tls.is_none();
        Ok((!empty).then(|| Arc::new(out)))
    }
}

impl TlsConditions {
    fn hold(self, request: &RequestView<'_>) -> bool {
        let peer = request.connection.peer;
        let presented = self.presented.is_none_or(|wanted| wanted == peer.is_some());
        presented && self.validated.is_none_or(|wanted| wanted == peer.is_some_and(|peer| peer.validated))
    }
}

fn is_grpc(request: &RequestView<'_>) -> bool {
    let content_type = request.headers.get(http::header::CONTENT_TYPE).map(|value| value.as_bytes());
    content_type.is_some_and(|value| {
        value.strip_prefix(b"application/grpc").is_some_and(|rest| matches!(rest.first(), None | Some(b'+')))
    })
}

impl fmt::Display for PathMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(prefix) => write!(f, "path begins with {prefix}"),
            Self::Exact(path) => write!(f, "path is {path}"),
            Self::Segments(prefix) => write!(f, "path is or continues {prefix}"),
            Self::Regex(_) => f.write_str("path matches a regular expression"),
            Self::Connect => f.write_str("method is CONNECT"),
        }
    }
}

impl fmt::Display for RouteMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.fmt(f)?;
        for header in self.rest.iter().flat_map(|rest| &rest.headers) {
            write!(f, ", {header}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Mismatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Reason::Path(path) => write!(f, "not {path}"),
            Reason::Header(header) => write!(f, "not {header}"),
            Reason::Other(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::VirtualHost;

    use super::super::{RouteTable, compile_routes};
    use super::*;

    fn table(patterns: impl Iterator<Item = String>) -> RouteTable {
        use lateen_proto::json::from_value;
        let route = |regex: String| {
            from_value(
                &serde_json::json!({"match": {"safeRegex": {"regex": regex}}, "route": {"cluster": "c"}}),
            )
            .unwrap()
        };
        let host = VirtualHost {
            name: "all".into(),
            domains: vec!["*".into()],
            routes: patterns.map(route).collect(),
            ..VirtualHost::default()
        };
        let message = proto::RouteConfiguration { virtual_hosts: vec![host], ..Default::default() };
        compile_routes(&message).unwrap().value
    }

    fn built(table: &RouteTable) -> usize {
        let routes = table.virtual_hosts.iter().flat_map(|host| &host.routes);
        routes
            .filter(|route| matches!(&route.matcher.path, PathMatch::Regex(regex) if regex.is_built()))
            .count()
    }

    fn takes(table: &RouteTable, path: &str) -> bool {
        let request = RequestView {
            method: "GET",
            scheme: "http",
            authority: "a",
            path,
            headers: &http::HeaderMap::new(),
            connection: &crate::request::ConnectionView::default(),
            metadata: None,
            remote: None,
        };
        let selected = table.route(&request, false, crate::Entropy(0), &mut ());
        selected.is_some_and(|selected| selected.route.is_some())
    }

    #[test]
    fn of_ten_thousand_expressions_a_request_builds_the_one_it_begins_like() {
        let patterns = || (0..10_000).map(|n| format!("/ten/{n}/[a-z]+"));
        let first = table(patterns());
        assert_eq!(built(&first), 0);
        assert!(takes(&first, "/ten/7777/x"));
        assert_eq!(built(&first), 1);
        let next = table(patterns());
        assert_eq!(built(&next), 1, "the next version of the configuration has it");
    }

    #[test]
    fn expressions_that_begin_alike_do_not_wait_for_a_request() {
        let few = table((0..60).map(|n| format!("/few/[a-z]+/{n}")));
        assert_eq!(built(&few), 0);
        let many = table((0..100).map(|n| format!("/many/[a-z]+/{n}")));
        assert_eq!(built(&many), 100);
        assert!(takes(&many, "/many/a/99") && !takes(&many, "/many/a/100"));
    }
}
