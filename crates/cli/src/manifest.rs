//! Manifests from files, folders and standard input, as JSON objects.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::commands::CliError;

/// An object of a manifest, with where it stands.
pub(crate) struct Document {
    /// `FILE (document N)`.
    pub(crate) origin: String,
    /// The object.
    pub(crate) object: Value,
}

/// Reads every object of these files; a folder means its YAML and JSON files, `-` standard input. Lists are taken apart.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Vec<Document>, CliError> {
    let mut documents = Vec::new();
    for path in paths {
        for (name, text) in texts(path)? {
            let parsed = serde_saphyr::from_multiple::<Value>(&text)
                .map_err(|error| CliError(format!("{name}: {error}")))?;
            for (at, object) in parsed.into_iter().enumerate() {
                collect(object, format!("{name} (document {})", at + 1), &mut documents);
            }
        }
    }
    Ok(documents)
}

/// Reads every document of these files, as [`read`] does, with lists left whole.
pub(crate) fn read_whole(paths: &[PathBuf]) -> Result<Vec<Document>, CliError> {
    let mut documents = Vec::new();
    for (name, text) in texts_of(paths)? {
        let parsed = serde_saphyr::from_multiple::<Value>(&text)
            .map_err(|error| CliError(format!("{name}: {error}")))?;
        let objects = parsed.into_iter().enumerate().filter(|(_, object)| !object.is_null());
        documents.extend(
            objects.map(|(at, object)| Document { origin: format!("{name} (document {})", at + 1), object }),
        );
    }
    Ok(documents)
}

/// The text of every file of these paths, with its name; a folder means its YAML and JSON files, `-` standard input.
pub(crate) fn texts_of(paths: &[PathBuf]) -> Result<Vec<(String, String)>, CliError> {
    let mut all = Vec::new();
    for path in paths {
        all.extend(texts(path)?);
    }
    Ok(all)
}

fn collect(object: Value, origin: String, documents: &mut Vec<Document>) {
    let is_list = object["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
    match object {
        Value::Null => {}
        Value::Object(mut list) if is_list && list.get("items").is_some_and(Value::is_array) => {
            if let Some(Value::Array(items)) = list.remove("items") {
                for (at, item) in items.into_iter().enumerate() {
                    collect(item, format!("{origin}, item {}", at + 1), documents);
                }
            }
        }
        object => documents.push(Document { origin, object }),
    }
}

fn texts(path: &Path) -> Result<Vec<(String, String)>, CliError> {
    let unreadable = |path: &Path, error: std::io::Error| CliError(format!("{}: {error}", path.display()));
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(|error| unreadable(path, error))?;
        return Ok(vec![("standard input".into(), text)]);
    }
    let mut files = vec![path.to_owned()];
    if path.is_dir() {
        files = std::fs::read_dir(path)
            .map_err(|error| unreadable(path, error))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|file| matches!(file.extension().and_then(|e| e.to_str()), Some("yaml" | "yml" | "json")))
            .collect();
        files.sort();
        if files.is_empty() {
            return Err(CliError(format!(
                "{}: no file with the extension .yaml, .yml or .json; folders inside are not looked into",
                path.display()
            )));
        }
    }
    files
        .into_iter()
        .map(|file| match std::fs::read_to_string(&file) {
            Ok(text) => Ok((file.display().to_string(), text)),
            Err(error) => Err(unreadable(&file, error)),
        })
        .collect()
}
