//! Redirects.

use std::sync::Arc;

use lateen_proto::envoy::config::route::v3 as proto;
use lateen_proto::envoy::config::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};

use super::matching::{PathMatch, RouteMatcher};
use super::without_port;
use crate::error::{Cx, Result};
use crate::request::RequestView;
use crate::string_match::Substitution;

/// A compiled `RedirectAction`.
#[derive(Clone, Debug)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    scheme: Option<Arc<str>>,
    host: Option<Arc<str>>,
    port: Option<u16>,
    path: Option<PathRedirect>,
    strip_query: bool,
}

/// Where a redirect's path comes from.
#[derive(Clone, Debug)]
pub enum PathRedirect {
    /// Always the same, possibly with a query.
    Whole(Arc<str>),
    /// What the route matched, `matched` bytes long, is replaced.
    Prefix {
        /// The replacement.
        with: Arc<str>,
        /// How many bytes are replaced.
        matched: usize,
    },
    /// Search and replace.
    Regex(Substitution),
}

impl Redirect {
    /// The `location` of the answer.
    pub fn location(&self, request: &RequestView<'_>) -> String {
        let scheme = self.scheme.as_deref().unwrap_or(request.scheme);
        let host = self.host.as_deref().unwrap_or_else(|| match (&self.scheme, self.port) {
            // A port goes along unless it is the old scheme's own, or a new one is given.
            (_, Some(_)) => without_port(request.authority),
            (Some(_), None) if is_default_port(request) => without_port(request.authority),
            _ => request.authority,
        });
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("{scheme}://{host}{port}{}", self.path(request))
    }

    fn path(&self, request: &RequestView<'_>) -> String {
        let query = request.query();
        let (mut path, takes_query) = match &self.path {
            None => (request.path_only().to_owned(), true),
            Some(PathRedirect::Whole(path)) => (path.to_string(), !path.contains('?')),
            Some(PathRedirect::Prefix { with, matched }) => {
                (format!("{with}{}", request.path_only().get(*matched..).unwrap_or_default()), true)
            }
            Some(PathRedirect::Regex(substitution)) => {
                let path = substitution.apply(request.path_only().as_bytes());
                (String::from_utf8_lossy(&path).into_owned(), true)
            }
        };
        if takes_query && !query.is_empty() && !self.strip_query {
            path.push('?');
            path.push_str(query);
        }
        path
    }

    pub(super) fn compile(
        cx: &mut Cx<'_>,
        message: &proto::RedirectAction,
        matcher: &RouteMatcher,
    ) -> Result<Self> {
        cx.check(message)?;
        let scheme = match &message.scheme_rewrite_specifier {
            None | Some(SchemeRewriteSpecifier::HttpsRedirect(false)) => None,
            Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some("https".into()),
            Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) => Some(scheme.as_str().into()),
        };
        let path = match &message.path_rewrite_specifier {
            None => None,
            Some(PathRewriteSpecifier::PathRedirect(path)) => Some(PathRedirect::Whole(path.as_str().into())),
            Some(PathRewriteSpecifier::PrefixRewrite(with)) => {
                Some(PathRedirect::Prefix { with: with.as_str().into(), matched: matched_length(matcher) })
            }
            Some(PathRewriteSpecifier::RegexRewrite(rewrite)) => {
                Some(PathRedirect::Regex(cx.field("regex_rewrite", |cx| Substitution::compile(cx, rewrite))?))
            }
            Some(PathRewriteSpecifier::PathRewrite(_)) => {
                return Err(cx.refuse_at("path_rewrite", "is not supported: use path_redirect"));
            }
        };
        let port = match message.port_redirect {
            0 => None,
            port => Some(u16::try_from(port).map_err(|_| cx.refuse_at("port_redirect", "is no port"))?),
        };
        Ok(Self {
            status: match message.response_code() {
                RedirectResponseCode::MovedPermanently => 301,
                RedirectResponseCode::Found => 302,
                RedirectResponseCode::SeeOther => 303,
                RedirectResponseCode::TemporaryRedirect => 307,
                RedirectResponseCode::PermanentRedirect => 308,
            },
            scheme,
            host: (!message.host_redirect.is_empty()).then(|| message.host_redirect.as_str().into()),
            port,
            path,
            strip_query: message.strip_query,
        })
    }
}

fn is_default_port(request: &RequestView<'_>) -> bool {
    let port = request.authority.strip_prefix(without_port(request.authority)).unwrap_or_default();
    matches!((request.scheme, port), ("http", ":80") | ("https", ":443"))
}

/// How many bytes of a path a prefix rewrite replaces. A regular expression matches the whole path, so it replaces the
/// whole path, as it does in Envoy.
pub(super) fn matched_length(matcher: &RouteMatcher) -> usize {
    match &matcher.path {
        PathMatch::Prefix(text) | PathMatch::Exact(text) | PathMatch::Segments(text) => text.len(),
        PathMatch::Regex(_) | PathMatch::Connect => usize::MAX,
    }
}
