//! Who calls the secure port: the bearer of a service account's token, or the holder of a certificate of the mesh.

use std::sync::Arc;

use futures::future::BoxFuture;
use lateen_base::{Clock, SpiffeId};
use lateen_ca::service::{Authenticator, Credentials, Holder};
use tokio::sync::watch;

use crate::cluster::Cluster;
use crate::engine::Published;

/// Asks the cluster about tokens. A certificate counts for who brings no token, or none that is good any more, as a virtual
/// machine's agent (`PROV_CERT`).
pub(crate) struct Callers {
    pub(crate) cluster: Arc<dyn Cluster>,
    pub(crate) audiences: Vec<String>,
    pub(crate) published: watch::Receiver<Option<Arc<Published>>>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Authenticator for Callers {
    fn authenticate<'a>(&'a self, shown: Credentials<'a>) -> BoxFuture<'a, Result<SpiffeId, String>> {
        Box::pin(async move {
            let by_token = match shown.token {
                Some(token) => self.bearer(token).await,
                None => {
                    Err("no bearer token in the authorization header, and no certificate of the mesh".into())
                }
            };
            match (by_token, shown.certificate) {
                (Err(_), Some(holder)) => self.holder(holder),
                (by_token, _) => by_token,
            }
        })
    }
}

impl Callers {
    async fn bearer(&self, token: &str) -> Result<SpiffeId, String> {
        let reviewed = self.cluster.review(token, &self.audiences).await;
        let (namespace, service_account) = reviewed
            .map_err(|reason| format!("the token could not be checked: {reason}"))?
            .ok_or_else(|| format!("the token is not good for {}", self.audiences.join(" or ")))?;
        Ok(SpiffeId { trust_domain: self.trust_domain(), namespace, service_account })
    }

    /// The chain was verified by the handshake, which may be long ago.
    fn holder(&self, holder: &Holder) -> Result<SpiffeId, String> {
        let own = self.trust_domain();
        if holder.id.trust_domain != own {
            return Err(format!(
                "the certificate is of {}, and this mesh's trust domain is {own}",
                holder.id
            ));
        }
        match holder.not_after > self.clock.now() {
            true => Ok(holder.id.clone()),
            false => Err(format!("the certificate of {} has run out", holder.id)),
        }
    }

    fn trust_domain(&self) -> String {
        let published = self.published.borrow();
        published.as_ref().map_or("cluster.local", |p| p.mesh.trust_domain()).to_owned()
    }
}
