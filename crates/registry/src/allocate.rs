//! Addresses for hosts that have none, so that TCP services of ServiceEntries can be told apart.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lateen_api::kinds::service_entry::{Resolution, ServiceEntry};
use lateen_base::{Host, Namespace};

use crate::registry::HostId;

/// Third and fourth byte run over 0..255; those whose fourth byte is 0 stay free: 240.240.0.1 to 240.240.254.254.
const SLOTS: u32 = 255 * 255;
/// A prime below [`SLOTS`], for steps that visit every slot.
const STEP: u32 = 65_011;

/// The addresses of every host without any: the same for the same set of hosts, whatever the order.
///
/// A host gets the slot of its hash, or the next free one of its own sequence; equal hosts share one address.
pub(crate) fn allocate<'a>(
    entries: impl Iterator<Item = (&'a Namespace, &'a ServiceEntry)>,
) -> BTreeMap<HostId, Vec<IpAddr>> {
    let mut wanted: BTreeMap<Host, BTreeSet<Namespace>> = BTreeMap::new();
    for (namespace, entry) in entries.filter(|(_, entry)| needs_address(entry)) {
        for host in entry.hosts.iter().map(Host::new).filter(|host| !host.is_wildcard()) {
            wanted.entry(host).or_default().insert(namespace.clone());
        }
    }
    let mut taken = BTreeSet::new();
    let mut all = BTreeMap::new();
    for (host, namespaces) in wanted {
        let first = namespaces.first().map(Namespace::as_str).unwrap_or_default();
        let Some(slot) = free_slot(&format!("{first}:{host}"), &taken) else { break };
        taken.insert(slot);
        for namespace in namespaces {
            all.insert((host.clone(), namespace), addresses(slot));
        }
    }
    all
}

fn needs_address(entry: &ServiceEntry) -> bool {
    let resolved = !matches!(entry.resolution, Resolution::None | Resolution::DynamicDns);
    entry.addresses.is_empty() && resolved
}

fn free_slot(key: &str, taken: &BTreeSet<u32>) -> Option<u32> {
    let hash = fnv1(key.as_bytes());
    let step = STEP - hash % STEP;
    (0..SLOTS)
        .map(|i| (hash % SLOTS + (u64::from(i) * u64::from(step) % u64::from(SLOTS)) as u32) % SLOTS)
        .find(|slot| slot % 255 != 0 && !taken.contains(slot))
}

fn addresses(slot: u32) -> Vec<IpAddr> {
    let (third, fourth) = ((slot / 255) as u8, (slot % 255) as u8);
    let low = u16::from_be_bytes([third, fourth]);
    vec![
        Ipv4Addr::new(240, 240, third, fourth).into(),
        Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0xf0f0, low).into(),
    ]
}

/// FNV-1, 32 bits, over `NAMESPACE:HOST`: the addresses are those that Istio's hash gives.
fn fnv1(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5_u32, |hash, byte| hash.wrapping_mul(0x0100_0193) ^ u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_share_by_name_and_never_collide() {
        let entries: Vec<(Namespace, ServiceEntry)> = (0..3000)
            .map(|i| {
                let entry = ServiceEntry {
                    hosts: vec![format!("h{}.example.com", i % 2900)],
                    resolution: Resolution::Static,
                    ..ServiceEntry::default()
                };
                (Namespace::new(if i < 2900 { "a" } else { "b" }), entry)
            })
            .collect();
        let forward = allocate(entries.iter().map(|(ns, entry)| (ns, entry)));
        let backward = allocate(entries.iter().rev().map(|(ns, entry)| (ns, entry)));
        assert_eq!(forward, backward);
        let of = |host: &str, ns: &str| &forward[&(Host::new(host), Namespace::new(ns))];
        assert_eq!(of("h1.example.com", "a"), of("h1.example.com", "b"));
        let distinct: BTreeSet<_> = forward.values().collect();
        assert_eq!(distinct.len(), 2900);
    }
}
