//! Discovery: who may connect, and what is remembered of a connection.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError};

use futures::future::BoxFuture;
use lateen_base::Clock;
use lateen_ca::service::{Credentials, Holder};
use lateen_kube::TokenIdentity;
use lateen_proto::envoy::config::core::v3::Node;
use lateen_translate::Proxy;
use lateen_xds::server::{Dialect, Discovery, Heard, Observer, Opened, Peer, Push, Session, Verdict};
use lateen_xds::types;
use tokio::sync::watch;
use tonic::Status;

use crate::callers::Callers;
use crate::cluster::Cluster;
use crate::crowd::{Crowd, Full, Place};
use crate::engine::Published;
use crate::metrics::Metrics;
use crate::proxies::{Newcomer, Proxies, Registration};
use crate::refusals::Refusals;
use crate::serve::PeerAddress;
use crate::settings::Connections;

/// The discovery service behind one port.
pub(crate) struct Ads {
    pub(crate) proxies: Proxies,
    pub(crate) published: watch::Receiver<Option<Arc<Published>>>,
    /// Checks tokens; none on the port in the clear.
    pub(crate) authenticator: Option<Arc<Callers>>,
    /// Tells who may have credentials.
    pub(crate) cluster: Arc<dyn Cluster>,
    pub(crate) streams: Streams,
    pub(crate) metrics: Metrics,
    pub(crate) refusals: Refusals,
    pub(crate) clock: Arc<dyn Clock>,
}

/// The streams that are there, over all ports.
#[derive(Clone)]
pub(crate) struct Streams {
    by_address: Crowd<IpAddr>,
    by_proxy: Crowd<String>,
}

impl Streams {
    pub(crate) fn new(limits: &Connections) -> Self {
        Self {
            by_address: Crowd::new(limits.most, limits.per_address),
            by_proxy: Crowd::new(usize::MAX, limits.per_proxy),
        }
    }

    fn enter(&self, peer: Option<IpAddr>, proxy: &str) -> Result<Places, Status> {
        let refused = |who: &str, full: Full| {
            let (Full::All(many) | Full::Key(many)) = full;
            Status::resource_exhausted(format!("{who} has {many} discovery streams: no more are granted"))
        };
        let address = peer.map(|peer| {
            let all = |full| match full {
                Full::All(_) => "this control plane".to_owned(),
                Full::Key(_) => peer.to_string(),
            };
            self.by_address.enter(peer).map_err(|full| refused(&all(full), full))
        });
        let proxy = self.by_proxy.enter(proxy.to_owned()).map_err(|full| refused(proxy, full))?;
        Ok(Places { _address: address.transpose()?, _proxy: proxy })
    }
}

/// A stream among others.
struct Places {
    _address: Option<Place<IpAddr>>,
    _proxy: Place<String>,
}

/// Who opened a stream, in its extensions: whose token came with it, or whose certificate.
#[derive(Clone)]
struct Caller(TokenIdentity);

impl Caller {
    /// Whether the caller may be the proxy that it says it is, as Istio checks it; and that a token that is bound to a pod
    /// speaks for that pod alone.
    fn check(&self, proxy: &Proxy) -> Result<(), String> {
        let TokenIdentity { namespace, service_account, pod } = &self.0;
        let who = format!("the caller {namespace}/{service_account}");
        let (pod_of_id, namespace_of_id) = proxy.id.rsplit_once('.').unwrap_or((&proxy.id, ""));
        for named in [proxy.namespace.as_str(), namespace_of_id] {
            if named != namespace {
                return Err(format!("{who} is not in the namespace of the node, {named}"));
            }
        }
        let named = &proxy.metadata.service_account;
        if !named.is_empty() && named != service_account {
            return Err(format!("{who} is not of the service account of the node, {named}"));
        }
        match pod {
            Some(pod) if pod != pod_of_id => {
                Err(format!("{who} has a token that is bound to pod {pod}; the node is {}", proxy.id))
            }
            _ => Ok(()),
        }
    }
}

impl Discovery for Ads {
    fn admit<'a>(&'a self, peer: &'a mut Peer) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(self.authenticate(peer))
    }

    fn open<'a>(&'a self, peer: Peer, node: &'a Node) -> BoxFuture<'a, Result<Opened, Status>> {
        Box::pin(self.accept(peer, node))
    }
}

impl Ads {
    async fn accept(&self, peer: Peer, node: &Node) -> Result<Opened, Status> {
        let proxy = Proxy::from_node(node).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let caller = peer.extensions.get::<Caller>();
        if let Some(caller) = caller {
            caller.check(&proxy).map_err(Status::permission_denied)?;
        }
        let address = peer.extensions.get::<PeerAddress>().map(|peer| peer.0);
        let places = self.streams.enter(address.map(|address| address.ip().to_canonical()), &proxy.id)?;
        let credentials = self.has_credentials(caller, &proxy).await?;
        let mut published = self.published.clone();
        let now = published
            .wait_for(Option::is_some)
            .await
            .map_err(|_| Status::unavailable("the control plane is shutting down"))?
            .clone();
        let Some(now) = now else { return Err(Status::unavailable("nothing is published yet")) };
        let newcomer = Newcomer {
            node: node.id.clone(),
            proxy,
            address: address.map(|address| address.to_string()).unwrap_or_default(),
            dialect: peer.dialect,
            credentials,
        };
        let (registration, catalogs) = self.register(newcomer, now).await?;
        // A publication that came meanwhile was not for this proxy yet.
        if let Some(newest) = self.published.borrow().clone() {
            let connected = registration.connected.clone();
            tokio::task::spawn_blocking(move || connected.push(&newest));
        }
        tracing::info!(target: "ads", "ADS: new connection for node:{}", registration.connected.id());
        self.metrics.connected.inc();
        let observer = Watcher {
            registration,
            metrics: self.metrics.clone(),
            refusals: self.refusals.clone(),
            _places: places,
        };
        Ok(Opened { catalogs, observer: Box::new(observer) })
    }

    async fn authenticate(&self, peer: &mut Peer) -> Result<(), Status> {
        let Some(authenticator) = &self.authenticator else { return Ok(()) };
        let shown =
            Credentials { token: peer.token.as_deref(), certificate: peer.extensions.get::<Holder>() };
        let owner = authenticator.identify(shown).await.map_err(Status::unauthenticated)?;
        peer.extensions.insert(Caller(owner));
        Ok(())
    }

    /// Whether secrets go to a proxy: to gateways that are known, of an account that may list the secrets of its
    /// namespace itself.
    async fn has_credentials(&self, caller: Option<&Caller>, proxy: &Proxy) -> Result<bool, Status> {
        let Some(Caller(caller)) = caller.filter(|_| proxy.is_router()) else { return Ok(false) };
        let TokenIdentity { namespace, service_account, .. } = caller;
        let allowed = self.cluster.may_list_secrets(namespace, service_account).await.map_err(|reason| {
            let text =
                format!("whether {namespace}/{service_account} may list secrets cannot be told: {reason}");
            Status::unavailable(text)
        })?;
        if !allowed {
            tracing::warn!(
                target: "ads",
                "{}: no credentials: service account {service_account} may not list secrets in namespace {namespace}",
                proxy.id
            );
        }
        Ok(allowed)
    }

    async fn register(
        &self,
        newcomer: Newcomer,
        now: Arc<Published>,
    ) -> Result<(Registration, watch::Receiver<Arc<dyn lateen_xds::Catalog>>), Status> {
        let (proxies, since) = (self.proxies.clone(), self.clock.now());
        let added = tokio::task::spawn_blocking(move || proxies.add(newcomer, &now, since)).await;
        added.map_err(|e| Status::internal(e.to_string()))?.map_err(Status::internal)
    }
}

/// Follows one connection.
struct Watcher {
    registration: Registration,
    metrics: Metrics,
    refusals: Refusals,
    _places: Places,
}

impl Watcher {
    fn remember(&self, session: &Session) {
        let mut status = self.registration.connected.status.lock().unwrap_or_else(PoisonError::into_inner);
        *status = session.status();
    }

    /// Clusters are asked for by name where they are loaded on demand.
    fn remember_asked(&self, session: &Session) {
        let connected = &self.registration.connected;
        let mut asked = connected.asked.lock().unwrap_or_else(PoisonError::into_inner);
        *asked = session.asked(types::CLUSTER).cloned().collect();
        asked.sort();
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.metrics.connected.dec();
        self.refusals.disconnected(&self.registration.connected);
    }
}

impl Observer for Watcher {
    fn heard(&mut self, session: &Session, heard: &Heard) {
        self.remember(session);
        if *heard.type_url == *types::CLUSTER {
            self.remember_asked(session);
        }
        let connected = &self.registration.connected;
        let kind = types::short_name(&heard.type_url);
        let Some(verdict) = &heard.verdict else { return };
        if let Verdict::Nack(rejections) = verdict {
            for rejection in rejections {
                tracing::warn!(
                    target: "ads",
                    "ADS:{kind}: ACK ERROR {} {}: {}",
                    connected.node,
                    rejection.resource,
                    rejection.reason
                );
            }
            self.metrics.rejected(kind);
        }
        let status = session.status();
        let of_type = status.iter().find(|status| status.type_url == heard.type_url);
        self.refusals.set(connected, &heard.type_url, of_type.map_or(&[], |status| &status.rejected));
    }

    fn pushed(&mut self, session: &Session, push: &Push) {
        self.remember(session);
        let kind = types::short_name(&push.type_url);
        let size: usize = push.resources.iter().map(|resource| resource.any.value.len()).sum();
        let form = match self.registration.connected.dialect {
            Dialect::Delta => "PUSH",
            Dialect::StateOfTheWorld => "PUSH sotw",
        };
        tracing::info!(
            target: "ads",
            "{kind}: {form} for node:{} resources:{} removed:{} size:{}",
            self.registration.connected.proxy.id,
            push.resources.len(),
            push.removed.len(),
            lateen_runtime::logs::size(size),
        );
        self.metrics.pushed(kind);
    }
}
