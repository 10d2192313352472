//! Plans of which host gets what: made at once, or by a thread of their own where they are large tables. Neither the control
//! thread nor a worker stands still for a ring of eight million points; until it is made, the plan before stays in force.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lateen_route::balance::Plan;

use super::cluster::{Cluster, HostSet};
use super::load;

/// Entries of a plan's tables above which it is not made on the way.
const LARGE: u64 = 100_000;

/// Large plans are made one at a time: each takes a processor, and memory, for as long as it takes.
static TURN: Mutex<()> = Mutex::new(());

/// What is to be planned.
#[derive(Debug, Default)]
pub(super) struct Planning {
    /// The hosts whose plan is to come.
    wanted: Option<Arc<HostSet>>,
    /// Whether a thread makes it.
    busy: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cluster {
    /// Has other hosts, or other health of the same ones, planned and used. `change` makes the new set of the newest one.
    pub(super) fn publish(&self, change: impl FnOnce(&HostSet) -> HostSet) {
        let mut planning = lock(&self.planning);
        let set = match &planning.wanted {
            Some(wanted) => change(wanted),
            None => change(&self.hosts.load()),
        };
        if self.is_large(&set)
            && let Some(me) = self.me.upgrade()
        {
            planning.wanted = Some(Arc::new(set));
            if std::mem::replace(&mut planning.busy, true) {
                return;
            }
            let thread = std::thread::Builder::new().name("plan".into());
            if let Err(error) = thread.spawn(move || me.plan_wanted()) {
                // The plan before stays; the next change tries again.
                tracing::error!(cluster = %self.compiled.name, %error, "no thread to plan a large table");
                planning.busy = false;
            }
            return;
        }
        planning.wanted = None;
        self.put(self.planned(&set));
    }

    /// Whether it had a plan once.
    pub(crate) fn is_planned(&self) -> bool {
        self.planned.load(Ordering::Relaxed)
    }

    /// Whether its first plan is still being made.
    pub(crate) fn waits_for_plan(&self) -> bool {
        !self.is_planned() && lock(&self.planning).wanted.is_some()
    }

    /// Whether a plan of its hosts is too much work for the way of a request.
    pub(super) fn is_large(&self, set: &HostSet) -> bool {
        let entries = |assignment| Plan::table_entries(assignment, &self.compiled.balancing);
        set.assignment.as_ref().is_some_and(|assignment| entries(assignment) > LARGE)
    }

    /// Makes plans until none is wanted.
    fn plan_wanted(&self) {
        let _turn = lock(&TURN);
        loop {
            let wanted = {
                let mut planning = lock(&self.planning);
                let wanted = planning.wanted.clone();
                planning.busy = wanted.is_some();
                wanted
            };
            let Some(wanted) = wanted else { break };
            let set = self.planned(&wanted);
            let mut planning = lock(&self.planning);
            // Without any, small hosts came meanwhile and are in use.
            let Some(newest) = planning.wanted.clone() else { continue };
            if Arc::ptr_eq(&newest, &wanted) {
                planning.wanted = None;
            }
            self.put(set);
        }
        self.found.notify_one();
    }

    fn planned(&self, set: &HostSet) -> HostSet {
        let weights = load::weights(self.compiled.balancing.by_load.as_ref(), &set.hosts);
        let (hosts, assignment) = (set.hosts.clone(), set.assignment.clone());
        let mut set = HostSet { hosts, assignment, weights, plan: Plan::default() };
        if let Some(assignment) = &set.assignment {
            set.plan = Plan::new(assignment, &self.compiled.balancing, &set);
        }
        set
    }

    fn put(&self, set: HostSet) {
        self.stats.membership_total.set(set.hosts.len() as u64);
        self.stats.membership_healthy.set(set.plan.hosts().count() as u64);
        self.hosts.store(Arc::new(set));
        self.planned.store(true, Ordering::Relaxed);
        self.hosts_changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use lateen_proto::json::from_value;
    use lateen_route::compile_cluster;
    use serde_json::json;

    use super::super::cluster::{Choice, Security, Way};
    use super::*;

    fn cluster(points: u64, ports: &[u16]) -> Arc<Cluster> {
        let endpoint = |port: &u16| json!({"endpoint": {"address": {"socketAddress": {"address": "127.0.0.1", "portValue": port}}}});
        let message = from_value(&json!({
            "name": "c",
            "lbPolicy": "RING_HASH",
            "ringHashLbConfig": {"minimumRingSize": points},
            "loadAssignment": {"clusterName": "c", "endpoints": [
                {"lbEndpoints": ports.iter().map(endpoint).collect::<Vec<_>>()}]},
        }))
        .unwrap();
        let compiled = Arc::new(compile_cluster(&message).unwrap().value);
        let cluster = Cluster::new(compiled, None, None, Arc::default());
        cluster.ways.store(Arc::new(vec![Way::new(Security::Plain, None)]));
        cluster
    }

    fn take_hosts(cluster: &Cluster, from: &Cluster) {
        let lateen_route::cluster::Discovery::Static(assignment) = &from.compiled.discovery else {
            panic!("{:?}", from.compiled.discovery)
        };
        cluster.set_hosts(assignment.clone(), &HostSet::default());
    }

    fn ports(cluster: &Cluster) -> Vec<String> {
        cluster.hosts.load().hosts.iter().map(|member| member.host.text.to_string()).collect()
    }

    #[test]
    fn a_large_ring_is_made_while_others_go_on() {
        let (large, other) = (cluster(200_000, &[1, 2]), cluster(200_000, &[3]));
        let small = cluster(1024, &[4]);
        let turn = lock(&TURN);
        take_hosts(&large, &large);
        assert!(large.waits_for_plan() && large.pick(Choice::default()).is_none());
        take_hosts(&small, &small);
        assert!(!small.waits_for_plan() && small.pick(Choice::default()).is_some());
        // What comes meanwhile takes its place.
        take_hosts(&large, &other);
        large.replan();
        assert!(large.waits_for_plan() && ports(&large).is_empty());
        drop(turn);
        let deadline = Instant::now() + Duration::from_secs(60);
        while large.waits_for_plan() {
            assert!(Instant::now() < deadline, "no plan: {:?}", lock(&large.planning));
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(ports(&large), ["127.0.0.1:3"]);
        assert!(large.pick(Choice::default()).is_some());
    }
}
