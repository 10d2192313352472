//! Phase: HTTP filters, who may ask: policies that are enforced, and such on trial.

use http::Response;
use lateen_route::rbac::{HTTP_METADATA, RbacAction, RbacFilter, Subject};

use super::body::ResponseBody;
use super::exchange::Exchange;
use super::manager::Figures;
use super::reply;
use crate::failure::Failure;
use crate::stats::Figure;

/// Where a filter says whether an audit wants a log line.
const COMMON: &str = "envoy.common";
const LOG_HINT: &str = "access_log_hint";

/// Judges a request.
///
/// # Errors
/// The answer to a request that is denied.
pub(crate) fn judge(
    mut exchange: Box<Exchange>,
    filter: &RbacFilter,
    figures: &Figures,
) -> Result<Box<Exchange>, Box<Response<ResponseBody>>> {
    let (tried, enforced) = exchange.down.with_view(|connection| {
        let view = exchange.head.view(connection, exchange.remote);
        let subject = Subject { connection, request: Some(&view) };
        let tried = filter.judge_shadow(subject);
        let tried = tried.map(|verdict| (verdict.is_allowed(), filter.shadow_facts(verdict)));
        let enforced = filter.rules.as_ref().map(|rules| {
            let verdict = rules.judge(subject);
            let hint = (rules.action == RbacAction::Log).then(|| verdict.policy().is_some());
            (verdict.denial(), hint)
        });
        (tried, enforced)
    });
    if let Some((allowed, facts)) = tried {
        if let Figures::Rbac { shadow, .. } = figures {
            count(allowed, &shadow.shadow_allowed, &shadow.shadow_denied);
        }
        exchange.head.keep(HTTP_METADATA, facts);
    }
    let Some((denial, hint)) = enforced else { return Ok(exchange) };
    if let Some(hint) = hint {
        let hint = lateen_proto::Value { kind: Some(lateen_proto::value::Kind::BoolValue(hint)) };
        exchange.head.keep(COMMON, [(LOG_HINT.to_owned(), hint)]);
    }
    if let Figures::Rbac { enforced, .. } = figures {
        count(denial.is_none(), &enforced.allowed, &enforced.denied);
    }
    match denial {
        None => Ok(exchange),
        Some(detail) => Err(Box::new(reply::failure(exchange, &Failure::Denied(detail.into())))),
    }
}

fn count(allowed: bool, yes: &Figure, no: &Figure) {
    if allowed { yes.inc() } else { no.inc() }
}
