//! Listeners: compiled, bound, warmed; replaced without closing their sockets.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use arc_swap::ArcSwap;
use lateen_proto::Message as _;
use lateen_proto::envoy::config::listener::v3::Listener as Message;
use lateen_route::Listener;
use lateen_route::access_log::{AccessLog, LogSink};
use lateen_route::http_manager::{HttpManager, RouteSource};
use lateen_route::listener::{Direction, FilterChain, ListenAddress};
use lateen_route::network::NetworkFilter;
use socket2::{Domain, Protocol, Socket, Type};
use tokio_util::sync::CancellationToken;

use super::tls::{self, TlsError};
use super::{Rejected, Source, Store, secrets, unpack};
use crate::http::manager::Manager;
use crate::listener::{Bound, Chain, ConnectionRbac, Filter, Log, Routes, Served, ServerTls, Tcp};
use crate::stats::dotted;
use crate::worker::Command;

/// A listener.
#[derive(Debug)]
pub(crate) struct ListenerEntry {
    /// As it came.
    pub source: Source,
    /// The version that is served, or warms.
    pub served: Arc<Served>,
    /// The addresses it is bound to, and how they look to others.
    pub bound: Vec<Arc<Bound>>,
    /// Whether `served` waits for routes or secrets, with another version or nothing in force.
    pub warming: bool,
    /// Whether a version before was in force.
    pub was_active: bool,
    /// Hashes of the chains' bytes, to tell which ones an update leaves alone.
    chain_hashes: Vec<u64>,
}

impl Store {
    /// Takes a listener. Its sockets are bound before it replaces the version before.
    ///
    /// # Errors
    /// When it is refused, or an address cannot be bound.
    pub(crate) fn set_listener(&mut self, source: Source) -> Result<(), Rejected> {
        let message: Message = unpack(&source.any)?;
        if self.listeners.get(message.name.as_str()).is_some_and(|known| known.source.any == source.any) {
            return Ok(());
        }
        // The first connection may come as soon as the socket is bound: what routes refer to comes first.
        self.publish();
        let listener = Arc::new(lateen_route::compile_listener(&message)?.value);
        let chain_hashes = hashes(&message);
        let served = self.serve(&listener, &chain_hashes)?;
        let name = listener.name.clone();
        let kept = self.listeners.get(&name).map(|entry| entry.bound.clone()).unwrap_or_default();
        let bound = self.bind_all(&listener, &served, &kept)?;
        let stats = &self.shared.stats.listener_manager;
        let modified = self.listeners.contains_key(&name);
        if modified {
            stats.listener_modified.inc()
        } else {
            stats.listener_added.inc()
        }
        for gone in kept.iter().filter(|old| !bound.iter().any(|new| Arc::ptr_eq(old, new))) {
            gone.closed.cancel();
        }
        let was_active = self.listeners.get(&name).is_some_and(|old| old.was_active || !old.warming);
        let entry = ListenerEntry { source, served, bound, warming: true, was_active, chain_hashes };
        self.listeners.insert(name, entry);
        self.warm_listeners();
        self.publish_due = true;
        Ok(())
    }

    /// Removes a listener: its sockets are closed, its connections finish what they do.
    pub(crate) fn remove_listener(&mut self, name: &str) {
        let Some(entry) = self.listeners.remove(name) else { return };
        for bound in &entry.bound {
            bound.closed.cancel();
            drain(&bound.served.load());
        }
        self.shared.stats.listener_manager.listener_removed.inc();
        self.publish_due = true;
    }

    /// Closes the sockets of all listeners, or of inbound ones; connections finish what they do.
    pub(crate) fn drain_listeners(&self, inbound_only: bool) {
        for entry in self.listeners.values() {
            if !inbound_only || entry.served.listener.direction == Direction::Inbound {
                entry.bound.iter().for_each(|bound| bound.closed.cancel());
                drain(&entry.served);
            }
        }
    }

    /// Puts listeners into force that have all they need now.
    pub(super) fn warm_listeners(&mut self) {
        for entry in self.listeners.values_mut().filter(|entry| entry.warming) {
            let ready = entry.served.chains.iter().all(|chain| is_ready(chain));
            if !ready {
                continue;
            }
            entry.warming = false;
            for bound in &entry.bound {
                let old = bound.served.swap(entry.served.clone());
                if !Arc::ptr_eq(&old, &entry.served) {
                    drain_replaced(&old, &entry.served);
                }
            }
            self.shared.stats.listener_manager.listener_create_success.inc();
        }
    }

    /// Makes the TLS of chains again that use a secret.
    pub(super) fn listeners_use_secret(&mut self, secret: &str) {
        for entry in self.listeners.values() {
            for chain in &entry.served.chains {
                let (Some(slot), Some(tls)) = (&chain.tls, &chain.compiled.tls) else { continue };
                if secrets::names(&tls.common).any(|reference| &*reference.name == secret) {
                    match tls::server(tls, &self.secrets) {
                        Ok(identity) => slot.config.store(Some(Arc::new(identity))),
                        Err(TlsError::Waiting(_)) => {}
                        Err(TlsError::Wrong(reason)) => {
                            tracing::warn!(target: "config", chain = %chain.compiled.name, secret, %reason, "a secret cannot be used");
                        }
                    }
                }
            }
        }
        self.warm_listeners();
    }

    /// Listeners by address, for hand-overs.
    pub(super) fn listener_addresses(&self) -> HashMap<SocketAddr, Arc<Bound>> {
        let mut out = HashMap::new();
        for entry in self.listeners.values() {
            for bound in &entry.bound {
                if let ListenAddress::Tcp(address) = bound.address {
                    out.insert(address, bound.clone());
                }
            }
        }
        out
    }

    fn serve(&mut self, listener: &Arc<Listener>, chain_hashes: &[u64]) -> Result<Arc<Served>, Rejected> {
        let reject = |reason: String| Rejected::new(&listener.name, reason);
        let mut chains = Vec::with_capacity(listener.chains.len());
        for (index, compiled) in listener.chains.iter().enumerate() {
            let hash = chain_hashes.get(index).copied();
            let reused = self.listeners.get(&listener.name).and_then(|old| {
                let same = old.chain_hashes.iter().position(|other| Some(*other) == hash)?;
                old.served.chains.get(same).cloned()
            });
            let chain = self
                .chain(listener, compiled, reused.as_deref())
                .map_err(|reason| reject(format!("filter_chains[{index}] {:?}: {reason}", compiled.name)))?;
            chains.push(Arc::new(chain));
        }
        let address = listener.addresses.first().map(stat_address).unwrap_or_default();
        let logs = self.open_logs(&listener.access_logs).map_err(reject)?;
        Ok(Arc::new(Served {
            listener: listener.clone(),
            chains,
            stats: self.shared.stats.listener(&address),
            logs,
            drain: CancellationToken::new(),
        }))
    }

    /// Puts a chain together. `reused` is the same chain of the version before, whose connections go on.
    fn chain(
        &mut self,
        listener: &Listener,
        compiled: &Arc<FilterChain>,
        reused: Option<&Chain>,
    ) -> Result<Chain, String> {
        let tls = match (&compiled.tls, reused.and_then(|old| old.tls.clone())) {
            (None, _) => None,
            (Some(_), Some(old)) => Some(old),
            (Some(context), None) => {
                let slot = ServerTls::default();
                match tls::server(context, &self.secrets) {
                    Ok(identity) => slot.config.store(Some(Arc::new(identity))),
                    Err(TlsError::Waiting(_)) => {}
                    Err(TlsError::Wrong(reason)) => return Err(format!("transport_socket: {reason}")),
                }
                Some(Arc::new(slot))
            }
        };
        let mut filters = Vec::new();
        for filter in &compiled.filters {
            filters.extend(self.filter(listener, filter)?);
        }
        let drain = reused.map(|old| old.drain.clone()).unwrap_or_default();
        Ok(Chain { compiled: compiled.clone(), tls, filters, drain })
    }

    fn filter(&mut self, listener: &Listener, filter: &NetworkFilter) -> Result<Option<Filter>, String> {
        Ok(Some(match filter {
            NetworkFilter::Http(compiled) => Filter::Http(Arc::new(self.manager(listener, compiled)?)),
            NetworkFilter::Tcp(compiled) => Filter::Tcp(Arc::new(Tcp {
                stats: self.shared.stats.tcp(&compiled.stat_prefix),
                logs: self.open_logs(&compiled.access_logs)?,
                compiled: compiled.clone(),
            })),
            NetworkFilter::DirectResponse(bytes) => Filter::DirectResponse(bytes.clone()),
            NetworkFilter::Rbac(rules) => {
                let prefix = format!("{}rbac.", dotted(&rules.stat_prefix));
                Filter::Rbac(Arc::new(ConnectionRbac {
                    enforced: self.shared.stats.rbac(&prefix),
                    shadow: self.shared.stats.shadow(&format!("{prefix}{}", dotted(&rules.shadow_prefix))),
                    rules: rules.clone(),
                }))
            }
            NetworkFilter::ExtAuthz(check) => {
                let prefix = format!("ext_authz.{}", check.stat_prefix);
                Filter::ExtAuthz(check.clone(), self.shared.stats.network_ext_authz(&prefix))
            }
            NetworkFilter::SniCluster => Filter::SniCluster,
            NetworkFilter::LocalRateLimit(rate) => {
                let stats = self.shared.stats.connection_rate(&rate.stat_prefix);
                Filter::LocalRateLimit(rate.clone(), stats)
            }
            NetworkFilter::SetFilterState(values) => Filter::SetState(values.clone()),
            NetworkFilter::MetadataExchange(_) | NetworkFilter::IstioStats(_) => return Ok(None),
        }))
    }

    fn manager(&mut self, listener: &Listener, compiled: &Arc<HttpManager>) -> Result<Manager, String> {
        let routes = match &compiled.routes {
            RouteSource::Inline(table) => Routes::Inline(table.clone()),
            RouteSource::Rds(name) => Routes::Named(self.route_slot(name)),
        };
        let logs = self.open_logs(&compiled.access_logs)?;
        let inbound = listener.direction == Direction::Inbound;
        Ok(Manager::new(compiled.clone(), routes, &self.shared.stats, logs, listener.buffer_limit, inbound))
    }

    fn open_logs(&self, logs: &[AccessLog]) -> Result<Vec<Log>, String> {
        let mut out = Vec::new();
        for compiled in logs {
            let path = match &compiled.sink {
                LogSink::File(path) => &**path,
                LogSink::Stdout => "/dev/stdout",
                LogSink::Stderr => "/dev/stderr",
                LogSink::Grpc(any) => return Err(format!("access_log: {} is not supported", any.type_url)),
            };
            let file = self.logs.open(path).map_err(|error| error.to_string())?;
            out.push(Log { compiled: compiled.clone(), file });
        }
        Ok(out)
    }

    fn bind_all(
        &self,
        listener: &Listener,
        served: &Arc<Served>,
        kept: &[Arc<Bound>],
    ) -> Result<Vec<Arc<Bound>>, Rejected> {
        let mut out = Vec::new();
        for address in &listener.addresses {
            if let Some(bound) =
                kept.iter().find(|bound| bound.address == *address && !bound.closed.is_cancelled())
            {
                out.push(bound.clone());
                continue;
            }
            let bound = Arc::new(Bound {
                address: address.clone(),
                actual: std::sync::OnceLock::new(),
                served: ArcSwap::new(served.clone()),
                closed: CancellationToken::new(),
            });
            if listener.bind_to_port {
                let ListenAddress::Tcp(address) = address else {
                    return Err(Rejected::new(
                        &listener.name,
                        "address.pipe: listening on a Unix socket is not supported",
                    ));
                };
                self.listen(listener, *address, &bound).map_err(|error| {
                    self.shared.stats.listener_manager.listener_create_failure.inc();
                    Rejected::new(&listener.name, format!("cannot bind '{address}': {}", describe(&error)))
                })?;
            }
            out.push(bound);
        }
        Ok(out)
    }

    /// One socket per worker; the kernel spreads connections over them.
    fn listen(&self, listener: &Listener, address: SocketAddr, bound: &Arc<Bound>) -> std::io::Result<()> {
        let mut sockets = Vec::new();
        let mut address = address;
        for _ in self.workers() {
            let socket = open_socket(listener, address)?;
            // Port 0 is chosen once and shared.
            address = socket.local_addr()?;
            sockets.push(socket);
        }
        // Set once: the address is new.
        let _ = bound.actual.set(address);
        for (worker, socket) in self.workers().iter().zip(sockets) {
            worker.tell(Command::Listen(bound.clone(), socket));
        }
        Ok(())
    }

    /// The addresses of secrets and who serves them, that anything wants.
    pub(crate) fn wanted_secrets(&self) -> Vec<lateen_route::tls::SecretRef> {
        let of_clusters =
            self.clusters.values().flat_map(|entry| super::clusters::secret_refs(&entry.newest));
        let of_chains = self
            .listeners
            .values()
            .flat_map(|entry| &entry.served.chains)
            .filter_map(|chain| chain.compiled.tls.as_ref())
            .flat_map(|tls| secrets::names(&tls.common));
        let mut out: Vec<_> = of_clusters.chain(of_chains).cloned().collect();
        out.sort_by(|a, b| a.name.cmp(&b.name));
        out.dedup();
        out
    }
}

fn open_socket(listener: &Listener, address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if listener.transparent {
        socket.set_ip_transparent_v4(true)?;
    }
    if listener.freebind {
        socket.set_freebind_v4(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(listener.backlog.and_then(|n| i32::try_from(n).ok()).unwrap_or(1024))?;
    Ok(socket.into())
}

fn is_ready(chain: &Chain) -> bool {
    let tls = chain.tls.as_ref().is_none_or(|tls| tls.config.load().is_some());
    let routes = chain.filters.iter().all(|filter| match filter {
        Filter::Http(manager) => manager.routes.load().is_some(),
        _ => true,
    });
    tls && routes
}

fn drain(served: &Served) {
    served.drain.cancel();
    served.chains.iter().for_each(|chain| chain.drain.cancel());
}

/// Drains the chains that the new version does not have.
fn drain_replaced(old: &Served, new: &Served) {
    for chain in &old.chains {
        // A chain that was left alone shares its token.
        let kept = new.chains.iter().any(|other| Arc::ptr_eq(&chain.drain, &other.drain));
        if !kept {
            chain.drain.cancel();
        }
    }
}

fn hashes(message: &Message) -> Vec<u64> {
    use std::hash::{DefaultHasher, Hash, Hasher};
    message
        .filter_chains
        .iter()
        .chain(&message.default_filter_chain)
        .map(|chain| {
            let mut hasher = DefaultHasher::new();
            chain.encode_to_vec().hash(&mut hasher);
            hasher.finish()
        })
        .collect()
}

fn stat_address(address: &ListenAddress) -> String {
    match address {
        ListenAddress::Tcp(address) => address.to_string().replace(':', "_"),
        ListenAddress::Pipe(path) => path.to_string(),
    }
}

fn describe(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => "Address already in use".to_owned(),
        std::io::ErrorKind::PermissionDenied => {
            "Permission denied: ports below net.ipv4.ip_unprivileged_port_start need privilege".to_owned()
        }
        _ => error.to_string(),
    }
}
