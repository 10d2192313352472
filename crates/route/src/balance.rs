//! Which endpoint gets a request: priority by health, locality by weight, host by policy.
//!
//! A [`Plan`] is made from an assignment and the hosts' health, again whenever one of them changes; picking from it
//! looks at nothing else but entropy, a turn counter and (for least-request) the active requests.

use lateen_base::Locality;

use crate::cluster::{Balancing, Policy, SlowStart};
use crate::endpoints::Assignment;
use crate::entropy::Entropy;
use crate::trail::Trail;

mod group;
mod hashing;
mod load;
#[cfg(test)]
mod tests;

use group::Group;
use load::{Count, Loads, Which};

/// What is known of hosts at run time, by their index in [`Assignment::hosts`].
pub trait HostView {
    /// Whether active checks and outlier detection hold the host usable.
    fn healthy(&self, host: usize) -> bool;

    /// Its active requests.
    fn active_requests(&self, host: usize) -> u32;

    /// Whether an active check says that the host is to be used only when others do not suffice.
    fn degraded(&self, _host: usize) -> bool {
        false
    }

    /// The weight that a host has instead of its assignment's.
    fn weight(&self, _host: usize) -> Option<u32> {
        None
    }

    /// The share of its weight that a host gets while it warms up; `None` once it is warm.
    fn warmth(&self, _host: usize, _rules: &SlowStart) -> Option<f64> {
        None
    }
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
    /// How often another host was looked for already (ring hash, Maglev).
    pub attempt: u32,
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

const PRIORITY: u64 = 0x70_72_69;
const LOCALITY: u64 = 0x6c_6f_63;

impl Plan {
    /// A plan for the hosts' health as it is now.
    pub fn new(assignment: &Assignment, balancing: &Balancing, view: &impl HostView) -> Self {
        Self::of_counts(&Count::all(assignment, view), assignment, balancing, view)
    }

    /// A plan that leaves priorities out, as a retry does that is to go elsewhere; the plan of all where nothing would be
    /// left.
    pub fn without(
        assignment: &Assignment,
        balancing: &Balancing,
        view: &impl HostView,
        priorities: &[usize],
    ) -> Self {
        let all = Count::all(assignment, view);
        let mut counts = all.clone();
        for priority in priorities {
            if let Some(count) = counts.get_mut(*priority) {
                count.leave_out();
            }
        }
        let some = counts.iter().any(Count::has_usable);
        Self::of_counts(if some { &counts } else { &all }, assignment, balancing, view)
    }

    /// The most entries that a table of a plan has, which is what making it costs.
    pub fn table_entries(assignment: &Assignment, balancing: &Balancing) -> u64 {
        let spread = |weights: &mut dyn Iterator<Item = u32>| {
            let (mut least, mut total) = (u64::MAX, 0u64);
            for weight in weights.map(u64::from).filter(|weight| *weight > 0) {
                (least, total) = (least.min(weight), total.saturating_add(weight));
            }
            if total == 0 { 1 } else { total.div_ceil(least) }
        };
        match balancing.policy {
            Policy::Maglev { size, .. } => size,
            // The lightest host has a whole point: the others have as many more as they are heavier.
            Policy::RingHash { min_size, max_size, .. } => {
                let hosts = spread(&mut assignment.hosts.iter().map(|host| host.weight));
                let localities = match balancing.locality_weighted {
                    true => spread(&mut assignment.localities.iter().filter_map(|locality| locality.weight)),
                    false => 1,
                };
                min_size.max(hosts.saturating_mul(localities)).min(max_size)
            }
            _ => 0,
        }
    }

    fn of_counts(
        counts: &[Count],
        assignment: &Assignment,
        balancing: &Balancing,
        view: &impl HostView,
    ) -> Self {
        let loads = Loads::of(counts, assignment.overprovisioning, balancing.panic_threshold);
        let mut plan = Self::default();
        let mut upper = 0;
        for (priority, which, load) in loads.shares() {
            upper += load;
            if let Some(tier) = Tier::new(assignment, balancing, view, priority, which) {
                plan.tiers.push((upper, tier));
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
        groups.flat_map(|group| group.hosts().iter().map(|host| *host as usize))
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
                let hosts: usize = tier.groups.iter().map(|(_, group)| group.hosts().len()).sum();
                let first = tier.groups.first().and_then(|(_, group)| group.hosts().first());
                let locality =
                    first.map_or(Locality::default(), |h| (*assignment.hosts[*h as usize].locality).clone());
                let panic = if tier.panic { ", health not looked at (panic)" } else { "" };
                format!("priority {} takes {share} %: {hosts} endpoints, {locality}{panic}", tier.priority)
            });
        }
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
        let fits = |host: &usize| which.takes(assignment, view, *host);
        let localities = &assignment.localities[assignment.priorities[priority].clone()];
        // Localities without any weight are not weighed.
        let weighted = balancing.locality_weighted && localities.iter().any(|l| l.weight.unwrap_or(0) > 0);
        let mut groups = Vec::new();
        if weighted && balancing.policy.hashes() {
            // One table for all localities, in which their hosts share their weights.
            let of = |locality: &crate::endpoints::LocalityGroup| {
                let hosts: Vec<usize> = locality.hosts.clone().filter(fits).collect();
                (f64::from(locality.weight.unwrap_or(0)), hosts)
            };
            groups.extend(
                Group::of_localities(assignment, balancing, localities.iter().map(of)).map(|g| (1, g)),
            );
        } else if weighted {
            let mut upper = 0;
            for locality in localities {
                let hosts: Vec<usize> = locality.hosts.clone().filter(fits).collect();
                let usable = hosts.len() as u64 * u64::from(assignment.overprovisioning) * 100;
                let available = (usable / (locality.hosts.len() as u64).max(1)).min(10_000);
                let weight = u64::from(locality.weight.unwrap_or(0)) * available;
                if weight > 0 {
                    upper += weight;
                    groups.push((upper, Group::new(assignment, balancing, &hosts, view)));
                }
            }
        } else {
            let hosts: Vec<usize> = localities.iter().flat_map(|l| l.hosts.clone()).filter(fits).collect();
            if !hosts.is_empty() {
                groups.push((1, Group::new(assignment, balancing, &hosts, view)));
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
