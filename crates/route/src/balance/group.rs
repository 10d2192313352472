//! The hosts among which a policy chooses.

use lateen_proto::value::Kind;

use super::hashing::{Entry, Table};
use super::{Draw, HostView};
use crate::cluster::{Balancing, LeastRequest, Policy, SlowStart};
use crate::endpoints::{Assignment, Host};

const HOST: u64 = 0x68_6f_73;

/// Hosts of one priority and locality, or of all localities.
#[derive(Clone, Debug)]
pub(super) struct Group {
    hosts: Box<[u32]>,
    /// Upper end of each host's weight; empty when all are equal.
    weights: Box<[u64]>,
    policy: PickBy,
    slow_start: Option<SlowStart>,
}

#[derive(Clone, Debug)]
enum PickBy {
    Turn,
    Chance,
    LeastRequest(LeastRequest),
    Table(Table),
}

impl Group {
    /// `hosts` is not empty.
    pub(super) fn new(
        assignment: &Assignment,
        balancing: &Balancing,
        hosts: &[usize],
        view: &impl HostView,
    ) -> Self {
        let policy = match balancing.policy {
            Policy::RoundRobin | Policy::ClusterProvided => PickBy::Turn,
            Policy::Random => PickBy::Chance,
            Policy::LeastRequest(rules) => PickBy::LeastRequest(rules),
            Policy::RingHash { .. } | Policy::Maglev { .. } => {
                return Self::of_table(balancing, entries(assignment, balancing, hosts, 1.0));
            }
        };
        let weight = |host: &usize| u64::from(view.weight(*host).unwrap_or(assignment.hosts[*host].weight));
        let first = weight(&hosts[0]);
        let mut upper = 0;
        let weights = if hosts.iter().all(|host| weight(host) == first) {
            Box::default()
        } else {
            let sums = hosts.iter().map(|host| {
                upper += weight(host);
                upper
            });
            sums.collect()
        };
        // An assignment of more hosts than u32 does not fit into memory.
        let hosts = hosts.iter().map(|host| *host as u32).collect();
        Self { hosts, weights, policy, slow_start: balancing.slow_start }
    }

    /// One table of hosts of weighted localities; `None` when there would be nothing in it.
    pub(super) fn of_localities(
        assignment: &Assignment,
        balancing: &Balancing,
        localities: impl Iterator<Item = (f64, Vec<usize>)>,
    ) -> Option<Self> {
        let localities: Vec<_> =
            localities.filter(|(weight, hosts)| *weight > 0.0 && !hosts.is_empty()).collect();
        let total: f64 = localities.iter().map(|(weight, _)| weight).sum();
        let shares = localities.iter().map(|(weight, hosts)| (weight / total, hosts));
        let entries: Vec<_> =
            shares.flat_map(|(share, hosts)| entries(assignment, balancing, hosts, share)).collect();
        (!entries.is_empty()).then(|| Self::of_table(balancing, entries))
    }

    fn of_table(balancing: &Balancing, entries: Vec<Entry>) -> Self {
        let table = match balancing.policy {
            Policy::Maglev { size, .. } => Table::maglev(&entries, size),
            Policy::RingHash { min_size, max_size, murmur, .. } => {
                Table::ring(&entries, min_size, max_size, murmur)
            }
            _ => Table::ring(&entries, 1024, 8 << 20, false),
        };
        Self {
            hosts: entries.iter().map(|entry| entry.host).collect(),
            weights: Box::default(),
            policy: PickBy::Table(table),
            slow_start: None,
        }
    }

    /// Their indices.
    pub(super) fn hosts(&self) -> &[u32] {
        &self.hosts
    }

    /// One of them.
    #[inline]
    pub(super) fn pick(&self, draw: Draw, view: &impl HostView) -> Option<u32> {
        if let Some(rules) = &self.slow_start
            && let Some(index) = self.by_warmth(rules, draw, view)
        {
            return self.hosts.get(index).copied();
        }
        let index = match &self.policy {
            PickBy::Turn => self.by_turn(draw.turn),
            PickBy::Chance => (draw.entropy.draw(HOST) % self.hosts.len() as u64) as usize,
            PickBy::LeastRequest(rules) => self.by_requests(rules, draw, view)?,
            PickBy::Table(table) => {
                return table.host(draw.hash.unwrap_or_else(|| draw.entropy.draw(HOST)), draw.attempt);
            }
        };
        self.hosts.get(index).copied()
    }

    #[inline]
    fn by_turn(&self, turn: u64) -> usize {
        match self.weights.last() {
            None => (turn % self.hosts.len() as u64) as usize,
            // Multiples of the golden ratio spread evenly over the weights, whatever these are.
            Some(total) => {
                let point = (u128::from(turn.wrapping_mul(0x9e37_79b9_7f4a_7c15)) * u128::from(*total)) >> 64;
                self.weights.partition_point(|upper| *upper <= point as u64)
            }
        }
    }

    #[inline]
    fn by_requests(&self, rules: &LeastRequest, draw: Draw, view: &impl HostView) -> Option<usize> {
        if !self.weights.is_empty() {
            return Some(self.by_share(draw, |index| {
                let active = f64::from(view.active_requests(self.hosts[index] as usize)) + 1.0;
                let active = if rules.bias == 1.0 { active } else { active.powf(rules.bias) };
                self.weight(index) / active
            }));
        }
        let count = self.hosts.len() as u64;
        let busy = |index: &usize| self.hosts.get(*index).map(|host| view.active_requests(*host as usize));
        let choices = 0..u64::from(rules.choices);
        choices.map(|n| (draw.entropy.draw(HOST + n) % count) as usize).min_by_key(busy)
    }

    /// While a host warms up, weights change with time: by chance then. `None` when all are warm.
    fn by_warmth(&self, rules: &SlowStart, draw: Draw, view: &impl HostView) -> Option<usize> {
        let warmth = |index: usize| view.warmth(self.hosts[index] as usize, rules);
        if !(0..self.hosts.len()).any(|index| warmth(index).is_some()) {
            return None;
        }
        Some(self.by_share(draw, |index| {
            let weight = self.weight(index) * warmth(index).unwrap_or(1.0);
            match &self.policy {
                PickBy::LeastRequest(least) => {
                    let active = f64::from(view.active_requests(self.hosts[index] as usize)) + 1.0;
                    weight / active.powf(least.bias)
                }
                _ => weight,
            }
        }))
    }

    /// By chance, in proportion to what `share` says of each index.
    fn by_share(&self, draw: Draw, share: impl Fn(usize) -> f64) -> usize {
        let total: f64 = (0..self.hosts.len()).map(&share).sum();
        let mut left = (draw.entropy.draw(HOST) >> 11) as f64 / (1u64 << 53) as f64 * total;
        for index in 0..self.hosts.len() {
            left -= share(index);
            if left < 0.0 {
                return index;
            }
        }
        self.hosts.len() - 1
    }

    fn weight(&self, index: usize) -> f64 {
        match self.weights.get(index) {
            None => 1.0,
            Some(upper) => (upper - index.checked_sub(1).map_or(0, |before| self.weights[before])) as f64,
        }
    }
}

/// What tables are made of: hosts that have `share` of all requests together.
fn entries(assignment: &Assignment, balancing: &Balancing, hosts: &[usize], share: f64) -> Vec<Entry> {
    let weight = |host: &usize| f64::from(assignment.hosts[*host].weight);
    let total: f64 = hosts.iter().map(weight).sum();
    let by_hostname = balancing.policy.by_hostname();
    let entry = |host: &usize| Entry {
        key: hash_key(&assignment.hosts[*host], by_hostname),
        share: weight(host) * share / total,
        host: *host as u32,
    };
    hosts.iter().map(entry).collect()
}

/// What a host is hashed by: what its metadata says (`envoy.lb`, `hash_key`), its host name, or its address.
fn hash_key(host: &Host, by_hostname: bool) -> Box<str> {
    let own = host.metadata.as_ref().and_then(|metadata| {
        let fields = &metadata.filter_metadata.get("envoy.lb")?.fields;
        match &fields.get("hash_key")?.kind {
            Some(Kind::StringValue(key)) if !key.is_empty() => Some(key.as_str()),
            _ => None,
        }
    });
    match (own, &host.hostname) {
        (Some(key), _) => key.into(),
        (None, Some(name)) if by_hostname => (**name).into(),
        (None, _) => host.address.to_string().into(),
    }
}
