//! Service-account tokens: issued by TokenRequest, checked by TokenReview and on every request that carries one.

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::access::User;
use crate::api::Api;
use crate::object;
use crate::status::{Cause, Status};

/// What a token is wanted for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenRequest {
    /// Whom the token is for; empty: this API server.
    pub audiences: Vec<String>,
    /// Life in seconds, at least 600; `None`: one hour.
    pub expiration_seconds: Option<u64>,
    /// Name of a pod of the same namespace; the token dies with it.
    pub pod: Option<String>,
}

/// A signed token. `Debug` leaves the token out.
#[derive(Clone, PartialEq, Eq)]
pub struct IssuedToken {
    /// The JWT.
    pub token: String,
    /// When it expires, seconds since 1970.
    pub expires_at: u64,
}

impl std::fmt::Debug for IssuedToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssuedToken").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

const HOUR: u64 = 3600;
const SHORTEST: u64 = 600;
const LONGEST: u64 = 1 << 32;

/// Signs and verifies.
pub(crate) struct Tokens {
    issuer: String,
    encoding: EncodingKey,
    decoding: DecodingKey,
    /// Public key as JWK.
    jwk: Value,
}

/// Claims as Kubernetes writes them.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    aud: Vec<String>,
    exp: u64,
    iat: u64,
    nbf: u64,
    iss: String,
    sub: String,
    jti: String,
    #[serde(rename = "kubernetes.io")]
    bound: Bound,
}

#[derive(Debug, Serialize, Deserialize)]
struct Bound {
    namespace: String,
    serviceaccount: Reference,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pod: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    node: Option<Reference>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Reference {
    name: String,
    #[serde(default)]
    uid: String,
}

impl Tokens {
    /// From the private key (P-256, PEM). `issuer` goes into `iss` and is the server's own audience.
    pub(crate) fn new(key_pem: &str, issuer: String) -> Result<Self, String> {
        let pair = rcgen::KeyPair::from_pem(key_pem).map_err(|e| e.to_string())?;
        let encoding = EncodingKey::from_ec_pem(key_pem.as_bytes()).map_err(|e| e.to_string())?;
        let decoding =
            DecodingKey::from_ec_pem(pair.public_key_pem().as_bytes()).map_err(|e| e.to_string())?;
        // An uncompressed point: 4, x, y.
        let point = pair.public_key_raw();
        let (x, y) = match point {
            [4, rest @ ..] if rest.len() == 64 => rest.split_at(32),
            _ => return Err("the token key is not an ECDSA P-256 key".into()),
        };
        let word =
            |bytes: &[u8]| base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, bytes);
        let jwk = json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": KEY_ID, "x": word(x), "y": word(y)});
        Ok(Self { issuer, encoding, decoding, jwk })
    }

    pub(crate) fn key_set(&self) -> Value {
        json!({"keys": [self.jwk]})
    }

    pub(crate) fn discovery(&self, server: &str) -> Value {
        json!({
            "issuer": self.issuer,
            "jwks_uri": format!("https://{server}/openid/v1/jwks"),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }
}

const KEY_ID: &str = "lateen";

/// Signs a token for a service account that exists.
pub(crate) fn issue(
    api: &Api,
    namespace: &str,
    account: &str,
    request: TokenRequest,
) -> Result<IssuedToken, Status> {
    let found = api
        .store
        .get(&"serviceaccounts".into(), namespace, account)
        .ok_or_else(|| Status::not_found("serviceaccounts", account))?;
    let seconds = request.expiration_seconds.unwrap_or(HOUR);
    if !(SHORTEST..=LONGEST).contains(&seconds) {
        let why = format!(
            "may not specify a duration outside {SHORTEST}..={LONGEST} seconds (at least 10 minutes)"
        );
        let cause = Cause::invalid("spec.expirationSeconds", &json!(seconds), why);
        return Err(Status::invalid("authentication.k8s.io", "TokenRequest", "", vec![cause]));
    }
    let (pod, node) = match &request.pod {
        None => (None, None),
        Some(name) => bound_pod(api, namespace, account, name)?,
    };
    let now = unix_now();
    let audiences =
        if request.audiences.is_empty() { vec![api.tokens.issuer.clone()] } else { request.audiences };
    let claims = Claims {
        aud: audiences,
        exp: now + seconds,
        iat: now,
        nbf: now,
        iss: api.tokens.issuer.clone(),
        sub: format!("system:serviceaccount:{namespace}:{account}"),
        jti: crate::api::uuid(),
        bound: Bound {
            namespace: namespace.into(),
            serviceaccount: Reference { name: account.into(), uid: uid(&found.neutral()) },
            pod,
            node,
        },
    };
    let header = Header { kid: Some(KEY_ID.into()), ..Header::new(Algorithm::ES256) };
    let token = jsonwebtoken::encode(&header, &claims, &api.tokens.encoding)
        .map_err(|e| Status::internal(e.to_string()))?;
    Ok(IssuedToken { token, expires_at: claims.exp })
}

fn uid(value: &Option<Value>) -> String {
    value.as_ref().map(object::uid).unwrap_or_default().to_owned()
}

type PodAndNode = (Option<Reference>, Option<Reference>);

fn bound_pod(api: &Api, namespace: &str, account: &str, name: &str) -> Result<PodAndNode, Status> {
    let found =
        api.store.get(&"pods".into(), namespace, name).ok_or_else(|| Status::not_found("pods", name))?;
    let pod = found.neutral().unwrap_or_default();
    let runs_as = pod["spec"]["serviceAccountName"].as_str().unwrap_or("default");
    if runs_as != account {
        let why = format!("the pod runs as service account {runs_as}, not {account}");
        return Err(Status::bad_request(format!("cannot bind token to pod {name}: {why}")));
    }
    let node = pod["spec"]["nodeName"].as_str().filter(|n| !n.is_empty()).map(|node| Reference {
        name: node.into(),
        uid: uid(&api.store.get(&"nodes".into(), "", node).and_then(|n| n.neutral())),
    });
    Ok((Some(Reference { name: name.into(), uid: object::uid(&pod).into() }), node))
}

fn unix_now() -> u64 {
    u64::try_from(time::OffsetDateTime::now_utc().unix_timestamp()).unwrap_or(0)
}

/// The user that a token stands for, with the audiences of `wanted` it is good for. An empty `wanted` asks for this server.
pub(crate) fn verify(api: &Api, token: &str, wanted: &[String]) -> Result<(User, Vec<String>), String> {
    let own = [api.tokens.issuer.clone()];
    let wanted = if wanted.is_empty() { &own[..] } else { wanted };
    let mut rules = Validation::new(Algorithm::ES256);
    rules.set_issuer(&[&api.tokens.issuer]);
    rules.set_audience(wanted);
    rules.validate_nbf = true;
    let decoded = jsonwebtoken::decode::<Claims>(token, &api.tokens.decoding, &rules)
        .map_err(|e| format!("invalid bearer token: {e}"))?;
    let claims = decoded.claims;
    let Bound { namespace, serviceaccount, pod, node } = claims.bound;
    let account =
        api.store.get(&"serviceaccounts".into(), &namespace, &serviceaccount.name).and_then(|o| o.neutral());
    if uid(&account) != serviceaccount.uid {
        return Err(format!("service account {namespace}/{} has been deleted", serviceaccount.name));
    }
    let mut extra =
        vec![("authentication.kubernetes.io/credential-id".to_owned(), format!("JTI={}", claims.jti))];
    if let Some(pod) = pod {
        let found = api.store.get(&"pods".into(), &namespace, &pod.name).and_then(|o| o.neutral());
        if uid(&found) != pod.uid {
            return Err(format!("pod {namespace}/{} has been deleted", pod.name));
        }
        extra.push(("authentication.kubernetes.io/pod-name".into(), pod.name));
        extra.push(("authentication.kubernetes.io/pod-uid".into(), pod.uid));
    }
    if let Some(node) = node {
        extra.push(("authentication.kubernetes.io/node-name".into(), node.name));
        extra.push(("authentication.kubernetes.io/node-uid".into(), node.uid));
    }
    let user = User {
        name: claims.sub,
        uid: serviceaccount.uid,
        groups: vec![
            "system:serviceaccounts".into(),
            format!("system:serviceaccounts:{namespace}"),
            "system:authenticated".into(),
        ],
        extra,
    };
    let good = wanted.iter().filter(|w| claims.aud.contains(w)).cloned().collect();
    Ok((user, good))
}
