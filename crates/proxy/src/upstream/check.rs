//! Active health checks: each host is asked again and again, and is left out while it does not answer well.
//!
//! What counts is in [`Progress`], without clock or socket; one task of the control thread per cluster keeps one task per
//! host.

mod probe;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use lateen_route::cluster::{HealthCheck, Pauses};
use lateen_route::endpoints::EndpointCheck;
use tokio::task::{AbortHandle, JoinSet};

use super::cluster::{Cluster, HostSet};
use super::host::Host;

/// A host's health by active checks.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    /// Whether it is left out.
    pub(crate) failed: AtomicBool,
    /// Whether it is taken only where others do not suffice.
    pub(crate) degraded: AtomicBool,
    /// Whether a check of it has ended.
    done: AtomicBool,
}

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// The host is well; or just good enough.
    Good {
        /// It says that it is degraded.
        degraded: bool,
    },
    /// It is not.
    Bad {
        /// Whether it takes several in a row to put it out.
        counts: bool,
    },
    /// There was no answer.
    Silent,
}

/// What the checks of a host have come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Progress {
    out: bool,
    first: bool,
    good: u32,
    bad: u32,
}

/// What a finding changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Nothing.
    Same,
    /// It would take more of these.
    Pending,
    /// The host is in, or out.
    Changed,
}

impl Progress {
    /// A host that is out already, or not; its first good check brings it in.
    fn new(out: bool) -> Self {
        Self { out, first: true, good: 0, bad: 0 }
    }

    fn step(&mut self, finding: Finding, rules: &HealthCheck) -> Step {
        let first = std::mem::replace(&mut self.first, false);
        let (toward, enough) = match finding {
            Finding::Good { .. } => {
                self.bad = 0;
                self.good = self.good.saturating_add(1);
                (false, first || self.good >= rules.healthy_threshold)
            }
            Finding::Bad { counts } => {
                self.good = 0;
                self.bad = self.bad.saturating_add(1);
                (true, !counts || self.bad >= rules.unhealthy_threshold)
            }
            Finding::Silent => {
                self.good = 0;
                self.bad = self.bad.saturating_add(1);
                (true, self.bad >= rules.unhealthy_threshold)
            }
        };
        if self.out == toward {
            return Step::Same;
        }
        if !enough {
            return Step::Pending;
        }
        self.out = toward;
        (self.good, self.bad) = (0, 0);
        Step::Changed
    }

    /// Until the next check.
    fn pause(&self, step: Step, pauses: &Pauses, traffic: bool) -> Duration {
        match (traffic, self.out, step) {
            (false, false, _) => pauses.no_traffic_healthy,
            (false, true, _) => pauses.no_traffic,
            (true, false, Step::Pending) => pauses.healthy_edge,
            (true, true, Step::Pending) => pauses.unhealthy_edge,
            (true, false, _) => pauses.healthy,
            (true, true, _) => pauses.unhealthy,
        }
    }
}

/// Checks a cluster's hosts for as long as it is used; nothing where none are asked for.
pub(crate) fn watch(cluster: &Arc<Cluster>) -> Option<AbortHandle> {
    if cluster.compiled.health_checks.is_empty() {
        return None;
    }
    let weak = Arc::downgrade(cluster);
    let first = cluster.clone();
    let task = tokio::spawn(async move {
        let mut checks = Checks { cluster: weak, tasks: JoinSet::new(), running: HashMap::new() };
        checks.take(&first);
        drop(first);
        loop {
            let Some(cluster) = checks.cluster.upgrade() else { return };
            let changed = cluster.hosts_changed.notified();
            tokio::select! {
                () = changed => {}
                // A host that is gone ends its own task; nothing else does.
                Some(_) = checks.tasks.join_next(), if !checks.tasks.is_empty() => {}
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
            checks.take(&cluster);
        }
    });
    Some(task.abort_handle())
}

struct Checks {
    cluster: Weak<Cluster>,
    tasks: JoinSet<()>,
    running: HashMap<u64, Vec<AbortHandle>>,
}

impl Checks {
    /// Begins with hosts that are new, ends with those that are gone.
    fn take(&mut self, cluster: &Arc<Cluster>) {
        let set = cluster.hosts.load_full();
        self.running.retain(|id, tasks| {
            let kept = set.hosts.iter().any(|member| member.host.id == *id);
            if !kept {
                tasks.iter().for_each(AbortHandle::abort);
            }
            kept
        });
        for (index, member) in set.hosts.iter().enumerate() {
            if self.running.contains_key(&member.host.id) {
                continue;
            }
            let special = special(&set, index);
            if special.as_ref().is_some_and(|check| check.disabled) {
                self.running.insert(member.host.id, Vec::new());
                continue;
            }
            // Envoy takes one check for each cluster, too.
            let rules = cluster.compiled.health_checks.iter().take(1).cloned();
            let started = rules.map(|rules| {
                let one = One {
                    cluster: self.cluster.clone(),
                    host: member.host.clone(),
                    way: member.way,
                    special: special.clone(),
                    rules,
                };
                self.tasks.spawn(one.run())
            });
            let started = started.collect();
            self.running.insert(member.host.id, started);
        }
        let mut checked = set
            .hosts
            .iter()
            .enumerate()
            .filter(|(index, _)| !special(&set, *index).is_some_and(|check| check.disabled));
        if checked.all(|(_, member)| member.host.checked.done.load(Ordering::Relaxed)) {
            let before = cluster.checked.swap(true, Ordering::Relaxed);
            if !before {
                cluster.found.notify_one();
            }
        }
        let count =
            |flag: fn(&Host) -> bool| set.hosts.iter().filter(|member| flag(&member.host)).count() as u64;
        cluster.checks.healthy.set(count(|host| !host.checked.failed.load(Ordering::Relaxed)));
        cluster.checks.degraded.set(count(|host| host.checked.degraded.load(Ordering::Relaxed)));
    }
}

fn special(set: &HostSet, index: usize) -> Option<EndpointCheck> {
    set.assignment.as_ref()?.hosts.get(index)?.check.as_deref().cloned()
}

/// The checks of one host.
struct One {
    cluster: Weak<Cluster>,
    host: Arc<Host>,
    way: usize,
    special: Option<EndpointCheck>,
    rules: HealthCheck,
}

impl One {
    async fn run(self) {
        let mut progress = Progress::new(self.host.checked.failed.load(Ordering::Relaxed));
        tokio::time::sleep(self.rules.initial_jitter.mul_f64(rand::random::<f64>())).await;
        loop {
            let Some(cluster) = self.cluster.upgrade() else { return };
            cluster.checks.attempt.inc();
            let asked = probe::ask(&cluster, &self.host, self.way, self.special.as_ref(), &self.rules);
            let finding = tokio::time::timeout(self.rules.timeout, asked).await.unwrap_or(Finding::Silent);
            let step = progress.step(finding, &self.rules);
            self.tell(&cluster, finding, step, progress.out);
            let traffic = cluster.stats.upstream_cx_total.value() > 0;
            drop(cluster);
            let pauses = &self.rules.pauses;
            let pause = progress.pause(step, pauses, traffic);
            let jitter = pauses.jitter + pause.saturating_mul(pauses.jitter_percent.min(100)) / 100;
            tokio::time::sleep(pause + jitter.mul_f64(rand::random::<f64>())).await;
        }
    }

    fn tell(&self, cluster: &Cluster, finding: Finding, step: Step, out: bool) {
        let stats = &cluster.checks;
        match finding {
            Finding::Good { .. } => stats.success.inc(),
            Finding::Bad { .. } => stats.failure.inc(),
            Finding::Silent => {
                stats.failure.inc();
                stats.network_failure.inc();
            }
        }
        let checked = &self.host.checked;
        let degraded = finding == Finding::Good { degraded: true };
        let turned = checked.degraded.swap(degraded, Ordering::Relaxed) != degraded;
        checked.failed.store(out, Ordering::Relaxed);
        if step == Step::Changed {
            let state = if out { "unhealthy" } else { "healthy" };
            tracing::info!(target: "upstream", cluster = %cluster.compiled.name, host = %self.host.text, "{state}");
            if !out {
                self.host.begin();
            }
        }
        if !out
            && matches!(finding, Finding::Good { .. })
            && cluster.compiled.outlier_detection.as_ref().is_none_or(|rules| rules.uneject_by_check)
        {
            cluster.uneject(&self.host);
        }
        let first = !checked.done.swap(true, Ordering::Relaxed);
        if step == Step::Changed || turned {
            cluster.replan();
        } else if first {
            cluster.hosts_changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Finding = Finding::Good { degraded: false };
    const BAD: Finding = Finding::Bad { counts: false };
    const AGAIN: Finding = Finding::Bad { counts: true };

    fn rules() -> HealthCheck {
        let second = Duration::from_secs(1);
        HealthCheck {
            timeout: second,
            pauses: Pauses {
                healthy: second,
                healthy_edge: second * 2,
                unhealthy: second * 3,
                unhealthy_edge: second * 4,
                no_traffic: second * 5,
                no_traffic_healthy: second * 6,
                jitter: Duration::ZERO,
                jitter_percent: 0,
            },
            initial_jitter: Duration::ZERO,
            unhealthy_threshold: 2,
            healthy_threshold: 3,
            probe: lateen_route::cluster::Probe::Tcp { send: Default::default(), receive: Vec::new() },
        }
    }

    fn steps(out: bool, findings: &[Finding]) -> (Vec<Step>, bool) {
        let mut progress = Progress::new(out);
        let rules = rules();
        (findings.iter().map(|finding| progress.step(*finding, &rules)).collect(), progress.out)
    }

    #[test]
    fn the_first_good_check_is_enough_and_later_it_takes_several() {
        assert_eq!(steps(true, &[GOOD]), (vec![Step::Changed], false));
        let later = [Finding::Silent, GOOD, GOOD, GOOD];
        assert_eq!(
            steps(true, &later),
            (vec![Step::Same, Step::Pending, Step::Pending, Step::Changed], false)
        );
    }

    #[test]
    fn a_wrong_answer_is_out_at_once_and_silence_after_some() {
        assert_eq!(steps(true, &[GOOD, BAD]), (vec![Step::Changed, Step::Changed], true));
        for weak in [AGAIN, Finding::Silent] {
            let wanted = vec![Step::Changed, Step::Pending, Step::Same, Step::Pending, Step::Changed];
            assert_eq!(steps(true, &[GOOD, weak, GOOD, weak, weak]), (wanted, true));
        }
    }

    #[test]
    fn pauses_follow_health_and_traffic() {
        let pauses = rules().pauses;
        let (well, out) = (Progress::new(false), Progress::new(true));
        let seconds = |progress: Progress, step, traffic| progress.pause(step, &pauses, traffic).as_secs();
        assert_eq!(seconds(well, Step::Same, true), 1);
        assert_eq!(seconds(well, Step::Pending, true), 2);
        assert_eq!(seconds(out, Step::Changed, true), 3);
        assert_eq!(seconds(out, Step::Pending, true), 4);
        assert_eq!(seconds(out, Step::Same, false), 5);
        assert_eq!(seconds(well, Step::Same, false), 6);
    }
}
