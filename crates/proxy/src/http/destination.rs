//! Which host a request goes to.

use std::net::SocketAddr;

use lateen_route::cluster::Discovery;

use super::exchange::Exchange;
use super::router::Plan;
use crate::failure::Failure;
use crate::upstream::cluster::{Cluster, Picked, host_of};

/// Picks a host of the plan's cluster.
///
/// # Errors
/// When there is none.
pub(crate) async fn host(
    exchange: &Exchange,
    plan: &Plan<'_>,
    avoid: &[u64],
    tries: u32,
) -> Result<Picked, Failure> {
    let cluster = &plan.cluster;
    match &cluster.compiled.discovery {
        Discovery::OriginalDst { header, port } => {
            let named =
                header.as_ref().and_then(|name| exchange.head.headers.get(name)?.to_str().ok()?.parse().ok());
            let address: SocketAddr = named.or(exchange.down.original()).ok_or(Failure::NoHealthyUpstream)?;
            found(cluster, SocketAddr::new(address.ip(), port.unwrap_or(address.port())))
        }
        Discovery::DynamicForwardProxy(_) => {
            Box::pin(resolve(cluster, exchange.head.authority(), exchange.head.scheme)).await
        }
        _ => {
            let hash = if plan.forward.hash_policies.is_empty() {
                None
            } else {
                exchange.down.with_view(|connection| {
                    plan.forward.hash(&exchange.head.view(connection, exchange.remote))
                })
            };
            let entropy = if avoid.is_empty() { exchange.entropy } else { exchange.worker.entropy() };
            let turn = exchange.worker.turn(cluster);
            cluster.pick(entropy, turn, hash, avoid, tries).ok_or_else(|| {
                cluster.stats.upstream_cx_none_healthy.inc();
                Failure::NoHealthyUpstream
            })
        }
    }
}

fn found(cluster: &Cluster, address: SocketAddr) -> Result<Picked, Failure> {
    if address.port() == 0 || address.ip().is_unspecified() {
        return Err(Failure::NoHealthyUpstream);
    }
    cluster.found_host(address, "").ok_or(Failure::NoHealthyUpstream)
}

/// Looks up the request's host.
///
/// # Errors
/// When it has no address.
pub(crate) async fn resolve(cluster: &Cluster, authority: &str, scheme: &str) -> Result<Picked, Failure> {
    let name = host_of(authority);
    let default = if scheme == "https" { 443 } else { 80 };
    let port = authority[name.len()..].trim_start_matches([']', ':']).parse().unwrap_or(default);
    let ip = match name.parse() {
        Ok(ip) => ip,
        Err(_) => {
            let resolver = cluster.resolver.as_ref().ok_or(Failure::Unresolved)?;
            let answer = resolver.lookup(name).await.map_err(|_| Failure::Unresolved)?;
            *answer.addresses.first().ok_or(Failure::Unresolved)?
        }
    };
    cluster.found_host(SocketAddr::new(ip, port), name).ok_or(Failure::NoHealthyUpstream)
}
