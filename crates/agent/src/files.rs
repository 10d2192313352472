//! The pod's files.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde_json::{Value, json};

/// What the downward API tells about the pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct PodInfo {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
}

impl PodInfo {
    /// Reads `etc/istio/pod`; a pod without it has no labels.
    pub(crate) fn read(root: &Path) -> Self {
        let read = |name: &str| {
            let text = std::fs::read_to_string(root.join("etc/istio/pod").join(name));
            parse(&text.unwrap_or_default())
        };
        Self { labels: read("labels"), annotations: read("annotations") }
    }
}

/// The mesh's configuration, below the root folder.
pub(crate) const MESH: &str = "etc/istio/config/mesh";

/// The `defaultConfig` of the mounted mesh configuration; empty where none is mounted.
///
/// # Errors
/// When the file cannot be read, or is no YAML.
pub(crate) fn mesh_defaults(root: &Path) -> Result<Value, String> {
    let text = match std::fs::read_to_string(root.join(MESH)) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(json!({})),
        Err(error) => return Err(error.to_string()),
    };
    let mesh: Value = serde_saphyr::from_str(&text).map_err(|error| error.to_string())?;
    match &mesh["defaultConfig"] {
        Value::Null => Ok(json!({})),
        config => Ok(config.clone()),
    }
}

/// Lines of `key="value"`, the value quoted as a JSON string is.
fn parse(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| {
            let (key, value) = line.split_once('=')?;
            let value = serde_json::from_str(value).unwrap_or_else(|_| value.trim_matches('"').to_owned());
            Some((key.to_owned(), value))
        })
        .collect()
}

/// A path without its root, so that it can lie under the pod's.
pub(crate) fn relative(path: &Path) -> PathBuf {
    path.components().filter(|c| matches!(c, Component::Normal(_) | Component::ParentDir)).collect()
}

/// A path as configurations write it: relative ones start with `./`.
pub(crate) fn text(path: &Path) -> String {
    let text = path.display().to_string();
    match path.is_absolute() || text.starts_with('.') {
        true => text,
        false => format!("./{text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn downward_api_lines() {
        let labels = parse("app=\"reviews\"\nnote=\"a \\\"b\\\"\\nc\"\n");
        assert_eq!(labels["app"], "reviews");
        assert_eq!(labels["note"], "a \"b\"\nc");
    }

    #[test]
    fn paths_stay_under_the_root() {
        assert_eq!(relative(Path::new("/etc/istio/proxy")), Path::new("etc/istio/proxy"));
        assert_eq!(text(&Path::new(".").join("a/b")), "./a/b");
    }
}
