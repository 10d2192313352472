//! Who is not as far as the next step of an exchange needs everybody to be.

use serde::Serialize;

use super::look::{Look, Seen};

/// What has to hold before a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// Everybody trusts all of these roots, before one that is new among them signs.
    Trusts(Vec<String>),
    /// Everybody's certificate leads to this root, before another is dropped.
    Shows(String),
    /// Nobody trusts this root any more: the end.
    Forgot(String),
}

/// Somebody who is not as far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Laggard {
    /// Who, such as `proxy sleep-1.default`.
    pub(super) who: String,
    /// What is missing.
    pub(super) why: String,
}

impl std::fmt::Display for Laggard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.who, self.why)
    }
}

impl Gate {
    /// Everybody who lags, in a fixed order.
    pub(super) fn laggards(&self, look: &Look) -> Vec<Laggard> {
        let mut all = Vec::new();
        let mut lag = |kind: &str, name: &str, why: Option<String>| {
            if let Some(why) = why {
                all.push(Laggard { who: format!("{kind} {name}"), why });
            }
        };
        for (pod, authority) in &look.control_planes {
            let trusts: Vec<String> = authority.roots.iter().map(|root| root.sha256.clone()).collect();
            let why = self.unmet(&trusts, Some(&authority.root.sha256));
            let why = why.map(|why| match &authority.refused {
                Some(reason) => format!("{why}; it refuses the secret: {reason}"),
                None => why,
            });
            lag("control plane", pod, why);
        }
        for (namespace, roots) in &look.maps {
            lag("ConfigMap istio-ca-root-cert of namespace", namespace, self.unmet(roots, None));
        }
        for (name, roots) in &look.webhooks {
            lag("webhook configuration", name, self.unmet(roots, None));
        }
        for seen in &look.proxies {
            lag("proxy", &look.name(seen), self.of_proxy(seen));
        }
        all
    }

    /// How many proxies are as far.
    pub(super) fn met_by(&self, proxies: &[Seen]) -> usize {
        proxies.iter().filter(|seen| self.of_proxy(seen).is_none()).count()
    }

    fn of_proxy(&self, seen: &Seen) -> Option<String> {
        match &seen.problem {
            Some(problem) => Some(problem.clone()),
            None => self.unmet(&seen.trusts, Some(seen.shows.as_deref().unwrap_or_default())),
        }
    }

    /// What is missing of one that trusts these roots, and shows a certificate of that one if it shows any.
    fn unmet(&self, trusts: &[String], shows: Option<&str>) -> Option<String> {
        match self {
            Self::Trusts(wanted) => {
                let missing = wanted.iter().find(|root| !trusts.contains(root))?;
                Some(format!("does not trust root {} yet", short(missing)))
            }
            Self::Shows(wanted) => match shows {
                Some(shown) if shown != wanted => {
                    let of = if shown.is_empty() { "an unknown root" } else { short(shown) };
                    Some(format!("shows a certificate under {of}, not {} yet", short(wanted)))
                }
                _ => (!trusts.contains(wanted)).then(|| format!("does not trust root {}", short(wanted))),
            },
            Self::Forgot(unwanted) => {
                trusts.contains(unwanted).then(|| format!("trusts root {} still", short(unwanted)))
            }
        }
    }
}

/// The first digits of a fingerprint.
pub(super) fn short(sha256: &str) -> &str {
    sha256.get(..12).unwrap_or(sha256)
}

#[cfg(test)]
mod tests {
    use lateen_status::{Authority, RootCertificate};

    use super::*;

    fn root(sha256: &str) -> RootCertificate {
        let (subject, serial, not_after) = Default::default();
        RootCertificate { subject, serial, sha256: sha256.into(), not_after }
    }

    fn control_plane(signs: &str, trusts: &[&str]) -> (String, Authority) {
        let authority = Authority {
            source: String::new(),
            secret: String::new(),
            signs_until: String::new(),
            root: root(signs),
            roots: trusts.iter().map(|sha| root(sha)).collect(),
            refused: None,
        };
        ("istiod-1".into(), authority)
    }

    fn seen(proxy: &str, trusts: &[&str], shows: &str) -> Seen {
        let trusts = trusts.iter().map(|root| (*root).to_owned()).collect();
        let (proxy, cluster) = (proxy.into(), "Kubernetes".into());
        Seen { proxy, cluster, trusts, shows: Some(shows.into()), problem: None }
    }

    fn names(gate: &Gate, look: &Look) -> Vec<String> {
        gate.laggards(look).into_iter().map(|laggard| laggard.who).collect()
    }

    fn look(control_plane: (String, Authority), roots: &[&str], proxies: Vec<Seen>) -> Look {
        let roots: Vec<String> = roots.iter().map(|root| (*root).to_owned()).collect();
        Look {
            control_planes: vec![control_plane],
            maps: [("default".to_owned(), roots.clone())].into(),
            webhooks: [("istiod".to_owned(), roots)].into(),
            proxies,
        }
    }

    #[test]
    fn nobody_may_lag_before_a_step() {
        let trusts = Gate::Trusts(vec!["old".into(), "new".into()]);
        let early = look(
            control_plane("old", &["old"]),
            &["old"],
            vec![seen("a.b", &["old"], "old"), seen("c.d", &["old", "new"], "old")],
        );
        let all = ["control plane istiod-1", "ConfigMap istio-ca-root-cert of namespace default"];
        let all = [&all[..], &["webhook configuration istiod", "proxy a.b"]].concat();
        assert_eq!(names(&trusts, &early), all);
        assert_eq!(trusts.met_by(&early.proxies), 1);

        let both = ["old", "new"];
        let ready = look(control_plane("new", &both), &both, vec![seen("a.b", &both, "old")]);
        assert!(names(&trusts, &ready).is_empty());
        assert_eq!(names(&Gate::Shows("new".into()), &ready), ["proxy a.b"]);
        let (forgot, proxies) = (Gate::Forgot("old".into()), vec![seen("a.b", &["new"], "new")]);
        let done = look(control_plane("new", &["new"]), &["new"], proxies);
        assert!(names(&Gate::Shows("new".into()), &done).is_empty() && names(&forgot, &done).is_empty());
        assert_eq!(names(&forgot, &ready).len(), 4);
    }

    #[test]
    fn a_proxy_of_which_nothing_is_known_lags_always() {
        let mut lost = seen("a.b", &["old", "new"], "new");
        lost.problem = Some("no answer".into());
        let look = Look { proxies: vec![lost], ..Look::default() };
        for gate in [Gate::Trusts(vec![]), Gate::Shows("new".into()), Gate::Forgot("x".into())] {
            assert_eq!(gate.laggards(&look)[0].to_string(), "proxy a.b: no answer");
        }
        let strange = Seen { shows: None, ..seen("a.b", &["new"], "") };
        let look = Look { proxies: vec![strange], ..Look::default() };
        let lag = Gate::Shows("new".into()).laggards(&look);
        assert!(lag[0].why.contains("unknown root"), "{lag:?}");
    }
}
