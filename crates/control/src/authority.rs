//! The mesh's authority: plugged in, found in the cluster, or made; and whose token is whose.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lateen_base::Clock;
use lateen_ca::chain::Facts;
use lateen_ca::{Authority, secret_keys};
use lateen_kube::WatchEvent;
use lateen_status as status;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::watch;

use crate::cluster::{Backoff, Cluster, SecretData, decode, within};
use crate::settings::Settings;

/// The secret of an authority that the control plane made.
const OWN_SECRET: &str = "istio-ca-secret";
const OWN_SECRET_TYPE: &str = "istio.io/ca-root";
/// The secret of a plugged-in authority, and where it is mounted.
const PLUGGED_SECRET: &str = "cacerts";
const PLUGGED: &str = "etc/cacerts";
/// How often its files are looked at: a mounted secret's follow it.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Where an authority was found; the first goes before the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// In the files of a plugged-in one.
    Plugged,
    /// In the secret that control planes share.
    Shared,
}

impl Origin {
    /// The secret, as `NAMESPACE/NAME`.
    fn secret(self, settings: &Settings) -> String {
        let name = match self {
            Self::Plugged => PLUGGED_SECRET,
            Self::Shared => OWN_SECRET,
        };
        format!("{}/{name}", settings.namespace)
    }

    fn describe(self, settings: &Settings) -> String {
        match self {
            Self::Plugged => format!("files in {PLUGGED} (secret {})", self.secret(settings)),
            Self::Shared => format!("secret {}", self.secret(settings)),
        }
    }
}

/// Finds the authority, or makes one. Two control planes that start at once end with the same. While the cluster
/// refuses or does not answer, it is asked again, with back-off.
///
/// # Errors
/// When there is an authority that cannot be used: somebody has to look at it.
pub(crate) async fn establish(
    settings: &Settings,
    cluster: &dyn Cluster,
    trust_domain: &str,
    clock: &dyn Clock,
) -> Result<(Authority, Origin), String> {
    tracing::info!("creating CA and initializing public key");
    tracing::info!("Using istiod file format for signing ca files");
    if let Some(plugged) = plugged(&settings.root.join(PLUGGED))? {
        tracing::info!("Use plugged-in cert at etc/cacerts/ca-key.pem");
        return Authority::from_secret(&plugged, clock.now())
            .map(|authority| (authority, Origin::Plugged))
            .map_err(|e| format!("plugged-in CA in {PLUGGED}: {e}"));
    }
    tracing::info!("No plugged-in cert at etc/cacerts/ca-key.pem; self-signed cert is used");
    let made = Authority::self_signed(trust_domain, clock.now(), settings.root_lifetime)
        .map_err(|e| e.to_string())?;
    let mut backoff = Backoff::new(settings.retry);
    loop {
        match shared(settings, cluster, &made).await {
            Ok(None) => return Ok((made, Origin::Shared)),
            Ok(Some(secret)) => {
                return Authority::from_secret(&secret, clock.now())
                    .map(|authority| (authority, Origin::Shared))
                    .map_err(|e| format!("secret {}/{OWN_SECRET}: {e}", settings.namespace));
            }
            Err(reason) => {
                let wait = backoff.next();
                tracing::warn!(
                    target: "ca",
                    "secret {}/{OWN_SECRET}: {reason}; trying again in {wait:?}",
                    settings.namespace
                );
                tokio::time::sleep(wait).await;
            }
        }
    }
}

/// The authority that the cluster keeps; none when it now keeps `made`.
async fn shared(
    settings: &Settings,
    cluster: &dyn Cluster,
    made: &Authority,
) -> Result<Option<SecretData>, String> {
    let namespace = &settings.namespace;
    if let Some(secret) = within(settings, cluster.secret(namespace, OWN_SECRET)).await? {
        return Ok(Some(secret));
    }
    let create = cluster.create_secret(namespace, OWN_SECRET, OWN_SECRET_TYPE, made.secret());
    if within(settings, create).await? {
        return Ok(None);
    }
    // Another control plane was faster, or our own request arrived although its answer did not.
    let secret = within(settings, cluster.secret(namespace, OWN_SECRET)).await?;
    secret.map(Some).ok_or_else(|| "it came and went".to_owned())
}

/// The files of a plugged-in authority; none when there is no key.
fn plugged(folder: &Path) -> Result<Option<SecretData>, String> {
    if !folder.join(secret_keys::CA_KEY).exists() {
        return Ok(None);
    }
    let keys = [secret_keys::CA_CERT, secret_keys::CA_KEY, secret_keys::CERT_CHAIN, secret_keys::ROOT_CERT];
    let mut data = SecretData::new();
    for key in keys {
        let path = folder.join(key);
        match std::fs::read(&path) {
            Ok(bytes) => {
                data.insert(key.to_owned(), bytes);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("{}: {error}", path.display())),
        }
    }
    Ok(Some(data))
}

/// The newest data of the secret that control planes share; none while it is not known, or cannot be read.
pub(crate) type SharedSecret = Option<SecretData>;

/// What a watch of secrets tells about the one that control planes share; none when it tells nothing. That it is gone
/// tells nothing, too: what is in use stays.
pub(crate) fn told(event: &WatchEvent, namespace: &str) -> Option<SecretData> {
    let objects = match event {
        WatchEvent::Applied(object) => std::slice::from_ref(object),
        WatchEvent::Replaced(objects) => objects,
        WatchEvent::Deleted(_) | WatchEvent::Failed(_) => &[],
    };
    let ours = objects.iter().find(|object| {
        object["metadata"]["name"] == OWN_SECRET && object["metadata"]["namespace"] == namespace
    })?;
    let data = decode(ours);
    data.inspect_err(|e| tracing::error!(target: "ca", "secret {namespace}/{OWN_SECRET}: {e}")).ok()
}

/// Takes the authority in use from its secret or files whenever they change.
pub(crate) struct Keeper {
    pub(crate) settings: Arc<Settings>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) origin: Origin,
    pub(crate) shared: watch::Receiver<SharedSecret>,
    pub(crate) authority: watch::Sender<Arc<Authority>>,
    pub(crate) status: watch::Sender<Option<status::Authority>>,
}

impl Keeper {
    /// Looks until the control plane ends.
    pub(crate) async fn run(mut self) {
        let mut seen: BTreeMap<Origin, SecretData> = BTreeMap::new();
        let mut refused = BTreeMap::new();
        self.tell(&refused);
        loop {
            for (origin, data) in self.newest() {
                // What is plugged in may have been taken a moment ago.
                if seen.get(&origin) == Some(&data) || origin > self.origin {
                    continue;
                }
                let before = self.authority.borrow().clone();
                match self.take(origin, &data) {
                    Ok(()) => drop(refused.remove(&origin)),
                    Err(reason) => {
                        let source = origin.describe(&self.settings);
                        tracing::error!(target: "ca", "{source}: {reason}; the authority in use stays");
                        refused.insert(origin, format!("{source}: {reason}"));
                    }
                }
                self.tell(&refused);
                if !Arc::ptr_eq(&before, &self.authority.borrow()) {
                    // What was refused may fit the authority that is in use now.
                    seen.clear();
                }
                seen.insert(origin, data);
            }
            tokio::select! {
                changed = self.shared.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// What there is now: what is plugged in goes before what is shared.
    fn newest(&mut self) -> Vec<(Origin, SecretData)> {
        let plugged = plugged(&self.settings.root.join(PLUGGED)).unwrap_or_else(|reason| {
            tracing::warn!(target: "ca", "{reason}");
            None
        });
        let shared = self.shared.borrow_and_update().clone();
        let plugged = plugged.map(|data| (Origin::Plugged, data));
        plugged.into_iter().chain(shared.map(|data| (Origin::Shared, data))).collect()
    }

    fn take(&mut self, origin: Origin, data: &SecretData) -> Result<(), String> {
        let new = Authority::from_secret(data, self.clock.now()).map_err(|e| e.to_string())?;
        let old = self.authority.borrow().clone();
        if same(&old, &new) && origin == self.origin {
            return Ok(());
        }
        // Peers that hold certificates of an old root would be refused by those that have heard of the new one. Within
        // one source the stages of an exchange see to all but the root that signs now.
        let needed = match origin == self.origin {
            true => vec![old.root().clone()],
            false => old.roots(),
        };
        let roots = new.roots();
        if let Some(lost) = needed.iter().find(|root| roots.iter().all(|new| new.sha256 != root.sha256)) {
            return Err(format!(
                "{} has not the root certificate in use, serial number {}: workloads would refuse each other. Exchange \
                 it by `lateen x ca rotate`, or put both roots there first",
                secret_keys::ROOT_CERT,
                lost.serial
            ));
        }
        let roots: Vec<String> = new.roots().into_iter().map(|root| root.serial).collect();
        tracing::info!(
            target: "ca",
            "authority taken from {}: signs under root {}; trusted roots: {}",
            origin.describe(&self.settings),
            new.root().serial,
            roots.join(", ")
        );
        self.origin = origin;
        self.authority.send_replace(Arc::new(new));
        Ok(())
    }

    fn tell(&self, refused: &BTreeMap<Origin, String>) {
        let authority = self.authority.borrow();
        self.status.send_replace(Some(status::Authority {
            source: self.origin.describe(&self.settings),
            secret: self.origin.secret(&self.settings),
            signs_until: rfc3339(authority.not_after()),
            root: described(authority.root()),
            roots: authority.roots().iter().map(described).collect(),
            refused: refused.values().next().cloned(),
        }));
    }
}

/// Whether two authorities sign and trust the same.
fn same(one: &Authority, other: &Authority) -> bool {
    one.secret() == other.secret()
}

fn described(facts: &Facts) -> status::RootCertificate {
    status::RootCertificate {
        subject: facts.subject.clone(),
        serial: facts.serial.clone(),
        sha256: facts.sha256.clone(),
        not_after: rfc3339(facts.not_after),
    }
}

fn rfc3339(time: std::time::SystemTime) -> String {
    OffsetDateTime::from(time).format(&Rfc3339).unwrap_or_default()
}
