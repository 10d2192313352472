//! TCP proxying: bytes between a client and a host of a cluster.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lateen_route::cluster::Discovery;
use lateen_route::routes::address_hash;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use crate::downstream::Downstream;
use crate::failure::Failure;
use crate::failure::Reset;
use crate::flags::Flags;
use crate::http::exchange::Active;
use crate::listener::{Chain, Tcp};
use crate::log::{self, Record};
use crate::stream::Stream;
use crate::upstream::cluster::{Choice, Cluster, Picked};
use crate::upstream::connect::connect;
use crate::upstream::outlier;
use crate::worker::Worker;

mod bridge;
mod tunnel;

pub(crate) use bridge::{Counts, bridge};
use tunnel::Tunnel;

/// What earlier network filters decided for the proxy.
#[derive(Debug, Default)]
pub(crate) struct TcpRequest {
    /// The cluster, in place of the proxy's own.
    pub cluster: Option<Arc<str>>,
    alpn: Option<String>,
}

impl TcpRequest {
    /// Takes the application protocols to offer upstream, joined by commas.
    pub(crate) fn set_alpn(&mut self, text: &str) {
        self.alpn = Some(text.to_owned()).filter(|text| !text.is_empty());
    }
}

/// Answers and closes.
pub(crate) async fn answer(mut stream: Stream, bytes: bytes::Bytes) {
    // A client that is gone gets no answer.
    if stream.write_all(&bytes).await.is_ok() {
        let _ = stream.shutdown().await;
    }
}

/// What came of a connection, for its log line.
#[derive(Debug, Default)]
struct Outcome {
    flags: Flags,
    details: &'static str,
    failure: Option<Rc<str>>,
    host: Option<Picked>,
    local: Option<String>,
    attempts: u32,
    received: u64,
    sent: u64,
}

/// Forwards a connection until both sides have ended.
pub(crate) async fn forward(
    worker: &Rc<Worker>,
    tcp: &Arc<Tcp>,
    chain: &Arc<Chain>,
    stream: Stream,
    down: Downstream,
    request: TcpRequest,
) {
    let started = Instant::now();
    let started_at = SystemTime::now();
    let entropy = worker.entropy();
    tcp.stats.downstream_cx_total.inc();
    let name = request.cluster.clone().unwrap_or_else(|| tcp.compiled.cluster(entropy).clone());
    let cluster = worker.shared.snapshot.load().cluster(&name).cloned();
    let mut outcome = Outcome::default();
    match &cluster {
        None => {
            tcp.stats.downstream_cx_no_route.inc();
            outcome.flags = Flags::NO_CLUSTER;
        }
        Some(cluster) => run(worker, tcp, chain, cluster, stream, &down, request, &mut outcome).await,
    }
    tcp.stats.downstream_cx_rx_bytes_total.add(outcome.received);
    tcp.stats.downstream_cx_tx_bytes_total.add(outcome.sent);
    let mut record = Record::of_connection(worker, &down);
    record.started_at = started_at;
    record.duration = started.elapsed();
    record.flags = outcome.flags;
    record.details = outcome.details;
    record.upstream_failure = outcome.failure.as_deref();
    record.host = outcome.host.as_ref().map(|picked| &*picked.host);
    record.upstream_local = outcome.local.as_deref();
    record.cluster = cluster.as_ref().map(|cluster| (&*cluster.compiled.name, &*cluster.compiled.stat_name));
    record.attempts = outcome.attempts;
    record.received = outcome.received;
    record.sent = outcome.sent;
    record.entropy = entropy;
    log::write_all(&tcp.logs, &record);
}

#[allow(clippy::too_many_arguments)]
async fn run(
    worker: &Rc<Worker>,
    tcp: &Arc<Tcp>,
    chain: &Arc<Chain>,
    cluster: &Arc<Cluster>,
    stream: Stream,
    down: &Downstream,
    request: TcpRequest,
    outcome: &mut Outcome,
) {
    let limits = &cluster.limits[0];
    // A tunnel is a request on a connection that its pool counts.
    let limit = if tcp.compiled.tunneling.is_some() { &limits.requests } else { &limits.connections };
    let Some(permit) = limit.acquire() else {
        cluster.stats.upstream_cx_overflow.inc();
        outcome.flags = Flags::UPSTREAM_OVERFLOW;
        return;
    };
    let (picked, upstream) = match dial(worker, tcp, cluster, down, &request, outcome).await {
        Ok(made) => made,
        Err(failure) => {
            outcome.flags.add(failure.flag());
            if let Failure::Upstream(reset, _) = &failure {
                outcome.failure = reset.transport_failure().cloned();
            }
            return;
        }
    };
    outcome.local = match &upstream {
        Remote::Plain(stream) => stream.local().map(|local| local.to_string()),
        Remote::Tunnel(_) => None,
    };
    let active = match &upstream {
        Remote::Plain(_) => Active::connection(picked.host.clone(), cluster.clone(), permit),
        Remote::Tunnel(_) => Active::new(picked.host.clone(), cluster.clone(), permit),
    };
    outcome.host = Some(picked);
    let max = async {
        match tcp.compiled.max_duration {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    let drained = async {
        chain.drain.cancelled().await;
        tokio::time::sleep(worker.shared.drain_grace).await;
    };
    let process = async {
        worker.shared.draining.cancelled().await;
        tokio::time::sleep(worker.shared.drain_grace).await;
    };
    let counts = Counts::default();
    let mut stream = stream;
    tokio::select! {
        _ = upstream.bridge(&mut stream, tcp.compiled.idle_timeout, &counts) => {}
        () = max => outcome.flags.add(Flags::DURATION_TIMEOUT),
        () = drained => {}
        () = process => {}
    }
    if counts.upstream_reset() {
        outcome.flags.add(Flags::UPSTREAM_RESET);
        reset_when_dropped(&stream);
    }
    (outcome.received, outcome.sent) = (counts.0.get(), counts.1.get());
    drop(active);
}

async fn dial(
    worker: &Rc<Worker>,
    tcp: &Tcp,
    cluster: &Arc<Cluster>,
    down: &Downstream,
    request: &TcpRequest,
    outcome: &mut Outcome,
) -> Result<(Picked, Remote), Failure> {
    let mut tried = Vec::new();
    loop {
        outcome.attempts += 1;
        let picked = pick(worker, tcp, cluster, down, &tried)?;
        tried.push(picked.host.id);
        outcome.host = Some(picked.clone());
        let result = match &tcp.compiled.tunneling {
            Some(rules) => {
                let opened = Box::pin(tunnel::open(worker, rules, cluster, &picked, down)).await;
                opened.map(Remote::Tunnel)
            }
            None => plain(cluster, &picked, down, request).await?.map(Remote::Plain),
        };
        match result {
            Ok(remote) => {
                cluster.judge(&picked.host, outlier::Result::Connected);
                return Ok((picked, remote));
            }
            Err(reset) => {
                cluster.judge(&picked.host, outlier::Result::Local);
                cluster.stats.upstream_cx_connect_fail.inc();
                if outcome.attempts >= tcp.compiled.max_connect_attempts {
                    outcome.flags.add(Flags::RETRIES_EXCEEDED);
                    return Err(Failure::Upstream(reset, outcome.attempts > 1));
                }
            }
        }
    }
}

/// The far side of a connection.
enum Remote {
    Plain(Stream),
    Tunnel(Tunnel),
}

impl Remote {
    async fn bridge(self, client: &mut Stream, idle: Option<Duration>, counts: &Counts) -> bool {
        match self {
            Self::Plain(upstream) => bridge(client, upstream, idle, counts).await,
            Self::Tunnel(Tunnel::Connected(upstream, _lease)) => bridge(client, upstream, idle, counts).await,
            Self::Tunnel(Tunnel::Streamed(upstream, _lease)) => bridge(client, upstream, idle, counts).await,
            Self::Tunnel(Tunnel::Posted(upstream)) => bridge(client, upstream, idle, counts).await,
        }
    }
}

/// A connection to a host, as it is.
async fn plain(
    cluster: &Arc<Cluster>,
    picked: &Picked,
    down: &Downstream,
    request: &TcpRequest,
) -> Result<Result<Stream, Reset>, Failure> {
    let authority = down.inspected.server_name.as_deref().unwrap_or_default();
    let tls = cluster.tls_for(&picked.way, authority).ok_or(Failure::NoHealthyUpstream)?;
    let tls = tls.map(|tls| tls.offering(request.alpn.as_deref()));
    let transport = cluster.transport(tls, &picked.way, Some((down.remote, down.local)));
    Ok(connect(&picked.host.address, &transport).await)
}

fn pick(
    worker: &Rc<Worker>,
    tcp: &Tcp,
    cluster: &Arc<Cluster>,
    down: &Downstream,
    tried: &[u64],
) -> Result<Picked, Failure> {
    let found = match &cluster.compiled.discovery {
        Discovery::OriginalDst { port, .. } => {
            let address = down.original().map(|at| SocketAddr::new(at.ip(), port.unwrap_or(at.port())));
            address.filter(|at| at.port() != 0).and_then(|at| cluster.found_host(at, ""))
        }
        _ => {
            let hash = tcp.compiled.hash_by_source.then(|| address_hash(down.remote.ip()));
            let tries = if tried.is_empty() { 0 } else { 3 };
            cluster.pick(Choice {
                entropy: worker.entropy(),
                turn: worker.turn(cluster),
                hash,
                avoid: tried,
                tries,
                without: &[],
            })
        }
    };
    found.ok_or_else(|| {
        cluster.stats.upstream_cx_none_healthy.inc();
        Failure::NoHealthyUpstream
    })
}

/// Has a client told that its server broke off, as Envoy does: by a reset.
fn reset_when_dropped(client: &Stream) {
    if let Some(tcp) = client.tcp() {
        // A socket that takes no option is closed as usual.
        let _ = socket2::SockRef::from(tcp).set_linger(Some(Duration::ZERO));
    }
}
