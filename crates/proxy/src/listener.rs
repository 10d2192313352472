//! Listeners as the workers run them: an address, what is served there now, and the compiled chains with all that the
//! decisions do not know: TLS configurations, log files, figures.

use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use lateen_ca::tls;
use lateen_route::access_log::AccessLog;
use lateen_route::ext_authz::NetworkExtAuthz;
use lateen_route::listener::{FilterChain, ListenAddress};
use lateen_route::network::{ConnectionRate, FilterStateValue, TcpProxy};
use lateen_route::{Listener, RouteTable};
use lateen_telemetry::log_file::LogFile;
use tokio_util::sync::CancellationToken;

use crate::http::manager::Manager;
use crate::stats::{
    ConnectionRateStats, ListenerStats, NetworkExtAuthzStats, RbacStats, ShadowStats, TcpStats,
};

/// An address that workers accept on. It outlives what is served there, so an update drops no connection attempt.
#[derive(Debug)]
pub(crate) struct Bound {
    /// The address, as configured.
    pub address: ListenAddress,
    /// The address it is bound to: with a port where the configured one is 0.
    pub actual: std::sync::OnceLock<std::net::SocketAddr>,
    /// What is served now.
    pub served: ArcSwap<Served>,
    /// Cancelled when nobody should accept here any more.
    pub closed: CancellationToken,
}

/// A compiled listener with what it needs to run.
#[derive(Debug)]
pub(crate) struct Served {
    /// The decisions.
    pub listener: Arc<Listener>,
    /// As `listener.chains`.
    pub chains: Vec<Arc<Chain>>,
    /// Its figures.
    pub stats: Arc<ListenerStats>,
    /// Logs of connections that no chain takes.
    pub logs: Vec<Log>,
    /// Cancelled when the listener is gone.
    pub drain: CancellationToken,
}

impl Served {
    /// The running chain of a compiled one.
    pub(crate) fn chain(&self, compiled: &Arc<FilterChain>) -> Option<&Arc<Chain>> {
        self.chains.iter().find(|chain| Arc::ptr_eq(&chain.compiled, compiled))
    }
}

/// A filter chain.
#[derive(Debug)]
pub(crate) struct Chain {
    /// The decisions.
    pub compiled: Arc<FilterChain>,
    /// How TLS is terminated.
    pub tls: Option<Arc<ServerTls>>,
    /// What happens to connections.
    pub filters: Vec<Filter>,
    /// Cancelled when the chain is replaced or removed: its connections finish what they do. Shared by all versions of
    /// the listener in which the chain is the same.
    pub drain: Arc<CancellationToken>,
}

/// The server's side of TLS; empty until its secrets have come.
#[derive(Debug, Default)]
pub(crate) struct ServerTls {
    /// The configuration, changed when a secret is rotated.
    pub config: ArcSwapOption<ServerIdentity>,
}

/// A TLS configuration and what logs and headers say about its certificate.
#[derive(Debug)]
pub(crate) struct ServerIdentity {
    /// The configuration.
    pub server: tls::Server,
    /// The URI names of the certificate.
    pub local_uris: Arc<[String]>,
}

/// A network filter.
#[derive(Debug)]
pub(crate) enum Filter {
    /// Speaks HTTP.
    Http(Arc<Manager>),
    /// Forwards bytes.
    Tcp(Arc<Tcp>),
    /// Answers and closes.
    DirectResponse(bytes::Bytes),
    /// Decides who may connect.
    Rbac(Arc<ConnectionRbac>),
    /// Asks a service who may connect.
    ExtAuthz(Arc<NetworkExtAuthz>, Arc<NetworkExtAuthzStats>),
    /// The server name is the cluster's.
    SniCluster,
    /// Lets so many connections through.
    LocalRateLimit(Arc<ConnectionRate>, Arc<ConnectionRateStats>),
    /// Sets values that upstream connections see.
    SetState(Arc<[FilterStateValue]>),
}

/// Policies of connections, with their figures.
#[derive(Debug)]
pub(crate) struct ConnectionRbac {
    /// The decisions.
    pub rules: Arc<lateen_route::rbac::RbacFilter>,
    /// The figures of what is enforced.
    pub enforced: Arc<RbacStats>,
    /// The figures of what is on trial.
    pub shadow: Arc<ShadowStats>,
}

/// A TCP proxy.
#[derive(Debug)]
pub(crate) struct Tcp {
    /// The decisions.
    pub compiled: Arc<TcpProxy>,
    /// Its figures.
    pub stats: Arc<TcpStats>,
    /// Its logs.
    pub logs: Vec<Log>,
}

/// An access log: what it says, and the file it goes to.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    /// What it says.
    pub compiled: AccessLog,
    /// Where it goes.
    pub file: LogFile,
}

/// Routes as a manager sees them: its own, or those of a name, which may come later and change.
#[derive(Clone, Debug)]
pub(crate) enum Routes {
    /// Part of the listener.
    Inline(Arc<RouteTable>),
    /// By discovery.
    Named(Arc<RouteSlot>),
}

/// The place of a route configuration.
#[derive(Debug)]
pub(crate) struct RouteSlot {
    /// Its name.
    pub name: Arc<str>,
    /// The routes, once they have come.
    pub table: ArcSwapOption<RouteTable>,
}

impl Routes {
    /// The routes in force; none while they are on their way.
    pub(crate) fn load(&self) -> Option<Arc<RouteTable>> {
        match self {
            Self::Inline(table) => Some(table.clone()),
            Self::Named(slot) => slot.table.load_full(),
        }
    }
}
