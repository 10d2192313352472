//! What goes wrong with a request, and the answer, flag and detail for it: the one place where errors become responses.
//!
//! Texts and details are Envoy's, which is what operators search for.

use std::borrow::Cow;
use std::rc::Rc;

use http::StatusCode;

use lateen_route::jwt::Invalid;

use crate::flags::Flags;
use crate::http::pulse::{Broken, Expired};

/// Why a connection to a host was not made, or a stream on it broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reset {
    /// The host refused, or could not be reached; or TLS with it failed. The text is the transport's.
    ConnectFailure(Rc<str>),
    /// No connection in the cluster's connect timeout.
    ConnectTimeout,
    /// The connection ended before the response was complete.
    Termination,
    /// The host reset the stream.
    Remote,
    /// The host refused the stream unprocessed (HTTP/2 REFUSED_STREAM).
    Refused,
    /// The host does not speak HTTP as it should.
    Protocol,
    /// A circuit breaker is open.
    Overflow,
}

impl Reset {
    /// Envoy's words for it.
    fn reason(&self) -> &'static str {
        match self {
            Self::ConnectFailure(_) => "remote connection failure",
            Self::ConnectTimeout => "connection timeout",
            Self::Termination => "connection termination",
            Self::Remote => "remote reset",
            Self::Refused => "remote refused stream reset",
            Self::Protocol => "protocol error",
            Self::Overflow => "overflow",
        }
    }

    /// What the transport said.
    pub(crate) fn transport_failure(&self) -> Option<&Rc<str>> {
        match self {
            Self::ConnectFailure(text) => Some(text),
            _ => None,
        }
    }

    /// Its flag.
    pub(crate) fn flag(&self) -> Flags {
        match self {
            Self::ConnectFailure(_) | Self::ConnectTimeout => Flags::UPSTREAM_FAILURE,
            Self::Termination => Flags::UPSTREAM_TERMINATION,
            Self::Remote | Self::Refused => Flags::UPSTREAM_RESET,
            Self::Protocol => Flags::UPSTREAM_PROTOCOL,
            Self::Overflow => Flags::UPSTREAM_OVERFLOW,
        }
    }
}

/// Why a request is answered by the proxy itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No route matches.
    NoRoute,
    /// The route's cluster does not exist; the status is the route's.
    NoCluster(StatusCode),
    /// The cluster has no host to send to.
    NoHealthyUpstream,
    /// The upstream was not reached, or broke off before its response; whether this was a retry.
    Upstream(Reset, bool),
    /// No response in the route's timeout.
    Timeout,
    /// The stream's time is over; whether the whole request had come.
    Expired(Expired, bool),
    /// No response in the timeout of one try.
    PerTryTimeout,
    /// Silence for longer than one try may be silent.
    PerTryIdle,
    /// Aborted by fault injection; with a body of its own.
    FaultAbort(StatusCode, Option<std::sync::Arc<str>>),
    /// A dynamic forward to a name that does not resolve.
    Unresolved,
    /// HTTP/1.0, which the manager does not accept.
    LowVersion,
    /// HTTP/1.1 without Host, HTTP/2 without `:authority`.
    MissingHost,
    /// A protocol upgrade that the listener does not allow.
    UpgradeRefused,
    /// The path's escapes or dots are not acceptable.
    BadPath,
    /// The request broke off before its end.
    Broken(Broken),
    /// Several `Host` headers.
    SeveralHosts,
    /// A header's name has an underscore, which the manager does not take.
    Underscore,
    /// More headers than the manager takes.
    TooManyHeaders,
    /// Denied by a policy; its detail.
    Denied(Rc<str>),
    /// Denied for its tokens; whether the answer tells nothing of that.
    Token(Invalid, bool),
}

impl Failure {
    /// The status of the answer.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::NoCluster(status) | Self::FaultAbort(status, _) => *status,
            Self::Timeout | Self::PerTryTimeout | Self::PerTryIdle | Self::Expired(_, true) => {
                StatusCode::GATEWAY_TIMEOUT
            }
            Self::Expired(_, false) => StatusCode::REQUEST_TIMEOUT,
            Self::TooManyHeaders => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::MissingHost | Self::BadPath | Self::Underscore | Self::Broken(_) | Self::SeveralHosts => {
                StatusCode::BAD_REQUEST
            }
            Self::LowVersion => StatusCode::UPGRADE_REQUIRED,
            Self::Token(why, _) => StatusCode::from_u16(why.status()).unwrap_or(StatusCode::UNAUTHORIZED),
            Self::UpgradeRefused | Self::Denied(_) => StatusCode::FORBIDDEN,
            Self::Upstream(Reset::Protocol, _) => StatusCode::BAD_GATEWAY,
            Self::NoHealthyUpstream | Self::Upstream(..) | Self::Unresolved => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    /// The body of the answer.
    pub(crate) fn body(&self) -> Cow<'static, str> {
        match self {
            Self::NoRoute | Self::NoCluster(_) | Self::MissingHost | Self::UpgradeRefused | Self::BadPath => {
                "".into()
            }
            Self::NoHealthyUpstream => "no healthy upstream".into(),
            Self::Upstream(reset, retried) => {
                let mut text = String::from("upstream connect error or disconnect/reset before headers. ");
                if *retried {
                    text.push_str("retried and the latest ");
                }
                text.push_str("reset reason: ");
                text.push_str(reset.reason());
                text.into()
            }
            Self::Timeout | Self::PerTryTimeout | Self::PerTryIdle | Self::Expired(Expired::Response, _) => {
                "upstream request timeout".into()
            }
            Self::Expired(Expired::Idle, _) => "stream timeout".into(),
            Self::Expired(Expired::Request, _) => "request timeout".into(),
            Self::Expired(Expired::Duration, _) => "downstream duration timeout".into(),
            Self::Expired(Expired::Upstream, _) => "upstream max stream duration reached".into(),
            Self::Underscore | Self::Broken(_) | Self::SeveralHosts => "Bad Request".into(),
            Self::TooManyHeaders => "Request Header Fields Too Large".into(),
            Self::LowVersion => "Upgrade Required".into(),
            Self::FaultAbort(_, Some(body)) => body.to_string().into(),
            Self::FaultAbort(_, None) => "fault filter abort".into(),
            Self::Unresolved => "DNS resolution failure".into(),
            Self::Denied(_) => "RBAC: access denied".into(),
            Self::Token(_, true) => "".into(),
            Self::Token(why, false) => why.to_string().into(),
        }
    }

    /// Its flag in access logs.
    pub(crate) fn flag(&self) -> Flags {
        match self {
            Self::NoRoute => Flags::NO_ROUTE,
            Self::NoCluster(_) => Flags::NO_CLUSTER,
            Self::NoHealthyUpstream => Flags::NO_HEALTHY_UPSTREAM,
            Self::Upstream(reset, _) => reset.flag(),
            Self::Timeout | Self::PerTryTimeout | Self::PerTryIdle | Self::Expired(Expired::Response, _) => {
                Flags::UPSTREAM_TIMEOUT
            }
            Self::Expired(Expired::Idle, _) => Flags::STREAM_IDLE,
            Self::Expired(Expired::Upstream, _) => Flags::MAX_DURATION,
            Self::Expired(Expired::Request | Expired::Duration, _) => Flags::NONE,
            Self::FaultAbort(..) => Flags::FAULT_INJECTED,
            Self::Unresolved => Flags::DNS_FAILURE,
            Self::LowVersion
            | Self::Underscore
            | Self::TooManyHeaders
            | Self::SeveralHosts
            | Self::Broken(Broken::Nonsense) => Flags::DOWNSTREAM_PROTOCOL,
            Self::Broken(Broken::Gone) => Flags::DOWNSTREAM_TERMINATION,
            Self::MissingHost | Self::UpgradeRefused | Self::BadPath | Self::Denied(_) | Self::Token(..) => {
                Flags::NONE
            }
        }
    }

    /// The response code detail in access logs.
    pub(crate) fn detail(&self) -> Cow<'static, str> {
        match self {
            Self::NoRoute => "route_not_found".into(),
            Self::NoCluster(_) => "cluster_not_found".into(),
            Self::NoHealthyUpstream => "no_healthy_upstream".into(),
            Self::Upstream(reset, _) => {
                let mut text = String::from("upstream_reset_before_response_started{");
                text.push_str(reset.reason());
                if let Some(transport) = reset.transport_failure() {
                    text.push('|');
                    text.push_str(transport);
                }
                text.push('}');
                text.replace(char::is_whitespace, "_").into()
            }
            Self::Timeout | Self::Expired(Expired::Response, _) => "response_timeout".into(),
            Self::Expired(Expired::Idle, _) => "stream_idle_timeout".into(),
            Self::Expired(Expired::Request, _) => "request_overall_timeout".into(),
            Self::Expired(Expired::Duration, _) => "max_duration_timeout".into(),
            Self::Expired(Expired::Upstream, _) => "upstream_max_stream_duration_reached".into(),
            Self::Underscore => "unexpected_underscore".into(),
            Self::Broken(Broken::Gone) => "downstream_remote_disconnect".into(),
            Self::Broken(Broken::Nonsense) => "http1.codec_error".into(),
            Self::SeveralHosts => "several_host_headers".into(),
            Self::TooManyHeaders => "too_many_headers".into(),
            Self::PerTryTimeout => "upstream_per_try_timeout".into(),
            Self::PerTryIdle => "upstream_per_try_idle_timeout".into(),
            Self::FaultAbort(..) => "fault_filter_abort".into(),
            Self::Unresolved => "dns_resolution_failure".into(),
            Self::LowVersion => "low_version".into(),
            Self::MissingHost => "missing_host_header".into(),
            Self::UpgradeRefused => "upgrade_failed".into(),
            Self::BadPath => "path_normalization_failed".into(),
            Self::Denied(detail) => detail.to_string().into(),
            Self::Token(why, _) => {
                format!("jwt_authn_access_denied{{{}}}", why.to_string().replace(' ', "_")).into()
            }
        }
    }

    /// Whether the client's connection is of no use any more.
    pub(crate) fn closes(&self) -> bool {
        matches!(
            self,
            Self::LowVersion
                | Self::MissingHost
                | Self::UpgradeRefused
                | Self::Underscore
                | Self::Broken(_)
                | Self::SeveralHosts
                | Self::TooManyHeaders
                | Self::Expired(_, false)
        )
    }

    /// The gRPC status that stands for it when the request was gRPC.
    pub(crate) fn grpc_status(&self) -> u8 {
        match self {
            // DEADLINE_EXCEEDED
            Self::Expired(Expired::Duration, _) => 4,
            _ => grpc_status(self.status()),
        }
    }
}

/// The gRPC status for an HTTP status, by gRPC's own table.
pub(crate) fn grpc_status(status: StatusCode) -> u8 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_connection_reads_as_envoys() {
        let failure = Failure::Upstream(
            Reset::ConnectFailure("delayed connect error: Connection refused".into()),
            true,
        );
        assert_eq!(
            failure.body(),
            "upstream connect error or disconnect/reset before headers. retried and the latest reset reason: remote \
             connection failure"
        );
        assert_eq!(
            failure.detail(),
            "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}"
        );
        assert_eq!(failure.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(failure.flag(), Flags::UPSTREAM_FAILURE);
    }
}
