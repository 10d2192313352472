//! Tokens of scenarios: keys of the suite, and texts that are signed with them, well or not.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _, RsaEncoding, RsaKeyPair,
};
use aws_lc_rs::{error::Unspecified, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Problem;

/// Times that are smaller than this are meant from now on.
const RELATIVE: i64 = 10_000_000;

/// A token, as a scenario writes it. Without anything it is a good one of the issuer `issuer.test`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Token {
    /// The key that signs: `rs`, `es`, `es384`, `ed`; `stranger`, an RSA key in no set; `public`, the bytes of the public RSA
    /// key as an HMAC's secret; `none`, which leaves the signature empty.
    key: Option<String>,
    /// What lies over the usual header (the key's algorithm and name); `null` takes away.
    header: Map<String, Value>,
    /// What lies over the usual claims (issuer, subject, an end in an hour); `null` takes away. Times are counted from now.
    claims: Map<String, Value>,
    /// The payload as it is, in the place of claims.
    payload: Option<String>,
    /// So many bytes more in a claim.
    pad: usize,
    /// A claim of arrays in arrays, that deep.
    nest: usize,
    /// Changes a bit of the signature.
    garbled: bool,
    /// Leaves the header's algorithm alone when signing: the signature is the key's usual one.
    keep_signature: bool,
}

/// The keys of the suite; made once, since RSA keys take a while.
struct Keys {
    rsa: RsaKeyPair,
    stranger: RsaKeyPair,
    es: EcdsaKeyPair,
    es384: EcdsaKeyPair,
    ed: Ed25519KeyPair,
}

fn keys() -> Result<&'static Keys, Problem> {
    static KEYS: OnceLock<Result<Keys, Unspecified>> = OnceLock::new();
    let make = || {
        Ok(Keys {
            rsa: RsaKeyPair::generate(KeySize::Rsa2048)?,
            stranger: RsaKeyPair::generate(KeySize::Rsa2048)?,
            es: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?,
            es384: EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING)?,
            ed: Ed25519KeyPair::generate()?,
        })
    };
    KEYS.get_or_init(make).as_ref().map_err(|_| "no keys for tokens can be made".to_owned())
}

/// A text with keys in the place of `${jwks}` (all of them), `${jwks:NAME,NAME}` and `${jwk:NAME}` (one, which is no set), and with
/// tokens in that of `${jwt:NAME}`.
pub(crate) fn filled(text: &str, tokens: &BTreeMap<String, Token>) -> Result<String, Problem> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, found)) = rest.split_once("${jw") {
        let (name, after) = found.split_once('}').ok_or("a ${jw is not closed")?;
        out.push_str(before);
        match (name, name.split_once(':')) {
            ("ks", None) => out.push_str(&key_set(&["rs", "es", "es384", "ed"])?),
            (_, Some(("ks", names))) => out.push_str(&key_set(&names.split(',').collect::<Vec<_>>())?),
            (_, Some(("k", name))) => out.push_str(&key(name)?.to_string()),
            (_, Some(("t", name))) => {
                let token = tokens.get(name).ok_or_else(|| format!("there is no token {name:?}"))?;
                out.push_str(&token.text()?);
            }
            _ => {
                return Err(format!(
                    "${{jw{name}}}: expected ${{jwks}}, ${{jwks:NAME}}, ${{jwk:NAME}} or ${{jwt:NAME}}"
                ));
            }
        }
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

fn key_set(names: &[&str]) -> Result<String, Problem> {
    let all: Vec<Value> = names.iter().map(|name| key(name)).collect::<Result<_, _>>()?;
    Ok(json!({ "keys": all }).to_string())
}

fn key(name: &str) -> Result<Value, Problem> {
    let keys = keys()?;
    let point = |pair: &EcdsaKeyPair, curve: &str| {
        let point = &pair.public_key().as_ref()[1..];
        let (x, y) = point.split_at(point.len() / 2);
        json!({"kty": "EC", "crv": curve, "kid": name, "x": BASE64.encode(x), "y": BASE64.encode(y)})
    };
    match name {
        "rs" => {
            // PKCS #1: a sequence of two numbers, the first with a leading zero, the second 65537.
            let der = keys.rsa.public_key().as_ref();
            let (n, e) = (BASE64.encode(&der[9..265]), BASE64.encode(&der[der.len() - 3..]));
            Ok(json!({"kty": "RSA", "kid": "rs", "n": n, "e": e}))
        }
        "es" => Ok(point(&keys.es, "P-256")),
        "es384" => Ok(point(&keys.es384, "P-384")),
        "ed" => {
            let x = BASE64.encode(keys.ed.public_key().as_ref());
            Ok(json!({"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": x}))
        }
        other => Err(format!("no key {other:?}: there are rs, es, es384 and ed")),
    }
}

impl Token {
    fn text(&self) -> Result<String, Problem> {
        let key = self.key.as_deref().unwrap_or("rs");
        let usual = match key {
            "es" => "ES256",
            "es384" => "ES384",
            "ed" => "EdDSA",
            "public" => "HS256",
            "none" => "none",
            _ => "RS256",
        };
        let id = if matches!(key, "stranger" | "public" | "none") { "rs" } else { key };
        let header = over(json!({"alg": usual, "kid": id, "typ": "JWT"}), &self.header);
        let algorithm = match self.keep_signature {
            true => usual,
            false => header["alg"].as_str().unwrap_or(usual),
        };
        let signed = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(self.payload()));
        let mut signature = sign(key, algorithm, signed.as_bytes())?;
        if let (true, Some(byte)) = (self.garbled, signature.get_mut(7)) {
            *byte ^= 1;
        }
        Ok(format!("{signed}.{}", BASE64.encode(signature)))
    }

    fn payload(&self) -> String {
        if let Some(payload) = &self.payload {
            return payload.clone();
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as i64;
        let mut claims = over(json!({"iss": "issuer.test", "sub": "jane", "exp": 3600}), &self.claims);
        for name in ["exp", "nbf", "iat"] {
            match claims[name].as_i64() {
                Some(offset) if offset.abs() < RELATIVE => claims[name] = (now + offset).into(),
                _ => {}
            }
        }
        if self.pad > 0 {
            claims["pad"] = "x".repeat(self.pad).into();
        }
        let text = claims.to_string();
        match (self.nest, text.strip_suffix('}')) {
            (depth @ 1.., Some(open)) => {
                format!("{open},\"nest\":{}{}}}", "[".repeat(depth), "]".repeat(depth))
            }
            _ => text,
        }
    }
}

fn over(mut usual: Value, changes: &Map<String, Value>) -> Value {
    for (name, value) in changes {
        match (value, usual.as_object_mut()) {
            (Value::Null, Some(object)) => drop(object.remove(name)),
            (value, Some(object)) => drop(object.insert(name.clone(), value.clone())),
            (_, None) => {}
        }
    }
    usual
}

fn sign(key: &str, algorithm: &str, message: &[u8]) -> Result<Vec<u8>, Problem> {
    let (keys, random) = (keys()?, SystemRandom::new());
    let failed = |_: Unspecified| format!("cannot sign with {key} by {algorithm}");
    let rsa = |pair: &RsaKeyPair| {
        let encoding: &'static dyn RsaEncoding = match algorithm {
            "RS384" => &signature::RSA_PKCS1_SHA384,
            "RS512" => &signature::RSA_PKCS1_SHA512,
            "PS256" => &signature::RSA_PSS_SHA256,
            "PS384" => &signature::RSA_PSS_SHA384,
            "PS512" => &signature::RSA_PSS_SHA512,
            _ => &signature::RSA_PKCS1_SHA256,
        };
        let mut out = vec![0; pair.public_modulus_len()];
        pair.sign(encoding, &random, message, &mut out).map(|()| out)
    };
    match key {
        "rs" => rsa(&keys.rsa).map_err(failed),
        "stranger" => rsa(&keys.stranger).map_err(failed),
        "es" => keys.es.sign(&random, message).map(|made| made.as_ref().to_vec()).map_err(failed),
        "es384" => keys.es384.sign(&random, message).map(|made| made.as_ref().to_vec()).map_err(failed),
        "ed" => Ok(keys.ed.sign(message).as_ref().to_vec()),
        "public" => {
            let secret = hmac::Key::new(hmac::HMAC_SHA256, keys.rsa.public_key().as_ref());
            Ok(hmac::sign(&secret, message).as_ref().to_vec())
        }
        "none" => Ok(Vec::new()),
        other => Err(format!("no key {other:?}: there are rs, es, es384, ed, stranger, public and none")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_filled_in_with_their_claims() {
        let read = "good: {}\nold: {claims: {exp: -5, sub: null}, key: es}\ndeep: {nest: 3}";
        let tokens: BTreeMap<String, Token> = serde_saphyr::from_str(read).unwrap();
        let payload = |name: &str| {
            let text = filled(&format!("a ${{jwt:{name}}} b"), &tokens).unwrap();
            let token = text.strip_prefix("a ").unwrap().strip_suffix(" b").unwrap();
            let parts: Vec<&str> = token.split('.').collect();
            assert_eq!(parts.len(), 3);
            let json: Value = serde_json::from_slice(&BASE64.decode(parts[1]).unwrap()).unwrap();
            json
        };
        assert_eq!(payload("good")["sub"], "jane");
        assert!(payload("good")["exp"].as_i64() > payload("old")["exp"].as_i64());
        assert!(payload("old").get("sub").is_none());
        assert_eq!(payload("deep")["nest"], json!([[[]]]));
        assert!(filled("${jwt:none}", &tokens).is_err() && filled("${jwks:what}", &tokens).is_err());
        let set: Value = serde_json::from_str(&filled("${jwks}", &tokens).unwrap()).unwrap();
        assert_eq!(set["keys"].as_array().map(Vec::len), Some(4));
    }
}
