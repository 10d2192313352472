//! The control plane put together.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use lateen_base::Clock;
use lateen_ca::Authority;
use lateen_runtime::scopes::Scopes;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::authority::{self, Keeper};
use crate::callers::Callers;
use crate::cluster::Cluster;
use crate::debug::{self, Debug};
use crate::discovery::{Ads, Streams};
use crate::engine::{Engine, Outlets, Published};
use crate::gate::Gate;
use crate::input::{Input, Watched};
use crate::jwks::{self, fetch::Fetcher};
use crate::metrics::Metrics;
use crate::patches;
use crate::policies;
use crate::proxies::Proxies;
use crate::refusals::Refusals;
use crate::roots::{Publisher, RootMaps};
use crate::serve::{self, ListenError, Port};
use crate::settings::Settings;
use crate::tls;
use crate::webhook::{self, Webhooks};

/// What a control plane is built on.
pub struct Deps {
    /// What happens in the clusters.
    pub inputs: mpsc::Receiver<Input>,
    /// The cluster it runs in.
    pub cluster: Arc<dyn Cluster>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// Why a control plane does not start.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The cluster's inputs ended before it was read.
    #[error("the cluster could not be read")]
    NoCluster,
    /// There is no usable authority.
    #[error("certificate authority: {0}")]
    Authority(String),
    /// A port cannot be bound.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A bound port does not tell its address.
    #[error("address of a port: {0}")]
    Address(std::io::Error),
}

/// A running control plane; dropping it ends it.
pub struct Control {
    bound: Bound,
    authority: watch::Receiver<Arc<Authority>>,
    tasks: JoinSet<()>,
}

/// What a control plane logs under.
const SCOPES: Scopes =
    Scopes(&["ads", "ca", "controlz", "inject", "kube", "model", "spiffe", "status", "validation"]);

/// The addresses of a running control plane.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// Discovery in the clear.
    pub plain: SocketAddr,
    /// Discovery and certificates over TLS.
    pub secure: SocketAddr,
    /// Webhooks.
    pub webhook: SocketAddr,
    /// Debugging.
    pub debug: SocketAddr,
    /// Metrics.
    pub monitoring: SocketAddr,
    /// Levels of the log; none when the port was taken.
    pub introspection: Option<SocketAddr>,
}

impl Control {
    /// Reads the cluster, finds or makes the authority, and serves.
    ///
    /// # Errors
    /// When a port is taken, or the authority is unusable.
    pub async fn start(settings: Settings, deps: Deps) -> Result<Self, ControlError> {
        let settings = Arc::new(settings);
        let Deps { inputs, cluster, clock } = deps;
        let mut tasks = JoinSet::new();
        let ports = Listeners::bind(&settings).await?;
        let age = settings.connection_age;
        let bound = ports.bound()?;

        let (publish, published) = watch::channel(None);
        let (webhook_sender, webhooks) = watch::channel(Webhooks::default());
        let (unlisted_sender, unlisted) = watch::channel(Watched::all().into_iter().collect());
        let (root_sender, root_maps) = watch::channel(RootMaps::default());
        let (secret_sender, shared_secret) = watch::channel(None);
        let (ca_sender, ca) = watch::channel(None);
        let (key_addresses, wanted_keys) = watch::channel(BTreeSet::new());
        let (keys_sender, keys) = mpsc::channel(16);
        let outlets = Outlets {
            published: publish,
            webhooks: webhook_sender,
            roots: root_sender,
            authority: secret_sender,
            unlisted: unlisted_sender,
            key_addresses,
        };
        tasks.spawn(Engine::new(settings.clone(), outlets).run(inputs, keys));
        let fetcher = Fetcher::new(&settings);
        tasks.spawn(jwks::keep::keep(fetcher, settings.jwks.refresh, wanted_keys, keys_sender));
        let (proxies, metrics) = (Proxies::default(), Metrics::new());
        let debug = Debug {
            settings: settings.clone(),
            proxies: proxies.clone(),
            published: published.clone(),
            unlisted,
            authority: ca,
            metrics: metrics.clone(),
        };
        let authenticator = Arc::new(Callers {
            cluster: cluster.clone(),
            audiences: settings.token_audiences.clone(),
            published: published.clone(),
            clock: clock.clone(),
        });
        let gate = Gate { settings: settings.clone(), authenticator: authenticator.clone() };
        let debug = debug::router(debug, gate.clone());
        let limits = settings.connections;
        let port = |listener, tls, routes| Port { listener, tls, routes, age, limits };
        tasks.spawn(serve::serve(port(ports.debug, None, debug.clone())));
        tasks.spawn(serve::serve(port(ports.monitoring, None, debug)));
        if let Some(listener) = ports.introspection {
            tasks.spawn(serve::serve(port(listener, None, gate.before(SCOPES.router()))));
        }

        let trust_domain = trust_domain(published.clone()).await?;
        let found = authority::establish(&settings, &*cluster, &trust_domain, &*clock).await;
        let (found, origin) = found.map_err(ControlError::Authority)?;
        let (authority_sender, authority) = watch::channel(Arc::new(found));
        let keeper = Keeper {
            settings: settings.clone(),
            clock: clock.clone(),
            origin,
            shared: shared_secret,
            authority: authority_sender,
            status: ca_sender,
        };
        tasks.spawn(keeper.run());
        let publisher = Publisher::new(settings.clone(), cluster.clone(), authority.clone());
        tasks.spawn(publisher.run(published.clone(), root_maps));
        tasks.spawn(webhook::keep_trusted(settings.clone(), cluster.clone(), authority.clone(), webhooks));
        let tls = tls::start(settings.clone(), authority.clone(), clock.clone(), &trust_domain).await;
        let tls = tls.map_err(ControlError::Authority)?;
        tasks.spawn(serve::serve(port(ports.webhook, Some(tls.webhook), webhook::router(published.clone()))));

        let refusals = Refusals::start(settings.clone(), cluster.clone());
        let streams = Streams::new(&settings.connections);
        tasks.spawn(patches::report(proxies.clone(), published.clone(), refusals.clone()));
        tasks.spawn(policies::report(published.clone(), refusals.clone()));
        let ads = |authenticator| {
            let ads = Ads {
                proxies: proxies.clone(),
                published: published.clone(),
                authenticator,
                cluster: cluster.clone(),
                streams: streams.clone(),
                metrics: metrics.clone(),
                refusals: refusals.clone(),
                clock: clock.clone(),
            };
            tonic::service::Routes::new(lateen_xds::server::service(Arc::new(ads)))
        };
        let certificates = lateen_ca::service::service(
            settings.certificates,
            lateen_ca::service::Deps {
                authority: authority.clone(),
                authenticator: authenticator.clone(),
                clock: clock.clone(),
                witness: Arc::new(metrics.clone()),
            },
        );
        let secure = ads(Some(authenticator)).add_service(certificates);
        tasks.spawn(serve::serve(port(ports.plain, None, ads(None).into_axum_router())));
        tasks.spawn(serve::serve(port(ports.secure, Some(tls.secure), secure.into_axum_router())));
        tasks.spawn(push(proxies, published));
        tracing::info!("serving discovery on {} and {}", bound.plain, bound.secure);
        Ok(Self { bound, authority, tasks })
    }

    /// Where it listens.
    pub fn bound(&self) -> Bound {
        self.bound
    }

    /// The mesh's root certificates.
    pub fn root_pem(&self) -> String {
        self.authority.borrow().root_pem().to_owned()
    }

    /// Ends it.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

/// The ports, bound before anything else so that a taken one is told at once.
struct Listeners {
    plain: TcpListener,
    secure: TcpListener,
    webhook: TcpListener,
    debug: TcpListener,
    monitoring: TcpListener,
    introspection: Option<TcpListener>,
}

impl Listeners {
    async fn bind(settings: &Settings) -> Result<Self, ListenError> {
        let ports = settings.ports;
        Ok(Self {
            plain: serve::bind(ports.plain, "discovery (--grpcAddr)").await?,
            secure: serve::bind(ports.secure, "secure discovery (--secureGRPCAddr)").await?,
            webhook: serve::bind(ports.webhook, "webhooks (--httpsAddr)").await?,
            debug: serve::bind(ports.debug, "debugging (--httpAddr)").await?,
            monitoring: serve::bind(ports.monitoring, "metrics (--monitoringAddr)").await?,
            introspection: bind_introspection(ports.introspection).await,
        })
    }

    fn bound(&self) -> Result<Bound, ControlError> {
        let of = |listener: &TcpListener| listener.local_addr().map_err(ControlError::Address);
        Ok(Bound {
            plain: of(&self.plain)?,
            secure: of(&self.secure)?,
            webhook: of(&self.webhook)?,
            debug: of(&self.debug)?,
            monitoring: of(&self.monitoring)?,
            introspection: self.introspection.as_ref().map(of).transpose()?,
        })
    }
}

/// A mesh does not do without its control plane because of this port.
async fn bind_introspection(address: SocketAddr) -> Option<TcpListener> {
    let bound = serve::bind(address, "levels of the log (--ctrlz_port)").await;
    bound.inspect_err(|error| tracing::warn!(target: "controlz", "{error}")).ok()
}

async fn trust_domain(
    mut published: watch::Receiver<Option<Arc<Published>>>,
) -> Result<String, ControlError> {
    let first = published.wait_for(Option::is_some).await.map_err(|_| ControlError::NoCluster)?;
    Ok(first.as_ref().map_or("cluster.local", |published| published.mesh.trust_domain()).to_owned())
}

/// Pushes every publication to every proxy; publications that come meanwhile merge into one.
async fn push(proxies: Proxies, mut published: watch::Receiver<Option<Arc<Published>>>) {
    while published.changed().await.is_ok() {
        let Some(now) = published.borrow_and_update().clone() else { continue };
        let proxies = proxies.clone();
        let work = tokio::task::spawn_blocking(move || proxies.push(&now));
        if let Err(error) = work.await {
            tracing::error!(target: "ads", "a push failed: {error}");
        }
    }
}
