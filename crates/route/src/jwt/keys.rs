//! JSON Web Keys (RFC 7517) and the signatures that they verify (RFC 7518, 8037).

use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters,
    VerificationAlgorithm,
};
use serde::Deserialize;

use super::Invalid;
use super::token::{Token, decoded};

/// How a token is signed. There is neither `none` nor a shared secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Es256,
    Es384,
    Es512,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    EdDsa,
}

const BY_RSA: [(Algorithm, &RsaParameters); 6] = [
    (Algorithm::Rs256, &RSA_PKCS1_2048_8192_SHA256),
    (Algorithm::Rs384, &RSA_PKCS1_2048_8192_SHA384),
    (Algorithm::Rs512, &RSA_PKCS1_2048_8192_SHA512),
    (Algorithm::Ps256, &RSA_PSS_2048_8192_SHA256),
    (Algorithm::Ps384, &RSA_PSS_2048_8192_SHA384),
    (Algorithm::Ps512, &RSA_PSS_2048_8192_SHA512),
];

impl Algorithm {
    pub(super) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "ES512" => Self::Es512,
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            "EdDSA" => Self::EdDsa,
            _ => return None,
        })
    }
}

/// A set of keys.
#[derive(Debug, Default)]
pub(super) struct Keys(Box<[Key]>);

#[derive(Debug)]
struct Key {
    id: Option<Box<str>>,
    /// The only algorithm that it is for, where it says so.
    only: Option<Algorithm>,
    /// The key for each algorithm of its type: an algorithm of another type finds none.
    by_algorithm: Vec<(Algorithm, ParsedPublicKey)>,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Fields {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Keys {
    /// Reads a set. Keys that cannot be used are left out, and said.
    ///
    /// # Errors
    /// When it is no set of keys at all.
    pub(super) fn parse(text: &str) -> Result<(Self, Vec<String>), String> {
        let set: Set = serde_json::from_str(text).map_err(|error| format!("is no JWKS: {error}"))?;
        let mut keys = Vec::new();
        let mut left_out = Vec::new();
        for (at, key) in set.keys.into_iter().enumerate() {
            match Key::parse(key) {
                Ok(key) => keys.push(key),
                Err(why) => left_out.push(format!("keys[{at}] is left out: {why}")),
            }
        }
        Ok((Self(keys.into()), left_out))
    }

    /// Whether one of the keys made the token's signature.
    pub(super) fn verify(&self, token: &Token<'_>) -> Result<(), Invalid> {
        if self.0.is_empty() {
            return Err(Invalid::NoKeys);
        }
        let mut fitting = false;
        for key in &self.0 {
            let other_id = matches!((&key.id, &token.key_id), (Some(own), Some(asked)) if **own != **asked);
            if other_id || key.only.is_some_and(|only| only != token.algorithm) {
                continue;
            }
            fitting = true;
            let of_type = key.by_algorithm.iter().find(|(algorithm, _)| *algorithm == token.algorithm);
            if of_type
                .is_some_and(|(_, key)| key.verify_sig(token.signed.as_bytes(), &token.signature).is_ok())
            {
                return Ok(());
            }
        }
        Err(if fitting { Invalid::Signature } else { Invalid::NoFittingKey })
    }
}

impl Key {
    fn parse(json: serde_json::Value) -> Result<Self, String> {
        let fields: Fields = serde_json::from_value(json).map_err(|error| error.to_string())?;
        if fields.purpose.as_deref().is_some_and(|purpose| purpose != "sig") {
            return Err("its use is not sig".into());
        }
        let only = match fields.alg.as_deref() {
            None => None,
            Some(name) => {
                Some(Algorithm::parse(name).ok_or_else(|| format!("alg {name:?} is not supported"))?)
            }
        };
        let by_algorithm = match fields.kty.as_str() {
            "RSA" => fields.rsa(only)?,
            "EC" => fields.elliptic()?,
            "OKP" => fields.edwards()?,
            other => return Err(format!("kty {other:?} is not supported")),
        };
        if only.is_some_and(|only| by_algorithm.iter().all(|(algorithm, _)| *algorithm != only)) {
            return Err("its alg does not go with its kty".into());
        }
        let id = fields.kid.filter(|id| !id.is_empty()).map(Into::into);
        Ok(Self { id, only, by_algorithm })
    }
}

impl Fields {
    fn rsa(&self, only: Option<Algorithm>) -> Result<Vec<(Algorithm, ParsedPublicKey)>, String> {
        let components = PublicKeyComponents { n: number("n", &self.n)?, e: number("e", &self.e)? };
        let wanted = BY_RSA.iter().filter(|(algorithm, _)| only.is_none_or(|only| only == *algorithm));
        wanted
            .map(|(algorithm, parameters)| {
                let key = components.to_parsed_public_key(parameters);
                key.map(|key| (*algorithm, key)).map_err(|error| format!("RSA key: {error}"))
            })
            .collect()
    }

    fn elliptic(&self) -> Result<Vec<(Algorithm, ParsedPublicKey)>, String> {
        let (algorithm, verifier, size): (_, &'static dyn VerificationAlgorithm, usize) =
            match self.crv.as_deref() {
                Some("P-256") => (Algorithm::Es256, &ECDSA_P256_SHA256_FIXED, 32),
                Some("P-384") => (Algorithm::Es384, &ECDSA_P384_SHA384_FIXED, 48),
                Some("P-521") => (Algorithm::Es512, &ECDSA_P521_SHA512_FIXED, 66),
                other => return Err(format!("crv {} is not supported", other.unwrap_or("(none)"))),
            };
        // An uncompressed point: both coordinates in full width.
        let mut point = vec![4];
        for (name, value) in [("x", &self.x), ("y", &self.y)] {
            let bytes = field(name, value)?;
            let pad = size.checked_sub(bytes.len()).ok_or_else(|| format!("{name} is too long"))?;
            point.extend(std::iter::repeat_n(0, pad));
            point.extend(bytes);
        }
        let key = ParsedPublicKey::new(verifier, point).map_err(|error| format!("EC key: {error}"))?;
        Ok(vec![(algorithm, key)])
    }

    fn edwards(&self) -> Result<Vec<(Algorithm, ParsedPublicKey)>, String> {
        if self.crv.as_deref() != Some("Ed25519") {
            return Err("only crv Ed25519 is supported".into());
        }
        let key = ParsedPublicKey::new(&ED25519, field("x", &self.x)?);
        key.map(|key| vec![(Algorithm::EdDsa, key)]).map_err(|error| format!("OKP key: {error}"))
    }
}

fn field(name: &str, value: &Option<String>) -> Result<Vec<u8>, String> {
    let text = value.as_deref().ok_or_else(|| format!("{name} is missing"))?;
    decoded(text.trim_end_matches('=')).ok_or_else(|| format!("{name} is not base64url"))
}

/// A number without leading zeros.
fn number(name: &str, value: &Option<String>) -> Result<Vec<u8>, String> {
    let bytes = field(name, value)?;
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    Ok(bytes[zeros..].to_vec())
}
