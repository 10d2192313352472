//! Listeners and routes against the corpora: our own judge (`lateen-route`) says where calls go, stock Envoy whether it
//! takes what we make.
#![allow(clippy::unwrap_used)]

#[path = "corpora/authorization.rs"]
mod authorization;
#[path = "corpora/bad_input.rs"]
mod bad_input;
#[path = "corpora/clusters.rs"]
mod clusters;
#[path = "corpora/endpoints.rs"]
mod endpoints;
#[path = "corpora/envoy_filters.rs"]
mod envoy_filters;
#[path = "corpora/features.rs"]
mod features;
#[path = "corpora/gateways_and_routes.rs"]
mod gateways_and_routes;
#[path = "corpora/incremental.rs"]
mod incremental;
#[path = "corpora/mesh.rs"]
mod mesh;
#[path = "corpora/names.rs"]
mod names;
#[path = "corpora/simulation.rs"]
mod simulation;
#[path = "corpora/stock_envoy.rs"]
mod stock_envoy;
#[path = "corpora/traffic_fields.rs"]
mod traffic_fields;
#[path = "corpora/world.rs"]
mod world;
