//! Jobs run pods until enough of them have succeeded.

use std::sync::Arc;

use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::owner::{self, count, is_active, is_leaving, phase, pods_of};
use super::replica_sets::is_ready;
use crate::api::Change;

/// Why a job that asks for it gets no pods.
pub(crate) const INDEXED: &str =
    "completionMode Indexed is not supported in the local cluster; use NonIndexed";
/// The wait after a pod that failed, doubled with each further one, and its limit; in seconds.
const BACKOFF: (i64, i64) = (10, 360);

/// Pods to make and to delete, finished jobs whose time to live is over, and the jobs' status.
pub(crate) fn reconcile(jobs: &[Arc<Job>], pods: &[Arc<Pod>], now: &Time) -> Vec<Change> {
    let living = jobs.iter().filter(|job| job.metadata.deletion_timestamp.is_none());
    living.filter_map(|job| Some(one(job, job.spec.as_ref()?, pods, now))).flatten().flatten().collect()
}

fn one(job: &Job, spec: &JobSpec, pods: &[Arc<Pod>], now: &Time) -> Vec<Option<Change>> {
    if finished(job) {
        return vec![expire(job, spec, now)];
    }
    let count = Count::of(job, spec, pods);
    let verdict = count.verdict(now);
    let mut changes = Vec::new();
    let running = &count.active;
    match &verdict {
        Verdict::GoOn => {
            changes.extend((0..count.missing(now)).map(|_| create(job, spec)));
            let surplus = running.len().saturating_sub(count.parallelism());
            changes.extend(running.iter().rev().take(surplus).map(|pod| Change::delete(*pod)));
        }
        Verdict::Unsupported => {}
        Verdict::Suspended | Verdict::Complete | Verdict::Failed(..) => {
            changes.extend(running.iter().map(|pod| Change::delete(*pod)));
        }
    }
    changes.push(status(job, &count, &verdict, now));
    changes
}

/// Whether the job has come to its end, one way or the other.
fn finished(job: &Job) -> bool {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|one| matches!(&*one.type_, "Complete" | "Failed") && one.status == "True")
}

fn expire(job: &Job, spec: &JobSpec, now: &Time) -> Option<Change> {
    let limit = i64::from(spec.ttl_seconds_after_finished?);
    let status = job.status.as_ref()?;
    let failed = || status.conditions.iter().flatten().find(|one| one.type_ == "Failed");
    let ended = status.completion_time.clone().or_else(|| failed()?.last_transition_time.clone())?;
    (since(&ended, now) >= limit).then(|| Change::delete(job)).flatten()
}

fn since(then: &Time, now: &Time) -> i64 {
    now.0.as_second() - then.0.as_second()
}

fn create(job: &Job, spec: &JobSpec) -> Option<Change> {
    Change::create(&owner::pod(job, &spec.template))
}

/// What is to be done with a job.
enum Verdict {
    GoOn,
    Suspended,
    Unsupported,
    Complete,
    /// Reason and message.
    Failed(&'static str, &'static str),
}

/// A job's pods, counted.
struct Count<'a> {
    job: &'a Job,
    spec: &'a JobSpec,
    active: Vec<&'a Pod>,
    succeeded: usize,
    failed: Vec<&'a Pod>,
}

impl<'a> Count<'a> {
    fn of(job: &'a Job, spec: &'a JobSpec, pods: &'a [Arc<Pod>]) -> Self {
        let own = pods_of(job, pods);
        let in_phase = |wanted: &'static str| own.iter().copied().filter(move |pod| phase(pod) == wanted);
        Self {
            job,
            spec,
            active: own.iter().copied().filter(|pod| is_active(pod)).collect(),
            succeeded: in_phase("Succeeded").count(),
            failed: in_phase("Failed").collect(),
        }
    }

    fn parallelism(&self) -> usize {
        usize::try_from(self.spec.parallelism.unwrap_or(1)).unwrap_or(0)
    }

    fn verdict(&self, now: &Time) -> Verdict {
        let spec = self.spec;
        if spec.completion_mode.as_deref() == Some("Indexed") {
            return Verdict::Unsupported;
        }
        let enough = match spec.completions {
            Some(wanted) => self.succeeded >= usize::try_from(wanted).unwrap_or(0),
            // A queue of work: one that succeeds says that it is empty.
            None => self.succeeded > 0 && self.active.is_empty(),
        };
        if enough {
            return Verdict::Complete;
        }
        let limit = usize::try_from(spec.backoff_limit.unwrap_or(6)).unwrap_or(0);
        let restarts = self.restarts();
        if self.failed.len() > limit || restarts > 0 && restarts >= limit {
            return Verdict::Failed("BackoffLimitExceeded", "Job has reached the specified backoff limit");
        }
        let started = self.job.status.as_ref().and_then(|status| status.start_time.as_ref());
        if let (Some(limit), Some(started)) = (spec.active_deadline_seconds, started)
            && since(started, now) >= limit
        {
            return Verdict::Failed("DeadlineExceeded", "Job was active longer than specified deadline");
        }
        if spec.suspend == Some(true) { Verdict::Suspended } else { Verdict::GoOn }
    }

    /// Containers that were started again in the pods that run: with policy OnFailure those are the failures.
    fn restarts(&self) -> usize {
        let policy = self.spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
        if policy != Some("OnFailure") {
            return 0;
        }
        let statuses = self.active.iter().filter_map(|pod| pod.status.as_ref()).flat_map(|status| {
            status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten())
        });
        statuses.map(|one| usize::try_from(one.restart_count).unwrap_or(0)).sum()
    }

    /// How many pods are to be made now.
    fn missing(&self, now: &Time) -> usize {
        let wanted = match self.spec.completions {
            Some(wanted) => usize::try_from(wanted).unwrap_or(0).saturating_sub(self.succeeded),
            None if self.succeeded > 0 => 0,
            None => self.parallelism(),
        };
        let missing = wanted.min(self.parallelism()).saturating_sub(self.active.len());
        let patience = self.patience();
        let waits = self.last_failure().is_some_and(|last| since(&last, now) < patience);
        if waits { 0 } else { missing }
    }

    fn patience(&self) -> i64 {
        let doublings = u32::try_from(self.failed.len().saturating_sub(1)).unwrap_or(u32::MAX).min(16);
        BACKOFF.0.saturating_mul(1 << doublings).min(BACKOFF.1)
    }

    fn last_failure(&self) -> Option<Time> {
        let ends = self.failed.iter().filter_map(|pod| pod.status.as_ref()).flat_map(|status| {
            let statuses = status.container_statuses.iter().flatten();
            statuses.filter_map(|one| one.state.as_ref()?.terminated.as_ref()?.finished_at.clone())
        });
        ends.max()
    }
}

fn status(job: &Job, count: &Count<'_>, verdict: &Verdict, now: &Time) -> Option<Change> {
    let former = job.status.clone().unwrap_or_default();
    let ends = matches!(verdict, Verdict::Complete | Verdict::Failed(..));
    let some = |number: usize| (number != 0).then(|| self::count(number));
    let active = || count.active.iter().filter(|_| !ends);
    let suspended = matches!(verdict, Verdict::Suspended);
    let status = JobStatus {
        active: some(active().count()),
        ready: Some(self::count(active().filter(|pod| is_ready(pod) && !is_leaving(pod)).count())),
        succeeded: some(count.succeeded),
        failed: some(count.failed.len()),
        start_time: if suspended { None } else { former.start_time.clone().or_else(|| Some(now.clone())) },
        completion_time: matches!(verdict, Verdict::Complete).then(|| now.clone()),
        conditions: conditions(&former, verdict, now),
        ..former.clone()
    };
    if status == former {
        return None;
    }
    Change::status(&Job { status: Some(status), ..job.clone() })
}

fn conditions(former: &JobStatus, verdict: &Verdict, now: &Time) -> Option<Vec<JobCondition>> {
    let reached = ("CompletionsReached", "Reached expected number of succeeded pods");
    let new: Vec<(&str, &str, &str, &str)> = match verdict {
        Verdict::Complete => vec![
            ("SuccessCriteriaMet", "True", reached.0, reached.1),
            ("Complete", "True", reached.0, reached.1),
        ],
        Verdict::Failed(reason, message) => {
            vec![("FailureTarget", "True", reason, message), ("Failed", "True", reason, message)]
        }
        Verdict::Suspended => vec![("Suspended", "True", "JobSuspended", "Job suspended")],
        Verdict::Unsupported => vec![("Suspended", "True", "NotSupported", INDEXED)],
        Verdict::GoOn if former.conditions.iter().flatten().any(|one| one.type_ == "Suspended") => {
            vec![("Suspended", "False", "JobResumed", "Job resumed")]
        }
        Verdict::GoOn => return former.conditions.clone(),
    };
    let mut all: Vec<JobCondition> = former.conditions.clone().unwrap_or_default();
    for (kind, status, reason, message) in new {
        if all.iter().any(|one| one.type_ == kind && one.status == status) {
            continue;
        }
        all.retain(|one| one.type_ != kind);
        all.push(JobCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_transition_time: Some(now.clone()),
            last_probe_time: Some(now.clone()),
        });
    }
    Some(all)
}

#[cfg(test)]
mod tests;
