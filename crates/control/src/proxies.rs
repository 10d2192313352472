//! The connected proxies, and what each gets of a publication.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;
use lateen_translate::{Proxy, generate_lists};
use lateen_xds::Catalog;
use lateen_xds::server::{Dialect, TypeStatus};
use tokio::sync::{Notify, watch};

use crate::catalog::ProxyCatalog;
use crate::engine::Published;

/// The proxies that are connected now. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Proxies {
    live: Arc<Mutex<BTreeMap<u64, Arc<Connected>>>>,
    next: Arc<AtomicU64>,
    /// Told when a proxy came or went, or got something else.
    pub(crate) news: Arc<Notify>,
}

/// A connected proxy.
pub(crate) struct Connected {
    number: u64,
    pub(crate) node: String,
    pub(crate) proxy: Proxy,
    pub(crate) since: SystemTime,
    pub(crate) address: String,
    pub(crate) dialect: Dialect,
    /// Whether it may have the secrets of its namespace.
    credentials: bool,
    pub(crate) status: Mutex<Vec<TypeStatus>>,
    /// The clusters that it asked for by name.
    pub(crate) asked: Mutex<Vec<Arc<str>>>,
    current: ArcSwap<ProxyCatalog>,
    catalogs: watch::Sender<Arc<dyn Catalog>>,
    seen: AtomicU64,
}

/// Takes the proxy off the list when the connection ends.
pub(crate) struct Registration {
    proxies: Proxies,
    pub(crate) connected: Arc<Connected>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.proxies.lock().remove(&self.connected.number);
        self.proxies.news.notify_one();
        tracing::info!(target: "ads", "ADS: {:?} {} terminated", self.connected.address, self.connected.id());
    }
}

/// Who connects.
pub(crate) struct Newcomer {
    pub(crate) node: String,
    pub(crate) proxy: Proxy,
    pub(crate) address: String,
    pub(crate) dialect: Dialect,
    /// Whether it may have the secrets of its namespace.
    pub(crate) credentials: bool,
}

impl Proxies {
    /// Adds a proxy, with what it gets of `published`.
    pub(crate) fn add(
        &self,
        newcomer: Newcomer,
        published: &Published,
        since: SystemTime,
    ) -> Result<(Registration, watch::Receiver<Arc<dyn Catalog>>), String> {
        let Newcomer { node, mut proxy, address, dialect, credentials } = newcomer;
        proxy.state_of_the_world = dialect == Dialect::StateOfTheWorld;
        let catalog = Arc::new(catalog_of(&proxy, credentials, published)?);
        let (catalogs, receiver) = watch::channel::<Arc<dyn Catalog>>(catalog.clone());
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let connected = Arc::new(Connected {
            number,
            node,
            proxy,
            since,
            address,
            dialect,
            credentials,
            status: Mutex::default(),
            asked: Mutex::default(),
            current: ArcSwap::new(catalog),
            catalogs,
            seen: AtomicU64::new(published.number),
        });
        self.lock().insert(number, connected.clone());
        self.news.notify_one();
        Ok((Registration { proxies: self.clone(), connected }, receiver))
    }

    /// The connected proxies, in the order they came.
    pub(crate) fn list(&self) -> Vec<Arc<Connected>> {
        self.lock().values().cloned().collect()
    }

    /// Gives every proxy what it gets of a publication. Blocks; proxies are worked on in parallel.
    pub(crate) fn push(&self, published: &Published) {
        let proxies = self.list();
        let started = Instant::now();
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(proxies.len().max(1));
        let next = AtomicU64::new(0);
        let work = || {
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed) as usize;
                let Some(connected) = proxies.get(at) else { return };
                connected.push(published);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(work);
            }
            work();
        });
        tracing::debug!(
            target: "ads",
            "Push {}: {} proxies in {:?}",
            published.number,
            proxies.len(),
            started.elapsed()
        );
        self.news.notify_one();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Arc<Connected>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connected {
    /// The proxy's name with the number of its connection, as logs have it.
    pub(crate) fn id(&self) -> String {
        format!("{}-{}", self.proxy.id, self.number)
    }

    /// What the proxy gets now.
    pub(crate) fn catalog(&self) -> Arc<ProxyCatalog> {
        self.current.load_full()
    }

    /// Gives the proxy what it gets of a publication, unless it already has a newer one.
    pub(crate) fn push(&self, published: &Published) {
        if self.seen.fetch_max(published.number, Ordering::SeqCst) >= published.number {
            return;
        }
        match catalog_of(&self.proxy, self.credentials, published) {
            Ok(mut catalog) => {
                if catalog.follow(&self.current.load()) {
                    let catalog = Arc::new(catalog);
                    self.current.store(catalog.clone());
                    self.catalogs.send_replace(catalog);
                }
            }
            Err(reason) => tracing::error!(target: "ads", "{}: {reason}", self.node),
        }
    }
}

/// Translation must not end the control plane: a panic costs the proxy this push, and is said.
fn catalog_of(proxy: &Proxy, credentials: bool, published: &Published) -> Result<ProxyCatalog, String> {
    let proxy = as_registered(proxy, published);
    let generated = catch_unwind(AssertUnwindSafe(|| generate_lists(&published.snapshot, &proxy)));
    match generated {
        Ok(resources) => {
            let secrets_of = credentials.then(|| proxy.namespace.to_string());
            Ok(ProxyCatalog::new(resources, published.secrets.clone(), secrets_of))
        }
        Err(_) => Err("translation failed; the proxy keeps what it has".to_owned()),
    }
}

/// The proxy with what the registry knows better than its bootstrap: its labels now, and where it runs.
fn as_registered(proxy: &Proxy, published: &Published) -> Proxy {
    let mut proxy = proxy.clone();
    let address = proxy.addresses.first();
    let at = address.and_then(|address| published.snapshot.view.workloads.get(address));
    let own = at.and_then(|workloads| {
        workloads
            .iter()
            .find(|w| w.namespace == proxy.namespace && proxy.id == format!("{}.{}", w.name, w.namespace))
    });
    if let Some(workload) = own {
        if proxy.locality == Default::default() {
            proxy.locality = workload.locality.clone();
        }
        proxy.labels = workload.labels.clone();
    }
    proxy
}
