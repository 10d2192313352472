//! VirtualServices made ready: the routes of delegates in the places of the routes that delegate.

use std::borrow::Cow;
use std::sync::Arc;

use lateen_api::kinds::virtual_service::HttpRoute;
use lateen_base::Namespace;

use super::delegate;
use super::matches::Semantics;
use super::virtual_service::Rule;
use crate::Note;
use crate::snapshot::{VirtualServiceConfig, VirtualServices};

/// The rules of these VirtualServices, in their order.
pub(crate) fn rules<'a>(
    all: &VirtualServices,
    configs: impl IntoIterator<Item = &'a Arc<VirtualServiceConfig>>,
    notes: &mut Vec<Note>,
) -> Vec<Rule<'a>> {
    configs
        .into_iter()
        .map(|config| {
            let semantics = if config.by_segments { Semantics::Segments } else { Semantics::Istio };
            Rule { config, http: http(all, config, notes), semantics }
        })
        .collect()
}

fn http<'a>(
    all: &VirtualServices,
    config: &'a VirtualServiceConfig,
    notes: &mut Vec<Note>,
) -> Cow<'a, [HttpRoute]> {
    let own = &config.spec.http;
    if own.iter().all(|route| route.delegate.is_none()) {
        return Cow::Borrowed(own);
    }
    let mut routes = Vec::with_capacity(own.len());
    for route in own {
        let Some(to) = &route.delegate else {
            routes.push(route.clone());
            continue;
        };
        let namespace = match to.namespace.as_str() {
            "" => config.namespace.clone(),
            given => Namespace::new(given),
        };
        let found = all.delegates.get(&(namespace.clone(), to.name.clone()));
        let Some(found) = found.filter(|found| found.export_to.shows(&found.namespace, &config.namespace))
        else {
            let text = format!("a route delegates to {namespace}/{}, which is not there", to.name);
            notes.push(Note::on(&config.object, text));
            continue;
        };
        let (merged, lost) = delegate::merge(route, &found.spec.http);
        if lost > 0 {
            let text = format!("{lost} routes contradict what {} delegates, and are left out", config.object);
            notes.push(Note::on(&found.object, text));
        }
        routes.extend(merged);
    }
    Cow::Owned(routes)
}
