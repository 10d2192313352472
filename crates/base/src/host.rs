//! Host names with Istio's wildcards.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A host name, or a wildcard one: `*`, or `*.` or `*-` before a suffix. Kept as it is written, and compared so, as
/// Istio does; where names of requests are compared, take [`Host::to_lowercase`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Host(Arc<str>);

impl Host {
    /// The host of this name.
    pub fn new(name: impl AsRef<str>) -> Self {
        Self(name.as_ref().into())
    }

    /// The host in lower case.
    pub fn to_lowercase(&self) -> Self {
        match self.0.bytes().any(|b| b.is_ascii_uppercase()) {
            true => Self(self.0.to_ascii_lowercase().into()),
            false => self.clone(),
        }
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it begins with `*`.
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with('*')
    }

    /// Whether the sets of names that the two stand for have a name in common (Istio's `host.Name.Matches`).
    pub fn matches(&self, other: &Host) -> bool {
        match (self.suffix(), other.suffix()) {
            (Some(a), Some(b)) => a.ends_with(b) || b.ends_with(a),
            (Some(a), None) => covers(a, other.as_str()),
            (None, Some(b)) => covers(b, self.as_str()),
            (None, None) => self == other,
        }
    }

    /// Whether every name of `other` is also a name of `self` (Istio's `host.Name.SubsetOf`, seen from the superset).
    pub fn contains(&self, other: &Host) -> bool {
        match (self.suffix(), other.suffix()) {
            (Some(a), Some(b)) => b.ends_with(a),
            (Some(a), None) => covers(a, other.as_str()),
            (None, Some(_)) => false,
            (None, None) => self == other,
        }
    }

    /// What follows the `*`, where there is one.
    pub fn suffix(&self) -> Option<&str> {
        self.0.strip_prefix('*')
    }
}

fn covers(suffix: &str, name: &str) -> bool {
    name.len() >= suffix.len() && name.ends_with(suffix)
}

impl From<&str> for Host {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl From<String> for Host {
    fn from(name: String) -> Self {
        Self::new(name)
    }
}

impl From<Host> for String {
    fn from(host: Host) -> Self {
        host.0.as_ref().to_owned()
    }
}

impl AsRef<str> for Host {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Host {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match_by_suffix() {
        let host = Host::new;
        assert!(host("*.foo.com").matches(&host("a.foo.com")));
        assert!(host("a.foo.com").matches(&host("*.foo.com")));
        assert!(!host("foo.com").matches(&host("*.foo.com")));
        assert!(host("*").matches(&host("anything")));
        assert!(host("*.foo.com").matches(&host("*.com")));
        assert!(!host("*.foo.com").contains(&host("*.com")));
        assert!(host("*.com").contains(&host("*.foo.com")));
        assert_eq!(host("ExAmple.COM").as_str(), "ExAmple.COM");
        assert_eq!(host("ExAmple.COM").to_lowercase().as_str(), "example.com");
    }
}
