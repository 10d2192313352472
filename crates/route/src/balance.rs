//! Which endpoint gets a request: priority by health, locality by weight, host by policy.
//!
//! A [`Plan`] is made from an assignment and the hosts' health, again whenever one of them changes; picking from it
//! looks at nothing else but entropy, a turn counter and (for least-request) the active requests.

use lateen_base::Locality;
use xxhash_rust::xxh64::xxh64;

use crate::cluster::{Balancing, Policy};
use crate::endpoints::{Assignment, Health};
use crate::entropy::Entropy;
use crate::trail::Trail;

mod hashing;

/// What is known of hosts at run time, by their index in [`Assignment::hosts`].
pub trait HostView {
    /// Whether active checks and outlier detection hold the host usable.
    fn healthy(&self, host: usize) -> bool;
    /// Its active requests.
    fn active_requests(&self, host: usize) -> u32;
}

/// Every host is healthy and idle: the view without a running proxy.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllHealthy;

impl HostView for AllHealthy {
    fn healthy(&self, _: usize) -> bool {
        true
    }

    fn active_requests(&self, _: usize) -> u32 {
        0
    }
}

/// What one pick draws on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Draw {
    /// Chance.
    pub entropy: Entropy,
    /// The worker's own counter of picks from this cluster (round robin).
    pub turn: u64,
    /// The request's hash (ring hash, Maglev).
    pub hash: Option<u64>,
}

/// Which hosts get which share, for one state of health.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The upper end of each tier's share, in percent of all requests; the last is 100.
    tiers: Vec<(u32, Tier)>,
}

/// The hosts of a priority that take a share: its healthy ones, its degraded ones, or (in panic) all.
#[derive(Clone, Debug)]
struct Tier {
    priority: usize,
    panic: bool,
    /// Upper end of each group's weight.
    groups: Vec<(u64, Group)>,
}

#[derive(Clone, Debug)]
struct Group {
    hosts: Box<[u32]>,
    /// Upper end of each host's weight; empty when all are equal.
    weights: Box<[u64]>,
    policy: PickBy,
}

#[derive(Clone, Debug)]
enum PickBy {
    Turn,
    Chance,
    LeastRequest { choices: u32 },
    Table(hashing::Table),
}

const PRIORITY: u64 = 0x70_72_69;
const LOCALITY: u64 = 0x6c_6f_63;
const HOST: u64 = 0x68_6f_73;

impl Plan {
    /// A plan for the hosts' health as it is now.
    pub fn new(assignment: &Assignment, balancing: &Balancing, view: &impl HostView) -> Self {
        let counts: Vec<Count> =
            (0..assignment.priorities.len()).map(|p| Count::of(assignment, p, view)).collect();
        let factor = u64::from(assignment.overprovisioning);
        let healthy: Vec<u32> = counts.iter().map(|count| count.share(count.healthy, factor)).collect();
        let degraded: Vec<u32> = counts.iter().map(|count| count.share(count.degraded, factor)).collect();
        let available: u32 = healthy.iter().chain(&degraded).sum();
        let total = available.min(100);
        let panics: Vec<bool> =
            counts.iter().map(|count| total < 100 && count.in_panic(balancing.panic_threshold)).collect();
        let mut plan = Self::default();
        let mut make = |priority: usize, upper: u32, tier: Which| {
            if let Some(tier) = Tier::new(assignment, balancing, view, priority, tier) {
                plan.tiers.push((upper, tier));
            }
        };
        if total == 0 || panics.iter().all(|panic| *panic) {
            // Nobody is better than the others: by number of hosts, if panic is allowed at all.
            let hosts: u64 = counts.iter().map(|count| count.all).sum();
            let mut upper = 0;
            for (priority, count) in
                counts.iter().enumerate().filter(|(p, count)| panics[*p] && count.all > 0)
            {
                upper += count.all;
                make(priority, (upper * 100 / hosts.max(1)) as u32, Which::All);
            }
        } else {
            let mut upper = 0;
            for (shares, which) in [(&healthy, Which::Healthy), (&degraded, Which::Degraded)] {
                for (priority, share) in shares.iter().enumerate() {
                    let load = (share * 100 / total).min(100 - upper);
                    if load > 0 {
                        upper += load;
                        make(priority, upper, if panics[priority] { Which::All } else { which });
                    }
                }
            }
        }
        if let Some((upper, _)) = plan.tiers.last_mut() {
            // What rounding left over.
            *upper = 100;
        }
        plan
    }

    /// A host, by its index in [`Assignment::hosts`]; `None` when there is none to use.
    #[inline]
    pub fn pick(&self, draw: Draw, view: &impl HostView) -> Option<usize> {
        let percent = (draw.hash.unwrap_or_else(|| draw.entropy.draw(PRIORITY)) % 100) as u32;
        let (_, tier) = self.tiers.iter().find(|(upper, _)| percent < *upper)?;
        let group = tier.group(draw)?;
        group.pick(draw, view).map(|host| host as usize)
    }

    /// Whether there is no host to use.
    pub fn is_empty(&self) -> bool {
        self.tiers.is_empty()
    }

    /// The hosts that may be picked.
    pub fn hosts(&self) -> impl Iterator<Item = usize> {
        let groups = self.tiers.iter().flat_map(|(_, tier)| tier.groups.iter().map(|(_, group)| group));
        groups.flat_map(|group| group.hosts.iter().map(|host| *host as usize))
    }

    /// Whether some of the traffic goes to hosts whose health is not looked at.
    pub fn in_panic(&self) -> bool {
        self.tiers.iter().any(|(_, tier)| tier.panic)
    }

    /// Tells the shares in words.
    pub fn describe(&self, assignment: &Assignment, trail: &mut impl Trail) {
        let mut lower = 0;
        for (upper, tier) in &self.tiers {
            let share = upper - lower;
            lower = *upper;
            trail.step(|| {
                let hosts: usize = tier.groups.iter().map(|(_, group)| group.hosts.len()).sum();
                let first = tier.groups.first().and_then(|(_, group)| group.hosts.first());
                let locality =
                    first.map_or(Locality::default(), |h| (*assignment.hosts[*h as usize].locality).clone());
                let panic = if tier.panic { ", health not looked at (panic)" } else { "" };
                format!("priority {} takes {share} %: {hosts} endpoints, {locality}{panic}", tier.priority)
            });
        }
    }
}

#[derive(Clone, Copy)]
enum Which {
    Healthy,
    Degraded,
    All,
}

#[derive(Clone, Copy, Default)]
struct Count {
    all: u64,
    healthy: u64,
    degraded: u64,
}

impl Count {
    fn of(assignment: &Assignment, priority: usize, view: &impl HostView) -> Self {
        let mut out = Self::default();
        for group in &assignment.localities[assignment.priorities[priority].clone()] {
            for host in group.hosts.clone() {
                out.all += 1;
                match assignment.hosts[host].health {
                    Health::Healthy if view.healthy(host) => out.healthy += 1,
                    Health::Degraded if view.healthy(host) => out.degraded += 1,
                    _ => {}
                }
            }
        }
        out
    }

    /// Share of a priority's traffic that `usable` of its hosts can take, in percent.
    fn share(&self, usable: u64, factor: u64) -> u32 {
        (usable * factor).checked_div(self.all).map_or(0, |share| share.min(100)) as u32
    }

    fn in_panic(&self, threshold: f64) -> bool {
        let usable = (self.healthy + self.degraded) as f64;
        self.all == 0 || usable * 100.0 / (self.all as f64) < threshold
    }
}

impl Tier {
    /// `None` when no host would be in it.
    fn new(
        assignment: &Assignment,
        balancing: &Balancing,
        view: &impl HostView,
        priority: usize,
        which: Which,
    ) -> Option<Self> {
        let fits = |host: &usize| match which {
            Which::All => true,
            Which::Healthy => assignment.hosts[*host].health == Health::Healthy && view.healthy(*host),
            Which::Degraded => assignment.hosts[*host].health == Health::Degraded && view.healthy(*host),
        };
        let localities = &assignment.localities[assignment.priorities[priority].clone()];
        let mut groups = Vec::new();
        let mut upper = 0;
        if balancing.locality_weighted {
            for locality in localities {
                let hosts: Vec<usize> = locality.hosts.clone().filter(fits).collect();
                let usable = hosts.len() as u64 * u64::from(assignment.overprovisioning) * 100;
                let available = (usable / (locality.hosts.len() as u64).max(1)).min(10_000);
                let weight = u64::from(locality.weight.unwrap_or(0)) * available;
                if weight > 0 {
                    upper += weight;
                    groups.push((upper, Group::new(assignment, balancing, &hosts)));
                }
            }
        } else {
            let hosts: Vec<usize> = localities.iter().flat_map(|l| l.hosts.clone()).filter(fits).collect();
            if !hosts.is_empty() {
                groups.push((1, Group::new(assignment, balancing, &hosts)));
            }
        }
        (!groups.is_empty()).then_some(Self { priority, panic: matches!(which, Which::All), groups })
    }

    #[inline]
    fn group(&self, draw: Draw) -> Option<&Group> {
        if let [(_, only)] = &self.groups[..] {
            return Some(only);
        }
        let (total, _) = self.groups.last()?;
        let number = draw.hash.unwrap_or(draw.entropy.0);
        let point = Entropy(number).draw(LOCALITY) % total;
        self.groups.iter().find(|(upper, _)| point < *upper).map(|(_, group)| group)
    }
}

impl Group {
    /// `hosts` is not empty.
    fn new(assignment: &Assignment, balancing: &Balancing, hosts: &[usize]) -> Self {
        let weight = |host: &usize| u64::from(assignment.hosts[*host].weight);
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
        let keys = |by_hostname: bool| -> Vec<(u64, u64)> {
            hosts.iter().map(|host| (host_hash(assignment, *host, by_hostname), weight(host))).collect()
        };
        let policy = match balancing.policy {
            Policy::RoundRobin | Policy::ClusterProvided => PickBy::Turn,
            Policy::Random => PickBy::Chance,
            Policy::LeastRequest { choices } => PickBy::LeastRequest { choices },
            Policy::RingHash { min_size, max_size, by_hostname } => {
                PickBy::Table(hashing::Table::ring(&keys(by_hostname), min_size, max_size))
            }
            Policy::Maglev { size, by_hostname } => {
                PickBy::Table(hashing::Table::maglev(&keys(by_hostname), size))
            }
        };
        // An assignment of more hosts than u32 does not fit into memory.
        Self { hosts: hosts.iter().map(|host| *host as u32).collect(), weights, policy }
    }

    #[inline]
    fn pick(&self, draw: Draw, view: &impl HostView) -> Option<u32> {
        let index = match &self.policy {
            PickBy::Turn => self.by_turn(draw.turn),
            PickBy::Chance => self.by_chance(draw.entropy.draw(HOST)),
            PickBy::LeastRequest { choices } => {
                let candidates =
                    (0..*choices).map(|n| self.by_chance(draw.entropy.draw(HOST + u64::from(n))));
                candidates.min_by_key(|index| {
                    self.hosts.get(*index).map(|host| view.active_requests(*host as usize))
                })?
            }
            PickBy::Table(table) => table.index(draw.hash.unwrap_or_else(|| draw.entropy.draw(HOST)))?,
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
                self.at(point as u64)
            }
        }
    }

    #[inline]
    fn by_chance(&self, draw: u64) -> usize {
        match self.weights.last() {
            None => (draw % self.hosts.len() as u64) as usize,
            Some(total) => self.at(draw % total),
        }
    }

    fn at(&self, point: u64) -> usize {
        self.weights.partition_point(|upper| *upper <= point)
    }
}

fn host_hash(assignment: &Assignment, host: usize, by_hostname: bool) -> u64 {
    let host = &assignment.hosts[host];
    match &host.hostname {
        Some(name) if by_hostname => xxh64(name.as_bytes(), 0),
        _ => xxh64(host.address.to_string().as_bytes(), 0),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::endpoints::compile_endpoints;
    use lateen_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
    use lateen_proto::json;
    use serde_json::json;

    struct View {
        sick: Vec<usize>,
        active: Vec<u32>,
    }

    impl HostView for View {
        fn healthy(&self, host: usize) -> bool {
            !self.sick.contains(&host)
        }

        fn active_requests(&self, host: usize) -> u32 {
            self.active.get(host).copied().unwrap_or(0)
        }
    }

    fn balancing(policy: Policy) -> Balancing {
        Balancing { policy, panic_threshold: 50.0, locality_weighted: false }
    }

    /// Groups of (priority, locality weight, host weights).
    fn assignment(groups: &[(u32, u32, &[u32])]) -> Assignment {
        let mut next = 0;
        let groups: Vec<_> = groups
            .iter()
            .map(|(priority, weight, hosts)| {
                let hosts: Vec<_> = hosts
                    .iter()
                    .map(|weight| {
                        next += 1;
                        let socket = json!({"address": "10.0.0.1", "portValue": next});
                        json!({"endpoint": {"address": {"socketAddress": socket}}, "loadBalancingWeight": weight})
                    })
                    .collect();
                json!({"priority": priority, "loadBalancingWeight": weight, "lbEndpoints": hosts})
            })
            .collect();
        let message: ClusterLoadAssignment =
            json::from_value(&json!({"clusterName": "c", "endpoints": groups})).unwrap();
        compile_endpoints(&message).unwrap().value
    }

    fn shares(plan: &Plan, view: &View, hash: bool) -> BTreeMap<usize, u32> {
        let mut out = BTreeMap::new();
        for turn in 0..10_000 {
            let entropy = Entropy(turn * 7919);
            let draw = Draw { entropy, turn, hash: hash.then(|| entropy.draw(99)) };
            if let Some(host) = plan.pick(draw, view) {
                *out.entry(host).or_default() += 1;
            }
        }
        out
    }

    fn near(shares: &BTreeMap<usize, u32>, wanted: &[(usize, u32)]) {
        assert_eq!(
            shares.keys().copied().collect::<Vec<_>>(),
            wanted.iter().map(|w| w.0).collect::<Vec<_>>()
        );
        for (host, share) in wanted {
            assert!(shares[host].abs_diff(*share) < 500, "{shares:?} {wanted:?}");
        }
    }

    const IDLE: View = View { sick: vec![], active: vec![] };

    #[test]
    fn weights_are_obeyed_by_every_policy() {
        let hosts = assignment(&[(0, 1, &[1, 3])]);
        for policy in [
            Policy::RoundRobin,
            Policy::Random,
            Policy::RingHash { min_size: 1024, max_size: 8 << 20, by_hostname: false },
            Policy::Maglev { size: 65537, by_hostname: false },
        ] {
            let plan = Plan::new(&hosts, &balancing(policy), &IDLE);
            let hashed = matches!(policy, Policy::RingHash { .. } | Policy::Maglev { .. });
            near(&shares(&plan, &IDLE, hashed), &[(0, 2500), (1, 7500)]);
        }
    }

    #[test]
    fn round_robin_takes_turns() {
        let plan = Plan::new(&assignment(&[(0, 1, &[1, 1, 1])]), &balancing(Policy::RoundRobin), &IDLE);
        let turns: Vec<_> =
            (0..4).map(|turn| plan.pick(Draw { turn, ..Draw::default() }, &IDLE).unwrap()).collect();
        assert_eq!(turns, [0, 1, 2, 0]);
    }

    #[test]
    fn the_least_busy_is_preferred() {
        let busy = View { sick: vec![], active: vec![100, 0] };
        let policy = Policy::LeastRequest { choices: 2 };
        let plan = Plan::new(&assignment(&[(0, 1, &[1, 1])]), &balancing(policy), &busy);
        near(&shares(&plan, &busy, false), &[(0, 2500), (1, 7500)]);
    }

    #[test]
    fn a_priority_that_loses_hosts_shares_with_the_next() {
        let hosts = assignment(&[(0, 1, &[1, 1]), (1, 1, &[1, 1])]);
        let mut view = View { sick: vec![0], active: vec![] };
        // Half of the hosts, times 1.4, is 70 %.
        let plan = Plan::new(&hosts, &balancing(Policy::RoundRobin), &view);
        near(&shares(&plan, &view, false), &[(1, 7000), (2, 1500), (3, 1500)]);
        view.sick = vec![0, 1];
        let plan = Plan::new(&hosts, &balancing(Policy::RoundRobin), &view);
        near(&shares(&plan, &view, false), &[(2, 5000), (3, 5000)]);
    }

    #[test]
    fn panic_uses_everybody_unless_it_is_off() {
        let hosts = assignment(&[(0, 1, &[1, 1, 1, 1])]);
        let view = View { sick: vec![0, 1, 2], active: vec![] };
        let mut settings = balancing(Policy::RoundRobin);
        let plan = Plan::new(&hosts, &settings, &view);
        assert!(plan.in_panic());
        near(&shares(&plan, &view, false), &[(0, 2500), (1, 2500), (2, 2500), (3, 2500)]);
        settings.panic_threshold = 0.0;
        near(&shares(&Plan::new(&hosts, &settings, &view), &view, false), &[(3, 10_000)]);
        let dead = View { sick: vec![0, 1, 2, 3], active: vec![] };
        assert!(Plan::new(&hosts, &settings, &dead).is_empty());
    }

    #[test]
    fn localities_are_weighted_when_asked() {
        let hosts = assignment(&[(0, 80, &[1, 1]), (0, 20, &[1])]);
        let settings = Balancing { locality_weighted: true, ..balancing(Policy::RoundRobin) };
        let plan = Plan::new(&hosts, &settings, &IDLE);
        near(&shares(&plan, &IDLE, false), &[(0, 4000), (1, 4000), (2, 2000)]);
    }

    #[test]
    fn nothing_to_pick_is_no_panic() {
        let plan = Plan::new(&Assignment::empty("c"), &balancing(Policy::RoundRobin), &IDLE);
        assert!(plan.is_empty() && plan.pick(Draw::default(), &IDLE).is_none());
    }
}
