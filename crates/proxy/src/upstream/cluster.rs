//! A cluster as the workers use it: its hosts, the ways to connect to them, its limits and figures.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::ArcSwap;
use lateen_route::balance::{Draw, HostView, Plan};
use lateen_route::cluster::{Discovery, HttpProtocol, ProxyVersion, SlowStart};
use lateen_route::endpoints::{Assignment, HostAddress};
use lateen_route::http_manager::HeaderCase;
use lateen_route::{Cluster as Compiled, Entropy};

use super::connect::{Tls, Transport};
use super::host::{Address, Host};
use super::limits::Limits;
use super::planning::Planning;
use super::pool::{Http2Settings, Pool, PoolSettings, Protocol};
use super::pools::PoolKey;
use super::proxy_header;
use crate::stats::{ClusterStats, HealthCheckStats, Kind, OutlierStats};
use crate::store::ClientTls;
use crate::worker::Worker;

/// Hosts that an ORIGINAL_DST or dynamic forward cluster keeps before it forgets unused ones.
const FOUND_HOSTS: usize = 4096;

/// A cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// The decisions.
    pub compiled: Arc<Compiled>,
    /// Its figures, kept over updates.
    pub stats: Arc<ClusterStats>,
    /// What outlier detection counts.
    pub outlier: Arc<OutlierStats>,
    /// What active checks count.
    pub checks: Arc<HealthCheckStats>,
    /// Told when the hosts have changed.
    pub hosts_changed: tokio::sync::Notify,
    /// Whether every host was checked once.
    pub checked: std::sync::atomic::AtomicBool,
    /// Whether its names were looked up once.
    pub looked_up: std::sync::atomic::AtomicBool,
    /// Its circuit breakers, by priority.
    pub limits: [Arc<Limits>; 2],
    /// Its hosts now.
    pub hosts: ArcSwap<HostSet>,
    /// The ways to connect: the default one, then as `compiled.transport_matches`.
    pub ways: ArcSwap<Vec<Way>>,
    /// Where its names are asked for.
    pub resolver: Option<Arc<crate::dns::Resolver>>,
    /// When outliers are looked at next, on the clock of outlier detection.
    pub(super) next_sweep: AtomicU64,
    /// When weights are made anew next, on the same clock.
    pub(super) next_weighing: AtomicU64,
    /// Told when its first plan was made elsewhere.
    pub(super) found: Arc<tokio::sync::Notify>,
    /// Whether it had a plan once.
    pub(super) planned: std::sync::atomic::AtomicBool,
    pub(super) planning: Mutex<Planning>,
    pub(super) me: Weak<Self>,
    found_hosts: Mutex<HashMap<SocketAddr, Arc<Host>>>,
}

/// A way to connect to a host.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    /// Distinct for every version of it.
    pub id: u64,
    /// What TLS is spoken, if any; `Err` while its secrets have not come.
    pub security: Security,
    /// How the client is told of before anything else.
    pub proxy_protocol: Option<ProxyVersion>,
}

/// What protects a connection.
#[derive(Clone, Debug)]
pub(crate) enum Security {
    /// Nothing.
    Plain,
    /// TLS.
    Tls {
        /// Identity, trust, application protocols.
        config: Arc<ClientTls>,
        /// The server name to ask for.
        server_name: Option<Arc<str>>,
        /// Whether the request's host is the server name.
        auto_server_name: bool,
    },
    /// TLS whose secrets have not come.
    Waiting,
}

static NEXT_WAY: AtomicU64 = AtomicU64::new(1);

impl Way {
    /// A new way.
    pub(crate) fn new(security: Security, proxy_protocol: Option<ProxyVersion>) -> Self {
        Self { id: NEXT_WAY.fetch_add(1, Ordering::Relaxed), security, proxy_protocol }
    }
}

/// The hosts of a cluster at one time.
#[derive(Debug, Default)]
pub(crate) struct HostSet {
    /// As the assignment's hosts.
    pub hosts: Vec<Member>,
    /// The resource they come from.
    pub assignment: Option<Arc<Assignment>>,
    /// As the hosts; empty where the assignment's weights count.
    pub(super) weights: Box<[u32]>,
    pub(super) plan: Plan,
}

/// A host in its set.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// The host.
    pub host: Arc<Host>,
    /// Which of the cluster's ways leads to it.
    pub way: usize,
}

impl HostView for HostSet {
    fn healthy(&self, host: usize) -> bool {
        self.hosts.get(host).is_some_and(|member| member.host.is_well())
    }

    fn degraded(&self, host: usize) -> bool {
        self.hosts.get(host).is_some_and(|member| member.host.checked.degraded.load(Ordering::Relaxed))
    }

    fn weight(&self, host: usize) -> Option<u32> {
        self.weights.get(host).copied()
    }

    fn warmth(&self, host: usize, rules: &SlowStart) -> Option<f64> {
        let age = self.hosts.get(host)?.host.age();
        (age < rules.window).then(|| rules.factor(age))
    }

    fn active_requests(&self, host: usize) -> u32 {
        self.hosts.get(host).map_or(0, |member| member.host.active.load(Ordering::Relaxed))
    }
}

/// A host that was picked, and the way to it.
#[derive(Clone, Debug)]
pub(crate) struct Picked {
    /// The host.
    pub host: Arc<Host>,
    /// The way.
    pub way: Way,
    /// Its priority.
    pub priority: usize,
}

/// What a pick goes by.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Choice<'a> {
    /// Chance.
    pub entropy: Entropy,
    /// The worker's turn.
    pub turn: u64,
    /// The request's hash.
    pub hash: Option<u64>,
    /// Hosts that were tried, which are only taken when `tries` draws gave nothing else.
    pub avoid: &'a [u64],
    /// How often another host is drawn.
    pub tries: u32,
    /// Priorities that were tried, which are left out.
    pub without: &'a [usize],
}

/// For whom a connection is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller<'a> {
    /// The host of the request, for TLS that follows it.
    pub authority: &'a str,
    /// Application protocols that a filter chose, joined by commas.
    pub alpn: Option<&'a Arc<str>>,
    /// The client, and where it connected to.
    pub addresses: (SocketAddr, SocketAddr),
}

impl Cluster {
    /// A cluster without hosts yet. What `previous` knew is kept: figures, open limits, found hosts.
    pub(crate) fn new(
        compiled: Arc<Compiled>,
        previous: Option<&Self>,
        resolver: Option<Arc<crate::dns::Resolver>>,
        found: Arc<tokio::sync::Notify>,
    ) -> Arc<Self> {
        let limits = [0, 1].map(|priority| {
            let wanted = &compiled.circuit_breakers[priority];
            match previous.map(|previous| previous.limits[priority].clone()) {
                Some(limits) => {
                    limits.connections.set_max(wanted.max_connections);
                    limits.pending.set_max(wanted.max_pending);
                    limits.requests.set_max(wanted.max_requests);
                    limits.retries.set_max(wanted.max_retries);
                    limits
                }
                None => Arc::new(Limits::new(
                    wanted.max_connections,
                    wanted.max_pending,
                    wanted.max_requests,
                    wanted.max_retries,
                )),
            }
        });
        Arc::new_cyclic(|me| Self {
            stats: previous.map(|previous| previous.stats.clone()).unwrap_or_default(),
            outlier: previous.map(|previous| previous.outlier.clone()).unwrap_or_default(),
            checks: previous.map(|previous| previous.checks.clone()).unwrap_or_default(),
            hosts_changed: tokio::sync::Notify::new(),
            checked: std::sync::atomic::AtomicBool::new(false),
            looked_up: std::sync::atomic::AtomicBool::new(false),
            limits,
            hosts: ArcSwap::default(),
            ways: ArcSwap::default(),
            resolver,
            next_sweep: AtomicU64::new(0),
            next_weighing: AtomicU64::new(0),
            found,
            planned: std::sync::atomic::AtomicBool::new(false),
            planning: Mutex::default(),
            me: me.clone(),
            found_hosts: Mutex::default(),
            compiled,
        })
    }

    /// Takes new hosts. Those whose address is known already stay the same, with their figures and connections.
    pub(crate) fn set_hosts(&self, assignment: Arc<Assignment>, known: &HostSet) {
        let mut old: HashMap<&Address, &Arc<Host>> =
            known.hosts.iter().map(|member| (&member.host.address, &member.host)).collect();
        let hosts = assignment
            .hosts
            .iter()
            .filter_map(|endpoint| {
                let address = match &endpoint.address {
                    HostAddress::Tcp(address) => Address::Socket(*address),
                    HostAddress::Pipe(path) => Address::Pipe(path.clone()),
                    HostAddress::Name(..) => return None,
                };
                let host = match old.remove(&address) {
                    Some(host) => host.clone(),
                    None => {
                        let host = Host::new(address, endpoint.hostname.clone().unwrap_or_else(|| "".into()));
                        // Until the first check says otherwise.
                        let checked = !self.compiled.health_checks.is_empty()
                            && !endpoint.check.as_ref().is_some_and(|check| check.disabled);
                        host.checked.failed.store(checked, Ordering::Relaxed);
                        host
                    }
                };
                Some(Member { host, way: self.way_index(endpoint.metadata.as_deref()) })
            })
            .collect();
        self.stats.update_success.inc();
        self.publish(|_| HostSet { hosts, assignment: Some(assignment), ..HostSet::default() });
    }

    /// Makes the plan again: a host's health has changed.
    pub(crate) fn replan(&self) {
        self.publish(|now| HostSet {
            hosts: now.hosts.clone(),
            assignment: now.assignment.clone(),
            ..HostSet::default()
        });
    }

    fn way_index(&self, metadata: Option<&lateen_proto::envoy::config::core::v3::Metadata>) -> usize {
        let fits = self.compiled.transport_matches.iter().position(|candidate| candidate.fits(metadata));
        fits.map_or(0, |index| index + 1)
    }

    /// Picks a host.
    pub(crate) fn pick(&self, choice: Choice<'_>) -> Option<Picked> {
        let set = self.hosts.load();
        let own = match &set.assignment {
            // A large table is not made for one request: it may meet a priority again.
            Some(assignment) if !choice.without.is_empty() && !self.is_large(&set) => {
                Some(Plan::without(assignment, &self.compiled.balancing, &**set, choice.without))
            }
            _ => None,
        };
        let plan = own.as_ref().unwrap_or(&set.plan);
        if plan.in_panic() {
            self.stats.lb_healthy_panic.inc();
        }
        let mut draw = Draw { entropy: choice.entropy, turn: choice.turn, hash: choice.hash, attempt: 0 };
        let mut index = plan.pick(draw, &**set)?;
        for again in 0..choice.tries {
            if !choice.avoid.contains(&set.hosts.get(index)?.host.id) {
                break;
            }
            draw.entropy = Entropy(choice.entropy.draw(0xa9a1 + u64::from(again)));
            draw.turn += 1;
            draw.attempt = again + 1;
            index = plan.pick(draw, &**set)?;
        }
        let member = set.hosts.get(index)?;
        let way = self.ways.load().get(member.way)?.clone();
        let priority = set.assignment.as_ref().map_or(0, |assignment| assignment.priority_of(index));
        Some(Picked { host: member.host.clone(), way, priority })
    }

    /// The host at an address that was found rather than configured.
    pub(crate) fn found_host(&self, address: SocketAddr, hostname: &str) -> Option<Picked> {
        let mut found = self.found_hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if found.len() >= FOUND_HOSTS {
            found.retain(|_, host| Arc::strong_count(host) > 1);
        }
        let host =
            found.entry(address).or_insert_with(|| Host::new(Address::Socket(address), hostname)).clone();
        let way = self.ways.load().first()?.clone();
        Some(Picked { host, way, priority: 0 })
    }

    /// Calls `with` with every figure, by its name below the cluster's.
    pub(crate) fn each_figure(&self, mut with: impl FnMut(&str, Kind, u64)) {
        self.stats.each(&mut with);
        if self.compiled.outlier_detection.is_some() {
            self.outlier.each(|name, kind, value| with(&format!("outlier_detection.{name}"), kind, value));
        }
        if !self.compiled.health_checks.is_empty() {
            self.checks.each(|name, kind, value| with(&format!("health_check.{name}"), kind, value));
        }
        for (priority, label) in [(0, "default"), (1, "high")] {
            let limits = &self.limits[priority];
            let tracked = self.compiled.circuit_breakers[priority].track_remaining;
            for (open, remaining, limit) in [
                ("cx_open", "remaining_cx", &limits.connections),
                ("rq_pending_open", "remaining_pending", &limits.pending),
                ("rq_open", "remaining_rq", &limits.requests),
                ("rq_retry_open", "remaining_retries", &limits.retries),
            ] {
                let mut tell = |name: &str, value: u32| {
                    with(&format!("circuit_breakers.{label}.{name}"), Kind::Gauge, value.into());
                };
                tell(open, u32::from(limit.is_open()));
                tell(remaining, if tracked { limit.max().saturating_sub(limit.used()) } else { 0 });
            }
        }
    }

    /// Whether its hosts are found as requests come, rather than configured.
    pub(crate) fn finds_hosts(&self) -> bool {
        matches!(self.compiled.discovery, Discovery::OriginalDst { .. } | Discovery::DynamicForwardProxy(_))
    }

    /// The HTTP to speak for a client that speaks `downstream`.
    pub(crate) fn protocol(&self, downstream: http::Version, way: &Way) -> Protocol {
        match self.compiled.http.protocol {
            HttpProtocol::Http1 => Protocol::Http1,
            HttpProtocol::Http2 => Protocol::Http2,
            HttpProtocol::Downstream if downstream == http::Version::HTTP_2 => Protocol::Http2,
            HttpProtocol::Downstream => Protocol::Http1,
            HttpProtocol::Auto if matches!(way.security, Security::Tls { .. }) => Protocol::Negotiated,
            HttpProtocol::Auto => Protocol::Http1,
        }
    }

    /// The worker's pool for a host. `None` when TLS cannot be spoken yet.
    pub(crate) fn pool(
        &self,
        worker: &Worker,
        picked: &Picked,
        protocol: Protocol,
        priority: usize,
        caller: Caller<'_>,
    ) -> Option<Rc<Pool>> {
        let tls = self.tls_for(&picked.way, caller.authority)?;
        let client = picked.way.proxy_protocol.map(|_| caller.addresses);
        let alpn = caller.alpn.filter(|_| tls.is_some());
        let key = PoolKey {
            host: picked.host.id,
            way: picked.way.id,
            protocol,
            priority,
            server_name: tls.as_ref().and_then(|tls| tls.server_name.clone()),
            alpn: alpn.cloned(),
            client,
        };
        let make = || {
            let tls = tls.map(|tls| tls.offering(alpn.map(|alpn| &**alpn)).or_offering(protocol.names()));
            let transport = self.transport(tls, &picked.way, client);
            let settings = self.pool_settings(protocol, transport, priority);
            Pool::new(picked.host.clone(), settings, self.limits[priority].clone(), self.stats.clone())
        };
        Some(worker.pool(key, make))
    }

    /// The TLS to speak on a way; `None` when its secrets have not come.
    pub(crate) fn tls_for(&self, way: &Way, authority: &str) -> Option<Option<Tls>> {
        match &way.security {
            Security::Waiting => None,
            Security::Plain => Some(None),
            Security::Tls { config, server_name, auto_server_name } => {
                let name = if *auto_server_name && !authority.is_empty() {
                    Some(host_of(authority).into())
                } else {
                    server_name.clone()
                };
                Some(Some(Tls { config: config.config()?, server_name: name }))
            }
        }
    }

    fn pool_settings(&self, protocol: Protocol, transport: Transport, priority: usize) -> PoolSettings {
        let http = &self.compiled.http;
        PoolSettings {
            protocol,
            transport,
            max_connections: self.compiled.circuit_breakers[priority].max_connections_per_host,
            idle_timeout: http.idle_timeout,
            max_requests: http.max_requests,
            max_age: http.max_connection,
            title_case: http.http1.header_case == HeaderCase::Proper,
            http2: Http2Settings {
                max_streams: http.http2.max_streams as usize,
                stream_window: http.http2.stream_window,
                connection_window: http.http2.connection_window,
                ping_interval: http.http2.ping_interval,
                ping_timeout: http.http2.ping_timeout,
            },
        }
    }

    /// How connections are made; `client` are the client's address and where it connected to.
    pub(crate) fn transport(
        &self,
        tls: Option<Tls>,
        way: &Way,
        client: Option<(SocketAddr, SocketAddr)>,
    ) -> Transport {
        Transport {
            tls,
            header: way.proxy_protocol.map(|version| proxy_header::bytes(version, client)),
            bind: self.compiled.bind.map(|ip| SocketAddr::new(ip, 0)),
            keepalive: self.compiled.keepalive,
            timeout: self.compiled.connect_timeout,
        }
    }
}

/// A host header's host.
pub(crate) fn host_of(authority: &str) -> &str {
    match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
    }
}
