//! Patches of listeners, their filters and chains, and the filters of chains.

use lateen_api::kinds::envoy_filter::{ApplyTo, FilterClass, PatchContext, PatchOperation};
use lateen_proto::Any;
use lateen_proto::envoy::config::listener::v3::filter::ConfigType;
use lateen_proto::envoy::config::listener::v3::{Filter, FilterChain, Listener, ListenerFilter};
use lateen_proto::envoy::config::route::v3::RouteConfiguration;
use lateen_proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use lateen_proto::envoy::extensions::filters::network::http_connection_manager::v3::http_filter::ConfigType as HttpConfigType;
use lateen_proto::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter,
};
use lateen_proto::merge::{Lists, same_type};

use super::edit::{self, Edited, ListEdit};
use super::routes::{PortMap, Side};
use super::sound::{ROUTER, Sound};
use super::{Patch, Patching, matches};
use crate::{Built, Proxy};

impl Patching<'_> {
    /// Patches listeners, level by level: the routes within, itself, its filters, its chains, their filters; what is added
    /// comes last.
    pub(crate) fn listeners(
        &mut self,
        proxy: &Proxy,
        listeners: Vec<Built<Listener>>,
    ) -> Vec<Built<Listener>> {
        if self.patches.is_empty() {
            return listeners;
        }
        let mut out: Vec<_> =
            listeners.into_iter().filter_map(|listener| self.listener(proxy, listener)).collect();
        self.add_listeners(proxy, &mut out);
        out
    }

    fn listener(&mut self, proxy: &Proxy, mut built: Built<Listener>) -> Option<Built<Listener>> {
        let side = matches::side(proxy, &built.message);
        if side == PatchContext::SidecarInbound {
            self.inline_routes(side, &mut built);
        }
        let set = self.patches;
        let of = |apply_to: ApplyTo| set.of(apply_to).filter(move |patch| patch.is_for(side));
        for patch in of(ApplyTo::Listener).filter(|patch| patch.operation != PatchOperation::Add) {
            if !matches::listener(patch, proxy, &built.message) {
                continue;
            }
            if patch.operation == PatchOperation::Remove {
                self.effects.changed(patch, &built.name);
                return None;
            }
            self.attempt(patch, &mut built, |listener| itself(patch, listener));
        }
        let adds = |patch: &&std::sync::Arc<Patch>| patch.operation == PatchOperation::Add;
        let merges = |patch: &&std::sync::Arc<Patch>| patch.merges();
        // What was inserted can be merged into, so merging comes after.
        let filters = |apply_to| of(apply_to).filter(|p| !merges(p)).chain(of(apply_to).filter(merges));
        let patches = of(ApplyTo::ListenerFilter)
            .chain(of(ApplyTo::FilterChain).filter(|patch| !adds(patch)))
            .chain(filters(ApplyTo::NetworkFilter))
            .chain(filters(ApplyTo::HttpFilter))
            .chain(of(ApplyTo::FilterChain).filter(adds));
        for patch in patches {
            if !matches::listener(patch, proxy, &built.message) {
                continue;
            }
            self.attempt(patch, &mut built, |listener| match patch.apply_to {
                ApplyTo::ListenerFilter => listener_filters(patch, listener),
                ApplyTo::FilterChain => chains(patch, listener),
                ApplyTo::NetworkFilter => in_chains(patch, listener, &network_filters),
                _ => in_chains(patch, listener, &http_filters),
            });
        }
        Some(built)
    }

    fn add_listeners(&mut self, proxy: &Proxy, listeners: &mut Vec<Built<Listener>>) {
        let outward = matches::outward(proxy.is_router());
        let set = self.patches;
        for patch in set.of(ApplyTo::Listener).filter(|patch| patch.operation == PatchOperation::Add) {
            let inbound = patch.condition.context == PatchContext::SidecarInbound && !proxy.is_router();
            if !patch.is_for(outward) && !inbound {
                continue;
            }
            let made = patch.message::<Listener>().and_then(|listener| {
                if listener.name.is_empty() {
                    return Err("name: is required".to_owned());
                }
                listener.sound()?;
                match listeners.iter().any(|built| built.name == listener.name) {
                    true => Err(format!("there is a listener {} already", listener.name)),
                    false => Ok(listener),
                }
            });
            match made {
                Ok(listener) => {
                    self.effects.changed(patch, &listener.name);
                    let mut built = Built::new(listener.name.clone(), listener);
                    built
                        .notes
                        .push(crate::Note::on(&patch.filter, format!("patch {} added it", patch.index)));
                    listeners.push(built);
                }
                Err(reason) => self.effects.refused(patch, "", &reason),
            }
        }
    }

    /// The routes of inbound listeners are part of them.
    fn inline_routes(&mut self, context: PatchContext, built: &mut Built<Listener>) {
        if self.patches.among(super::OF_ROUTES).is_empty() {
            return;
        }
        let ports = PortMap::default();
        for filter in chains_mut(&mut built.message).flat_map(|chain| &mut chain.filters) {
            let Some(mut manager) = manager_of(filter) else { continue };
            let Some(RouteSpecifier::RouteConfig(routes)) = manager.route_specifier.take() else { continue };
            let mut routes: Built<RouteConfiguration> = Built::new(routes.name.clone(), routes);
            self.routes(Side { context, ports: &ports }, &mut routes);
            built.notes.append(&mut routes.notes);
            manager.route_specifier = Some(RouteSpecifier::RouteConfig(routes.message));
            filter.config_type = Some(ConfigType::TypedConfig(Any::pack(&manager)));
        }
    }
}

fn itself(patch: &Patch, listener: &mut Listener) -> Edited {
    let merged = patch.message::<Listener>().and_then(|value| {
        let name = listener.name.clone();
        edit::plain(listener, &value, edit::lists(patch.operation))?;
        listener.name = name;
        Ok(1)
    });
    merged.into()
}

fn listener_filters(patch: &Patch, listener: &mut Listener) -> Edited {
    let name = matches::listener_filter(&patch.condition);
    if let Some(missing) = needs_match(patch, name.is_some(), "match.listener.listenerFilter") {
        return missing;
    }
    let wanted = |filter: &ListenerFilter| name.is_none_or(|name| name == filter.name);
    ListEdit { patch, picks: name.is_some(), wanted: &wanted, merge: &edit::plain }
        .apply(&mut listener.listener_filters)
}

fn chains(patch: &Patch, listener: &mut Listener) -> Edited {
    let shell = Listener { name: listener.name.clone(), ..Listener::default() };
    let wanted = |chain: &FilterChain| matches::chain(patch, &shell, chain);
    let edit = ListEdit { patch, picks: true, wanted: &wanted, merge: &edit::plain };
    let mut edited = edit.apply(&mut listener.filter_chains);
    if patch.operation != PatchOperation::Add
        && let Some(chain) = listener.default_filter_chain.take()
    {
        let mut one = vec![chain];
        edited.add(edit.apply(&mut one));
        listener.default_filter_chain = one.pop();
    }
    edited
}

fn in_chains(
    patch: &Patch,
    listener: &mut Listener,
    edit: &dyn Fn(&Patch, &mut FilterChain) -> Edited,
) -> Edited {
    let shell = Listener { name: listener.name.clone(), ..Listener::default() };
    let mut edited = Edited::default();
    for chain in chains_mut(listener).filter(|chain| matches::chain(patch, &shell, chain)) {
        edited.add(edit(patch, chain));
    }
    edited
}

fn network_filters(patch: &Patch, chain: &mut FilterChain) -> Edited {
    let name = matches::filter(&patch.condition).map(|filter| filter.name.as_str());
    if let Some(missing) = needs_match(patch, name.is_some(), "match.listener.filterChain.filter.name") {
        return missing;
    }
    let wanted = |filter: &Filter| name.is_none_or(|name| name == filter.name);
    ListEdit { patch, picks: name.is_some(), wanted: &wanted, merge: &merge_network }
        .apply(&mut chain.filters)
}

fn http_filters(patch: &Patch, chain: &mut FilterChain) -> Edited {
    let outer = matches::filter(&patch.condition).map(|filter| filter.name.as_str());
    let name = matches::sub_filter(&patch.condition);
    if let Some(missing) =
        needs_match(patch, name.is_some(), "match.listener.filterChain.filter.subFilter.name")
    {
        return missing;
    }
    let wanted = |filter: &HttpFilter| name.is_none_or(|name| name == filter.name);
    let edit = ListEdit { patch, picks: name.is_some(), wanted: &wanted, merge: &merge_http };
    let mut edited = Edited::default();
    for filter in chain.filters.iter_mut().filter(|filter| outer.is_none_or(|name| name == filter.name)) {
        let Some(mut manager) = manager_of(filter) else { continue };
        let done = match placed(patch, &mut manager.http_filters) {
            Some(done) => done,
            None => edit.apply(&mut manager.http_filters),
        };
        if done.count > 0 {
            filter.config_type = Some(ConfigType::TypedConfig(Any::pack(&manager)));
        }
        edited.add(done);
    }
    edited
}

/// Adds an HTTP filter where its class belongs, if the patch gives one.
fn placed(patch: &Patch, filters: &mut Vec<HttpFilter>) -> Option<Edited> {
    const AUTHN: &[&str] = &["envoy.filters.http.jwt_authn"];
    const AUTHZ: &[&str] = &["envoy.filters.http.rbac", "envoy.filters.http.ext_authz"];
    // What may come before anybody is known.
    const FIRST: &[&str] = &["istio.metadata_exchange", "envoy.filters.http.set_filter_state"];
    const STATS: &[&str] = &["istio.stats"];
    if patch.class == FilterClass::Unspecified || patch.operation != PatchOperation::Add {
        return None;
    }
    let after = |names: &[&[&str]]| {
        let found = |filter: &HttpFilter| names.iter().any(|names| names.contains(&filter.name.as_str()));
        filters.iter().rposition(found).map_or(0, |last| last + 1)
    };
    let first = |names: &[&str]| filters.iter().position(|filter| names.contains(&filter.name.as_str()));
    let at = match patch.class {
        FilterClass::Authn => after(&[FIRST, AUTHN]),
        FilterClass::Authz => after(&[FIRST, AUTHN, AUTHZ]),
        FilterClass::Stats => first(STATS).or_else(|| first(&[ROUTER])).unwrap_or(filters.len()),
        FilterClass::Unspecified => return None,
    };
    Some(match patch.message() {
        Ok(filter) => {
            filters.insert(at, filter);
            Edited::count(1)
        }
        Err(reason) => Edited::refused(reason),
    })
}

/// Replacing and removing need to be told which: all of a list is never meant.
fn needs_match(patch: &Patch, there: bool, field: &str) -> Option<Edited> {
    let picky = matches!(patch.operation, PatchOperation::Replace | PatchOperation::Remove);
    (picky && !there).then(|| Edited::refused(format!("{field}: {} needs it", patch.operation)))
}

fn merge_network(into: &mut Filter, value: &Filter, lists: Lists) -> Result<(), String> {
    if let (Some(ConfigType::TypedConfig(known)), Some(ConfigType::TypedConfig(new))) =
        (&into.config_type, &value.config_type)
    {
        fits(known, new)?;
    }
    edit::plain(into, value, lists)
}

fn merge_http(into: &mut HttpFilter, value: &HttpFilter, lists: Lists) -> Result<(), String> {
    if let (Some(HttpConfigType::TypedConfig(known)), Some(HttpConfigType::TypedConfig(new))) =
        (&into.config_type, &value.config_type)
    {
        fits(known, new)?;
    }
    edit::plain(into, value, lists)
}

fn fits(known: &Any, new: &Any) -> Result<(), String> {
    match same_type(known, new) {
        true => Ok(()),
        false => Err(format!(
            "typed_config: {} cannot be merged into {}; use REPLACE",
            new.type_url, known.type_url
        )),
    }
}

/// The HTTP connection manager that a network filter is.
pub(crate) fn manager_of(filter: &Filter) -> Option<HttpConnectionManager> {
    match &filter.config_type {
        Some(ConfigType::TypedConfig(config)) if config.is::<HttpConnectionManager>() => config.unpack().ok(),
        _ => None,
    }
}

fn chains_mut(listener: &mut Listener) -> impl Iterator<Item = &mut FilterChain> {
    listener.filter_chains.iter_mut().chain(&mut listener.default_filter_chain)
}
