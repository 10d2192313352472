//! An HTTP connection manager as the workers run it.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use lateen_route::http_manager::{HttpFilterKind, HttpManager, RouterSettings};

use crate::listener::{Log, Routes};
use crate::log;
use crate::stats::{ExtAuthzStats, HttpStats, RbacStats, ShadowStats, Stats, dotted};

/// A manager.
#[derive(Debug)]
pub(crate) struct Manager {
    /// The decisions.
    pub compiled: Arc<HttpManager>,
    /// Its routes.
    pub routes: Routes,
    /// Its figures.
    pub stats: Arc<HttpStats>,
    /// The figures of its filters, one for each.
    pub figures: Vec<Figures>,
    /// Its logs.
    pub logs: Vec<Log>,
    /// Response headers that the logs name.
    pub logged_headers: Vec<HeaderName>,
    /// The `server` header.
    pub server: HeaderValue,
    /// The `via` header.
    pub via: Option<HeaderValue>,
    /// The router's settings.
    pub router: RouterSettings,
    /// The most bytes of a body that are kept for another try.
    pub buffer_limit: u32,
    /// Whether traffic goes to the workload.
    pub inbound: bool,
}

/// The figures of a filter.
#[derive(Debug)]
pub(crate) enum Figures {
    /// It has none of its own, or finds them itself.
    None,
    /// Of policies.
    Rbac {
        /// Those that are enforced.
        enforced: Arc<RbacStats>,
        /// Those on trial.
        shadow: Arc<ShadowStats>,
    },
    /// Of checks by an authorization service.
    ExtAuthz(Arc<ExtAuthzStats>),
}

impl Figures {
    fn of(kind: &HttpFilterKind, prefix: &str, stats: &Stats) -> Self {
        match kind {
            HttpFilterKind::Rbac(filter) => Self::Rbac {
                enforced: stats.rbac(&format!("http.{prefix}.rbac.{}", dotted(&filter.rules_prefix))),
                shadow: stats.shadow(&format!("http.{prefix}.rbac.{}", dotted(&filter.shadow_prefix))),
            },
            HttpFilterKind::ExtAuthz(filter) => {
                Self::ExtAuthz(stats.ext_authz(&format!("http.{prefix}.ext_authz.{}", filter.stat_prefix)))
            }
            _ => Self::None,
        }
    }
}

impl Manager {
    /// Puts a manager together.
    pub(crate) fn new(
        compiled: Arc<HttpManager>,
        routes: Routes,
        stats: &Stats,
        logs: Vec<Log>,
        buffer_limit: u32,
        inbound: bool,
    ) -> Self {
        let header = |text: &str| HeaderValue::from_str(text).ok();
        let router = compiled.filters.iter().find_map(|filter| match filter.kind {
            HttpFilterKind::Router(settings) => Some(settings),
            _ => None,
        });
        Self {
            logged_headers: log::response_headers(&logs),
            server: header(&compiled.server_name).unwrap_or(HeaderValue::from_static("envoy")),
            via: header(&compiled.via).filter(|via| !via.is_empty()),
            router: router.unwrap_or_default(),
            stats: stats.http(&compiled.stat_prefix),
            figures: compiled
                .filters
                .iter()
                .map(|filter| Figures::of(&filter.kind, &compiled.stat_prefix, stats))
                .collect(),
            compiled,
            routes,
            logs,
            buffer_limit,
            inbound,
        }
    }
}
