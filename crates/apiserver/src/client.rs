//! The API for controllers in the same process: the semantics of REST without HTTP.

use std::sync::Arc;

use serde_json::Value;

use crate::access::User;
use crate::api::{Api, Call, DeleteOptions, Patch, WriteOptions};
use crate::resource::{Resource, ResourceName};
use crate::selector::Selector;
use crate::status::Status;
use crate::watch::{Watch, WatchStart};

/// Client of the server in the same process. Cheap to clone.
///
/// Resources are named as `kubectl` does, `"pods"` or `"deployments.apps"`; the newest served version is used, or the
/// one that an object names in `apiVersion`. A cluster-scoped resource, or a list over all namespaces, has `None` as namespace.
#[derive(Clone)]
pub struct Client {
    api: Arc<Api>,
    user: Arc<User>,
}

/// Which objects to list or watch.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Namespace; `None` for all, and for cluster-scoped resources.
    pub namespace: Option<String>,
    /// Label selector in kubectl's notation, e.g. `app=reviews,version in (v1,v2)`; empty for all.
    pub labels: String,
    /// Field selector, e.g. `spec.nodeName=node1`; empty for all.
    pub fields: String,
}

/// Objects and the state they were read from.
#[derive(Debug, Clone)]
pub struct List {
    /// The objects, by namespace and name.
    pub items: Vec<Value>,
    /// From where a watch continues.
    pub resource_version: u64,
}

impl Selection {
    /// All objects of one namespace.
    pub fn namespace(namespace: impl Into<String>) -> Self {
        Self { namespace: Some(namespace.into()), ..Self::default() }
    }

    /// Narrowed by labels.
    pub fn labels(mut self, selector: impl Into<String>) -> Self {
        self.labels = selector.into();
        self
    }

    /// Narrowed by fields.
    pub fn fields(mut self, selector: impl Into<String>) -> Self {
        self.fields = selector.into();
        self
    }

    fn selector(&self) -> Result<Selector, Status> {
        Selector::parse(&self.labels, &self.fields)
    }
}

impl Client {
    pub(crate) fn new(api: Arc<Api>, user: Arc<User>) -> Self {
        Self { api, user }
    }

    /// One object.
    pub async fn get(
        &self,
        resource: impl Into<ResourceName>,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Value, Status> {
        let resource = self.resource(resource, None)?;
        let object = self.api.get(&resource, namespace.unwrap_or_default(), name)?;
        Ok(self.api.value(&object, &resource))
    }

    /// Objects.
    pub async fn list(
        &self,
        resource: impl Into<ResourceName>,
        selection: &Selection,
    ) -> Result<List, Status> {
        let resource = self.resource(resource, None)?;
        let selector = selection.selector()?;
        let page = self.api.list(&resource, selection.namespace.as_deref(), &selector);
        let items = page.objects.iter().map(|o| self.api.value(o, &resource)).collect();
        Ok(List { items, resource_version: page.resource_version })
    }

    /// The objects there are, then every change, for as long as the stream is read. It never ends by itself; when it fell
    /// behind too far it starts over by itself with [`WatchEvent::Restarted`](crate::WatchEvent::Restarted).
    pub async fn watch(
        &self,
        resource: impl Into<ResourceName>,
        selection: &Selection,
    ) -> Result<Watch, Status> {
        let resource = self.resource(resource, None)?;
        self.api.watch(&resource, selection.namespace.as_deref(), selection.selector()?, WatchStart::State)
    }

    /// As [`Client::watch`], but only what changes after `resource_version`.
    pub async fn watch_after(
        &self,
        resource: impl Into<ResourceName>,
        selection: &Selection,
        resource_version: u64,
    ) -> Result<Watch, Status> {
        let resource = self.resource(resource, None)?;
        let start = WatchStart::After(resource_version);
        self.api.watch(&resource, selection.namespace.as_deref(), selection.selector()?, start)
    }

    /// Creates the object in the namespace of its metadata.
    pub async fn create(&self, resource: impl Into<ResourceName>, object: Value) -> Result<Value, Status> {
        let resource = self.resource(resource, Some(&object))?;
        let namespace = crate::object::namespace(&object).to_owned();
        let done = self.api.create(self.call(&resource, &namespace), object).await?;
        Ok(self.api.value(&done.object, &resource))
    }

    /// Replaces the object; its `metadata.resourceVersion`, when given, has to be the current one.
    pub async fn update(&self, resource: impl Into<ResourceName>, object: Value) -> Result<Value, Status> {
        self.replace(resource.into(), object, None).await
    }

    /// Replaces the object's status only.
    pub async fn update_status(
        &self,
        resource: impl Into<ResourceName>,
        object: Value,
    ) -> Result<Value, Status> {
        self.replace(resource.into(), object, Some("status")).await
    }

    /// Patches the object.
    pub async fn patch(
        &self,
        resource: impl Into<ResourceName>,
        namespace: Option<&str>,
        name: &str,
        patch: Patch,
    ) -> Result<Value, Status> {
        self.patch_part(resource.into(), namespace, name, patch, None).await
    }

    /// Patches the object's status only.
    pub async fn patch_status(
        &self,
        resource: impl Into<ResourceName>,
        namespace: Option<&str>,
        name: &str,
        patch: Patch,
    ) -> Result<Value, Status> {
        self.patch_part(resource.into(), namespace, name, patch, Some("status")).await
    }

    /// Deletes the object. A pod that runs on a node, and whatever has finalizers, is only marked; see [`DeleteOptions`].
    pub async fn delete(
        &self,
        resource: impl Into<ResourceName>,
        namespace: Option<&str>,
        name: &str,
        options: DeleteOptions,
    ) -> Result<(), Status> {
        let resource = self.resource(resource, None)?;
        self.api.delete(self.call(&resource, namespace.unwrap_or_default()), name, options).await.map(drop)
    }

    /// A signed token for a service account (TokenRequest).
    pub async fn service_account_token(
        &self,
        namespace: &str,
        service_account: &str,
        request: crate::token::TokenRequest,
    ) -> Result<crate::token::IssuedToken, Status> {
        self.api.issue_token(namespace, service_account, request)
    }

    async fn replace(&self, name: ResourceName, object: Value, part: Option<&str>) -> Result<Value, Status> {
        let resource = self.resource(name, Some(&object))?;
        let namespace = crate::object::namespace(&object).to_owned();
        let name = crate::object::name(&object).to_owned();
        let call = Call { subresource: part, ..self.call(&resource, &namespace) };
        let done = self.api.update(call, &name, object).await?;
        Ok(self.api.value(&done.object, &resource))
    }

    async fn patch_part(
        &self,
        resource: ResourceName,
        namespace: Option<&str>,
        name: &str,
        patch: Patch,
        part: Option<&str>,
    ) -> Result<Value, Status> {
        let resource = self.resource(resource, None)?;
        let call = Call { subresource: part, ..self.call(&resource, namespace.unwrap_or_default()) };
        let done = self.api.patch(call, name, &patch).await?;
        Ok(self.api.value(&done.object, &resource))
    }

    /// The row of a resource, in the version that `object` names.
    fn resource(
        &self,
        name: impl Into<ResourceName>,
        object: Option<&Value>,
    ) -> Result<Arc<Resource>, Status> {
        let name = name.into();
        let catalog = self.api.catalog();
        let version =
            object.and_then(|o| o["apiVersion"].as_str()).map(|v| v.rsplit('/').next().unwrap_or(v));
        catalog.by_name(&name, version).ok_or_else(Status::no_such_path)
    }

    fn call<'a>(&'a self, resource: &'a Arc<Resource>, namespace: &'a str) -> Call<'a> {
        Call {
            resource,
            namespace,
            user: &self.user,
            subresource: None,
            options: WriteOptions::default(),
            manager: None,
        }
    }
}
