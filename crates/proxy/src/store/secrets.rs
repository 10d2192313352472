//! Secrets, and what is made again when they change.

use std::sync::Arc;

use lateen_route::tls::{CertificateSource, CommonTls, Secret};

use super::{Rejected, Source, Store, unpack};

/// A secret. `Debug` leaves out what came, which has keys.
pub(crate) struct SecretEntry {
    /// As it came.
    pub source: Source,
    /// What it holds.
    pub secret: Arc<Secret>,
}

impl std::fmt::Debug for SecretEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretEntry").field("secret", &self.secret).finish_non_exhaustive()
    }
}

impl Store {
    /// Takes a secret, and makes again what uses it.
    ///
    /// # Errors
    /// When it is refused.
    pub(crate) fn set_secret(&mut self, source: Source) -> Result<(), Rejected> {
        let message = unpack(&source.any)?;
        let secret = Arc::new(lateen_route::compile_secret(&message)?.value);
        super::tls::check_secret(&secret).map_err(|reason| Rejected::new(&secret.name, reason))?;
        let name = secret.name.clone();
        self.secrets.insert(name.clone(), SecretEntry { source, secret });
        self.secret_changed(&name);
        Ok(())
    }

    /// Forgets a secret; what was made with it goes on.
    pub(crate) fn remove_secret(&mut self, name: &str) {
        self.secrets.remove(name);
    }

    fn secret_changed(&mut self, name: &str) {
        self.clusters_use_secret(name);
        self.listeners_use_secret(name);
    }
}

/// The secrets that a TLS context refers to.
pub(super) fn names(common: &CommonTls) -> impl Iterator<Item = &lateen_route::tls::SecretRef> {
    let certificates = common.certificates.iter().filter_map(|certificate| match certificate {
        CertificateSource::Sds(reference) => Some(reference),
        CertificateSource::Inline(_) => None,
    });
    certificates.chain(common.validation.iter().filter_map(|validation| validation.sds.as_ref()))
}
