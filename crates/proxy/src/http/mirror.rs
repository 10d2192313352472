//! Copies of requests for other clusters, whose answers nobody waits for.

use std::sync::Arc;

use http_body::Body as _;

use super::body::{RequestBody, UpstreamBody};
use super::exchange::{Active, Exchange};
use super::router::Plan;
use super::send;
use crate::upstream::cluster::{Caller, Choice, Cluster};
use crate::upstream::pool::Lease;

/// A copy to be made.
#[derive(Debug)]
pub(crate) struct Target {
    cluster: Arc<Cluster>,
    shadow: bool,
}

/// The copies that this request is due.
pub(crate) fn wanted(exchange: &Exchange, plan: &Plan<'_>) -> Vec<Target> {
    if plan.forward.mirrors.is_empty() {
        return Vec::new();
    }
    let snapshot = exchange.worker.shared.snapshot.load();
    let hit = plan
        .forward
        .mirrors
        .iter()
        .enumerate()
        .filter(|(index, mirror)| mirror.hits(*index, exchange.entropy));
    hit.filter_map(|(_, mirror)| {
        let named = mirror.cluster_header.as_ref();
        let named = named.and_then(|name| exchange.head.headers.get(name)?.to_str().ok());
        let cluster = snapshot.cluster(mirror.cluster.as_deref().or(named)?)?.clone();
        Some(Target { cluster, shadow: mirror.append_shadow_to_host })
    })
    .collect()
}

/// Sends a copy in a task of its own.
pub(crate) fn start(exchange: &Exchange, plan: &Plan<'_>, target: Target, body: RequestBody) {
    let cluster = target.cluster;
    let limits = cluster.limits[0].clone();
    let worker = exchange.worker.clone();
    let Some(permit) = limits.requests.acquire() else { return };
    let choice = Choice {
        entropy: worker.entropy(),
        turn: worker.turn(&cluster),
        hash: exchange.hash,
        ..Choice::default()
    };
    let Some(picked) = cluster.pick(choice) else { return };
    let authority = match target.shadow {
        false => exchange.head.authority().to_owned(),
        true => shadow(exchange.head.authority()),
    };
    let protocol = cluster.protocol(exchange.head.version, &picked.way);
    let caller = Caller { authority: &authority, ..exchange.caller(None) };
    let Some(pool) = cluster.pool(&worker, &picked, protocol, 0, caller) else { return };
    let mut request = super::rewrite::head_for_copy(exchange, plan, &authority);
    tokio::task::spawn_local(async move {
        let _active = Active::new(picked.host.clone(), cluster.clone(), permit);
        let Ok(mut lease) = pool.lease().await else { return };
        if let Lease::Http1(_) = lease {
            super::rewrite::as_http1(&mut request);
        }
        if let Ok(response) = send::send(&mut lease, request.map(|()| body)).await {
            cluster.stats.count_status(response.status().as_u16());
            if drain(response.into_body()).await
                && let Lease::Http1(connection) = lease
            {
                pool.give_back(connection);
            }
        }
    });
}

/// Reads a body to its end; false when it broke off.
async fn drain(mut body: UpstreamBody) -> bool {
    while !body.is_end_stream() {
        match std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await {
            Some(Ok(_)) => {}
            Some(Err(_)) => return false,
            None => return true,
        }
    }
    true
}

/// `host:port` becomes `host-shadow:port`.
fn shadow(authority: &str) -> String {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => format!("{host}-shadow:{port}"),
        _ => format!("{authority}-shadow"),
    }
}
