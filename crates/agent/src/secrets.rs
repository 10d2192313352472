//! The secrets that the proxy asks for by name: `default` and `ROOTCA` of the workload, `file-cert:CERT~KEY` and
//! `file-root:CA` from the pod's files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use lateen_proto::Message;
use lateen_proto::envoy::config::core::v3::data_source::Specifier;
use lateen_proto::envoy::config::core::v3::{DataSource, Node};
use lateen_proto::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use lateen_proto::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, TlsCertificate,
};
use lateen_xds::server::{Discovery, Heard, Observer, Opened, Peer, Push, Session};
use lateen_xds::{Catalog, Entry, Resource, types};
use tokio::sync::watch;
use tonic::Status;
use xxhash_rust::xxh3::xxh3_64;

use crate::files;
use crate::identity::Workload;

/// The name of the workload's certificate.
pub(crate) const WORKLOAD: &str = "default";
/// The name of the roots that it trusts.
pub(crate) const ROOT: &str = "ROOTCA";
/// How often the files behind served secrets are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Serves secrets.
pub(crate) struct Secrets {
    catalogs: watch::Receiver<Arc<dyn Catalog>>,
}

impl Secrets {
    /// Starts to follow the workload's certificate and the files.
    pub(crate) fn start(root: PathBuf, workload: watch::Receiver<Option<Arc<Workload>>>) -> Self {
        let files = Arc::new(Files { root, served: Mutex::default() });
        let first = SecretCatalog { files: files.clone(), workload: None, stamp: 0 };
        let (publish, catalogs) = watch::channel::<Arc<dyn Catalog>>(Arc::new(first));
        tokio::spawn(follow(files, workload, publish));
        Self { catalogs }
    }
}

/// Publishes a new catalog whenever the certificate or a served file changes.
async fn follow(
    files: Arc<Files>,
    mut workload: watch::Receiver<Option<Arc<Workload>>>,
    publish: watch::Sender<Arc<dyn Catalog>>,
) {
    let mut tick = tokio::time::interval(LOOK_EVERY);
    let mut stamp = 0;
    loop {
        stamp += 1;
        let workload_now = workload.borrow_and_update().clone();
        publish.send_replace(Arc::new(SecretCatalog { files: files.clone(), workload: workload_now, stamp }));
        loop {
            tokio::select! {
                changed = workload.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
                _ = tick.tick() => if files.changed() { break },
            }
        }
    }
}

impl Discovery for Secrets {
    fn open<'a>(&'a self, _: Peer, node: &'a Node) -> BoxFuture<'a, Result<Opened, Status>> {
        // `sidecar~ADDRESS~POD.NAMESPACE~DOMAIN`: logs have the pod.
        let name = node.id.split('~').nth(2).unwrap_or(&node.id).to_owned();
        let observer = Box::new(Log { node: name });
        Box::pin(async move { Ok(Opened { catalogs: self.catalogs.clone(), observer }) })
    }
}

/// Logs pushes and refusals.
struct Log {
    node: String,
}

impl Observer for Log {
    fn heard(&mut self, _: &Session, heard: &Heard) {
        if let Some(lateen_xds::server::Verdict::Nack(rejections)) = &heard.verdict {
            for rejection in rejections {
                tracing::warn!(target: "ads", "SDS: NACK {}: {}", rejection.resource, rejection.reason);
            }
        }
    }

    fn pushed(&mut self, _: &Session, push: &Push) {
        for resource in &push.resources {
            tracing::info!(
                target: "ads",
                "SDS: PUSH request for node:{} resources:1 size:{} resource:{}",
                self.node,
                lateen_runtime::logs::size(resource.any.value.len()),
                resource.name
            );
        }
        for name in &push.removed {
            tracing::warn!(target: "ads", "SDS: node:{} asks for {name}, which cannot be had", self.node);
        }
    }
}

/// The secrets at one moment.
struct SecretCatalog {
    files: Arc<Files>,
    workload: Option<Arc<Workload>>,
    stamp: u64,
}

impl Catalog for SecretCatalog {
    fn stamp(&self, _: &str) -> u64 {
        self.stamp
    }

    fn all<'a>(&'a self, _: &str) -> Box<dyn Iterator<Item = Entry<'a>> + 'a> {
        Box::new(std::iter::empty())
    }

    fn find(&self, type_url: &str, name: &str) -> Option<Resource> {
        let workload = self.workload.as_ref();
        let kind = match name {
            _ if type_url != types::SECRET => return None,
            WORKLOAD => workload.map(|w| certificate(w.chain_pem.as_bytes(), w.key_pem.as_bytes()))?,
            ROOT => workload.map(|w| trust(w.root_pem.as_bytes()))?,
            name => self.files.serve(name)?,
        };
        Some(resource(name, kind))
    }

    fn is_pending(&self, type_url: &str, name: &str) -> bool {
        type_url == types::SECRET && matches!(name, WORKLOAD | ROOT) && self.workload.is_none()
    }
}

/// Secrets in files, and what of them was served.
struct Files {
    root: PathBuf,
    served: Mutex<BTreeMap<String, Option<u64>>>,
}

impl Files {
    fn serve(&self, name: &str) -> Option<Type> {
        let content = self.read(name);
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        served.insert(name.to_owned(), content.as_ref().map(fingerprint));
        content
    }

    fn changed(&self) -> bool {
        let served = self.served.lock().unwrap_or_else(PoisonError::into_inner).clone();
        served.into_iter().any(|(name, was)| self.read(&name).as_ref().map(fingerprint) != was)
    }

    fn read(&self, name: &str) -> Option<Type> {
        let file = |path: &str| std::fs::read(self.root.join(files::relative(Path::new(path)))).ok();
        if let Some((chain, key)) = name.strip_prefix("file-cert:").and_then(|pair| pair.split_once('~')) {
            return Some(certificate(&file(chain)?, &file(key)?));
        }
        name.strip_prefix("file-root:").and_then(|path| Some(trust(&file(path)?)))
    }
}

fn certificate(chain: &[u8], key: &[u8]) -> Type {
    Type::TlsCertificate(TlsCertificate {
        certificate_chain: Some(inline(chain)),
        private_key: Some(inline(key)),
        ..Default::default()
    })
}

fn trust(root: &[u8]) -> Type {
    Type::ValidationContext(CertificateValidationContext {
        trusted_ca: Some(inline(root)),
        ..Default::default()
    })
}

fn inline(bytes: &[u8]) -> DataSource {
    DataSource { specifier: Some(Specifier::InlineBytes(bytes.to_vec().into())), ..Default::default() }
}

fn fingerprint(kind: &Type) -> u64 {
    xxh3_64(&Secret { name: String::new(), r#type: Some(kind.clone()) }.encode_to_vec())
}

fn resource(name: &str, kind: Type) -> Resource {
    let version = format!("{:016x}", fingerprint(&kind));
    Resource::of(name, version, &Secret { name: name.to_owned(), r#type: Some(kind) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_served_under_the_root_and_changes_are_seen() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("etc/certs")).unwrap();
        let write = |name: &str, text: &str| std::fs::write(root.path().join("etc/certs").join(name), text);
        write("cert.pem", "C").unwrap();
        write("key.pem", "K").unwrap();
        let files = Arc::new(Files { root: root.path().to_owned(), served: Mutex::default() });
        let catalog = SecretCatalog { files: files.clone(), workload: None, stamp: 0 };
        let name = "file-cert:/etc/certs/cert.pem~/etc/certs/key.pem";
        let first = catalog.find(types::SECRET, name).unwrap();
        assert!(!files.changed());
        write("cert.pem", "D").unwrap();
        assert!(files.changed());
        assert_ne!(catalog.find(types::SECRET, name).unwrap().version, first.version);
        assert!(catalog.find(types::SECRET, "file-root:/etc/certs/none.pem").is_none());
        assert!(!catalog.is_pending(types::SECRET, "file-root:/etc/certs/none.pem"));
        assert!(catalog.is_pending(types::SECRET, "default"));
    }
}
