//! The control plane's metrics, by Istio's names.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfType {
    r#type: String,
}

/// The metrics. Clones share them.
#[derive(Clone)]
pub(crate) struct Metrics {
    registry: Arc<Mutex<Registry>>,
    /// `pilot_xds`: the connected proxies.
    pub(crate) connected: Gauge,
    /// `pilot_services`.
    pub(crate) services: Gauge,
    pushes: Family<OfType, Counter>,
    rejects: Family<OfType, Counter>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::default();
        let (connected, services) = (Gauge::default(), Gauge::default());
        let (pushes, rejects) = (Family::default(), Family::default());
        registry.register(
            "pilot_xds",
            "Number of proxies connected to this control plane",
            connected.clone(),
        );
        registry.register("pilot_services", "Number of services known", services.clone());
        registry.register("pilot_xds_pushes", "Responses sent, by type", pushes.clone());
        registry.register(
            "pilot_total_xds_rejects",
            "Responses that proxies refused, by type",
            rejects.clone(),
        );
        Self { registry: Arc::new(Mutex::new(registry)), connected, services, pushes, rejects }
    }

    pub(crate) fn pushed(&self, kind: &str) {
        self.pushes.get_or_create(&OfType { r#type: kind.to_lowercase() }).inc();
    }

    pub(crate) fn rejected(&self, kind: &str) {
        self.rejects.get_or_create(&OfType { r#type: kind.to_lowercase() }).inc();
    }

    /// The metrics in Prometheus' text form.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        // Writing into a string cannot fail.
        let _ = encode(&mut text, &registry);
        text
    }
}
