//! YAML as `kubectl` reads it.

use serde_json::Value;
use serde_saphyr::options::DuplicateKeyPolicy;

/// Why a document is no YAML.
pub(super) struct YamlError {
    /// The line in the document, from 1.
    pub(super) line: usize,
    /// What is wrong.
    pub(super) message: String,
}

/// The documents of a stream, each with the number of its first line that says something.
pub(super) fn documents(text: &str) -> Vec<(usize, &str)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut documents = Vec::new();
    let (mut start, mut offset, mut number) = (0, 0, 1);
    let mut first_line = 1;
    for line in text.split_inclusive('\n') {
        if is_separator(line) {
            documents.push((first_line, &text[start..offset]));
            // What follows the dashes on their line belongs to the document.
            start = offset + 3;
            first_line = number;
        }
        offset += line.len();
        number += 1;
    }
    documents.push((first_line, &text[start..]));
    documents.into_iter().filter_map(|(line, text)| trimmed(line, text)).collect()
}

fn is_separator(line: &str) -> bool {
    line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

/// Without the empty lines and comments at the beginning; `None` when nothing is left.
fn trimmed(mut number: usize, text: &str) -> Option<(usize, &str)> {
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let said = line.trim();
        if !said.is_empty() && !said.starts_with('#') {
            return Some((number, &text[offset..]));
        }
        offset += line.len();
        number += 1;
    }
    None
}

/// Reads one document.
pub(super) fn parse(text: &str) -> Result<Value, YamlError> {
    let options = serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::Error,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| YamlError {
        line: error.location().map_or(1, |location| location.line() as usize),
        message: error.without_snippet().to_string(),
    })
}
