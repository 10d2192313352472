//! The mesh's authority: plugged in, found in the cluster, or made; and whose token is whose.

use std::path::Path;
use std::sync::Arc;

use futures::future::BoxFuture;
use lateen_base::{Clock, SpiffeId};
use lateen_ca::service::Authenticator;
use lateen_ca::{Authority, secret_keys};
use tokio::sync::watch;

use crate::cluster::{Backoff, Cluster, SecretData, within};
use crate::engine::Published;
use crate::settings::Settings;

/// The secret of an authority that the control plane made.
const OWN_SECRET: &str = "istio-ca-secret";
const OWN_SECRET_TYPE: &str = "istio.io/ca-root";
/// Where a plugged-in authority is mounted.
const PLUGGED: &str = "etc/cacerts";

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
) -> Result<Authority, String> {
    tracing::info!("creating CA and initializing public key");
    tracing::info!("Using istiod file format for signing ca files");
    if let Some(plugged) = plugged(&settings.root.join(PLUGGED))? {
        tracing::info!("Use plugged-in cert at etc/cacerts/ca-key.pem");
        return Authority::from_secret(&plugged, clock.now())
            .map_err(|e| format!("plugged-in CA in {PLUGGED}: {e}"));
    }
    tracing::info!("No plugged-in cert at etc/cacerts/ca-key.pem; self-signed cert is used");
    let made = Authority::self_signed(trust_domain, clock.now(), settings.root_lifetime)
        .map_err(|e| e.to_string())?;
    let mut backoff = Backoff::new(settings.retry);
    loop {
        match shared(settings, cluster, &made).await {
            Ok(None) => return Ok(made),
            Ok(Some(secret)) => {
                return Authority::from_secret(&secret, clock.now())
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

/// Tells identities by asking the cluster about tokens.
pub(crate) struct TokenAuthenticator {
    pub(crate) cluster: Arc<dyn Cluster>,
    pub(crate) audiences: Vec<String>,
    pub(crate) published: watch::Receiver<Option<Arc<Published>>>,
}

impl Authenticator for TokenAuthenticator {
    fn authenticate<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<SpiffeId, String>> {
        Box::pin(async move {
            let reviewed = self.cluster.review(token, &self.audiences).await;
            let (namespace, service_account) = reviewed
                .map_err(|reason| format!("the token could not be checked: {reason}"))?
                .ok_or_else(|| format!("the token is not good for {}", self.audiences.join(" or ")))?;
            let published = self.published.borrow();
            let trust_domain = published.as_ref().map_or("cluster.local", |p| p.mesh.trust_domain());
            Ok(SpiffeId { trust_domain: trust_domain.to_owned(), namespace, service_account })
        })
    }
}
