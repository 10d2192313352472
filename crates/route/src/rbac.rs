//! Role-based access control: policies of permissions and principals.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use lateen_proto::envoy::config::rbac::v3 as proto;
use lateen_proto::envoy::config::rbac::v3::{permission, principal};
use lateen_proto::envoy::extensions::filters::http::rbac::v3 as http_rbac;
use lateen_proto::envoy::extensions::filters::network::rbac::v3 as network_rbac;

use crate::error::{Cx, Result};
use crate::header_match::HeaderMatcher;
use crate::metadata_match::MetadataMatcher;
use crate::request::{ConnectionView, RequestView};
use crate::string_match::{FullRegex, StringMatcher};

mod misses;

pub use misses::Miss;

/// Under which name the HTTP filter keeps what its rules on trial say.
pub const HTTP_METADATA: &str = "envoy.filters.http.rbac";
/// The same for the network filter.
pub const NETWORK_METADATA: &str = "envoy.filters.network.rbac";

/// A compiled RBAC filter, of connections or of requests.
#[derive(Clone, Debug)]
pub struct RbacFilter {
    /// What is enforced; none lets everything pass.
    pub rules: Option<Rules>,
    /// What is only tried: it is counted, and later filters may look at what it says.
    pub shadow: Option<Rules>,
    /// What precedes `rbac.` in the names of metrics, for the filter of connections.
    pub stat_prefix: Arc<str>,
    /// What precedes the metrics of enforced rules, after `rbac.`.
    pub rules_prefix: Arc<str>,
    /// What precedes the metrics and the metadata of rules on trial.
    pub shadow_prefix: Arc<str>,
}

/// Policies and what a match of one means.
#[derive(Clone, Debug)]
pub struct Rules {
    /// What a match means.
    pub action: RbacAction,
    /// The policies by name, in order of their names.
    pub policies: Vec<Policy>,
}

/// What a match of a policy means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RbacAction {
    /// Only what matches passes.
    Allow,
    /// What matches is turned away.
    Deny,
    /// Everything passes; what matches is logged.
    Log,
}

/// A policy: it matches when one of its permissions and one of its principals do.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Its name, as `ns[default]-policy[p]-rule[0]`.
    pub name: Arc<str>,
    permissions: Vec<Rule>,
    principals: Vec<Rule>,
}

/// What rules decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'r> {
    /// It passes; by this policy, if it took one.
    Allowed(Option<&'r Arc<str>>),
    /// It is turned away; by this policy, unless for want of one.
    Denied(Option<&'r Arc<str>>),
}

impl Verdict<'_> {
    /// Whether it passes.
    pub fn is_allowed(self) -> bool {
        matches!(self, Self::Allowed(_))
    }

    /// The policy that matched, if one did.
    pub fn policy(&self) -> Option<&Arc<str>> {
        match self {
            Self::Allowed(policy) | Self::Denied(policy) => *policy,
        }
    }

    /// The detail of a denial in logs, as Envoy writes it; none of what passes.
    pub fn denial(self) -> Option<String> {
        let Self::Denied(policy) = self else { return None };
        let policy = policy.map_or("none".to_owned(), |name| name.replace(char::is_whitespace, "_"));
        Some(format!("rbac_access_denied_matched_policy[{policy}]"))
    }
}

/// What rules look at: a connection, and the request on it if it speaks HTTP.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The connection.
    pub connection: &'a ConnectionView<'a>,
    /// The request.
    pub request: Option<&'a RequestView<'a>>,
}

impl Rules {
    /// Decides.
    pub fn judge(&self, subject: Subject<'_>) -> Verdict<'_> {
        let hit = self.policies.iter().find(|policy| policy.matches(subject)).map(|policy| &policy.name);
        match (self.action, hit) {
            (RbacAction::Allow, Some(_)) | (RbacAction::Log, _) | (RbacAction::Deny, None) => {
                Verdict::Allowed(hit)
            }
            (RbacAction::Allow, None) | (RbacAction::Deny, Some(_)) => Verdict::Denied(hit),
        }
    }

    fn compile(cx: &mut Cx<'_>, message: &proto::Rbac) -> Result<Self> {
        cx.check(message)?;
        let mut policies = Vec::with_capacity(message.policies.len());
        for (name, policy) in &message.policies {
            policies.push(cx.field(format_args!("policies[{name}]"), |cx| {
                cx.check(policy)?;
                Ok(Policy {
                    name: name.as_str().into(),
                    permissions: cx
                        .each("permissions", &policy.permissions, |cx, p| Rule::permission(cx, p, 0))?,
                    principals: cx
                        .each("principals", &policy.principals, |cx, p| Rule::principal(cx, p, 0))?,
                })
            })?);
        }
        let action = match message.action() {
            proto::rbac::Action::Allow => RbacAction::Allow,
            proto::rbac::Action::Deny => RbacAction::Deny,
            proto::rbac::Action::Log => RbacAction::Log,
        };
        Ok(Self { action, policies })
    }
}

impl Policy {
    /// Whether it matches.
    pub fn matches(&self, subject: Subject<'_>) -> bool {
        self.permissions.iter().any(|rule| rule.matches(subject))
            && self.principals.iter().any(|rule| rule.matches(subject))
    }
}

impl RbacFilter {
    /// Decides by the enforced rules.
    pub fn judge(&self, subject: Subject<'_>) -> Verdict<'_> {
        self.rules.as_ref().map_or(Verdict::Allowed(None), |rules| rules.judge(subject))
    }

    /// What the rules on trial say, if there are any.
    pub fn judge_shadow(&self, subject: Subject<'_>) -> Option<Verdict<'_>> {
        self.shadow.as_ref().map(|rules| rules.judge(subject))
    }

    /// What is kept of a verdict on trial for later filters, as Envoy names it: the policy, if one matched, and the result.
    pub fn shadow_facts(&self, verdict: Verdict<'_>) -> Vec<(String, lateen_proto::Value)> {
        let text = |text: &str| lateen_proto::Value {
            kind: Some(lateen_proto::value::Kind::StringValue(text.to_owned())),
        };
        let prefix = &self.shadow_prefix;
        let (policy, result) = match verdict {
            Verdict::Allowed(policy) => (policy, "allowed"),
            Verdict::Denied(policy) => (policy, "denied"),
        };
        let policy = policy.map(|name| (format!("{prefix}shadow_effective_policy_id"), text(name)));
        policy.into_iter().chain([(format!("{prefix}shadow_engine_result"), text(result))]).collect()
    }

    pub(crate) fn compile_http(cx: &mut Cx<'_>, message: &http_rbac::Rbac) -> Result<Self> {
        cx.check(message)?;
        Ok(Self {
            rules: rules(cx, "rules", &message.rules)?,
            shadow: rules(cx, "shadow_rules", &message.shadow_rules)?,
            stat_prefix: "".into(),
            rules_prefix: message.rules_stat_prefix.as_str().into(),
            shadow_prefix: message.shadow_rules_stat_prefix.as_str().into(),
        })
    }

    pub(crate) fn compile_network(cx: &mut Cx<'_>, message: &network_rbac::Rbac) -> Result<Self> {
        cx.check(message)?;
        Ok(Self {
            rules: rules(cx, "rules", &message.rules)?,
            shadow: rules(cx, "shadow_rules", &message.shadow_rules)?,
            stat_prefix: message.stat_prefix.as_str().into(),
            rules_prefix: "".into(),
            shadow_prefix: message.shadow_rules_stat_prefix.as_str().into(),
        })
    }
}

fn rules(cx: &mut Cx<'_>, field: &str, message: &Option<proto::Rbac>) -> Result<Option<Rules>> {
    message.as_ref().map(|rules| cx.field(field, |cx| Rules::compile(cx, rules))).transpose()
}

#[derive(Clone, Debug)]
enum Rule {
    Any(bool),
    All(Vec<Rule>),
    Some(Vec<Rule>),
    Not(Box<Rule>),
    Header(HeaderMatcher),
    Path(StringMatcher),
    Template(FullRegex),
    DestinationIp(IpNet),
    DestinationPorts {
        start: u32,
        end: u32,
    },
    DirectSourceIp(IpNet),
    SourceIp(IpNet),
    RemoteIp(IpNet),
    ServerName(StringMatcher),
    Metadata(MetadataMatcher),
    /// An authenticated peer whose name matches, if one is wanted.
    Authenticated(Option<StringMatcher>),
}

impl Rule {
    fn matches(&self, subject: Subject<'_>) -> bool {
        let connection = subject.connection;
        match self {
            Self::Any(truth) => *truth,
            Self::All(rules) => rules.iter().all(|rule| rule.matches(subject)),
            Self::Some(rules) => rules.iter().any(|rule| rule.matches(subject)),
            Self::Not(rule) => !rule.matches(subject),
            Self::Header(matcher) => subject.request.is_some_and(|request| matcher.matches(request)),
            Self::Path(matcher) => {
                subject.request.is_some_and(|request| matcher.matches(request.path_only().as_bytes()))
            }
            Self::Template(template) => {
                subject.request.is_some_and(|request| template.matches(request.path_only().as_bytes()))
            }
            Self::DestinationIp(range) => range.contains(&connection.destination.ip()),
            Self::DestinationPorts { start, end } => {
                (*start..*end).contains(&u32::from(connection.destination.port()))
            }
            Self::DirectSourceIp(range) => range.contains(&connection.direct_source.ip()),
            Self::SourceIp(range) => range.contains(&connection.source.ip()),
            Self::RemoteIp(range) => range.contains(&remote_ip(subject)),
            Self::ServerName(matcher) => {
                matcher.matches(connection.server_name.unwrap_or_default().as_bytes())
            }
            Self::Metadata(matcher) => matcher.matches(subject.request.and_then(|request| request.metadata)),
            Self::Authenticated(name) => is_authenticated(connection, name.as_ref()),
        }
    }

    fn permission(cx: &mut Cx<'_>, message: &proto::Permission, depth: u8) -> Result<Self> {
        use permission::Rule as P;
        too_deep(cx, depth)?;
        let set = |cx: &mut Cx<'_>, field: &str, set: &permission::Set| {
            cx.each(field, &set.rules, |cx, rule| Self::permission(cx, rule, depth + 1))
        };
        Ok(match cx.required("rule", &message.rule)? {
            P::Any(truth) => Self::Any(*truth),
            P::AndRules(rules) => Self::All(set(cx, "and_rules.rules", rules)?),
            P::OrRules(rules) => Self::Some(set(cx, "or_rules.rules", rules)?),
            P::NotRule(rule) => {
                Self::Not(Box::new(cx.field("not_rule", |cx| Self::permission(cx, rule, depth + 1))?))
            }
            P::Header(header) => Self::Header(cx.field("header", |cx| HeaderMatcher::compile(cx, header))?),
            P::UrlPath(path) => Self::Path(url_path(cx, path)?),
            P::DestinationIp(range) => Self::DestinationIp(cx.field("destination_ip", |cx| cx.cidr(range))?),
            P::DestinationPort(port) => Self::DestinationPorts { start: *port, end: port.saturating_add(1) },
            P::DestinationPortRange(range) => Self::DestinationPorts {
                start: u32::try_from(range.start).unwrap_or(0),
                end: u32::try_from(range.end).unwrap_or(0),
            },
            P::Metadata(metadata) => {
                Self::Metadata(cx.field("metadata", |cx| MetadataMatcher::compile(cx, metadata))?)
            }
            P::SourcedMetadata(sourced) => Self::Metadata(sourced_metadata(cx, sourced)?),
            P::RequestedServerName(name) => {
                Self::ServerName(cx.field("requested_server_name", |cx| StringMatcher::compile(cx, name))?)
            }
            P::Matcher(_) => return Err(cx.refuse_at("matcher", "is not supported")),
            P::UriTemplate(template) => {
                Self::Template(cx.field("uri_template", |cx| crate::path_template::compile(cx, template))?)
            }
        })
    }

    fn principal(cx: &mut Cx<'_>, message: &proto::Principal, depth: u8) -> Result<Self> {
        use principal::Identifier as P;
        too_deep(cx, depth)?;
        let set = |cx: &mut Cx<'_>, field: &str, set: &principal::Set| {
            cx.each(field, &set.ids, |cx, id| Self::principal(cx, id, depth + 1))
        };
        Ok(match cx.required("identifier", &message.identifier)? {
            P::Any(truth) => Self::Any(*truth),
            P::AndIds(ids) => Self::All(set(cx, "and_ids.ids", ids)?),
            P::OrIds(ids) => Self::Some(set(cx, "or_ids.ids", ids)?),
            P::NotId(id) => Self::Not(Box::new(cx.field("not_id", |cx| Self::principal(cx, id, depth + 1))?)),
            P::Authenticated(authenticated) => {
                let name = authenticated.principal_name.as_ref();
                let name = name
                    .map(|name| {
                        cx.field("authenticated.principal_name", |cx| StringMatcher::compile(cx, name))
                    })
                    .transpose()?;
                Self::Authenticated(name)
            }
            P::SourceIp(range) => Self::SourceIp(cx.field("source_ip", |cx| cx.cidr(range))?),
            P::DirectRemoteIp(range) => {
                Self::DirectSourceIp(cx.field("direct_remote_ip", |cx| cx.cidr(range))?)
            }
            P::RemoteIp(range) => Self::RemoteIp(cx.field("remote_ip", |cx| cx.cidr(range))?),
            P::Header(header) => Self::Header(cx.field("header", |cx| HeaderMatcher::compile(cx, header))?),
            P::UrlPath(path) => Self::Path(url_path(cx, path)?),
            P::Metadata(metadata) => {
                Self::Metadata(cx.field("metadata", |cx| MetadataMatcher::compile(cx, metadata))?)
            }
            P::SourcedMetadata(sourced) => Self::Metadata(sourced_metadata(cx, sourced)?),
            P::FilterState(_) => return Err(cx.refuse_at("filter_state", "is not supported")),
            P::Custom(_) => return Err(cx.refuse_at("custom", "is not supported")),
        })
    }
}

fn too_deep(cx: &Cx<'_>, depth: u8) -> Result<()> {
    if depth > 32 { Err(cx.refuse("is nested more than 32 levels deep")) } else { Ok(()) }
}

fn url_path(
    cx: &mut Cx<'_>,
    path: &lateen_proto::envoy::r#type::matcher::v3::PathMatcher,
) -> Result<StringMatcher> {
    use lateen_proto::envoy::r#type::matcher::v3::path_matcher::Rule as PathRule;
    match &path.rule {
        Some(PathRule::Path(matcher)) => cx.field("url_path.path", |cx| StringMatcher::compile(cx, matcher)),
        None => Err(cx.refuse_at("url_path", "needs path")),
    }
}

fn sourced_metadata(cx: &mut Cx<'_>, sourced: &proto::SourcedMetadata) -> Result<MetadataMatcher> {
    if sourced.metadata_source() != proto::MetadataSource::Dynamic {
        return Err(cx.refuse_at("sourced_metadata.metadata_source", "only DYNAMIC is supported"));
    }
    let matcher = cx.required("sourced_metadata.metadata_matcher", &sourced.metadata_matcher)?;
    cx.field("sourced_metadata.metadata_matcher", |cx| MetadataMatcher::compile(cx, matcher))
}

fn remote_ip(subject: Subject<'_>) -> IpAddr {
    subject.request.map_or_else(|| subject.connection.source.ip(), |request| request.remote_ip())
}

/// By URI names, else by DNS names, else by the subject, as Envoy does. Only a mutual TLS connection has any.
fn is_authenticated(connection: &ConnectionView<'_>, wanted: Option<&StringMatcher>) -> bool {
    let Some(peer) = connection.peer else {
        // Any TLS connection is authenticated enough where no name is asked for.
        return wanted.is_none() && connection.transport == crate::request::Transport::Tls;
    };
    let Some(wanted) = wanted else { return true };
    let matches = |name: &&str| wanted.matches(name.as_bytes());
    if !peer.uris.is_empty() {
        return peer.uris.iter().any(matches);
    }
    if !peer.dns_names.is_empty() {
        return peer.dns_names.iter().any(matches);
    }
    wanted.matches(peer.subject.as_bytes())
}
