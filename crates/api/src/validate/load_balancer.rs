//! How a host is picked.

use std::collections::BTreeSet;

use super::Problems;
use super::names;
use super::path::Path;
use crate::kinds::destination_rule::{
    ConsistentHashLb, LoadBalancerSettings, LocalityFailover, LocalityLbSetting, OutlierDetection,
    WarmupConfiguration, ZoneAwareLbSetting,
};

/// What Envoy takes at most.
const LARGEST_RING: u64 = 8 << 20;

/// The settings of a policy; `outlier` is the same policy's.
pub(super) fn settings(
    settings: &LoadBalancerSettings,
    outlier: Option<&OutlierDetection>,
    at: &Path<'_>,
    out: &mut Problems,
) {
    if let Some(hash) = &settings.consistent_hash {
        consistent_hash(hash, &at.field("consistentHash"), out);
    }
    let both = settings.locality_lb_setting.is_some() && settings.zone_aware_lb_setting.is_some();
    out.error_if(both, at, "only one of localityLbSetting and zoneAwareLbSetting can be set");
    if let Some(locality) = &settings.locality_lb_setting {
        locality_setting(locality, outlier.is_some(), &at.field("localityLbSetting"), out);
    }
    if let Some(zone) = &settings.zone_aware_lb_setting {
        zone_setting(zone, &at.field("zoneAwareLbSetting"), out);
    }
    names::maybe_duration(settings.warmup_duration_secs, &at.field("warmupDurationSecs"), out);
    if let Some(warmup) = &settings.warmup {
        let old = settings.warmup_duration_secs.is_some();
        out.error_if(old, at, "only one of warmupDurationSecs or warmup can be set");
        warmup_settings(warmup, &at.field("warmup"), out);
    }
}

fn warmup_settings(warmup: &WarmupConfiguration, at: &Path<'_>, out: &mut Problems) {
    match warmup.duration {
        Some(duration) => out.check(&at.field("duration"), names::duration(duration)),
        None => out.error(&at.field("duration"), "duration is required for warmup"),
    }
    let slow = warmup.aggression.is_some_and(|aggression| aggression < 1.0);
    out.error_if(slow, &at.field("aggression"), "aggression should be greater than or equal to 1");
    let wild = warmup.minimum_percent.is_some_and(|percent| !(0.0..=100.0).contains(&percent));
    out.error_if(wild, &at.field("minimumPercent"), "minimumPercent should be in the range [0, 100]");
}

fn consistent_hash(hash: &ConsistentHashLb, at: &Path<'_>, out: &mut Problems) {
    if let Some(cookie) = &hash.http_cookie {
        let at = &at.field("httpCookie");
        out.error_if(cookie.name.is_empty(), &at.field("name"), "name required for HttpCookie");
        for (i, attribute) in cookie.attributes.iter().enumerate() {
            let message = "name required for HttpCookie attribute";
            out.error_if(attribute.name.is_empty(), &at.field("attributes").item(i).field("name"), message);
        }
    }
    let ring = hash.ring_hash.as_ref().map_or(hash.minimum_ring_size, |ring| ring.minimum_ring_size);
    let field = if hash.ring_hash.is_some() { at.field("ringHash") } else { at.field("minimumRingSize") };
    out.error_if(
        ring > LARGEST_RING,
        &field,
        format!("minimumRingSize must not be greater than {LARGEST_RING}"),
    );
    if let Some(maglev) = &hash.maglev {
        let at = &at.field("maglev");
        let at = &at.field("tableSize");
        let size = maglev.table_size;
        out.error_if(size > 5_000_011, at, "tableSize must not be greater than 5000011");
        out.error_if(
            size != 0 && size <= 5_000_011 && !is_prime(size),
            at,
            "tableSize must be a prime number",
        );
    }
}

fn is_prime(n: u64) -> bool {
    n >= 2 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d))
}

/// Balancing by locality, of a policy or of the mesh.
pub(super) fn locality_setting(lb: &LocalityLbSetting, outlier: bool, at: &Path<'_>, out: &mut Problems) {
    let distribute = !lb.distribute.is_empty();
    let fails_over = !lb.failover.is_empty() || !lb.failover_priority.is_empty();
    out.error_if(
        distribute && fails_over,
        at,
        "can not simultaneously specify 'distribute' and 'failover' or 'failoverPriority'",
    );
    if fails_over && !outlier {
        out.warn(at, "outlier detection policy must be provided for failover");
    }
    let mut from = Vec::new();
    for (i, share) in lb.distribute.iter().enumerate() {
        let at = &at.field("distribute");
        let at = &at.item(i);
        from.push(share.from.as_str());
        for (locality, weight) in &share.to {
            let wild = !(1..=100).contains(weight);
            out.error_if(wild, &at.field("to").entry(locality), "locality weight must be in range [1, 100]");
        }
        let total: u64 = share.to.values().map(|weight| u64::from(*weight)).sum();
        out.error_if(total != 100, &at.field("to"), format!("total locality weight {total} != 100"));
        let to: Vec<&str> = share.to.keys().map(String::as_str).collect();
        out.check(&at.field("to"), localities(&to));
    }
    out.check(&at.field("distribute"), localities(&from));
    failovers(&lb.failover, &lb.failover_priority, at, out);
}

/// Balancing by zone, of a policy or of the mesh.
pub(super) fn zone_setting(lb: &ZoneAwareLbSetting, at: &Path<'_>, out: &mut Problems) {
    out.warn(
        at,
        "zoneAwareLbSetting has no effect: proxies know no cluster of their own; use localityLbSetting",
    );
    failovers(&lb.failover, &lb.failover_priority, at, out);
}

fn failovers(failover: &[LocalityFailover], priority: &[String], at: &Path<'_>, out: &mut Problems) {
    const REGION: &str = "topology.kubernetes.io/region";
    for (i, to) in failover.iter().enumerate() {
        let at = &at.field("failover");
        let at = &at.item(i);
        out.error_if(to.from == to.to, at, "locality lb failover settings must specify different regions");
        for (field, region) in [("from", &to.from), ("to", &to.to)] {
            let at = &at.field(field);
            out.error_if(
                region.contains('*'),
                at,
                "locality lb failover region should not contain '*' wildcard",
            );
            out.error_if(
                region.contains('/'),
                at,
                "locality lb failover only specifies regions: zones are not allowed",
            );
        }
    }
    let region = priority.iter().any(|label| label.split('=').next() == Some(REGION));
    out.error_if(
        region && !failover.is_empty(),
        at,
        format!("can not simultaneously set 'failoverPriority' with {REGION} and 'failover'"),
    );
    for (i, label) in priority.iter().enumerate() {
        let at = &at.field("failoverPriority");
        out.error_if(label.is_empty(), &at.item(i), "a label is required");
        out.error_if(priority[..i].contains(label), &at.item(i), format!("duplicate label {label}"));
    }
}

/// Localities of one list: a wildcard only at the end, and none inside another.
fn localities(list: &[&str]) -> Result<(), String> {
    let mut seen: BTreeSet<Vec<&str>> = BTreeSet::new();
    for locality in list {
        let mut parts: Vec<&str> = locality.split('/').collect();
        if parts.len() > 3 || parts.iter().any(|part| part.is_empty()) {
            return Err(format!("locality {locality:?} must not contain empty region/zone/subzone info"));
        }
        if parts.iter().filter(|part| **part == "*").count() > 1
            || parts.iter().rev().skip(1).any(|p| *p == "*")
        {
            return Err(format!(
                "locality {locality} wildcard '*' number can not exceed 1 and must be in the end"
            ));
        }
        if parts.last() == Some(&"*") {
            parts.pop();
        }
        if seen.iter().any(|other| other.starts_with(&parts) || parts.starts_with(other)) {
            return Err(format!("locality {locality} overlap with previous specified ones"));
        }
        seen.insert(parts);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localities_do_not_overlap() {
        for good in [vec!["a/b/c", "a/b/d"], vec!["a/*", "b"], vec!["*"], vec![]] {
            assert!(localities(&good).is_ok(), "{good:?}");
        }
        for bad in [vec!["*/z/*"], vec!["a", "a/b/c"], vec!["a/b/*", "a/b/c"], vec!["a//c"], vec!["a", "*"]] {
            assert!(localities(&bad).is_err(), "{bad:?}");
        }
    }
}
