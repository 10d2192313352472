//! Local rate limits: token buckets, what a request is counted by, what becomes of those that are too many.
//!
//! How many tokens a bucket has left is the one thing here that changes: it is shared by all who hold the compiled filter,
//! and is told the time by whoever takes from it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lateen_proto::envoy::config::route::v3 as route;
use lateen_proto::envoy::config::route::v3::rate_limit::action::ActionSpecifier;
use lateen_proto::envoy::extensions::common::ratelimit::v3 as common;
use lateen_proto::envoy::extensions::filters::http::local_ratelimit::v3 as proto;
use lateen_proto::envoy::r#type::v3 as types;

use crate::entropy::Fraction;
use crate::error::{Cx, Result};
use crate::header_match::HeaderMatcher;
use crate::request::RequestView;

/// A compiled `LocalRateLimit` of HTTP.
#[derive(Debug)]
pub struct LocalRateLimit {
    /// The prefix of its metrics.
    pub stat_prefix: Arc<str>,
    /// The status of requests that are too many; 429 unless set.
    pub status: u16,
    /// The share of requests that are counted; none unless set.
    pub enabled: Fraction,
    /// The share of those too many that are turned away; none unless set.
    pub enforced: Fraction,
    /// Headers of answers to those that are turned away.
    pub response_headers: Box<[(http::HeaderName, http::HeaderValue)]>,
    /// Headers of requests that are too many and pass all the same.
    pub request_headers: Box<[(http::HeaderName, http::HeaderValue)]>,
    /// Whether `x-ratelimit-*` headers tell what is left.
    pub tells_rest: bool,
    /// Whether gRPC callers get RESOURCE_EXHAUSTED rather than UNAVAILABLE.
    pub resource_exhausted: bool,
    /// Whether each connection has buckets of its own.
    pub per_connection: bool,
    /// The buckets; those of connections are made after these.
    pub buckets: Buckets,
    rules: Vec<RateLimitRule>,
    virtual_host: VirtualHostRules,
    stage: u32,
}

/// Whose rules count beside the route's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum VirtualHostRules {
    WhereNone,
    Always,
    Never,
}

/// Token buckets: the usual one, and those of requests of a kind.
#[derive(Debug)]
pub struct Buckets {
    usual: Option<TokenBucket>,
    of_kinds: Vec<(Vec<Entry>, TokenBucket)>,
    always_usual: bool,
}

/// What a request is, in a word: key and value.
type Entry = (String, String);

impl Buckets {
    /// As full as at first.
    #[must_use]
    pub fn anew(&self) -> Self {
        let kind = |(entries, bucket): &(Vec<Entry>, TokenBucket)| (entries.clone(), bucket.anew());
        Self {
            usual: self.usual.as_ref().map(TokenBucket::anew),
            of_kinds: self.of_kinds.iter().map(kind).collect(),
            always_usual: self.always_usual,
        }
    }

    /// Takes a token for a request of these kinds: whether there was one, and the bucket that decided.
    pub fn take(&self, kinds: &[Vec<Entry>], now: Duration) -> (bool, Option<&TokenBucket>) {
        let mut matching: Vec<&TokenBucket> = kinds
            .iter()
            .filter_map(|kind| self.of_kinds.iter().find(|(wanted, _)| wanted == kind))
            .map(|(_, bucket)| bucket)
            .collect();
        matching.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
        let usual = self.usual.as_ref().filter(|_| matching.is_empty() || self.always_usual);
        let mut last = None;
        for bucket in matching.into_iter().chain(usual) {
            last = Some(bucket);
            if !bucket.take(now) {
                return (false, last);
            }
        }
        (true, last)
    }
}

/// Tokens that come at an even pace, up to a number.
#[derive(Debug)]
pub struct TokenBucket {
    /// The most tokens.
    pub max: u32,
    per_second: f64,
    /// When it would have been empty had nothing been taken, in seconds; the bits of a float.
    empty_at: AtomicU64,
}

impl TokenBucket {
    fn new(max: u32, per_second: f64) -> Self {
        // Full at whatever time it is asked first.
        Self { max, per_second, empty_at: AtomicU64::new(f64::NEG_INFINITY.to_bits()) }
    }

    fn anew(&self) -> Self {
        Self::new(self.max, self.per_second)
    }

    fn since(&self, bits: u64, now: f64) -> f64 {
        f64::from_bits(bits).max(now - f64::from(self.max) / self.per_second)
    }

    /// Takes a token, if there is one.
    pub fn take(&self, now: Duration) -> bool {
        let now = now.as_secs_f64();
        self.empty_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bits| {
                let next = self.since(bits, now) + 1.0 / self.per_second;
                // Sums of floats are off by a little.
                (next <= now + 1e-6).then(|| next.to_bits())
            })
            .is_ok()
    }

    /// The whole tokens left.
    pub fn left(&self, now: Duration) -> u64 {
        let now = now.as_secs_f64();
        let since = self.since(self.empty_at.load(Ordering::Relaxed), now);
        ((now - since) * self.per_second + 1e-6).max(0.0) as u64
    }

    /// Seconds until there is a whole token more.
    pub fn next_in(&self, now: Duration) -> u64 {
        let now = now.as_secs_f64();
        let since = self.since(self.empty_at.load(Ordering::Relaxed), now);
        let whole = ((now - since) * self.per_second).max(0.0).floor() + 1.0;
        (since + whole / self.per_second - now).max(0.0).ceil() as u64
    }

    pub(crate) fn compile(cx: &mut Cx<'_>, message: &types::TokenBucket) -> Result<Self> {
        if message.max_tokens == 0 {
            return Err(cx.refuse_at("max_tokens", "has to be above 0"));
        }
        let per_fill = message.tokens_per_fill.unwrap_or(1);
        let interval = cx.duration("fill_interval", &message.fill_interval)?.unwrap_or_default();
        if per_fill == 0 || interval < Duration::from_millis(50) {
            return Err(cx.refuse_at("fill_interval", "has to be at least 50ms, and tokens_per_fill above 0"));
        }
        Ok(Self::new(message.max_tokens, f64::from(per_fill) / interval.as_secs_f64()))
    }
}

/// What a request is counted by: a rule of a route, virtual host or filter.
#[derive(Clone, Debug)]
pub struct RateLimitRule {
    stage: u32,
    actions: Vec<Action>,
}

#[derive(Clone, Debug)]
enum Action {
    SourceCluster,
    DestinationCluster,
    RemoteAddress,
    Generic(Entry),
    Header { name: http::HeaderName, key: String, optional: bool },
    HeadersMatch { entry: Entry, expected: bool, headers: Vec<HeaderMatcher> },
}

/// What is known of a request beside itself.
#[derive(Clone, Copy, Debug)]
pub struct Counted<'a> {
    /// The proxy's own cluster, by its node.
    pub source_cluster: &'a str,
    /// Where it goes.
    pub destination_cluster: &'a str,
}

impl RateLimitRule {
    /// What the rule says of a request; `None` where something is missing for it.
    fn kind(&self, request: &RequestView<'_>, about: Counted<'_>) -> Option<Vec<Entry>> {
        let mut out = Vec::new();
        for action in &self.actions {
            let entry = |key: &str, value: &str| (key.to_owned(), value.to_owned());
            out.push(match action {
                Action::SourceCluster => entry("source_cluster", about.source_cluster),
                Action::DestinationCluster => entry("destination_cluster", about.destination_cluster),
                Action::RemoteAddress => ("remote_address".to_owned(), request.remote_ip().to_string()),
                Action::Generic(entry) => entry.clone(),
                Action::Header { name, key, optional } => {
                    match request.headers.get(name).and_then(|value| value.to_str().ok()) {
                        Some(value) => entry(key, value),
                        None if *optional => continue,
                        None => return None,
                    }
                }
                Action::HeadersMatch { entry, expected, headers } => {
                    if headers.iter().all(|header| header.matches(request)) != *expected {
                        return None;
                    }
                    entry.clone()
                }
            });
        }
        (!out.is_empty()).then_some(out)
    }

    /// Compiles a list of rules.
    pub(crate) fn compile_all(cx: &mut Cx<'_>, field: &str, list: &[route::RateLimit]) -> Result<Vec<Self>> {
        cx.each(field, list, |cx, message| {
            if message.apply_on_stream_done || message.limit.is_some() || message.hits_addend.is_some() {
                return Err(cx.refuse("apply_on_stream_done, limit and hits_addend are not supported"));
            }
            Ok(Self {
                stage: message.stage.unwrap_or(0),
                actions: cx.each("actions", &message.actions, Action::compile)?,
            })
        })
    }
}

impl Action {
    fn compile(cx: &mut Cx<'_>, message: &route::rate_limit::Action) -> Result<Self> {
        let or = |given: &str, usual: &str| if given.is_empty() { usual } else { given }.to_owned();
        Ok(match cx.required("action_specifier", &message.action_specifier)? {
            ActionSpecifier::SourceCluster(_) => Self::SourceCluster,
            ActionSpecifier::DestinationCluster(_) => Self::DestinationCluster,
            ActionSpecifier::RemoteAddress(_) => Self::RemoteAddress,
            ActionSpecifier::GenericKey(generic) => {
                Self::Generic((or(&generic.descriptor_key, "generic_key"), generic.descriptor_value.clone()))
            }
            ActionSpecifier::RequestHeaders(header) => Self::Header {
                name: cx
                    .header_name("request_headers.header_name", header.header_name.trim_start_matches(':'))?,
                key: header.descriptor_key.clone(),
                optional: header.skip_if_absent,
            },
            ActionSpecifier::HeaderValueMatch(matches) => Self::HeadersMatch {
                entry: (or(&matches.descriptor_key, "header_match"), matches.descriptor_value.clone()),
                expected: matches.expect_match.unwrap_or(true),
                headers: cx.each("header_value_match.headers", &matches.headers, HeaderMatcher::compile)?,
            },
            _ => {
                let reason = "needs source_cluster, destination_cluster, remote_address, generic_key, request_headers \
                              or header_value_match";
                return Err(cx.refuse_at("action_specifier", reason));
            }
        })
    }
}

impl LocalRateLimit {
    /// What a request is counted as, by the filter's own rules or else by those of the route and its virtual host.
    pub fn kinds(
        &self,
        request: &RequestView<'_>,
        about: Counted<'_>,
        route: &[RateLimitRule],
        virtual_host: &[RateLimitRule],
    ) -> Vec<Vec<Entry>> {
        if self.buckets.of_kinds.is_empty() {
            return Vec::new();
        }
        let with_host = match self.virtual_host {
            VirtualHostRules::WhereNone => route.is_empty(),
            VirtualHostRules::Always => true,
            VirtualHostRules::Never => false,
        };
        let rules: Vec<&RateLimitRule> = match self.rules.is_empty() {
            false => self.rules.iter().collect(),
            true => route.iter().chain(virtual_host.iter().filter(|_| with_host)).collect(),
        };
        let own = !self.rules.is_empty();
        let staged = rules.into_iter().filter(|rule| own || rule.stage == self.stage);
        staged.filter_map(|rule| rule.kind(request, about)).collect()
    }

    pub(crate) fn compile(cx: &mut Cx<'_>, message: &proto::LocalRateLimit) -> Result<Self> {
        cx.check(message)?;
        if message.stat_prefix.is_empty() {
            return Err(cx.refuse_at("stat_prefix", "must not be empty"));
        }
        let status = message.status.as_ref().map_or(429, |status| status.code);
        let of_kinds = cx.each("descriptors", &message.descriptors, kind)?;
        let usual = match &message.token_bucket {
            None => None,
            Some(bucket) => Some(cx.field("token_bucket", |cx| TokenBucket::compile(cx, bucket))?),
        };
        Ok(Self {
            stat_prefix: message.stat_prefix.as_str().into(),
            // Envoy takes no other for a refusal.
            status: u16::try_from(status).ok().filter(|status| (400..600).contains(status)).unwrap_or(429),
            enabled: Fraction::of_runtime(&message.filter_enabled, Fraction::NONE),
            enforced: Fraction::of_runtime(&message.filter_enforced, Fraction::NONE),
            response_headers: headers(cx, "response_headers_to_add", &message.response_headers_to_add)?,
            request_headers: headers(
                cx,
                "request_headers_to_add_when_not_enforced",
                &message.request_headers_to_add_when_not_enforced,
            )?,
            tells_rest: message.enable_x_ratelimit_headers()
                == common::XRateLimitHeadersRfcVersion::DraftVersion03,
            resource_exhausted: message.rate_limited_as_resource_exhausted,
            per_connection: message.local_rate_limit_per_downstream_connection,
            buckets: Buckets {
                usual,
                of_kinds,
                always_usual: message.always_consume_default_token_bucket.unwrap_or(true),
            },
            rules: RateLimitRule::compile_all(cx, "rate_limits", &message.rate_limits)?,
            virtual_host: match message.vh_rate_limits() {
                common::VhRateLimitsOptions::Override => VirtualHostRules::WhereNone,
                common::VhRateLimitsOptions::Include => VirtualHostRules::Always,
                common::VhRateLimitsOptions::Ignore => VirtualHostRules::Never,
            },
            stage: message.stage,
        })
    }
}

fn kind(cx: &mut Cx<'_>, message: &common::LocalRateLimitDescriptor) -> Result<(Vec<Entry>, TokenBucket)> {
    if message.shadow_mode {
        return Err(cx.refuse_at("shadow_mode", "is not supported: use filter_enforced"));
    }
    let entries = cx.each("entries", &message.entries, |cx, entry| {
        if entry.value.is_empty() {
            return Err(cx.refuse_at("value", "is required: any value is not supported"));
        }
        Ok((entry.key.clone(), entry.value.clone()))
    })?;
    let bucket = cx.required("token_bucket", &message.token_bucket)?;
    Ok((entries, cx.field("token_bucket", |cx| TokenBucket::compile(cx, bucket))?))
}

fn headers(
    cx: &mut Cx<'_>,
    field: &str,
    list: &[lateen_proto::envoy::config::core::v3::HeaderValueOption],
) -> Result<Box<[(http::HeaderName, http::HeaderValue)]>> {
    let headers = cx.each(field, list, |cx, option| {
        let header = cx.required("header", &option.header)?;
        let value = http::HeaderValue::from_str(&header.value);
        let value = value.map_err(|_| cx.refuse_at("header.value", "is no header value"))?;
        Ok((cx.header_name("header.key", &header.key)?, value))
    })?;
    Ok(headers.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_at_an_even_pace() {
        let bucket = TokenBucket::new(2, 0.5);
        let at = Duration::from_secs;
        assert_eq!(bucket.left(at(100)), 2);
        assert!(bucket.take(at(100)) && bucket.take(at(100)) && !bucket.take(at(100)));
        assert_eq!((bucket.left(at(101)), bucket.next_in(at(101))), (0, 1));
        assert!(!bucket.take(at(101)) && bucket.take(at(102)) && !bucket.take(at(103)));
        assert_eq!(bucket.left(at(1000)), 2, "it does not overflow");
    }

    #[test]
    fn the_slowest_bucket_of_a_request_is_asked_first() {
        let word = |value: &str| vec![("kind".to_owned(), value.to_owned())];
        let buckets = Buckets {
            usual: Some(TokenBucket::new(3, 1.0)),
            of_kinds: vec![(word("rare"), TokenBucket::new(1, 0.1))],
            always_usual: true,
        };
        let take = |kinds: &[Vec<Entry>]| buckets.take(kinds, Duration::from_secs(9)).0;
        assert!(take(&[word("rare")]) && !take(&[word("rare")]));
        assert!(take(&[word("other")]) && take(&[]) && !take(&[]), "the usual one counts all of them");
        assert_eq!(buckets.anew().take(&[], Duration::from_secs(9)).1.map(|bucket| bucket.max), Some(3));
    }
}
