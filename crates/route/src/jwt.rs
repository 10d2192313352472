//! JSON Web Tokens on requests: which are required, where they are, and what has to hold of them.
//!
//! Semantics and texts are those of Envoy's `envoy.filters.http.jwt_authn`, with keys at hand. Signatures are made with
//! keys of the algorithm's own type only: there is neither `none` nor a shared secret.

mod keys;
mod provider;
#[cfg(test)]
mod tests;
mod token;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use lateen_proto::Struct;
use lateen_proto::envoy::extensions::filters::http::jwt_authn::v3 as proto;
use lateen_proto::envoy::extensions::filters::http::jwt_authn::v3::jwt_requirement::RequiresType;
use lateen_proto::envoy::extensions::filters::http::jwt_authn::v3::requirement_rule::RequirementType;

use crate::error::{Cx, Result};
use crate::request::RequestView;
use crate::routes::RouteMatcher;

use provider::{Place, Provider};
use token::Token;

/// A compiled `JwtAuthentication`.
#[derive(Debug)]
pub struct JwtFilter {
    rules: Box<[(RouteMatcher, Option<Requirement>)]>,
    named: BTreeMap<Box<str>, Requirement>,
    providers: Box<[Arc<Provider>]>,
    bypass_cors_preflight: bool,
    /// Whether a refusal tells nothing of its reason.
    pub strip_failure_response: bool,
}

/// What a request needs.
#[derive(Clone, Debug)]
enum Requirement {
    Token(Arc<Provider>, Option<Box<[Box<str>]>>),
    Any(Box<[Requirement]>),
    All(Box<[Requirement]>),
    /// No token, or good ones.
    AllowMissing(Box<[Arc<Provider>]>),
    /// Anything; good tokens are read.
    AllowMissingOrFailed(Box<[Arc<Provider>]>),
}

/// What comes of good tokens.
#[derive(Clone, Debug, Default)]
pub struct Accepted {
    /// Metadata of the filter, by key.
    pub metadata: Vec<(String, Struct)>,
    /// Headers to set, after those to remove are removed.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Headers to remove.
    pub remove: Vec<HeaderName>,
    /// The path without a token in its query.
    pub path: Option<String>,
    /// Whether the route is to be chosen anew.
    pub clear_route_cache: bool,
}

/// Why a request is refused for its tokens; its text is the answer's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// There is none.
    Missing,
    /// It has not three sections.
    Form,
    /// Its header is not base64url.
    HeaderBase64,
    /// Its header is no JSON object.
    HeaderJson,
    /// It does not say how it is signed.
    NoAlgorithm,
    /// It is signed in a way that is not supported: `none` and shared secrets, for instance.
    UnknownAlgorithm,
    /// Its `kid` is no text.
    KeyId,
    /// It has critical extensions.
    Critical,
    /// Its payload is not base64url.
    PayloadBase64,
    /// Its payload is no JSON object.
    PayloadJson,
    /// A claim is no text.
    NotText(&'static str),
    /// A claim is no number of seconds.
    NotInteger(&'static str),
    /// `aud` is neither text nor texts.
    Audiences,
    /// Its signature is not base64url.
    SignatureBase64,
    /// It does not hold yet.
    NotYet,
    /// It no longer holds.
    Expired,
    /// It is of another issuer.
    UnknownIssuer,
    /// It is for others.
    Audience,
    /// The signature is not by a key of the issuer.
    Signature,
    /// The issuer has no key to match.
    NoFittingKey,
    /// The issuer has no usable keys.
    NoKeys,
    /// A route asks for a requirement that is not there.
    NoRequirement,
}

impl Invalid {
    /// The status of the answer.
    pub fn status(self) -> u16 {
        match self {
            Self::Audience | Self::NoRequirement => 403,
            _ => 401,
        }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "Jwt is missing",
            Self::Form => "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
            Self::HeaderBase64 => "Jwt header is an invalid Base64url encoded",
            Self::HeaderJson => "Jwt header is an invalid JSON",
            Self::NoAlgorithm => "Jwt header [alg] field is required and must be a string",
            Self::UnknownAlgorithm => "Jwt header [alg] is not supported",
            Self::KeyId => "Jwt header [kid] field is not a string",
            Self::Critical => "Jwt header [crit] is not supported",
            Self::PayloadBase64 => "Jwt payload is an invalid Base64url encoded",
            Self::PayloadJson => "Jwt payload is an invalid JSON",
            Self::NotText(name) => return write!(f, "Jwt payload [{name}] field is not a string"),
            Self::NotInteger(name) => return write!(f, "Jwt payload [{name}] field is not an integer"),
            Self::Audiences => "Jwt payload [aud] field is not a string or string list",
            Self::SignatureBase64 => "Jwt signature is an invalid Base64url encoded",
            Self::NotYet => "Jwt not yet valid",
            Self::Expired => "Jwt is expired",
            Self::UnknownIssuer => "Jwt issuer is not configured",
            Self::Audience => "Audiences in Jwt are not allowed",
            Self::Signature => "Jwt verification fails",
            Self::NoFittingKey => "Jwks doesn't have key to match kid or alg from Jwt",
            Self::NoKeys => "Jwks doesn't have any valid public key",
            Self::NoRequirement => "Wrong requirement_name",
        })
    }
}

/// Envoy's namespace of the filter's metadata.
pub const METADATA: &str = "envoy.filters.http.jwt_authn";

impl JwtFilter {
    /// Decides about a request, at a time in seconds since 1970; a route may name the requirement.
    ///
    /// # Errors
    /// Why its tokens, or their absence, will not do.
    pub fn judge(
        &self,
        request: &RequestView<'_>,
        named: Option<&str>,
        draw: u64,
        now: u64,
    ) -> std::result::Result<Accepted, Invalid> {
        let mut accepted = Accepted::default();
        if self.bypass_cors_preflight && is_preflight(request) {
            return Ok(accepted);
        }
        // Whatever becomes of the request, nobody else sets what applications take for the claims of a token.
        for name in self.providers.iter().flat_map(|provider| provider.own_headers()) {
            if request.headers.contains_key(name) {
                accepted.remove.push(name.clone());
            }
        }
        let requirement = match named {
            Some(name) => Some(self.named.get(name).ok_or(Invalid::NoRequirement)?),
            None => {
                let rule = self.rules.iter().find(|(matcher, _)| matcher.matches(request, draw));
                rule.and_then(|(_, requirement)| requirement.as_ref())
            }
        };
        if let Some(requirement) = requirement {
            Judge { request, now, accepted: &mut accepted }.meets(requirement)?;
        }
        Ok(accepted)
    }

    pub(crate) fn compile(cx: &mut Cx<'_>, message: &proto::JwtAuthentication) -> Result<Self> {
        cx.check(message)?;
        let mut providers = BTreeMap::new();
        for (name, provider) in &message.providers {
            let compiled =
                cx.field(format_args!("providers[{name}]"), |cx| Provider::compile(cx, provider))?;
            providers.insert(name.as_str(), Arc::new(compiled));
        }
        let providers_of = Providers(providers);
        let mut named = BTreeMap::new();
        for (name, requirement) in &message.requirement_map {
            let compiled = cx.field(format_args!("requirement_map[{name}]"), |cx| {
                providers_of.requirement(cx, requirement, 0)
            })?;
            named.insert(name.as_str().into(), compiled);
        }
        let rules = cx.each("rules", &message.rules, |cx, rule| {
            let matched = cx.required("match", &rule.r#match)?;
            let matcher = cx.field("match", |cx| RouteMatcher::alone(cx, matched))?;
            let requirement = match &rule.requirement_type {
                None => None,
                Some(RequirementType::Requires(requirement)) => {
                    Some(cx.field("requires", |cx| providers_of.requirement(cx, requirement, 0))?)
                }
                Some(RequirementType::RequirementName(name)) => Some(
                    named
                        .get(name.as_str())
                        .cloned()
                        .ok_or_else(|| cx.refuse_at("requirement_name", format!("{name:?} is not there")))?,
                ),
            };
            Ok((matcher, requirement))
        })?;
        Ok(Self {
            rules: rules.into(),
            named,
            providers: providers_of.0.into_values().collect(),
            bypass_cors_preflight: message.bypass_cors_preflight,
            strip_failure_response: message.strip_failure_response,
        })
    }
}

fn is_preflight(request: &RequestView<'_>) -> bool {
    let has = |name| request.headers.get(name).is_some_and(|value| !value.is_empty());
    request.method == "OPTIONS"
        && has(http::header::ORIGIN)
        && has(http::header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// A request under judgement.
struct Judge<'j, 'r> {
    request: &'j RequestView<'r>,
    now: u64,
    accepted: &'j mut Accepted,
}

impl Judge<'_, '_> {
    fn meets(&mut self, requirement: &Requirement) -> std::result::Result<(), Invalid> {
        match requirement {
            Requirement::Token(provider, audiences) => self.token(provider, audiences.as_deref()),
            Requirement::All(all) => all.iter().try_for_each(|one| self.meets(one)),
            Requirement::Any(any) => self.any(any),
            Requirement::AllowMissing(providers) => self.optional(providers),
            Requirement::AllowMissingOrFailed(providers) => {
                // Its own answer does not matter: what is good is read.
                let _ = self.optional(providers);
                Ok(())
            }
        }
    }

    /// One of them; the most telling reason where none is met.
    fn any(&mut self, any: &[Requirement]) -> std::result::Result<(), Invalid> {
        let mut reason: Option<Invalid> = None;
        for one in any {
            match self.meets(one) {
                Ok(()) => return Ok(()),
                Err(why) if matches!(reason, None | Some(Invalid::Missing | Invalid::UnknownIssuer)) => {
                    reason = Some(why);
                }
                Err(_) => {}
            }
        }
        Err(reason.unwrap_or(Invalid::Missing))
    }

    /// A good token of an issuer; where there are several, all are.
    fn token(
        &mut self,
        provider: &Provider,
        audiences: Option<&[Box<str>]>,
    ) -> std::result::Result<(), Invalid> {
        let mut met = Err(Invalid::Missing);
        for place in &provider.places {
            for text in place.find(self.request) {
                let token = Token::parse(text)?;
                provider.verify(&token, audiences, self.now)?;
                provider.accept(&token, place, self.request, self.accepted);
                met = Ok(());
            }
        }
        met
    }

    /// No token, or only good ones.
    fn optional(&mut self, providers: &[Arc<Provider>]) -> std::result::Result<(), Invalid> {
        let mut places: Vec<&Place> = Vec::new();
        for place in providers.iter().flat_map(|provider| &provider.places) {
            if !places.contains(&place) {
                places.push(place);
            }
        }
        for place in places {
            for text in place.find(self.request) {
                let token = Token::parse(text)?;
                let at =
                    |provider: &&Arc<Provider>| provider.is_issuer(&token) && provider.places.contains(place);
                let provider = providers.iter().find(at).ok_or(Invalid::UnknownIssuer)?;
                provider.verify(&token, None, self.now)?;
                provider.accept(&token, place, self.request, self.accepted);
            }
        }
        Ok(())
    }
}

/// The providers by name, while requirements are compiled.
struct Providers<'m>(BTreeMap<&'m str, Arc<Provider>>);

impl Providers<'_> {
    fn get(&self, cx: &Cx<'_>, name: &str) -> Result<Arc<Provider>> {
        let known = self.0.get(name).cloned();
        known.ok_or_else(|| cx.refuse_at("provider_name", format!("provider {name:?} is not there")))
    }

    fn all(&self) -> Box<[Arc<Provider>]> {
        self.0.values().cloned().collect()
    }

    fn requirement(
        &self,
        cx: &mut Cx<'_>,
        message: &proto::JwtRequirement,
        depth: u8,
    ) -> Result<Requirement> {
        if depth > 16 {
            return Err(cx.refuse("is nested more than 16 levels deep"));
        }
        let several = |cx: &mut Cx<'_>, field: &str, list: &[proto::JwtRequirement]| {
            if list.is_empty() {
                return Err(cx.refuse_at(field, "needs requirements"));
            }
            cx.each(field, list, |cx, one| self.requirement(cx, one, depth + 1)).map(Into::into)
        };
        Ok(match cx.required("requires_type", &message.requires_type)? {
            RequiresType::ProviderName(name) => Requirement::Token(self.get(cx, name)?, None),
            RequiresType::ProviderAndAudiences(of) => {
                let audiences =
                    of.audiences.iter().map(|audience| provider::plain(audience).into()).collect();
                Requirement::Token(self.get(cx, &of.provider_name)?, Some(audiences))
            }
            RequiresType::RequiresAny(list) => {
                Requirement::Any(several(cx, "requires_any.requirements", &list.requirements)?)
            }
            RequiresType::RequiresAll(list) => {
                Requirement::All(several(cx, "requires_all.requirements", &list.requirements)?)
            }
            RequiresType::AllowMissing(()) => Requirement::AllowMissing(self.all()),
            RequiresType::AllowMissingOrFailed(()) => Requirement::AllowMissingOrFailed(self.all()),
            _ => return Err(cx.refuse("this requirement is not supported")),
        })
    }
}
