//! What each patch did to what a proxy gets, or why it did nothing.

use std::fmt;
use std::sync::Arc;

use lateen_base::ObjectRef;

use super::compile::Compiled;
use super::select::Selection;
use super::{Effects, Patch, nothing};
use crate::{Proxy, Resource};

/// What a patch did to what a proxy gets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PatchReport {
    /// The object.
    pub filter: ObjectRef,
    /// Which of its patches, from 0.
    pub index: usize,
    /// What it is: `CLUSTER MERGE`.
    pub title: String,
    /// What it did.
    pub outcome: PatchOutcome,
}

/// What a patch did.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PatchOutcome {
    /// It was followed, except for this.
    Warned(String),
    /// It was not followed, and why.
    Refused(String),
    /// It changed, added or removed so many resources; the first of them by name.
    Changed(usize, Vec<String>),
    /// Nothing that the proxy gets is what it means; the nearest that there is.
    Nothing(String),
}

impl PatchReport {
    pub(super) fn refused(filter: &Compiled, index: usize, reason: &str) -> Self {
        Self::of(filter, index, PatchOutcome::Refused(reason.to_owned()))
    }

    pub(super) fn warning(filter: &Compiled, index: usize, text: &str) -> Self {
        Self::of(filter, index, PatchOutcome::Warned(text.to_owned()))
    }

    fn of(filter: &Compiled, index: usize, outcome: PatchOutcome) -> Self {
        let title = filter.entries.get(index).map(|entry| entry.title.clone()).unwrap_or_default();
        Self { filter: filter.reference.clone(), index, title, outcome }
    }

    fn on(patch: &Patch, outcome: PatchOutcome) -> Self {
        Self { filter: patch.filter.clone(), index: patch.index, title: patch.title(), outcome }
    }
}

impl fmt::Display for PatchReport {
    /// `EnvoyFilter NAMESPACE/NAME, patch N (CLUSTER MERGE): what it did`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, patch {} ({}): {}", self.filter, self.index, self.title, self.outcome)
    }
}

impl fmt::Display for PatchOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Warned(text) => write!(f, "warning: {text}"),
            Self::Refused(reason) => write!(f, "not applied: {reason}"),
            Self::Nothing(why) => write!(f, "matched nothing: {why}"),
            Self::Changed(count, resources) => {
                write!(f, "changed {}", resources.join(", "))?;
                match count.saturating_sub(resources.len()) {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
        }
    }
}

/// What a proxy gets, as far as patches mean it.
#[derive(Debug, Default)]
pub struct Made<'a> {
    /// The listeners.
    pub listeners: Vec<&'a Arc<Resource>>,
    /// The clusters.
    pub clusters: Vec<&'a Arc<Resource>>,
    /// The route configurations.
    pub routes: Vec<&'a Arc<Resource>>,
}

/// The patches that are meant for a proxy, and what they did.
#[derive(Debug, Default)]
pub struct Patched {
    pub(crate) proxy: Proxy,
    pub(crate) selection: Selection,
    pub(crate) effects: Effects,
}

/// A patch that is meant for a proxy, and what it did there, without a look for why it did nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Tally {
    /// The object.
    pub filter: ObjectRef,
    /// Which of its patches, from 0.
    pub index: usize,
    /// What it is: `CLUSTER MERGE`.
    pub title: String,
    /// The first resources that it changed.
    pub changed: Vec<String>,
    /// Why it was not followed, and what of it was not.
    pub objections: Vec<PatchOutcome>,
}

impl Patched {
    /// Each patch, and what it did.
    pub fn tallies(&self) -> Vec<Tally> {
        let mut tallies: Vec<Tally> = Vec::new();
        for problem in self.selection.problems.clone() {
            let PatchReport { filter, index, title, outcome } = problem;
            tallies.push(Tally { filter, index, title, changed: Vec::new(), objections: vec![outcome] });
        }
        for patch in self.selection.patches.iter() {
            let effect = self.effects.of(patch).cloned().unwrap_or_default();
            tallies.push(Tally {
                filter: patch.filter.clone(),
                index: patch.index,
                title: patch.title(),
                objections: effect.refused.iter().map(refused).collect(),
                changed: effect.resources.into_iter().collect(),
            });
        }
        tallies
    }

    /// What each patch did, or why it did nothing, by object and number.
    pub fn reports(&self, made: &Made<'_>) -> Vec<PatchReport> {
        let mut reports = self.selection.problems.clone();
        for patch in self.selection.patches.iter() {
            let effect = self.effects.of(patch).cloned().unwrap_or_default();
            let mut outcomes: Vec<PatchOutcome> = effect.refused.iter().map(refused).collect();
            if effect.changed > 0 {
                let named = effect.resources.into_iter().collect();
                outcomes.push(PatchOutcome::Changed(effect.changed, named));
            }
            if outcomes.is_empty() {
                outcomes.push(PatchOutcome::Nothing(nothing::why(patch, &self.proxy, made)));
            }
            reports.extend(outcomes.into_iter().map(|outcome| PatchReport::on(patch, outcome)));
        }
        reports.sort();
        reports
    }
}

fn refused((reason, resource): (&String, &String)) -> PatchOutcome {
    PatchOutcome::Refused(match resource.as_str() {
        "" => reason.clone(),
        resource => format!("{resource}: {reason}"),
    })
}
