//! What the server does by itself: namespaces get their account `default`, ending ones are emptied, dependents of deleted owners are collected, old events go.
//! In Kubernetes these are parts of the controller manager that no user ever sees.

mod accounts;
mod dependents;
mod namespaces;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::access::User;
use crate::api::{Api, Call, DeleteOptions, WriteOptions};
use crate::object::{self, Object};
use crate::resource::Resource;
use crate::status::Status;

/// Events live an hour, as in Kubernetes.
const EVENT_LIFE: time::Duration = time::Duration::hours(1);
/// Retries of what did not work, and the age of events.
const SLOW: Duration = Duration::from_secs(60);
/// Changes that come together are looked at together.
const GATHER: Duration = Duration::from_millis(20);

/// Runs until the server stops.
pub(crate) async fn run(api: Arc<Api>, mut stopped: watch::Receiver<bool>) {
    let mut changed = api.store.removals();
    let user = User::master("system:serviceaccount:kube-system:housekeeping");
    let keeper = Housekeeper { api: &api, user: &user };
    let mut next_events = Instant::now();
    loop {
        changed.mark_unchanged();
        let again = keeper.pass().await;
        if Instant::now() >= next_events {
            keeper.forget_events().await;
            next_events = Instant::now() + SLOW;
        }
        tokio::select! {
            () = crate::server::until(&mut stopped) => return,
            done = changed.changed() => if done.is_err() { return },
            () = tokio::time::sleep(if again { GATHER * 10 } else { SLOW }) => {}
        }
        tokio::select! {
            () = crate::server::until(&mut stopped) => return,
            () = tokio::time::sleep(GATHER) => {}
        }
    }
}

struct Housekeeper<'a> {
    api: &'a Api,
    user: &'a User,
}

impl Housekeeper<'_> {
    /// One look at everything that may have to come or go; true when something is left to do soon.
    async fn pass(&self) -> bool {
        let left = self.give_accounts().await | self.end_namespaces().await;
        left | self.collect_dependents().await
    }

    async fn forget_events(&self) {
        let Some(resource) = self.api.catalog().by_name(&"events".into(), None) else { return };
        let oldest = crate::api::rfc3339(time::OffsetDateTime::now_utc() - EVENT_LIFE);
        for event in self.api.store.list(&resource.name, None).objects {
            let value = event.neutral().unwrap_or_default();
            let at =
                value["lastTimestamp"].as_str().or(object::metadata(&value)["creationTimestamp"].as_str());
            if at.is_some_and(|at| at < oldest.as_str())
                && let Err(status) = self.delete(&resource, &event, DeleteOptions::default()).await
            {
                tracing::debug!(%status, "an old event stays until the next pass");
            }
        }
    }

    /// True when the object is gone, false when it is marked.
    async fn delete(
        &self,
        resource: &Arc<Resource>,
        object: &Object,
        options: DeleteOptions,
    ) -> Result<bool, Status> {
        match self.api.delete(self.call(resource, &object.namespace), &object.name, options).await {
            Ok(crate::api::Deleted::Gone(_)) => Ok(true),
            Ok(crate::api::Deleted::Marked(_)) => Ok(false),
            Err(status) if status.is_not_found() => Ok(true),
            Err(status) => Err(status),
        }
    }

    fn call<'a>(&'a self, resource: &'a Arc<Resource>, namespace: &'a str) -> Call<'a> {
        Call {
            resource,
            namespace,
            user: self.user,
            subresource: None,
            options: WriteOptions::default(),
            manager: None,
        }
    }
}
