//! What patches did.

use std::collections::{BTreeMap, BTreeSet};

use lateen_base::ObjectRef;

use super::Patch;

/// How many resources of each patch are named; the others are counted.
const NAMED: usize = 5;

/// What patches did, by object and number.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Effects(BTreeMap<(ObjectRef, usize), Effect>);

/// What one patch did.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Effect {
    /// How many resources it changed.
    pub(crate) changed: usize,
    /// The first of them.
    pub(crate) resources: BTreeSet<String>,
    /// Why it was not taken, each with the first resource that it was not taken for.
    pub(crate) refused: BTreeMap<String, String>,
}

impl Effects {
    /// A patch changed a resource.
    pub(crate) fn changed(&mut self, patch: &Patch, resource: &str) {
        let effect = self.of_mut(patch);
        // Chains of one port have the same routes, each for itself.
        if effect.resources.contains(resource) {
            return;
        }
        effect.changed += 1;
        if effect.resources.len() < NAMED {
            effect.resources.insert(resource.to_owned());
        }
    }

    /// A patch was not taken for a resource.
    pub(crate) fn refused(&mut self, patch: &Patch, resource: &str, reason: &str) {
        let effect = self.of_mut(patch);
        if effect.refused.len() < NAMED {
            effect.refused.entry(reason.to_owned()).or_insert_with(|| resource.to_owned());
        }
    }

    /// Adds what was done elsewhere.
    pub(crate) fn add(&mut self, other: &Self) {
        for (patch, more) in &other.0 {
            let effect = self.0.entry(patch.clone()).or_default();
            effect.changed += more.changed;
            let free = NAMED.saturating_sub(effect.resources.len());
            effect.resources.extend(more.resources.iter().take(free).cloned());
            for (reason, resource) in more.refused.iter().take(NAMED) {
                effect.refused.entry(reason.clone()).or_insert_with(|| resource.clone());
            }
        }
    }

    /// What a patch did.
    pub(crate) fn of(&self, patch: &Patch) -> Option<&Effect> {
        self.0.get(&(patch.filter.clone(), patch.index))
    }

    fn of_mut(&mut self, patch: &Patch) -> &mut Effect {
        self.0.entry((patch.filter.clone(), patch.index)).or_default()
    }
}
