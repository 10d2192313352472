//! Telemetry objects and mesh configuration to access logs and tracing.

use std::collections::BTreeSet;

use lateen_api::kinds::Telemetry;
use lateen_api::kinds::telemetry::{AccessLogging, CustomTag, WorkloadMode};
use lateen_api::mesh::config::AccessLogEncoding;
use lateen_api::mesh::providers::{ExtensionProvider, FileLogFormat};
use lateen_api::mesh::proxy::{MeshCustomTag, MeshProxyConfig};
use lateen_api::{Kind, Object, Spec};
use lateen_base::Host;
use lateen_proto::envoy::config::accesslog::v3::AccessLog;
use lateen_proto::{Struct, Value, value};

use super::access_log::{LogFormat, file_log, filtered};
use super::extensions::TrafficClass;
use super::tracing::{SpanCollector, TracingOptions};
use super::wire::{structure, text};
use crate::names::{self, Direction};
use crate::{Note, Proxy, Snapshot};

/// The share of requests that Istio samples when nobody says, in percent.
const DEFAULT_SAMPLING: f64 = 1.0;
/// The built-in provider that logs to standard output.
const ENVOY_PROVIDER: &str = "envoy";

/// The logs of a traffic class.
pub(crate) fn access_log(
    snapshot: &Snapshot,
    proxy: &Proxy,
    class: TrafficClass,
    notes: &mut Vec<Note>,
) -> Vec<AccessLog> {
    let telemetries = telemetries(snapshot, proxy);
    let deciding = telemetries.iter().rev().find(|(_, spec)| !spec.access_logging.is_empty());
    let Some((object, spec)) = deciding else { return default_logs(snapshot, notes) };
    let mut logs: Vec<(String, Option<&str>)> = Vec::new();
    for entry in spec.access_logging.iter().filter(|entry| meant_for(entry, class)) {
        let given: Vec<String> = entry.providers.iter().map(|provider| provider.name.clone()).collect();
        let named = if given.is_empty() { default_names(snapshot) } else { given };
        for name in named {
            logs.retain(|(known, _)| *known != name);
            if entry.disabled != Some(true) {
                let filter = entry.filter.as_ref().map(|filter| filter.expression.as_str());
                logs.push((name, filter.filter(|expression| !expression.is_empty())));
            }
        }
    }
    logs.iter()
        .filter_map(|(name, filter)| {
            let log = provider_log(snapshot, name);
            if log.is_none() {
                let text =
                    format!("access log provider {name:?} is unknown, or of a kind that is not supported");
                notes.push(Note::on(&object.reference(), text));
            }
            Some(filtered(log?, *filter))
        })
        .collect()
}

fn meant_for(entry: &AccessLogging, class: TrafficClass) -> bool {
    let mode = entry.r#match.as_ref().map(|wanted| wanted.mode).unwrap_or_default();
    side_is(mode, class)
}

fn side_is(mode: WorkloadMode, class: TrafficClass) -> bool {
    match mode {
        WorkloadMode::ClientAndServer => true,
        WorkloadMode::Server => class == TrafficClass::Inbound,
        WorkloadMode::Client => class != TrafficClass::Inbound,
    }
}

/// The Telemetry objects for a proxy, the one that counts most last: root namespace, namespace, workload.
fn telemetries(
    snapshot: &Snapshot,
    proxy: &Proxy,
) -> Vec<(std::sync::Arc<Object>, std::sync::Arc<Telemetry>)> {
    let mut all: Vec<_> = snapshot
        .applicable(Kind::Telemetry, proxy)
        .into_iter()
        .filter_map(|object| match &object.spec {
            Spec::Telemetry(spec) => Some((object.clone(), spec.clone())),
            _ => None,
        })
        .collect();
    all.sort_by_key(|(object, spec)| {
        let own = object.namespace == proxy.namespace;
        let attached = spec.target_ref.is_some() || !spec.target_refs.is_empty();
        (own, own && (spec.selector.is_some() || attached))
    });
    all
}

fn default_names(snapshot: &Snapshot) -> Vec<String> {
    let given = snapshot.mesh.default_providers.as_ref().map(|providers| &providers.access_logging);
    match given {
        Some(names) if !names.is_empty() => names.clone(),
        _ => vec![ENVOY_PROVIDER.to_owned()],
    }
}

/// The logs where no Telemetry speaks: the mesh's file, else the default providers.
fn default_logs(snapshot: &Snapshot, notes: &mut Vec<Note>) -> Vec<AccessLog> {
    let mesh = &snapshot.mesh;
    let mut logs = Vec::new();
    if !mesh.access_log_file.is_empty() {
        logs.push(file_log(&mesh.access_log_file, mesh_format(snapshot)));
    }
    let names = mesh.default_providers.iter().flat_map(|providers| &providers.access_logging);
    for name in names {
        match provider_log(snapshot, name) {
            Some(log) => logs.push(log),
            None => notes.push(Note {
                text: format!("mesh configuration: access log provider {name:?} is unknown or not supported"),
                object: None,
            }),
        }
    }
    logs
}

fn mesh_format(snapshot: &Snapshot) -> LogFormat {
    let mesh = &snapshot.mesh;
    match (mesh.access_log_encoding, mesh.access_log_format.as_str()) {
        (AccessLogEncoding::Text, "") => LogFormat::istio_text(),
        (AccessLogEncoding::Text, format) => LogFormat::text(format),
        (AccessLogEncoding::Json, "") => LogFormat::istio_json(),
        (AccessLogEncoding::Json, format) => match serde_json::from_str(format) {
            Ok(serde_json::Value::Object(fields)) => LogFormat::Json(to_struct(&fields)),
            _ => LogFormat::istio_json(),
        },
    }
}

fn provider<'a>(snapshot: &'a Snapshot, name: &str) -> Option<&'a ExtensionProvider> {
    snapshot.mesh.extension_providers.iter().find(|provider| provider.name == name)
}

fn provider_log(snapshot: &Snapshot, name: &str) -> Option<AccessLog> {
    let Some(given) = provider(snapshot, name) else {
        return (name == ENVOY_PROVIDER).then(|| file_log("/dev/stdout", mesh_format(snapshot)));
    };
    let file = given.envoy_file_access_log.as_ref()?;
    let format = match &file.log_format {
        Some(FileLogFormat::Text(format)) if !format.is_empty() => LogFormat::text(format),
        Some(FileLogFormat::Labels(fields)) if !fields.is_empty() => LogFormat::Json(to_struct(fields)),
        Some(FileLogFormat::Labels(_)) => LogFormat::istio_json(),
        _ => LogFormat::istio_text(),
    };
    let path = if file.path.is_empty() { "/dev/stdout" } else { &file.path };
    Some(file_log(path, format))
}

fn to_struct(fields: &serde_json::Map<String, serde_json::Value>) -> Struct {
    structure(fields.iter().map(|(key, value)| (key.as_str(), to_value(value))))
}

fn to_value(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::String(word) => text(word.as_str()),
        serde_json::Value::Object(fields) => {
            Value { kind: Some(value::Kind::StructValue(to_struct(fields))) }
        }
        serde_json::Value::Array(list) => Value::from(list.iter().map(to_value).collect::<Vec<_>>()),
        serde_json::Value::Bool(flag) => Value::from(*flag),
        serde_json::Value::Number(number) => Value::from(number.as_f64().unwrap_or_default()),
        serde_json::Value::Null => Value { kind: None },
    }
}

/// Tracing of a traffic class; none when the mesh has turned it off.
pub(crate) fn tracing(
    snapshot: &Snapshot,
    proxy: &Proxy,
    config: &MeshProxyConfig,
    class: TrafficClass,
    notes: &mut Vec<Note>,
) -> Option<TracingOptions> {
    if !snapshot.mesh.enable_tracing {
        return None;
    }
    let own = config.tracing.as_ref();
    let sampling = own.map(|tracing| tracing.sampling).filter(|share| *share > 0.0);
    let mut options = TracingOptions {
        sampling: sampling.unwrap_or(DEFAULT_SAMPLING),
        collector: SpanCollector::Bootstrap,
        max_path_length: own.map(|tracing| tracing.max_path_tag_length).filter(|length| *length > 0),
        literal_tags: canonical_tags(proxy),
        header_tags: Vec::new(),
        environment_tags: Vec::new(),
    };
    for (tag, value) in own.into_iter().flat_map(|tracing| &tracing.custom_tags) {
        match value {
            MeshCustomTag::Literal(given) => options.literal_tags.push((tag.clone(), given.value.clone())),
            MeshCustomTag::Header(given) => {
                options.header_tags.push((tag.clone(), given.name.clone(), given.default_value.clone()));
            }
            MeshCustomTag::Environment(given) => {
                options.environment_tags.push((tag.clone(), given.name.clone(), given.default_value.clone()));
            }
            MeshCustomTag::Unset => {}
        }
    }
    let mut provider_name = default_tracer(snapshot);
    for (_, spec) in telemetries(snapshot, proxy) {
        let entries = spec.tracing.iter().filter(|entry| {
            side_is(entry.r#match.as_ref().map(|wanted| wanted.mode).unwrap_or_default(), class)
        });
        for entry in entries {
            options.sampling = entry.random_sampling_percentage.unwrap_or(options.sampling);
            if entry.disable_span_reporting == Some(true) {
                options.sampling = 0.0;
            }
            provider_name = entry.providers.first().map(|p| p.name.clone()).or(provider_name);
            add_tags(&mut options, entry.custom_tags.iter());
        }
    }
    if let Some(name) = provider_name {
        match collector(snapshot, proxy, &name) {
            Some(found) => options.collector = found,
            None => notes.push(Note {
                text: format!(
                    "tracing provider {name:?} is unknown, not supported, or its service is not there"
                ),
                object: None,
            }),
        }
    }
    Some(options)
}

fn default_tracer(snapshot: &Snapshot) -> Option<String> {
    snapshot.mesh.default_providers.as_ref()?.tracing.first().cloned()
}

fn add_tags<'a>(options: &mut TracingOptions, tags: impl Iterator<Item = (&'a String, &'a CustomTag)>) {
    for (tag, value) in tags {
        match value {
            CustomTag::Literal(given) => options.literal_tags.push((tag.clone(), given.value.clone())),
            CustomTag::Header(given) => {
                options.header_tags.push((tag.clone(), given.name.clone(), given.default_value.clone()));
            }
            CustomTag::Environment(given) => {
                options.environment_tags.push((tag.clone(), given.name.clone(), given.default_value.clone()));
            }
            CustomTag::Formatter(_) | CustomTag::Unset => {}
        }
    }
}

/// Istio's own tags: which service this is.
fn canonical_tags(proxy: &Proxy) -> Vec<(String, String)> {
    let label = |keys: &[&str]| keys.iter().find_map(|key| proxy.labels.value(key)).map(str::to_owned);
    let service = label(&["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"]);
    let revision = label(&["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"]);
    [
        ("istio.canonical_service", service),
        ("istio.canonical_revision", revision.or_else(|| Some("latest".into()))),
        ("istio.namespace", Some(proxy.namespace.to_string())),
        ("istio.cluster_id", Some(proxy.metadata.cluster.to_string())),
    ]
    .into_iter()
    .filter_map(|(tag, value)| Some((tag.to_owned(), value.filter(|value| !value.is_empty())?)))
    .collect()
}

fn collector(snapshot: &Snapshot, proxy: &Proxy, name: &str) -> Option<SpanCollector> {
    let given = provider(snapshot, name)?;
    if let Some(zipkin) = &given.zipkin {
        let (cluster, hostname) = service_cluster(snapshot, &zipkin.service, zipkin.port)?;
        let path = if zipkin.path.is_empty() { "/api/v2/spans" } else { &zipkin.path };
        return Some(SpanCollector::Zipkin {
            cluster,
            hostname,
            path: path.to_owned(),
            short_ids: zipkin.enable_64bit_trace_id,
        });
    }
    let otel = given.opentelemetry.as_ref().filter(|otel| otel.http.is_none())?;
    let (cluster, hostname) = service_cluster(snapshot, &otel.service, otel.port)?;
    let workload = match proxy.metadata.workload.as_str() {
        "" => "istio-proxy",
        workload => workload,
    };
    let service = format!("{workload}.{}", proxy.namespace);
    Some(SpanCollector::OpenTelemetry { cluster, hostname, service })
}

/// The cluster of a provider's service, written as `NAMESPACE/HOST` or `HOST`. Envoy refuses a connection manager whose collector
/// it does not know, so the service has to be there.
fn service_cluster(snapshot: &Snapshot, service: &str, port: u32) -> Option<(String, String)> {
    let host = Host::new(service.rsplit('/').next().unwrap_or_default());
    let port = u16::try_from(port).ok()?;
    let known: BTreeSet<u16> = snapshot
        .services
        .of_host(&host)?
        .values()
        .flat_map(|service| service.ports.iter().map(|port| port.number))
        .collect();
    known.contains(&port).then(|| (names::cluster(Direction::Outbound, port, "", &host), host.to_string()))
}
