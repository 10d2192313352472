//! One type of one connection: what is asked for, held, owed, and refused.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::{Catalog, Rejection, Resource};

/// How many unanswered responses are remembered; older ones count as answered by a later answer.
const IN_FLIGHT: usize = 64;

/// What a client asks for of one type, and what it was told.
#[derive(Debug, Default)]
pub(super) struct Subscription {
    pub(super) wildcard: bool,
    pub(super) names: HashSet<Arc<str>>,
    /// Whether a state-of-the-world client has ever named what it wants.
    pub(super) named: bool,
    /// The version of each resource that the client holds or was sent.
    pub(super) held: HashMap<Arc<str>, Arc<str>>,
    /// Names to be answered whatever `held` says.
    pub(super) owed: HashSet<Arc<str>>,
    /// A response is due even with nothing in it.
    pub(super) answer: bool,
    pub(super) sent_nonce: String,
    pub(super) acked_nonce: String,
    pub(super) rejected: BTreeMap<Arc<str>, String>,
    seen: Option<u64>,
    in_flight: VecDeque<(String, Vec<Arc<str>>)>,
}

/// The difference between what a client holds and what it should hold.
#[derive(Debug, Default)]
pub(super) struct Difference {
    pub(super) changed: Vec<Resource>,
    pub(super) removed: Vec<Arc<str>>,
}

impl Difference {
    fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty()
    }
}

impl Subscription {
    pub(super) fn subscribe_all(&mut self) {
        self.wildcard = true;
        self.answer = true;
    }

    /// Asks for a name; `known` when the client already told its version on this connection's first request.
    pub(super) fn subscribe(&mut self, name: &str, known: bool) {
        let name: Arc<str> = name.into();
        if !known {
            self.owed.insert(name.clone());
        }
        self.names.insert(name);
        self.answer = true;
    }

    pub(super) fn unsubscribe_all(&mut self) {
        self.wildcard = false;
        let Self { names, held, owed, .. } = self;
        held.retain(|name, _| names.contains(name));
        owed.retain(|name| names.contains(name));
    }

    /// Under a wildcard the client cannot know whether the resource is still covered, so it is told.
    pub(super) fn unsubscribe(&mut self, name: &str) {
        let removed = self.names.take(name);
        // What nobody asks for any more is not refused either.
        if !self.wildcard {
            self.rejected.remove(name);
        }
        match (self.wildcard, removed) {
            (true, Some(name)) => {
                self.owed.insert(name);
            }
            _ => {
                self.held.remove(name);
                self.owed.remove(name);
            }
        }
    }

    /// What the client must be told now; `None` when nothing is due.
    pub(super) fn difference(&mut self, type_url: &str, catalog: &dyn Catalog) -> Option<Difference> {
        let stamp = catalog.stamp(type_url);
        if !self.answer && self.owed.is_empty() && self.seen == Some(stamp) {
            return None;
        }
        let known = self.seen.filter(|_| !self.answer && self.owed.is_empty());
        self.seen = Some(stamp);
        if let Some(names) = known.and_then(|seen| catalog.since(type_url, seen)) {
            return self.difference_among(names, type_url, catalog);
        }
        let mut difference = Difference::default();
        if self.wildcard {
            for resource in catalog.all(type_url) {
                if self.is_due(resource.name, resource.version) {
                    difference.changed.push(resource.to_resource());
                }
            }
        }
        self.by_name(type_url, catalog, &mut difference);
        self.gone(type_url, catalog, &mut difference);
        self.owed.retain(|name| catalog.is_pending(type_url, name));
        let news = !difference.is_empty();
        let due = news || (self.answer && self.owed.is_empty());
        self.answer &= !due;
        self.hold(&difference);
        due.then_some(difference)
    }

    /// The same where only these names can be different.
    fn difference_among(
        &mut self,
        names: &[Arc<str>],
        type_url: &str,
        catalog: &dyn Catalog,
    ) -> Option<Difference> {
        let mut difference = Difference::default();
        for name in names {
            let found = self.reaches(type_url, name, catalog).then(|| catalog.find(type_url, name)).flatten();
            match found {
                Some(resource) if self.is_due(&resource.name, &resource.version) => {
                    difference.changed.push(resource);
                }
                Some(_) => {}
                None if self.held.contains_key(name) => difference.removed.push(name.clone()),
                None => {}
            }
        }
        self.hold(&difference);
        (!difference.is_empty()).then_some(difference)
    }

    fn hold(&mut self, difference: &Difference) {
        for resource in &difference.changed {
            self.held.insert(resource.name.clone(), resource.version.clone());
        }
        for name in &difference.removed {
            self.held.remove(name);
        }
    }

    /// Every resource that the client is subscribed to and that exists.
    pub(super) fn everything(&self, type_url: &str, catalog: &dyn Catalog) -> Vec<Resource> {
        let mut all: BTreeMap<Arc<str>, Resource> = BTreeMap::new();
        if self.wildcard {
            all.extend(catalog.all(type_url).map(|r| (r.name.clone(), r.to_resource())));
        }
        for name in &self.names {
            all.extend(catalog.find(type_url, name).map(|r| (r.name.clone(), r)));
        }
        all.into_values().collect()
    }

    pub(super) fn sent(&mut self, nonce: &str, names: Vec<Arc<str>>) {
        nonce.clone_into(&mut self.sent_nonce);
        self.in_flight.push_back((nonce.to_owned(), names));
        if self.in_flight.len() > IN_FLIGHT {
            self.in_flight.pop_front();
        }
    }

    /// The names that the answered response carried; `None` for a nonce that is not outstanding.
    pub(super) fn answered(&mut self, nonce: &str) -> Option<Vec<Arc<str>>> {
        let at = self.in_flight.iter().position(|(sent, _)| sent == nonce)?;
        nonce.clone_into(&mut self.acked_nonce);
        let mut answered = self.in_flight.drain(..=at);
        answered.next_back().map(|(_, names)| names)
    }

    /// Records the client's verdict over a response that carried `names`.
    pub(super) fn judged(&mut self, names: &[Arc<str>], rejections: &[Rejection]) {
        for name in names {
            self.rejected.remove(name);
        }
        if rejections.is_empty() {
            self.rejected.remove("");
        }
        for rejection in rejections {
            self.rejected.insert(rejection.resource.clone(), rejection.reason.clone());
        }
    }

    /// Whether a response waits for its answer.
    pub(super) fn is_outstanding(&self) -> bool {
        !self.in_flight.is_empty()
    }

    fn is_due(&self, name: &Arc<str>, version: &Arc<str>) -> bool {
        self.owed.contains(name) || self.held.get(name) != Some(version)
    }

    /// Whether the client asks for what there is of that name.
    fn reaches(&self, type_url: &str, name: &str, catalog: &dyn Catalog) -> bool {
        self.names.contains(name) || (self.wildcard && catalog.covers(type_url, name))
    }

    fn by_name(&self, type_url: &str, catalog: &dyn Catalog, difference: &mut Difference) {
        let covered = |name: &Arc<str>| self.wildcard && catalog.covers(type_url, name);
        for name in self.names.iter().filter(|name| !covered(name)) {
            if let Some(resource) = catalog.find(type_url, name)
                && self.is_due(&resource.name, &resource.version)
            {
                difference.changed.push(resource);
            }
        }
        difference.changed.sort_by(|a, b| a.name.cmp(&b.name));
    }

    fn gone(&self, type_url: &str, catalog: &dyn Catalog, difference: &mut Difference) {
        let unheld = self.owed.iter().filter(|name| !self.held.contains_key(*name));
        let gone = self.held.keys().chain(unheld).filter(|name| {
            let there = self.reaches(type_url, name, catalog) && catalog.contains(type_url, name);
            let wanted = self.wildcard || self.names.contains(*name);
            !(there || (wanted && catalog.is_pending(type_url, name)))
        });
        difference.removed.extend(gone.cloned());
        difference.removed.sort();
    }
}
