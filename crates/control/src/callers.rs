//! Who calls the secure port: the bearer of a service account's token, or the holder of a certificate of the mesh.

use std::sync::Arc;

use futures::future::BoxFuture;
use lateen_base::{Clock, SpiffeId};
use lateen_ca::service::{Authenticator, Credentials, Holder};
use lateen_kube::TokenIdentity;
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

/// The longest token that the cluster is asked about, in bytes: its own have about a thousand.
const LONGEST_TOKEN: usize = 16 << 10;

impl Authenticator for Callers {
    fn authenticate<'a>(&'a self, shown: Credentials<'a>) -> BoxFuture<'a, Result<SpiffeId, String>> {
        Box::pin(async move {
            let TokenIdentity { namespace, service_account, .. } = self.identify(shown).await?;
            Ok(SpiffeId { trust_domain: self.trust_domain(), namespace, service_account })
        })
    }
}

impl Callers {
    /// Who a caller is; bound to no pod where its certificate says it.
    ///
    /// # Errors
    /// When nothing that it shows is good; for the caller.
    pub(crate) async fn identify(&self, shown: Credentials<'_>) -> Result<TokenIdentity, String> {
        let by_token = match shown.token.filter(|token| !token.is_empty()) {
            Some(token) => self.owner(token).await,
            None => Err("no bearer token in the authorization header, and no certificate of the mesh".into()),
        };
        match (by_token, shown.certificate) {
            (Err(_), Some(holder)) => {
                let SpiffeId { namespace, service_account, .. } = self.holder(holder)?;
                Ok(TokenIdentity { namespace, service_account, pod: None })
            }
            (by_token, _) => by_token,
        }
    }

    /// Whose a token is.
    ///
    /// # Errors
    /// When it is not good for one of the audiences, or the cluster does not tell; for the caller.
    pub(crate) async fn owner(&self, token: &str) -> Result<TokenIdentity, String> {
        if token.len() > LONGEST_TOKEN {
            return Err(format!(
                "the token has {} bytes: at most {LONGEST_TOKEN} are looked at",
                token.len()
            ));
        }
        let reviewed = self.cluster.review(token, &self.audiences).await;
        reviewed
            .map_err(|reason| format!("the token could not be checked: {reason}"))?
            .ok_or_else(|| format!("the token is not good for {}", self.audiences.join(" or ")))
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
