//! Authorities that openssl made are taken, whatever the form of their keys, and openssl verifies what they sign.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use lateen_base::SpiffeId;
use lateen_ca::Authority;
use lateen_ca::request::KeyRequest;

const DAY: Duration = Duration::from_secs(86_400);

struct Workshop(tempfile::TempDir);

impl Workshop {
    fn open() -> Option<Self> {
        if Command::new("openssl").arg("version").output().is_err() {
            assert!(std::env::var_os("LATEEN_REQUIRE_TOOLS").is_none(), "there is no openssl");
            eprintln!("skipped: there is no openssl");
            return None;
        }
        Some(Self(tempfile::tempdir().unwrap()))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn run(&self, command: &str) -> String {
        let words: Vec<&str> = command.split_whitespace().collect();
        let output = Command::new("openssl").args(&words).current_dir(self.path()).output().unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.path().join(file), text).unwrap();
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.path().join(file)).unwrap()
    }

    /// An authority `name` with a key made by `key`, under `issuer` or its own root.
    fn authority(&self, name: &str, key: &str, issuer: Option<&str>) {
        self.write(
            "ca.conf",
            "[ca]\nbasicConstraints=critical,CA:true\nkeyUsage=critical,keyCertSign,cRLSign\n\
             subjectKeyIdentifier=hash\n",
        );
        self.run(&key.replace("OUT", &format!("{name}.key")));
        self.run(&format!("req -new -key {name}.key -subj /O=Mesh/CN={name} -out {name}.csr"));
        let signed = match issuer {
            Some(issuer) => format!("-CA {issuer}.crt -CAkey {issuer}.key -CAcreateserial"),
            None => format!("-signkey {name}.key"),
        };
        self.run(&format!(
            "x509 -req -sha256 -days 30 -in {name}.csr -extfile ca.conf -extensions ca {signed} -out {name}.crt"
        ));
    }
}

#[test]
fn every_form_of_key_and_length_of_chain_signs() {
    let Some(shop) = Workshop::open() else { return };
    let keys = [
        "genrsa -traditional -out OUT 2048",
        "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072 -out OUT",
        "ecparam -name prime256v1 -genkey -out OUT",
        "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out OUT",
        "genpkey -algorithm ed25519 -out OUT",
    ];
    shop.authority("root", keys[0], None);
    let mut issuer = "root".to_owned();
    let mut chain = String::new();
    for (depth, key) in keys.iter().enumerate() {
        let name = format!("level{depth}");
        shop.authority(&name, key, Some(&issuer));
        let secret: BTreeMap<String, Vec<u8>> = [
            ("ca-cert.pem", shop.read(&format!("{name}.crt"))),
            ("ca-key.pem", shop.read(&format!("{name}.key"))),
            ("cert-chain.pem", chain.clone()),
            ("root-cert.pem", shop.read("root.crt")),
        ]
        .into_iter()
        .map(|(key, text)| (key.to_owned(), text.into_bytes()))
        .collect();
        let now = SystemTime::now();
        let authority = Authority::from_secret(&secret, now).unwrap_or_else(|e| panic!("{key}: {e}"));
        let caller: SpiffeId = "spiffe://cluster.local/ns/a/sa/b".parse().unwrap();
        let request = KeyRequest::new(&caller).unwrap();
        let signed = authority.sign(&request.csr_pem, &caller, now, DAY).unwrap();
        assert_eq!(signed.len(), depth + 3, "leaf, {} intermediates, root", depth + 1);
        shop.write("leaf.crt", &signed[0]);
        shop.write("between.crt", &signed[1..signed.len() - 1].concat());
        let verified = shop.run("verify -CAfile root.crt -untrusted between.crt leaf.crt");
        assert!(verified.contains("OK"), "{verified}");
        chain = format!("{}{chain}", shop.read(&format!("{name}.crt")));
        issuer = name;
    }
}

#[test]
fn a_key_behind_a_passphrase_and_a_chain_with_a_gap_are_told() {
    let Some(shop) = Workshop::open() else { return };
    shop.authority("root", "genrsa -out OUT 2048", None);
    shop.authority("middle", "genrsa -out OUT 2048", Some("root"));
    shop.authority("lower", "genrsa -out OUT 2048", Some("middle"));
    let told = |certificate: &str, key: &str| {
        let secret = [("ca-cert.pem", certificate), ("ca-key.pem", key), ("root-cert.pem", "root.crt")];
        let secret: BTreeMap<String, Vec<u8>> =
            secret.into_iter().map(|(name, file)| (name.to_owned(), shop.read(file).into_bytes())).collect();
        Authority::from_secret(&secret, SystemTime::now()).unwrap_err().to_string()
    };
    shop.run("rsa -in middle.key -aes128 -passout pass:secret -out locked.key");
    let locked = told("middle.crt", "locked.key");
    assert!(locked.contains("ca-key.pem") && locked.contains("passphrase"), "{locked}");
    let gap = told("lower.crt", "lower.key");
    assert!(gap.contains("CN=lower") && gap.contains("cert-chain.pem"), "{gap}");
}
