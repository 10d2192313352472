//! The policies that apply to a workload, as filters in the order in which they are asked.

use std::collections::BTreeMap;
use std::sync::Arc;

use lateen_api::kinds::AuthorizationPolicy;
use lateen_api::kinds::authorization_policy::AuthorizationAction;
use lateen_api::kinds::request_authentication::JwtRule;
use lateen_api::mesh::ExtensionProvider;
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
use crate::snapshot::policies::is_dry_run;
use crate::{Note, Proxy, Snapshot};

/// What precedes the metadata by which CUSTOM policies choose what a provider is asked about.
const CUSTOM: &str = "istio_ext_authz_";
/// What follows the name of a rule whose provider cannot be asked.
const BAD_CUSTOM: &str = "-deny-due-to-bad-CUSTOM-action";
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

/// The policies that select the workload, or are attached to it.
fn authorizations(snapshot: &Snapshot, proxy: &Proxy) -> Authorizations {
    let all = snapshot.applicable(Kind::AuthorizationPolicy, proxy);
    all.into_iter()
        .filter_map(|object| match &object.spec {
            Spec::AuthorizationPolicy(spec) => Some((object.clone(), spec.clone())),
            _ => None,
        })
        .collect()
}

/// A provider with the policies that name it.
struct Asked<'a> {
    name: &'a str,
    /// Of the metadata by which the policies choose.
    prefix: &'a str,
    /// None: it cannot be asked.
    provider: Option<&'a ExtensionProvider>,
    policies: &'a Authorizations,
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
        let (tried, enforced): (Authorizations, Authorizations) =
            policies.iter().cloned().partition(|(object, _)| is_dry_run(object));
        let rbac = |policies: &Authorizations| {
            (!policies.is_empty()).then(|| Rbac {
                action: action.into(),
                policies: self.policies(policies, action, tcp, |rule| rule),
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
        named: impl Fn(String) -> String,
    ) -> BTreeMap<String, Policy> {
        let mut out = BTreeMap::new();
        for (object, spec) in policies {
            let name =
                |at: usize| named(format!("ns[{}]-policy[{}]-rule[{at}]", object.namespace, object.name));
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

    /// CUSTOM: the rules say, without effect of their own, which requests a provider is asked about. Several providers are asked
    /// one after the other, by name, about what their own policies match. What is for one that cannot be asked is denied.
    fn custom(&self, policies: &Authorizations, security: &mut Security, notes: &mut Vec<Note>) {
        let mut by_provider: BTreeMap<String, Authorizations> = BTreeMap::new();
        let custom = policies.iter().filter(|(_, spec)| spec.action == AuthorizationAction::Custom);
        for (object, spec) in custom.filter(|(object, _)| !is_dry_run(object)) {
            let name = spec.provider.as_ref().map(|provider| provider.name.clone()).unwrap_or_default();
            by_provider.entry(name).or_default().push((object.clone(), spec.clone()));
        }
        let several = by_provider.len() > 1;
        for (name, policies) in &by_provider {
            // Filters of one name share their metadata, in which the last policy of another provider would be found.
            let prefix = if several { format!("{CUSTOM}{name}_") } else { CUSTOM.to_owned() };
            let provider = self.provider(name);
            if let Err(reason) = &provider {
                for (object, _) in policies {
                    let text = format!("{reason}: what the policy matches is denied");
                    notes.push(Note::on(&object.reference(), text));
                }
            }
            let asked = Asked { name, prefix: &prefix, provider: provider.ok(), policies };
            self.ask_about_requests(&asked, security);
            self.ask_about_connections(&asked, security);
        }
    }

    /// A provider that can be asked.
    fn provider(&self, name: &str) -> Result<&ExtensionProvider, String> {
        let known = self.snapshot.mesh.extension_providers.iter().find(|known| known.name == name);
        let known = known.ok_or_else(|| {
            format!("provider {name:?} is not among the extensionProviders of the mesh configuration")
        })?;
        match ext_authz::http(known, CUSTOM) {
            None => Err(format!("provider {name:?} is neither envoyExtAuthzHttp nor envoyExtAuthzGrpc")),
            Some(_) if !self.has(ext_authz::HTTP_FILTER) => Err("the proxy cannot ask providers".to_owned()),
            Some(_) => Ok(known),
        }
    }

    fn ask_about_requests(&self, asked: &Asked<'_>, security: &mut Security) {
        let asks = asked.provider.and_then(|provider| ext_authz::http(provider, asked.prefix));
        let rules = self.custom_rules(asked, false, asks.is_some());
        let mut rbac = HttpRbac { shadow_rules_stat_prefix: asked.prefix.into(), ..Default::default() };
        match asks {
            Some(_) => rbac.shadow_rules = Some(rules),
            None => rbac.rules = Some(rules),
        }
        security.http.push(http_filter(HTTP_RBAC, &rbac));
        security.http.extend(asks);
    }

    fn ask_about_connections(&self, asked: &Asked<'_>, security: &mut Security) {
        // A provider that speaks HTTP is asked about requests alone, as in Istio.
        if asked.provider.is_some_and(|provider| provider.envoy_ext_authz_http.is_some()) {
            return;
        }
        let asks = asked.provider.and_then(|provider| ext_authz::tcp(provider, asked.prefix));
        let asks = asks.filter(|_| self.has(ext_authz::TCP_FILTER));
        let rules = self.custom_rules(asked, true, asks.is_some());
        let mut rbac = TcpRbac {
            shadow_rules_stat_prefix: asked.prefix.into(),
            stat_prefix: "tcp.".into(),
            ..Default::default()
        };
        match asks {
            Some(_) => rbac.shadow_rules = Some(rules),
            None => rbac.rules = Some(rules),
        }
        security.tcp.push(network_filter(TCP_RBAC, &rbac));
        security.tcp.extend(asks);
    }

    /// The rules of CUSTOM policies: their names tell the provider, and where it cannot be asked, why they deny.
    fn custom_rules(&self, asked: &Asked<'_>, tcp: bool, asks: bool) -> Rbac {
        let suffix = if asks { "" } else { BAD_CUSTOM };
        let named = |rule: String| format!("istio-ext-authz-{}-{rule}{suffix}", asked.name);
        Rbac {
            action: Action::Deny.into(),
            policies: self.policies(asked.policies, Action::Deny, tcp, named),
            ..Default::default()
        }
    }

    /// Tokens: validated where their keys are at hand and the proxy can; otherwise requests that bring one are denied.
    fn tokens(&self, security: &mut Security, notes: &mut Vec<Note>) {
        let all = self.snapshot.applicable(Kind::RequestAuthentication, self.proxy);
        let given: Vec<_> = all
            .iter()
            .filter_map(|object| match &object.spec {
                Spec::RequestAuthentication(spec) => Some((object, spec)),
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
                let keyless = spec.jwt_rules.iter().filter(|rule| !jwt::has_keys(rule));
                for rule in keyless {
                    let issuer = &rule.issuer;
                    let text = if rule.jwks.is_empty() {
                        let from = &rule.jwks_uri;
                        format!(
                            "the keys of issuer {issuer:?} ({from}) are not at hand: its tokens are refused"
                        )
                    } else {
                        format!(
                            "no key of issuer {issuer:?} is of a type that is known: its tokens are refused"
                        )
                    };
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
