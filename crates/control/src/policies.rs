//! Policies that do not do what they say, told on the objects' statuses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use lateen_base::ObjectRef;
use lateen_translate::Snapshot;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::engine::Published;
use crate::refusals::Refusals;

/// The condition on an object's status.
const CONDITION: &str = "lateen.dev/Effective";
/// Statuses are not written more often than this.
const PAUSE: Duration = Duration::from_millis(200);

/// Keeps the statuses of policies, whenever something is published.
pub(crate) async fn report(mut published: watch::Receiver<Option<Arc<Published>>>, refusals: Refusals) {
    let mut told = BTreeSet::new();
    while published.changed().await.is_ok() {
        tokio::time::sleep(PAUSE).await;
        let Some(now) = published.borrow_and_update().clone() else { continue };
        let conditions = conditions(&now.snapshot, &mut told);
        refusals.set_policies(conditions);
    }
}

/// A condition for each policy without effect, and for each that was without and has one now.
fn conditions(snapshot: &Snapshot, told: &mut BTreeSet<ObjectRef>) -> BTreeMap<ObjectRef, Value> {
    let ineffective: BTreeMap<ObjectRef, String> =
        snapshot.ineffective().into_iter().map(|found| (found.object, found.reason)).collect();
    told.retain(|object| snapshot.view.configs.iter().any(|known| known.reference() == *object));
    told.extend(ineffective.keys().cloned());
    let of = |object: &ObjectRef| {
        let (status, reason, message) = match ineffective.get(object) {
            Some(message) => ("False", "NoEffect", message.as_str()),
            None => ("True", "Effective", ""),
        };
        json!({ "type": CONDITION, "status": status, "reason": reason, "message": message })
    };
    told.iter().map(|object| (object.clone(), of(object))).collect()
}
