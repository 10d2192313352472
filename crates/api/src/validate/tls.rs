//! TLS towards servers, and of servers.

use super::Problems;
use super::path::Path;
use crate::kinds::destination_rule::{ClientTlsMode, ClientTlsSettings};
use crate::kinds::gateway::{ServerTlsMode, ServerTlsSettings, TlsCertificate, TlsProtocol};

/// TLS towards a server.
pub(super) fn client(tls: &ClientTlsSettings, at: &Path<'_>, out: &mut Problems) {
    let named = !tls.credential_name.is_empty();
    if tls.insecure_skip_verify == Some(true) {
        insecure(tls, at, out);
    }
    match tls.mode {
        ClientTlsMode::Simple | ClientTlsMode::Mutual if named => {
            let message = "cannot specify client certificates or CA certificate if credentialName is set";
            for (field, value) in [
                ("clientCertificate", &tls.client_certificate),
                ("privateKey", &tls.private_key),
                ("caCertificates", &tls.ca_certificates),
                ("caCrl", &tls.ca_crl),
            ] {
                out.error_if(!value.is_empty(), &at.field(field), message);
            }
        }
        ClientTlsMode::Mutual => {
            let missing = "client certificate required for mutual tls";
            out.error_if(tls.client_certificate.is_empty(), &at.field("clientCertificate"), missing);
            let missing = "private key required for mutual tls";
            out.error_if(tls.private_key.is_empty(), &at.field("privateKey"), missing);
        }
        _ => {}
    }
}

fn insecure(tls: &ClientTlsSettings, at: &Path<'_>, out: &mut Problems) {
    let simple = tls.mode == ClientTlsMode::Simple;
    let message = |what: &str| format!("cannot specify {what} if InsecureSkipVerify is set true");
    for (field, there) in [
        ("caCertificates", !tls.ca_certificates.is_empty()),
        ("credentialName", simple && !tls.credential_name.is_empty()),
        ("subjectAltNames", !tls.subject_alt_names.is_empty()),
    ] {
        out.error_if(there, &at.field(field), message(field));
    }
}

/// TLS of a server.
pub(super) fn server(tls: &ServerTlsSettings, at: &Path<'_>, out: &mut Problems) {
    ciphers(tls, at, out);
    versions(tls, at, out);
    match tls.mode {
        ServerTlsMode::IstioMutual => istio_mutual(tls, at, out),
        ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough => passthrough(tls, at, out),
        ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual => {
            terminate(tls, at, out)
        }
    }
}

/// What could name a certificate, with whether it does.
fn sources(tls: &ServerTlsSettings) -> [(&'static str, bool); 7] {
    [
        ("serverCertificate", !tls.server_certificate.is_empty()),
        ("privateKey", !tls.private_key.is_empty()),
        ("caCertificates", !tls.ca_certificates.is_empty()),
        ("caCrl", !tls.ca_crl.is_empty()),
        ("credentialName", !tls.credential_name.is_empty()),
        ("credentialNames", !tls.credential_names.is_empty()),
        ("tlsCertificates", !tls.tls_certificates.is_empty()),
    ]
}

fn istio_mutual(tls: &ServerTlsSettings, at: &Path<'_>, out: &mut Problems) {
    let names = [
        "server certificate",
        "private key",
        "CA certificate",
        "CRL",
        "credentialName",
        "credentialNames",
        "tlsCertificates",
    ];
    for ((field, there), name) in sources(tls).into_iter().zip(names) {
        out.error_if(there, &at.field(field), format!("ISTIO_MUTUAL TLS cannot have associated {name}"));
    }
}

fn passthrough(tls: &ServerTlsSettings, at: &Path<'_>, out: &mut Problems) {
    for (field, _) in sources(tls).into_iter().filter(|(_, there)| *there) {
        out.warn(
            &at.field(field),
            format!("{} mode does not use certificates, but {field} is set", tls.mode),
        );
    }
}

fn terminate(tls: &ServerTlsSettings, at: &Path<'_>, out: &mut Problems) {
    let mode = tls.mode;
    let crl = !tls.ca_crl.is_empty();
    out.error_if(
        crl && mode == ServerTlsMode::Simple,
        &at.field("caCrl"),
        "CRL is not supported with SIMPLE TLS",
    );
    let named = !tls.credential_name.is_empty() || !tls.credential_names.is_empty();
    let ways = [
        !tls.credential_name.is_empty(),
        !tls.credential_names.is_empty(),
        !tls.tls_certificates.is_empty(),
        !named && !tls.server_certificate.is_empty() && !tls.tls_certificates.is_empty(),
        !tls.credential_names.is_empty() && !tls.server_certificate.is_empty(),
    ];
    if ways.iter().filter(|way| **way).count() > 1 {
        out.error(
            at,
            "only one of credential_name, credential_names, server_certificate/private_key or tls_certificates should be specified",
        );
    }
    if named {
        return;
    }
    if tls.tls_certificates.is_empty() {
        let own = TlsCertificate {
            server_certificate: tls.server_certificate.clone(),
            private_key: tls.private_key.clone(),
            ca_certificates: String::new(),
        };
        certificate(&own, mode, at, out);
    }
    for (i, pair) in tls.tls_certificates.iter().enumerate() {
        certificate(pair, mode, &at.field("tlsCertificates").item(i), out);
    }
    if tls.tls_certificates.len() > 2 {
        out.warn(&at.field("tlsCertificates"), "at most two certificates are used, one RSA and one ECDSA");
    }
    let authorities = !tls.ca_certificates.is_empty()
        || !tls.ca_cert_credential_name.is_empty()
        || tls.tls_certificates.iter().any(|pair| !pair.ca_certificates.is_empty());
    let wanted = mode != ServerTlsMode::Simple && tls.insecure_skip_verify != Some(true);
    out.error_if(
        wanted && !authorities,
        &at.field("caCertificates"),
        format!("{mode} TLS requires a client CA bundle"),
    );
}

fn certificate(pair: &TlsCertificate, mode: ServerTlsMode, at: &Path<'_>, out: &mut Problems) {
    for (field, value, what) in [
        ("serverCertificate", &pair.server_certificate, "server certificate"),
        ("privateKey", &pair.private_key, "private key"),
    ] {
        out.error_if(value.is_empty(), &at.field(field), format!("{mode} TLS requires a {what}"));
    }
}

/// Cipher suites that Istio hands on to Envoy, by OpenSSL's names.
const CIPHERS: &[&str] = &[
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-RSA-AES256-SHA",
    "AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-SHA",
    "AES256-SHA",
    "DES-CBC3-SHA",
    "ECDHE-PSK-AES128-CBC-SHA",
    "ECDHE-PSK-AES256-CBC-SHA",
    "ECDHE-PSK-CHACHA20-POLY1305",
    "PSK-AES128-CBC-SHA",
    "PSK-AES256-CBC-SHA",
];

/// Groups of BoringSSL.
const CURVES: &[&str] = &["X25519MLKEM768", "X25519", "P-256", "P-384", "P-521", "CECPQ2"];

fn ciphers(tls: &ServerTlsSettings, at: &Path<'_>, out: &mut Problems) {
    for (field, list, known, what) in [
        ("cipherSuites", &tls.cipher_suites, CIPHERS, "cipher suites"),
        ("ecdhCurves", &tls.ecdh_curves, CURVES, "ECDH curves"),
    ] {
        let at = &at.field(field);
        let plain = |name: &str| name.trim_start_matches(['-', '+', '!']).to_owned();
        let unknown: Vec<String> =
            list.iter().map(|name| plain(name)).filter(|name| !known.contains(&name.as_str())).collect();
        if !unknown.is_empty() && !list.iter().any(|name| name == "ALL") {
            out.warn(at, format!("ignoring invalid {what}: [{}]", unknown.join(" ")));
        }
        let twice: Vec<&str> = list
            .iter()
            .enumerate()
            .filter(|(i, name)| list[..*i].contains(name))
            .map(|(_, name)| name.as_str())
            .collect();
        if !twice.is_empty() {
            out.warn(at, format!("ignoring duplicate {what}: [{}]", twice.join(" ")));
        }
    }
}

fn versions(tls: &ServerTlsSettings, at: &Path<'_>, out: &mut Problems) {
    let old = [TlsProtocol::TlsV1_0, TlsProtocol::TlsV1_1];
    let below = old.contains(&tls.min_protocol_version) || old.contains(&tls.max_protocol_version);
    if below && tls.cipher_suites.is_empty() {
        out.warn(
            at,
            "TLS version below TLSV1_2 require setting compatible ciphers as by default they no longer include compatible ciphers.",
        );
    }
    let crossed = tls.max_protocol_version != TlsProtocol::TlsAuto
        && tls.max_protocol_version < tls.min_protocol_version;
    out.error_if(crossed, at, "the maximum protocol version is below the minimum");
}
