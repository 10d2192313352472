//! Counters and gauges, named as Envoy names them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

pub(crate) use self::figures::*;
pub(crate) use self::responses::{ClusterStats, RouteStats};

mod figures;
mod responses;

/// A part of a name, with the dot that ends it; nothing stays nothing.
pub(crate) fn dotted(prefix: &str) -> std::borrow::Cow<'_, str> {
    match prefix {
        "" => prefix.into(),
        ended if ended.ends_with('.') => ended.into(),
        open => format!("{open}.").into(),
    }
}

/// A counter or gauge. Workers share it; the order of its changes does not matter.
#[derive(Debug, Default)]
pub(crate) struct Figure(AtomicU64);

impl Figure {
    /// One more.
    #[inline]
    pub(crate) fn inc(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Some more.
    #[inline]
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// One less.
    #[inline]
    pub(crate) fn dec(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// Another value.
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value.
    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Whether a figure only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// All figures that are not a cluster's.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    /// `listener_manager.*`
    pub listener_manager: ListenerManagerStats,
    /// `cluster_manager.*`
    pub cluster_manager: ClusterManagerStats,
    /// Whether the control plane is connected.
    pub control_plane_connected: Figure,
    /// Panics that were caught.
    pub panics: Figure,
    http: Named<HttpStats>,
    tcp: Named<TcpStats>,
    listeners: Named<ListenerStats>,
    rate_limits: Named<RateLimitStats>,
    rbac: Named<RbacStats>,
    shadows: Named<ShadowStats>,
    ext_authz: Named<ExtAuthzStats>,
    network_ext_authz: Named<NetworkExtAuthzStats>,
    connection_rates: Named<ConnectionRateStats>,
    routes: Named<RouteStats>,
}

type Named<T> = RwLock<BTreeMap<Arc<str>, Arc<T>>>;

fn of<T: Default>(named: &Named<T>, name: &str) -> Arc<T> {
    let mut map = named.write().unwrap_or_else(PoisonError::into_inner);
    map.entry(name.into()).or_default().clone()
}

impl Stats {
    /// The figures of an HTTP prefix; kept over updates of its listener.
    pub(crate) fn http(&self, prefix: &str) -> Arc<HttpStats> {
        of(&self.http, prefix)
    }

    /// The figures of a TCP prefix.
    pub(crate) fn tcp(&self, prefix: &str) -> Arc<TcpStats> {
        of(&self.tcp, prefix)
    }

    /// The figures of a rate limit.
    pub(crate) fn rate_limit(&self, prefix: &str) -> Arc<RateLimitStats> {
        let known = self.rate_limits.read().unwrap_or_else(PoisonError::into_inner).get(prefix).cloned();
        known.unwrap_or_else(|| of(&self.rate_limits, prefix))
    }

    /// The figures of enforced rules; `prefix` is all that comes before the names.
    pub(crate) fn rbac(&self, prefix: &str) -> Arc<RbacStats> {
        of(&self.rbac, prefix)
    }

    /// The figures of rules on trial; `prefix` is all that comes before the names.
    pub(crate) fn shadow(&self, prefix: &str) -> Arc<ShadowStats> {
        of(&self.shadows, prefix)
    }

    /// The figures of checks of requests; `prefix` is all that comes before the names.
    pub(crate) fn ext_authz(&self, prefix: &str) -> Arc<ExtAuthzStats> {
        of(&self.ext_authz, prefix)
    }

    /// The figures of checks of connections; `prefix` is all that comes before the names.
    pub(crate) fn network_ext_authz(&self, prefix: &str) -> Arc<NetworkExtAuthzStats> {
        of(&self.network_ext_authz, prefix)
    }

    /// The figures of a limit of connections.
    pub(crate) fn connection_rate(&self, prefix: &str) -> Arc<ConnectionRateStats> {
        of(&self.connection_rates, prefix)
    }

    /// The figures of a route that has a name for them.
    pub(crate) fn route(&self, virtual_host: &str, prefix: &str) -> Arc<RouteStats> {
        let name = format!("vhost.{virtual_host}.route.{prefix}");
        let known = self.routes.read().unwrap_or_else(PoisonError::into_inner).get(name.as_str()).cloned();
        known.unwrap_or_else(|| of(&self.routes, &name))
    }

    /// The figures of a listening address.
    pub(crate) fn listener(&self, address: &str) -> Arc<ListenerStats> {
        of(&self.listeners, address)
    }

    /// Calls `with` with every figure under its full name.
    pub(crate) fn each(&self, mut with: impl FnMut(&str, Kind, u64)) {
        self.listener_manager
            .each(|name, kind, value| with(&format!("listener_manager.{name}"), kind, value));
        self.cluster_manager.each(|name, kind, value| with(&format!("cluster_manager.{name}"), kind, value));
        with("control_plane.connected_state", Kind::Gauge, self.control_plane_connected.value());
        with("server.panics", Kind::Counter, self.panics.value());
        for (prefix, stats) in &*self.http.read().unwrap_or_else(PoisonError::into_inner) {
            stats.each(|name, kind, value| with(&format!("http.{prefix}.{name}"), kind, value));
        }
        for (prefix, stats) in &*self.tcp.read().unwrap_or_else(PoisonError::into_inner) {
            stats.each(|name, kind, value| with(&format!("tcp.{prefix}.{name}"), kind, value));
        }
        for (prefix, stats) in &*self.rate_limits.read().unwrap_or_else(PoisonError::into_inner) {
            stats.each(|name, kind, value| {
                with(&format!("{prefix}.http_local_rate_limit.{name}"), kind, value)
            });
        }
        self.each_of_policies(&mut with);
        for (prefix, stats) in &*self.connection_rates.read().unwrap_or_else(PoisonError::into_inner) {
            stats.each(|name, kind, value| with(&format!("local_rate_limit.{prefix}.{name}"), kind, value));
        }
        for (prefix, stats) in &*self.routes.read().unwrap_or_else(PoisonError::into_inner) {
            stats.each(|name, kind, value| with(&format!("{prefix}.{name}"), kind, value));
        }
        for (address, stats) in &*self.listeners.read().unwrap_or_else(PoisonError::into_inner) {
            stats.each(|name, kind, value| with(&format!("listener.{address}.{name}"), kind, value));
        }
    }
}

impl Stats {
    fn each_of_policies(&self, with: &mut impl FnMut(&str, Kind, u64)) {
        macro_rules! each {
            ($($named:ident),*) => { $(
                for (prefix, stats) in &*self.$named.read().unwrap_or_else(PoisonError::into_inner) {
                    stats.each(|name, kind, value| with(&format!("{prefix}{name}"), kind, value));
                }
            )* };
        }
        each!(rbac, shadows, ext_authz, network_ext_authz);
    }
}
