//! Patches.

mod strategic;
mod table;

use serde_json::Value;

pub(crate) use self::table::{List, rule};

use crate::api::Patch;
use crate::resource::Resource;
use crate::status::Status;

/// The object after the patch.
pub(crate) fn apply(resource: &Resource, object: &Value, patch: &Patch) -> Result<Value, Status> {
    let mut patched = object.clone();
    match patch {
        Patch::Json(operations) => {
            let operations: json_patch::Patch = serde_json::from_value(operations.clone())
                .map_err(|e| Status::bad_request(format!("the body is not a JSON patch (RFC 6902): {e}")))?;
            json_patch::patch(&mut patched, &operations).map_err(|e| {
                Status::new(
                    422,
                    "Invalid",
                    format!("the server rejected our request due to an error in our request: {e}"),
                )
            })?;
        }
        Patch::Merge(change) => json_patch::merge(&mut patched, change),
        Patch::Strategic(change) => patched = strategic::merge(&resource.kind, object, change)?,
        Patch::Apply { .. } => return Err(Status::not_supported("server-side apply to this subresource")),
    }
    if patched.is_object() {
        Ok(patched)
    } else {
        Err(Status::bad_request("the patch does not leave an object"))
    }
}
