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
    certificates: Certificates,
}

/// What became of requests for certificates.
#[derive(Clone, Default)]
struct Certificates {
    asked: Counter,
    unauthenticated: Counter,
    refused: Counter,
    failed: Counter,
    issued: Counter,
}

impl Certificates {
    fn registered(registry: &mut Registry) -> Self {
        let all = Self::default();
        for (name, help, counter) in [
            ("citadel_server_csr_count", "Requests for certificates", &all.asked),
            (
                "citadel_server_authentication_failure_count",
                "Requests whose sender is not known",
                &all.unauthenticated,
            ),
            ("citadel_server_csr_parsing_err_count", "Requests refused for what they are", &all.refused),
            ("citadel_server_csr_sign_err_count", "Requests that could not be signed", &all.failed),
            ("citadel_server_success_cert_issuance_count", "Certificates issued", &all.issued),
        ] {
            registry.register(name, help, counter.clone());
        }
        all
    }
}

impl lateen_ca::service::Witness for Metrics {
    fn asked(&self) {
        self.certificates.asked.inc();
    }

    fn unauthenticated(&self) {
        self.certificates.unauthenticated.inc();
    }

    fn refused(&self) {
        self.certificates.refused.inc();
    }

    fn failed(&self) {
        self.certificates.failed.inc();
    }

    fn issued(&self) {
        self.certificates.issued.inc();
    }
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
        let certificates = Certificates::registered(&mut registry);
        Self { registry: Arc::new(Mutex::new(registry)), connected, services, pushes, rejects, certificates }
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
