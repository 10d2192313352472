//! Retries.

use std::time::Duration;

use lateen_proto::envoy::config::route::v3 as proto;

use crate::error::{Cx, Result};
use crate::header_match::HeaderMatcher;

/// A compiled `RetryPolicy`.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    /// On which failures.
    pub on: RetryOn,
    /// How often, at most.
    pub attempts: u32,
    /// Until one attempt's whole response has come; `None` is as the route says.
    pub per_try_timeout: Option<Duration>,
    /// How long one attempt may stand still; `None` is as the stream's own limit.
    pub per_try_idle_timeout: Option<Duration>,
    /// Statuses that count, with [`RetryOn::STATUS_CODES`].
    pub status_codes: Box<[u16]>,
    /// Response headers that count, with [`RetryOn::HEADERS`].
    pub response_headers: Vec<HeaderMatcher>,
    /// Requests that are retried at all; empty is all.
    pub request_headers: Vec<HeaderMatcher>,
    /// Pauses between attempts.
    pub back_off: BackOff,
    /// Response headers that say how long to wait, in place of `back_off`.
    pub reset_headers: Option<ResetHeaders>,
    /// Whether a host that was tried is avoided.
    pub avoid_previous_hosts: bool,
    /// After how many attempts, and after that again and again, priorities that were tried are avoided.
    pub avoid_previous_priorities: Option<u32>,
    /// How often a host is drawn again when it is to be avoided.
    pub host_attempts: u32,
}

/// Pauses between attempts: random, exponential, up to a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackOff {
    /// The first pause is shorter than this.
    pub base: Duration,
    /// No pause is longer.
    pub max: Duration,
}

impl BackOff {
    /// The pause before retry number `attempt` (1 is the first).
    pub fn pause(&self, attempt: u32, draw: u64) -> Duration {
        let factor = 1u32.checked_shl(attempt.saturating_sub(1).min(31)).unwrap_or(u32::MAX);
        let ceiling = self.base.saturating_mul(factor).min(self.max);
        let nanos = u64::try_from(ceiling.as_nanos()).unwrap_or(u64::MAX).max(1);
        Duration::from_nanos(draw % nanos)
    }
}

/// Headers by which an upstream says when to come back (Envoy's `rate_limited_retry_back_off`).
#[derive(Clone, Debug)]
pub struct ResetHeaders {
    /// Their names, and whether each holds seconds (else the time since 1970).
    pub headers: Box<[(http::HeaderName, bool)]>,
    /// The longest pause; what asks for more is not heard.
    pub max: Duration,
}

impl ResetHeaders {
    /// The pause that a response asks for; `now` is the time since 1970.
    pub fn pause(&self, headers: &http::HeaderMap, now: Duration) -> Option<Duration> {
        self.headers.iter().find_map(|(name, seconds)| {
            let number = Duration::from_secs(headers.get(name)?.to_str().ok()?.trim().parse().ok()?);
            let pause = if *seconds { number } else { number.checked_sub(now)? };
            (pause <= self.max).then_some(pause)
        })
    }

    fn compile(cx: &mut Cx<'_>, message: &proto::retry_policy::RateLimitedRetryBackOff) -> Result<Self> {
        let headers = cx.each("reset_headers", &message.reset_headers, |cx, header| {
            Ok((cx.header_name("name", &header.name)?, header.format == 0))
        })?;
        let max = cx.duration("max_interval", &message.max_interval)?.unwrap_or(Duration::from_secs(300));
        Ok(Self { headers: headers.into(), max })
    }
}

/// A set of failures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryOn(u32);

macro_rules! conditions {
    ($( $(#[$doc:meta])* $name:ident = $bit:literal, $text:literal );* $(;)?) => {
        impl RetryOn {
            $( $(#[$doc])* pub const $name: Self = Self(1 << $bit); )*

            fn parse(text: &str) -> Option<Self> {
                match text {
                    $( $text => Some(Self::$name), )*
                    _ => None,
                }
            }
        }
    };
}

conditions! {
    /// Any 5xx, or no response.
    FIVE_XX = 0, "5xx";
    /// 502, 503, 504.
    GATEWAY_ERROR = 1, "gateway-error";
    /// The upstream does not answer: disconnect, reset or read timeout.
    RESET = 2, "reset";
    /// As `RESET`, before the request was sent to it.
    RESET_BEFORE_REQUEST = 3, "reset-before-request";
    /// No connection could be made.
    CONNECT_FAILURE = 4, "connect-failure";
    /// The upstream set `x-envoy-ratelimited`.
    ENVOY_RATELIMITED = 5, "envoy-ratelimited";
    /// 409.
    RETRIABLE_4XX = 6, "retriable-4xx";
    /// The upstream refused the stream.
    REFUSED_STREAM = 7, "refused-stream";
    /// A status of the policy's list.
    STATUS_CODES = 8, "retriable-status-codes";
    /// A header of the policy's list.
    HEADERS = 9, "retriable-headers";
    /// An HTTP/3 POST connect failure.
    HTTP3_POST = 10, "http3-post-connect-failure";
    /// gRPC status 1.
    GRPC_CANCELLED = 11, "cancelled";
    /// gRPC status 4.
    GRPC_DEADLINE_EXCEEDED = 12, "deadline-exceeded";
    /// gRPC status 13.
    GRPC_INTERNAL = 13, "internal";
    /// gRPC status 8.
    GRPC_RESOURCE_EXHAUSTED = 14, "resource-exhausted";
    /// gRPC status 14.
    GRPC_UNAVAILABLE = 15, "unavailable";
}

impl RetryOn {
    /// Whether it holds any of `other`.
    #[inline]
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether it is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Both.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Reads a list such as `connect-failure,5xx`, of a policy or of `x-envoy-retry-on`. Unknown words are left out,
    /// as Envoy does.
    pub fn parse_list(text: &str) -> Self {
        let words = text.split(',').filter_map(|word| Self::parse(word.trim()));
        words.fold(Self::default(), Self::with)
    }

    /// Whether a gRPC status counts.
    pub fn has_grpc(self, status: u32) -> bool {
        match status {
            1 => self.has(Self::GRPC_CANCELLED),
            4 => self.has(Self::GRPC_DEADLINE_EXCEEDED),
            8 => self.has(Self::GRPC_RESOURCE_EXHAUSTED),
            13 => self.has(Self::GRPC_INTERNAL),
            14 => self.has(Self::GRPC_UNAVAILABLE),
            _ => false,
        }
    }
}

impl RetryPolicy {
    /// Whether a response's status is a reason to try again.
    pub fn has_status(&self, status: u16) -> bool {
        (self.on.has(RetryOn::FIVE_XX) && (500..600).contains(&status))
            || (self.on.has(RetryOn::GATEWAY_ERROR) && (502..=504).contains(&status))
            || (self.on.has(RetryOn::RETRIABLE_4XX) && status == 409)
            || (self.on.has(RetryOn::STATUS_CODES) && self.status_codes.contains(&status))
    }

    pub(super) fn compile(cx: &mut Cx<'_>, message: &proto::RetryPolicy) -> Result<Self> {
        cx.check(message)?;
        let some = |d: Option<Duration>| d.filter(|d| !d.is_zero());
        let mut avoid_previous_hosts = false;
        for (index, predicate) in message.retry_host_predicate.iter().enumerate() {
            match predicate.name.as_str() {
                "envoy.retry_host_predicates.previous_hosts" => avoid_previous_hosts = true,
                "envoy.retry_host_predicates.omit_canary_hosts" => {
                    cx.note_at(
                        &format!("retry_host_predicate[{index}]"),
                        "no endpoint is marked as a canary",
                    );
                }
                other => {
                    let reason =
                        format!("{other} is not supported: use envoy.retry_host_predicates.previous_hosts");
                    return Err(cx.refuse_at(&format!("retry_host_predicate[{index}]"), reason));
                }
            }
        }
        Ok(Self {
            on: RetryOn::parse_list(&message.retry_on),
            attempts: message.num_retries.unwrap_or(1),
            per_try_timeout: some(cx.duration("per_try_timeout", &message.per_try_timeout)?),
            per_try_idle_timeout: some(cx.duration("per_try_idle_timeout", &message.per_try_idle_timeout)?),
            status_codes: message
                .retriable_status_codes
                .iter()
                .filter_map(|c| u16::try_from(*c).ok())
                .collect(),
            response_headers: cx.each(
                "retriable_headers",
                &message.retriable_headers,
                HeaderMatcher::compile,
            )?,
            request_headers: cx.each(
                "retriable_request_headers",
                &message.retriable_request_headers,
                HeaderMatcher::compile,
            )?,
            back_off: back_off(cx, message)?,
            reset_headers: message
                .rate_limited_retry_back_off
                .as_ref()
                .map(|rules| cx.field("rate_limited_retry_back_off", |cx| ResetHeaders::compile(cx, rules)))
                .transpose()?,
            avoid_previous_hosts,
            avoid_previous_priorities: previous_priorities(cx, message)?,
            host_attempts: u32::try_from(message.host_selection_retry_max_attempts).unwrap_or(1).max(1),
        })
    }
}

fn previous_priorities(cx: &mut Cx<'_>, message: &proto::RetryPolicy) -> Result<Option<u32>> {
    use lateen_proto::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;
    let Some(priority) = &message.retry_priority else { return Ok(None) };
    cx.field("retry_priority", |cx| {
        let Some(proto::retry_policy::retry_priority::ConfigType::TypedConfig(any)) = &priority.config_type
        else {
            return Err(cx.refuse_at("typed_config", "is required"));
        };
        if !any.is::<PreviousPrioritiesConfig>() {
            let reason = format!("{} is not supported: use PreviousPrioritiesConfig", any.type_url);
            return Err(cx.refuse_at("typed_config", reason));
        }
        let config: PreviousPrioritiesConfig = cx.unpack(any)?;
        match u32::try_from(config.update_frequency) {
            Ok(frequency) if frequency > 0 => Ok(Some(frequency)),
            _ => Err(cx.refuse_at("typed_config.update_frequency", "has to be above 0")),
        }
    })
}

fn back_off(cx: &Cx<'_>, message: &proto::RetryPolicy) -> Result<BackOff> {
    let base = Duration::from_millis(25);
    let Some(limits) = &message.retry_back_off else { return Ok(BackOff { base, max: base * 10 }) };
    let base = cx.duration("retry_back_off.base_interval", &limits.base_interval)?.unwrap_or(base);
    let max = cx.duration("retry_back_off.max_interval", &limits.max_interval)?;
    let max = max.unwrap_or_else(|| base.saturating_mul(10));
    if max < base {
        return Err(cx.refuse_at("retry_back_off.max_interval", "is below base_interval"));
    }
    Ok(BackOff { base, max })
}
