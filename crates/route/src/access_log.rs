//! Access logs: where a line goes, what it says, which requests get one.

use std::sync::Arc;

use lateen_proto::envoy::config::accesslog::v3 as proto;
use lateen_proto::envoy::config::accesslog::v3::access_log_filter::FilterSpecifier;
use lateen_proto::envoy::config::core::v3 as core;
use lateen_proto::envoy::config::core::v3::substitution_format_string::Format as FormatKind;
use lateen_proto::envoy::extensions::access_loggers as loggers;
use lateen_proto::value::Kind;
use lateen_proto::{Any, Struct, Value};

use crate::entropy::{Entropy, Fraction};
use crate::error::{Cx, Result};
use crate::format::Format;
use crate::header_match::HeaderMatcher;
use crate::metadata_match::MetadataMatcher;
use crate::request::RequestView;

/// A compiled access log.
#[derive(Clone, Debug)]
pub struct AccessLog {
    /// Where lines go.
    pub sink: LogSink,
    /// What a line says.
    pub format: LogFormat,
    /// Which requests get one; `None` is all.
    pub filter: Option<LogFilter>,
}

/// Where an access log goes.
#[derive(Clone, Debug)]
pub enum LogSink {
    /// A file's path; `/dev/stdout` is the usual one.
    File(Arc<str>),
    /// The process's output.
    Stdout,
    /// The process's errors.
    Stderr,
    /// A log service over gRPC, as configured.
    Grpc(Any),
}

/// What a line of an access log says.
#[derive(Clone, Debug)]
pub enum LogFormat {
    /// Envoy's default line.
    Default,
    /// A text; it ends lines itself.
    Text {
        /// The text.
        format: Format,
        /// Whether a missing value is written as nothing rather than as a dash.
        omit_empty: bool,
    },
    /// One JSON object a line.
    Json {
        /// The object.
        object: Vec<(Box<str>, JsonNode)>,
        /// Whether members without value are left out rather than null.
        omit_empty: bool,
    },
}

/// A value of a JSON log line.
#[derive(Clone, Debug)]
pub enum JsonNode {
    /// A string, or the value itself when the format is one variable of another type.
    Format(Format),
    /// A number.
    Number(f64),
    /// A truth.
    Bool(bool),
    /// A null.
    Null,
    /// A nested object.
    Object(Vec<(Box<str>, JsonNode)>),
    /// A list.
    List(Vec<JsonNode>),
}

/// Which requests are logged (or, in a local reply, changed).
#[derive(Clone, Debug)]
pub enum LogFilter {
    /// Compares the response's status.
    Status(Comparison),
    /// Compares the duration in milliseconds.
    Duration(Comparison),
    /// All but health checks.
    NotHealthCheck,
    /// Requests that are traced.
    Traceable,
    /// A share of them.
    Random(Fraction),
    /// All of these.
    And(Vec<LogFilter>),
    /// Any of these.
    Or(Vec<LogFilter>),
    /// By a request header.
    Header(HeaderMatcher),
    /// By response flag; empty takes any response with a flag.
    ResponseFlags(Vec<Box<str>>),
    /// By gRPC status.
    GrpcStatus {
        /// The codes.
        codes: Vec<u32>,
        /// Whether those are left out.
        exclude: bool,
    },
    /// By dynamic metadata.
    Metadata {
        /// The test.
        matcher: Option<MetadataMatcher>,
    },
}

/// A comparison with a fixed number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// The operator.
    pub operator: Operator,
    /// The number.
    pub value: u32,
}

/// An operator of a [`Comparison`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// Equal.
    Equal,
    /// Greater or equal.
    AtLeast,
    /// Less or equal.
    AtMost,
    /// Not equal.
    NotEqual,
}

impl Comparison {
    /// Whether `number` compares so.
    pub fn holds(self, number: u64) -> bool {
        let value = u64::from(self.value);
        match self.operator {
            Operator::Equal => number == value,
            Operator::AtLeast => number >= value,
            Operator::AtMost => number <= value,
            Operator::NotEqual => number != value,
        }
    }
}

/// What a [`LogFilter`] looks at.
#[derive(Clone, Copy, Debug)]
pub struct LogFacts<'a> {
    /// The response's status; 0 when there was none.
    pub status: u16,
    /// The duration in milliseconds.
    pub duration_ms: u64,
    /// The response flags, as `UH`.
    pub flags: &'a [&'a str],
    /// The gRPC status, if it is a gRPC response.
    pub grpc_status: Option<u32>,
    /// Whether it is a health check.
    pub health_check: bool,
    /// Whether it is traced.
    pub traced: bool,
    /// The request, if it was HTTP.
    pub request: Option<&'a RequestView<'a>>,
    /// Its entropy.
    pub entropy: Entropy,
}

impl LogFilter {
    /// Whether a request is logged.
    pub fn admits(&self, facts: &LogFacts<'_>) -> bool {
        match self {
            Self::Status(comparison) => comparison.holds(u64::from(facts.status)),
            Self::Duration(comparison) => comparison.holds(facts.duration_ms),
            Self::NotHealthCheck => !facts.health_check,
            Self::Traceable => facts.traced,
            Self::Random(fraction) => fraction.hits(facts.entropy.draw(SALT)),
            Self::And(all) => all.iter().all(|one| one.admits(facts)),
            Self::Or(any) => any.iter().any(|one| one.admits(facts)),
            Self::Header(matcher) => facts.request.is_some_and(|request| matcher.matches(request)),
            Self::ResponseFlags(wanted) if wanted.is_empty() => !facts.flags.is_empty(),
            Self::ResponseFlags(wanted) => {
                facts.flags.iter().any(|flag| wanted.iter().any(|w| **w == **flag))
            }
            Self::GrpcStatus { codes, exclude } => {
                facts.grpc_status.is_some_and(|status| codes.contains(&status)) != *exclude
            }
            Self::Metadata { matcher } => {
                let metadata = facts.request.and_then(|request| request.metadata);
                matcher.as_ref().is_none_or(|matcher| matcher.matches(metadata))
            }
        }
    }

    pub(crate) fn compile(cx: &mut Cx<'_>, message: &proto::AccessLogFilter, depth: u8) -> Result<Self> {
        if depth > 16 {
            return Err(cx.refuse("is nested more than 16 levels deep"));
        }
        let all = |cx: &mut Cx<'_>, field: &str, filters: &[proto::AccessLogFilter]| {
            cx.each(field, filters, |cx, filter| Self::compile(cx, filter, depth + 1))
        };
        Ok(match cx.required("filter_specifier", &message.filter_specifier)? {
            FilterSpecifier::StatusCodeFilter(filter) => Self::Status(comparison(cx, &filter.comparison)?),
            FilterSpecifier::DurationFilter(filter) => Self::Duration(comparison(cx, &filter.comparison)?),
            FilterSpecifier::NotHealthCheckFilter(_) => Self::NotHealthCheck,
            FilterSpecifier::TraceableFilter(_) => Self::Traceable,
            FilterSpecifier::RuntimeFilter(filter) => {
                Self::Random(filter.percent_sampled.as_ref().map_or(Fraction::NONE, Fraction::of))
            }
            FilterSpecifier::AndFilter(filter) => Self::And(all(cx, "and_filter.filters", &filter.filters)?),
            FilterSpecifier::OrFilter(filter) => Self::Or(all(cx, "or_filter.filters", &filter.filters)?),
            FilterSpecifier::HeaderFilter(filter) => {
                let header = cx.required("header_filter.header", &filter.header)?;
                Self::Header(cx.field("header_filter.header", |cx| HeaderMatcher::compile(cx, header))?)
            }
            FilterSpecifier::ResponseFlagFilter(filter) => {
                Self::ResponseFlags(filter.flags.iter().map(|flag| flag.as_str().into()).collect())
            }
            FilterSpecifier::GrpcStatusFilter(filter) => Self::GrpcStatus {
                codes: filter.statuses.iter().map(|status| *status as u32).collect(),
                exclude: filter.exclude,
            },
            FilterSpecifier::MetadataFilter(filter) => Self::Metadata {
                matcher: match &filter.matcher {
                    None => None,
                    Some(matcher) => {
                        Some(cx.field("metadata_filter.matcher", |cx| MetadataMatcher::compile(cx, matcher))?)
                    }
                },
            },
            FilterSpecifier::ExtensionFilter(_) => {
                return Err(cx.refuse_at("extension_filter", "is not supported"));
            }
            FilterSpecifier::LogTypeFilter(_) => {
                return Err(cx.refuse_at("log_type_filter", "is not supported"));
            }
        })
    }
}

const SALT: u64 = 0x6c6f67;

fn comparison(cx: &Cx<'_>, message: &Option<proto::ComparisonFilter>) -> Result<Comparison> {
    use proto::comparison_filter::Op;
    let message = cx.required("comparison", message)?;
    let operator = match message.op() {
        Op::Eq => Operator::Equal,
        Op::Ge => Operator::AtLeast,
        Op::Le => Operator::AtMost,
        Op::Ne => Operator::NotEqual,
    };
    Ok(Comparison { operator, value: message.value.as_ref().map_or(0, |value| value.default_value) })
}

impl AccessLog {
    pub(crate) fn compile(cx: &mut Cx<'_>, message: &proto::AccessLog) -> Result<Self> {
        let filter = match &message.filter {
            None => None,
            Some(filter) => Some(cx.field("filter", |cx| LogFilter::compile(cx, filter, 0))?),
        };
        let Some(proto::access_log::ConfigType::TypedConfig(any)) = &message.config_type else {
            return Err(cx.refuse_at("typed_config", "is required"));
        };
        let (sink, format) = cx.field("typed_config", |cx| Self::sink(cx, any))?;
        Ok(Self { sink, format, filter })
    }

    fn sink(cx: &mut Cx<'_>, any: &Any) -> Result<(LogSink, LogFormat)> {
        use loggers::stream::v3::{stderr_access_log, stdout_access_log};
        if any.is::<loggers::file::v3::FileAccessLog>() {
            let message: loggers::file::v3::FileAccessLog = cx.unpack(any)?;
            if message.path.is_empty() {
                return Err(cx.refuse_at("path", "must not be empty"));
            }
            return Ok((LogSink::File(message.path.as_str().into()), file_format(cx, &message)?));
        }
        if any.is::<loggers::stream::v3::StdoutAccessLog>() {
            let message: loggers::stream::v3::StdoutAccessLog = cx.unpack(any)?;
            let format = message.access_log_format.map(|stdout_access_log::AccessLogFormat::LogFormat(f)| f);
            return Ok((LogSink::Stdout, LogFormat::optional(cx, format.as_ref())?));
        }
        if any.is::<loggers::stream::v3::StderrAccessLog>() {
            let message: loggers::stream::v3::StderrAccessLog = cx.unpack(any)?;
            let format = message.access_log_format.map(|stderr_access_log::AccessLogFormat::LogFormat(f)| f);
            return Ok((LogSink::Stderr, LogFormat::optional(cx, format.as_ref())?));
        }
        if any.is::<loggers::grpc::v3::HttpGrpcAccessLogConfig>()
            || any.is::<loggers::grpc::v3::TcpGrpcAccessLogConfig>()
            || any
                .type_url
                .ends_with("envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig")
        {
            return Ok((LogSink::Grpc(any.clone()), LogFormat::Default));
        }
        Err(cx.refuse(format!("access log {} is not supported", any.type_url)))
    }
}

fn file_format(cx: &mut Cx<'_>, message: &loggers::file::v3::FileAccessLog) -> Result<LogFormat> {
    use loggers::file::v3::file_access_log::AccessLogFormat as F;
    match &message.access_log_format {
        None => Ok(LogFormat::Default),
        Some(F::LogFormat(format)) => cx.field("log_format", |cx| LogFormat::compile(cx, format)),
        Some(F::Format(text)) => {
            Ok(LogFormat::Text { format: parse(cx, "format", text)?, omit_empty: false })
        }
        Some(F::JsonFormat(object) | F::TypedJsonFormat(object)) => {
            Ok(LogFormat::Json { object: json_object(cx, object, 0)?, omit_empty: false })
        }
    }
}

impl LogFormat {
    fn optional(cx: &mut Cx<'_>, message: Option<&core::SubstitutionFormatString>) -> Result<Self> {
        message.map_or(Ok(Self::Default), |format| cx.field("log_format", |cx| Self::compile(cx, format)))
    }

    pub(crate) fn compile(cx: &mut Cx<'_>, message: &core::SubstitutionFormatString) -> Result<Self> {
        cx.check(message)?;
        let omit_empty = message.omit_empty_values;
        Ok(match cx.required("format", &message.format)? {
            FormatKind::TextFormat(text) => {
                Self::Text { format: parse(cx, "text_format", text)?, omit_empty }
            }
            FormatKind::TextFormatSource(source) => {
                let bytes = cx.inline("text_format_source", source)?;
                let text = std::str::from_utf8(&bytes)
                    .map_err(|_| cx.refuse_at("text_format_source", "is not UTF-8"))?;
                Self::Text { format: parse(cx, "text_format_source", text)?, omit_empty }
            }
            FormatKind::JsonFormat(object) => {
                Self::Json { object: cx.field("json_format", |cx| json_object(cx, object, 0))?, omit_empty }
            }
        })
    }
}

fn parse(cx: &Cx<'_>, field: &str, text: &str) -> Result<Format> {
    Format::parse(text).map_err(|reason| cx.refuse_at(field, reason))
}

fn json_object(cx: &mut Cx<'_>, object: &Struct, depth: u8) -> Result<Vec<(Box<str>, JsonNode)>> {
    object
        .fields
        .iter()
        .map(|(name, value)| Ok((name.as_str().into(), cx.field(name, |cx| json_node(cx, value, depth))?)))
        .collect()
}

fn json_node(cx: &mut Cx<'_>, value: &Value, depth: u8) -> Result<JsonNode> {
    if depth > 16 {
        return Err(cx.refuse("is nested more than 16 levels deep"));
    }
    Ok(match &value.kind {
        None | Some(Kind::NullValue(_)) => JsonNode::Null,
        Some(Kind::NumberValue(number)) => JsonNode::Number(*number),
        Some(Kind::BoolValue(truth)) => JsonNode::Bool(*truth),
        Some(Kind::StringValue(text)) => {
            JsonNode::Format(Format::parse(text).map_err(|reason| cx.refuse(reason))?)
        }
        Some(Kind::StructValue(object)) => JsonNode::Object(json_object(cx, object, depth + 1)?),
        Some(Kind::ListValue(list)) => JsonNode::List(
            list.values.iter().map(|value| json_node(cx, value, depth + 1)).collect::<Result<_>>()?,
        ),
    })
}
