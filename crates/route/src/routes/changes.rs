//! What each level of a route configuration changes.

use std::collections::BTreeMap;

use lateen_proto::Any;
use lateen_proto::envoy::config::core::v3::HeaderValueOption;

use crate::error::{Cx, Result};
use crate::header_edits::HeaderEdits;
use crate::http_manager::Overrides;

/// The changes of one level: route configuration, virtual host, route or weighted cluster.
#[derive(Clone, Debug)]
pub struct Changes {
    /// Changes to requests.
    pub request_headers: HeaderEdits,
    /// Changes to responses.
    pub response_headers: HeaderEdits,
    /// Overrides of filters.
    pub overrides: Overrides,
}

impl Changes {
    /// `request` and `response` are headers to add and to remove; [`changes!`] knows where they are in a message.
    pub(super) fn compile(
        cx: &mut Cx<'_>,
        (request_add, request_remove): (&[HeaderValueOption], &[String]),
        (response_add, response_remove): (&[HeaderValueOption], &[String]),
        overrides: &BTreeMap<String, Any>,
    ) -> Result<Self> {
        Ok(Self {
            request_headers: HeaderEdits::compile(
                cx,
                ("request_headers_to_add", request_add),
                ("request_headers_to_remove", request_remove),
            )?,
            response_headers: HeaderEdits::compile(
                cx,
                ("response_headers_to_add", response_add),
                ("response_headers_to_remove", response_remove),
            )?,
            overrides: Overrides::compile(cx, overrides)?,
        })
    }
}

/// Compiles the changes of a message, whichever level it is of: all four name these fields alike.
macro_rules! changes {
    ($cx:expr, $message:expr) => {
        crate::routes::Changes::compile(
            $cx,
            (&$message.request_headers_to_add, &$message.request_headers_to_remove),
            (&$message.response_headers_to_add, &$message.response_headers_to_remove),
            &$message.typed_per_filter_config,
        )
    };
}
pub(super) use changes;
