//! The staged exchange of one authority for another, as the secret that holds the authority says it.
//!
//! The secret is the whole state: every step is one write of it, so that a process that ends between two steps has
//! either done a step or not. The keys of Istio's layout always describe what holds now, so a control plane that knows
//! nothing of exchanges signs and trusts rightly at every stage:
//!
//! | stage | signs | trusted | next |
//! |---|---|---|---|
//! | none | old | old | [`Holding::begin`] |
//! | [`Stage::Trusting`] | old | old, new | [`Holding::switch`] once everybody trusts both |
//! | [`Stage::Switched`] | new | new, old | [`Holding::finish`] once nobody shows a certificate of the old one |
//!
//! [`Holding::abort`] turns an exchange around. Before the switch that ends it, since nothing was signed by the new
//! authority; after it the old one signs again, and the new one is dropped as the old one would have been.

use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::authority::{Authority, CaError, secret_keys};
use crate::chain::{Facts, facts, root_of};

/// The data of a secret.
pub type SecretData = BTreeMap<String, Vec<u8>>;

/// The key that names the stage.
const STAGE: &str = "rotation-stage";
/// The roots of the authority that signs, where `root-cert.pem` has those of both.
const OWN_ROOT: &str = "rotation-own-root-cert.pem";
/// The keys of the authority that does not sign.
const OTHER_CERT: &str = "rotation-other-ca-cert.pem";
const OTHER_KEY: &str = "rotation-other-ca-key.pem";
const OTHER_CHAIN: &str = "rotation-other-cert-chain.pem";
const OTHER_ROOT: &str = "rotation-other-root-cert.pem";

/// How far an exchange is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Both roots are to be trusted, the old authority signs.
    Trusting,
    /// The new authority signs, both roots are trusted.
    Switched,
}

impl Stage {
    /// The word in the secret.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trusting => "trusting",
            Self::Switched => "switched",
        }
    }
}

/// Why an exchange cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// An authority cannot be used.
    #[error(transparent)]
    Authority(#[from] CaError),
    /// The secret says a stage that there is not.
    #[error("key {STAGE} of the CA secret: {0:?} is no stage: expected trusting or switched")]
    Stage(String),
    /// The step does not follow.
    #[error("{0}")]
    Step(&'static str),
    /// Both authorities have one root: nothing would be exchanged.
    #[error("the new authority has the root of the old one, serial number {0}: nothing would change")]
    SameRoot(String),
}

/// One authority, as PEM texts.
#[derive(Clone, PartialEq, Eq)]
pub struct Material {
    /// The signing certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
    /// The certificates between it and its root; may be empty.
    pub chain: String,
    /// Its roots.
    pub roots: String,
}

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Material").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl Material {
    /// The secret of an authority alone.
    fn data(&self) -> SecretData {
        SecretData::from([
            (secret_keys::CA_CERT.to_owned(), self.certificate.clone().into_bytes()),
            (secret_keys::CA_KEY.to_owned(), self.key.clone().into_bytes()),
            (secret_keys::CERT_CHAIN.to_owned(), self.chain.clone().into_bytes()),
            (secret_keys::ROOT_CERT.to_owned(), self.roots.clone().into_bytes()),
        ])
    }

    /// Whether it can sign now.
    ///
    /// # Errors
    /// As [`Authority::from_secret`].
    pub fn check(&self, now: SystemTime) -> Result<(), CaError> {
        Authority::from_secret(&self.data(), now).map(drop)
    }

    /// The root that its certificate leads to.
    ///
    /// # Errors
    /// When a text is no PEM, or it leads to none.
    pub fn root(&self) -> Result<Facts, CaError> {
        let chain = format!("{}{}", line_ended(&self.certificate), self.chain);
        let malformed =
            |e: crate::tls::PemError| CaError::Malformed { key: secret_keys::CA_CERT, reason: e.to_string() };
        root_of(&chain, &self.roots)
            .map_err(malformed)?
            .ok_or_else(|| CaError::Unusable("it leads to no root of root-cert.pem".to_owned()))
    }
}

/// What a secret holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The authority that signs.
    pub signer: Material,
    /// The exchange that is going on.
    pub exchange: Option<(Stage, Material)>,
}

impl Holding {
    /// Reads a secret.
    ///
    /// # Errors
    /// When a key is missing, no text, or names no stage.
    pub fn read(data: &SecretData) -> Result<Self, ExchangeError> {
        let stage = match optional(data, STAGE)? {
            text if text.is_empty() => None,
            text if text == Stage::Trusting.as_str() => Some(Stage::Trusting),
            text if text == Stage::Switched.as_str() => Some(Stage::Switched),
            text => return Err(ExchangeError::Stage(text)),
        };
        let certificate = required(data, secret_keys::CA_CERT)?;
        let roots = match stage {
            Some(_) => required(data, OWN_ROOT)?,
            None => optional(data, secret_keys::ROOT_CERT)?,
        };
        let signer = Material {
            key: required(data, secret_keys::CA_KEY)?,
            chain: optional(data, secret_keys::CERT_CHAIN)?,
            roots: if roots.is_empty() { certificate.clone() } else { roots },
            certificate,
        };
        let Some(stage) = stage else { return Ok(Self { signer, exchange: None }) };
        let other = Material {
            certificate: required(data, OTHER_CERT)?,
            key: required(data, OTHER_KEY)?,
            chain: optional(data, OTHER_CHAIN)?,
            roots: required(data, OTHER_ROOT)?,
        };
        Ok(Self { signer, exchange: Some((stage, other)) })
    }

    /// The secret.
    pub fn data(&self) -> SecretData {
        let mut data = self.signer.data();
        let Some((stage, other)) = &self.exchange else { return data };
        let both = format!("{}{}", line_ended(&self.signer.roots), line_ended(&other.roots));
        for (key, value) in [
            (secret_keys::ROOT_CERT, both.as_str()),
            (STAGE, stage.as_str()),
            (OWN_ROOT, &self.signer.roots),
            (OTHER_CERT, &other.certificate),
            (OTHER_KEY, &other.key),
            (OTHER_CHAIN, &other.chain),
            (OTHER_ROOT, &other.roots),
        ] {
            data.insert(key.to_owned(), value.as_bytes().to_vec());
        }
        data
    }

    /// All roots that are to be trusted, the signer's first.
    ///
    /// # Errors
    /// When one does not parse.
    pub fn roots(&self) -> Result<Vec<Facts>, CaError> {
        let malformed = |e: crate::tls::PemError| CaError::Malformed {
            key: secret_keys::ROOT_CERT,
            reason: e.to_string(),
        };
        let mut all = facts(&self.signer.roots).map_err(malformed)?;
        if let Some((_, other)) = &self.exchange {
            all.extend(facts(&other.roots).map_err(malformed)?);
        }
        Ok(all)
    }

    /// Begins: the new authority's root is trusted, too.
    ///
    /// # Errors
    /// When an exchange is going on, the new authority cannot sign, or has the same root.
    pub fn begin(self, new: Material, now: SystemTime) -> Result<Self, ExchangeError> {
        if self.exchange.is_some() {
            return Err(ExchangeError::Step("an exchange is going on already"));
        }
        new.check(now)?;
        let (old_root, new_root) = (self.signer.root()?, new.root()?);
        if old_root.sha256 == new_root.sha256 {
            return Err(ExchangeError::SameRoot(new_root.serial));
        }
        Ok(Self { exchange: Some((Stage::Trusting, new)), ..self })
    }

    /// The new authority signs.
    ///
    /// # Errors
    /// When no exchange waits for that, or the new authority cannot sign (any more).
    pub fn switch(self, now: SystemTime) -> Result<Self, ExchangeError> {
        match self.exchange {
            Some((Stage::Trusting, new)) => {
                new.check(now)?;
                Ok(Self { signer: new, exchange: Some((Stage::Switched, self.signer)) })
            }
            _ => Err(ExchangeError::Step("no exchange waits for its new authority to sign")),
        }
    }

    /// The authority that does not sign any more is dropped, and its key with it.
    ///
    /// # Errors
    /// When no exchange waits for that.
    pub fn finish(self) -> Result<Self, ExchangeError> {
        match self.exchange {
            Some((Stage::Switched, _)) => Ok(Self { signer: self.signer, exchange: None }),
            _ => Err(ExchangeError::Step("no exchange waits for its old authority to be dropped")),
        }
    }

    /// Turns the exchange around.
    ///
    /// # Errors
    /// When there is none, or the old authority cannot sign any more.
    pub fn abort(self, now: SystemTime) -> Result<Self, ExchangeError> {
        match self.exchange {
            None => Err(ExchangeError::Step("no exchange is going on")),
            Some((Stage::Trusting, _)) => Ok(Self { signer: self.signer, exchange: None }),
            Some((Stage::Switched, old)) => {
                old.check(now)?;
                Ok(Self { signer: old, exchange: Some((Stage::Switched, self.signer)) })
            }
        }
    }
}

fn optional(data: &SecretData, key: &'static str) -> Result<String, CaError> {
    let value = data.get(key).cloned().unwrap_or_default();
    String::from_utf8(value).map_err(|_| CaError::Malformed { key, reason: "it is not text".into() })
}

fn required(data: &SecretData, key: &'static str) -> Result<String, CaError> {
    match optional(data, key)? {
        text if text.is_empty() => Err(CaError::Missing(key)),
        text => Ok(text),
    }
}

/// PEM texts are put one behind the other.
fn line_ended(pem: &str) -> String {
    match pem.is_empty() || pem.ends_with('\n') {
        true => pem.to_owned(),
        false => format!("{pem}\n"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const YEAR: Duration = Duration::from_secs(365 * 86_400);

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000)
    }

    fn holding() -> Holding {
        let authority = Authority::self_signed("cluster.local", now(), YEAR).unwrap();
        Holding::read(&authority.secret()).unwrap()
    }

    /// Everything is written and read between two steps, as another process would; the authority is what holds then.
    fn passed_on(holding: &Holding) -> (Holding, Authority) {
        let data = holding.data();
        assert_eq!(Holding::read(&data).unwrap(), *holding);
        (Holding::read(&data).unwrap(), Authority::from_secret(&data, now()).unwrap())
    }

    fn trusted(authority: &Authority) -> Vec<String> {
        facts(authority.root_pem()).unwrap().into_iter().map(|root| root.serial).collect()
    }

    fn serial(material: &Material) -> String {
        material.root().unwrap().serial
    }

    #[test]
    fn a_root_is_exchanged_step_by_step_and_each_step_survives() {
        let (old, new) = (holding().signer, holding().signer);
        let (a, b) = (serial(&old), serial(&new));
        let start = Holding { signer: old.clone(), exchange: None };

        let (trusting, authority) = passed_on(&start.begin(new.clone(), now()).unwrap());
        assert_eq!(trusted(&authority), [a.clone(), b.clone()]);
        assert_eq!(trusting.signer, old);
        assert!(trusting.clone().finish().is_err(), "nothing is dropped that still signs");

        let (switched, authority) = passed_on(&trusting.switch(now()).unwrap());
        assert_eq!(trusted(&authority), [b.clone(), a]);
        assert_eq!(switched.signer, new);
        assert!(switched.clone().switch(now()).is_err());

        let (done, authority) = passed_on(&switched.finish().unwrap());
        assert_eq!((trusted(&authority), &done.signer), (vec![b], &new));
        assert!(!format!("{:?}", done.data()).contains("rotation"), "the old key is gone");
        assert!(done.finish().is_err());
    }

    #[test]
    fn an_exchange_is_undone_before_and_after_the_switch() {
        let (old, new) = (holding().signer, holding().signer);
        let start = Holding { signer: old.clone(), exchange: None };
        let trusting = start.clone().begin(new.clone(), now()).unwrap();
        assert_eq!(trusting.clone().abort(now()).unwrap(), start);
        assert!(start.clone().abort(now()).is_err());

        let back = trusting.switch(now()).unwrap().abort(now()).unwrap();
        assert_eq!((&back.signer, &back.exchange), (&old, &Some((Stage::Switched, new))));
        let (back, authority) = passed_on(&back);
        assert_eq!(trusted(&authority).len(), 2, "leaves of the new one live on for now");
        assert_eq!(back.finish().unwrap(), start);
    }

    #[test]
    fn what_would_end_badly_is_not_begun() {
        let start = holding();
        let same = start.clone().begin(start.signer.clone(), now()).unwrap_err();
        assert!(same.to_string().contains("nothing would change"), "{same}");
        let late = now() + YEAR * 2;
        assert!(start.clone().begin(holding().signer, late).is_err(), "it ran out");
        let trusting = start.begin(holding().signer, now()).unwrap();
        assert!(trusting.clone().begin(holding().signer, now()).is_err());
        assert!(trusting.clone().switch(late).is_err());
        let mut data = trusting.data();
        data.insert(STAGE.into(), b"done".to_vec());
        assert!(Holding::read(&data).unwrap_err().to_string().contains("\"done\" is no stage"));
    }

    #[test]
    fn nothing_prints_a_key() {
        let holding = holding().begin(self::holding().signer, now()).unwrap();
        assert!(!format!("{holding:?}").contains("PRIVATE KEY"));
    }
}
