//! Creation.

use serde_json::{Value, json};

use super::meta::{self, suffix, uuid};
use super::{Api, Call, Done, now};
use crate::object::{self, Draft};
use crate::status::Status;
use crate::store::Write;
use crate::{admission, defaults, fields, managed, validate};

impl Api {
    pub(crate) async fn create(&self, call: Call<'_>, mut value: Value) -> Result<Done, Status> {
        // What is no object at all is refused below.
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.shift_remove("managedFields");
        }
        self.create_managed(call, value, false).await
    }

    /// As [`Api::create`]; with `applied` the object says already who manages it.
    pub(super) async fn create_managed(
        &self,
        call: Call<'_>,
        mut value: Value,
        applied: bool,
    ) -> Result<Done, Status> {
        let resource = call.resource;
        value = crate::convert::to_stored(value, resource);
        meta::check_type(&call, &mut value)?;
        meta::check_namespace(&call, &mut value)?;
        self.check_place(&call)?;
        if !object::metadata(&value)["resourceVersion"].as_str().unwrap_or_default().is_empty() {
            return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
        }
        let generate = object::metadata(&value)["generateName"].as_str().map(str::to_owned);
        let generated = object::name(&value).is_empty();
        if let (true, Some(prefix)) = (generated, &generate) {
            object::metadata_mut(&mut value).insert("name".into(), json!(format!("{prefix}{}", suffix())));
        }
        fill_metadata(&call, &mut value);
        let mut warnings = fields::check(&call, &mut value, None)?;
        reset_status(&call, &mut value);
        let said = generate.as_deref().filter(|_| generated).unwrap_or(object::name(&value)).to_owned();
        admission::service_account::admit(self, &call, &value, &said).await?;
        admission::service_account::mount(self, &call, &mut value);
        defaults::apply(resource, &mut value, None);
        let name = object::name(&value).to_owned();
        let request = admission::Request {
            call: &call,
            operation: admission::Operation::Create,
            name: &name,
            object: &value,
            old: &Value::Null,
        };
        if let Some(changed) = admission::mutate(self, request, &mut warnings).await? {
            value = changed;
            warnings.extend(fields::check(&call, &mut value, None)?);
            admission::service_account::admit(self, &call, &value, &said).await?;
            admission::service_account::mount(self, &call, &mut value);
            defaults::apply(resource, &mut value, None);
        }
        let mut causes = meta::causes(resource, &value);
        causes.extend(validate::causes(resource, &value, None));
        if !causes.is_empty() {
            return Err(Status::invalid(&resource.group, &resource.kind, object::name(&value), causes));
        }
        warnings.extend(resource.custom().and_then(|c| c.deprecation.clone()));
        let request = admission::Request {
            call: &call,
            operation: admission::Operation::Create,
            name: &name,
            object: &value,
            old: &Value::Null,
        };
        admission::validate(self, request, &mut warnings).await?;
        defaults::allocate(self, resource, &mut value)?;
        if !applied {
            managed::track(&call, &Value::Null, &mut value);
        }
        if call.options.dry_run {
            return self.try_create(&call, value, warnings);
        }
        loop {
            let name = object::name(&value).to_owned();
            match self.write(resource, &name, Write::Create(Draft::new(value.clone()))).await {
                Ok(object) => return Ok(Done { object, warnings, created: true }),
                Err(status) if status.is_already_exists() && generated && generate.is_some() => {
                    let name = format!("{}{}", generate.as_deref().unwrap_or_default(), suffix());
                    object::metadata_mut(&mut value).insert("name".into(), json!(name));
                }
                Err(status) => return Err(status),
            }
        }
    }

    fn try_create(&self, call: &Call<'_>, value: Value, warnings: Vec<String>) -> Result<Done, Status> {
        let name = object::name(&value).to_owned();
        if self.store.get(&call.resource.name, call.namespace, &name).is_some() {
            return Err(Status::already_exists(call.resource.name.as_str(), &name));
        }
        let object = Draft::new(value).at(self.store.resource_version());
        Ok(Done { object, warnings, created: true })
    }

    /// The namespace has to exist and to stay.
    fn check_place(&self, call: &Call<'_>) -> Result<(), Status> {
        if !call.resource.namespaced {
            return Ok(());
        }
        let namespace = self.store.get(&"namespaces".into(), "", call.namespace);
        let namespace = namespace.ok_or_else(|| Status::not_found("namespaces", call.namespace))?;
        let ending =
            namespace.neutral().is_some_and(|n| object::metadata(&n)["deletionTimestamp"].is_string());
        if ending {
            let why = format!(
                "unable to create new content in namespace {} because it is being terminated",
                call.namespace
            );
            return Err(Status::forbidden(call.resource.name.as_str(), "", &why));
        }
        Ok(())
    }
}

fn fill_metadata(call: &Call<'_>, value: &mut Value) {
    let metadata = object::metadata_mut(value);
    for server_owned in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"] {
        metadata.remove(server_owned);
    }
    metadata.insert("uid".into(), json!(uuid()));
    metadata.insert("creationTimestamp".into(), json!(now()));
    if call.resource.generation {
        metadata.insert("generation".into(), json!(1));
    }
    metadata.retain(|_, v| !v.is_null());
}

/// The status belongs to controllers; nodes register with theirs.
fn reset_status(call: &Call<'_>, value: &mut Value) {
    if call.resource.status
        && !call.resource.is("nodes")
        && let Some(object) = value.as_object_mut()
    {
        object.shift_remove("status");
    }
}
