//! The debug API, readiness and metrics.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use lateen_status as status;
use lateen_translate::Scoping;
use lateen_xds::server::{Dialect, TypeStatus};
use lateen_xds::types;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::watch;

use crate::dump;
use crate::engine::Published;
use crate::gate::Gate;
use crate::input::Watched;
use crate::metrics::Metrics;
use crate::proxies::{Connected, Proxies};
use crate::settings::Settings;

/// What the handlers read.
#[derive(Clone)]
pub(crate) struct Debug {
    pub(crate) settings: Arc<Settings>,
    pub(crate) proxies: Proxies,
    pub(crate) published: watch::Receiver<Option<Arc<Published>>>,
    pub(crate) unlisted: watch::Receiver<BTreeSet<Watched>>,
    pub(crate) authority: watch::Receiver<Option<status::Authority>>,
    pub(crate) metrics: Metrics,
}

/// The routes, of which those of `/debug` are behind the gate.
pub(crate) fn router(debug: Debug, gate: Gate) -> Router {
    let open = Router::new()
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/version", get(version))
        .with_state(debug.clone());
    open.merge(gate.before(for_operators(debug)))
}

fn for_operators(debug: Debug) -> Router {
    Router::new()
        .route("/debug/syncz", get(syncz))
        .route("/debug/connections", get(connections))
        .route("/debug/adsz", get(connections))
        .route("/debug/configz", get(configz))
        .route("/debug/mesh", get(mesh))
        .route("/debug/registryz", get(registryz))
        .route("/debug/endpointz", get(endpointz))
        .route("/debug/config_dump", get(config_dump))
        .route("/debug/ca", get(ca))
        .with_state(debug)
}

async fn ready(State(debug): State<Debug>) -> Response {
    match debug.published.borrow().is_some() {
        true => StatusCode::OK.into_response(),
        false => {
            let missing: Vec<String> =
                debug.unlisted.borrow().iter().map(|kind| kind.resource().plural).collect();
            let text = format!("the cluster is not read yet; not listed: {}\n", missing.join(", "));
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
    }
}

async fn metrics(State(debug): State<Debug>) -> Response {
    if let Some(published) = debug.published.borrow().as_ref() {
        let services = i64::try_from(published.snapshot.view.services.len());
        debug.metrics.services.set(services.unwrap_or(i64::MAX));
    }
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(http::header::CONTENT_TYPE, kind)], debug.metrics.text()).into_response()
}

async fn version(State(debug): State<Debug>) -> Json<status::Version> {
    Json(status::Version {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision: debug.settings.revision.clone(),
        pod: debug.settings.pod.clone(),
    })
}

async fn syncz(State(debug): State<Debug>) -> Json<Vec<status::ProxySync>> {
    Json(debug.proxies.list().iter().map(|connected| sync_of(connected, &debug.settings)).collect())
}

fn sync_of(connected: &Connected, settings: &Settings) -> status::ProxySync {
    let types = connected.status.lock().unwrap_or_else(PoisonError::into_inner);
    status::ProxySync {
        proxy: connected.proxy.id.clone(),
        proxy_type: connected.proxy.kind.as_str().to_owned(),
        cluster_id: connected.proxy.metadata.cluster.to_string(),
        istio_version: connected.proxy.metadata.istio_version.clone(),
        istiod: settings.pod.clone(),
        dialect: match connected.dialect {
            Dialect::Delta => "delta".to_owned(),
            Dialect::StateOfTheWorld => "sotw".to_owned(),
        },
        connected_at: rfc3339(connected.since),
        types: types.iter().map(|t| (types::short_name(&t.type_url).to_owned(), type_sync(t))).collect(),
        scoping: scoping_of(connected),
    }
}

/// What a proxy loads on demand; nothing where nobody asked for that.
fn scoping_of(connected: &Connected) -> Option<status::Scoping> {
    use lateen_xds::Catalog as _;
    let catalog = connected.catalog();
    let obstacle = match &catalog.scoping {
        Scoping::Off => return None,
        Scoping::Automatic => String::new(),
        Scoping::Unavailable(obstacle) => obstacle.clone(),
    };
    let (clusters, at_start) = catalog.clusters();
    let asked = connected.asked.lock().unwrap_or_else(PoisonError::into_inner);
    let (loaded, missing): (Vec<_>, Vec<_>) =
        asked.iter().map(ToString::to_string).partition(|name| catalog.contains(types::CLUSTER, name));
    Some(status::Scoping { obstacle, clusters, at_start, loaded, missing })
}

fn type_sync(of: &TypeStatus) -> status::TypeSync {
    status::TypeSync {
        state: match of {
            of if !of.rejected.is_empty() => status::SyncState::Error,
            of if of.sent_nonce.is_empty() => status::SyncState::NotSent,
            of if of.outstanding => status::SyncState::Stale,
            _ => status::SyncState::Synced,
        },
        sent: of.sent_nonce.clone(),
        acked: of.acked_nonce.clone(),
        resources: of.held,
        rejected: of
            .rejected
            .iter()
            .map(|r| status::Rejected { resource: r.resource.to_string(), reason: r.reason.clone() })
            .collect(),
    }
}

async fn connections(State(debug): State<Debug>) -> Json<status::Connections> {
    let clients: Vec<status::Connection> = debug
        .proxies
        .list()
        .iter()
        .map(|connected| status::Connection {
            connection_id: connected.node.clone(),
            connected_at: rfc3339(connected.since),
            address: connected.address.clone(),
        })
        .collect();
    Json(status::Connections { total_clients: clients.len(), clients })
}

async fn configz(State(debug): State<Debug>) -> Json<Vec<status::Config>> {
    let Some(published) = debug.published.borrow().clone() else { return Json(vec![]) };
    let mut configs = BTreeMap::new();
    for object in published.snapshot.view.configs.iter() {
        configs.insert(
            object.reference(),
            status::Config {
                kind: object.kind.name().to_owned(),
                namespace: object.namespace.to_string(),
                name: object.name.clone(),
                resource_version: object.resource_version.clone(),
                rejected: String::new(),
                spec: object.spec.write(),
            },
        );
    }
    for (reference, reason) in published.rejected.iter() {
        let config = configs.entry(reference.clone()).or_insert_with(|| status::Config {
            kind: reference.kind.clone(),
            namespace: reference.namespace.to_string(),
            name: reference.name.clone(),
            resource_version: String::new(),
            rejected: String::new(),
            spec: Value::Null,
        });
        config.rejected = reason.clone();
    }
    Json(configs.into_values().collect())
}

/// The mesh configuration in use, and what of the ConfigMaps is not used.
async fn mesh(State(debug): State<Debug>) -> Json<Value> {
    let Some(published) = debug.published.borrow().clone() else { return Json(Value::Null) };
    let (mesh, networks) = published.mesh.written();
    let refused = published.mesh.refused(&debug.settings).into_iter();
    let refused: BTreeMap<String, String> = refused.map(|(map, why)| (map.to_string(), why)).collect();
    Json(json!({ "mesh": mesh, "meshNetworks": networks, "refused": refused }))
}

/// The authority in use; no keys.
async fn ca(State(debug): State<Debug>) -> Json<Option<status::Authority>> {
    Json(debug.authority.borrow().clone())
}

async fn registryz(State(debug): State<Debug>) -> Json<Vec<status::RegistryService>> {
    let Some(published) = debug.published.borrow().clone() else { return Json(vec![]) };
    let services = published.snapshot.view.services.values();
    Json(
        services
            .map(|service| status::RegistryService {
                hostname: service.host.to_string(),
                namespace: service.namespace.to_string(),
                registry: service.source.as_str().to_owned(),
                addresses: service.addresses.values().flatten().cloned().collect(),
                ports: service
                    .ports
                    .iter()
                    .map(|port| status::RegistryPort {
                        name: port.name.clone(),
                        port: port.number,
                        protocol: format!("{:?}", port.protocol),
                    })
                    .collect(),
            })
            .collect(),
    )
}

async fn endpointz(State(debug): State<Debug>) -> Json<Vec<status::ServiceEndpoints>> {
    let Some(published) = debug.published.borrow().clone() else { return Json(vec![]) };
    let sets = published.snapshot.view.endpoints.iter();
    Json(
        sets.map(|((host, namespace), set)| status::ServiceEndpoints {
            service: host.to_string(),
            namespace: namespace.to_string(),
            endpoints: set
                .endpoints
                .iter()
                .map(|endpoint| status::EndpointInfo {
                    address: format!("{:?}:{}", endpoint.address, endpoint.port),
                    port: endpoint.service_port.clone(),
                    cluster: endpoint.cluster.to_string(),
                    network: endpoint.network.to_string(),
                    locality: endpoint.locality.to_string(),
                    health: format!("{:?}", endpoint.health),
                    identity: endpoint.service_account.clone(),
                })
                .collect(),
        })
        .collect(),
    )
}

async fn config_dump(State(debug): State<Debug>, Query(query): Query<HashMap<String, String>>) -> Response {
    let Some(id) = query.get("proxyID") else {
        return (StatusCode::BAD_REQUEST, "say which proxy: ?proxyID=POD.NAMESPACE\n").into_response();
    };
    let Some(connected) = debug.proxies.list().into_iter().find(|c| c.proxy.id == *id) else {
        let text = format!("no proxy {id} is connected to this control plane\n");
        return (StatusCode::NOT_FOUND, text).into_response();
    };
    // Reflection over all resources takes a while.
    let dumped = tokio::task::spawn_blocking(move || {
        let asked = connected.asked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        dump::of(&connected.catalog(), &asked)
    });
    let dumped = dumped.await;
    match dumped {
        Ok(Ok(configs)) => Json(json!({ "configs": configs })).into_response(),
        Ok(Err(reason)) => (StatusCode::INTERNAL_SERVER_ERROR, reason).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn rfc3339(time: SystemTime) -> String {
    OffsetDateTime::from(time).format(&Rfc3339).unwrap_or_default()
}
