//! Names of the internet that the labs call: httpbin.org, and the files that raw.githubusercontent.com has of Istio's
//! repository. Each one answers at an address of its own, on port 80 and, with the certificate of its folder, on 443.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use axum::extract::{ConnectInfo, Path as Captured};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router, middleware};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use lateen_ca::tls::{ClientAuth, Offers, Server, ServerSettings, Version, identity, server_config};
use lateen_manifests::samples::FILES;
use tokio::net::{TcpListener, TcpStream};

use crate::nginx::tls;
use crate::{AppError, Settings, httpbin, server};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Where Istio's repository had tokens and keys, and where ours has them.
const TOKENS: (&str, &str) = ("security/tools/jwt/samples/", "samples/jwt/");

/// Serves `httpbin=ADDRESS` and `files=ADDRESS`, as the command line says.
pub(crate) async fn serve(settings: &Settings) -> Result<(), AppError> {
    let tls = certificate(&settings.root)?;
    for word in &settings.args {
        let (app, address) = site(word)?;
        let (clear, secure) = (bind(address, 80).await?, bind(address, 443).await?);
        println!("outside: {word}, ports 80 and 443");
        tokio::spawn(server::serve_on(clear, app.clone()));
        tokio::spawn(accept(secure, app, tls.clone()));
    }
    server::until_terminated().await
}

fn site(word: &str) -> Result<(Router, IpAddr), AppError> {
    let bad = || AppError::Setting(format!("{word:?}: httpbin=ADDRESS or files=ADDRESS is wanted"));
    let (what, address) = word.split_once('=').ok_or_else(bad)?;
    let address = address.parse().map_err(|_| bad())?;
    match what {
        "httpbin" => Ok((httpbin::app(), address)),
        "files" => Ok((files(), address)),
        _ => Err(bad()),
    }
}

async fn bind(address: IpAddr, port: u16) -> Result<TcpListener, AppError> {
    let address = SocketAddr::new(address, port);
    TcpListener::bind(address).await.map_err(|source| AppError::Bind { address, source })
}

fn certificate(folder: &Path) -> Result<Server, AppError> {
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read(&path).map_err(|error| AppError::Setting(format!("{}: {error}", path.display())))
    };
    let (chain, key) = (read("tls.crt")?, read("tls.key")?);
    let bad = |why: &dyn std::fmt::Display| AppError::Setting(format!("{}: {why}", folder.display()));
    let own = identity(&chain, &key).map_err(|error| bad(&error))?;
    server_config(ServerSettings {
        identities: vec![own],
        client_auth: ClientAuth::None,
        alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        versions: (Version::Tls12, Version::Tls13),
        offers: Offers::default(),
        resumption: true,
    })
    .map_err(|error| bad(&error))
}

async fn accept(listener: TcpListener, app: Router, tls: Server) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let (app, tls) = (app.clone(), tls.clone());
                tokio::spawn(async move {
                    if let Err(error) = connection(stream, peer, app, tls).await {
                        println!("outside: client {}: {error}", peer.ip());
                    }
                });
            }
            Err(error) => {
                println!("outside: accept: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, app: Router, tls: Server) -> Result<(), String> {
    let handshake = tls::accept(stream, |_| Some(tls.clone()));
    let stream = tokio::time::timeout(HANDSHAKE, handshake).await.map_err(|_| "no handshake")??;
    let app = app.layer(middleware::from_fn(server::log)).layer(Extension(ConnectInfo(peer)));
    auto::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(app))
        .await
        .map_err(|error| error.to_string())
}

/// `raw.githubusercontent.com/istio/istio/BRANCH/PATH`: every branch has the files of this version.
fn files() -> Router {
    let absent = || async { (StatusCode::NOT_FOUND, "404: Not Found") };
    Router::new().route("/istio/istio/{branch}/{*path}", get(file)).fallback(absent)
}

async fn file(Captured((_, path)): Captured<(String, String)>) -> Response {
    let own = path.strip_prefix(TOKENS.0).map(|name| format!("{}{name}", TOKENS.1));
    let wanted = own.unwrap_or(path);
    match FILES.iter().find(|file| file.path == wanted) {
        Some(file) => ([(CONTENT_TYPE, "text/plain; charset=utf-8")], file.text).into_response(),
        None => (StatusCode::NOT_FOUND, "404: Not Found").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use axum::body::Body;
    use http::Request;
    use http_body_util::BodyExt as _;
    use lateen_ca::Authority;
    use lateen_ca::tls::{ClientSettings, Offers, PeerChecks, Trust, client_config};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_rustls::TlsConnector;
    use tower::ServiceExt as _;

    use super::*;

    async fn get(path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = files().oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn the_labs_keys_and_token_are_where_the_labs_look_for_them() {
        const OLD: &str = "/istio/istio/release-1.5/security/tools/jwt/samples";
        let (status, keys) = get(&format!("{OLD}/jwks.json")).await;
        assert_eq!(status, StatusCode::OK);
        let keys: serde_json::Value = serde_json::from_str(&keys).unwrap();
        assert_eq!(keys["keys"][0]["kty"], "RSA");
        let (_, token) = get(&format!("{OLD}/demo.jwt")).await;
        assert_eq!(token.trim().split('.').count(), 3);
        assert_eq!(get("/istio/istio/master/samples/sleep/sleep.yaml").await.0, StatusCode::OK);
        for path in [&format!("{OLD}/no.jwt"), "/", "/istio/istio/master/../../etc/passwd"] {
            assert_eq!(get(path).await.0, StatusCode::NOT_FOUND, "{path}");
        }
    }

    #[test]
    fn what_is_no_site_is_refused() {
        assert!(site("httpbin=127.10.254.1").is_ok());
        for word in ["httpbin", "web=127.10.254.1", "files=localhost"] {
            assert!(site(word).unwrap_err().to_string().contains(word), "{word}");
        }
    }

    #[tokio::test]
    async fn over_tls_the_caller_is_told_its_address() {
        let authority =
            Authority::self_signed("outside", SystemTime::now(), Duration::from_secs(3600)).unwrap();
        let own = authority.server(&["httpbin.org".into()], SystemTime::now(), Duration::from_secs(600));
        let (folder, own) = (tempfile::tempdir().unwrap(), own.unwrap());
        std::fs::write(folder.path().join("tls.crt"), &own.chain_pem).unwrap();
        std::fs::write(folder.path().join("tls.key"), &own.key_pem).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (app, _) = site("httpbin=127.0.0.1").unwrap();
        tokio::spawn(accept(listener, app, certificate(folder.path()).unwrap()));
        let config = client_config(ClientSettings {
            identity: None,
            checks: PeerChecks::trusting(Trust::from_pem(authority.root_pem().as_bytes()).unwrap()),
            alpn: vec![],
            versions: (Version::Tls12, Version::Tls13),
            offers: Offers::default(),
            sni: true,
            match_server_name: true,
        });
        let stream = TcpStream::connect(at).await.unwrap();
        let connector = TlsConnector::from(config.unwrap());
        let mut stream = connector.connect("httpbin.org".try_into().unwrap(), stream).await.unwrap();
        let request = b"GET /ip HTTP/1.1\r\nhost: httpbin.org\r\nx-forwarded-for: 10.1.2.3\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("\"origin\": \"10.1.2.3, 127.0.0.1\""), "{answer}");
    }
}
