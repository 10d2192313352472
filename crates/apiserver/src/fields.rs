//! Whether an object has the fields of its kind: unknown ones are pruned and, as `fieldValidation` asks, reported; values
//! of the wrong type are refused.

mod shape;

use serde_json::Value;

use self::shape::Shapes;
use crate::api::{Call, FieldValidation};
use crate::resource::Resource;
use crate::status::{Cause, Status};

/// Checks and prunes; returns the warnings. `old` is what the object replaces.
pub(crate) fn check(call: &Call<'_>, value: &mut Value, old: Option<&Value>) -> Result<Vec<String>, Status> {
    let resource = call.resource;
    let unknown = match resource.custom() {
        Some(custom) => {
            let unknown = custom.schema.prune(value);
            custom.schema.fill(value);
            let mut causes: Vec<Cause> = custom.schema.causes(value);
            if causes.is_empty() {
                causes = custom.schema.rule_causes(value, old);
            }
            if !causes.is_empty() {
                let name = crate::object::name(value);
                return Err(Status::invalid(&resource.group, &resource.kind, name, causes));
            }
            unknown
        }
        None => built_in(resource, value)?,
    };
    match call.options.field_validation {
        FieldValidation::Strict if !unknown.is_empty() => {
            let listed: Vec<String> =
                unknown.iter().map(|path| format!("unknown field \"{path}\"")).collect();
            Err(Status::bad_request(format!(
                "{}strict decoding error: {}",
                cannot(resource),
                listed.join(", ")
            )))
        }
        FieldValidation::Warn => {
            Ok(unknown.into_iter().map(|path| format!("unknown field \"{path}\"")).collect())
        }
        _ => Ok(Vec::new()),
    }
}

fn cannot(resource: &Resource) -> String {
    let Resource { kind, version, .. } = resource;
    format!("{kind} in version \"{version}\" cannot be handled as a {kind}: ")
}

fn built_in(resource: &Resource, value: &mut Value) -> Result<Vec<String>, Status> {
    // Two groups share the store of events, and a form that is not the stored one is converted before it gets here.
    if resource.kind == "Event" || crate::convert::differs(resource) {
        return Ok(Vec::new());
    }
    let pruned = Shapes::all().prune(resource, value).unwrap_or_else(|| Ok(Vec::new()));
    pruned.map_err(|why| Status::bad_request(format!("{}{why}", cannot(resource))))
}
