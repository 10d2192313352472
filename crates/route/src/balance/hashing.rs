//! Tables that keep a hash on the same host when others come and go.

use xxhash_rust::xxh64::xxh64;

/// Hash to index of a host.
#[derive(Clone, Debug)]
pub(super) enum Table {
    /// Points on a circle, ordered.
    Ring(Box<[(u64, u32)]>),
    /// One entry per slot.
    Slots(Box<[u32]>),
}

impl Table {
    /// The host of a hash.
    pub(super) fn index(&self, hash: u64) -> Option<usize> {
        match self {
            Self::Ring(points) => {
                let next = points.partition_point(|(point, _)| *point < hash);
                points.get(next).or_else(|| points.first()).map(|(_, host)| *host as usize)
            }
            Self::Slots(slots) => {
                let slot = hash.checked_rem(slots.len() as u64)?;
                slots.get(slot as usize).map(|host| *host as usize)
            }
        }
    }

    /// Ketama: each host has points in proportion to its weight. `hosts` are pairs of hash and weight.
    pub(super) fn ring(hosts: &[(u64, u64)], min_size: u64, max_size: u64) -> Self {
        let total: u64 = hosts.iter().map(|(_, weight)| weight).sum();
        let lightest = hosts.iter().map(|(_, weight)| *weight).min().unwrap_or(1).max(1);
        // As many rounds of the lightest host as fill the smallest ring.
        let per_round = (total / lightest).max(1);
        let size = (min_size.div_ceil(per_round) * per_round).clamp(1, max_size.max(1));
        let mut points = Vec::new();
        for (index, (hash, weight)) in hosts.iter().enumerate() {
            let share = (size as u128 * u128::from(*weight) / u128::from(total.max(1))).max(1) as u64;
            let name = hash.to_le_bytes();
            points.extend((0..share).map(|n| (xxh64(&name, n), index as u32)));
        }
        points.sort_unstable();
        Self::Ring(points.into())
    }

    /// Maglev: hosts take turns at their own permutation of the slots, by weight.
    pub(super) fn maglev(hosts: &[(u64, u64)], size: u64) -> Self {
        const FREE: u32 = u32::MAX;
        let size = size.max(1);
        let mut slots = vec![FREE; size as usize];
        let heaviest = hosts.iter().map(|(_, weight)| *weight).max().unwrap_or(1).max(1);
        let mut state: Vec<(u64, u64, u64)> = hosts
            .iter()
            .map(|(hash, _)| {
                let name = hash.to_le_bytes();
                (xxh64(&name, 0) % size, xxh64(&name, 1) % (size - 1).max(1) + 1, 0)
            })
            .collect();
        let mut free = if hosts.is_empty() { 0 } else { size };
        let mut credit = vec![0u64; hosts.len()];
        while free > 0 {
            for (index, (_, weight)) in hosts.iter().enumerate() {
                credit[index] += weight;
                if credit[index] < heaviest || free == 0 {
                    continue;
                }
                credit[index] -= heaviest;
                let (offset, skip, turn) = &mut state[index];
                // A size that is no prime might not be covered by one host's steps: after a full round, any free slot.
                let slot = loop {
                    let slot = if *turn < size {
                        ((u128::from(*offset) + u128::from(*turn) * u128::from(*skip)) % u128::from(size))
                            as u64
                    } else {
                        (*turn - size) % size
                    };
                    *turn += 1;
                    if slots[slot as usize] == FREE {
                        break slot;
                    }
                };
                slots[slot as usize] = index as u32;
                free -= 1;
            }
        }
        Self::Slots(slots.into())
    }
}
