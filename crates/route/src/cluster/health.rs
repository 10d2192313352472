//! Active health checks: what endpoints are asked, how often, and how many answers count.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lateen_proto::envoy::config::core::v3 as core;
use lateen_proto::envoy::config::core::v3::health_check as proto;

use crate::error::{Cx, Result};
use crate::string_match::StringMatcher;

/// A compiled `HealthCheck`.
#[derive(Clone, Debug)]
pub struct HealthCheck {
    /// How long one check may take.
    pub timeout: Duration,
    /// Pauses between checks.
    pub pauses: Pauses,
    /// The most by which the first check is put off at random.
    pub initial_jitter: Duration,
    /// Failures in a row until an endpoint is out.
    pub unhealthy_threshold: u32,
    /// Successes in a row until it is in again.
    pub healthy_threshold: u32,
    /// What is asked.
    pub probe: Probe,
}

/// Pauses between checks of one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pauses {
    /// While it is well.
    pub healthy: Duration,
    /// While it is well, but the last check was not.
    pub healthy_edge: Duration,
    /// While it is out.
    pub unhealthy: Duration,
    /// While it is out, but the last check was good.
    pub unhealthy_edge: Duration,
    /// While the cluster has never had a connection, and the endpoint is not well.
    pub no_traffic: Duration,
    /// While the cluster has never had a connection, and the endpoint is well.
    pub no_traffic_healthy: Duration,
    /// The most that is added at random.
    pub jitter: Duration,
    /// The most that is added at random, in percent.
    pub jitter_percent: u32,
}

/// What is asked of an endpoint.
#[derive(Clone, Debug)]
pub enum Probe {
    /// A request, and its status.
    Http(Box<HttpProbe>),
    /// Bytes, and those that come back; a connection is enough where none are named.
    Tcp {
        /// What is sent.
        send: Bytes,
        /// What has to come, in this order.
        receive: Vec<Bytes>,
    },
    /// gRPC's health service.
    Grpc {
        /// The service asked about; empty is the whole server.
        service: Arc<str>,
        /// `:authority`; the cluster's name unless set.
        authority: Option<Arc<str>>,
        /// More headers.
        headers: Headers,
    },
}

/// Fixed headers of a check.
pub type Headers = Box<[(http::HeaderName, http::HeaderValue)]>;

/// An HTTP check.
#[derive(Clone, Debug)]
pub struct HttpProbe {
    /// The host header; the cluster's name unless set.
    pub host: Option<Arc<str>>,
    /// Path and query.
    pub path: http::uri::PathAndQuery,
    /// The method.
    pub method: http::Method,
    /// More headers.
    pub headers: Headers,
    /// Headers that are left out.
    pub without: Box<[http::HeaderName]>,
    /// Statuses of an endpoint that is well; 200 unless set.
    pub expected: Vec<Range<i64>>,
    /// Statuses that count as a failure among several; others put the endpoint out at once.
    pub retriable: Vec<Range<i64>>,
    /// HTTP/2 instead of HTTP/1.1.
    pub http2: bool,
    /// What `x-envoy-upstream-healthchecked-cluster` has to say.
    pub service: Option<StringMatcher>,
}

impl HttpProbe {
    /// Whether a status says that the endpoint is well.
    pub fn expects(&self, status: u16) -> bool {
        self.expected.iter().any(|range| range.contains(&status.into()))
    }

    /// Whether a status is a failure that counts among several.
    pub fn may_retry(&self, status: u16) -> bool {
        self.retriable.iter().any(|range| range.contains(&status.into()))
    }
}

impl HealthCheck {
    pub(super) fn compile(cx: &mut Cx<'_>, message: &core::HealthCheck) -> Result<Self> {
        cx.check(message)?;
        let required =
            |field: &str, value: &Option<lateen_proto::Duration>| match cx.duration(field, value)? {
                Some(duration) if !duration.is_zero() => Ok(duration),
                _ => Err(cx.refuse_at(field, "has to be above 0")),
            };
        let timeout = required("timeout", &message.timeout)?;
        let healthy = required("interval", &message.interval)?;
        let or = |field: &str, value: &Option<lateen_proto::Duration>, other: Duration| {
            Ok(cx.duration(field, value)?.filter(|d| !d.is_zero()).unwrap_or(other))
        };
        let unhealthy = or("unhealthy_interval", &message.unhealthy_interval, healthy)?;
        let no_traffic = or("no_traffic_interval", &message.no_traffic_interval, Duration::from_secs(60))?;
        Ok(Self {
            timeout,
            pauses: Pauses {
                healthy,
                healthy_edge: or("healthy_edge_interval", &message.healthy_edge_interval, healthy)?,
                unhealthy,
                unhealthy_edge: or("unhealthy_edge_interval", &message.unhealthy_edge_interval, unhealthy)?,
                no_traffic,
                no_traffic_healthy: or(
                    "no_traffic_healthy_interval",
                    &message.no_traffic_healthy_interval,
                    no_traffic,
                )?,
                jitter: cx.duration("interval_jitter", &message.interval_jitter)?.unwrap_or_default(),
                jitter_percent: message.interval_jitter_percent,
            },
            initial_jitter: cx.duration("initial_jitter", &message.initial_jitter)?.unwrap_or_default(),
            unhealthy_threshold: threshold(cx, "unhealthy_threshold", message.unhealthy_threshold)?,
            healthy_threshold: threshold(cx, "healthy_threshold", message.healthy_threshold)?,
            probe: Probe::compile(cx, message)?,
        })
    }
}

fn threshold(cx: &Cx<'_>, field: &str, value: Option<u32>) -> Result<u32> {
    value.filter(|value| *value > 0).ok_or_else(|| cx.refuse_at(field, "is required, and above 0"))
}

impl Probe {
    fn compile(cx: &mut Cx<'_>, message: &core::HealthCheck) -> Result<Self> {
        use proto::HealthChecker as C;
        match cx.required("health_checker", &message.health_checker)? {
            C::HttpHealthCheck(http) => cx.field("http_health_check", |cx| HttpProbe::compile(cx, http)),
            C::TcpHealthCheck(tcp) => cx.field("tcp_health_check", |cx| {
                if tcp.proxy_protocol_config.is_some() {
                    return Err(cx.refuse_at("proxy_protocol_config", "is not supported"));
                }
                let send = tcp.send.as_ref().map(|payload| bytes(cx, "send", payload)).transpose()?;
                Ok(Self::Tcp {
                    send: send.unwrap_or_default(),
                    receive: cx.each("receive", &tcp.receive, |cx, part| bytes(cx, "payload", part))?,
                })
            }),
            C::GrpcHealthCheck(grpc) => cx.field("grpc_health_check", |cx| {
                Ok(Self::Grpc {
                    service: grpc.service_name.as_str().into(),
                    authority: (!grpc.authority.is_empty()).then(|| grpc.authority.as_str().into()),
                    headers: headers(cx, "initial_metadata", &grpc.initial_metadata)?,
                })
            }),
            C::CustomHealthCheck(custom) => {
                let reason = format!("{} is not supported: use HTTP, TCP or gRPC", custom.name);
                Err(cx.refuse_at("custom_health_check", reason))
            }
        }
    }
}

impl HttpProbe {
    fn compile(cx: &mut Cx<'_>, message: &proto::HttpHealthCheck) -> Result<Probe> {
        cx.check(message)?;
        let path = message.path.parse::<http::uri::PathAndQuery>();
        let path = path.ok().filter(|_| message.path.starts_with('/'));
        let path = path.ok_or_else(|| cx.refuse_at("path", "has to be a path that begins with a slash"))?;
        let method = match core::RequestMethod::try_from(message.method) {
            Ok(core::RequestMethod::MethodUnspecified) | Err(_) => http::Method::GET,
            Ok(core::RequestMethod::Connect) => {
                return Err(cx.refuse_at("method", "CONNECT is not supported"));
            }
            Ok(method) => {
                method.as_str_name().parse().map_err(|_| cx.refuse_at("method", "is not supported"))?
            }
        };
        let ranges = |list: &[lateen_proto::envoy::r#type::v3::Int64Range]| {
            list.iter().map(|range| range.start..range.end).collect::<Vec<_>>()
        };
        let mut expected = ranges(&message.expected_statuses);
        if expected.is_empty() {
            expected.push(200..201);
        }
        Ok(Probe::Http(Box::new(Self {
            host: (!message.host.is_empty()).then(|| message.host.as_str().into()),
            path,
            method,
            headers: headers(cx, "request_headers_to_add", &message.request_headers_to_add)?,
            without: cx
                .each("request_headers_to_remove", &message.request_headers_to_remove, |cx, name| {
                    cx.header_name("name", name)
                })?
                .into(),
            expected,
            retriable: ranges(&message.retriable_statuses),
            http2: match lateen_proto::envoy::r#type::v3::CodecClientType::try_from(message.codec_client_type)
            {
                Ok(lateen_proto::envoy::r#type::v3::CodecClientType::Http2) => true,
                Ok(lateen_proto::envoy::r#type::v3::CodecClientType::Http3) => {
                    return Err(cx.refuse_at("codec_client_type", "HTTP/3 is not supported"));
                }
                _ => false,
            },
            service: message
                .service_name_matcher
                .as_ref()
                .map(|m| cx.field("service_name_matcher", |cx| StringMatcher::compile(cx, m)))
                .transpose()?,
        })))
    }
}

/// Text is hexadecimal there, as in Envoy.
fn bytes(cx: &Cx<'_>, field: &str, payload: &proto::Payload) -> Result<Bytes> {
    match &payload.payload {
        Some(proto::payload::Payload::Binary(bytes)) => Ok(bytes.clone().into()),
        Some(proto::payload::Payload::Text(text)) => {
            let digits = text.as_bytes();
            let pair = |pair: &[u8]| {
                let pair = std::str::from_utf8(pair).ok()?;
                u8::from_str_radix(pair, 16).ok().filter(|_| !pair.starts_with('+'))
            };
            let whole = digits.len().is_multiple_of(2);
            let bytes: Option<Vec<u8>> = digits.chunks(2).map(pair).collect();
            bytes
                .filter(|_| whole)
                .map(Into::into)
                .ok_or_else(|| cx.refuse_at(field, "text has to be hexadecimal digits, two a byte"))
        }
        None => Err(cx.refuse_at(field, "needs text or binary")),
    }
}

fn headers(cx: &mut Cx<'_>, field: &str, list: &[core::HeaderValueOption]) -> Result<Headers> {
    let headers = cx.each(field, list, |cx, option| {
        let header = cx.required("header", &option.header)?;
        if header.value.contains('%') {
            return Err(cx.refuse_at("header.value", "formats are not supported in health checks"));
        }
        let value = http::HeaderValue::from_str(&header.value);
        let value = value.map_err(|_| cx.refuse_at("header.value", "is no header value"))?;
        Ok((cx.header_name("header.key", &header.key)?, value))
    })?;
    Ok(headers.into())
}
