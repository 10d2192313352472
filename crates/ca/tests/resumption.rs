//! Sessions are resumed by ticket in both versions of TLS, as openssl sees it, and not where they must not be.
#![allow(clippy::unwrap_used)]

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lateen_ca::Authority;
use lateen_ca::tls::{
    ClientAuth, Offers, PeerChecks, Server, ServerSettings, Trust, Version, identity, server_config,
};
use rustls::{ServerConnection, StreamOwned};

fn authority() -> Authority {
    Authority::self_signed("td", SystemTime::now(), Duration::from_secs(86_400)).unwrap()
}

fn server(authority: &Authority, resumption: bool, mutual: bool) -> Server {
    let day = Duration::from_secs(86_400);
    let own = authority.server(&["server.test".into()], SystemTime::now(), day).unwrap();
    let trust = Trust::from_pem(authority.root_pem().as_bytes()).unwrap();
    server_config(ServerSettings {
        identities: vec![identity(own.chain_pem.as_bytes(), own.key_pem.as_bytes()).unwrap()],
        client_auth: if mutual {
            ClientAuth::Required(PeerChecks::trusting(trust))
        } else {
            ClientAuth::None
        },
        alpn: Vec::new(),
        versions: (Version::Tls12, Version::Tls13),
        offers: Offers::default(),
        resumption,
    })
    .unwrap()
}

/// Serves two connections, one after the other, each with the configuration of its place; tells how many certificates
/// each client was known by.
fn serve(servers: [Server; 2]) -> (SocketAddr, std::thread::JoinHandle<Vec<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let mut known = Vec::new();
        for server in servers {
            let (tcp, _) = listener.accept().unwrap();
            tcp.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            let config = server.for_client(std::iter::empty());
            let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), tcp);
            while stream.conn.is_handshaking() {
                stream.conn.complete_io(&mut stream.sock).unwrap();
            }
            known.push(stream.conn.peer_certificates().map_or(0, <[_]>::len));
            stream.write_all(b"hello\n").unwrap();
            stream.conn.send_close_notify();
            stream.flush().unwrap();
            // The client closes first, so that nothing of ours is lost.
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
        known
    });
    (address, thread)
}

/// Connects twice with openssl, the second time with the session of the first; tells whether it was taken up.
fn reused(folder: &Path, address: SocketAddr, flags: &[&str]) -> bool {
    let connect = |session: [&str; 2]| {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", &address.to_string(), "-servername", "server.test"]);
        command.args(["-ign_eof"]).args(session).args(flags).current_dir(folder);
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("hello"), "{text}{}", String::from_utf8_lossy(&output.stderr));
        text
    };
    let first = connect(["-sess_out", "session"]);
    assert!(first.contains("\nNew, "), "{first}");
    let second = connect(["-sess_in", "session"]);
    assert!(second.contains("\nReused, ") || second.contains("\nNew, "), "{second}");
    second.contains("\nReused, ")
}

#[test]
fn openssl_resumes_by_ticket_and_never_across_certificates() {
    if Command::new("openssl").arg("version").output().is_err() {
        assert!(std::env::var_os("LATEEN_REQUIRE_TOOLS").is_none(), "there is no openssl");
        eprintln!("skipped: there is no openssl");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let authority = Arc::new(authority());
    let client =
        authority.server(&["client.test".into()], SystemTime::now(), Duration::from_secs(3600)).unwrap();
    std::fs::write(folder.path().join("client.crt"), &client.chain_pem).unwrap();
    std::fs::write(folder.path().join("client.key"), &client.key_pem).unwrap();
    for version in ["-tls1_2", "-tls1_3"] {
        let same = |resumption, mutual| {
            let one = server(&authority, resumption, mutual);
            [one.clone(), one]
        };
        let (address, thread) = serve(same(true, false));
        assert!(reused(folder.path(), address, &[version]), "{version}");
        thread.join().unwrap();

        let mutual = [version, "-cert", "client.crt", "-key", "client.key"];
        let (address, thread) = serve(same(true, true));
        assert!(reused(folder.path(), address, &mutual), "{version} with a client's certificate");
        assert_eq!(thread.join().unwrap(), [1, 1], "a resumed client is known by its certificate");

        let (address, thread) = serve(same(false, false));
        assert!(!reused(folder.path(), address, &[version]), "{version} without resumption");
        thread.join().unwrap();

        let (address, thread) = serve([server(&authority, true, false), server(&authority, true, false)]);
        assert!(!reused(folder.path(), address, &[version]), "{version}: other certificates, no resumption");
        thread.join().unwrap();
    }
}
