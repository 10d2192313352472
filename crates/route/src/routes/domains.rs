//! Which virtual host takes a host: exact, then `*suffix` longest first, then `prefix*` longest first, then `*`.

use lateen_proto::envoy::config::route::v3::VirtualHost;

use crate::FastMap;
use crate::error::{Cx, Result};

/// The domains of a route configuration.
#[derive(Clone, Debug, Default)]
pub(super) struct Domains {
    exact: FastMap<Box<str>, usize>,
    /// By length of the part after the `*`, longest first.
    suffixes: Vec<(usize, FastMap<Box<str>, usize>)>,
    /// By length of the part before the `*`, longest first.
    prefixes: Vec<(usize, FastMap<Box<str>, usize>)>,
    any: Option<usize>,
}

impl Domains {
    pub(super) fn build(cx: &mut Cx<'_>, hosts: &[VirtualHost]) -> Result<Self> {
        let mut out = Self::default();
        for (index, host) in hosts.iter().enumerate() {
            if host.domains.is_empty() {
                return Err(
                    cx.refuse_at(&format!("virtual_hosts[{index}].domains"), "needs at least one domain")
                );
            }
            for domain in &host.domains {
                if !out.insert(&domain.to_ascii_lowercase(), index) {
                    let reason = format!(
                        "domain {domain:?} of {:?} belongs to another virtual host already",
                        host.name
                    );
                    return Err(cx.refuse_at(&format!("virtual_hosts[{index}].domains"), reason));
                }
            }
        }
        out.suffixes.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
        out.prefixes.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
        Ok(out)
    }

    /// `host` in lower case.
    pub(super) fn find(&self, host: &str) -> Option<usize> {
        if let Some(index) = self.exact.get(host) {
            return Some(*index);
        }
        for (length, suffixes) in &self.suffixes {
            // The star stands for at least one character.
            if let Some(start) = host.len().checked_sub(*length).filter(|start| *start > 0)
                && let Some(index) = host.get(start..).and_then(|suffix| suffixes.get(suffix))
            {
                return Some(*index);
            }
        }
        for (length, prefixes) in &self.prefixes {
            if host.len() > *length
                && let Some(index) = host.get(..*length).and_then(|prefix| prefixes.get(prefix))
            {
                return Some(*index);
            }
        }
        self.any
    }

    /// False when the domain is taken.
    fn insert(&mut self, domain: &str, index: usize) -> bool {
        let table = if domain == "*" {
            return self.any.replace(index).is_none();
        } else if let Some(suffix) = domain.strip_prefix('*') {
            return by_length(&mut self.suffixes, suffix.len()).insert(suffix.into(), index).is_none();
        } else if let Some(prefix) = domain.strip_suffix('*') {
            return by_length(&mut self.prefixes, prefix.len()).insert(prefix.into(), index).is_none();
        } else {
            &mut self.exact
        };
        table.insert(domain.into(), index).is_none()
    }
}

fn by_length(
    tables: &mut Vec<(usize, FastMap<Box<str>, usize>)>,
    length: usize,
) -> &mut FastMap<Box<str>, usize> {
    let position = match tables.iter().position(|(l, _)| *l == length) {
        Some(position) => position,
        None => {
            tables.push((length, FastMap::default()));
            tables.len() - 1
        }
    };
    &mut tables[position].1
}
