//! How paths, hosts and header names are cleaned before anything decides by them.

use lateen_proto::envoy::config::core::v3 as core;
use lateen_proto::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;

/// How paths are cleaned before anything looks at them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathCleaning {
    /// RFC 3986: dots and percent-encoded unreserved characters.
    pub normalize: bool,
    /// Adjacent slashes become one.
    pub merge_slashes: bool,
    /// What happens to `%2f` and `%5c`.
    pub escaped_slashes: EscapedSlashes,
}

/// What happens to escaped slashes in paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EscapedSlashes {
    /// They stay.
    Keep,
    /// The request is answered with 400.
    Reject,
    /// They are unescaped and the client is redirected.
    UnescapeAndRedirect,
    /// They are unescaped and the request goes on.
    UnescapeAndForward,
}

/// How the host header is cleaned before anything looks at it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostCleaning {
    /// The port is removed if it is the listener's.
    pub strip_matching_port: bool,
    /// Any port is removed.
    pub strip_any_port: bool,
    /// A trailing dot is removed.
    pub strip_trailing_dot: bool,
}

/// What happens to header names with underscores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Underscores {
    /// They pass.
    Allow,
    /// The request is answered with 400.
    Reject,
    /// The header is dropped.
    Drop,
}

impl PathCleaning {
    pub(super) fn of(message: &hcm::HttpConnectionManager) -> Self {
        use hcm::http_connection_manager::PathWithEscapedSlashesAction as A;
        Self {
            normalize: message.normalize_path.unwrap_or(false),
            merge_slashes: message.merge_slashes,
            escaped_slashes: match message.path_with_escaped_slashes_action() {
                A::ImplementationSpecificDefault | A::KeepUnchanged => EscapedSlashes::Keep,
                A::RejectRequest => EscapedSlashes::Reject,
                A::UnescapeAndRedirect => EscapedSlashes::UnescapeAndRedirect,
                A::UnescapeAndForward => EscapedSlashes::UnescapeAndForward,
            },
        }
    }
}

impl HostCleaning {
    pub(super) fn of(message: &hcm::HttpConnectionManager) -> Self {
        Self {
            strip_matching_port: message.strip_matching_host_port,
            strip_any_port: matches!(
                message.strip_port_mode,
                Some(hcm::http_connection_manager::StripPortMode::StripAnyHostPort(true))
            ),
            strip_trailing_dot: message.strip_trailing_host_dot,
        }
    }
}

impl Underscores {
    pub(super) fn of(common: &core::HttpProtocolOptions) -> Self {
        use core::http_protocol_options::HeadersWithUnderscoresAction as A;
        match common.headers_with_underscores_action() {
            A::Allow => Self::Allow,
            A::RejectRequest => Self::Reject,
            A::DropHeader => Self::Drop,
        }
    }
}
