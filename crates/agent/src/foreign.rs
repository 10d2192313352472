//! Another's secret discovery on the workload's socket, as SPIRE's agent serves it: state of the world, the secrets
//! `default` and `ROOTCA`. They are served on to the proxy by the agent's own socket, beside the secrets of files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lateen_base::SpiffeId;
use lateen_proto::Message as _;
use lateen_proto::envoy::config::core::v3::data_source::Specifier;
use lateen_proto::envoy::config::core::v3::{DataSource, Node};
use lateen_proto::envoy::extensions::transport_sockets::tls::v3::Secret;
use lateen_proto::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use lateen_proto::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use lateen_proto::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use lateen_proto::google::rpc::Status as RpcStatus;
use lateen_xds::transport::Target;
use lateen_xds::{Backoff, types};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use crate::following;
use crate::identity::{Published, Workload};
use crate::secrets::{ROOT, WORKLOAD};
use crate::workload_api;

/// gRPC's code of an argument that is wrong.
const INVALID_ARGUMENT: i32 = 3;

/// Whether somebody answers on a socket. One that a former run left does not.
pub(crate) async fn answers(path: &Path) -> bool {
    UnixStream::connect(path).await.is_ok()
}

/// Takes certificates from the socket, for ever; by SPIFFE's Workload API where that is what is served there.
pub(crate) async fn follow(path: PathBuf, node: String, wanted: SpiffeId, publish: Published) {
    let mut backoff = Backoff::default();
    loop {
        let mut follower = Follower { publish: &publish, parts: Parts::default(), taken: false };
        let reason = match follower.converse(&path, &node).await {
            Ok(()) => "the stream ended".to_owned(),
            Err(Broken::Unknown) => {
                tracing::info!("{}: no secret discovery; asking by the SPIFFE Workload API", path.display());
                return workload_api::follow(path, wanted, publish).await;
            }
            Err(Broken::For(reason)) => reason,
        };
        let socket = format!("secrets of {}", path.display());
        following::pause(&mut backoff, follower.taken, socket, &reason).await;
    }
}

/// Why a conversation ended.
enum Broken {
    /// The server does not know secret discovery.
    Unknown,
    /// Anything else, in words.
    For(String),
}

impl From<String> for Broken {
    fn from(reason: String) -> Self {
        Self::For(reason)
    }
}

impl From<Status> for Broken {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::Unimplemented => Self::Unknown,
            code => Self::For(format!("{code}: {}", status.message())),
        }
    }
}

/// The parts that came so far.
#[derive(Default)]
struct Parts {
    certificate: Option<(String, String)>,
    roots: Option<String>,
}

struct Follower<'a> {
    publish: &'a Published,
    parts: Parts,
    taken: bool,
}

impl Follower<'_> {
    async fn converse(&mut self, path: &Path, node: &str) -> Result<(), Broken> {
        let channel = Target::Unix(path.to_owned()).channel().await.map_err(|e| e.to_string())?;
        let (requests, outgoing) = mpsc::channel(4);
        let node = Node { id: node.to_owned(), ..Node::default() };
        let first = request(Some(node), &DiscoveryResponse::default(), String::new(), None);
        requests.send(first).await.map_err(|e| e.to_string())?;
        let mut client = SecretDiscoveryServiceClient::new(channel);
        let answer = client.stream_secrets(ReceiverStream::new(outgoing)).await;
        let mut responses = answer?.into_inner();
        let mut version = String::new();
        while let Some(response) = responses.message().await? {
            let refused = self.take(&response).err();
            match &refused {
                None => version.clone_from(&response.version_info),
                Some(reason) => tracing::warn!(target: "cache", "secrets of {}: {reason}", path.display()),
            }
            let next = request(None, &response, version.clone(), refused);
            requests.send(next).await.map_err(|_| "the stream ended".to_owned())?;
        }
        Ok(())
    }

    fn take(&mut self, response: &DiscoveryResponse) -> Result<(), String> {
        for any in &response.resources {
            let secret = Secret::decode(&*any.value).map_err(|e| format!("a secret does not parse: {e}"))?;
            self.parts.take(&secret)?;
        }
        let (Some((chain, key)), Some(roots)) = (&self.parts.certificate, &self.parts.roots) else {
            return Ok(());
        };
        let workload = Workload { chain_pem: chain.clone(), key_pem: key.clone(), root_pem: roots.clone() };
        self.taken = true;
        let new = self.publish.borrow().as_deref() != Some(&workload);
        if new {
            tracing::info!(target: "cache", "workload certificate taken from the workload's socket");
            self.publish.send_replace(Some(Arc::new(workload)));
        }
        Ok(())
    }
}

impl Parts {
    fn take(&mut self, secret: &Secret) -> Result<(), String> {
        let wrong = |what: &str| format!("secret {}: {what}", secret.name);
        match (secret.name.as_str(), &secret.r#type) {
            (WORKLOAD, Some(Type::TlsCertificate(certificate))) => {
                let chain = text(certificate.certificate_chain.as_ref()).map_err(|e| wrong(&e))?;
                let key = text(certificate.private_key.as_ref()).map_err(|e| wrong(&e))?;
                lateen_ca::tls::identity(chain.as_bytes(), key.as_bytes())
                    .map_err(|e| wrong(&e.to_string()))?;
                self.certificate = Some((chain, key));
            }
            (ROOT, Some(Type::ValidationContext(context))) => {
                let roots = text(context.trusted_ca.as_ref()).map_err(|e| wrong(&e))?;
                lateen_ca::tls::Trust::from_pem(roots.as_bytes()).map_err(|e| wrong(&e.to_string()))?;
                self.roots = Some(roots);
            }
            (WORKLOAD | ROOT, _) => {
                return Err(wrong("it is neither the certificate `default` nor the anchors `ROOTCA`"));
            }
            _ => {}
        }
        Ok(())
    }
}

fn request(
    node: Option<Node>,
    answered: &DiscoveryResponse,
    version_info: String,
    refused: Option<String>,
) -> DiscoveryRequest {
    DiscoveryRequest {
        node,
        type_url: types::SECRET.to_owned(),
        resource_names: vec![WORKLOAD.to_owned(), ROOT.to_owned()],
        version_info,
        response_nonce: answered.nonce.clone(),
        error_detail: refused.map(|message| RpcStatus {
            code: INVALID_ARGUMENT,
            message,
            details: Vec::new(),
        }),
        ..DiscoveryRequest::default()
    }
}

/// The text in a source, which has to be in place: files of another process are not ours to read.
fn text(source: Option<&DataSource>) -> Result<String, String> {
    let bytes = match source.and_then(|source| source.specifier.as_ref()) {
        Some(Specifier::InlineBytes(bytes)) => bytes.to_vec(),
        Some(Specifier::InlineString(text)) => text.clone().into_bytes(),
        _ => return Err("it has to be inline".to_owned()),
    };
    String::from_utf8(bytes).map_err(|_| "it is not text".to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use lateen_ca::Authority;
    use lateen_xds::server::secret_service;
    use tokio::net::UnixListener;
    use tokio::sync::watch;
    use tokio_stream::wrappers::UnixListenerStream;

    use super::*;
    use crate::secrets::Secrets;

    fn workload(name: &str) -> Arc<Workload> {
        let (now, day) = (SystemTime::now(), Duration::from_secs(86_400));
        let authority = Authority::self_signed("td", now, day).unwrap();
        let server = authority.server(&[name.to_owned()], now, day).unwrap();
        let root_pem = authority.root_pem().to_owned();
        Arc::new(Workload { chain_pem: server.chain_pem, key_pem: server.key_pem, root_pem })
    }

    /// Somebody else's server; it ends with the test.
    fn serve(folder: &Path, path: &Path) -> watch::Sender<Option<Arc<Workload>>> {
        let (publish, published) = watch::channel(None);
        let listener = UnixListener::bind(path).unwrap();
        let service = secret_service(Arc::new(Secrets::start(folder.to_owned(), published)));
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
        publish
    }

    fn id() -> SpiffeId {
        "spiffe://td/ns/a/sa/b".parse().unwrap()
    }

    async fn until(published: &mut watch::Receiver<Option<Arc<Workload>>>, wanted: &Arc<Workload>) {
        let found = published.wait_for(|now| now.as_ref() == Some(wanted));
        tokio::time::timeout(Duration::from_secs(60), found).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn certificates_of_anothers_socket_are_followed_and_bad_ones_are_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        assert!(!answers(&path).await, "there is no socket");
        drop(UnixListener::bind(&path).unwrap());
        assert!(!answers(&path).await, "a former run left it");
        std::fs::remove_file(&path).unwrap();

        let serving = serve(folder.path(), &path);
        assert!(answers(&path).await);
        let (publish, mut published) = watch::channel(None);
        let following = tokio::spawn(follow(path, "sidecar~1.2.3.4~a.b~c".into(), id(), publish));
        let (first, second) = (workload("first"), workload("second"));
        serving.send_replace(Some(first.clone()));
        until(&mut published, &first).await;
        let mixed = Workload { key_pem: second.key_pem.clone(), ..(*first).clone() };
        serving.send_replace(Some(Arc::new(mixed)));
        serving.send_replace(Some(second.clone()));
        until(&mut published, &second).await;
        following.abort();
    }

    #[test]
    fn secrets_that_cannot_be_used_are_refused_by_name() {
        let secret = |name: &str, kind| Secret { name: name.into(), r#type: kind };
        let mut parts = Parts::default();
        assert!(parts.take(&secret("other", None)).is_ok(), "not ours to judge");
        let file = DataSource {
            specifier: Some(Specifier::Filename("/etc/passwd".into())),
            ..DataSource::default()
        };
        let anchors =
            lateen_proto::envoy::extensions::transport_sockets::tls::v3::CertificateValidationContext {
                trusted_ca: Some(file),
                ..Default::default()
            };
        for (bad, words) in [
            (secret(WORKLOAD, None), "default"),
            (secret(ROOT, Some(Type::ValidationContext(Default::default()))), "inline"),
            (secret(ROOT, Some(Type::ValidationContext(anchors))), "inline"),
            (secret(WORKLOAD, Some(Type::TlsCertificate(Default::default()))), "inline"),
        ] {
            let refused = parts.take(&bad).unwrap_err();
            assert!(refused.contains(words), "{refused}");
        }
    }
}
