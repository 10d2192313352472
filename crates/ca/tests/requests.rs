//! Certificate requests that ask for more than their sender may have, made by openssl: each is refused with its reason, or
//! signed for the sender's own identity and nothing else.
#![allow(clippy::unwrap_used)]

use std::process::Command;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lateen_base::SpiffeId;
use lateen_ca::Authority;
use x509_parser::prelude::FromDer as _;

const OWN: &str = "spiffe://cluster.local/ns/shop/sa/cart";

struct Attacker {
    folder: tempfile::TempDir,
    authority: Authority,
    caller: SpiffeId,
}

impl Attacker {
    fn new() -> Option<Self> {
        if Command::new("openssl").arg("version").output().is_err() {
            assert!(std::env::var_os("LATEEN_REQUIRE_TOOLS").is_none(), "there is no openssl");
            eprintln!("skipped: there is no openssl");
            return None;
        }
        let day = Duration::from_secs(86_400);
        Some(Self {
            folder: tempfile::tempdir().unwrap(),
            authority: Authority::self_signed("cluster.local", SystemTime::now(), day).unwrap(),
            caller: OWN.parse().unwrap(),
        })
    }

    fn openssl(&self, arguments: &[&str]) -> String {
        let output =
            Command::new("openssl").args(arguments).current_dir(self.folder.path()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A request of a key that `genpkey` makes of these options, for a subject, with these lines of extensions.
    fn request(&self, key: &[&str], subject: &str, extensions: &str) -> String {
        let genpkey = [&["genpkey", "-out", "key.pem"][..], key].concat();
        self.openssl(&genpkey);
        let section = if extensions.is_empty() { "" } else { "req_extensions=more\n" };
        let config = format!(
            "[req]\nprompt=no\ndistinguished_name=dn\n{section}[dn]\n{subject}\n[more]\n{extensions}\n"
        );
        std::fs::write(self.folder.path().join("req.conf"), config).unwrap();
        self.openssl(&["req", "-new", "-key", "key.pem", "-config", "req.conf"])
    }

    fn ask(&self, request: &str) -> Result<String, String> {
        let hour = Duration::from_secs(3600);
        let signed = self.authority.sign(request, &self.caller, SystemTime::now(), hour);
        signed.map(|chain| chain[0].clone()).map_err(|error| error.to_string())
    }

    fn refused(&self, what: &str, request: &str, reason: &str) {
        let refusal = self.ask(request).expect_err(what);
        assert!(refusal.contains(reason), "{what}: {refusal}");
    }

    /// The certificate in openssl's words.
    fn granted(&self, what: &str, request: &str) -> String {
        let certificate = self.ask(request).unwrap_or_else(|refusal| panic!("{what}: {refusal}"));
        std::fs::write(self.folder.path().join("leaf.pem"), certificate).unwrap();
        self.openssl(&["x509", "-in", "leaf.pem", "-noout", "-text"])
    }
}

const P256: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
const SUBJECT: &str = "O=shop";

#[test]
fn names_of_others_are_refused() {
    let Some(attacker) = Attacker::new() else { return };
    for (what, names) in [
        ("another account", "URI:spiffe://cluster.local/ns/shop/sa/payment"),
        ("another namespace", "URI:spiffe://cluster.local/ns/istio-system/sa/istiod"),
        ("another trust domain", "URI:spiffe://other.domain/ns/shop/sa/cart"),
        (
            "its own and another",
            "URI:spiffe://cluster.local/ns/shop/sa/cart,URI:spiffe://cluster.local/ns/shop/sa/payment",
        ),
        ("a longer one", "URI:spiffe://cluster.local/ns/shop/sa/cart/../payment"),
        ("in other letters", "URI:SPIFFE://cluster.local/ns/shop/sa/cart"),
        ("a DNS name", "URI:spiffe://cluster.local/ns/shop/sa/cart,DNS:istiod.istio-system.svc"),
        ("an address", "URI:spiffe://cluster.local/ns/shop/sa/cart,IP:10.0.0.1"),
        ("a mailbox", "URI:spiffe://cluster.local/ns/shop/sa/cart,email:root@shop"),
    ] {
        let request = attacker.request(P256, SUBJECT, &format!("subjectAltName={names}"));
        attacker.refused(what, &request, "it asks for");
    }
    for kind in
        ["otherName:1.3.6.1.4.1.311.20.2.3;UTF8:spiffe://cluster.local/ns/shop/sa/payment", "RID:1.2.3.4"]
    {
        let request = attacker.request(P256, SUBJECT, &format!("subjectAltName={kind}"));
        attacker.ask(&request).expect_err(kind);
    }
}

#[test]
fn what_a_request_wants_beside_its_name_is_not_granted() {
    let Some(attacker) = Attacker::new() else { return };
    let name = format!("subjectAltName=URI:{OWN}");
    for (what, subject, extensions) in [
        ("its own name", SUBJECT, name.clone()),
        ("no name at all", SUBJECT, String::new()),
        ("a name as common name", "CN=spiffe://cluster.local/ns/istio-system/sa/istiod", name.clone()),
        ("a host as common name", "CN=istiod.istio-system.svc", String::new()),
        (
            "to sign for others",
            SUBJECT,
            format!("{name}\nbasicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign,cRLSign"),
        ),
        ("to sign code", SUBJECT, format!("{name}\nextendedKeyUsage=codeSigning,OCSPSigning")),
    ] {
        let request = attacker.request(P256, subject, &extensions);
        let certificate = attacker.granted(what, &request);
        for part in [OWN, "CA:FALSE", "TLS Web Server Authentication, TLS Web Client Authentication"] {
            assert!(certificate.contains(part), "{what}: no {part} in\n{certificate}");
        }
        for part in
            ["istiod", "CA:TRUE", "Certificate Sign", "CRL Sign", "Code Signing", "DNS:", "Subject: O"]
        {
            assert!(!certificate.contains(part), "{what}: {part} in\n{certificate}");
        }
        assert_eq!(certificate.matches("URI:").count(), 1, "{what}:\n{certificate}");
    }
}

#[test]
fn weak_and_strange_keys_are_refused() {
    let Some(attacker) = Attacker::new() else { return };
    for (what, key, reason) in [
        (
            "RSA of 1024 bits",
            &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"][..],
            "RSA of 1024 bits",
        ),
        (
            "secp256k1",
            &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp256k1"],
            "on the curve 1.3.132.0.10",
        ),
        (
            "P-192",
            &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime192v1"],
            "on the curve 1.2.840.10045.3.1.1",
        ),
        (
            "brainpool",
            &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:brainpoolP256r1"],
            "on the curve 1.3.36.3.3.2.8.1.1.7",
        ),
        ("P-521", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"], "on the curve 1.3.132.0.35"),
        (
            "a curve of its own",
            &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-pkeyopt", "ec_param_enc:explicit"],
            "on the curve of its own",
        ),
    ] {
        let request = attacker.request(key, SUBJECT, &format!("subjectAltName=URI:{OWN}"));
        attacker.refused(what, &request, reason);
    }
}

#[test]
fn requests_that_are_broken_or_not_the_senders_are_refused() {
    let Some(attacker) = Attacker::new() else { return };
    let good = attacker.request(P256, SUBJECT, &format!("subjectAltName=URI:{OWN}"));
    std::fs::write(attacker.folder.path().join("good.pem"), &good).unwrap();
    attacker.openssl(&["req", "-in", "good.pem", "-outform", "DER", "-out", "good.der"]);
    let der = std::fs::read(attacker.folder.path().join("good.der")).unwrap();
    let wrapped = |der: &[u8]| {
        let text = STANDARD.encode(der);
        format!("-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n")
    };
    assert!(attacker.ask(&wrapped(&der)).is_ok());

    // The last byte is of the signature: it is no longer by the key.
    let mut tampered = der.clone();
    *tampered.last_mut().unwrap() ^= 1;
    attacker.refused("another signature", &wrapped(&tampered), "signature");
    // The name is another than the one that was signed.
    let at = der.windows(4).position(|four| four == b"cart").unwrap();
    let mut renamed = der.clone();
    renamed[at..at + 4].copy_from_slice(b"tart");
    attacker.refused("another name", &wrapped(&renamed), "signature");
    for (what, text) in [
        ("nothing", String::new()),
        ("no PEM", "certify me".to_owned()),
        ("half", good[..good.len() / 2].to_owned()),
        ("a certificate", attacker.authority.root_pem().to_owned()),
        ("cut short", wrapped(&der[..der.len() - 40])),
    ] {
        attacker.refused(what, &text, "it is not a PEM certificate request");
    }
    let (_, request) = x509_parser::certification_request::X509CertificationRequest::from_der(&der).unwrap();
    let start = 4;
    let signed = start..start + request.certification_request_info.raw.len();
    assert_eq!(&der[signed.clone()], request.certification_request_info.raw);
    for at in 0..der.len() {
        let mut changed = der.clone();
        changed[at] ^= 0x55;
        let answer = attacker.ask(&wrapped(&changed));
        // The kind of the signature, behind what is signed, may be said in several ways.
        assert!(answer.is_err() || !signed.contains(&at), "byte {at} of {signed:?} may be changed");
    }
    let names: Vec<String> =
        (0..2000).map(|index| format!("URI:spiffe://cluster.local/ns/a/sa/{index}")).collect();
    let giant = attacker.request(P256, SUBJECT, &format!("subjectAltName={}", names.join(",")));
    attacker.refused("a giant", &giant, "at most 16384 are taken");
}
