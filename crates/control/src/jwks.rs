//! Keys of token issuers that are named by address (`jwksUri`): which are wanted, and which are known.
//!
//! Proxies fetch nothing. The control plane does, and writes what it has into the rules, so that to everything that
//! comes after keys are given in one way. Until there are any, tokens of the issuer are refused.

mod address;
pub(crate) mod fetch;
pub(crate) mod keep;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lateen_api::{Kind, Object, Spec};
use lateen_registry::{Event, Resource, View};

/// The keys known, by address.
#[derive(Debug, Default)]
pub(crate) struct KeyBook(BTreeMap<String, Arc<str>>);

impl KeyBook {
    /// Writes what is known into the objects of an event.
    pub(crate) fn fill(&self, event: Event) -> Event {
        let filled = |resource| match resource {
            Resource::Config(object) => Resource::Config(self.filled(object)),
            other => other,
        };
        match event {
            Event::Applied(resource) => Event::Applied(filled(resource)),
            Event::Relisted { kind, resources } => {
                Event::Relisted { kind, resources: resources.into_iter().map(filled).collect() }
            }
            other => other,
        }
    }

    /// Remembers keys; the objects that they change.
    pub(crate) fn learn(&mut self, uri: String, keys: String, view: &View) -> Vec<Arc<Object>> {
        self.0.insert(uri, keys.into());
        let objects = view.configs.iter().filter(|object| object.kind == Kind::RequestAuthentication);
        let refilled = objects.map(|object| (object, self.filled(object.clone())));
        refilled.filter(|(old, new)| old.spec != new.spec).map(|(_, new)| new).collect()
    }

    /// Forgets what nobody asks for any more, and tells what is asked for.
    pub(crate) fn wanted(&mut self, view: &View) -> BTreeSet<String> {
        let mut wanted = BTreeSet::new();
        for object in view.configs.iter() {
            if let Spec::RequestAuthentication(spec) = &object.spec {
                let given = spec.jwt_rules.iter().map(|rule| &rule.jwks_uri);
                wanted.extend(given.filter(|uri| !uri.is_empty()).cloned());
            }
        }
        self.0.retain(|uri, _| wanted.contains(uri));
        wanted
    }

    fn filled(&self, object: Arc<Object>) -> Arc<Object> {
        let Spec::RequestAuthentication(spec) = &object.spec else { return object };
        if spec.jwt_rules.iter().all(|rule| rule.jwks_uri.is_empty()) {
            return object;
        }
        let mut spec = (**spec).clone();
        for rule in spec.jwt_rules.iter_mut().filter(|rule| !rule.jwks_uri.is_empty()) {
            rule.jwks = self.0.get(&rule.jwks_uri).map(|keys| keys.to_string()).unwrap_or_default();
        }
        let mut object = (*object).clone();
        object.spec = Spec::RequestAuthentication(Arc::new(spec));
        Arc::new(object)
    }
}
