//! A scenario's configuration for one proxy: its world and objects through `translate`, with listeners that can be reached.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use lateen_api::mesh::{MeshConfig, MeshNetworks};
use lateen_proto::Any;
use lateen_proto::envoy::config::core::v3::address::Address;
use lateen_proto::envoy::config::listener::v3::Listener;
use lateen_registry::manifests::Manifests;
use lateen_translate::{Proxy, Resources, generate, offline};
use serde_json::{Value, json};

use super::authority::Authority;
use super::observe::log_format;
use super::scenario::Scenario;
use super::subject::Subject;
use super::world::Place;
use super::{Problem, tokens};

/// What a proxy is to have.
pub(super) fn translate(
    subject: &Subject,
    scenario: &Scenario,
    place: &Place,
    authority: &Authority,
) -> Result<Resources, Problem> {
    let setting = &scenario.setting;
    let kind = setting.proxy.unwrap_or_default();
    let mesh = json!({
        "accessLogFile": subject.log.display().to_string(),
        "accessLogEncoding": "JSON",
        "accessLogFormat": log_format(),
    });
    let mesh = MeshConfig::istio_default().overlaid(&mesh).map_err(|error| error.to_string())?;
    let over = setting.mesh.clone().unwrap_or(Value::Null);
    let mesh = mesh.overlaid(&over).map_err(|error| format!("mesh: {error}"))?;
    let config = tokens::filled(&place.filled(&scenario.config), setting.tokens())?;
    let config = authority.filled(&config)?;
    let mut manifests = Manifests::default();
    manifests.read("world", &place.manifests(kind, subject.own));
    manifests.read("config", &completed(&config)?);
    let clusters = vec![(offline::CONFIG_CLUSTER.into(), manifests)];
    let (snapshot, warnings) = offline::snapshot(mesh, MeshNetworks::default(), "cluster.local", clusters);
    if !warnings.is_empty() {
        return Err(format!("left out of the configuration: {}", warnings.join("; ")));
    }
    let node = setting.node.clone().unwrap_or_default();
    let proxy =
        Proxy::from_json(&place.proxy(kind, &node, subject.own)).map_err(|error| error.to_string())?;
    Ok(generate(&snapshot, &proxy))
}

/// Binds the listeners of a proxy that no kernel redirects for: those of all addresses at its own, those of a service's
/// address beside it. Returns where connections can be made.
pub(super) fn rebind(resources: &mut Resources, subject: &Subject) -> Result<Vec<SocketAddr>, Problem> {
    let mut out = Vec::new();
    for resource in &mut resources.listeners {
        let mut listener: Listener = resource.any.unpack().map_err(|error| error.to_string())?;
        let address = listener.address.as_mut().and_then(|address| address.address.as_mut());
        let Some(Address::SocketAddress(socket)) = address else { continue };
        let place: Ipv4Addr =
            socket.address.parse().map_err(|_| format!("{}: no IPv4 address", socket.address))?;
        let bound = match place {
            own if own.is_loopback() => own,
            Ipv4Addr::UNSPECIFIED => subject.stands_for(None),
            service => subject.stands_for(Some(service)),
        };
        socket.address = bound.to_string();
        let port = match socket.port_specifier {
            Some(lateen_proto::envoy::config::core::v3::socket_address::PortSpecifier::PortValue(port)) => {
                port
            }
            _ => 0,
        };
        listener.bind_to_port = None;
        out.push(SocketAddr::from((bound, u16::try_from(port).unwrap_or(0))));
        let mut rebound = (**resource).clone();
        rebound.any = Any::pack(&listener);
        *resource = Arc::new(rebound);
    }
    Ok(out)
}

/// Objects with what goes without saying: version by kind, a name by position, the namespace `default`.
fn completed(config: &str) -> Result<String, Problem> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(config).map_err(|error| format!("config: {error}"))?;
    let mut out = String::new();
    for (index, mut document) in documents.into_iter().enumerate() {
        let kind = document["kind"].as_str().unwrap_or_default().to_owned();
        let group = match kind.as_str() {
            "EnvoyFilter" => "networking.istio.io/v1alpha3",
            "AuthorizationPolicy" | "PeerAuthentication" | "RequestAuthentication" => "security.istio.io/v1",
            "Telemetry" => "telemetry.istio.io/v1",
            _ => "networking.istio.io/v1",
        };
        let object = document.as_object_mut().ok_or("config: a document is no object")?;
        object.entry("apiVersion").or_insert_with(|| group.into());
        let meta = object.entry("metadata").or_insert_with(|| json!({}));
        let meta = meta.as_object_mut().ok_or("config: metadata is no object")?;
        meta.entry("name").or_insert_with(|| format!("{}-{index}", kind.to_lowercase()).into());
        meta.entry("namespace").or_insert_with(|| "default".into());
        out.push_str(&format!("---\n{document}\n"));
    }
    Ok(out)
}
