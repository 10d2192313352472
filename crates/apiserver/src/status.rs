//! Failures as the Kubernetes API reports them: the `Status` object.

use serde_json::{Value, json};

/// One failed field of an object (`details.causes[]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// Machine-readable reason, e.g. `FieldValueInvalid`.
    pub reason: &'static str,
    /// What is wrong and what would be right.
    pub message: String,
    /// Path of the field, e.g. `spec.ports[0].port`.
    pub field: String,
}

/// A failure of an API call: the `Status` object of <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/>.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    /// HTTP status code.
    pub code: u16,
    /// Machine-readable reason, e.g. `NotFound`; clients branch on it.
    pub reason: &'static str,
    /// Text for people.
    pub message: String,
    /// The rest of the object; absent for failures that concern no object. Boxed: most results are successes.
    pub details: Option<Box<Details>>,
}

/// What a [`Status`] is about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Details {
    /// Name of the object.
    pub name: String,
    /// API group of the resource.
    pub group: String,
    /// Resource (plural) or kind.
    pub kind: String,
    /// The fields at fault.
    pub causes: Vec<Cause>,
    /// After how many seconds a client should try again; 0 when it should not.
    pub retry_after_seconds: u32,
    /// Of a list whose state is forgotten: the token by which it goes on in the newest one. Empty: there is none.
    pub resume: String,
}

impl Status {
    /// A failure without details.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None }
    }

    fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        self.details = Some(Box::new(Details {
            name: name.into(),
            group: group.into(),
            kind: kind.into(),
            ..Details::default()
        }));
        self
    }

    /// 404: no such object. `resource` is `pods` or `deployments.apps`.
    pub fn not_found(resource: &str, name: &str) -> Self {
        let (plural, group) = split(resource);
        Self::new(404, "NotFound", format!("{resource} \"{name}\" not found")).about(group, plural, name)
    }

    /// 404: no such path, group or resource.
    pub fn no_such_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }

    /// 409: the object exists.
    pub fn already_exists(resource: &str, name: &str) -> Self {
        let (plural, group) = split(resource);
        Self::new(409, "AlreadyExists", format!("{resource} \"{name}\" already exists"))
            .about(group, plural, name)
    }

    /// 409: somebody else changed the object, or a precondition failed.
    pub fn conflict(resource: &str, name: &str, why: &str) -> Self {
        let (plural, group) = split(resource);
        Self::new(409, "Conflict", format!("Operation cannot be fulfilled on {resource} \"{name}\": {why}"))
            .about(group, plural, name)
    }

    /// 409: the object changed since it was read.
    pub fn modified(resource: &str, name: &str) -> Self {
        Self::conflict(
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 422: fields with bad values. `kind` is `Service` or `Deployment.apps`.
    pub fn invalid(group: &str, kind: &str, name: &str, causes: Vec<Cause>) -> Self {
        let listed: Vec<String> = causes.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
        let text = match listed.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let full = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let mut status = Self::new(422, "Invalid", format!("{full} \"{name}\" is invalid: {text}"))
            .about(group, kind, name);
        if let Some(details) = &mut status.details {
            details.causes = causes;
        }
        status
    }

    /// 410: the resource version is too old; list again.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 410 to a list whose state is forgotten: it may go on in the newest one, by the token `resume`.
    pub(crate) fn expired_list(resume: String) -> Self {
        let mut status = Self::expired(
            "The provided continue parameter is too old to display a consistent list result. Start a new list without it, \
             or use the continue token of this answer for the rest of a list that may then be inconsistent: what was \
             created, changed or deleted since the first page may show up in it.",
        );
        status.details = Some(Box::new(Details { resume, ..Details::default() }));
        status
    }

    /// 504: a resource version that this server has not reached.
    pub(crate) fn too_large_version(asked: u64, newest: u64) -> Self {
        let why = format!("Too large resource version: {asked}, current: {newest}");
        let mut status = Self::new(504, "Timeout", why);
        let cause = Cause {
            reason: "ResourceVersionTooLarge",
            message: "Too large resource version".into(),
            field: String::new(),
        };
        let details = Details { causes: vec![cause], retry_after_seconds: 1, ..Details::default() };
        status.details = Some(Box::new(details));
        status
    }

    /// 403.
    pub fn forbidden(resource: &str, name: &str, why: &str) -> Self {
        let (plural, group) = split(resource);
        let object = if name.is_empty() { resource.to_owned() } else { format!("{resource} \"{name}\"") };
        Self::new(403, "Forbidden", format!("{object} is forbidden: {why}")).about(group, plural, name)
    }

    /// 401.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// 405.
    pub fn method_not_allowed() -> Self {
        Self::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }

    /// 415.
    pub fn unsupported_media_type(got: &str, supported: &str) -> Self {
        Self::new(
            415,
            "UnsupportedMediaType",
            format!(
                "the body of the request was in an unknown format \"{got}\" - accepted media types include: {supported}"
            ),
        )
    }

    /// 413.
    pub fn too_large(limit: usize) -> Self {
        Self::new(
            413,
            "RequestEntityTooLarge",
            format!("the request body is larger than the limit of {limit} bytes"),
        )
    }

    /// 500.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(500, "InternalError", format!("Internal error occurred: {}", message.into()))
    }

    /// 501: a part of the Kubernetes API that this server does not have.
    pub fn not_supported(what: &str) -> Self {
        Self::new(501, "NotImplemented", format!("{what} is not supported by Lateen's embedded API server"))
    }

    /// True for [`Status::not_found`].
    pub fn is_not_found(&self) -> bool {
        self.reason == "NotFound"
    }

    /// True for [`Status::conflict`] and [`Status::modified`].
    pub fn is_conflict(&self) -> bool {
        self.reason == "Conflict"
    }

    /// True for [`Status::already_exists`].
    pub fn is_already_exists(&self) -> bool {
        self.reason == "AlreadyExists"
    }

    /// True for [`Status::expired`].
    pub fn is_expired(&self) -> bool {
        self.code == 410
    }

    /// The object as JSON.
    pub fn to_json(&self) -> Value {
        let mut object = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if let Some(details) = &self.details {
            if !details.resume.is_empty() {
                object["metadata"]["continue"] = json!(details.resume);
            }
            object["details"] = details.to_json();
        }
        object
    }
}

impl Details {
    fn to_json(&self) -> Value {
        let mut object = serde_json::Map::new();
        for (key, text) in [("name", &self.name), ("group", &self.group), ("kind", &self.kind)] {
            if !text.is_empty() {
                object.insert(key.into(), json!(text));
            }
        }
        if !self.causes.is_empty() {
            let causes = self
                .causes
                .iter()
                .map(|c| json!({"reason": c.reason, "message": c.message, "field": c.field}));
            object.insert("causes".into(), causes.collect());
        }
        if self.retry_after_seconds > 0 {
            object.insert("retryAfterSeconds".into(), json!(self.retry_after_seconds));
        }
        Value::Object(object)
    }
}

impl Cause {
    /// A value that is not allowed there.
    pub fn invalid(field: impl Into<String>, value: &Value, why: impl std::fmt::Display) -> Self {
        Self {
            reason: "FieldValueInvalid",
            message: format!("Invalid value: {value}: {why}"),
            field: field.into(),
        }
    }

    /// A value that has to be given.
    pub fn required(field: impl Into<String>, why: &str) -> Self {
        let message =
            if why.is_empty() { "Required value".to_owned() } else { format!("Required value: {why}") };
        Self { reason: "FieldValueRequired", message, field: field.into() }
    }

    /// A value outside a closed set.
    pub fn not_supported(field: impl Into<String>, value: &Value, allowed: &[String]) -> Self {
        let listed: Vec<String> = allowed.iter().map(|a| format!("\"{a}\"")).collect();
        Self {
            reason: "FieldValueNotSupported",
            message: format!("Unsupported value: {value}: supported values: {}", listed.join(", ")),
            field: field.into(),
        }
    }

    /// A change that is not allowed.
    pub fn forbidden(field: impl Into<String>, why: &str) -> Self {
        Self { reason: "FieldValueForbidden", message: format!("Forbidden: {why}"), field: field.into() }
    }

    /// A value of the wrong type.
    pub fn type_mismatch(field: impl Into<String>, value: &Value, why: impl std::fmt::Display) -> Self {
        Self {
            reason: "FieldValueTypeInvalid",
            message: format!("Invalid value: {value}: {why}"),
            field: field.into(),
        }
    }
}

fn split(resource: &str) -> (&str, &str) {
    resource.split_once('.').unwrap_or((resource, ""))
}
