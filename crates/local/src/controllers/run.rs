//! Running the controllers: on every change, until nothing is left to do.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::autoscalers::Targets;
use super::{
    autoscalers, daemon_sets, deployments, disruption_budgets, endpoints, jobs, namespaces, replica_sets,
    schedule, services, stateful_sets, told,
};
use crate::addresses::ClusterNumber;
use crate::api::{Api, ApiError, Change};
use crate::instant;
use crate::net::directory::Directory;
use crate::node::events::Events;
use crate::outside::Names;

/// Changes that come together are handled together.
const GATHER: Duration = Duration::from_millis(2);
/// The wait after a refused change; doubled with every further one.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// How often jobs are looked at although nothing has changed: they have deadlines, and a time to live.
const TICK: Duration = Duration::from_secs(1);

/// What the controllers need.
#[derive(Clone)]
pub(crate) struct Controllers {
    pub(crate) api: Api,
    pub(crate) events: Events,
    pub(crate) cluster: ClusterNumber,
    /// The certificate that signed the API server's, in PEM.
    pub(crate) root: Arc<str>,
    /// Where the directory of services is published.
    pub(crate) directory: watch::Sender<Arc<Directory>>,
    /// The names of the outside, for the directory.
    pub(crate) outside: Names,
}

impl Controllers {
    /// Starts all of them; they end with the set.
    pub(crate) fn start(self) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        let this = Arc::new(self);
        macro_rules! start {
            ($($name:literal: $decide:ident, $tick:expr;)*) => {$(
                let own = this.clone();
                tasks.spawn(this.clone().drive($name, $tick, move || own.clone().$decide()));
            )*};
        }
        start! {
            "namespaces": namespaces, Duration::MAX;
            "deployments": deployments, Duration::MAX;
            "replica sets": replica_sets, Duration::MAX;
            "stateful sets": stateful_sets, Duration::MAX;
            "daemon sets": daemon_sets, Duration::MAX;
            "jobs": jobs, TICK;
            "autoscalers": autoscalers, Duration::MAX;
            "disruption budgets": disruption_budgets, Duration::MAX;
            "scheduler": schedule, Duration::MAX;
            "services": services, Duration::MAX;
            "endpoints": endpoints, Duration::MAX;
        }
        tasks
    }

    async fn drive<F, Fut>(self: Arc<Self>, name: &'static str, tick: Duration, decide: F)
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Vec<Change>>,
    {
        let mut changes = self.api.changes();
        let mut failures = 0_u32;
        loop {
            changes.borrow_and_update();
            let decided = decide().await;
            let done = join_all(decided.iter().map(|change| self.carry_out(change))).await;
            let mut failed = false;
            for (change, outcome) in decided.iter().zip(done) {
                if let Err(error) = outcome {
                    failed = true;
                    self.refused(name, change, &error).await;
                }
            }
            failures = if failed { failures + 1 } else { 0 };
            let retry = match failures {
                0 => tick,
                n => RETRY.0.saturating_mul(1 << n.min(8)).min(RETRY.1),
            };
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = wait(retry) => {}
            }
            // A refused write is not tried again at every change, or two refusals would chase each other.
            tokio::time::sleep(if failed { RETRY.0 } else { GATHER }).await;
        }
    }

    async fn carry_out(&self, change: &Change) -> Result<(), ApiError> {
        let before = told::before(&self.api, change).await;
        let made = self.api.carry_out(change.clone()).await?;
        told::tell(&self.api, &self.events, change, made.as_ref(), before).await;
        Ok(())
    }

    async fn refused(&self, controller: &str, change: &Change, error: &ApiError) {
        tracing::warn!(controller, %error, "a write was refused; it will be tried again");
        let Change::Create(collection, object) = change else { return };
        if collection.resource != "pods" {
            return;
        }
        told::refused(&self.api, &self.events, object, error).await;
    }

    async fn namespaces(self: Arc<Self>) -> Vec<Change> {
        let api = &self.api;
        let (all, maps) = (api.list::<Namespace>().await, api.list::<ConfigMap>().await);
        namespaces::reconcile(&all, &maps, &self.root)
    }

    async fn deployments(self: Arc<Self>) -> Vec<Change> {
        let sets = self.api.list::<ReplicaSet>().await;
        deployments::reconcile(&self.api.list::<Deployment>().await, &sets, &instant::time())
    }

    async fn replica_sets(self: Arc<Self>) -> Vec<Change> {
        let pods = self.api.list::<Pod>().await;
        replica_sets::reconcile(&self.api.list::<ReplicaSet>().await, &pods)
    }

    async fn stateful_sets(self: Arc<Self>) -> Vec<Change> {
        let (sets, pods) = (self.api.list::<StatefulSet>().await, self.api.list::<Pod>().await);
        stateful_sets::reconcile(&sets, &pods, &self.api.list::<ControllerRevision>().await)
    }

    async fn daemon_sets(self: Arc<Self>) -> Vec<Change> {
        let (sets, pods) = (self.api.list::<DaemonSet>().await, self.api.list::<Pod>().await);
        let nodes = self.api.list::<Node>().await;
        daemon_sets::reconcile(&sets, &pods, &nodes, &self.api.list::<ControllerRevision>().await)
    }

    async fn jobs(self: Arc<Self>) -> Vec<Change> {
        let jobs = self.api.list::<Job>().await;
        jobs::reconcile(&jobs, &self.api.list::<Pod>().await, &instant::time())
    }

    async fn targets(&self) -> Targets {
        Targets {
            deployments: self.api.list().await,
            replica_sets: self.api.list().await,
            stateful_sets: self.api.list().await,
        }
    }

    async fn autoscalers(self: Arc<Self>) -> Vec<Change> {
        let all = self.api.list::<HorizontalPodAutoscaler>().await;
        autoscalers::reconcile(&all, &self.targets().await, &instant::time())
    }

    async fn disruption_budgets(self: Arc<Self>) -> Vec<Change> {
        let all = self.api.list::<PodDisruptionBudget>().await;
        let pods = self.api.list::<Pod>().await;
        disruption_budgets::reconcile(&all, &pods, &self.targets().await, &instant::time())
    }

    async fn schedule(self: Arc<Self>) -> Vec<Change> {
        let pods = self.api.list::<Pod>().await;
        schedule::reconcile(&pods, &self.api.list::<Node>().await, &instant::time())
    }

    async fn services(self: Arc<Self>) -> Vec<Change> {
        services::reconcile(self.cluster, &self.api.list::<Service>().await)
    }

    async fn endpoints(self: Arc<Self>) -> Vec<Change> {
        let services = self.api.list::<Service>().await;
        let slices = self.api.list::<EndpointSlice>().await;
        let directory = Directory::new(&services, &slices).with_outside(self.outside.clone());
        self.directory.send_replace(Arc::new(directory));
        let (pods, old) = (self.api.list::<Pod>().await, self.api.list::<Endpoints>().await);
        endpoints::reconcile(&services, &pods, &slices, &old)
    }
}

async fn wait(time: Duration) {
    if time == Duration::MAX { std::future::pending().await } else { tokio::time::sleep(time).await }
}
