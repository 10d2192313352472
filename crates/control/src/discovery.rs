//! Discovery: who may connect, and what is remembered of a connection.

use std::sync::{Arc, PoisonError};

use futures::future::BoxFuture;
use lateen_base::{Clock, SpiffeId};
use lateen_ca::service::{Authenticator, Credentials, Holder};
use lateen_proto::envoy::config::core::v3::Node;
use lateen_translate::Proxy;
use lateen_xds::server::{Dialect, Discovery, Heard, Observer, Opened, Peer, Push, Session, Verdict};
use lateen_xds::types;
use tokio::sync::watch;
use tonic::Status;

use crate::engine::Published;
use crate::metrics::Metrics;
use crate::proxies::{Newcomer, Proxies, Registration};
use crate::refusals::Refusals;
use crate::serve::PeerAddress;

/// The discovery service behind one port.
pub(crate) struct Ads {
    pub(crate) proxies: Proxies,
    pub(crate) published: watch::Receiver<Option<Arc<Published>>>,
    /// Checks tokens; none on the port in the clear.
    pub(crate) authenticator: Option<Arc<dyn Authenticator>>,
    pub(crate) metrics: Metrics,
    pub(crate) refusals: Refusals,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Discovery for Ads {
    fn open<'a>(&'a self, peer: Peer, node: &'a Node) -> BoxFuture<'a, Result<Opened, Status>> {
        Box::pin(self.accept(peer, node))
    }
}

impl Ads {
    async fn accept(&self, peer: Peer, node: &Node) -> Result<Opened, Status> {
        let proxy = Proxy::from_node(node).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let identity = self.authenticate(&peer).await?;
        if let Some(identity) = identity.filter(|id| *id.namespace != *proxy.namespace.as_str()) {
            let text = format!("{identity} is not in the namespace of the node, {}", proxy.namespace);
            return Err(Status::permission_denied(text));
        }
        let mut published = self.published.clone();
        let now = published
            .wait_for(Option::is_some)
            .await
            .map_err(|_| Status::unavailable("the control plane is shutting down"))?
            .clone();
        let Some(now) = now else { return Err(Status::unavailable("nothing is published yet")) };
        let address = peer.extensions.get::<PeerAddress>().map(|peer| peer.0.to_string());
        let newcomer = Newcomer {
            node: node.id.clone(),
            proxy,
            address: address.unwrap_or_default(),
            dialect: peer.dialect,
        };
        let (registration, catalogs) = self.register(newcomer, now).await?;
        // A publication that came meanwhile was not for this proxy yet.
        if let Some(newest) = self.published.borrow().clone() {
            let connected = registration.connected.clone();
            tokio::task::spawn_blocking(move || connected.push(&newest));
        }
        tracing::info!(target: "ads", "ADS: new connection for node:{}", registration.connected.id());
        self.metrics.connected.inc();
        let observer =
            Watcher { registration, metrics: self.metrics.clone(), refusals: self.refusals.clone() };
        Ok(Opened { catalogs, observer: Box::new(observer) })
    }

    async fn authenticate(&self, peer: &Peer) -> Result<Option<SpiffeId>, Status> {
        let Some(authenticator) = &self.authenticator else { return Ok(None) };
        let shown =
            Credentials { token: peer.token.as_deref(), certificate: peer.extensions.get::<Holder>() };
        authenticator.authenticate(shown).await.map(Some).map_err(Status::unauthenticated)
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
