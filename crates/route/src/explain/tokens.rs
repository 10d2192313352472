//! Tokens of a call, judged as the proxy does.

use lateen_proto::Value;
use lateen_proto::envoy::config::core::v3::Metadata;
use lateen_proto::value::Kind;

use super::request::Head;
use crate::jwt::{Accepted, Invalid, JwtFilter, METADATA};
use crate::request::RequestView;
use crate::trail::Trail;

/// What comes of a request's tokens.
///
/// # Errors
/// The status of the refusal.
pub(super) fn judge(
    filter: &JwtFilter,
    request: &RequestView<'_>,
    now: u64,
    why: &mut Vec<String>,
) -> Result<Accepted, u16> {
    match filter.judge(request, None, 0, now) {
        Ok(accepted) => {
            why.step(|| accepted_words(&accepted));
            Ok(accepted)
        }
        Err(invalid) => {
            why.step(|| format!("the token is refused: {invalid}{}", hint(invalid)));
            why.step(|| format!("the log says jwt_authn_access_denied{{{}}}", detail(invalid)));
            Err(invalid.status())
        }
    }
}

/// Changes the request as the filter does.
pub(super) fn apply(accepted: Accepted, head: &mut Head, metadata: &mut Metadata) {
    for name in &accepted.remove {
        head.headers.remove(name);
    }
    for (name, value) in accepted.set {
        head.headers.insert(name, value);
    }
    if let Some(path) = accepted.path {
        head.path = path;
    }
    if !accepted.metadata.is_empty() {
        let own = metadata.filter_metadata.entry(METADATA.to_owned()).or_default();
        for (key, payload) in accepted.metadata {
            own.fields.insert(key, Value { kind: Some(Kind::StructValue(payload)) });
        }
    }
}

/// The log's detail, in which blanks are not.
fn detail(invalid: Invalid) -> String {
    invalid.to_string().replace(' ', "_")
}

fn accepted_words(accepted: &Accepted) -> String {
    let mut who = Vec::new();
    for (_, payload) in &accepted.metadata {
        let text = |name: &str| match payload.fields.get(name).and_then(|value| value.kind.as_ref()) {
            Some(Kind::StringValue(text)) => text.clone(),
            _ => String::new(),
        };
        who.push(format!("{}/{}", text("iss"), text("sub")));
    }
    match who.is_empty() {
        true => "no token is required, and none is brought".to_owned(),
        false => format!("the token is good: its principal is {}", who.join(", ")),
    }
}

/// What is not seen from the refusal alone.
fn hint(invalid: Invalid) -> &'static str {
    match invalid {
        Invalid::NoKeys => {
            " (the keys of a jwksUri are the control plane's to fetch, and not at hand here: give them by jwks to have the \
             signature checked)"
        }
        _ => "",
    }
}
