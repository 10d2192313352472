//! Kubernetes secrets as gateways ask for them: `kubernetes://NAME` and `kubernetes://NAME-cacert`.

use std::sync::Arc;

use base64::Engine as _;
use imbl::OrdMap;
use lateen_kube::WatchEvent;
use lateen_proto::Message;
use lateen_proto::envoy::config::core::v3::DataSource;
use lateen_proto::envoy::config::core::v3::data_source::Specifier;
use lateen_proto::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use lateen_proto::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, TlsCertificate,
};
use lateen_xds::Resource;
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

/// The scheme of the names.
const SCHEME: &str = "kubernetes://";
/// The suffix of the name under which the trust anchors of a credential are asked for.
const ANCHORS: &str = "-cacert";

/// The secrets that hold certificates: an immutable picture, cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    by_name: OrdMap<(String, String), Arc<Credential>>,
    generation: u64,
}

/// The parts of a secret that TLS needs. `Debug` tells none of them.
#[derive(Default, PartialEq)]
struct Credential {
    certificate: Vec<u8>,
    key: Vec<u8>,
    anchors: Vec<u8>,
    /// Certificates that the anchors' authorities revoked.
    revoked: Vec<u8>,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").finish_non_exhaustive()
    }
}

impl Secrets {
    /// Grows with every change.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Takes in what happened; true when a credential changed.
    pub fn take(&mut self, event: &WatchEvent) -> bool {
        let before = self.generation;
        match event {
            WatchEvent::Applied(secret) => self.put(secret),
            WatchEvent::Deleted(secret) => self.remove(&id(secret)),
            WatchEvent::Replaced(secrets) => {
                let there: Vec<_> = secrets.iter().map(id).collect();
                let gone: Vec<_> = self.by_name.keys().filter(|id| !there.contains(id)).cloned().collect();
                gone.iter().for_each(|id| self.remove(id));
                secrets.iter().for_each(|secret| self.put(secret));
            }
            WatchEvent::Failed(_) => {}
        }
        self.generation != before
    }

    /// The resource of that name, for a proxy of that namespace: a proxy gets its own namespace's secrets only.
    pub fn find(&self, name: &str, namespace: &str) -> Option<Resource> {
        let asked = name.strip_prefix(SCHEME)?;
        let asked = match asked.split_once('/') {
            Some((other, _)) if other != namespace => return None,
            Some((_, own)) => own,
            None => asked,
        };
        let exact = self.by_name.get(&(namespace.to_owned(), asked.to_owned()));
        let kind = match (exact, asked.strip_suffix(ANCHORS)) {
            (Some(credential), None) => credential.certificate()?,
            (Some(credential), Some(_)) => credential.anchors().or_else(|| credential.certificate())?,
            (None, Some(base)) => self.by_name.get(&(namespace.to_owned(), base.to_owned()))?.anchors()?,
            (None, None) => return None,
        };
        let secret = Secret { name: name.to_owned(), r#type: Some(kind) };
        Some(Resource::of(name, format!("{:016x}", xxh3_64(&secret.encode_to_vec())), &secret))
    }

    /// Whether a name is one of ours.
    pub fn knows_form(name: &str) -> bool {
        name.starts_with(SCHEME)
    }

    fn put(&mut self, secret: &Value) {
        let Some(credential) = Credential::read(&secret["data"]) else { return self.remove(&id(secret)) };
        let old = self.by_name.get(&id(secret));
        if old.is_none_or(|old| **old != credential) {
            self.by_name.insert(id(secret), Arc::new(credential));
            self.generation += 1;
        }
    }

    fn remove(&mut self, id: &(String, String)) {
        if self.by_name.remove(id).is_some() {
            self.generation += 1;
        }
    }
}

impl Credential {
    /// The keys of a TLS secret (`tls.crt`, `tls.key`, `ca.crt`, `ca.crl`), or of Istio's generic ones (`cert`, `key`, `cacert`,
    /// `crl`).
    fn read(data: &Value) -> Option<Self> {
        let bytes = |keys: [&str; 2]| -> Vec<u8> {
            let text = keys.iter().find_map(|key| data[*key].as_str());
            text.and_then(|text| base64::engine::general_purpose::STANDARD.decode(text).ok())
                .unwrap_or_default()
        };
        let credential = Self {
            certificate: bytes(["tls.crt", "cert"]),
            key: bytes(["tls.key", "key"]),
            anchors: bytes(["ca.crt", "cacert"]),
            revoked: bytes(["ca.crl", "crl"]),
        };
        let useful = !credential.anchors.is_empty()
            || (!credential.certificate.is_empty() && !credential.key.is_empty());
        useful.then_some(credential)
    }

    fn certificate(&self) -> Option<Type> {
        (!self.certificate.is_empty()).then(|| {
            Type::TlsCertificate(TlsCertificate {
                certificate_chain: Some(inline(&self.certificate)),
                private_key: Some(inline(&self.key)),
                ..Default::default()
            })
        })
    }

    fn anchors(&self) -> Option<Type> {
        (!self.anchors.is_empty()).then(|| {
            Type::ValidationContext(CertificateValidationContext {
                trusted_ca: Some(inline(&self.anchors)),
                crl: (!self.revoked.is_empty()).then(|| inline(&self.revoked)),
                ..Default::default()
            })
        })
    }
}

fn inline(bytes: &[u8]) -> DataSource {
    DataSource { specifier: Some(Specifier::InlineBytes(bytes.to_vec().into())), ..Default::default() }
}

fn id(secret: &Value) -> (String, String) {
    let text = |key: &str| secret["metadata"][key].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn secret(name: &str, data: Value) -> Value {
        json!({ "metadata": { "namespace": "istio-system", "name": name }, "data": data })
    }

    #[test]
    fn credentials_and_their_anchors_for_the_own_namespace_only() {
        let mut secrets = Secrets::default();
        let tls = secret("web", json!({ "tls.crt": "Yw==", "tls.key": "aw==", "ca.crt": "YQ==" }));
        let generic = secret("old-cacert", json!({ "cacert": "YQ==" }));
        let other = secret("password", json!({ "password": "eA==" }));
        assert!(secrets.take(&WatchEvent::Replaced(vec![tls.clone(), generic, other])));
        assert!(!secrets.take(&WatchEvent::Applied(tls.clone())), "the same again is no change");
        for name in ["kubernetes://web", "kubernetes://web-cacert", "kubernetes://old-cacert"] {
            assert!(secrets.find(name, "istio-system").is_some(), "{name}");
            assert!(secrets.find(name, "default").is_none(), "{name}");
        }
        assert!(secrets.find("kubernetes://istio-system/web", "default").is_none());
        assert!(secrets.find("kubernetes://istio-system/web", "istio-system").is_some());
        assert!(secrets.find("kubernetes://password", "istio-system").is_none());
        let version = secrets.find("kubernetes://web", "istio-system").unwrap().version;
        let renewed = secret("web", json!({ "tls.crt": "ZA==", "tls.key": "aw==" }));
        assert!(secrets.take(&WatchEvent::Applied(renewed)));
        assert_ne!(secrets.find("kubernetes://web", "istio-system").unwrap().version, version);
        let revoking = secret(
            "web",
            json!({ "tls.crt": "ZA==", "tls.key": "aw==", "ca.crt": "YQ==", "ca.crl": "cg==" }),
        );
        assert!(secrets.take(&WatchEvent::Applied(revoking)), "a list of revoked certificates is a change");
        let anchors = secrets.find("kubernetes://web-cacert", "istio-system").unwrap();
        let anchors: Secret = anchors.any.unpack().unwrap();
        let Some(Type::ValidationContext(context)) = anchors.r#type else { panic!("{anchors:?}") };
        assert_eq!(context.crl, Some(inline(b"r")));
        assert!(secrets.take(&WatchEvent::Deleted(tls)));
        assert!(secrets.find("kubernetes://web", "istio-system").is_none());
    }
}
