//! Comparison: of the two proxies with each other, and of both with what the scenario says.

use std::collections::{BTreeMap, BTreeSet};

use super::call::{Call, Expected};
use super::observe::Observation;

/// From so many calls on, what is left to chance is compared by share.
const MANY: usize = 40;
/// How many standard deviations a sample may be off. With some hundred samples a run, one in a million would show.
const DEVIATIONS: f64 = 4.9;

/// What two proxies made of one call, which may be many.
pub(crate) struct Pair<'a> {
    pub(crate) call: &'a Call,
    pub(crate) ours: &'a [Observation],
    pub(crate) envoy: &'a [Observation],
}

impl Pair<'_> {
    /// The differences, as lines `NAME: ours ... envoy ...`; names that differ on purpose are left out.
    pub(crate) fn differences(&self, on_purpose: &BTreeMap<String, String>) -> Vec<String> {
        let all = self.ours.iter().chain(self.envoy);
        let names: BTreeSet<&String> = all.flat_map(|observation| observation.0.keys()).collect();
        let mut out = Vec::new();
        for name in names {
            let (ours, envoy) = (histogram(self.ours, name), histogram(self.envoy, name));
            let who = name == "from" || name == "by";
            let left_to_chance = who && self.call.is("any");
            if ours == envoy || on_purpose.contains_key(name) || left_to_chance {
                continue;
            }
            let shares = self.call.times >= MANY || (who && self.call.times > 1);
            if shares && close(&ours, &envoy, self.call.times) {
                continue;
            }
            out.push(format!("    {name:<28} ours  {}\n    {:<28} envoy {}", show(&ours), "", show(&envoy)));
        }
        out
    }

    /// What is not as expected, of either proxy.
    pub(crate) fn disappointments(&self) -> Vec<String> {
        let mut out = Vec::new();
        for (who, observed) in [("ours", self.ours), ("envoy", self.envoy)] {
            for expected in &self.call.expected {
                if let Some(text) = disappointment(expected, observed, &self.call.expected) {
                    out.push(format!("    {who}: {text}"));
                }
            }
        }
        out
    }
}

fn disappointment(expected: &Expected, observed: &[Observation], all: &[Expected]) -> Option<String> {
    match expected {
        Expected::Outcome(outcome, Some(times)) => {
            let found = histogram(observed, "outcome");
            let count = found.get(outcome).copied().unwrap_or(0);
            let many = observed.len() >= MANY;
            let right = if many { near(count, *times, observed.len()) } else { count == *times };
            (!right).then(|| format!("expected {outcome} {times} times, outcomes are {}", show(&found)))
        }
        Expected::Outcome(outcome, None) => {
            let found = histogram(observed, "outcome");
            let right = found.len() == 1 && found.contains_key(outcome);
            (!right).then(|| format!("expected {outcome}, outcomes are {}", show(&found)))
        }
        Expected::Part(name, value) => {
            let found = histogram(observed, name);
            let fits = |text: &str| match value.strip_prefix('~') {
                Some(part) => text.contains(part),
                None => text == value,
            };
            // Where outcomes are mixed, a part has to be that of some of them.
            let mixed = all.iter().any(|other| matches!(other, Expected::Outcome(_, Some(_))));
            let right = match mixed {
                true => found.keys().any(|text| fits(text)),
                false => found.keys().all(|text| fits(text)),
            };
            (!right).then(|| format!("expected {name}={value:?}, found {}", show(&found)))
        }
        Expected::Shares(shares) => {
            let found = histogram(observed, "from");
            let wrong = shares.iter().any(|(who, share)| {
                let count = found.get(who).copied().unwrap_or(0);
                let expected = *share as usize * observed.len() / 100;
                !near(count, expected, observed.len())
            });
            wrong.then(|| format!("expected shares {shares:?} of {}, found {}", observed.len(), show(&found)))
        }
    }
}

type Histogram = BTreeMap<String, usize>;

fn histogram(observed: &[Observation], name: &str) -> Histogram {
    let mut out = Histogram::new();
    for observation in observed {
        *out.entry(observation.value(name).to_owned()).or_default() += 1;
    }
    out
}

/// Whether a count may be that of a sample of which so many are expected; of none there is none.
fn near(count: usize, expected: usize, of: usize) -> bool {
    count.abs_diff(expected) as f64 <= DEVIATIONS * variance(expected as f64, of).sqrt() + 0.5
}

/// The variance of a count in a sample of that size.
fn variance(expected: f64, of: usize) -> f64 {
    let share = (expected / of.max(1) as f64).clamp(0.0, 1.0);
    of as f64 * share * (1.0 - share)
}

fn close(a: &Histogram, b: &Histogram, times: usize) -> bool {
    let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let count = |of: &Histogram, key: &String| of.get(key).copied().unwrap_or(0);
    // Both are samples: the difference of two deviates by the root of two more than one.
    let apart = |a: usize, b: usize| {
        let deviation = (2.0 * variance((a + b) as f64 / 2.0, times)).sqrt();
        a.abs_diff(b) as f64 <= DEVIATIONS * deviation
    };
    keys.into_iter().all(|key| apart(count(a, key), count(b, key)))
}

fn show(of: &Histogram) -> String {
    let total: usize = of.values().sum();
    let item = |(value, count): (&String, &usize)| match (total, *count) {
        (1, _) => value.clone(),
        (_, count) => format!("{value} ({count}x)"),
    };
    of.iter().map(item).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_may_deviate_and_certainties_not() {
        assert!(near(20, 33, 100) && near(33, 33, 100) && !near(5, 33, 100));
        assert!(near(0, 0, 100) && !near(1, 0, 100) && !near(99, 100, 100));
        let all = |a: usize, b: usize| Histogram::from([("x".to_owned(), a), ("y".to_owned(), b)]);
        assert!(close(&all(40, 60), &all(60, 40), 100));
        assert!(!close(&all(5, 95), &all(60, 40), 100));
        assert!(!close(&all(100, 0), &all(75, 25), 100));
    }
}
