//! Tables that keep a hash on the same host when others come and go, built as Envoy builds them: the same keys on the same
//! hosts fall on the same one, whichever proxy serves.

use xxhash_rust::xxh64::xxh64;

/// A host that a table is made of.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// What is hashed: its address, its host name, or what its metadata says.
    pub key: Box<str>,
    /// Its share of all requests; those of a table are 1 together.
    pub share: f64,
    /// Its index.
    pub host: u32,
}

/// Hash to index of a host.
#[derive(Clone, Debug)]
pub(super) enum Table {
    /// Points on a circle, ordered.
    Ring(Box<[(u64, u32)]>),
    /// One entry per slot.
    Slots(Box<[u32]>),
}

impl Table {
    /// The host of a hash. Each attempt to find another host for a retry looks somewhere else.
    pub(super) fn host(&self, hash: u64, attempt: u32) -> Option<u32> {
        match self {
            Self::Ring(points) => {
                let next = points.partition_point(|(point, _)| *point < hash);
                let next = if next == points.len() { 0 } else { next };
                let shifted = (next + attempt as usize).checked_rem(points.len())?;
                points.get(shifted).map(|(_, host)| *host)
            }
            Self::Slots(slots) => {
                let hash = if attempt == 0 { hash } else { hash ^ (u64::MAX - u64::from(attempt) + 1) };
                let slot = hash.checked_rem(slots.len() as u64)?;
                slots.get(slot as usize).copied()
            }
        }
    }

    /// Ketama: each host has points in proportion to its share; as many in all as give the lightest host a whole number
    /// of them.
    pub(super) fn ring(hosts: &[Entry], min_size: u64, max_size: u64, murmur: bool) -> Self {
        let lightest = hosts.iter().map(|host| host.share).fold(1.0, f64::min);
        let scale = ((lightest * min_size as f64).ceil() / lightest).min(max_size as f64);
        let mut points = Vec::with_capacity(scale.ceil() as usize);
        // The shares need not come out whole: running sums spread what is left over.
        let (mut made, mut wanted) = (0.0, 0.0);
        let mut name = String::new();
        for host in hosts {
            wanted += scale * host.share;
            let mut number = 0u64;
            while made < wanted {
                name.clear();
                name.push_str(&host.key);
                name.push('_');
                name.push_str(&number.to_string());
                let point = if murmur { murmur2(name.as_bytes()) } else { xxh64(name.as_bytes(), 0) };
                points.push((point, host.host));
                number += 1;
                made += 1.0;
            }
        }
        points.sort_by_key(|(point, _)| *point);
        Self::Ring(points.into())
    }

    /// Maglev: hosts take turns at their own permutation of the slots, by weight.
    pub(super) fn maglev(hosts: &[Entry], size: u64) -> Self {
        const FREE: u32 = u32::MAX;
        let size = size.max(2);
        let mut slots = vec![FREE; size as usize];
        let heaviest = hosts.iter().map(|host| host.share).fold(0.0, f64::max);
        let mut turns: Vec<Turn> = hosts.iter().map(|host| Turn::new(host, size)).collect();
        turns.sort_by(|a, b| a.host.key.cmp(&b.host.key));
        let mut free = if hosts.is_empty() { 0 } else { size };
        let mut round = 0.0;
        while free > 0 {
            round += 1.0;
            for turn in &mut turns {
                // A host with a third of the heaviest one's weight takes a slot every third round.
                if free == 0 || round * turn.host.share < turn.due {
                    continue;
                }
                turn.due += heaviest;
                let slot = loop {
                    let slot = turn.next(size);
                    if slots[slot] == FREE {
                        break slot;
                    }
                };
                slots[slot] = turn.host.host;
                free -= 1;
            }
        }
        Self::Slots(slots.into())
    }
}

/// A host's way through the slots.
struct Turn<'h> {
    host: &'h Entry,
    offset: u64,
    skip: u64,
    taken: u64,
    due: f64,
}

impl<'h> Turn<'h> {
    fn new(host: &'h Entry, size: u64) -> Self {
        let key = host.key.as_bytes();
        Self { host, offset: xxh64(key, 0) % size, skip: xxh64(key, 1) % (size - 1) + 1, taken: 0, due: 0.0 }
    }

    fn next(&mut self, size: u64) -> usize {
        let taken = self.taken;
        self.taken += 1;
        // A size that is no prime might not be covered by one host's steps: after a full round, any free slot.
        let slot = if taken < size {
            (u128::from(self.offset) + u128::from(taken) * u128::from(self.skip)) % u128::from(size)
        } else {
            u128::from((taken - size) % size)
        };
        slot as usize
    }
}

/// MurmurHash 2 (64 bits, as C++ libraries hash strings), with their usual seed.
fn murmur2(bytes: &[u8]) -> u64 {
    const SEED: u64 = 0xc70f_6907;
    const MULTIPLIER: u64 = 0xc6a4_a793_5bd1_e995;
    let shift = |value: u64| value ^ (value >> 47);
    let mut hash = SEED ^ (bytes.len() as u64).wrapping_mul(MULTIPLIER);
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        let data = shift(u64::from_le_bytes(word).wrapping_mul(MULTIPLIER)).wrapping_mul(MULTIPLIER);
        hash = (hash ^ data).wrapping_mul(MULTIPLIER);
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(MULTIPLIER);
    }
    shift(shift(hash).wrapping_mul(MULTIPLIER))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(count: u32) -> Vec<Entry> {
        let share = 1.0 / f64::from(count);
        (0..count).map(|host| Entry { key: format!("10.0.0.{host}:80").into(), share, host }).collect()
    }

    #[test]
    fn a_host_that_goes_takes_no_others_keys_along() {
        let (all, fewer) = (hosts(10), hosts(9));
        for make in [
            |hosts: &[Entry]| Table::ring(hosts, 1024, 8 << 20, false),
            |hosts: &[Entry]| Table::ring(hosts, 1024, 8 << 20, true),
            |hosts: &[Entry]| Table::maglev(hosts, 65537),
        ] {
            let (before, after) = (make(&all), make(&fewer));
            let keys = (0..1000u64).map(|key| xxh64(&key.to_le_bytes(), 0));
            let moved = keys
                .filter(|key| before.host(*key, 0) != Some(9) && before.host(*key, 0) != after.host(*key, 0))
                .count();
            assert!(moved < 120, "{moved} of 1000 keys moved");
        }
    }

    #[test]
    fn a_ring_has_the_size_that_gives_every_host_whole_points() {
        let Table::Ring(points) = Table::ring(&hosts(3), 1024, 8 << 20, false) else { panic!("no ring") };
        assert_eq!(points.len(), 1026);
        let Table::Ring(points) = Table::ring(&hosts(4), 1024, 6, false) else { panic!("no ring") };
        assert_eq!(points.len(), 6, "a host may have to go without");
    }
}
