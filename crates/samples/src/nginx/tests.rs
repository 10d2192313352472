use std::time::{Duration, SystemTime};

use lateen_ca::tls::{ClientSettings, Offers, PeerChecks, Trust, Version, client_config, identity};
use lateen_ca::{Authority, Certified};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

use super::config::tests::MUTUAL;
use super::*;

/// A pod's root with the files of [`MUTUAL`]; its port served at an address.
async fn mutual(root: &Path, authority: &Authority) -> SocketAddr {
    let own = certificate(authority);
    for (path, text) in [
        ("etc/certs/tls.crt", own.chain_pem.as_str()),
        ("etc/certs/tls.key", &own.key_pem),
        ("etc/ca/root.crt", authority.root_pem()),
        ("etc/nginx/nginx.conf", MUTUAL),
    ] {
        let file = root.join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }
    let config = configuration(root).unwrap();
    let address = config.servers[0].listens[0].address;
    let sites = config.servers.into_iter().map(|server| Site::new(server, root).unwrap()).collect();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bound = listener.local_addr().unwrap();
    tokio::spawn(Port { address, sites }.accept(listener, Arc::new(GracefulShutdown::new())));
    bound
}

fn authority() -> Authority {
    Authority::self_signed("cluster.local", SystemTime::now(), Duration::from_secs(3600)).unwrap()
}

fn certificate(authority: &Authority) -> Certified {
    let names = ["web.outside.svc.cluster.local".to_owned()];
    authority.server(&names, SystemTime::now(), Duration::from_secs(600)).unwrap()
}

/// The answer to a request, or why the handshake failed.
async fn get(
    at: SocketAddr,
    trusted: &Authority,
    shown: Option<&Certified>,
) -> Result<String, std::io::Error> {
    let config = client_config(ClientSettings {
        identity: shown.map(|own| identity(own.chain_pem.as_bytes(), own.key_pem.as_bytes()).unwrap()),
        checks: PeerChecks::trusting(Trust::from_pem(trusted.root_pem().as_bytes()).unwrap()),
        alpn: vec![],
        versions: (Version::Tls12, Version::Tls13),
        offers: Offers::default(),
        sni: true,
        match_server_name: true,
    })
    .unwrap();
    let stream = TcpStream::connect(at).await?;
    let name = "web.outside.svc.cluster.local".try_into().unwrap();
    let mut stream = TlsConnector::from(config).connect(name, stream).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n").await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

#[tokio::test]
async fn clients_need_a_certificate_of_the_right_authority() {
    let dir = tempfile::tempdir().unwrap();
    let own = authority();
    let at = mutual(dir.path(), &own).await;
    let good = get(at, &own, Some(&certificate(&own))).await.unwrap();
    assert!(good.starts_with("HTTP/1.1 200 ") && good.contains("Welcome to nginx!"), "{good}");
    let none = get(at, &own, None).await.unwrap();
    assert!(none.starts_with("HTTP/1.1 400 ") && none.contains("No required SSL certificate"), "{none}");
    assert!(get(at, &own, Some(&certificate(&authority()))).await.is_err());
}

#[test]
fn the_pods_files_decide() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(configuration(dir.path()).unwrap(), Config::preset());
    let folder = dir.path().join("etc/nginx/conf.d");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("a.conf"), "server { listen 8080; }").unwrap();
    assert_eq!(configuration(dir.path()).unwrap().servers[0].listens[0].address.port(), 8080);
    std::fs::write(folder.join("b.conf"), "server { listen 8081;\n gzip on; }").unwrap();
    let refused = configuration(dir.path()).unwrap_err().to_string();
    assert!(
        refused.contains(" /etc/nginx/conf.d/b.conf: ")
            && refused.contains("\"gzip\"")
            && refused.contains("line 2"),
        "{refused}"
    );
}
