//! Templates that users have added: YAML of a pod.

use serde_json::Value;

use crate::InjectError;
use crate::container::Proxy;

/// The pod of a template.
pub(crate) fn render(name: &str, text: &str, _proxy: &Proxy<'_>) -> Result<Value, InjectError> {
    let bad = |message: String| InjectError::Template { name: name.to_owned(), message };
    if text.contains("{{") {
        return Err(bad(
            "actions ({{ }}) are not supported in custom templates: write the YAML of a pod".into()
        ));
    }
    read(text).map_err(bad)
}

/// What a template without actions says.
pub(crate) fn read(text: &str) -> Result<Value, String> {
    match serde_saphyr::from_str(text).map_err(|error| error.to_string())? {
        pod @ Value::Object(_) => Ok(pod),
        _ => Err("it is no object with metadata and spec".to_owned()),
    }
}
