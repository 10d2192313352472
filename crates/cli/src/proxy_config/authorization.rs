//! The authorization policies in a proxy's listeners, as `istioctl x authz check` lists them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::dump::Dump;
use super::{items, listeners, row, text};
use crate::commands::CliError;

/// What stands for rules without a policy, which match nothing.
const ANONYMOUS: &str = "_anonymous_match_nothing_";
/// What precedes the names of rules whose requests a provider is asked about.
const CUSTOM: &str = "istio-ext-authz-";

/// A policy, by what distinguishes rows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Policy {
    action: String,
    /// `NAME.NAMESPACE`
    name: String,
    dry_run: bool,
}

/// What is known of a policy.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    rules: BTreeSet<String>,
    listeners: BTreeSet<String>,
}

/// The policies of all listeners.
///
/// # Errors
/// When the dump has no listeners.
pub(crate) fn select(dump: &Dump) -> Result<BTreeMap<Policy, Found>, CliError> {
    let mut found = BTreeMap::new();
    for listener in listeners::select(dump, &listeners::Filter::default())? {
        let default = listener.get("defaultFilterChain");
        for chain in items(&listener, "/filterChains").chain(default) {
            for filter in items(chain, "/filters") {
                collect(&listener, filter, &mut found);
                items(filter, "/typedConfig/httpFilters").for_each(|f| collect(&listener, f, &mut found));
            }
        }
    }
    Ok(found)
}

fn collect(listener: &Value, filter: &Value, found: &mut BTreeMap<Policy, Found>) {
    let config = &filter["typedConfig"];
    if !text(config, "/@type").ends_with(".RBAC") {
        return;
    }
    for (field, dry_run) in [("rules", false), ("shadowRules", true)] {
        let Some(rules) = config.get(field) else { continue };
        let action = match text(rules, "/action") {
            "" => "ALLOW",
            action => action,
        };
        let policies: Vec<&String> =
            rules.get("policies").and_then(Value::as_object).into_iter().flat_map(|map| map.keys()).collect();
        if policies.is_empty() {
            note(listener, Policy::new(action, ANONYMOUS, dry_run), "", found);
        }
        for key in policies {
            let custom = key.starts_with(CUSTOM);
            let (name, rule) = named(key).unwrap_or((key.clone(), ""));
            let policy = match custom {
                true => Policy::new("CUSTOM", &name, false),
                false => Policy::new(action, &name, dry_run),
            };
            note(listener, policy, rule, found);
        }
    }
}

fn note(listener: &Value, policy: Policy, rule: &str, found: &mut BTreeMap<Policy, Found>) {
    let entry = found.entry(policy).or_default();
    entry.rules.insert(rule.to_owned());
    entry.listeners.insert(text(listener, "/name").to_owned());
}

impl Policy {
    fn new(action: &str, name: &str, dry_run: bool) -> Self {
        Self { action: action.to_owned(), name: name.to_owned(), dry_run }
    }
}

/// Policy (`NAME.NAMESPACE`) and number of a rule by its key, `ns[NAMESPACE]-policy[NAME]-rule[N]` with whatever around it.
fn named(key: &str) -> Option<(String, &str)> {
    let (_, rest) = key.split_once("ns[")?;
    let (namespace, rest) = rest.split_once("]-policy[")?;
    let (name, rest) = rest.split_once("]-rule[")?;
    let (rule, _) = rest.split_once(']')?;
    Some((format!("{name}.{namespace}"), rule))
}

/// A row per policy.
pub(crate) fn table(found: &BTreeMap<Policy, Found>) -> Vec<Vec<String>> {
    let mut rows = vec![row(["ACTION", "AuthorizationPolicy", "RULES"])];
    rows.extend(found.iter().map(|(policy, found)| {
        let trial = if policy.dry_run { " (dry-run)" } else { "" };
        vec![policy.action.clone(), format!("{}{trial}", policy.name), found.rules.len().to_string()]
    }));
    rows
}

/// The same for programs, with the listeners that have them.
pub(crate) fn value(found: &BTreeMap<Policy, Found>) -> Value {
    let one = |(policy, found): (&Policy, &Found)| {
        let (name, namespace) = policy.name.split_once('.').unwrap_or((&policy.name, ""));
        json!({
            "action": policy.action,
            "name": name,
            "namespace": namespace,
            "dryRun": policy.dry_run,
            "rules": found.rules.iter().filter(|rule| !rule.is_empty()).collect::<Vec<_>>(),
            "listeners": found.listeners,
        })
    };
    found.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table;

    #[test]
    fn policies_are_listed_as_istioctl_lists_them() {
        let Some(folder) = std::env::var_os("LATEEN_CORPORA") else {
            return eprintln!("skipped: LATEEN_CORPORA is not set");
        };
        let folder = std::path::Path::new(&folder).join("istioctl");
        let cases = std::fs::read_to_string(folder.join("authz_check_cases.json")).unwrap();
        let cases: Value = serde_json::from_str(&cases).unwrap();
        for case in cases.as_array().unwrap() {
            let file = folder.join(case["argv"][4].as_str().unwrap());
            let dump = Dump::parse(&std::fs::read_to_string(file).unwrap()).unwrap();
            let printed = table::narrow(&super::table(&select(&dump).unwrap()));
            assert_eq!(printed, case["stdout"].as_str().unwrap());
        }
    }

    #[test]
    fn keys_name_policy_and_rule() {
        let named = |key| named(key).map(|(name, rule)| (name, rule.to_owned()));
        let of = |name: &str, rule: &str| Some((name.to_owned(), rule.to_owned()));
        assert_eq!(named("ns[foo]-policy[a.b]-rule[2]"), of("a.b.foo", "2"));
        let bad = "istio-ext-authz-p-ns[foo]-policy[a]-rule[0]-deny-due-to-bad-CUSTOM-action";
        assert_eq!(named(bad), of("a.foo", "0"));
        assert_eq!(named("unvalidated-token"), None);
    }
}
