//! The operations on objects, as REST and the in-process client share them.

mod create;
mod delete;
mod meta;
mod pages;
mod update;

use std::sync::Arc;

use arc_swap::ArcSwap;
use serde_json::Value;

use crate::access::{Roles, User};
use crate::admission::Webhooks;
use crate::catalog::{CRDS, Catalog};
use crate::defaults::Allocator;
use crate::object::Object;
use crate::providers::Providers;
use crate::rendered::Rendered;
use crate::resource::{Resource, ResourceName};
use crate::selector::Selector;
use crate::status::Status;
use crate::store::{Page, Rejected, Store, Write};
use crate::token::{IssuedToken, TokenRequest, Tokens};
use crate::watch::{Cursor, Watch, WatchStart};

pub(crate) use self::delete::{Deleted, FOREGROUND};
pub(crate) use self::meta::{now, rfc3339, suffix, uuid};

/// Everything a request works on.
pub(crate) struct Api {
    pub(crate) store: Store,
    catalog: ArcSwap<Catalog>,
    pub(crate) tokens: Tokens,
    pub(crate) providers: Providers,
    pub(crate) roles: Roles,
    pub(crate) webhooks: Webhooks,
    /// Objects as watches tell them.
    pub(crate) rendered: Rendered,
    /// None: a controller gives services their addresses.
    pub(crate) allocator: Option<Allocator>,
}

/// Who does what where.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) resource: &'a Arc<Resource>,
    /// Empty for cluster-scoped resources.
    pub(crate) namespace: &'a str,
    pub(crate) user: &'a User,
    pub(crate) subresource: Option<&'a str>,
    pub(crate) options: WriteOptions,
    /// Whom changed fields belong to from now on; none for the cluster's own controllers.
    pub(crate) manager: Option<&'a str>,
}

/// Options of create, update and patch.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct WriteOptions {
    pub(crate) dry_run: bool,
    pub(crate) field_validation: FieldValidation,
}

/// What happens to fields that a kind does not have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// Options of a deletion.
#[derive(Debug, Clone, Default)]
pub struct DeleteOptions {
    /// Seconds a running pod gets to stop; `Some(0)` removes the object at once. `None`: what the pod says.
    pub grace_period_seconds: Option<u64>,
    /// What becomes of the objects that it owns.
    pub propagation: Propagation,
    /// Only when the object has this uid.
    pub uid: Option<String>,
    /// Only when the object has this resource version.
    pub resource_version: Option<String>,
    /// Checks only.
    pub dry_run: bool,
}

/// What becomes of the dependents of a deleted object (`propagationPolicy`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Propagation {
    /// They are collected when it is gone.
    #[default]
    Background,
    /// It goes after those that block its deletion.
    Foreground,
    /// They stay, without it as their owner.
    Orphan,
}

/// A change of part of an object.
#[derive(Debug, Clone)]
pub enum Patch {
    /// RFC 6902.
    Json(Value),
    /// RFC 7386.
    Merge(Value),
    /// Kubernetes' strategic merge patch; built-in kinds only.
    Strategic(Value),
    /// Server-side apply: the whole intent of its field manager.
    Apply {
        /// The intent.
        intent: Value,
        /// Whose it is.
        manager: String,
        /// Takes over fields that others manage.
        force: bool,
    },
}

/// A write that was done (or only tried, with dry run).
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) object: Arc<Object>,
    pub(crate) warnings: Vec<String>,
    /// It was not there before.
    pub(crate) created: bool,
}

impl Api {
    pub(crate) fn new(store: Store, tokens: Tokens, allocator: Option<Allocator>) -> Self {
        let catalog = ArcSwap::from_pointee(Catalog::load(&store));
        Self {
            store,
            catalog,
            tokens,
            providers: Providers::default(),
            roles: Roles::default(),
            webhooks: Webhooks::default(),
            rendered: Rendered::default(),
            allocator,
        }
    }

    /// The resources served, as of the newest committed definition.
    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        let current = self.catalog.load_full();
        if self.store.changed_at(&ResourceName::from(CRDS)) == current.definitions_at {
            return current;
        }
        let renewed = Arc::new(Catalog::load(&self.store));
        self.catalog.store(renewed.clone());
        renewed
    }

    pub(crate) fn get(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Arc<Object>, Status> {
        self.store
            .get(&resource.name, namespace, name)
            .ok_or_else(|| Status::not_found(resource.name.as_str(), name))
    }

    /// All selected objects.
    pub(crate) fn list(&self, resource: &Resource, namespace: Option<&str>, selector: &Selector) -> Page {
        if let (Some(name), Some(namespace)) =
            (selector.required_name(), namespace.or((!resource.namespaced).then_some("")))
        {
            let resource_version = self.store.resource_version();
            let found =
                self.store.get(&resource.name, namespace, name).filter(|o| selector.matches(o, resource));
            let objects: Vec<_> = found.into_iter().collect();
            return Page { total: objects.len(), objects, resource_version, more: false };
        }
        let mut page = self.store.list(&resource.name, namespace);
        if !selector.is_empty() {
            page.objects.retain(|o| selector.matches(o, resource));
        }
        page
    }

    pub(crate) fn watch(
        &self,
        resource: &Arc<Resource>,
        namespace: Option<&str>,
        selector: Selector,
        start: WatchStart,
    ) -> Result<Watch, Status> {
        let cursor = Cursor::new(&self.store, resource, namespace, selector, start)?;
        Ok(Watch::new(cursor, resource.clone()))
    }

    /// The object's JSON in the version of the resource.
    pub(crate) fn value(&self, object: &Object, resource: &Resource) -> Value {
        crate::convert::to_version(object.value(resource), resource)
    }

    pub(crate) fn issue_token(
        &self,
        namespace: &str,
        service_account: &str,
        request: TokenRequest,
    ) -> Result<IssuedToken, Status> {
        crate::token::issue(self, namespace, service_account, request)
    }

    /// Hands the write to the store and words its refusals.
    async fn write(&self, resource: &Resource, name: &str, write: Write) -> Result<Arc<Object>, Status> {
        let resource_name = resource.name.as_str();
        self.store.write(&resource.name, write).await.map_err(|rejected| match rejected {
            Rejected::Exists => Status::already_exists(resource_name, name),
            Rejected::Gone => Status::not_found(resource_name, name),
            Rejected::Modified => Status::modified(resource_name, name),
            Rejected::Failed(why) => Status::internal(why),
        })
    }
}
