//! Names of clusters, looked up again and again. What a name had stays while its lookup fails; it goes when the resolver
//! says that there is no such name any more, as in Envoy.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lateen_route::cluster::Dns;
use lateen_route::endpoints::{Assignment, Health, Host, HostAddress, LocalityGroup};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::dns::Resolver;
use crate::upstream::cluster::{Cluster, HostSet};

/// Looks a cluster's names up for as long as it lives; one address of each only for LOGICAL_DNS. `known` are the hosts of
/// the version before, of which those stay that are found again; `found` is told after the first round.
pub(super) fn watch(
    cluster: &Arc<Cluster>,
    dns: &Dns,
    one: bool,
    known: Arc<HostSet>,
    found: Arc<Notify>,
) -> Option<AbortHandle> {
    let mut before = Some(known);
    let mut names = Names { resolver: cluster.resolver.clone()?, one, known: HashMap::new() };
    let weak = Arc::downgrade(cluster);
    let dns = dns.clone();
    let task = tokio::spawn(async move {
        loop {
            let round = names.round(&dns.assignment).await;
            let Some(cluster) = weak.upgrade() else { return };
            cluster.stats.update_attempt.inc();
            if round.failed {
                cluster.stats.update_failure.inc();
            }
            let first = before.is_some();
            let known = before.take().unwrap_or_else(|| cluster.hosts.load_full());
            let old = known.assignment.as_ref().map(|old| addresses(old));
            if first || !old.is_some_and(|old| old.eq(addresses(&round.assignment))) {
                cluster.set_hosts(Arc::new(round.assignment), &known);
            }
            if first {
                cluster.looked_up.store(true, Ordering::Relaxed);
                found.notify_one();
            }
            drop(cluster);
            let pause = match (round.failed, round.ttl) {
                (true, _) => dns.failure_refresh,
                (false, Some(ttl)) if dns.respect_ttl => ttl,
                (false, _) => dns.refresh,
            };
            let jitter = dns.jitter.mul_f64(rand::random::<f64>());
            tokio::time::sleep(pause.max(Duration::from_secs(1)).saturating_add(jitter)).await;
        }
    });
    Some(task.abort_handle())
}

/// What is known of the names of a cluster.
struct Names {
    resolver: Arc<Resolver>,
    one: bool,
    known: HashMap<Arc<str>, Vec<IpAddr>>,
}

/// What a lookup of all names gave.
struct Round {
    assignment: Assignment,
    /// The shortest lifetime of the answers.
    ttl: Option<Duration>,
    /// Whether some name could not be looked up.
    failed: bool,
}

impl Names {
    async fn round(&mut self, names: &Assignment) -> Round {
        let assignment = Assignment { hosts: Vec::new(), localities: Vec::new(), ..names.clone() };
        let mut out = Round { assignment, ttl: None, failed: false };
        for group in &names.localities {
            let start = out.assignment.hosts.len();
            for host in &names.hosts[group.hosts.clone()] {
                let HostAddress::Name(name, port) = &host.address else {
                    out.assignment.hosts.push(host.clone());
                    continue;
                };
                self.refresh(name, &mut out).await;
                for ip in self.known.get(name).into_iter().flatten() {
                    out.assignment.hosts.push(Arc::new(Host {
                        address: HostAddress::Tcp((*ip, *port).into()),
                        hostname: host.hostname.clone().or_else(|| Some(name.clone())),
                        health: Health::Healthy,
                        ..(**host).clone()
                    }));
                }
            }
            let hosts = start..out.assignment.hosts.len();
            out.assignment.localities.push(LocalityGroup { hosts, ..group.clone() });
        }
        out
    }

    async fn refresh(&mut self, name: &Arc<str>, out: &mut Round) {
        match self.resolver.lookup(name).await {
            Ok(mut answer) => {
                out.ttl = Some(out.ttl.map_or(answer.ttl, |shortest| shortest.min(answer.ttl)));
                if self.one {
                    answer.addresses.truncate(1);
                }
                self.known.insert(name.clone(), answer.addresses);
            }
            // One address at a time: Envoy keeps it until there is another one.
            Err(error) if error.is_absence() && !self.one => drop(self.known.remove(name)),
            Err(_) => out.failed = true,
        }
    }
}

fn addresses(assignment: &Assignment) -> impl Iterator<Item = &HostAddress> {
    assignment.hosts.iter().map(|host| &host.address)
}
