//! Listener filters: what looks at a connection's first bytes.

use lateen_proto::envoy::config::listener::v3 as proto;
use lateen_proto::envoy::config::listener::v3::listener_filter_chain_match_predicate::Rule;
use lateen_proto::envoy::extensions::filters::listener as filters;

use crate::error::{Cx, Result};

/// A listener filter and the ports for which it is off.
#[derive(Clone, Debug)]
pub struct ListenerFilter {
    /// What it does.
    pub kind: ListenerFilterKind,
    disabled: Option<Predicate>,
}

/// What a listener filter does.
#[derive(Clone, Debug, PartialEq)]
pub enum ListenerFilterKind {
    /// Restores the original destination of a redirected connection.
    OriginalDst,
    /// Binds upstream connections to the client's address, with this mark on the sockets.
    OriginalSrc {
        /// `SO_MARK`; zero is none.
        mark: u32,
    },
    /// Reads server name and ALPN from a TLS client hello.
    TlsInspector,
    /// Recognises HTTP/1 and HTTP/2 in plain text.
    HttpInspector,
    /// Reads a PROXY protocol header; with the flag it may be missing.
    ProxyProtocol {
        /// Whether connections without the header pass.
        optional: bool,
    },
}

impl ListenerFilter {
    /// Whether it looks at connections to this destination port.
    pub fn enabled(&self, port: u16) -> bool {
        !self.disabled.as_ref().is_some_and(|predicate| predicate.matches(port))
    }

    pub(crate) fn compile(cx: &mut Cx<'_>, message: &proto::ListenerFilter) -> Result<Self> {
        let disabled = match &message.filter_disabled {
            None => None,
            Some(predicate) => Some(cx.field("filter_disabled", |cx| Predicate::compile(cx, predicate, 0))?),
        };
        let any = match &message.config_type {
            Some(proto::listener_filter::ConfigType::TypedConfig(any)) => any,
            Some(proto::listener_filter::ConfigType::ConfigDiscovery(_)) => {
                return Err(cx.refuse_at("config_discovery", "is not supported: give typed_config"));
            }
            None => return Err(cx.refuse_at("typed_config", "is required")),
        };
        let kind = cx.field("typed_config", |cx| ListenerFilterKind::compile(cx, any))?;
        Ok(Self { kind, disabled })
    }
}

impl ListenerFilterKind {
    fn compile(cx: &mut Cx<'_>, any: &lateen_proto::Any) -> Result<Self> {
        if any.is::<filters::original_dst::v3::OriginalDst>() {
            return Ok(Self::OriginalDst);
        }
        if any.is::<filters::original_src::v3::OriginalSrc>() {
            let message: filters::original_src::v3::OriginalSrc = cx.unpack(any)?;
            return Ok(Self::OriginalSrc { mark: message.mark });
        }
        if any.is::<filters::tls_inspector::v3::TlsInspector>() {
            return Ok(Self::TlsInspector);
        }
        if any.is::<filters::http_inspector::v3::HttpInspector>() {
            return Ok(Self::HttpInspector);
        }
        if any.is::<filters::proxy_protocol::v3::ProxyProtocol>() {
            let message: filters::proxy_protocol::v3::ProxyProtocol = cx.unpack(any)?;
            cx.check(&message)?;
            return Ok(Self::ProxyProtocol { optional: message.allow_requests_without_proxy_protocol });
        }
        Err(cx.refuse(format!("listener filter {} is not supported", any.type_url)))
    }
}

#[derive(Clone, Debug)]
enum Predicate {
    Any(bool),
    Ports { start: i32, end: i32 },
    Not(Box<Predicate>),
    And(Vec<Predicate>),
    Or(Vec<Predicate>),
}

impl Predicate {
    fn matches(&self, port: u16) -> bool {
        match self {
            Self::Any(truth) => *truth,
            Self::Ports { start, end } => (*start..*end).contains(&i32::from(port)),
            Self::Not(inner) => !inner.matches(port),
            Self::And(all) => all.iter().all(|one| one.matches(port)),
            Self::Or(any) => any.iter().any(|one| one.matches(port)),
        }
    }

    fn compile(
        cx: &mut Cx<'_>,
        message: &proto::ListenerFilterChainMatchPredicate,
        depth: u8,
    ) -> Result<Self> {
        if depth > 32 {
            return Err(cx.refuse("is nested more than 32 levels deep"));
        }
        let set = |cx: &mut Cx<'_>, name: &str, set: &[proto::ListenerFilterChainMatchPredicate]| {
            cx.each(name, set, |cx, rule| Self::compile(cx, rule, depth + 1))
        };
        Ok(match cx.required("rule", &message.rule)? {
            Rule::AnyMatch(truth) => Self::Any(*truth),
            Rule::DestinationPortRange(range) => Self::Ports { start: range.start, end: range.end },
            Rule::NotMatch(inner) => {
                Self::Not(Box::new(cx.field("not_match", |cx| Self::compile(cx, inner, depth + 1))?))
            }
            Rule::AndMatch(rules) => Self::And(set(cx, "and_match.rules", &rules.rules)?),
            Rule::OrMatch(rules) => Self::Or(set(cx, "or_match.rules", &rules.rules)?),
        })
    }
}
