//! Certificates of the suite: one authority, leaves by name, also as files; and all that is wrong with certificates.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, PublicKeyData as _, RevokedCertParams, SanType, SerialNumber,
    date_time_ymd,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::Problem;

/// The identity of every proxy and pod of the mesh.
const MESH_IDENTITY: &str = "spiffe://cluster.local/ns/default/sa/client";
/// How many intermediates a `long` chain has.
const LONG: usize = 20;
/// An organization whose name would end the quotes around it, if they were let.
const QUOTED: &str = "a\";URI=spiffe://cluster.local/ns/evil/sa/x;Subject=\"";
/// The name of the leaf that the list `crl.pem` has.
const REVOKED: &str = "revoked";

/// A certificate authority.
#[derive(Debug)]
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// One of the same name that nobody trusts.
    stranger: Issuer<'static, KeyPair>,
    /// One that the authority signed, and its certificate.
    intermediate: (Issuer<'static, KeyPair>, String),
    root: String,
    folder: PathBuf,
    leaves: Mutex<BTreeMap<String, Arc<Leaf>>>,
    serials: AtomicU64,
}

/// A certificate and its key, in PEM.
#[derive(Debug)]
pub(crate) struct Leaf {
    pub(crate) chain: String,
    pub(crate) key: String,
    serial: u64,
}

impl Authority {
    /// A new one, which writes `root.pem`, and `NAME.pem` and `NAME.key` for these names, into the folder; beside them lists
    /// of revoked certificates: `crl.pem` has `revoked`, `stale-crl.pem` has run out, `stranger-crl.pem` is of another authority.
    pub(crate) fn new(folder: &Path, names: &[&str]) -> Result<Self, Problem> {
        let (issuer, root) = root_of("differential root")?;
        let (stranger, _) = root_of("differential root")?;
        let intermediate = below(&issuer, "differential intermediate", 50)?;
        let out = Self {
            issuer,
            stranger,
            intermediate,
            root,
            folder: folder.to_owned(),
            leaves: Mutex::default(),
            serials: AtomicU64::new(100),
        };
        out.write("root.pem", &out.root)?;
        for name in names {
            let leaf = out.leaf(name)?;
            out.write(&format!("{name}.pem"), &leaf.chain)?;
            out.write(&format!("{name}.key"), &leaf.key)?;
        }
        let revoked = out.leaf(REVOKED)?.serial;
        out.write("crl.pem", &list(&out.issuer, revoked, 2090)?)?;
        out.write("stale-crl.pem", &list(&out.issuer, revoked, 2021)?)?;
        out.write("stranger-crl.pem", &list(&out.stranger, revoked, 2090)?)?;
        Ok(out)
    }

    /// The anchor.
    pub(crate) fn root(&self) -> &str {
        &self.root
    }

    /// The list of revoked certificates.
    pub(crate) fn revocations(&self) -> Result<String, Problem> {
        let path = self.folder.join("crl.pem");
        std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// A text with the folder in the place of `${certs}`, and digests in that of `${hash:NAME}` and `${spki:NAME}`.
    pub(crate) fn filled(&self, text: &str) -> Result<String, Problem> {
        let text = text.replace("${certs}", &self.folder.display().to_string());
        let text = replaced(&text, "${hash:", |name| {
            let (chain, _) = parts(&*self.leaf(name)?)?;
            let digest = sha256(chain.first().ok_or("no certificate")?);
            Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
        })?;
        replaced(&text, "${spki:", |name| {
            let key = KeyPair::from_pem(&self.leaf(name)?.key).map_err(|error| error.to_string())?;
            Ok(base64::engine::general_purpose::STANDARD.encode(sha256(&key.subject_public_key_info())))
        })
    }

    /// The certificate of that name; its common name is what the suite calls it by. `mesh` is the mesh's identity,
    /// `NAMESPACE/ACCOUNT` a workload's, `spiffe://...,spiffe://...` is as it is written; other names have a DNS name, those of
    /// pods (`SERVICE-...`) also the identities of their service.
    ///
    /// After plus signs stands what is wrong or special: `expired`, `future`, `self` (self-signed), `stranger` (of an authority
    /// that has the right name and the wrong key), `intermediate` (below one that is shown), `lone` (below one that is not),
    /// `long` (below a long chain), `usurper` (signed by another leaf), `server` (not for clients), `cn` (no alternative name), `quoted` (quotes
    /// and semicolons in its subject).
    pub(crate) fn leaf(&self, name: &str) -> Result<Arc<Leaf>, Problem> {
        let mut leaves = self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(leaf) = leaves.get(name) {
            return Ok(leaf.clone());
        }
        let leaf = Arc::new(self.make(name)?);
        leaves.insert(name.to_owned(), leaf.clone());
        Ok(leaf)
    }

    fn make(&self, name: &str) -> Result<Leaf, Problem> {
        let (base, specials) = match name.split_once('+') {
            Some((base, specials)) => (base, specials.split('+').collect()),
            None => (name, Vec::new()),
        };
        let serial = self.serials.fetch_add(1, Ordering::Relaxed);
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::default();
        params.serial_number = Some(serial.into());
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = names_of(base)?;
        let mut above = String::new();
        let mut signer = Signer::Root;
        for special in specials {
            match special {
                "expired" => {
                    (params.not_before, params.not_after) =
                        (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1))
                }
                "future" => {
                    (params.not_before, params.not_after) =
                        (date_time_ymd(2090, 1, 1), date_time_ymd(2091, 1, 1))
                }
                "server" => params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth],
                "cn" => params.subject_alt_names.clear(),
                "quoted" => params.distinguished_name.push(DnType::OrganizationName, QUOTED),
                "self" => signer = Signer::Itself,
                "stranger" => signer = Signer::Issuer(&self.stranger),
                "intermediate" => {
                    above.clone_from(&self.intermediate.1);
                    signer = Signer::Issuer(&self.intermediate.0);
                }
                "lone" => signer = Signer::Issuer(&self.intermediate.0),
                "long" => {
                    let (issuer, chain) = long(&self.issuer)?;
                    (above, signer) = (chain, Signer::Own(Box::new(issuer)));
                }
                "usurper" => {
                    let (issuer, certificate) = usurper(&self.issuer)?;
                    (above, signer) = (certificate, Signer::Own(Box::new(issuer)));
                }
                other => return Err(format!("certificate {name:?}: {other:?} is nothing that is known")),
            }
        }
        let certificate = match &signer {
            Signer::Root => params.signed_by(&key, &self.issuer),
            Signer::Issuer(issuer) => params.signed_by(&key, issuer),
            Signer::Own(issuer) => params.signed_by(&key, &**issuer),
            Signer::Itself => params.self_signed(&key),
        };
        let chain = certificate.map_err(failed)?.pem() + &above;
        Ok(Leaf { chain, key: key.serialize_pem(), serial })
    }

    /// What a server of that name presents; it asks for a client's certificate and takes whatever the authority signed.
    pub(crate) fn server(&self, name: &str) -> Result<rustls::ServerConfig, Problem> {
        let mut roots = rustls::RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(self.root.as_bytes()).map_err(|error| error.to_string())?;
        roots.add(root).map_err(|error| error.to_string())?;
        let verifier = rustls::server::WebPkiClientVerifier::builder(Arc::new(roots))
            .allow_unauthenticated()
            .build()
            .map_err(|error| error.to_string())?;
        let (chain, key) = parts(&*self.leaf(name)?)?;
        let mut config = rustls::ServerConfig::builder()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|error| error.to_string())?;
        // The last ones are what the mesh's own TLS offers.
        let names = ["h2", "http/1.1", "istio-http/1.1", "istio-http/1.0", "istio-h2", "istio"];
        config.alpn_protocols = names.map(|name| name.as_bytes().to_vec()).to_vec();
        Ok(config)
    }

    fn write(&self, name: &str, text: &str) -> Result<(), Problem> {
        let path = self.folder.join(name);
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
    }
}

/// Who signs a leaf.
enum Signer<'a> {
    Root,
    Issuer(&'a Issuer<'static, KeyPair>),
    Own(Box<Issuer<'static, KeyPair>>),
    Itself,
}

fn failed(error: rcgen::Error) -> Problem {
    error.to_string()
}

fn names_of(base: &str) -> Result<Vec<SanType>, Problem> {
    let uri = |uri: &str| Ok::<_, Problem>(SanType::URI(uri.try_into().map_err(failed)?));
    let dns = || Ok::<_, Problem>(SanType::DnsName(format!("{base}.test").try_into().map_err(failed)?));
    let workload =
        |namespace: &str, account: &str| uri(&format!("spiffe://cluster.local/ns/{namespace}/sa/{account}"));
    if base == "mesh" {
        return Ok(vec![uri(MESH_IDENTITY)?]);
    }
    if base.contains("://") {
        return base.split(',').map(uri).collect();
    }
    if let Some((namespace, account)) = base.split_once('/') {
        return Ok(vec![workload(namespace, account)?]);
    }
    match base.split_once('-') {
        // The service account of a pod is its service, whatever the namespace.
        Some((service, _)) => Ok(vec![dns()?, workload("default", service)?, workload("istio", service)?]),
        None => Ok(vec![dns()?]),
    }
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn root_of(name: &str) -> Result<(Issuer<'static, KeyPair>, String), Problem> {
    let key = KeyPair::generate().map_err(failed)?;
    let params = authority(name);
    let certificate = params.self_signed(&key).map_err(failed)?.pem();
    Ok((Issuer::new(params, key), certificate))
}

fn below(
    issuer: &Issuer<'static, KeyPair>,
    name: &str,
    serial: u64,
) -> Result<(Issuer<'static, KeyPair>, String), Problem> {
    let key = KeyPair::generate().map_err(failed)?;
    let mut params = authority(name);
    params.serial_number = Some(serial.into());
    let certificate = params.signed_by(&key, issuer).map_err(failed)?.pem();
    Ok((Issuer::new(params, key), certificate))
}

/// The last authority of a long chain, and the chain.
fn long(root: &Issuer<'static, KeyPair>) -> Result<(Issuer<'static, KeyPair>, String), Problem> {
    let (mut last, mut chain) = below(root, "link 0", 1000)?;
    for at in 1..LONG {
        let (next, certificate) = below(&last, &format!("link {at}"), 1000 + at as u64)?;
        (last, chain) = (next, certificate + &chain);
    }
    Ok((last, chain))
}

/// A leaf that signs as if it were an authority, and its certificate.
fn usurper(root: &Issuer<'static, KeyPair>) -> Result<(Issuer<'static, KeyPair>, String), Problem> {
    let key = KeyPair::generate().map_err(failed)?;
    let mut params = authority("usurper");
    params.is_ca = IsCa::ExplicitNoCa;
    let certificate = params.signed_by(&key, root).map_err(failed)?.pem();
    Ok((Issuer::new(params, key), certificate))
}

/// A list with one revoked certificate, good until that year.
fn list(issuer: &Issuer<'static, KeyPair>, serial: u64, until: i32) -> Result<String, Problem> {
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2020, 1, 1),
        next_update: date_time_ymd(until, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![RevokedCertParams {
            serial_number: serial.into(),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    list.signed_by(issuer).and_then(|list| list.pem()).map_err(failed)
}

/// A text with something else in the place of each `OPENING NAME }`.
fn replaced(
    text: &str,
    opening: &str,
    by: impl Fn(&str) -> Result<String, Problem>,
) -> Result<String, Problem> {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, found)) = rest.split_once(opening) {
        let (name, after) = found.split_once('}').ok_or_else(|| format!("{opening} is not closed"))?;
        out.push_str(before);
        out.push_str(&by(name)?);
        rest = after;
    }
    Ok(out + rest)
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref().to_vec()
}

/// A leaf as rustls takes it.
pub(crate) fn parts(leaf: &Leaf) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Problem> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(leaf.chain.as_bytes()).collect();
    let chain = chain.map_err(|error| error.to_string())?;
    let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).map_err(|error| error.to_string())?;
    Ok((chain, key))
}

/// The common name of a certificate, which is what the suite calls it by.
pub(crate) fn common_name(certificate: &CertificateDer<'_>) -> String {
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else { return "?".into() };
    let name = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    name.unwrap_or("?").to_owned()
}
