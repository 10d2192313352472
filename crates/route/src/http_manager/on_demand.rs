//! Clusters that are fetched when a request wants them.

use std::time::Duration;

use lateen_proto::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use lateen_proto::envoy::extensions::filters::http::on_demand::v3::OnDemandCds;

use crate::error::{Cx, Result};

/// How clusters are fetched that are not there yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnDemand {
    /// How long a request waits for its cluster; five seconds unless set.
    pub timeout: Duration,
}

impl OnDemand {
    /// `None` when clusters are not fetched.
    pub(super) fn compile(cx: &mut Cx<'_>, message: &Option<OnDemandCds>) -> Result<Option<Self>> {
        let Some(message) = message else { return Ok(None) };
        cx.field("odcds", |cx| {
            if !message.resources_locator.is_empty() {
                return Err(
                    cx.refuse_at("resources_locator", "is not supported: clusters are asked for by name")
                );
            }
            let source = cx.required("source", &message.source)?;
            match &source.config_source_specifier {
                Some(ConfigSourceSpecifier::Ads(_) | ConfigSourceSpecifier::Self_(_)) => {}
                _ => return Err(cx.refuse_at("source", "needs ads")),
            }
            let timeout = cx.duration("timeout", &message.timeout)?.filter(|timeout| !timeout.is_zero());
            Ok(Some(Self { timeout: timeout.unwrap_or(Duration::from_secs(5)) }))
        })
    }
}
