//! Extension providers of the mesh configuration.

use super::Problems;
use super::names;
use super::path::Path;
use crate::mesh::providers::{ExtAuthzHttpProvider, ExtensionProvider};

/// What the providers are: each of its own name, and exactly one thing.
pub(super) fn check(providers: &[ExtensionProvider], at: &Path<'_>, out: &mut Problems) {
    for (i, provider) in providers.iter().enumerate() {
        let at = &at.item(i);
        out.error_if(provider.name.is_empty(), &at.field("name"), "empty extension provider name");
        let twice = providers[..i].iter().any(|other| other.name == provider.name);
        out.error_if(
            twice,
            &at.field("name"),
            format!("duplicate extension provider name {}", provider.name),
        );
        one(provider, at, out);
    }
}

fn one(provider: &ExtensionProvider, at: &Path<'_>, out: &mut Problems) {
    let nothing = ExtensionProvider { name: provider.name.clone(), ..Default::default() } == *provider;
    out.error_if(nothing, at, format!("unsupported provider: {} names no type", provider.name));
    for (field, service, port) in services(provider) {
        let at = &at.field(field);
        out.check(&at.field("service"), service_name(service));
        out.check(&at.field("port"), names::port(port.into()));
    }
    if let Some(http) = &provider.envoy_ext_authz_http {
        ext_authz_http(http, &at.field("envoyExtAuthzHttp"), out);
    }
    if let Some(grpc) = &provider.envoy_ext_authz_grpc {
        let at = &at.field("envoyExtAuthzGrpc");
        out.check(&at.field("statusOnError"), status_on_error(&grpc.status_on_error));
        names::maybe_duration(grpc.timeout, &at.field("timeout"), out);
    }
    if let Some(lightstep) = &provider.lightstep {
        let missing = lightstep.access_token.is_empty();
        out.error_if(missing, &at.field("lightstep").field("accessToken"), "access token is required");
    }
    if let Some(telemetry) = &provider.opentelemetry {
        let at = &at.field("opentelemetry");
        if let Some(http) = &telemetry.http {
            let at = &at.field("http");
            out.error_if(http.path.is_empty(), &at.field("path"), "path is required");
            names::maybe_duration(http.timeout, &at.field("timeout"), out);
        }
    }
}

fn services(provider: &ExtensionProvider) -> Vec<(&'static str, &str, u32)> {
    let mut services = Vec::new();
    macro_rules! service {
        ($($field:ident $name:literal),*) => {
            $( if let Some(p) = &provider.$field { services.push(($name, p.service.as_str(), p.port)); } )*
        };
    }
    service!(
        envoy_ext_authz_http "envoyExtAuthzHttp", envoy_ext_authz_grpc "envoyExtAuthzGrpc", zipkin "zipkin",
        lightstep "lightstep", datadog "datadog", opencensus "opencensus", skywalking "skywalking",
        opentelemetry "opentelemetry", envoy_http_als "envoyHttpAls", envoy_tcp_als "envoyTcpAls",
        envoy_otel_als "envoyOtelAls", sds "sds"
    );
    services
}

/// A service, as `namespace/host` or `host`.
fn service_name(service: &str) -> Result<(), String> {
    if service.is_empty() {
        return Err("service must not be empty".to_owned());
    }
    let parts: Vec<&str> = service.split('/').collect();
    match parts[..] {
        [host] => names::fqdn(host),
        [namespace, host] => names::dns_label(namespace).and_then(|()| names::fqdn(host)),
        _ => Err(format!("service {service:?} must be of the form [<namespace>/]<hostname>")),
    }
}

fn status_on_error(status: &str) -> Result<(), String> {
    match status.parse::<i64>() {
        _ if status.is_empty() => Ok(()),
        Ok(status) => names::http_status(status),
        Err(_) => Err(format!("invalid statusOnError value {status}")),
    }
}

fn ext_authz_http(http: &ExtAuthzHttpProvider, at: &Path<'_>, out: &mut Problems) {
    out.check(&at.field("statusOnError"), status_on_error(&http.status_on_error));
    names::maybe_duration(http.timeout, &at.field("timeout"), out);
    let relative = !http.path_prefix.is_empty() && !http.path_prefix.starts_with('/');
    out.error_if(relative, &at.field("pathPrefix"), "pathPrefix should begin with `/`");
    for (field, list) in [
        ("includeHeadersInCheck", &http.include_headers_in_check),
        ("includeRequestHeadersInCheck", &http.include_request_headers_in_check),
        ("headersToUpstreamOnAllow", &http.headers_to_upstream_on_allow),
        ("headersToDownstreamOnDeny", &http.headers_to_downstream_on_deny),
        ("headersToDownstreamOnAllow", &http.headers_to_downstream_on_allow),
    ] {
        for (i, pattern) in list.iter().enumerate() {
            let inner = pattern.trim_start_matches('*').trim_end_matches('*');
            let good = !inner.is_empty() && !inner.contains('*');
            let message =
                format!("{pattern:?}: only exact, prefix (`abc*`) and suffix (`*abc`) are supported");
            out.error_if(!good, &at.field(field).item(i), message);
        }
    }
}
