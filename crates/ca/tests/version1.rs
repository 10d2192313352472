//! Certificates as openssl makes them where nobody asks for extensions: X.509 version 1. Both sides of TLS show and
//! take them, and nothing else passes for one.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use lateen_ca::tls::{
    ClientAuth, ClientSettings, Offers, PeerChecks, SanRule, ServerSettings, Trust, Version, client_config,
    identity, server_config,
};
use rustls::pki_types::ServerName;

const BOTH: (Version, Version) = (Version::Tls12, Version::Tls13);

/// A folder in which openssl works.
struct Workshop(tempfile::TempDir);

impl Workshop {
    /// `None`, with a word on standard error, where there is no openssl, or one that makes version 3 only.
    fn open() -> Option<Self> {
        let shop = Self(tempfile::tempdir().unwrap());
        let found = Command::new("openssl").arg("version").stdout(Stdio::null()).status();
        if !found.is_ok_and(|status| status.success()) {
            assert!(std::env::var_os("LATEEN_REQUIRE_TOOLS").is_none(), "there is no openssl");
            eprintln!("skipped: there is no openssl");
            return None;
        }
        shop.root("root", "rsa:2048");
        shop.leaf("probe", "rsa:2048", "root", &["-days", "1"]);
        let text = shop.run(&["x509", "-in", "probe.crt", "-noout", "-text"]);
        if !text.contains("Version: 1 ") {
            eprintln!("skipped: this openssl adds extensions to every certificate");
            return None;
        }
        Some(shop)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = Command::new("openssl").args(arguments).current_dir(self.path()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn read(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.path().join(file)).unwrap()
    }

    /// A self-signed root, as the labs make it.
    fn root(&self, name: &str, key: &str) {
        let (key_file, file) = (format!("{name}.key"), format!("{name}.crt"));
        self.run(&[
            "req",
            "-x509",
            "-sha256",
            "-nodes",
            "-days",
            "365",
            "-newkey",
            key,
            "-subj",
            "/O=example Inc./CN=example.com",
            "-keyout",
            &key_file,
            "-out",
            &file,
        ]);
    }

    /// A leaf without extensions, as the labs make it.
    fn leaf(&self, name: &str, key: &str, issuer: &str, more: &[&str]) {
        let (key_file, request, file) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.crt"));
        let subject = format!("/CN={name}.example.com/O={name} organization");
        let mut ask =
            vec!["req", "-nodes", "-subj", &subject, "-keyout", &key_file, "-out", &request, "-newkey"];
        match key {
            "ec" => ask.extend(["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]),
            other => ask.push(other),
        }
        self.run(&ask);
        let (issuer_file, issuer_key) = (format!("{issuer}.crt"), format!("{issuer}.key"));
        let mut sign = vec![
            "x509",
            "-req",
            "-sha256",
            "-set_serial",
            "7",
            "-CA",
            &issuer_file,
            "-CAkey",
            &issuer_key,
            "-in",
            &request,
            "-out",
            &file,
        ];
        sign.extend(more);
        self.run(&sign);
    }

    fn trust(&self, name: &str) -> Trust {
        Trust::from_pem(&self.read(&format!("{name}.crt"))).unwrap()
    }

    fn identity(&self, name: &str) -> Arc<rustls::sign::CertifiedKey> {
        identity(&self.read(&format!("{name}.crt")), &self.read(&format!("{name}.key"))).unwrap()
    }

    /// The leaf, and intermediates after it.
    fn chain(&self, name: &str, above: &[&str]) -> Arc<rustls::sign::CertifiedKey> {
        let mut chain = self.read(&format!("{name}.crt"));
        above.iter().for_each(|issuer| chain.extend(self.read(&format!("{issuer}.crt"))));
        identity(&chain, &self.read(&format!("{name}.key"))).unwrap()
    }
}

type Key = Arc<rustls::sign::CertifiedKey>;

/// Shakes hands in memory; what the first side to complain says.
fn shake(
    server: (&Key, ClientAuth),
    client: (Option<&Key>, Trust, Vec<SanRule>),
    versions: (Version, Version),
) -> Result<(), String> {
    let settings = ServerSettings {
        identities: vec![server.0.clone()],
        client_auth: server.1,
        alpn: Vec::new(),
        versions,
        offers: Offers::default(),
        resumption: false,
    };
    let server = server_config(settings).unwrap();
    let settings = ClientSettings {
        identity: client.0.cloned(),
        checks: PeerChecks { names: client.2, ..PeerChecks::trusting(client.1) },
        alpn: Vec::new(),
        versions,
        offers: Offers::default(),
        sni: true,
        match_server_name: false,
    };
    let name = ServerName::try_from("server.example.com").unwrap();
    let mut client = rustls::ClientConnection::new(client_config(settings).unwrap(), name).unwrap();
    let mut server = rustls::ServerConnection::new(server.for_client(std::iter::empty())).unwrap();
    while client.is_handshaking() || server.is_handshaking() || client.wants_write() || server.wants_write() {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        server.read_tls(&mut &bytes[..]).unwrap();
        server.process_new_packets().map_err(|error| format!("server: {error}"))?;
        bytes.clear();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        client.read_tls(&mut &bytes[..]).unwrap();
        client.process_new_packets().map_err(|error| format!("client: {error}"))?;
    }
    Ok(())
}

#[test]
fn both_sides_show_and_take_them() {
    let Some(shop) = Workshop::open() else { return };
    for (key, name) in [("rsa:2048", "rsa"), ("ec", "ec")] {
        shop.leaf(name, key, "root", &["-days", "1"]);
        let key = shop.identity(name);
        for version in [Version::Tls12, Version::Tls13] {
            let auth = ClientAuth::Required(PeerChecks::trusting(shop.trust("root")));
            let client = (Some(&key), shop.trust("root"), Vec::new());
            assert_eq!(shake((&key, auth), client, (version, version)), Ok(()), "{name} {version:?}");
        }
    }
}

#[test]
fn what_is_wrong_with_them_is_told() {
    let Some(shop) = Workshop::open() else { return };
    shop.leaf("server", "rsa:2048", "root", &["-days", "1"]);
    shop.leaf("old", "rsa:2048", "root", &["-days", "-1"]);
    // Another root of the same name: only the signature tells.
    shop.root("other", "rsa:2048");
    shop.leaf("stranger", "rsa:2048", "other", &["-days", "1"]);
    let good = shop.identity("server");
    let refused = |key: &Key, as_client: bool| {
        let auth = ClientAuth::Required(PeerChecks::trusting(shop.trust("root")));
        let (server, client) = if as_client { (&good, key) } else { (key, &good) };
        shake((server, auth), (Some(client), shop.trust("root"), Vec::new()), BOTH).unwrap_err()
    };
    for as_client in [false, true] {
        let judge = if as_client { "server" } else { "client" };
        let expired = refused(&shop.identity("old"), as_client);
        assert!(expired.starts_with(judge) && expired.contains("Expired"), "{expired}");
        let stranger = refused(&shop.identity("stranger"), as_client);
        assert!(stranger.starts_with(judge) && stranger.contains("BadSignature"), "{stranger}");
        // Somebody else's certificate: the signature of the handshake is by another key.
        let thief = Arc::new(rustls::sign::CertifiedKey::new(
            good.cert.clone(),
            shop.identity("stranger").key.clone(),
        ));
        let thief = refused(&thief, as_client);
        assert!(thief.starts_with(judge) && thief.contains("BadSignature"), "{thief}");
    }
    // The wrong key is noticed before anybody shakes hands.
    let error = identity(&shop.read("server.crt"), &shop.read("stranger.key")).unwrap_err();
    assert!(error.to_string().contains("does not fit"), "{error}");
    // It has no names, so it is on nobody's list.
    let names = vec![SanRule::Exact("server.example.com".to_owned())];
    let unnamed = shake((&good, ClientAuth::None), (None, shop.trust("root"), names), BOTH).unwrap_err();
    assert!(unnamed.contains("NotValidForName"), "{unnamed}");
}

#[test]
fn intermediates_have_to_be_allowed_to_sign() {
    let Some(shop) = Workshop::open() else { return };
    let extensions = [
        ("good", "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n"),
        ("plain", "basicConstraints=CA:FALSE\n"),
        ("unable", "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,digitalSignature\n"),
        (
            "limited",
            "basicConstraints=critical,CA:TRUE\nnameConstraints=critical,permitted;DNS:example.com\n",
        ),
    ];
    for (name, text) in extensions {
        std::fs::write(shop.path().join("extensions"), text).unwrap();
        shop.leaf(name, "rsa:2048", "root", &["-days", "1", "-extfile", "extensions"]);
        let leaf = format!("below-{name}");
        shop.leaf(&leaf, "rsa:2048", name, &["-days", "1"]);
        let result = |key: &Key| shake((key, ClientAuth::None), (None, shop.trust("root"), Vec::new()), BOTH);
        let with = result(&shop.chain(&leaf, &[name]));
        assert_eq!(with.is_ok(), name == "good", "{name}: {with:?}");
        let without = result(&shop.identity(&leaf)).unwrap_err();
        assert!(without.contains("UnknownIssuer"), "{name}: {without}");
    }
    // A leaf of version 1 signs nothing.
    shop.leaf("first", "rsa:2048", "root", &["-days", "1"]);
    shop.leaf("second", "rsa:2048", "first", &["-days", "1"]);
    let key = shop.chain("second", &["first"]);
    let error = shake((&key, ClientAuth::None), (None, shop.trust("root"), Vec::new()), BOTH).unwrap_err();
    assert!(error.contains("UnknownIssuer"), "{error}");
}
