//! `WasmPlugin`, `TrafficExtension`, `EnvoyFilter`, `ProxyConfig`.

use super::path::Path;
use super::security::target;
use super::{Problems, workload};
use crate::kinds::envoy_filter::{ApplyTo, EnvoyConfigObjectPatch, PatchOperation};
use crate::kinds::wasm_plugin::{EnvValueSource, TrafficSelector, VmConfig};
use crate::kinds::{EnvoyFilter, ProxyConfig, TrafficExtension, WasmPlugin};

pub(super) fn wasm_plugin(spec: &WasmPlugin, at: &Path<'_>, out: &mut Problems) {
    target(spec.selector.as_ref(), spec.target_ref.as_ref(), &spec.target_refs, at, out);
    code(&spec.url, &spec.sha256, at, out);
    environment(spec.vm_config.as_ref(), &at.field("vmConfig"), out);
    traffic(&spec.r#match, &at.field("match"), out);
}

pub(super) fn traffic_extension(spec: &TrafficExtension, at: &Path<'_>, out: &mut Problems) {
    target(spec.selector.as_ref(), None, &spec.target_refs, at, out);
    let one = spec.wasm.is_some() != spec.lua.is_some();
    out.error_if(!one, at, "exactly one of wasm or lua must be set");
    if let Some(wasm) = &spec.wasm {
        let at = &at.field("wasm");
        code(&wasm.url, &wasm.sha256, at, out);
        environment(wasm.vm_config.as_ref(), &at.field("vmConfig"), out);
    }
    if let Some(lua) = &spec.lua {
        let at = &at.field("lua");
        let at = &at.field("inlineCode");
        out.error_if(lua.inline_code.is_empty(), at, "lua.inlineCode must not be empty");
        out.error_if(lua.inline_code.len() > 65536, at, "lua.inlineCode exceeds maximum size of 64KB");
    }
    traffic(&spec.r#match, &at.field("match"), out);
}

fn code(url: &str, sha256: &str, at: &Path<'_>, out: &mut Problems) {
    let at_url = &at.field("url");
    match url.split_once("://") {
        _ if url.is_empty() => out.error(at_url, "url field needs to be set"),
        Some((scheme, rest)) => {
            let known = ["oci", "file", "http", "https"].contains(&scheme);
            out.error_if(!known, at_url, format!("url contains unsupported scheme: {scheme}"));
            out.error_if(rest.is_empty(), at_url, "url names nothing after its scheme");
        }
        None => {}
    }
    let at_sum = &at.field("sha256");
    if !sha256.is_empty() {
        out.error_if(sha256.len() != 64, at_sum, "sha256 field must be 64 characters long");
        let hex = sha256.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        out.error_if(!hex, at_sum, "sha256 field must match [a-f0-9]{64} pattern");
    }
}

fn environment(config: Option<&VmConfig>, at: &Path<'_>, out: &mut Problems) {
    let Some(config) = config else { return };
    for (i, variable) in config.env.iter().enumerate() {
        let at = &at.field("env");
        let at = &at.item(i);
        out.error_if(variable.name.is_empty(), &at.field("name"), "spec.vmConfig.env invalid: no name");
        let twice = config.env[..i].iter().any(|other| other.name == variable.name);
        out.error_if(twice, &at.field("name"), format!("duplicate variable {:?}", variable.name));
        let set = variable.value_from == EnvValueSource::Host && !variable.value.is_empty();
        out.error_if(set, &at.field("value"), "value may only be set when valueFrom is INLINE");
    }
}

fn traffic(selectors: &[TrafficSelector], at: &Path<'_>, out: &mut Problems) {
    for (i, selector) in selectors.iter().enumerate() {
        let at = &at.item(i);
        for (j, port) in selector.ports.iter().enumerate() {
            let wild = !(1..=65535).contains(&port.number);
            let message = format!("spec.Match[{i}].Ports[{j}] is out of range: {}", port.number);
            out.error_if(wild, &at.field("ports").item(j), message);
        }
    }
}

pub(super) fn proxy_config(spec: &ProxyConfig, at: &Path<'_>, out: &mut Problems) {
    target(spec.selector.as_ref(), None, &[], at, out);
    let wrong = spec.concurrency.is_some_and(|concurrency| concurrency < 0);
    out.error_if(wrong, &at.field("concurrency"), "concurrency must be greater than or equal to 0");
}

pub(super) fn envoy_filter(spec: &EnvoyFilter, at: &Path<'_>, out: &mut Problems) {
    if let Some(selector) = &spec.workload_selector {
        workload::selector(&selector.labels, &at.field("workloadSelector"), out);
    }
    target(None, None, &spec.target_refs, at, out);
    let both = spec.workload_selector.is_some() && !spec.target_refs.is_empty();
    out.error_if(both, at, "only one of targetRefs or workloadSelector can be set");
    for (i, patch) in spec.config_patches.iter().enumerate() {
        let at = &at.field("configPatches");
        config_patch(patch, &at.item(i), out);
    }
}

fn config_patch(patch: &EnvoyConfigObjectPatch, at: &Path<'_>, out: &mut Problems) {
    let unset = patch.apply_to == ApplyTo::Invalid;
    out.error_if(unset, &at.field("applyTo"), "Envoy filter: missing applyTo");
    let Some(change) = &patch.patch else {
        return out.error(&at.field("patch"), "Envoy filter: missing patch");
    };
    let at_patch = &at.field("patch");
    match change.operation {
        PatchOperation::Invalid => {
            out.error(&at_patch.field("operation"), "Envoy filter: missing patch operation")
        }
        PatchOperation::Remove => {}
        _ => {
            let missing = change.value.is_none();
            out.error_if(
                missing,
                &at_patch.field("value"),
                "Envoy filter: missing patch value for non-remove operation",
            );
        }
    }
    if change.operation == PatchOperation::Remove && change.value.is_some() {
        out.warn(&at_patch.field("value"), "Envoy filter: patch value is ignored for the operation REMOVE");
    }
    inserts(patch, change.operation, at_patch, out);
    if let Some(condition) = &patch.r#match {
        fits(patch.apply_to, condition, &at.field("match"), out);
        if let Some(proxy) = &condition.proxy {
            let at = &at.field("match");
            let at = &at.field("proxy");
            let at = &at.field("proxyVersion");
            out.check(at, super::names::regex(&proxy.proxy_version));
        }
    }
}

/// Inserting has a place only in lists that have an order.
fn inserts(patch: &EnvoyConfigObjectPatch, operation: PatchOperation, at: &Path<'_>, out: &mut Problems) {
    use ApplyTo::{HttpFilter, HttpRoute, ListenerFilter, NetworkFilter};
    let ordered = matches!(patch.apply_to, NetworkFilter | HttpFilter | HttpRoute | ListenerFilter);
    let relative = matches!(
        operation,
        PatchOperation::InsertBefore | PatchOperation::InsertAfter | PatchOperation::InsertFirst
    );
    let message =
        format!("Envoy filter: {operation} applies only to filters and routes, not to {}", patch.apply_to);
    out.error_if(relative && !ordered && patch.apply_to != ApplyTo::Invalid, &at.field("operation"), message);
}

/// What is patched, and what is matched for it.
fn fits(
    apply_to: ApplyTo,
    condition: &crate::kinds::envoy_filter::EnvoyConfigObjectMatch,
    at: &Path<'_>,
    out: &mut Problems,
) {
    use ApplyTo::{Cluster, FilterChain, HttpFilter, HttpRoute, Listener, ListenerFilter, NetworkFilter};
    use ApplyTo::{RouteConfiguration, VirtualHost};
    let listener = matches!(apply_to, Listener | FilterChain | NetworkFilter | HttpFilter | ListenerFilter);
    let route = matches!(apply_to, RouteConfiguration | VirtualHost | HttpRoute);
    let elsewhere = condition.route_configuration.is_some() || condition.cluster.is_some();
    let message = "Envoy filter: applyTo for listener class objects cannot have non listener match";
    out.error_if(listener && elsewhere, at, message);
    let elsewhere = condition.listener.is_some() || condition.cluster.is_some();
    let message =
        "Envoy filter: applyTo for http route class objects cannot have non route configuration match";
    out.error_if(route && elsewhere, at, message);
    let elsewhere = condition.listener.is_some() || condition.route_configuration.is_some();
    let message = "Envoy filter: applyTo for cluster class objects cannot have non cluster match";
    out.error_if(apply_to == Cluster && elsewhere, at, message);
    let filter = condition.listener.as_ref().and_then(|listener| listener.filter_chain.as_ref());
    if let Some(filter) = filter.and_then(|chain| chain.filter.as_ref()) {
        let names = matches!(apply_to, NetworkFilter | HttpFilter);
        out.error_if(!names, at, "Envoy filter: filter match has no effect when used with this applyTo");
        let inner = filter.sub_filter.is_some() && apply_to != HttpFilter;
        let message = "Envoy filter: subfilter match has no effect when used with this applyTo";
        out.error_if(inner, at, message);
        let nameless = filter.name.is_empty() && filter.sub_filter.is_some();
        out.error_if(nameless, at, "Envoy filter: filter match with subfilter needs the filter's name");
    }
}
