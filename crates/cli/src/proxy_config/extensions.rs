//! Extension configurations that come by discovery.

use serde_json::{Value, json};

use super::dump::Dump;
use super::{items, row, text};

/// All extension configurations of the dump, under one roof. A proxy that discovers none leaves the section out.
pub(crate) fn select(dump: &Dump) -> Value {
    let sections = dump.sections("EcdsConfigDump").unwrap_or_default();
    let filters: Vec<&Value> = sections.iter().flat_map(|section| items(section, "/ecdsFilters")).collect();
    json!({"ecdsFilters": filters})
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
