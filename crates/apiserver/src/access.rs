//! Who a caller is, and what it may do: role-based access control over the objects of `rbac.authorization.k8s.io`.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::api::Api;
use crate::object;
use crate::resource::ResourceName;

/// An authenticated caller.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// Name, e.g. `system:serviceaccount:default:sleep`.
    pub name: String,
    /// Uid, may be empty.
    pub uid: String,
    /// Groups; `system:masters` may do everything.
    pub groups: Vec<String>,
    /// Facts about the credential.
    pub extra: Vec<(String, String)>,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Action<'a> {
    /// `get`, `list`, `watch`, `create` ...
    pub(crate) verb: &'a str,
    pub(crate) group: &'a str,
    /// With a subresource as `pods/log`; empty for paths outside of resources.
    pub(crate) resource: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    /// Only for paths outside of resources.
    pub(crate) path: &'a str,
}

/// Roles and bindings, decoded once per change.
#[derive(Default)]
pub(crate) struct Roles(Mutex<Option<Arc<Grants>>>);

struct Grants {
    at: [u64; 4],
    grants: Vec<Grant>,
}

/// One binding with the rules of its role.
struct Grant {
    /// `None`: in all namespaces.
    namespace: Option<String>,
    subjects: Vec<Subject>,
    rules: Vec<Rule>,
}

enum Subject {
    User(String),
    Group(String),
}

struct Rule {
    verbs: Vec<String>,
    groups: Vec<String>,
    resources: Vec<String>,
    names: Vec<String>,
    paths: Vec<String>,
}

const TABLES: [&str; 4] = ["clusterroles", "roles", "clusterrolebindings", "rolebindings"];

impl User {
    /// The in-process controllers and the holder of the kubeconfig.
    pub(crate) fn master(name: &str) -> Self {
        let groups = vec!["system:masters".into(), "system:authenticated".into()];
        Self { name: name.into(), groups, ..Self::default() }
    }

    /// A caller without credentials.
    pub(crate) fn anonymous() -> Self {
        Self {
            name: "system:anonymous".into(),
            groups: vec!["system:unauthenticated".into()],
            ..Self::default()
        }
    }

    fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
}

/// Whether the user may do it.
pub(crate) fn allows(api: &Api, user: &User, action: Action<'_>) -> bool {
    if user.is_in("system:masters") {
        return true;
    }
    let review = matches!(
        action.resource,
        "selfsubjectaccessreviews" | "selfsubjectreviews" | "selfsubjectrulesreviews"
    );
    if user.is_in("system:authenticated") && (review || action.resource.is_empty() && action.verb == "get") {
        return true;
    }
    let grants = api.roles.current(api);
    grants.grants.iter().any(|grant| {
        grant.namespace.as_deref().is_none_or(|ns| ns == action.namespace && !action.resource.is_empty())
            && grant.subjects.iter().any(|s| s.is(user))
            && grant.rules.iter().any(|rule| rule.allows(&action))
    })
}

/// What the user may do in a namespace: rules on resources, and on paths outside of them.
pub(crate) fn rules_of(api: &Api, user: &User, namespace: &str) -> (Vec<Value>, Vec<Value>) {
    let everything = ["*"];
    if user.is_in("system:masters") {
        return (
            vec![json!({"verbs": everything, "apiGroups": everything, "resources": everything})],
            vec![json!({"verbs": everything, "nonResourceURLs": everything})],
        );
    }
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    let grants = api.roles.current(api);
    let own = grants.grants.iter().filter(|grant| {
        grant.namespace.as_deref().is_none_or(|place| place == namespace)
            && grant.subjects.iter().any(|subject| subject.is(user))
    });
    for grant in own {
        for rule in &grant.rules {
            if !rule.resources.is_empty() {
                let mut said =
                    json!({"verbs": rule.verbs, "apiGroups": rule.groups, "resources": rule.resources});
                if !rule.names.is_empty() {
                    said["resourceNames"] = json!(rule.names);
                }
                resources.push(said);
            }
            // A binding in a namespace grants no paths.
            if !rule.paths.is_empty() && grant.namespace.is_none() {
                paths.push(json!({"verbs": rule.verbs, "nonResourceURLs": rule.paths}));
            }
        }
    }
    (resources, paths)
}

impl Roles {
    fn current(&self, api: &Api) -> Arc<Grants> {
        let at = TABLES.map(|table| api.store.changed_at(&rbac(table)));
        let mut cached = self.0.lock();
        if let Some(grants) = cached.as_ref().filter(|g| g.at == at) {
            return grants.clone();
        }
        let fresh = Arc::new(Grants { at, grants: load(api) });
        *cached = Some(fresh.clone());
        fresh
    }
}

fn rbac(plural: &str) -> ResourceName {
    ResourceName::new("rbac.authorization.k8s.io", plural)
}

fn load(api: &Api) -> Vec<Grant> {
    let mut grants = Vec::new();
    for table in ["clusterrolebindings", "rolebindings"] {
        for binding in api.store.list(&rbac(table), None).objects {
            let value = binding.neutral().unwrap_or_default();
            let namespace = (table == "rolebindings").then(|| binding.namespace.to_string());
            let role = value["roleRef"]["name"].as_str().unwrap_or_default();
            let role = match value["roleRef"]["kind"].as_str() {
                Some("Role") => api.store.get(&rbac("roles"), &binding.namespace, role),
                _ => api.store.get(&rbac("clusterroles"), "", role),
            };
            let Some(role) = role.and_then(|r| r.neutral()) else { continue };
            let rules = rules(api, &role);
            grants.push(Grant { namespace, subjects: subjects(&value, &binding.namespace), rules });
        }
    }
    grants
}

/// A role's own rules and, with an aggregation rule, those of the roles that it selects.
fn rules(api: &Api, role: &Value) -> Vec<Rule> {
    let mut rules: Vec<Rule> = role["rules"].as_array().into_iter().flatten().map(Rule::new).collect();
    for selector in role["aggregationRule"]["clusterRoleSelectors"].as_array().into_iter().flatten() {
        for other in api.store.list(&rbac("clusterroles"), None).objects {
            let other = other.neutral().unwrap_or_default();
            if crate::admission::selects(selector, &object::metadata(&other)["labels"]) {
                rules.extend(other["rules"].as_array().into_iter().flatten().map(Rule::new));
            }
        }
    }
    rules
}

fn subjects(binding: &Value, own_namespace: &str) -> Vec<Subject> {
    let subject = |value: &Value| {
        let name = value["name"].as_str()?;
        Some(match value["kind"].as_str()? {
            "User" => Subject::User(name.into()),
            "Group" => Subject::Group(name.into()),
            "ServiceAccount" => {
                let namespace = value["namespace"].as_str().unwrap_or(own_namespace);
                Subject::User(format!("system:serviceaccount:{namespace}:{name}"))
            }
            _ => return None,
        })
    };
    binding["subjects"].as_array().into_iter().flatten().filter_map(subject).collect()
}

impl Subject {
    fn is(&self, user: &User) -> bool {
        match self {
            Self::User(name) => *name == user.name,
            Self::Group(group) => user.is_in(group),
        }
    }
}

impl Rule {
    fn new(value: &Value) -> Self {
        let list = |key: &str| -> Vec<String> {
            value[key]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|v| v.as_str().map(str::to_owned))
                .collect()
        };
        Self {
            verbs: list("verbs"),
            groups: list("apiGroups"),
            resources: list("resources"),
            names: list("resourceNames"),
            paths: list("nonResourceURLs"),
        }
    }

    fn allows(&self, action: &Action<'_>) -> bool {
        if !has(&self.verbs, action.verb) {
            return false;
        }
        if action.resource.is_empty() {
            return self.paths.iter().any(|path| match path.strip_suffix('*') {
                Some(prefix) => action.path.starts_with(prefix),
                None => path == action.path,
            });
        }
        let part_of_any = |wanted: &String| {
            wanted
                .strip_prefix("*/")
                .is_some_and(|part| action.resource.split_once('/').is_some_and(|(_, sub)| sub == part))
        };
        has(&self.groups, action.group)
            && (has(&self.resources, action.resource) || self.resources.iter().any(part_of_any))
            && (self.names.is_empty() || self.names.iter().any(|n| n == action.name))
    }
}

fn has(list: &[String], word: &str) -> bool {
    list.iter().any(|entry| entry == "*" || entry == word)
}
