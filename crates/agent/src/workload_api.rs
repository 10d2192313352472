//! SPIFFE's Workload API: a stream of X.509-SVIDs from a Unix socket, such as SPIRE's agent serves.
//!
//! Source: the standards "SPIFFE Workload API" and "SPIFFE Workload Endpoint". Every message replaces what was given before.
//! Bundles of other trust domains are not taken: under one list of anchors, they could speak for ours.

use std::path::PathBuf;
use std::sync::Arc;

use lateen_base::SpiffeId;
use lateen_ca::tls::{PeerCertificate, Trust, chain_from_der, identity, key_from_der};
use lateen_proto::spiffe::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use lateen_proto::spiffe::{X509svid, X509svidRequest, X509svidResponse};
use lateen_xds::Backoff;
use lateen_xds::transport::Target;
use tonic::metadata::MetadataValue;
use tonic::{Request, Status};

use crate::following;
use crate::identity::{Published, Workload};

/// The variable that names the socket (SPIFFE Workload Endpoint, section 4).
pub(crate) const SOCKET_VARIABLE: &str = "SPIFFE_ENDPOINT_SOCKET";
/// What every request carries, so that none is forged by way of a proxy (section 5).
const MARK: &str = "workload.spiffe.io";

/// The path in `SPIFFE_ENDPOINT_SOCKET`.
///
/// # Errors
/// When it is not the URI of a Unix socket.
pub(crate) fn socket(uri: &str) -> Result<PathBuf, String> {
    match uri.strip_prefix("unix://").or_else(|| uri.strip_prefix("unix:")) {
        Some(path) if path.starts_with('/') && path.len() > 1 => Ok(PathBuf::from(path)),
        _ => {
            Err("expected unix:///PATH, the socket of a SPIFFE Workload API; tcp:// is not supported"
                .to_owned())
        }
    }
}

/// Takes the identity of the workload from the socket, for ever; of several the one of `wanted`, else the first.
pub(crate) async fn follow(path: PathBuf, wanted: SpiffeId, publish: Published) {
    let mut backoff = Backoff::default();
    let wanted = wanted.to_string();
    loop {
        let mut follower = Follower { publish: &publish, wanted: &wanted, taken: false };
        let reason = match follower.listen(path.clone()).await {
            Ok(()) => "the stream ended".to_owned(),
            Err(reason) => reason,
        };
        let socket = format!("SPIFFE Workload API at {}", path.display());
        following::pause(&mut backoff, follower.taken, socket, &reason).await;
    }
}

struct Follower<'a> {
    publish: &'a Published,
    wanted: &'a str,
    /// Whether this stream has given anything.
    taken: bool,
}

impl Follower<'_> {
    async fn listen(&mut self, path: PathBuf) -> Result<(), String> {
        let channel = Target::Unix(path).channel().await.map_err(|error| error.to_string())?;
        let mut request = Request::new(X509svidRequest {});
        request.metadata_mut().insert(MARK, MetadataValue::from_static("true"));
        let answer = SpiffeWorkloadApiClient::new(channel).fetch_x509svid(request).await;
        let mut responses = answer.map_err(|status| refused(&status))?.into_inner();
        while let Some(response) = responses.message().await.map_err(|status| refused(&status))? {
            match workload(&response, self.wanted) {
                Ok((id, workload)) => self.take(&id, workload),
                Err(reason) => {
                    tracing::warn!(target: "cache", "SPIFFE Workload API: {reason}; what is in use stays");
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, id: &str, workload: Workload) {
        self.taken = true;
        if self.publish.borrow().as_deref() != Some(&workload) {
            tracing::info!(target: "cache", "workload certificate of {id} taken from the SPIFFE Workload API");
            self.publish.send_replace(Some(Arc::new(workload)));
        }
    }
}

fn refused(status: &Status) -> String {
    let hint = match status.code() {
        tonic::Code::PermissionDenied => " (no identity is registered for this workload)",
        _ => "",
    };
    format!("{}: {}{hint}", status.code(), status.message())
}

/// The identity that is wanted, else the first one, which is the default identity.
fn workload(response: &X509svidResponse, wanted: &str) -> Result<(String, Workload), String> {
    let given = &response.svids;
    let chosen = given.iter().find(|svid| svid.spiffe_id == wanted).or(given.first());
    let chosen = chosen.ok_or("the answer has no identity in it")?;
    let read = read(chosen).map_err(|reason| format!("identity {:?}: {reason}", chosen.spiffe_id))?;
    Ok((chosen.spiffe_id.clone(), read))
}

fn read(svid: &X509svid) -> Result<Workload, String> {
    let workload = Workload {
        chain_pem: chain_from_der(&svid.x509_svid).map_err(|error| format!("x509_svid: {error}"))?,
        key_pem: key_from_der(&svid.x509_svid_key),
        root_pem: chain_from_der(&svid.bundle).map_err(|error| format!("bundle: {error}"))?,
    };
    identity(workload.chain_pem.as_bytes(), workload.key_pem.as_bytes())
        .map_err(|error| format!("x509_svid_key: {error}"))?;
    Trust::from_pem(workload.root_pem.as_bytes()).map_err(|error| format!("bundle: {error}"))?;
    let chain = PeerCertificate::all_from_pem(workload.chain_pem.as_bytes()).map_err(|e| e.to_string())?;
    match chain.first().map(|leaf| leaf.uris.as_slice()) {
        Some([id]) if *id == svid.spiffe_id => Ok(workload),
        Some(ids) => Err(format!("the certificate is of {ids:?}")),
        None => Err("there is no certificate".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::{Duration, SystemTime};

    use futures::StreamExt as _;
    use futures::stream::BoxStream;
    use lateen_ca::Authority;
    use lateen_ca::request::KeyRequest;
    use lateen_proto::spiffe::spiffe_workload_api_server::{SpiffeWorkloadApi, SpiffeWorkloadApiServer};
    use rustls_pki_types::pem::PemObject as _;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer};
    use tokio::net::UnixListener;
    use tokio::sync::watch;
    use tokio::task::JoinHandle;
    use tokio_stream::wrappers::{UnixListenerStream, WatchStream};
    use tonic::Response;

    use super::*;

    type Answer = Result<X509svidResponse, Status>;

    /// Gives every caller that bears the mark what is published.
    struct Server(watch::Receiver<Option<Answer>>);

    #[tonic::async_trait]
    impl SpiffeWorkloadApi for Server {
        type FetchX509SVIDStream = BoxStream<'static, Answer>;

        async fn fetch_x509svid(
            &self,
            request: Request<X509svidRequest>,
        ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
            if request.metadata().get(MARK).is_none_or(|value| value != "true") {
                return Err(Status::invalid_argument("security header missing from request"));
            }
            let answers = WatchStream::new(self.0.clone()).filter_map(|answer| async { answer });
            Ok(Response::new(answers.boxed()))
        }
    }

    fn serve(path: &Path) -> (watch::Sender<Option<Answer>>, JoinHandle<()>) {
        let (publish, published) = watch::channel(None);
        let listener = UnixListenerStream::new(UnixListener::bind(path).unwrap());
        let server = tonic::transport::Server::builder();
        let server = server.clone().add_service(SpiffeWorkloadApiServer::new(Server(published)));
        let serving = tokio::spawn(async move { server.serve_with_incoming(listener).await.unwrap() });
        (publish, serving)
    }

    fn svid(authority: &Authority, id: &str) -> X509svid {
        let (now, day) = (SystemTime::now(), Duration::from_secs(86_400));
        let id: SpiffeId = id.parse().unwrap();
        let request = KeyRequest::new(&id).unwrap();
        let chain = authority.sign(&request.csr_pem, &id, now, day).unwrap();
        let der = |pem: &str| {
            let all = CertificateDer::pem_slice_iter(pem.as_bytes()).map(Result::unwrap);
            all.flat_map(|certificate| certificate.to_vec()).collect()
        };
        X509svid {
            spiffe_id: id.to_string(),
            x509_svid: der(&chain[0]),
            x509_svid_key: PrivateKeyDer::from_pem_slice(request.key_pem.as_bytes())
                .unwrap()
                .secret_der()
                .to_vec(),
            bundle: der(authority.root_pem()),
            hint: String::new(),
        }
    }

    fn authority() -> Authority {
        Authority::self_signed("td", SystemTime::now(), Duration::from_secs(86_400)).unwrap()
    }

    fn of(svids: &[&X509svid]) -> X509svidResponse {
        X509svidResponse { svids: svids.iter().map(|svid| (*svid).clone()).collect(), ..Default::default() }
    }

    async fn until(published: &mut watch::Receiver<Option<Arc<Workload>>>, wanted: &X509svid) {
        let wanted = read(wanted).unwrap();
        let found = published.wait_for(|now| now.as_deref() == Some(&wanted));
        tokio::time::timeout(Duration::from_secs(60), found).await.unwrap().unwrap();
    }

    const OURS: &str = "spiffe://td/ns/a/sa/b";

    #[tokio::test]
    async fn identities_are_followed_through_bad_answers_and_a_server_that_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.sock");
        let authority = authority();
        let (other, first, second) =
            (svid(&authority, "spiffe://td/ns/a/sa/x"), svid(&authority, OURS), svid(&authority, OURS));
        let (publish, mut published) = watch::channel(None);
        let following = tokio::spawn(follow(path.clone(), OURS.parse().unwrap(), publish));

        let (answers, serving) = serve(&path);
        answers.send_replace(Some(Ok(of(&[&other, &first]))));
        until(&mut published, &first).await;

        let mixed = X509svid { x509_svid_key: second.x509_svid_key.clone(), ..first.clone() };
        answers.send_replace(Some(Ok(of(&[&mixed]))));
        answers.send_replace(Some(Ok(of(&[&second]))));
        until(&mut published, &second).await;

        serving.abort();
        let _ = serving.await;
        std::fs::remove_file(&path).unwrap();
        drop(answers);
        let (answers, _serving) = serve(&path);
        answers.send_replace(Some(Err(Status::permission_denied("no identity issued"))));
        assert_eq!(published.borrow().as_deref(), Some(&read(&second).unwrap()), "it stays");
        answers.send_replace(Some(Ok(of(&[&first]))));
        until(&mut published, &first).await;
        following.abort();
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_field() {
        let authority = authority();
        let good = svid(&authority, OURS);
        let broken = |change: &dyn Fn(&mut X509svid)| {
            let mut svid = good.clone();
            change(&mut svid);
            workload(&of(&[&svid]), OURS).unwrap_err()
        };
        for (error, field) in [
            (workload(&of(&[]), OURS).unwrap_err(), "no identity"),
            (broken(&|svid| svid.x509_svid.truncate(20)), "x509_svid"),
            (broken(&|svid| svid.x509_svid.clear()), "x509_svid"),
            (broken(&|svid| svid.x509_svid_key.clear()), "x509_svid_key"),
            (broken(&|svid| svid.bundle.clear()), "bundle"),
            (broken(&|svid| svid.spiffe_id = "spiffe://td/ns/a/sa/other".into()), "is of"),
        ] {
            assert!(error.contains(field), "{error}");
        }
        let first = svid(&authority, "spiffe://td/ns/a/sa/x");
        assert_eq!(workload(&of(&[&first]), OURS).unwrap().0, first.spiffe_id, "the default identity");
    }

    #[test]
    fn sockets_are_named_by_uri() {
        assert_eq!(socket("unix:///run/api.sock").unwrap(), Path::new("/run/api.sock"));
        assert_eq!(socket("unix:/run/api.sock").unwrap(), Path::new("/run/api.sock"));
        for bad in ["tcp://127.0.0.1:80", "/run/api.sock", "unix://", "unix://run/api.sock", ""] {
            assert!(socket(bad).is_err(), "{bad:?}");
        }
    }
}
