//! `Gateway`: what a proxy at the edge listens to.

use lateen_base::Labels;

use super::rules::count;
use crate::field::{enumeration, message};

message! {
    /// What a proxy at the edge of the mesh listens to. See https://istio.io/docs/reference/config/networking/gateway/.
    pub struct Gateway {
        /// Its servers.
        servers: Vec<Server>,
        /// Labels of the gateway pods.
        selector: Labels,
    }
}

message! {
    /// One port of a gateway, with its hosts.
    pub struct Server {
        /// The port.
        port: Port [Required],
        /// The address or Unix socket to listen on; all addresses when empty.
        bind: String,
        /// The hosts, each perhaps with a namespace before it: `ns/*.example.com`.
        hosts: Vec<String> [Required],
        /// TLS.
        tls: Option<ServerTlsSettings>,
        /// Where traffic goes by default. Not in use.
        default_endpoint: String,
        /// A name, unique in the gateway.
        name: String,
    }
}

message! {
    /// A port.
    pub struct Port {
        /// Its number.
        number: u32 [Required],
        /// HTTP, HTTPS, GRPC, GRPC-WEB, HTTP2, MONGO, MYSQL, REDIS, TCP or TLS.
        protocol: String [Required],
        /// Its name.
        name: String [Required],
        /// The port on the endpoints.
        target_port: u32,
    }
}

message! {
    /// TLS of a server.
    pub struct ServerTlsSettings [
        Cel {
            rule: "(has(self.tlsCertificates) ? 1 : 0) + (has(self.credentialNames) ? 1 : 0) <= 1",
            message: "only one of credentialNames or tlsCertificates can be set",
            holds: |value| count(value, &["tls_certificates", "credential_names"]) <= 1,
        },
        Cel {
            rule: "(has(self.credentialName) ? 1 : 0) + (has(self.credentialNames) ? 1 : 0) <= 1",
            message: "only one of credentialName or credentialNames can be set",
            holds: |value| count(value, &["credential_name", "credential_names"]) <= 1,
        },
        Cel {
            rule: "(has(self.credentialName) ? 1 : 0) + (has(self.tlsCertificates) ? 1 : 0) <= 1",
            message: "only one of credentialName or tlsCertificates can be set",
            holds: |value| count(value, &["credential_name", "tls_certificates"]) <= 1,
        },
    ] {
        /// Whether plain HTTP is answered with a redirect to HTTPS.
        https_redirect: bool,
        /// The mode.
        mode: ServerTlsMode,
        /// The file of the server's certificate.
        server_certificate: String,
        /// The file of its key.
        private_key: String,
        /// The file of the authorities' certificates for clients.
        ca_certificates: String,
        /// The file of the revocation list.
        ca_crl: String,
        /// The name of a secret that holds certificate, key and perhaps authorities.
        credential_name: String,
        /// Names of such secrets.
        credential_names: Vec<String> [MinItems(1), MaxItems(2)],
        /// The name of a secret that holds the authorities' certificates for clients.
        ca_cert_credential_name: String,
        /// Files of several certificates.
        tls_certificates: Vec<TlsCertificate> [MinItems(1), MaxItems(2)],
        /// Names of which the client's certificate needs to have one.
        subject_alt_names: Vec<String>,
        /// Hashes of the public keys of allowed client certificates, in base64.
        verify_certificate_spki: Vec<String>,
        /// Hashes of allowed client certificates, in hexadecimal.
        verify_certificate_hash: Vec<String>,
        /// The least version.
        min_protocol_version: TlsProtocol,
        /// The greatest version.
        max_protocol_version: TlsProtocol,
        /// Cipher suites, by OpenSSL's names.
        cipher_suites: Vec<String>,
        /// Key exchange curves, by OpenSSL's names.
        ecdh_curves: Vec<String>,
        /// Whether client certificates are not verified.
        insecure_skip_verify: Option<bool> [Nullable],
    }
}

message! {
    /// Files of a certificate.
    pub struct TlsCertificate {
        /// The certificate.
        server_certificate: String,
        /// Its key.
        private_key: String,
        /// The authorities' certificates for clients.
        ca_certificates: String,
    }
}

enumeration! {
    /// Modes of TLS of a server.
    pub enum ServerTlsMode {
        /// The SNI selects a route, TLS is passed through.
        Passthrough = "PASSTHROUGH" 0,
        /// TLS ends here.
        Simple = "SIMPLE" 1,
        /// TLS ends here, with a client certificate.
        Mutual = "MUTUAL" 2,
        /// As PASSTHROUGH, and the SNI itself names the service.
        AutoPassthrough = "AUTO_PASSTHROUGH" 3,
        /// TLS of the mesh ends here.
        IstioMutual = "ISTIO_MUTUAL" 4,
        /// TLS ends here, with a client certificate if there is one.
        OptionalMutual = "OPTIONAL_MUTUAL" 5,
    }
}

enumeration! {
    /// Versions of TLS.
    pub enum TlsProtocol {
        /// The default.
        TlsAuto = "TLS_AUTO" 0,
        /// 1.0
        TlsV1_0 = "TLSV1_0" 1,
        /// 1.1
        TlsV1_1 = "TLSV1_1" 2,
        /// 1.2
        TlsV1_2 = "TLSV1_2" 3,
        /// 1.3
        TlsV1_3 = "TLSV1_3" 4,
    }
}
