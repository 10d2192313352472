//! What is served: named, versioned messages.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lateen_proto::{Any, Message, Name};

/// One resource. Cloning shares everything.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// Its name, unique within its type.
    pub name: Arc<str>,
    /// Its version; a change of version is a change of content.
    pub version: Arc<str>,
    /// The message.
    pub any: Any,
}

impl Resource {
    /// A resource of a typed message.
    pub fn of<M: Message + Name>(name: impl AsRef<str>, version: impl AsRef<str>, message: &M) -> Self {
        Self { name: name.as_ref().into(), version: version.as_ref().into(), any: Any::pack(message) }
    }
}

/// A resource where it lies.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Its name.
    pub name: &'a Arc<str>,
    /// Its version.
    pub version: &'a Arc<str>,
    /// The message.
    pub any: &'a Any,
}

impl Entry<'_> {
    /// A copy that shares the message's bytes.
    pub fn to_resource(self) -> Resource {
        Resource { name: self.name.clone(), version: self.version.clone(), any: self.any.clone() }
    }
}

impl<'a> From<&'a Resource> for Entry<'a> {
    fn from(resource: &'a Resource) -> Self {
        Self { name: &resource.name, version: &resource.version, any: &resource.any }
    }
}

/// Everything that one client may see, at one moment.
pub trait Catalog: Send + Sync {
    /// Changes whenever any resource of the type may have changed; equal stamps let a session skip the type.
    fn stamp(&self, type_url: &str) -> u64;

    /// The names that are new, changed or gone since the catalog of that stamp, where that is known without looking at all.
    fn since(&self, _type_url: &str, _stamp: u64) -> Option<&[Arc<str>]> {
        None
    }

    /// Every resource that a wildcard subscription covers.
    fn all<'a>(&'a self, type_url: &str) -> Box<dyn Iterator<Item = Entry<'a>> + 'a>;

    /// The resource of that name, also one that only a subscription by name reaches.
    fn find(&self, type_url: &str, name: &str) -> Option<Resource>;

    /// Whether [`Self::find`] would find it.
    fn contains(&self, type_url: &str, name: &str) -> bool {
        self.find(type_url, name).is_some()
    }

    /// Whether [`Self::all`] has a resource of that name: others are for those who ask for them by name.
    fn covers(&self, type_url: &str, name: &str) -> bool {
        self.all(type_url).any(|entry| **entry.name == *name)
    }

    /// Whether a resource of that name is on its way: a subscription to it is answered when it is there, not
    /// with "it does not exist".
    fn is_pending(&self, _type_url: &str, _name: &str) -> bool {
        false
    }
}

/// A catalog that is a plain map, for tests, agents and small servers.
#[derive(Clone, Debug, Default)]
pub struct ResourceMap {
    types: BTreeMap<String, BTreeMap<Arc<str>, Resource>>,
    /// Resources, by type, that only a subscription by name reaches.
    on_demand: BTreeMap<String, BTreeSet<Arc<str>>>,
    stamp: u64,
}

impl ResourceMap {
    /// Puts a resource, in place of one of the same name.
    pub fn insert(&mut self, type_url: &str, resource: Resource) {
        self.stamp += 1;
        if let Some(names) = self.on_demand.get_mut(type_url) {
            names.remove(&resource.name);
        }
        self.types.entry(type_url.to_owned()).or_default().insert(resource.name.clone(), resource);
    }

    /// The same for a resource that only those get who ask for it by name.
    pub fn insert_on_demand(&mut self, type_url: &str, resource: Resource) {
        let name = resource.name.clone();
        self.insert(type_url, resource);
        self.on_demand.entry(type_url.to_owned()).or_default().insert(name);
    }

    /// Takes a resource away.
    pub fn remove(&mut self, type_url: &str, name: &str) {
        self.stamp += 1;
        if let Some(resources) = self.types.get_mut(type_url) {
            resources.remove(name);
        }
    }
}

impl Catalog for ResourceMap {
    fn stamp(&self, _: &str) -> u64 {
        self.stamp
    }

    fn all<'a>(&'a self, type_url: &str) -> Box<dyn Iterator<Item = Entry<'a>> + 'a> {
        let on_demand = self.on_demand.get(type_url);
        let covered = move |r: &&Resource| on_demand.is_none_or(|names| !names.contains(&r.name));
        Box::new(
            self.types.get(type_url).into_iter().flat_map(BTreeMap::values).filter(covered).map(Entry::from),
        )
    }

    fn find(&self, type_url: &str, name: &str) -> Option<Resource> {
        self.types.get(type_url)?.get(name).cloned()
    }

    fn contains(&self, type_url: &str, name: &str) -> bool {
        self.types.get(type_url).is_some_and(|resources| resources.contains_key(name))
    }

    fn covers(&self, type_url: &str, name: &str) -> bool {
        self.contains(type_url, name)
            && self.on_demand.get(type_url).is_none_or(|names| !names.contains(name))
    }
}

/// Why a client refused a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The resource; empty when the client named none.
    pub resource: Arc<str>,
    /// What the client said.
    pub reason: String,
}

/// The member of `error_detail.details` that names a refused resource.
pub(crate) fn encode_rejections(rejections: &[Rejection]) -> lateen_proto::google::rpc::Status {
    use lateen_proto::envoy::service::discovery::v3::{ResourceError, ResourceName};
    const INVALID_ARGUMENT: i32 = 3;
    let status = |message: &str| lateen_proto::google::rpc::Status {
        code: INVALID_ARGUMENT,
        message: message.to_owned(),
        details: vec![],
    };
    let text: Vec<String> = rejections
        .iter()
        .map(|r| match r.resource.is_empty() {
            true => r.reason.clone(),
            false => format!("{}: {}", r.resource, r.reason),
        })
        .collect();
    let details = rejections.iter().filter(|r| !r.resource.is_empty()).map(|rejection| {
        Any::pack(&ResourceError {
            resource_name: Some(ResourceName { name: rejection.resource.to_string(), ..Default::default() }),
            error_detail: Some(status(&rejection.reason)),
        })
    });
    lateen_proto::google::rpc::Status { details: details.collect(), ..status(&text.join("\n")) }
}

/// The refused resources of a NACK. Stock Envoy names them in its message only, so names that were part of the
/// push are looked for there.
pub(crate) fn decode_rejections(
    status: &lateen_proto::google::rpc::Status,
    pushed: &[Arc<str>],
) -> Vec<Rejection> {
    use lateen_proto::envoy::service::discovery::v3::ResourceError;
    let detailed: Vec<Rejection> = status
        .details
        .iter()
        .filter_map(|any| any.unpack::<ResourceError>().ok())
        .map(|error| Rejection {
            resource: error.resource_name.map(|n| n.name).unwrap_or_default().into(),
            reason: error.error_detail.map(|s| s.message).unwrap_or_default(),
        })
        .collect();
    if !detailed.is_empty() {
        return detailed;
    }
    let named: Vec<Rejection> = pushed
        .iter()
        .filter(|name| mentions(&status.message, name))
        .map(|name| Rejection { resource: name.clone(), reason: status.message.clone() })
        .collect();
    match named.is_empty() {
        true => vec![Rejection { resource: "".into(), reason: status.message.clone() }],
        false => named,
    }
}

/// Whether a text names a resource, not merely a longer name that contains it.
fn mentions(text: &str, name: &str) -> bool {
    !name.is_empty()
        && text.match_indices(name).any(|(at, _)| {
            let edge = |c: Option<char>| c.is_none_or(|c| !(c.is_alphanumeric() || "_|-.".contains(c)));
            edge(text[..at].chars().next_back()) && edge(text[at + name.len()..].chars().next())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejections_survive_the_wire() {
        let rejections = vec![
            Rejection { resource: "a".into(), reason: "field x: bad".into() },
            Rejection { resource: "b".into(), reason: "field y: bad".into() },
        ];
        let status = encode_rejections(&rejections);
        assert_eq!(status.message, "a: field x: bad\nb: field y: bad");
        assert_eq!(decode_rejections(&status, &[]), rejections);
    }

    #[test]
    fn envoys_message_is_searched_for_pushed_names() {
        let status = lateen_proto::google::rpc::Status {
            code: 13,
            message: "Error adding/updating listener(s) 0.0.0.0_80: no filter chains".into(),
            details: vec![],
        };
        let pushed: Vec<Arc<str>> = vec!["0.0.0.0_8".into(), "0.0.0.0_80".into(), "0.0.0.0_8080".into()];
        let found = decode_rejections(&status, &pushed);
        assert_eq!(found.len(), 1);
        assert_eq!(&*found[0].resource, "0.0.0.0_80");
        assert_eq!(&*decode_rejections(&status, &[])[0].resource, "");
    }
}
