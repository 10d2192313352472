//! The policies that apply to a workload, as filters in the order in which they are asked.

use std::collections::BTreeMap;
use std::sync::Arc;

use lateen_api::kinds::AuthorizationPolicy;
use lateen_api::kinds::authorization_policy::AuthorizationAction;
use lateen_api::kinds::request_authentication::JwtRule;
use lateen_api::{Kind, Object, Spec};
use lateen_proto::envoy::config::listener::v3::Filter;
use lateen_proto::envoy::config::rbac::v3::rbac::Action;
use lateen_proto::envoy::config::rbac::v3::{Permission, Policy, Principal, Rbac, permission, principal};
use lateen_proto::envoy::extensions::filters::http::rbac::v3::Rbac as HttpRbac;
use lateen_proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use lateen_proto::envoy::extensions::filters::network::rbac::v3::Rbac as TcpRbac;

use super::condition::{self, For};
use super::patterns::header;
use super::trust_domains::TrustDomains;
use super::{ext_authz, jwt};
use crate::filters::wire::{http_filter, network_filter};
use crate::{Note, Proxy, Snapshot};

const DRY_RUN: &str = "istio.io/dry-run";
const HTTP_RBAC: &str = "envoy.filters.http.rbac";
const TCP_RBAC: &str = "envoy.filters.network.rbac";

/// The filters that decide who may connect and ask, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Security {
    /// For requests.
    pub(crate) http: Vec<HttpFilter>,
    /// For connections.
    pub(crate) tcp: Vec<Filter>,
}

type Authorizations = Vec<(Arc<Object>, Arc<AuthorizationPolicy>)>;

/// The filters of a workload. What cannot be translated denies: see the notes it leaves.
pub(crate) fn security(snapshot: &Snapshot, proxy: &Proxy, notes: &mut Vec<Note>) -> Security {
    let mesh = &snapshot.mesh;
    let own = snapshot.settings.trust_domain.clone();
    let domains = TrustDomains([own].into_iter().chain(mesh.trust_domain_aliases.iter().cloned()).collect());
    let policies = authorizations(snapshot, proxy);
    let builder = Builder { snapshot, proxy, domains: &domains };
    let mut security = Security::default();
    builder.custom(&policies, &mut security, notes);
    builder.tokens(&mut security, notes);
    for (of, action) in [
        (AuthorizationAction::Audit, Action::Log),
        (AuthorizationAction::Deny, Action::Deny),
        (AuthorizationAction::Allow, Action::Allow),
    ] {
        let chosen: Authorizations = policies.iter().filter(|(_, spec)| spec.action == of).cloned().collect();
        if !chosen.is_empty() {
            security.http.push(builder.http(&chosen, action));
            security.tcp.push(builder.tcp(&chosen, action));
        }
    }
    security
}

/// The policies that select the workload; those attached to gateways and services of the Gateway API do not.
fn authorizations(snapshot: &Snapshot, proxy: &Proxy) -> Authorizations {
    let all = snapshot.applicable(Kind::AuthorizationPolicy, &proxy.namespace, &proxy.labels);
    all.into_iter()
        .filter_map(|object| match &object.spec {
            Spec::AuthorizationPolicy(spec) if spec.target_ref.is_none() && spec.target_refs.is_empty() => {
                Some((object.clone(), spec.clone()))
            }
            _ => None,
        })
        .collect()
}

struct Builder<'a> {
    snapshot: &'a Snapshot,
    proxy: &'a Proxy,
    domains: &'a TrustDomains,
}

impl Builder<'_> {
    /// Whether the proxy has a filter; stock Envoy lists what it has, and where nothing is listed, stock Envoy is meant.
    fn has(&self, filter: &str) -> bool {
        self.proxy.extensions.is_empty() || self.proxy.has_extension(filter)
    }

    fn http(&self, policies: &Authorizations, action: Action) -> HttpFilter {
        let (rules, shadow_rules) = self.split(policies, action, false);
        let prefix = shadow_prefix(action, shadow_rules.is_some());
        let config = HttpRbac { rules, shadow_rules, shadow_rules_stat_prefix: prefix, ..Default::default() };
        http_filter(HTTP_RBAC, &config)
    }

    fn tcp(&self, policies: &Authorizations, action: Action) -> Filter {
        let (rules, shadow_rules) = self.split(policies, action, true);
        let prefix = shadow_prefix(action, shadow_rules.is_some());
        let config = TcpRbac {
            rules,
            shadow_rules,
            shadow_rules_stat_prefix: prefix,
            stat_prefix: "tcp.".into(),
            ..Default::default()
        };
        network_filter(TCP_RBAC, &config)
    }

    /// What is enforced, and what is only tried.
    fn split(&self, policies: &Authorizations, action: Action, tcp: bool) -> (Option<Rbac>, Option<Rbac>) {
        let (tried, enforced): (Authorizations, Authorizations) = policies
            .iter()
            .cloned()
            .partition(|(object, _)| object.annotations.get(DRY_RUN).is_some_and(|word| word == "true"));
        let rbac = |policies: &Authorizations| {
            (!policies.is_empty()).then(|| Rbac {
                action: action.into(),
                policies: self.policies(policies, action, tcp, ""),
                ..Default::default()
            })
        };
        (rbac(&enforced), rbac(&tried))
    }

    fn policies(
        &self,
        policies: &Authorizations,
        action: Action,
        tcp: bool,
        prefix: &str,
    ) -> BTreeMap<String, Policy> {
        let mut out = BTreeMap::new();
        for (object, spec) in policies {
            let name =
                |at: usize| format!("{prefix}ns[{}]-policy[{}]-rule[{at}]", object.namespace, object.name);
            if spec.rules.is_empty() {
                out.insert(name(0), condition::never());
            }
            let to = For {
                namespace: &object.namespace,
                tcp,
                strict: action == Action::Allow,
                domains: self.domains,
            };
            for (at, rule) in spec.rules.iter().enumerate() {
                if let Some(policy) = condition::policy(rule, to) {
                    out.insert(name(at), policy);
                }
            }
        }
        out
    }

    /// CUSTOM: the rules say, without effect of their own, which requests a provider is asked about. Where it cannot be asked, these
    /// requests are denied.
    fn custom(&self, policies: &Authorizations, security: &mut Security, notes: &mut Vec<Note>) {
        let mut by_provider: BTreeMap<String, Authorizations> = BTreeMap::new();
        for (object, spec) in policies.iter().filter(|(_, spec)| spec.action == AuthorizationAction::Custom) {
            let name = spec.provider.as_ref().map(|provider| provider.name.clone()).unwrap_or_default();
            by_provider.entry(name).or_default().push((object.clone(), spec.clone()));
        }
        for (name, policies) in by_provider {
            let provider = self.snapshot.mesh.extension_providers.iter().find(|known| known.name == name);
            let prefix = format!("istio-ext-authz-{name}-");
            let rules = |tcp| Rbac {
                action: Action::Deny.into(),
                policies: self.policies(&policies, Action::Deny, tcp, &prefix),
                ..Default::default()
            };
            let shadow = "istio_ext_authz_".to_owned();
            let asked = provider.and_then(ext_authz::http).filter(|_| self.has(ext_authz::HTTP_FILTER));
            let mut http = HttpRbac { shadow_rules_stat_prefix: shadow.clone(), ..Default::default() };
            match &asked {
                Some(_) => http.shadow_rules = Some(rules(false)),
                None => {
                    http.rules = Some(rules(false));
                    for (object, _) in &policies {
                        let text = format!("provider {name:?} cannot be asked: its requests are denied");
                        notes.push(Note::on(&object.reference(), text));
                    }
                }
            }
            security.http.push(http_filter(HTTP_RBAC, &http));
            security.http.extend(asked);
            let asked = provider.and_then(ext_authz::tcp).filter(|_| self.has(ext_authz::TCP_FILTER));
            let only_http = provider.is_some_and(|known| known.envoy_ext_authz_http.is_some());
            let mut tcp = TcpRbac {
                shadow_rules_stat_prefix: shadow,
                stat_prefix: "tcp.".into(),
                ..Default::default()
            };
            match &asked {
                Some(_) => tcp.shadow_rules = Some(rules(true)),
                // A provider that speaks HTTP is asked about requests alone, as in Istio.
                None if only_http => continue,
                None => tcp.rules = Some(rules(true)),
            }
            security.tcp.push(network_filter(TCP_RBAC, &tcp));
            security.tcp.extend(asked);
        }
    }

    /// Tokens: validated where their keys are at hand and the proxy can; otherwise requests that bring one are denied.
    fn tokens(&self, security: &mut Security, notes: &mut Vec<Note>) {
        let all =
            self.snapshot.applicable(Kind::RequestAuthentication, &self.proxy.namespace, &self.proxy.labels);
        let given: Vec<_> = all
            .iter()
            .filter_map(|object| match &object.spec {
                Spec::RequestAuthentication(spec)
                    if spec.target_ref.is_none() && spec.target_refs.is_empty() =>
                {
                    Some((object, spec))
                }
                _ => None,
            })
            .collect();
        let mut rules: Vec<&JwtRule> = given.iter().flat_map(|(_, spec)| &spec.jwt_rules).collect();
        rules.sort_by(|a, b| a.issuer.cmp(&b.issuer));
        if rules.is_empty() {
            return;
        }
        if self.has(jwt::FILTER) {
            for (object, spec) in &given {
                let keyless = spec.jwt_rules.iter().filter(|rule| rule.jwks.is_empty());
                for rule in keyless {
                    let text = format!(
                        "the keys of issuer {:?} ({}) are not at hand: its tokens are refused",
                        rule.issuer, rule.jwks_uri
                    );
                    notes.push(Note::on(&object.reference(), text));
                }
            }
            security.http.push(jwt::filter(&rules, self.proxy.is_router()));
            return;
        }
        for (object, _) in &given {
            let text = "the proxy has no filter that validates tokens: requests with a token are denied";
            notes.push(Note::on(&object.reference(), text));
        }
        security.http.push(deny_tokens());
    }
}

/// Denies requests that bring a token where tokens are brought by default.
fn deny_tokens() -> HttpFilter {
    let bearer = Principal {
        identifier: Some(principal::Identifier::Header(header("authorization", "Bearer *", false))),
    };
    let policy = Policy {
        permissions: vec![Permission { rule: Some(permission::Rule::Any(true)) }],
        principals: vec![bearer],
        ..Default::default()
    };
    let rules = Rbac {
        action: Action::Deny.into(),
        policies: [("unvalidated-token".to_owned(), policy)].into(),
        ..Default::default()
    };
    http_filter(HTTP_RBAC, &HttpRbac { rules: Some(rules), ..Default::default() })
}

fn shadow_prefix(action: Action, tries: bool) -> String {
    let word = if action == Action::Deny && tries { "deny" } else { "allow" };
    format!("istio_dry_run_{word}_")
}
