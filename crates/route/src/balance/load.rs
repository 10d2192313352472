//! How much of the traffic each priority takes, by how many of its hosts are well.

use crate::endpoints::{Assignment, Health};

use super::HostView;

/// Which hosts of a priority are meant.
#[derive(Clone, Copy, Debug)]
pub(super) enum Which {
    Healthy,
    Degraded,
    All,
}

impl Which {
    /// Whether a host is among them.
    pub(super) fn takes(self, assignment: &Assignment, view: &impl HostView, host: usize) -> bool {
        match self {
            Self::All => true,
            Self::Healthy => state(assignment, view, host) == Health::Healthy,
            Self::Degraded => state(assignment, view, host) == Health::Degraded,
        }
    }
}

/// A host's health by all that is known: the control plane, active checks, outlier detection.
fn state(assignment: &Assignment, view: &impl HostView, host: usize) -> Health {
    match assignment.hosts[host].health {
        Health::Healthy | Health::Degraded if !view.healthy(host) => Health::Unhealthy,
        Health::Healthy if view.degraded(host) => Health::Degraded,
        health => health,
    }
}

/// The hosts of one priority.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Count {
    all: u64,
    healthy: u64,
    degraded: u64,
    left_out: bool,
}

impl Count {
    /// Of every priority.
    pub(super) fn all(assignment: &Assignment, view: &impl HostView) -> Vec<Self> {
        (0..assignment.priorities.len()).map(|priority| Self::of(assignment, priority, view)).collect()
    }

    fn of(assignment: &Assignment, priority: usize, view: &impl HostView) -> Self {
        let mut out = Self::default();
        for group in &assignment.localities[assignment.priorities[priority].clone()] {
            for host in group.hosts.clone() {
                out.all += 1;
                match state(assignment, view, host) {
                    Health::Healthy => out.healthy += 1,
                    Health::Degraded => out.degraded += 1,
                    Health::Unhealthy | Health::Draining => {}
                }
            }
        }
        out
    }

    /// Takes it out of the choice.
    pub(super) fn leave_out(&mut self) {
        *self = Self { left_out: true, ..Self::default() };
    }

    /// Whether a host of it may be used.
    pub(super) fn has_usable(&self) -> bool {
        self.healthy + self.degraded > 0
    }

    /// Share of a priority's traffic that `usable` of its hosts can take, in percent.
    fn share(&self, usable: u64, factor: u64) -> u32 {
        (usable * factor).checked_div(self.all).map_or(0, |share| share.min(100)) as u32
    }

    fn in_panic(&self, threshold: f64) -> bool {
        let usable = (self.healthy + self.degraded) as f64;
        !self.left_out && (self.all == 0 || usable * 100.0 / (self.all as f64) < threshold)
    }
}

/// The load of each priority, in percent.
pub(super) struct Loads(Vec<(usize, Which, u32)>);

impl Loads {
    /// By Envoy's rules: what a priority can take, times the overprovisioning factor, up to all that is left; where the
    /// whole cluster cannot take everything, each takes its part, and priorities below the panic threshold stop looking at
    /// health.
    pub(super) fn of(counts: &[Count], overprovisioning: u32, panic_threshold: f64) -> Self {
        let factor = u64::from(overprovisioning);
        let healthy: Vec<u32> = counts.iter().map(|count| count.share(count.healthy, factor)).collect();
        let degraded: Vec<u32> = counts.iter().map(|count| count.share(count.degraded, factor)).collect();
        let total = healthy.iter().chain(&degraded).sum::<u32>().min(100);
        let panics: Vec<bool> =
            counts.iter().map(|count| total < 100 && count.in_panic(panic_threshold)).collect();
        if total == 0 || panics.iter().all(|panic| *panic) {
            return Self::by_number(counts, &panics);
        }
        let mut left = 100;
        let mut shares = Vec::new();
        for (available, which) in [(&healthy, Which::Healthy), (&degraded, Which::Degraded)] {
            for (priority, share) in available.iter().enumerate().filter(|(_, share)| **share > 0) {
                let load = (share * 100 / total).min(left);
                left -= load;
                let which = if panics[priority] { Which::All } else { which };
                shares.push((priority, which, load));
            }
        }
        if let Some((_, _, load)) = shares.first_mut() {
            // What rounding left over.
            *load += left;
        }
        Self(shares)
    }

    /// Nobody is better than the others: by number of hosts, if panic is allowed at all.
    fn by_number(counts: &[Count], panics: &[bool]) -> Self {
        let hosts: u64 = counts.iter().map(|count| count.all).sum();
        let (mut sum, mut told) = (0, 0);
        let mut shares = Vec::new();
        for (priority, count) in counts.iter().enumerate().filter(|(p, count)| panics[*p] && count.all > 0) {
            sum += count.all;
            let upper = (sum * 100 / hosts.max(1)) as u32;
            shares.push((priority, Which::All, upper - told));
            told = upper;
        }
        Self(shares)
    }

    /// Priority, which of its hosts, and percent; those that get something.
    pub(super) fn shares(&self) -> impl Iterator<Item = (usize, Which, u32)> {
        self.0.iter().copied().filter(|(_, _, load)| *load > 0)
    }
}
