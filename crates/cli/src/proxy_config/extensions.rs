//! Extension configurations that come by discovery.

use serde_json::{Value, json};

use super::dump::Dump;
use super::{items, row, text};
use crate::commands::CliError;

/// All extension configurations of the dump, under one roof.
///
/// # Errors
/// When the dump has none.
pub(crate) fn select(dump: &Dump) -> Result<Value, CliError> {
    let sections = dump.sections("EcdsConfigDump")?;
    let filters: Vec<&Value> = sections.iter().flat_map(|section| items(section, "/ecdsFilters")).collect();
    Ok(json!({"ecdsFilters": filters}))
}

/// The table of extension configurations.
pub(crate) fn table(section: &Value) -> Vec<Vec<String>> {
    let mut rows = vec![row(["ECDS CONFIG NAME", "TYPE", "VERSION"])];
    for filter in items(section, "/ecdsFilters") {
        let kind = text(filter, "/ecdsFilter/typedConfig/@type");
        let kind = kind.rsplit_once('/').map_or(kind, |(_, kind)| kind);
        rows.push(row([text(filter, "/ecdsFilter/name"), kind, text(filter, "/versionInfo")]));
    }
    rows
}
