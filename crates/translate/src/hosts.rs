//! Hosts as users write them: short names completed, the most specific of several found.

use lateen_base::{Host, Namespace};

/// A name completed by namespace and domain; names with a dot, and wildcards, stay as they are.
pub fn resolve(name: &str, namespace: &Namespace, domain: &str) -> Host {
    if name.contains('.') || name.starts_with('*') || name.is_empty() || namespace.is_empty() {
        return Host::new(name);
    }
    match domain {
        "" => Host::new(format!("{name}.{namespace}")),
        domain => Host::new(format!("{name}.{namespace}.svc.{domain}")),
    }
}

/// The most specific of `candidates` that has `wanted` among its names: itself, else the longest wildcard.
pub fn most_specific<'a>(wanted: &Host, candidates: impl Iterator<Item = &'a Host>) -> Option<&'a Host> {
    let mut best: Option<&Host> = None;
    for candidate in candidates {
        if candidate == wanted {
            return Some(candidate);
        }
        let longer = best.is_none_or(|best| candidate.as_str().len() > best.as_str().len());
        if candidate.is_wildcard() && candidate.contains(wanted) && longer {
            best = Some(candidate);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_completed() {
        let namespace = Namespace::new("shop");
        let host = |name| resolve(name, &namespace, "cluster.local").to_string();
        assert_eq!(host("reviews"), "reviews.shop.svc.cluster.local");
        for name in ["reviews.shop", "*", "*.com", "a.b.c"] {
            assert_eq!(host(name), name);
        }
    }

    #[test]
    fn the_longest_wildcard_wins() {
        let all: Vec<Host> = ["*", "*.com", "*.b.com", "c.com"].map(Host::new).to_vec();
        let best = |name: &str| most_specific(&Host::new(name), all.iter()).map(Host::to_string);
        assert_eq!(best("a.b.com").as_deref(), Some("*.b.com"));
        assert_eq!(best("c.com").as_deref(), Some("c.com"));
        assert_eq!(best("x.org").as_deref(), Some("*"));
        assert_eq!(most_specific(&Host::new("x.org"), all[1..].iter()), None);
    }
}
