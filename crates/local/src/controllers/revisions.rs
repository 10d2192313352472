//! ControllerRevisions: the templates that a StatefulSet or a DaemonSet has had; `kubectl rollout undo` goes back to one.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::{Value, json};

use super::owner::{controller, controls};
use super::template_hash::{fnv, name_part};
use crate::api::{Change, Kind, name_of};

/// The label by which a pod says of which revision it is.
pub(super) const HASH: &str = "controller-revision-hash";

/// The revisions of one object.
pub(super) struct Revisions<'a> {
    own: Vec<&'a ControllerRevision>,
    /// Name of the revision of the object's present template.
    pub(super) update: String,
    /// What makes it the newest one.
    pub(super) changes: Vec<Option<Change>>,
}

impl<'a> Revisions<'a> {
    /// The revisions of `owner`, whose template is `template` now.
    pub(super) fn of<T: Kind>(
        owner: &T,
        template: &PodTemplateSpec,
        all: &'a [Arc<ControllerRevision>],
    ) -> Option<Self> {
        let meta = owner.metadata();
        let own: Vec<&ControllerRevision> =
            all.iter().map(AsRef::as_ref).filter(|one| controls(meta.uid.as_ref(), &one.metadata)).collect();
        let data = data(template)?;
        let highest = own.iter().map(|one| one.revision).max().unwrap_or(0);
        let known = own.iter().find(|one| one.data.as_ref().is_some_and(|known| known.0 == data));
        let (update, change) = match known {
            Some(known) if known.revision == highest => (name_of(&known.metadata).to_owned(), None),
            Some(known) => {
                let mut next = (*known).clone();
                next.revision = highest + 1;
                (name_of(&known.metadata).to_owned(), Change::replace(&next))
            }
            None => {
                let made = new(owner, template, data, highest + 1);
                (name_of(&made.metadata).to_owned(), Change::create(&made))
            }
        };
        Some(Self { own, update, changes: vec![change] })
    }

    /// The template of a revision that is kept.
    pub(super) fn template(&self, name: &str) -> Option<PodTemplateSpec> {
        let found = self.own.iter().find(|one| name_of(&one.metadata) == name)?;
        serde_json::from_value(found.data.as_ref()?.0["spec"]["template"].clone()).ok()
    }

    /// The value of a pod's label for a revision of this name.
    pub(super) fn hash(name: &str) -> &str {
        name.rsplit('-').next().unwrap_or(name)
    }

    /// Revisions beyond the history limit that no pod is of, and that are neither the present nor the former one.
    pub(super) fn clean_up(&self, pods: &[&Pod], former: &str, limit: Option<i32>) -> Vec<Option<Change>> {
        let keep = usize::try_from(limit.unwrap_or(10)).unwrap_or(0);
        let mut idle: Vec<&ControllerRevision> = self
            .own
            .iter()
            .copied()
            .filter(|one| {
                let name = name_of(&one.metadata);
                name != self.update && name != former && !pods.iter().any(|pod| is_of(pod, name))
            })
            .collect();
        idle.sort_by_key(|one| std::cmp::Reverse(one.revision));
        idle.into_iter().skip(keep).map(Change::delete).collect()
    }
}

/// Whether the pod was made by this revision. (A StatefulSet's pods name the revision, a DaemonSet's only its hash.)
pub(super) fn is_of(pod: &Pod, revision: &str) -> bool {
    let label = pod.metadata.labels.as_ref().and_then(|labels| labels.get(HASH));
    label.is_some_and(|label| label == revision || label == Revisions::hash(revision))
}

/// The patch that brings a template back, as kubectl reads it.
fn data(template: &PodTemplateSpec) -> Option<Value> {
    let mut template = serde_json::to_value(template).ok()?;
    template["$patch"] = json!("replace");
    Some(json!({"spec": {"template": template}}))
}

fn new<T: Kind>(owner: &T, template: &PodTemplateSpec, data: Value, revision: i64) -> ControllerRevision {
    let meta = owner.metadata();
    let hash = name_part(fnv(data.to_string().as_bytes()));
    let mut labels: BTreeMap<String, String> =
        template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
    labels.insert("controller.kubernetes.io/hash".to_owned(), hash.clone());
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", name_of(meta))),
            namespace: meta.namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![controller(owner)]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(data)),
        revision,
    }
}
