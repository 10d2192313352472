//! A connection's way: listener filters, filter chain, TLS, network filters.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use lateen_proto::envoy::config::core::v3::Metadata;
use lateen_route::rbac::{NETWORK_METADATA, Subject};
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;

use crate::downstream::{Downstream, Session};
use crate::ext_authz::{self, Refused};
use crate::flags::Flags;
use crate::http::connection as http_connection;
use crate::inspect;
use crate::listener::{Chain, ConnectionRbac, Filter, Served};
use crate::log::{self, Record};
use crate::stats::Figure;
use crate::stream::{ReadAhead, Stream};
use crate::tcp::{self, TcpRequest};
use crate::upstream::connect::keep_alive;
use crate::worker::Worker;

/// The largest a connection's future may be before it is boxed for its phases.
const FUTURE_LIMIT: usize = 4096;

/// Serves an accepted connection in a task of its own.
pub(crate) fn spawn(worker: &Rc<Worker>, served: Arc<Served>, tcp: TcpStream, peer: SocketAddr) {
    // Nagle's algorithm only delays what is written here.
    let _ = tcp.set_nodelay(true);
    if let Some(keepalive) = &served.listener.keepalive
        && let Err(error) = keep_alive(&tcp, keepalive)
    {
        tracing::debug!(target: "connection", %error, remote = %peer, "no TCP keep-alive");
    }
    let open = Open::new(worker.clone(), served.clone());
    let task = async move {
        let _open = open;
        let worker = _open.worker.clone();
        serve(worker, served, tcp, peer).await;
    };
    assert_size(&task);
    tokio::task::spawn_local(task);
}

/// Fails to compile when a connection's future grows beyond reason.
fn assert_size<F>(_: &F) {
    const {
        assert!(
            std::mem::size_of::<F>() < FUTURE_LIMIT,
            "a connection's future is too large: box its rare parts"
        )
    }
}

/// A connection as the figures know it.
struct Open {
    worker: Rc<Worker>,
    served: Arc<Served>,
}

impl Open {
    fn new(worker: Rc<Worker>, served: Arc<Served>) -> Self {
        worker.open.set(worker.open.get() + 1);
        served.stats.downstream_cx_total.inc();
        served.stats.downstream_cx_active.inc();
        Self { worker, served }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.worker.open.set(self.worker.open.get() - 1);
        self.served.stats.downstream_cx_active.dec();
        if std::thread::panicking() {
            self.worker.shared.stats.panics.inc();
        }
    }
}

async fn serve(worker: Rc<Worker>, mut served: Arc<Served>, tcp: TcpStream, peer: SocketAddr) {
    let Ok(local) = tcp.local_addr() else { return };
    let mut down = Downstream::new(local, peer);
    let mut io = ReadAhead::new(tcp);

    // Phase: listener filters, and the hand-over to the listener of the original destination.
    if let Err(error) = Box::pin(inspect::run(&served.listener, &mut io, &mut down)).await {
        tracing::debug!(target: "connection", %error, remote = %down.remote, "closed by a listener filter");
        return;
    }
    if served.listener.use_original_dst
        && let Some(other) = worker.shared.snapshot.load().listener_for(down.local, &served)
    {
        served = other;
        if let Err(error) = Box::pin(inspect::run(&served.listener, &mut io, &mut down)).await {
            tracing::debug!(target: "connection", %error, remote = %down.remote, "closed by a listener filter");
            return;
        }
    }

    // Phase: filter chain.
    let chain = down.with_view(|view| {
        served.listener.filter_chain(view, &mut ()).and_then(|compiled| served.chain(compiled)).cloned()
    });
    let Some(chain) = chain else {
        served.stats.no_filter_chain_match.inc();
        refuse(&worker, &served, &down);
        return;
    };
    down.chain = chain.compiled.name.clone();

    // Phase: TLS.
    let stream = match Box::pin(terminate_tls(&served, &chain, io, &mut down)).await {
        Some(stream) => stream,
        None => return,
    };

    // Phase: network filters.
    network_filters(&worker, &served, &chain, stream, down).await;
}

/// Logs a connection that no chain takes.
fn refuse(worker: &Rc<Worker>, served: &Served, down: &Downstream) {
    let mut record = Record::of_connection(worker, down);
    record.flags = Flags::NO_ROUTE;
    record.details = "filter_chain_not_found";
    log::write_all(&served.logs, &record);
}

async fn terminate_tls(
    served: &Served,
    chain: &Chain,
    io: ReadAhead,
    down: &mut Downstream,
) -> Option<Stream> {
    let Some(tls) = &chain.tls else { return Some(io.into()) };
    let Some(identity) = tls.config.load_full() else {
        tracing::debug!(target: "connection", chain = %chain.compiled.name, "closed: the chain's certificate has not come");
        served.stats.ssl_connection_error.inc();
        return None;
    };
    let require_sni = chain.compiled.tls.as_ref().is_some_and(|tls| tls.require_sni);
    let handshake = async {
        let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), io).await?;
        let hello = start.client_hello();
        let config = identity.server.for_client(hello.alpn().into_iter().flatten());
        down.inspected.server_name = hello.server_name().map(|name| name.to_ascii_lowercase().into());
        if require_sni && down.inspected.server_name.is_none() {
            return Err(std::io::Error::other("the client names no server, and the chain requires it"));
        }
        start.into_stream(config).await
    };
    let result = match chain.compiled.handshake_timeout {
        Some(limit) => tokio::time::timeout(limit, handshake).await.unwrap_or_else(|late| Err(late.into())),
        None => handshake.await,
    };
    match result {
        Ok(stream) => {
            served.stats.ssl_handshake.inc();
            let stream = Stream::from(stream);
            down.tls = session(&stream, identity.local_uris.clone());
            Some(stream)
        }
        Err(error) => {
            tracing::debug!(target: "connection", %error, remote = %down.remote, "TLS handshake failed");
            served.stats.ssl_connection_error.inc();
            None
        }
    }
}

fn session(stream: &Stream, local_uris: Arc<[String]>) -> Option<Session> {
    let state = stream.tls()?;
    let peer = state
        .peer_certificates()
        .and_then(<[_]>::first)
        .and_then(|leaf| lateen_ca::tls::PeerCertificate::from_der(leaf).ok());
    let version = match state.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "TLSv1.3",
    };
    let cipher = state.negotiated_cipher_suite().map(|suite| openssl_name(suite.suite())).unwrap_or_default();
    Some(Session { version, cipher, peer, local_uris })
}

/// OpenSSL's name of a cipher: `TLS13_AES_128_GCM_SHA256` is `TLS_AES_128_GCM_SHA256` there, and
/// `TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256` is `ECDHE-RSA-AES128-GCM-SHA256`.
fn openssl_name(suite: rustls::CipherSuite) -> Box<str> {
    let name = format!("{suite:?}");
    match name.strip_prefix("TLS13_") {
        Some(rest) => format!("TLS_{rest}").into(),
        None => name
            .trim_start_matches("TLS_")
            .replace("WITH_", "")
            .replace("AES_", "AES")
            .replace('_', "-")
            .into(),
    }
}

/// Logs a connection that is one too many where the bytes of those that are not are logged.
fn refuse_bytes(worker: &Rc<Worker>, chain: &Chain, down: &Downstream) {
    let mut record = Record::of_connection(worker, down);
    // Envoy's flag for it.
    record.flags = Flags::RETRIES_EXCEEDED;
    for filter in &chain.filters {
        if let Filter::Tcp(tcp) = filter {
            log::write_all(&tcp.logs, &record);
        }
    }
}

async fn network_filters(
    worker: &Rc<Worker>,
    _served: &Arc<Served>,
    chain: &Arc<Chain>,
    stream: Stream,
    down: Downstream,
) {
    let mut request = TcpRequest::default();
    let mut metadata = Metadata::default();
    for filter in &chain.filters {
        match filter {
            Filter::Http(manager) => {
                let down = Rc::new(down);
                return http_connection::serve(worker, manager, chain, stream, down).await;
            }
            Filter::Tcp(tcp) => {
                return Box::pin(tcp::forward(worker, tcp, chain, stream, down, request)).await;
            }
            Filter::DirectResponse(bytes) => {
                return Box::pin(tcp::answer(stream, bytes.clone())).await;
            }
            Filter::Rbac(filter) => {
                if let Some(denial) = judge(filter, &down, &mut metadata) {
                    return close(
                        worker,
                        chain,
                        &down,
                        Closed { termination: Some(&denial), ..Closed::default() },
                    );
                }
            }
            Filter::ExtAuthz(filter, stats) => {
                let checking = ext_authz::connection(worker, filter, stats, &down, &metadata);
                if let Err(refused) = Box::pin(checking).await {
                    let Refused { details, flag } = refused;
                    return close(worker, chain, &down, Closed { details, flags: flag, ..Closed::default() });
                }
            }
            Filter::LocalRateLimit(rate, stats) => {
                if rate.bucket.as_ref().is_some_and(|bucket| !bucket.take(crate::worker::uptime())) {
                    stats.rate_limited.inc();
                    refuse_bytes(worker, chain, &down);
                    return;
                }
            }
            Filter::SniCluster => {
                request.cluster = down.inspected.server_name.as_deref().map(Into::into);
            }
            Filter::SetState(values) => {
                for value in values.iter() {
                    let protocols = value.protocols(|format| {
                        let mut text = Vec::new();
                        let record = Record::of_connection(worker, &down);
                        format.write(&mut text, true, |variable, out| record.write(variable, out));
                        text
                    });
                    if let Some(text) = protocols {
                        request.set_alpn(&text);
                    }
                }
            }
        }
    }
}

/// Judges a connection; the detail of its denial. What rules on trial say is for the filters after.
fn judge(filter: &ConnectionRbac, down: &Downstream, metadata: &mut Metadata) -> Option<String> {
    let count = |allowed: bool, yes: &Figure, no: &Figure| if allowed { yes.inc() } else { no.inc() };
    down.with_view(|connection| {
        let subject = Subject { connection, request: None };
        if let Some(tried) = filter.rules.judge_shadow(subject) {
            count(tried.is_allowed(), &filter.shadow.shadow_allowed, &filter.shadow.shadow_denied);
            let kept = metadata.filter_metadata.entry(NETWORK_METADATA.to_owned()).or_default();
            kept.fields.extend(filter.rules.shadow_facts(tried));
        }
        let verdict = filter.rules.rules.as_ref()?.judge(subject);
        count(verdict.is_allowed(), &filter.enforced.allowed, &filter.enforced.denied);
        verdict.denial()
    })
}

/// Why a network filter closed a connection.
#[derive(Clone, Copy, Debug, Default)]
struct Closed<'a> {
    flags: Flags,
    details: &'static str,
    termination: Option<&'a str>,
}

/// Logs a connection that a filter closed, where the proxy after it would have.
fn close(worker: &Rc<Worker>, chain: &Chain, down: &Downstream, why: Closed<'_>) {
    let logs = chain.filters.iter().find_map(|filter| match filter {
        Filter::Tcp(tcp) => Some(&tcp.logs),
        _ => None,
    });
    let mut record = Record::of_connection(worker, down);
    record.flags = why.flags;
    record.details = why.details;
    record.termination = why.termination;
    log::write_all(logs.map_or(&[][..], |logs| logs), &record);
}
