//! Objects that apply to a workload: of the root namespace and its own, by selector or by what they are attached to.

use std::sync::Arc;

use lateen_api::kinds::authorization_policy::AuthorizationAction;
use lateen_api::kinds::selector::PolicyTargetReference;
use lateen_api::{Kind, Object, Spec};
use lateen_base::{Labels, Namespace, ObjectRef};

use super::Snapshot;
use crate::Proxy;

/// The label by which a gateway's pods name the Gateway of the Kubernetes API that they are for.
pub(crate) const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
/// The label by which they name its class.
pub(crate) const GATEWAY_CLASS: &str = "gateway.networking.k8s.io/gateway-class-name";
/// The API group of both.
const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";
/// Marks policies that are only tried.
pub(crate) const DRY_RUN: &str = "istio.io/dry-run";

/// A policy that does not do what it says, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ineffective {
    /// The policy.
    pub object: ObjectRef,
    /// Why, and what would be right.
    pub reason: String,
}

impl Snapshot {
    /// The objects of a kind that apply to a proxy: the root namespace's first, then its own, each oldest first. Kinds
    /// without selector apply to the whole namespace; what is attached to something applies there alone.
    pub fn applicable(&self, kind: Kind, proxy: &Proxy) -> Vec<Arc<Object>> {
        let root = self.root_namespace();
        let applies = |object: &&Arc<Object>| match targets(&object.spec) {
            targets if targets.is_empty() => {
                selector(&object.spec).is_none_or(|selector| selector.selects(&proxy.labels))
            }
            targets => targets.iter().any(|target| is_attached(target, &object.namespace, proxy, root)),
        };
        let mut all: Vec<Arc<Object>> = self.objects_in(kind, root).filter(applies).cloned().collect();
        if proxy.namespace != *root {
            all.extend(self.objects_in(kind, &proxy.namespace).filter(applies).cloned());
        }
        all
    }

    /// The policies that do not do what they say on any proxy.
    pub fn ineffective(&self) -> Vec<Ineffective> {
        let kinds = [
            Kind::AuthorizationPolicy,
            Kind::RequestAuthentication,
            Kind::Telemetry,
            Kind::WasmPlugin,
            Kind::TrafficExtension,
        ];
        let mut out = Vec::new();
        for object in kinds.into_iter().flat_map(|kind| self.objects(kind)) {
            let mut reasons: Vec<String> = targets(&object.spec)
                .iter()
                .filter_map(|target| self.objection(target, &object.namespace))
                .collect();
            reasons.extend(self.custom_objection(object));
            if !reasons.is_empty() {
                out.push(Ineffective { object: object.reference(), reason: reasons.join("; ") });
            }
        }
        out
    }

    /// Why attaching to a target has no effect.
    fn objection(&self, target: &PolicyTargetReference, namespace: &Namespace) -> Option<String> {
        let PolicyTargetReference { group, kind, name, .. } = target;
        match (group.as_str(), kind.as_str()) {
            (GATEWAY_GROUP, "Gateway") => None,
            (GATEWAY_GROUP, "GatewayClass") if namespace == self.root_namespace() => None,
            (GATEWAY_GROUP, "GatewayClass") => Some(format!(
                "targetRefs: GatewayClass {name:?} has no effect here: such a policy belongs into {}",
                self.root_namespace()
            )),
            ("" | "core", "Service") | ("networking.istio.io", "ServiceEntry") => Some(format!(
                "targetRefs: {kind} {name:?} has no effect: only waypoints enforce policies of services, sidecars go by \
                 selector"
            )),
            _ => Some(format!(
                "targetRefs: {kind:?} of group {group:?} is no target: use Gateway, GatewayClass, Service or ServiceEntry"
            )),
        }
    }

    /// Why a policy of action CUSTOM asks nobody.
    fn custom_objection(&self, object: &Object) -> Option<String> {
        let Spec::AuthorizationPolicy(spec) = &object.spec else { return None };
        if spec.action != AuthorizationAction::Custom {
            return None;
        }
        if is_dry_run(object) {
            return Some(format!("{DRY_RUN} is for ALLOW, DENY and AUDIT: CUSTOM is left out"));
        }
        let name = spec.provider.as_ref().map_or("", |provider| provider.name.as_str());
        let known = self.mesh.extension_providers.iter().find(|known| known.name == name);
        match known {
            Some(known) if known.envoy_ext_authz_grpc.is_some() || known.envoy_ext_authz_http.is_some() => {
                None
            }
            Some(_) => Some(format!(
                "provider {name:?} of the mesh configuration is neither envoyExtAuthzHttp nor envoyExtAuthzGrpc: what the \
                 policy matches is denied"
            )),
            None => Some(format!(
                "provider {name:?} is not among the extensionProviders of the mesh configuration: what the policy matches \
                 is denied"
            )),
        }
    }
}

/// Whether a policy is only tried.
pub(crate) fn is_dry_run(object: &Object) -> bool {
    object.annotations.get(DRY_RUN).is_some_and(|word| word == "true")
}

/// Whether what is attached to a target applies to a proxy. Services are targets for waypoints alone.
fn is_attached(
    target: &PolicyTargetReference,
    namespace: &Namespace,
    proxy: &Proxy,
    root: &Namespace,
) -> bool {
    let is = |label: &str| proxy.labels.value(label) == Some(target.name.as_str());
    if !proxy.is_router() || target.group != GATEWAY_GROUP {
        return false;
    }
    match target.kind.as_str() {
        "Gateway" => proxy.namespace == *namespace && is(GATEWAY_NAME),
        "GatewayClass" => namespace == root && is(GATEWAY_CLASS),
        _ => false,
    }
}

/// What an object is attached to.
pub(super) fn targets(spec: &Spec) -> Vec<PolicyTargetReference> {
    let both = |one: &Option<PolicyTargetReference>, all: &[PolicyTargetReference]| {
        one.iter().chain(all).cloned().collect()
    };
    match spec {
        Spec::RequestAuthentication(spec) => both(&spec.target_ref, &spec.target_refs),
        Spec::AuthorizationPolicy(spec) => both(&spec.target_ref, &spec.target_refs),
        Spec::Telemetry(spec) => both(&spec.target_ref, &spec.target_refs),
        Spec::WasmPlugin(spec) => both(&spec.target_ref, &spec.target_refs),
        Spec::TrafficExtension(spec) => both(&None, &spec.target_refs),
        _ => Vec::new(),
    }
}

/// The labels that an object selects workloads by.
pub(super) fn selector(spec: &Spec) -> Option<&Labels> {
    match spec {
        Spec::Gateway(spec) => Some(&spec.selector),
        Spec::Sidecar(spec) => spec.workload_selector.as_ref().map(|s| &s.labels),
        Spec::EnvoyFilter(spec) => spec.workload_selector.as_ref().map(|s| &s.labels),
        Spec::ProxyConfig(spec) => spec.selector.as_ref().map(|s| &s.match_labels),
        Spec::PeerAuthentication(spec) => spec.selector.as_ref().map(|s| &s.match_labels),
        Spec::RequestAuthentication(spec) => spec.selector.as_ref().map(|s| &s.match_labels),
        Spec::AuthorizationPolicy(spec) => spec.selector.as_ref().map(|s| &s.match_labels),
        Spec::Telemetry(spec) => spec.selector.as_ref().map(|s| &s.match_labels),
        Spec::WasmPlugin(spec) => spec.selector.as_ref().map(|s| &s.match_labels),
        Spec::TrafficExtension(spec) => spec.selector.as_ref().map(|s| &s.match_labels),
        _ => None,
    }
}
