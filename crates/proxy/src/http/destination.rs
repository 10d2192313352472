//! Which host a request goes to.

use std::net::SocketAddr;

use http::HeaderValue;
use lateen_route::cluster::Discovery;
use lateen_route::routes::{HashCookie, HashPolicy};

use super::exchange::Exchange;
use super::router::Plan;
use crate::failure::Failure;
use crate::upstream::cluster::{Choice, Cluster, Picked, host_of};
use crate::upstream::host::Address;

/// Where not to go again.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Avoid<'a> {
    /// Hosts that were tried.
    pub hosts: &'a [u64],
    /// How often another one is looked for.
    pub tries: u32,
    /// Priorities that were tried.
    pub priorities: &'a [usize],
}

/// Works out what the balancer's hash of the request is; makes the cookie for it where that is asked for.
pub(crate) fn hash(exchange: &mut Exchange, plan: &Plan<'_>) {
    let policies = &plan.forward.hash_policies;
    if policies.is_empty() {
        return;
    }
    let mut cookies = smallvec::SmallVec::new();
    let down = &exchange.down;
    let mut make = |rules: &HashCookie| {
        // The same for all requests of a connection, so that those that race get the same one.
        let text = format!("{}{}", down.remote, down.local);
        let value = format!("{:016x}", xxhash_rust::xxh64::xxh64(text.as_bytes(), 0));
        cookies.push(HeaderValue::from_str(&rules.header(&value)).ok()?);
        Some(value)
    };
    let hash = down.with_view(|connection| {
        HashPolicy::all(policies, &exchange.head.view(connection, exchange.remote), &mut make)
    });
    exchange.hash = hash;
    exchange.new_cookies = cookies;
}

/// Picks a host of the plan's cluster.
///
/// # Errors
/// When there is none.
pub(crate) async fn host(exchange: &Exchange, plan: &Plan<'_>, avoid: Avoid<'_>) -> Result<Picked, Failure> {
    let cluster = &plan.cluster;
    match &cluster.compiled.discovery {
        Discovery::OriginalDst { header, port } => {
            let named =
                header.as_ref().and_then(|name| exchange.head.headers.get(name)?.to_str().ok()?.parse().ok());
            let address: SocketAddr = named.or(exchange.down.original()).ok_or(Failure::NoHealthyUpstream)?;
            found(cluster, SocketAddr::new(address.ip(), port.unwrap_or(address.port())))
        }
        Discovery::DynamicForwardProxy(_) => {
            let picked = Box::pin(resolve(cluster, exchange.head.authority(), exchange.head.scheme)).await?;
            if is_ourselves(exchange, &picked) { Err(Failure::NoHealthyUpstream) } else { Ok(picked) }
        }
        _ => {
            let entropy = if avoid.hosts.is_empty() { exchange.entropy } else { exchange.worker.entropy() };
            let choice = Choice {
                entropy,
                turn: exchange.worker.turn(cluster),
                hash: exchange.hash,
                avoid: avoid.hosts,
                tries: avoid.tries,
                without: avoid.priorities,
            };
            cluster.pick(choice).ok_or_else(|| {
                cluster.stats.upstream_cx_none_healthy.inc();
                Failure::NoHealthyUpstream
            })
        }
    }
}

/// Whether a request would come back to the listener that took it, again and again until no socket is left. Where a
/// connection was redirected, its address is where it was going, and that is another place.
fn is_ourselves(exchange: &Exchange, picked: &Picked) -> bool {
    exchange.down.original().is_none() && picked.host.address == Address::Socket(exchange.down.local)
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
async fn resolve(cluster: &Cluster, authority: &str, scheme: &str) -> Result<Picked, Failure> {
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
