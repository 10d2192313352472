//! Access logs: Istio's text and JSON formats, to files.

use lateen_proto::envoy::config::accesslog::v3 as log;
use lateen_proto::envoy::config::core::v3 as core;
use lateen_proto::envoy::extensions::access_loggers::file::v3 as file;
use lateen_proto::xds::r#type::v3::TypedStruct;
use lateen_proto::{Any, Struct};

use super::wire::{structure, text};

/// The line that Istio logs of each request and connection.
pub(crate) const TEXT_FORMAT: &str = concat!(
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% ",
    "%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% ",
    "\"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% ",
    "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" ",
    "\"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% ",
    "%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% ",
    "%REQUESTED_SERVER_NAME% %ROUTE_NAME%\n",
);

/// The fields that Istio logs when the encoding is JSON.
const JSON_FORMAT: &[(&str, &str)] = &[
    ("start_time", "%START_TIME%"),
    ("route_name", "%ROUTE_NAME%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("authority", "%REQ(:AUTHORITY)%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
];

/// How entries look.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum LogFormat {
    /// A line with Envoy's operators.
    Text(String),
    /// An object with Envoy's operators as values.
    Json(Struct),
}

impl LogFormat {
    /// Istio's own line.
    pub(crate) fn istio_text() -> Self {
        Self::Text(TEXT_FORMAT.to_owned())
    }

    /// Istio's own object.
    pub(crate) fn istio_json() -> Self {
        Self::Json(structure(JSON_FORMAT.iter().map(|(key, operator)| (*key, text(*operator)))))
    }

    /// A line that somebody wrote; each entry ends with a line feed.
    pub(crate) fn text(format: &str) -> Self {
        match format.ends_with('\n') {
            true => Self::Text(format.to_owned()),
            false => Self::Text(format!("{format}\n")),
        }
    }
}

/// A log in a file.
pub(crate) fn file_log(path: &str, format: LogFormat) -> log::AccessLog {
    let format = match format {
        LogFormat::Text(line) => {
            core::substitution_format_string::Format::TextFormatSource(core::DataSource {
                specifier: Some(core::data_source::Specifier::InlineString(line)),
                watched_directory: None,
            })
        }
        LogFormat::Json(fields) => core::substitution_format_string::Format::JsonFormat(fields),
    };
    let config = file::FileAccessLog {
        path: path.to_owned(),
        access_log_format: Some(file::file_access_log::AccessLogFormat::LogFormat(
            core::SubstitutionFormatString { format: Some(format), ..Default::default() },
        )),
    };
    log::AccessLog {
        name: "envoy.access_loggers.file".into(),
        filter: None,
        config_type: Some(log::access_log::ConfigType::TypedConfig(Any::pack(&config))),
    }
}

/// The logs of a listener itself: only of connections that no filter chain took.
pub(crate) fn for_listener(logs: &[log::AccessLog]) -> Vec<log::AccessLog> {
    let no_route = log::access_log_filter::FilterSpecifier::ResponseFlagFilter(log::ResponseFlagFilter {
        flags: vec!["NR".into()],
    });
    let unless_routed = |log: &log::AccessLog| log::AccessLog {
        filter: Some(log::AccessLogFilter { filter_specifier: Some(no_route.clone()) }),
        ..log.clone()
    };
    logs.iter().map(unless_routed).collect()
}

/// A log of those requests only that a CEL expression holds for.
pub(crate) fn filtered(log: log::AccessLog, expression: Option<&str>) -> log::AccessLog {
    let Some(expression) = expression else { return log };
    let config = TypedStruct {
        type_url: "type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter"
            .into(),
        value: Some(structure([("expression", text(expression))])),
    };
    let filter = log::access_log_filter::FilterSpecifier::ExtensionFilter(log::ExtensionFilter {
        name: "cel".into(),
        config_type: Some(log::extension_filter::ConfigType::TypedConfig(Any::pack(&config))),
    });
    log::AccessLog { filter: Some(log::AccessLogFilter { filter_specifier: Some(filter) }), ..log }
}
