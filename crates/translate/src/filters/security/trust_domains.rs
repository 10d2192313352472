//! Trust domains with aliases: a principal of one domain is meant in all of them.

/// The domains that stand for one another, the mesh's own first.
#[derive(Clone, Debug, Default)]
pub(crate) struct TrustDomains(pub(crate) Vec<String>);

impl TrustDomains {
    /// The principals that one stands for.
    pub(crate) fn expand(&self, principal: &str) -> Vec<String> {
        let Some((domain, path)) = principal.split_once('/') else { return vec![principal.to_owned()] };
        if self.0.len() < 2 || domain == "*" || !self.0.iter().any(|known| covers(domain, known)) {
            return vec![principal.to_owned()];
        }
        let mut expanded: Vec<String> = Vec::new();
        for known in &self.0 {
            // A pattern stays as it is where it has the domain among its own.
            let domain = if covers(domain, known) { domain } else { known };
            let principal = format!("{domain}/{path}");
            if !expanded.contains(&principal) {
                expanded.push(principal);
            }
        }
        expanded
    }
}

fn covers(pattern: &str, domain: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(suffix), _) => domain.ends_with(suffix),
        (None, Some(prefix)) => domain.starts_with(prefix),
        (None, None) => pattern == domain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn principals_are_meant_in_all_domains() {
        let domains = TrustDomains(vec!["td1".into(), "foobar".into()]);
        assert_eq!(domains.expand("foobar/ns/a/sa/b"), ["td1/ns/a/sa/b", "foobar/ns/a/sa/b"]);
        assert_eq!(domains.expand("*bar/ns/a/sa/b"), ["td1/ns/a/sa/b", "*bar/ns/a/sa/b"]);
        assert_eq!(domains.expand("*/ns/a/sa/b"), ["*/ns/a/sa/b"]);
        assert_eq!(domains.expand("other/ns/a/sa/b"), ["other/ns/a/sa/b"]);
        assert_eq!(domains.expand("*"), ["*"]);
    }
}
