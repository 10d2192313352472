//! What makes an object wrong although it is well-formed: Istio's semantic rules, in the words its users know.
//!
//! The rules are those of Istio's webhook (`istio/istio/pkg/config/validation`), beside those of the schemas, which
//! reading has checked already.

mod connection;
mod delegation;
mod extensions;
mod gateway;
mod http;
mod load_balancer;
mod mesh;
mod names;
mod networking;
mod path;
mod providers;
mod security;
mod service_entry;
mod sidecar;
mod telemetry;
mod tls;
mod virtual_service;
mod workload;

use serde::Serialize;

pub use mesh::{validate_mesh_config, validate_mesh_networks, validate_proxy_config};

use crate::kinds::Spec;
use crate::object::Object;
use path::Path;

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The object is accepted.
    Warning,
    /// The object is refused.
    Error,
}

/// Something wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The field, such as `spec.http[0].timeout`; empty for the whole.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// How bad it is.
    pub severity: Severity,
}

/// The problems found so far.
#[derive(Debug, Default)]
pub(crate) struct Problems(Vec<Problem>);

impl Problems {
    /// Records an error.
    pub(crate) fn error(&mut self, path: &Path<'_>, message: impl Into<String>) {
        self.add(path, message.into(), Severity::Error);
    }

    /// Records an error when `wrong`.
    pub(crate) fn error_if(&mut self, wrong: bool, path: &Path<'_>, message: impl Into<String>) {
        if wrong {
            self.error(path, message);
        }
    }

    /// Records what `result` says.
    pub(crate) fn check(&mut self, path: &Path<'_>, result: Result<(), String>) {
        if let Err(message) = result {
            self.error(path, message);
        }
    }

    /// Records a warning.
    pub(crate) fn warn(&mut self, path: &Path<'_>, message: impl Into<String>) {
        self.add(path, message.into(), Severity::Warning);
    }

    fn add(&mut self, path: &Path<'_>, message: String, severity: Severity) {
        self.0.push(Problem { path: path.to_string(), message, severity });
    }
}

/// What is wrong with an object, in the order of its fields; without errors it is accepted.
pub fn validate(object: &Object) -> Vec<Problem> {
    let mut out = Problems::default();
    for violation in &object.violations {
        let (path, message) = (violation.path.clone(), violation.message.clone());
        out.0.push(Problem { path, message, severity: Severity::Error });
    }
    check_metadata(object, &mut out);
    let at = &Path::Root("spec");
    match &object.spec {
        Spec::VirtualService(spec) => virtual_service::check(spec, at, &mut out),
        Spec::DestinationRule(spec) => networking::destination_rule(spec, at, &mut out),
        Spec::Gateway(spec) => gateway::check(spec, at, &mut out),
        Spec::ServiceEntry(spec) => service_entry::check(spec, at, &mut out),
        Spec::Sidecar(spec) => sidecar::check(spec, at, &mut out),
        Spec::EnvoyFilter(spec) => extensions::envoy_filter(spec, at, &mut out),
        Spec::WorkloadEntry(spec) => workload::entry(spec, at, &mut out),
        Spec::WorkloadGroup(spec) => workload::group(spec, at, &mut out),
        Spec::ProxyConfig(spec) => extensions::proxy_config(spec, at, &mut out),
        Spec::PeerAuthentication(spec) => security::peer_authentication(spec, at, &mut out),
        Spec::RequestAuthentication(spec) => security::request_authentication(spec, at, &mut out),
        Spec::AuthorizationPolicy(spec) => security::authorization_policy(object, spec, at, &mut out),
        Spec::Telemetry(spec) => telemetry::check(spec, at, &mut out),
        Spec::WasmPlugin(spec) => extensions::wasm_plugin(spec, at, &mut out),
        Spec::TrafficExtension(spec) => extensions::traffic_extension(spec, at, &mut out),
    }
    dedup(out.0)
}

/// A rule of the schema and one of ours may say the same of one field.
fn dedup(problems: Vec<Problem>) -> Vec<Problem> {
    let mut kept: Vec<Problem> = Vec::with_capacity(problems.len());
    for problem in problems {
        if !kept.contains(&problem) {
            kept.push(problem);
        }
    }
    kept
}

fn check_metadata(object: &Object, out: &mut Problems) {
    let at = Path::Root("metadata");
    if object.name.is_empty() {
        out.error(&at.field("name"), "is required");
    } else {
        out.check(&at.field("name"), names::dns_subdomain(&object.name));
    }
    if !object.namespace.is_empty() {
        out.check(&at.field("namespace"), names::dns_label(object.namespace.as_str()));
    }
}
