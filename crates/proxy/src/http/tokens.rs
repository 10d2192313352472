//! Phase: HTTP filters, JSON Web Tokens: what a good one brings into the request, and the answer to one that is not.

use std::time::UNIX_EPOCH;

use http::{HeaderValue, Response};
use lateen_route::jwt::{Accepted, Invalid, JwtFilter, METADATA};

use super::body::ResponseBody;
use super::exchange::Exchange;
use super::head::Head;
use super::reply;
use crate::failure::Failure;

/// The most of a URL that an answer repeats.
const REALM: usize = 256;

/// Validates a request's tokens; whether the route has to be chosen anew.
///
/// # Errors
/// The answer to a request whose tokens will not do.
pub(crate) fn validate(
    mut exchange: Box<Exchange>,
    filter: &JwtFilter,
    named: Option<&str>,
) -> Result<(Box<Exchange>, bool), Box<Response<ResponseBody>>> {
    let now = exchange.started_at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let judged = exchange.down.with_view(|connection| {
        let view = exchange.head.view(connection, exchange.remote);
        filter.judge(&view, named, exchange.entropy.draw(0x6a77_7400), now)
    });
    let applied = match judged {
        Ok(accepted) => apply(&mut exchange.head, accepted),
        Err(invalid) => Err(Failure::Token(invalid, filter.strip_failure_response)),
    };
    match applied {
        Ok(anew) => Ok((exchange, anew)),
        Err(failure) => Err(Box::new(reply::failure(exchange, &failure))),
    }
}

fn apply(head: &mut Head, accepted: Accepted) -> Result<bool, Failure> {
    for name in &accepted.remove {
        head.headers.remove(name);
    }
    for (name, value) in accepted.set {
        head.headers.insert(name, value);
    }
    if let Some(path) = &accepted.path {
        head.set_path(path)?;
    }
    if !accepted.metadata.is_empty() {
        let metadata = head.metadata.get_or_insert_default();
        let own = metadata.filter_metadata.entry(METADATA.to_owned()).or_default();
        for (key, payload) in accepted.metadata {
            own.fields.insert(
                key,
                lateen_proto::Value { kind: Some(lateen_proto::value::Kind::StructValue(payload)) },
            );
        }
    }
    Ok(accepted.clear_route_cache)
}

/// `WWW-Authenticate` (RFC 6750, 3), without the query, in which tokens may be.
pub(crate) fn challenge(head: &Head, invalid: Invalid) -> Option<HeaderValue> {
    let path = head.path();
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    let mut realm = format!("{}://{}{path}", head.scheme, head.authority());
    realm.retain(|c| !matches!(c, '"' | '\\'));
    while realm.len() > REALM {
        realm.pop();
    }
    let mut text = format!("Bearer realm=\"{realm}\"");
    if invalid != Invalid::Missing {
        text.push_str(", error=\"invalid_token\"");
    }
    HeaderValue::from_str(&text).ok()
}
